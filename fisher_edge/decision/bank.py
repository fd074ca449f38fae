"""The memory bank: enrolled windows as unit vectors, and the nearest of them to a new one.

Plain NumPy: exact, and faster than an index up to some ten thousand windows.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray

__all__ = ["Match", "MemoryBank", "unit"]

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Match:
    """The enrolled window nearest to a query.

    `distance` is 1 - cosine; `shares` (bands,) are its parts by band, which add up to it.
    """

    distance: float
    index: int
    shares: FloatArray


@dataclass(frozen=True, eq=False)
class MemoryBank:
    """Enrolled windows `vectors` (n, bands, dim), each of unit length over all its bands."""

    vectors: FloatArray

    @classmethod
    def of(cls, embeddings: FloatArray) -> "MemoryBank":
        """Build a bank from embeddings (n, bands, dim) as the encoder gave them."""
        return cls(np.stack([unit(embedding) for embedding in embeddings]))

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def _doubles(self) -> Doubles:
        return self.vectors.astype(np.float64)

    def distances(self, embedding: FloatArray) -> FloatArray:
        """Cosine distance (n,) of one embedding (bands, dim) to every enrolled window."""
        rows = self.vectors.reshape(len(self), -1)
        distances: FloatArray = np.float32(1) - rows @ unit(embedding).ravel()
        return distances

    def squared(self, embedding: FloatArray) -> Doubles:
        """Squared distance (n, bands) of every band of one embedding (bands, dim) to that band of every window."""
        query = unit(embedding).astype(np.float64)
        lengths = (self._doubles**2).sum(axis=2) + (query**2).sum(axis=1)
        squared: Doubles = np.maximum(lengths - 2 * np.einsum("nbd,bd->nb", self._doubles, query), 0.0)
        return squared

    def residual(self, embedding: FloatArray, among: npt.NDArray[np.bool_]) -> Doubles:
        """Return each band less its own nearest window of those marked `among` (n,): (bands, dim)."""
        squared = np.where(among[:, None], self.squared(embedding), np.inf)
        own = squared.argmin(axis=0)
        residual: Doubles = unit(embedding).astype(np.float64) - self._doubles[own, np.arange(len(own))]
        return residual

    def nearest(self, embedding: FloatArray) -> Match:
        """Find the nearest window; for unit vectors e and n, 1 - e.n is the sum over bands of |e_b - n_b|^2 / 2.

        A vector of zeros has no direction: its distance to anything is 1, to which all bands contribute alike.
        """
        index = int(np.argmin(self.distances(embedding)))
        query, nearest = unit(embedding), self.vectors[index]
        if query.any() and nearest.any():
            shares = ((query - nearest).astype(np.float64) ** 2).sum(axis=1) / 2
        else:
            shares = np.full(len(query), 1 / len(query))
        return Match(float(shares.sum()), index, shares.astype(np.float32))


def unit(embedding: FloatArray) -> FloatArray:
    """Scale an embedding (bands, dim) to unit length over all its bands."""
    vector: FloatArray = embedding / max(float(np.linalg.norm(embedding)), 1e-12)
    return vector.astype(np.float32)
