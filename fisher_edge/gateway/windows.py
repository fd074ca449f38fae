"""Windows of recordings, as the stream of a running sensor would give them. Start at `windows_of`."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from fisher_edge.dsp.blocks import Block, Rate, rate_text
from fisher_edge.dsp.bursts import BurstStream
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import Grid
from fisher_edge.dsp.resample import HALF_LENGTH, stream_at
from fisher_edge.dsp.stream import Piece
from fisher_edge.dsp.views import View
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.windows import EmbeddedWindow, WindowJoiner, read
from fisher_edge.errors import BadInputError
from fisher_edge.sources.bursts import BurstRecording, read_bursts
from fisher_edge.sources.recording import Recording, read_recording
from fisher_edge.store.baselines import Baseline

__all__ = ["Recorded", "burst_frames", "digest_of", "read_again", "timed_as", "windows_of"]

# Recordings are cut a stretch at a time, so that only the pieces under way are in memory.
STRETCH_S = 1.0

Recorded = Recording | BurstRecording


def windows_of(
    recording: Recorded,
    encoder: Encoder,
    front_end: FrontEnd,
    grid: Grid,
    *,
    views: Sequence[View] | None = None,
    rate_hz: Rate | None = None,
) -> Iterator[EmbeddedWindow]:
    """Embed the windows that the stream of a recording would give; time stamps count from its start.

    An unbroken recording is brought to `rate_hz` where that is lower than its own. Raises BadInputError when it is
    shorter than a window or its samples are all the same.
    """
    frames = (grid.window_pieces - 1) * grid.piece_hop_frames + grid.piece_frames
    rate_hz = recording.rate_hz if rate_hz is None else rate_hz
    _check_length(recording, front_end, grid, frames, rate_hz)
    flat = _flat_value(recording)
    if flat is not None:
        raise BadInputError(f"{recording.path}: flat line: every sample is {flat:g}; check the sensor and record again")
    joiner = WindowJoiner(grid)
    for piece in _pieces(recording, front_end, grid, rate_hz):
        for reading in read(encoder, front_end, [piece], views=views):
            window = joiner.push(reading)
            if window is not None:
                yield window


def _check_length(recording: Recorded, front_end: FrontEnd, grid: Grid, frames: int, rate_hz: Rate) -> None:
    """Refuse a recording without a whole window, which takes so many frames."""
    if isinstance(recording, BurstRecording):
        _check_burst_frames(recording, front_end, frames)
        return
    needed = front_end.n_samples(frames, rate_hz)
    if rate_hz != recording.rate_hz:
        needed = math.ceil((needed + 2 * HALF_LENGTH) * recording.rate_hz / rate_hz)
    if recording.length < needed:
        longest_s = recording.length / recording.rate_hz
        raise BadInputError(
            f"{recording.path} has {recording.length} samples at {rate_text(recording.rate_hz)} Hz, a window of "
            f"{grid.window_s:g} s takes {needed}; "
            + (f"use --window-s {float(longest_s) - 0.02:.2f} or less" if longest_s >= 0.2 else "record longer")
        )


def _check_burst_frames(recording: BurstRecording, front_end: FrontEnd, needed: int) -> None:
    """Refuse bursts without a whole frame, and too few of them for a window of so many frames."""
    rate_hz, shortest = recording.rate_hz, min(recording.lengths)
    if shortest < front_end.n_fft(rate_hz):
        raise BadInputError(
            f"{recording.path}: burst {recording.lengths.index(shortest) + 1} has {shortest} samples, fewer than one "
            f"frame of {front_end.n_fft(rate_hz)} ({front_end.win_ms} ms at {rate_text(rate_hz)} Hz); record longer "
            "bursts, and save an array as snapshots x samples"
        )
    frames = burst_frames(recording, front_end)
    if frames < needed:
        raise BadInputError(
            f"{recording.path} has {len(recording.lengths)} bursts with {frames} whole frames, a window takes "
            f"{needed}; record more bursts or choose a shorter --window-s"
        )


def digest_of(recording: Recorded) -> bytes:
    """Digest of all samples: that of a copy is the same."""
    digest = hashlib.blake2b()
    for block in recording.blocks():
        digest.update(block.data)
    return digest.digest()


def burst_frames(recording: BurstRecording, front_end: FrontEnd) -> int:
    """Whole frames in all bursts together."""
    return sum(front_end.n_frames(samples, recording.rate_hz) for samples in recording.lengths)


def read_again(files: Sequence[Path], baseline: Baseline) -> list[Recorded]:
    """Open the kept recordings of a baseline."""
    if not baseline.grid.bursts:
        return [read_recording(file, rate_hz=baseline.rate_hz) for file in files]
    return [timed_as(baseline, recording) for recording in read_bursts(files, rate_hz=baseline.rate_hz)]


def timed_as(baseline: Baseline, recording: BurstRecording) -> BurstRecording:
    """Return a recording of bursts that does not say when they begin with the interval of those enrolled."""
    front_end, rate_hz = baseline.front_end or FrontEnd(), recording.rate_hz
    signal_s = front_end.seconds_of(burst_frames(recording, front_end), rate_hz)
    interval_s = baseline.grid.time_factor * signal_s / len(recording.lengths)
    return recording.every(max(interval_s, float(max(recording.lengths) / rate_hz)))


def _pieces(recording: Recorded, front_end: FrontEnd, grid: Grid, to_hz: Rate) -> Iterator[Piece]:
    """Push a recording through a stream a stretch, or a burst, at a time."""
    rate_hz, index = recording.rate_hz, 0
    if isinstance(recording, BurstRecording):
        bursts = BurstStream(front_end, rate_hz, grid)
        for block in recording.stream():
            yield from bursts.push(block)
        yield from bursts.end()
        return
    stream = stream_at(front_end, rate_hz, to_hz, grid)
    for samples in recording.blocks(max(1, round(STRETCH_S * rate_hz))):
        yield from stream.push(Block(samples, rate_hz, index, float(index / rate_hz)))
        index += len(samples)


def _flat_value(recording: Recorded) -> float | None:
    """The one value that every sample of a recording has; None when there are several."""
    first = next(iter(recording.blocks()))[0]
    return float(first) if all(bool((block == first).all()) for block in recording.blocks()) else None
