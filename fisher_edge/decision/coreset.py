"""Which of many enrolled windows the others are compared with: a greedy coreset. Start at `coreset`.

Source: farthest-first traversal, Gonzalez, Clustering to minimize the maximum intercluster distance (1985), whose
covering radius is at most twice the best one.
"""

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray

__all__ = ["MOST_WINDOWS", "coreset"]

# Windows that a window is compared with at most: 0.4 ms with 12 bands (see LOG.md).
MOST_WINDOWS = 1024


def coreset(vectors: FloatArray, group: npt.NDArray[np.int64], most: int = MOST_WINDOWS) -> npt.NDArray[np.int64]:
    """Choose windows (k,), in their order, from unit vectors (n, bands, dim): all of them while they are few.

    Each group (n,) is thinned by itself and by the same share, at least one window of it stays. A group that is held
    out then leaves the choice of the others as it is: they stand to it as all of them stand to a new recording.
    """
    if len(vectors) <= most:
        return np.arange(len(vectors))
    groups = [np.flatnonzero(group == number) for number in np.unique(group)]
    shares = np.cumsum([len(own) for own in groups]) * most // len(vectors)
    counts = np.diff(shares, prepend=0)
    chosen = [
        own[_farthest_first(vectors[own].reshape(len(own), -1), count)]
        for own, count in zip(groups, counts, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def _farthest_first(rows: FloatArray, count: int) -> npt.NDArray[np.int64]:
    """Begin at the row (n, dim) nearest to the mean and add the one farthest from those chosen, up to so many."""
    chosen = [int(np.argmax(rows @ rows.mean(axis=0)))]
    distance = 1 - rows @ rows[chosen[0]]
    while len(chosen) < count:
        chosen.append(int(np.argmax(distance)))
        np.minimum(distance, 1 - rows @ rows[chosen[-1]], out=distance)
    return np.array(chosen)
