"""A run on disk: its folder, and what keeps another run or another process out of it.

A run is a folder: `run.json` (settings), `log.jsonl` and `tensorboard/` (logs.py), `step-*/` (state.py) and, when
it has finished, `final/` (the checkpoint). Start at `open_run`.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fisher_edge.errors import BadArtifactError, StateError, UsageError
from fisher_train.run.settings import Settings

__all__ = ["open_run", "replace_file", "writing"]


@contextmanager
def open_run(out: Path, settings: Settings) -> Iterator[None]:
    """Hold the folder of a run: make it, or check that the run in it is this one.

    Raises UsageError when the folder cannot be made, another process trains in it or its run has other settings,
    BadArtifactError when its `run.json` is damaged.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{out} cannot be used as a folder ({error.strerror}); choose another --out") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go by the system however the process ends
        except BlockingIOError as error:
            raise UsageError(f"{out} is being trained in by another process; wait or choose another --out") from error
        _check_settings(out, settings)
        yield


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn an OSError of the block into a StateError that says what to do."""
    try:
        yield
    except OSError as error:
        raise StateError(
            f"{out} cannot be written ({error.strerror or error}); make room or repair it, then the same command "
            "continues the run from its newest checkpoint"
        ) from error


def replace_file(path: Path, content: bytes) -> None:
    """Write a file under another name and rename it, so that it is never seen half-written."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    beside.write_bytes(content)
    beside.replace(path)


def _check_settings(out: Path, settings: Settings) -> None:
    wanted, path = settings.to_dict(), out / "run.json"
    if not path.exists():
        with writing(out):
            replace_file(path, (json.dumps(wanted, indent=2) + "\n").encode())
        return
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise BadArtifactError(f"{path} is not JSON; delete the folder to start again") from error
    if found != wanted:
        raise UsageError(f"{out} holds a run with other settings ({_difference(found, wanted)}); choose another --out")


def _difference(found: object, wanted: dict[str, Any]) -> str:
    if not isinstance(found, dict):
        return "unreadable"
    keys = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
    return ", ".join(f"{key} {found.get(key)} there, {wanted.get(key)} asked for" for key in keys)
