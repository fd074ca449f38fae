"""Plain sources for tests of the gateway: blocks that are given, on a clock that is given."""

import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType

import numpy as np

from fisher_edge.dsp.blocks import Block, FloatArray

__all__ = ["FakeClock", "PlainSource", "blocks_of"]


class FakeClock:
    """A clock that moves only when a test moves it."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds


class PlainSource:
    """Yields what `script` yields each time it is opened, and counts how often it is opened and closed."""

    def __init__(
        self, script: Callable[[threading.Event], Iterable[Block]], *, finite: bool = False, patient: bool = True
    ) -> None:
        self.script = script
        self.finite = finite
        self.patient = patient
        self.opened = 0
        self.closed = 0

    def __enter__(self) -> "PlainSource":
        self.opened += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.closed += 1

    def blocks(self, stop: threading.Event) -> Iterator[Block]:
        """Yield the blocks of the script."""
        yield from self.script(stop)


def blocks_of(
    samples: FloatArray,
    rate_hz: int,
    *,
    block_s: float = 0.5,
    time_s: float = 1000.0,
    lose_every_s: float | None = None,
) -> Iterator[Block]:
    """Cut samples (n,) into blocks; with `lose_every_s` one sample is lost that often."""
    step, index = max(1, round(block_s * rate_hz)), 0
    until_loss = None if lose_every_s is None else round(lose_every_s * rate_hz)
    for first in range(0, len(samples), step):
        part = np.asarray(samples[first : first + step], np.float32)
        yield Block(part, rate_hz, index, time_s + index / rate_hz)
        index += len(part)
        if until_loss is not None and index >= until_loss:
            index += 1
            until_loss += round((lose_every_s or 0.0) * rate_hz)
