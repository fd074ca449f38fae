"""Shows how far training is: a bar on a terminal, plain lines elsewhere; the first process only.

Start at `watch`.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar

__all__ = ["Progress", "describe", "watch"]

LINE_EVERY_S = 30.0


class Progress:
    """The line or the bar of one run."""

    def __init__(self, stream: TextIO, bar: Bar | None) -> None:
        self._stream = stream
        self._bar = bar
        self._task = bar.add_task("", total=1.0) if bar else None
        self._shown = -float("inf")

    def say(self, text: str) -> None:
        """Show a remark above the bar."""
        print(text, file=self._stream, flush=True)

    def show(self, step: int, done: float, line: Mapping[str, float]) -> None:
        """Show a line of the log; `done` is the share of the run that is behind."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=min(1.0, done), description=describe(step, done, line))
        elif time.monotonic() - self._shown >= LINE_EVERY_S or done >= 1:
            self.say(f"{min(1.0, done):4.0%}  {describe(step, done, line)}")
            self._shown = time.monotonic()


@contextmanager
def watch(*, first: bool, stream: TextIO | None = None) -> Iterator[Progress | None]:
    """Watch a run on a stream (standard error); the other processes show nothing."""
    stream = stream or sys.stderr
    console = Console(file=stream)
    if not first:
        yield None
    elif not console.is_terminal:
        yield Progress(stream, None)
    else:
        columns = (BarColumn(bar_width=24), TaskProgressColumn(), TextColumn("{task.description}"))
        with Bar(*columns, console=console) as bar:
            yield Progress(stream, bar)


def describe(step: int, done: float, line: Mapping[str, float]) -> str:
    """Return step, loss, speed and time to go, as `step 1200  loss 0.8123  410 bands/s  12 min to go`."""
    left_s = line["elapsed_s"] * (1 - done) / done if done > 0 else 0.0
    return f"step {step}  loss {line['loss']:.4f}  {line['bands_per_s']:.0f} bands/s  {_span(max(0.0, left_s))} to go"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
