"""What a link loses: sequence numbers of frames and indices of samples, followed exactly. See `Track`.

Everything lost is counted where the next frame shows that it is missing; nothing is ever joined across a gap.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from fisher_bridge.clock import RateMeter
from fisher_bridge.messages import Data, StreamInfo
from fisher_bridge.samples import raw_samples

__all__ = ["SEQUENCES", "Counts", "Joiner", "Samples", "Track"]

SEQUENCES = 1 << 32
RATE_POINT_S = 0.05


@dataclass
class Counts:
    """What became of the frames and samples of one session; samples are counted per channel."""

    frames: int = 0
    lost_frames: int = 0
    """Missing in the sequence: never arrived, or arrived damaged."""
    damaged: int = 0
    """Pieces between two delimiters that were no frame."""
    invalid: int = 0
    """Sound frames whose body is not what their type says."""
    samples: int = 0
    lost_samples: int = 0
    """Missing because the link lost frames."""
    dropped_samples: int = 0
    """Missing because the device did not send them."""
    unannounced_samples: int = 0
    """Left out because no HELLO had announced their run yet; where the run is known later, they count as missing."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Consecutive samples of all channels of one stream.

    `raw` has shape (n, channels), as sent; `index` is the position of the first in the session and skips what is
    missing; `ticks` (unwrapped) is when it was taken, `time_s` the same by `time.monotonic` (NaN: not known).
    """

    stream: StreamInfo
    raw: npt.NDArray[Any]
    index: int
    ticks: int
    time_s: float = math.nan


class Track:
    """Follows one run of one stream.

    `base` is added to the index of the device, so that a run begins after the one before it. `expected` is the index
    the next DATA should have; None when this session did not see the run begin.
    """

    def __init__(self, info: StreamInfo, base: int, expected: int | None, *, link_lost: bool = False) -> None:
        self.info = info
        self.base = base
        self.meter = RateMeter(info.rate_hz)
        self.link_lost = link_lost
        self._expected = expected
        self._measured_s = 0.0

    def fits(self, run: int, data: Data) -> bool:
        """Whether a DATA belongs to the run this track knows."""
        return (run, data.format, data.channels) == (self.info.run, self.info.format, self.info.channels)

    def follow(self, data: Data, counts: Counts) -> bool:
        """Count what is missing before a DATA and what it holds; False for an index that goes back."""
        missing = 0 if self._expected is None else data.first - self._expected
        if missing < 0:
            return False
        self._expected = data.first + data.samples
        counts.samples += data.samples
        if self.link_lost:
            counts.lost_samples += missing
            self.link_lost = False
        else:
            counts.dropped_samples += missing
        return True

    def measure(self, data: Data, ticks: int, now_s: float) -> None:
        """Keep a point for the rate now and then."""
        if now_s - self._measured_s >= RATE_POINT_S:
            self.meter.add(data.first, ticks)
            self._measured_s = now_s

    def successor(self, info: StreamInfo, *, from_start: bool) -> "Track":
        """Return the track of the next run. At least one index is skipped after samples of this run."""
        base = self.base + self._expected + 1 if self._expected else self.base
        return Track(info, base, 0 if from_start else None, link_lost=self.link_lost)


class Joiner:
    """Joins the payloads of DATA that follow one another, so that arrays are made of many frames at once."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[Track, int, int, int, list[bytes]]] = {}
        self._done: list[Samples] = []

    def add(self, number: int, track: Track, data: Data, ticks: int) -> None:
        """Take the samples of one DATA of stream `number`."""
        index = track.base + data.first
        known = self._open.get(number)
        if known is not None and known[0] is track and known[3] == index:
            known[4].append(data.payload)
            self._open[number] = (*known[:3], index + data.samples, known[4])
            return
        self._close(number)
        self._open[number] = (track, index, ticks, index + data.samples, [data.payload])

    def finish(self) -> list[Samples]:
        """Return everything added since the last call, each stream's in its order."""
        for number in list(self._open):
            self._close(number)
        done, self._done = self._done, []
        return done

    def _close(self, number: int) -> None:
        """Make one array of what follows one another in a stream."""
        if number in self._open:
            track, index, ticks, _, payloads = self._open.pop(number)
            raw = raw_samples(b"".join(payloads), track.info.format, track.info.channels)
            self._done.append(Samples(track.info, raw, index, ticks))
