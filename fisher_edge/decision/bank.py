"""The memory bank: enrolled windows as unit vectors, and the nearest of them to a new one.

Plain NumPy: exact. Of many windows only a coreset is compared with (see coreset.py).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray

__all__ = ["Comparison", "Match", "MemoryBank", "unit"]

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
    """Enrolled windows `vectors` (n, bands, dim), each of unit length over all its bands.

    They lie in memory band by band, so that the products of a comparison need no copy.
    """

    vectors: FloatArray

    @classmethod
    def of(cls, embeddings: FloatArray) -> "MemoryBank":
        """Build a bank from embeddings (n, bands, dim) as the encoder gave them."""
        by_band = np.empty((embeddings.shape[1], len(embeddings), embeddings.shape[2]), np.float32)
        for number, embedding in enumerate(embeddings):
            by_band[:, number] = unit(embedding)
        return cls(by_band.transpose(1, 0, 2))

    def __len__(self) -> int:
        return len(self.vectors)

    def only(self, windows: npt.NDArray[np.int64]) -> "MemoryBank":
        """Return the bank of some windows (k,); itself where those are all."""
        return self if len(windows) == len(self) else MemoryBank(self._by_band[:, windows].transpose(1, 0, 2))

    @cached_property
    def _by_band(self) -> FloatArray:
        """Vectors (bands, n, dim): one matrix product a band, without a copy of a bank made by `of`."""
        return np.ascontiguousarray(self.vectors.transpose(1, 0, 2))

    @cached_property
    def lengths(self) -> FloatArray:
        """Squared length (bands, n) of every band."""
        return np.asarray((self._by_band**2).sum(axis=2))

    def compare(self, embedding: FloatArray) -> "Comparison":
        """Compare one embedding (bands, dim) with all windows, band by band: the one pass over the bank."""
        query = unit(embedding)
        return Comparison(self, query, np.matmul(self._by_band, query[:, :, None])[:, :, 0])

    def distances(self, embedding: FloatArray) -> FloatArray:
        """Cosine distance (n,) of one embedding (bands, dim) to every enrolled window."""
        return self.compare(embedding).distances

    def nearest(self, embedding: FloatArray) -> Match:
        """Find the window nearest to one embedding (bands, dim)."""
        return self.compare(embedding).nearest()

    def residuals(self, queries: FloatArray, among: npt.NDArray[np.bool_]) -> Doubles:
        """Return each band of queries (m, bands, dim) of unit length less its own nearest window.

        The windows that a query is compared with are marked `among` (m, n). One matrix product a band serves all.
        """
        squared = np.matmul(queries.transpose(1, 0, 2), self._by_band.transpose(0, 2, 1))
        squared *= -2
        squared += self.lengths[:, None, :]
        squared[:, ~among] = np.inf
        own = squared.argmin(axis=2)
        nearest = self.vectors[own.T, np.arange(queries.shape[1])]
        residuals: Doubles = queries.astype(np.float64) - nearest
        return residuals


@dataclass(frozen=True, eq=False)
class Comparison:
    """One embedding `query` (bands, dim) of unit length against a bank: its `products` (bands, n) with the windows."""

    bank: MemoryBank
    query: FloatArray
    products: FloatArray

    @cached_property
    def distances(self) -> FloatArray:
        """Cosine distances (n,)."""
        return np.asarray(1 - self.products.sum(axis=0))

    @cached_property
    def squared(self) -> FloatArray:
        """Squared distances (bands, n) of each band to that of a window."""
        return np.asarray(self.bank.lengths + (self.query**2).sum(axis=1)[:, None] - 2 * self.products)

    def nearest(self) -> Match:
        """Find the nearest window; for unit vectors e and n, 1 - e.n is the sum over bands of |e_b - n_b|^2 / 2.

        A vector of zeros has no direction: its distance to anything is 1, to which all bands contribute alike.
        """
        index = int(np.argmin(self.distances))
        nearest = self.bank.vectors[index]
        if self.query.any() and nearest.any():
            shares = ((self.query - nearest).astype(np.float64) ** 2).sum(axis=1) / 2
        else:
            shares = np.full(len(self.query), 1 / len(self.query))
        return Match(float(shares.sum()), index, shares.astype(np.float32))

    def residual(self, among: npt.NDArray[np.bool_]) -> Doubles:
        """Return each band less its own nearest window of those marked `among` (n,): (bands, dim)."""
        own = np.where(among, self.squared, np.inf).argmin(axis=1)
        nearest = self.bank.vectors[own, np.arange(len(own))]
        residual: Doubles = self.query.astype(np.float64) - nearest
        return residual


def unit(embedding: FloatArray) -> FloatArray:
    """Scale an embedding (bands, dim) to unit length over all its bands."""
    vector: FloatArray = embedding / max(float(np.linalg.norm(embedding)), 1e-12)
    return vector.astype(np.float32)
