"""One file of a publisher, the facts in its name, and the channels that are used of it."""

from dataclasses import dataclass
from pathlib import Path

from fisher_edge.errors import BadInputError

__all__ = ["Channel", "DamagedError", "Source"]


class DamagedError(BadInputError):
    """A file is not what its name says. It is left out and the reason is reported."""


@dataclass(frozen=True)
class Channel:
    """A channel that becomes a clip of its own."""

    number: int
    """As the benchmark names it; 0: the file has only one."""
    name: str
    """Flattened name of the clip, without the number of the segment."""
    key: str
    """What a sealed split keeps together."""
    place: int | str = 0
    """Where the file has it: a column from 0, a variable or an entry."""


@dataclass(frozen=True)
class Source:
    """A recording as it was published."""

    path: Path
    file: str
    """Relative to the folder that is prepared, with forward slashes."""
    label: str
    channels: tuple[Channel, ...]
    condition: str = ""
    split: str = ""
    """Of an official split: train or test."""
