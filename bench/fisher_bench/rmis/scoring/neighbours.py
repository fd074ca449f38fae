"""Nearest neighbours found once and used for many splits of the same embeddings.

Start at `Neighbours`. A split only removes candidates: the nearest enrolled rows of a row are the first enrolled
ones in the list of all its neighbours. Where that list is too short for a split, the row is searched again.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray

__all__ = ["Neighbours", "find_neighbours"]

LIST_LENGTH = 512
CHUNK_VALUES = 1 << 25
"""Similarities held at a time."""
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Neighbours:
    """For every row, its nearest others, nearest first, with their cosine; ties in the order of the rows."""

    embeddings: FloatArray
    rows: npt.NDArray[np.int32]
    """(n, listed)"""
    cosines: FloatArray
    """(n, listed)"""

    def nearest(self, enrolled: Indices, asked: Indices, k: int) -> tuple[Indices, FloatArray]:
        """Return rows and cosines, each (asked, k), of the k nearest enrolled rows of every asked one."""
        k = min(k, len(enrolled))
        is_enrolled = np.zeros(len(self.embeddings), bool)
        is_enrolled[enrolled] = True
        usable = is_enrolled[self.rows[asked]]
        rank = usable.cumsum(axis=1, dtype=np.int32)
        rows = np.zeros((len(asked), k), np.int64)
        cosines = np.zeros((len(asked), k), np.float32)
        complete = rank[:, -1] >= k
        chosen = (usable & (rank <= k))[complete]
        rows[complete] = self.rows[asked[complete]][chosen].reshape(-1, k)
        cosines[complete] = self.cosines[asked[complete]][chosen].reshape(-1, k)
        if not complete.all():
            ordered = np.sort(enrolled)
            left = np.flatnonzero(~complete)
            step = max(1, CHUNK_VALUES // len(ordered))
            for part in np.split(left, range(step, len(left), step)):
                similarity = self.embeddings[asked[part]] @ self.embeddings[ordered].T
                found = _largest(similarity, k)
                rows[part] = ordered[found]
                cosines[part] = np.take_along_axis(similarity, found, axis=1)
        return rows, cosines


def find_neighbours(embeddings: FloatArray, listed: int = LIST_LENGTH) -> Neighbours:
    """List the nearest rows of embeddings (n, dim) of unit length; memory stays flat whatever n is."""
    n = len(embeddings)
    listed = min(listed, max(1, n - 1))
    rows = np.zeros((n, listed), np.int32)
    cosines = np.zeros((n, listed), np.float32)
    step = max(1, CHUNK_VALUES // n)
    for start in range(0, n, step):
        part = np.arange(start, min(start + step, n))
        similarity = embeddings[part] @ embeddings.T
        similarity[np.arange(len(part)), part] = -np.inf  # a row is not its own neighbour
        found = _largest(similarity, listed)
        rows[part] = found
        cosines[part] = np.take_along_axis(similarity, found, axis=1)
    return Neighbours(embeddings, rows, cosines)


def _largest(similarity: FloatArray, k: int) -> Indices:
    """Columns (n, k) of the k largest values of every row, largest first, ties in the order of the columns."""
    if k < similarity.shape[1]:
        found = np.sort(np.argpartition(-similarity, k - 1, axis=1)[:, :k], axis=1)
    else:
        found = np.broadcast_to(np.arange(similarity.shape[1]), similarity.shape)
    order = np.argsort(-np.take_along_axis(similarity, found, axis=1), axis=1, kind="stable")
    columns: Indices = np.take_along_axis(found, order, axis=1)
    return columns
