"""The log of a run: `log.jsonl` and TensorBoard's event files, written by the first process.

Start at `Log`. Both are cut to the step from which a run is continued.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fisher_edge.errors import MissingExtraError
from fisher_train.run.folder import replace_file

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["Log", "open_log"]

Line = Mapping[str, float]
DIGITS = 9
"""Significant digits of a number: those that tell any two float32 apart."""


class Log:
    """Writes lines of numbers by step to `log.jsonl` and, where asked for, to TensorBoard."""

    def __init__(self, path: Path, board: "SummaryWriter | None") -> None:
        self._path = path
        self._board = board

    def write(self, step: int, line: Line) -> None:
        """Append one line; raises OSError when it cannot be written."""
        shortened = {name: float(f"{value:.{DIGITS}g}") for name, value in line.items()}
        text = json.dumps({"step": step, **{name: _json(value) for name, value in shortened.items()}})
        with self._path.open("a", encoding="utf-8") as log:
            log.write(text + "\n")
        if self._board is not None:
            for name, value in shortened.items():
                self._board.add_scalar(name, value, step)

    def flush(self) -> None:
        """Bring everything to the disk, as before a checkpoint: what was logged up to it is then never lost."""
        if self._board is not None:
            self._board.flush()


@contextmanager
def open_log(out: Path, step: int, *, tensorboard: bool) -> Iterator[Log]:
    """Open the log of a run that continues from a step: what was logged after it is forgotten.

    Raises MissingExtraError when TensorBoard is asked for and not installed.
    """
    _cut(out / "log.jsonl", step)
    board = _open_board(out / "tensorboard", step) if tensorboard else None
    try:
        yield Log(out / "log.jsonl", board)
    finally:
        if board is not None:
            board.close()


def _open_board(folder: Path, step: int) -> "SummaryWriter":
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 -- only where it is asked for
    except ImportError as error:
        raise MissingExtraError("tensorboard", "train") from error
    # Readers of event files drop what was written at this step or later when they meet `purge_step`.
    return SummaryWriter(str(folder), purge_step=step + 1 if folder.exists() else None)


def _cut(path: Path, step: int) -> None:
    """Forget lines that were written after the checkpoint from which the run continues."""
    if not path.exists():
        return
    kept = [line for line in path.read_text("utf-8").splitlines() if _step_of(line) <= step]
    replace_file(path, "".join(line + "\n" for line in kept).encode())


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line cut short when the run was ended


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None
