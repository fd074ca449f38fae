"""What a source of samples is, and what it is given when it is opened."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from fisher_edge.dsp.blocks import Block
from fisher_edge.names import ChannelKey

__all__ = ["Source", "SourceContext"]


@dataclass(frozen=True)
class SourceContext:
    """The channel a source is opened for.

    Relative paths among the keys of the source count from `base_dir`, the folder of the configuration. Samples are in
    `unit` once they are multiplied by `scale`, which the source does. `clock` gives seconds since 1970-01-01 UTC.
    """

    key: ChannelKey
    base_dir: Path = Path()
    unit: str = ""
    scale: float = 1.0
    clock: Callable[[], float] = time.time


class Source(Protocol):
    """Yields the blocks of one channel while it is open: `with source: for block in source.blocks(stop): ...`.

    A source that has failed is closed and opened again, so it must bear that.
    """

    @property
    def finite(self) -> bool:
        """Whether the source may end: a recording that does not loop does. A live source that ends has failed."""
        ...

    @property
    def patient(self) -> bool:
        """Whether the source can wait for its consumer; a live sensor cannot."""
        ...

    def __enter__(self) -> "Source":
        """Open what the samples come from; nothing was opened before."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Close it, and wait for every thread of its own to end."""
        ...

    def blocks(self, stop: threading.Event) -> Iterator[Block]:
        """Yield blocks until the source ends or `stop` is set.

        Raises SensorError when the sensor cannot be trusted, BadInputError when its samples cannot be had.
        """
        ...
