"""The score of a window by band: every band has its own nearest enrolled window. Start at `band_scores`."""

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray

__all__ = ["band_scores"]

# Standard deviation of a normal distribution over its median absolute deviation.
DEVIATIONS = 1.4826
# Added to the spread of every band: a few nearly equal distances do not prove precision.
SMALLEST_SPREAD = 0.15
SMALLEST_DISTANCE = 1e-12

Scores = npt.NDArray[np.float64]


def band_scores(enrolled: FloatArray, asked: FloatArray, units: npt.NDArray[np.str_], dim: int) -> Scores:
    """Score asked windows (n, bands * dim) by enrolled ones (m, bands * dim), each of unit length over all bands.

    z of a band is the log of its squared distance minus the median of enrolled windows, over their spread; the
    distance of an enrolled window is to those of other `units` (m,), or to all others where there is one unit only.
    The score is the mean of the larger half of z.
    """
    held_out = units[:, None] == units[None, :]
    if held_out.all():
        held_out = np.eye(len(units), dtype=np.bool_)
    z = np.stack(
        [
            _z(enrolled[:, first : first + dim], asked[:, first : first + dim], held_out)
            for first in range(0, enrolled.shape[1], dim)
        ],
        axis=1,
    )
    half = -(-z.shape[1] // 2)
    scores: Scores = np.sort(z, axis=1)[:, -half:].mean(axis=1)
    return scores


def _z(enrolled: FloatArray, asked: FloatArray, held_out: npt.NDArray[np.bool_]) -> Scores:
    """Standardized log distance (n,) of one band."""
    normal = _log_nearest(np.where(held_out, np.inf, _squared(enrolled, enrolled)))
    median = float(np.median(normal))
    spread = DEVIATIONS * float(np.median(np.abs(normal - median))) + SMALLEST_SPREAD
    return (_log_nearest(_squared(asked, enrolled)) - median) / spread


def _squared(left: FloatArray, right: FloatArray) -> Scores:
    """Squared distance of every pair of rows."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    squared: Scores = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2 * a @ b.T
    return squared


def _log_nearest(squared: Scores) -> Scores:
    """Log of the smallest squared distance of each row."""
    return np.asarray(np.log(np.maximum(squared.min(axis=1), SMALLEST_DISTANCE)))
