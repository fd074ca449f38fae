"""How far normal windows lie from each other: every enrolled window judged as if it had not been enrolled."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fisher_edge.decision.bank import MemoryBank
from fisher_edge.dsp.blocks import FloatArray

__all__ = ["HeldOut", "held_out_distances"]

FOLDS = 4
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
    gram = _distance_matrix(bank.vectors)
    distances, alone = [], []
    for number in np.unique(recording):
        own = recording == number
        outside = _nearest(gram, own, ~own[None, :])
        inside = _nearest(gram, own, _apart(own, start, window_frames))
        use_inside = len(outside) == 0 or (
            len(inside) > 0 and np.median(outside) > ALONE_RATIO * max(float(np.median(inside)), 1e-6)
        )
        if use_inside and len(outside):
            alone.append(int(number))
        distances.append(inside if use_inside else outside)
    return HeldOut(np.concatenate(distances), tuple(alone))


def _distance_matrix(vectors: FloatArray) -> npt.NDArray[np.float64]:
    """Cosine distance of every pair of windows (n, n)."""
    rows = vectors.reshape(len(vectors), -1)
    return np.maximum(1.0 - (rows @ rows.T).astype(np.float64), 0.0)


def _nearest(
    gram: npt.NDArray[np.float64], own: npt.NDArray[np.bool_], allowed: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Distance of each own window to the nearest allowed one; windows with none are left out."""
    candidates = np.where(np.broadcast_to(allowed, (int(own.sum()), len(own))), gram[own], np.inf)
    nearest = candidates.min(axis=1)
    return np.asarray(nearest[np.isfinite(nearest)])


def _apart(own: npt.NDArray[np.bool_], start: npt.NDArray[np.int64], window_frames: int) -> npt.NDArray[np.bool_]:
    """Windows of the same recording outside a window's own quarter and not overlapping with it."""
    mine = start[own]
    span = max(1, int(mine.max() - mine.min()) + 1)
    quarter = (mine - mine.min()) * FOLDS // span
    apart = (quarter[:, None] != quarter[None, :]) & (np.abs(mine[:, None] - mine[None, :]) >= window_frames)
    allowed = np.zeros((len(mine), len(own)), np.bool_)
    allowed[:, own] = apart
    return allowed
