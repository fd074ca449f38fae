"""Engines that took minutes to build, kept for the next start. See `open_engine`.

An engine fits one library version and one GPU, and loading it runs what is in it. It is therefore kept in a folder
that nobody else may write, under the hash of its key, and beside it the key and the SHA-256 of the engine. What does
not match is built again.
"""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from fisher_edge.errors import StateError

__all__ = ["Key", "open_engine", "private_folder"]

Key = dict[str, str]
Engine = TypeVar("Engine")

# Engines kept at most: those used last.
KEPT = 16
# The parts of a key that change when a machine is updated; engines that differ in nothing else are no longer needed.
OF_THE_MACHINE = ("version", "device")
LOCK_NAME = "lock"

log = logging.getLogger(__name__)


def open_engine(folder: Path, key: Key, build: Callable[[], bytes], load: Callable[[bytes], Engine | None]) -> Engine:
    """Return the engine of a key: the one kept in `folder`, or a new one, which is then kept.

    `load` makes an engine of bytes, or returns None for bytes that the library refuses. One process builds at a time;
    others wait and then find its engine. Raises StateError when the folder cannot be used, and whatever `build` raises.
    """
    private_folder(folder)
    path = folder / f"{_name(key)}.engine"
    with _locked(folder):
        kept = _read(path, key)
        if kept is not None:
            engine = load(kept)
            if engine is not None:
                os.utime(path)
                return engine
            log.warning("the library refuses the engine %s; it is built again", path)
        data = build()
        engine = load(data)
        if engine is None:
            raise StateError(f"the engine that was just built for {key} cannot be loaded; report this with the log")
        _write(path, key, data)
        _prune(folder, path, key)
    return engine


def private_folder(folder: Path) -> Path:
    """Make a folder that only this user may read and write; StateError where it is somebody else's."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_uid != os.getuid():
            raise StateError(f"{folder} belongs to another user, who could replace engines in it; delete it")
        folder.chmod(0o700)
    except OSError as error:
        raise StateError(f"cannot use the folder {folder} for engines: {error.strerror}; correct it") from error
    return folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder; the kernel lets go when this one dies."""
    descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _name(key: Key) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _facts(path: Path) -> dict[str, object]:
    """Return what is recorded beside an engine; nothing where that is missing or damaged."""
    try:
        facts = json.loads(path.with_suffix(".json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _read(path: Path, key: Key) -> bytes | None:
    """Return a kept engine; None where there is none, or not the one that was written there for this key."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if _facts(path) == {"key": key, "sha256": hashlib.sha256(data).hexdigest()}:
        return data
    log.warning("the engine %s is not what was written there; it is built again", path)
    return None


def _write(path: Path, key: Key, data: bytes) -> None:
    """Write an engine and what it is, whole or not at all; a full disk costs the next start another build."""
    facts = json.dumps({"key": key, "sha256": hashlib.sha256(data).hexdigest()}, indent=2).encode()
    try:
        for target, content in ((path, data), (path.with_suffix(".json"), facts)):
            partial = target.with_name(f"{target.name}.partial")
            partial.write_bytes(content)
            partial.replace(target)
    except OSError as error:
        log.warning("cannot keep the engine %s (%s); it will be built again at the next start", path, error.strerror)


def _prune(folder: Path, newest: Path, key: Key) -> None:
    """Delete engines that an update has replaced, and the oldest of too many."""
    others = sorted(
        (path for path in folder.glob("*.engine") if path != newest),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    for number, path in enumerate(others, 2):
        if number > KEPT or _without_machine(_facts(path).get("key")) == _without_machine(key):
            for file in (path, path.with_suffix(".json")):
                with suppress(OSError):
                    file.unlink()
            log.info("the engine %s is no longer needed and was deleted", path)


def _without_machine(key: object) -> Key | None:
    """Return a key without what an update changes."""
    if not isinstance(key, dict):
        return None
    return {name: value for name, value in key.items() if name not in OF_THE_MACHINE}
