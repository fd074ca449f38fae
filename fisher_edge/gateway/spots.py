"""Short stretches of recordings in which changes are tried. Start at `spots_of`."""

import math
from collections.abc import Sequence

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.changes import Spot
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import Grid
from fisher_edge.sources.bursts import BurstRecording
from fisher_edge.sources.recording import Recording

__all__ = ["spots_of"]

SPOTS = 6
"""Stretches that are enough for the mean shift of an embedding; see LOG.md."""


def spots_of(
    recordings: Sequence[Recording | BurstRecording], front_end: FrontEnd, grid: Grid
) -> list[tuple[Spot, ...]]:
    """Return stretches of one piece of recordings: of up to six of them, spread evenly over those and over their time.

    A recording too short for a piece gives none.
    """
    chosen = set(np.linspace(0, len(recordings) - 1, min(SPOTS, len(recordings))).round().astype(int).tolist())
    count = math.ceil(SPOTS / len(recordings))
    return [
        _spots(recording, front_end, grid, count) if number in chosen else ()
        for number, recording in enumerate(recordings)
    ]


def _spots(recording: Recording | BurstRecording, front_end: FrontEnd, grid: Grid, count: int) -> tuple[Spot, ...]:
    """Stretches of one recording."""
    if isinstance(recording, BurstRecording):
        return _bursts(recording, front_end, grid, count)
    length = front_end.n_samples(grid.piece_frames, recording.rate_hz)
    spare = recording.length - length
    if spare < 0:
        return ()
    starts = sorted({spare * (2 * number + 1) // (2 * count) for number in range(count)})
    return tuple((_stretch(recording, start, length),) for start in starts)


def _stretch(recording: Recording, start: int, length: int) -> FloatArray:
    """Samples (length,) of a recording from one on; only these are kept in memory."""
    parts, done = [], 0
    for block in recording.blocks():
        parts.append(block[max(0, start - done) : max(0, start + length - done)].copy())
        done += len(block)
    return np.concatenate(parts)


def _bursts(recording: BurstRecording, front_end: FrontEnd, grid: Grid, count: int) -> tuple[Spot, ...]:
    """Groups of consecutive bursts, each of the frames of a piece."""
    frames = [front_end.n_frames(samples, recording.rate_hz) for samples in recording.lengths]
    starts = {len(frames) * number // count for number in range(count)}
    groups = [group for start in sorted(starts) if (group := _group(frames, start, grid.piece_frames))]
    wanted = {number for group in groups for number in group}
    bursts = {number: burst for number, burst in enumerate(recording.blocks()) if number in wanted}
    return tuple(tuple(bursts[number] for number in group) for group in groups)


def _group(frames: Sequence[int], start: int, needed: int) -> range:
    """Bursts from one on that hold so many frames together; none when the recording ends before."""
    held = 0
    for number in range(start, len(frames)):
        held += frames[number]
        if held >= needed:
            return range(start, number + 1)
    return range(0)
