"""Recordings of a sensor that sends bursts: arrays of snapshots x samples, and files of one burst each.

Start at `read_bursts`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

from fisher_edge.dsp.blocks import Block, FloatArray, Rate, as_rate, rate_text
from fisher_edge.errors import BadInputError, UsageError
from fisher_edge.sources.recording import Recording, check_samples, read_array_header, read_recording

__all__ = ["BurstRecording", "read_bursts"]

# Seconds by which a burst may begin before the one before it has ended: rounding of the interval.
ROUNDING_S = 1e-6


@dataclass(frozen=True)
class BurstRecording:
    """Consecutive bursts of one sensor at `rate_hz`, read again at every call of `blocks`.

    `lengths` are the samples of each burst, `starts_s` when each begins, in seconds from the first one: the real times
    when it is `timed`, else as if bursts followed each other at once. Without `files`
    the bursts are the rows of the array at `path`; else each is one of them, and `path` is the first. `recorded_s` is
    the time of the first sample where the file says it (seconds since 1970-01-01 UTC).
    """

    path: Path
    rate_hz: Rate
    lengths: tuple[int, ...]
    starts_s: tuple[float, ...]
    files: tuple[Recording, ...] = ()
    recorded_s: float | None = None
    timed: bool = False

    def every(self, interval_s: float) -> "BurstRecording":
        """Return the recording with a burst every `interval_s`, as given; BadInputError when bursts last longer."""
        return replace(self, starts_s=_starts(self.path, self.lengths, self.rate_hz, interval_s), timed=True)

    @property
    def length(self) -> int:
        """Samples of all bursts together."""
        return sum(self.lengths)

    @property
    def interval_s(self) -> float:
        """Mean time from one burst to the next; of a single burst its length."""
        if len(self.lengths) == 1:
            return float(self.length / self.rate_hz)
        return (self.starts_s[-1] - self.starts_s[0]) / (len(self.lengths) - 1)

    def blocks(self) -> Iterator[FloatArray]:
        """Yield the samples of each burst, in order."""
        if self.files:
            for file in self.files:
                yield file.samples
        else:
            yield from _rows(self.path, len(self.lengths))

    def stream(self) -> Iterator[Block]:
        """Yield a block for each burst: its time counts from the first one, its index jumps from burst to burst."""
        index = 0
        for samples, start_s in zip(self.blocks(), self.starts_s, strict=True):
            yield Block(samples, self.rate_hz, index, start_s)
            index += len(samples) + 1


def read_bursts(
    paths: Sequence[Path],
    *,
    rate_hz: float | str | Fraction | None = None,
    channel: int | None = None,
    interval_s: float | None = None,
) -> list[BurstRecording]:
    """Open recordings of bursts and read each once to check every sample.

    An array of two dimensions (snapshots x samples) is one recording. Every other file is one burst: those of one
    folder are one recording, in the order given. Without `interval_s` bursts begin when their files say, or else follow
    each other at once. Raises BadInputError with one line.
    """
    recordings: list[BurstRecording] = []
    folders: dict[Path, list[Recording]] = {}
    for path in paths:
        if _is_array_of_bursts(path):
            recordings.append(_array(path, rate_hz, channel, interval_s))
        else:
            folders.setdefault(path.parent, []).append(read_recording(path, rate_hz=rate_hz, channel=channel))
    return recordings + [_joined(files, interval_s) for files in folders.values()]


def _is_array_of_bursts(path: Path) -> bool:
    """Whether a file is an array of two dimensions; what is not there or no array is for `read_recording` to refuse."""
    return path.suffix.lower() == ".npy" and path.is_file() and path.stat().st_size > 0 and read_array_header(path)[1]


def _array(
    path: Path, rate_hz: float | str | Fraction | None, channel: int | None, interval_s: float | None
) -> BurstRecording:
    """Open an array whose rows are bursts."""
    if channel is not None:
        raise UsageError(f"{path} holds bursts of one channel, a row each; leave --input-channel out")
    if rate_hz is None:
        raise BadInputError(f"{path} carries no sampling rate; give it with --rate-hz")
    (bursts, samples), _ = read_array_header(path)
    if bursts * samples == 0:
        raise BadInputError(f"{path} holds no samples; record it again")
    check_samples(path, _rows(path, bursts))
    rate, lengths = as_rate(rate_hz), (samples,) * bursts
    starts_s = _starts(path, lengths, rate, interval_s)
    return BurstRecording(path, rate, lengths, starts_s, timed=interval_s is not None)


def _joined(files: Sequence[Recording], interval_s: float | None) -> BurstRecording:
    """Make one recording of files of one burst each."""
    first = files[0]
    if len(files) == 1:
        raise BadInputError(
            f"{first.path} has one dimension and is a single burst; give the files of all bursts, or an array of "
            "snapshots x samples, or leave --bursts out for a continuous recording"
        )
    rates = sorted({file.rate_hz for file in files})
    if len(rates) > 1:
        raise BadInputError(
            f"bursts in {first.path.parent} have {', '.join(map(rate_text, rates))} Hz; give bursts of one rate"
        )
    lengths = tuple(file.length for file in files)
    known_s = _recorded(files) if interval_s is None else None
    starts_s = known_s or _starts(first.path, lengths, first.rate_hz, interval_s)
    timed = known_s is not None or interval_s is not None
    return BurstRecording(first.path, first.rate_hz, lengths, starts_s, tuple(files), first.recorded_s, timed)


def _recorded(files: Sequence[Recording]) -> tuple[float, ...] | None:
    """When each burst begins by what the files say; None unless all do, and bursts follow each other."""
    times_s = [file.recorded_s for file in files if file.recorded_s is not None]
    if len(times_s) < len(files):
        return None
    starts_s = tuple(time_s - times_s[0] for time_s in times_s)
    in_order = all(
        later - earlier > file.length / file.rate_hz
        for file, (earlier, later) in zip(files[:-1], pairwise(starts_s), strict=True)
    )
    return starts_s if in_order else None


def _starts(path: Path, lengths: Sequence[int], rate_hz: Rate, interval_s: float | None) -> tuple[float, ...]:
    """When each burst begins: every `interval_s`, or at once after the one before."""
    longest_s = float(max(lengths) / rate_hz)
    if interval_s is None:
        return tuple(float(samples / rate_hz) for samples in np.cumsum([0, *lengths[:-1]]).tolist())
    if not longest_s - ROUNDING_S <= interval_s < float("inf"):
        raise BadInputError(
            f"bursts of {path} last {longest_s:.4g} s and cannot begin every {interval_s:g} s; give the time from the "
            "start of a burst to that of the next with --burst-interval-s"
        )
    return tuple(interval_s * number for number in range(len(lengths)))


def _rows(path: Path, bursts: int) -> Iterator[FloatArray]:
    """Yield the rows of an array file as float32."""
    array = np.lib.format.open_memmap(path, mode="r")
    if len(array) != bursts:
        raise BadInputError(f"{path} had {bursts} bursts and has {len(array)} now; read it when it is complete")
    with path.open("rb") as file:
        file.seek(array.offset)
        for row in array:
            # Pages of a map that are touched once would stay, so that rows are read instead where they lie in order.
            samples = np.fromfile(file, array.dtype, len(row)) if array.flags.c_contiguous else row
            with np.errstate(over="ignore"):  # what does not fit becomes infinite, which is refused
                yield np.array(samples, np.float32)
