"""How far normal windows lie from each other: every enrolled window judged as if it had not been enrolled."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from fisher_edge.decision.bank import MemoryBank
from fisher_edge.dsp.blocks import FloatArray

__all__ = ["HeldOut", "held_out_distances"]

FOLDS = 4
CHUNK_WINDOWS = 256
ALONE_RATIO = 5.0


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Distances of the enrolled windows that could be held out, and the recordings like no other."""

    distances: npt.NDArray[np.float64]
    alone: tuple[int, ...]


def held_out_distances(
    bank: MemoryBank, recording: npt.NDArray[np.int64], start: npt.NDArray[np.int64], window_frames: int
) -> HeldOut:
    """Hold out each recording in turn; `recording` (n,) is whose window it is, `start` (n,) its first frame.

    A recording far from all others (an operating state recorded once) says nothing about the spread of the
    others: its windows are judged against the rest of itself, in contiguous quarters, and it is reported.
    """
    rows = bank.vectors.reshape(len(bank), -1)
    distances, alone = [], []
    for number in np.unique(recording):
        own = np.flatnonzero(recording == number)
        outside = _nearest(rows, own, partial(_elsewhere, others=recording != number))
        inside = _nearest(rows, own, partial(_apart, own=own, start=start, window_frames=window_frames))
        use_inside = len(outside) == 0 or (
            len(inside) > 0 and np.median(outside) > ALONE_RATIO * max(float(np.median(inside)), 1e-6)
        )
        if use_inside and len(outside):
            alone.append(int(number))
        distances.append(inside if use_inside else outside)
    return HeldOut(np.concatenate(distances), tuple(alone))


def _nearest(
    rows: FloatArray, own: npt.NDArray[np.int64], allowed: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]]
) -> npt.NDArray[np.float64]:
    """Distance of each own window to the nearest allowed one, a few at a time; windows with none are left out."""
    nearest = []
    for first in range(0, len(own), CHUNK_WINDOWS):
        chunk = own[first : first + CHUNK_WINDOWS]
        distances = np.maximum(1.0 - (rows[chunk] @ rows.T).astype(np.float64), 0.0)
        nearest.append(np.where(allowed(chunk), distances, np.inf).min(axis=1))
    found = np.concatenate(nearest)
    return np.asarray(found[np.isfinite(found)])


def _elsewhere(chunk: npt.NDArray[np.int64], others: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Windows of other recordings (chunk, all)."""
    return np.broadcast_to(others, (len(chunk), len(others)))


def _apart(
    chunk: npt.NDArray[np.int64], own: npt.NDArray[np.int64], start: npt.NDArray[np.int64], window_frames: int
) -> npt.NDArray[np.bool_]:
    """Windows of the same recording outside a window's own quarter and not overlapping with it (chunk, all)."""
    first, last = int(start[own].min()), int(start[own].max())
    quarter = (start - first) * FOLDS // (last - first + 1)
    apart = np.zeros((len(chunk), len(start)), np.bool_)
    apart[:, own] = (quarter[chunk, None] != quarter[None, own]) & (
        np.abs(start[chunk, None] - start[None, own]) >= window_frames
    )
    return apart
