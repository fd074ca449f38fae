"""Speed of the nearest enrolled window, against a search that normalises the bank at every call.

    pytest bench/bench_knn.py

Seconds depend on the machine and are only shown; what is asserted are ratios.
"""

from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from fisher_bench.speed.pairs import cpu_ratio
from fisher_edge.decision.bank import MemoryBank
from fisher_edge.dsp.blocks import FloatArray


def brute_force(rows: FloatArray, query: FloatArray) -> tuple[int, float]:
    """Find the nearest row by cosine as a general library does: both sides normalised at every call."""
    unit_rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    distances = 1 - unit_rows @ (query / np.linalg.norm(query))
    index = int(np.argmin(distances))
    return index, float(distances[index])


@pytest.mark.parametrize(("windows", "bands"), [(1000, 4), (1000, 12), (8000, 4)])
def test_nearest_against_normalising_every_time(benchmark: Any, windows: int, bands: int) -> None:
    """The bank normalises once, at enrollment: a search is several times cheaper, and finds the same window."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((20, bands, 192))
    chosen = generator.integers(0, 20, windows)
    embeddings = (centres[chosen] + 0.3 * generator.standard_normal((windows, bands, 192))).astype(np.float32)
    rows = embeddings.reshape(windows, -1)
    bank = MemoryBank.of(embeddings)
    queries = (centres[:10] + 0.3 * generator.standard_normal((10, bands, 192))).astype(np.float32)
    for query in queries:
        match, (index, distance) = bank.nearest(query), brute_force(rows, query.ravel())
        assert match.index == index
        assert match.distance == pytest.approx(distance, abs=1e-5)

    def ours() -> None:
        for query in queries:
            bank.nearest(query)

    def reference() -> None:
        for query in queries:
            brute_force(rows, query.ravel())

    ratio = cpu_ratio(reference, ours, pairs=7)
    benchmark.pedantic(bank.nearest, (queries[0],), rounds=20)
    benchmark.extra_info["normalising every time takes"] = f"{ratio:.2f} times as long"
    print(f"\n{windows} windows of {bands} bands: normalising every time takes {ratio:.2f} times as long")
    assert ratio > 2


def test_ten_thousand_windows_against_scikit_learn(benchmark: Any) -> None:
    """A search among ten thousand windows finds what scikit-learn finds, at a fraction of its cost for one query."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((20, 4, 192))
    embeddings = centres[generator.integers(0, 20, 10_000)] + 0.3 * generator.standard_normal((10_000, 4, 192))
    bank = MemoryBank.of(embeddings.astype(np.float32))
    index = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute")
    index.fit(embeddings.reshape(len(embeddings), -1).astype(np.float32))
    queries = (centres[:5] + 0.3 * generator.standard_normal((5, 4, 192))).astype(np.float32)

    def ours() -> list[int]:
        return [bank.nearest(query).index for query in queries]

    def theirs() -> list[int]:
        return [int(index.kneighbors(query.reshape(1, -1))[1][0, 0]) for query in queries]

    assert ours() == theirs()
    ratio = cpu_ratio(theirs, ours, pairs=7)
    benchmark.pedantic(ours, rounds=5)
    benchmark.extra_info["scikit-learn takes"] = f"{ratio:.2f} times as long"
    print(f"\n10 000 windows: scikit-learn takes {ratio:.2f} times as long")
    assert ratio > 5
