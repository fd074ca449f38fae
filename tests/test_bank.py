"""The memory bank: exact nearest neighbours, distances that add up over the bands."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fisher_edge.decision.bank import MemoryBank, unit
from fisher_edge.dsp.blocks import FloatArray

SEEDS = st.integers(0, 2**32 - 1)


def cosine_distance(left: FloatArray, right: FloatArray) -> float:
    """1 - cosine of two embeddings in double precision, the textbook way."""
    a, b = left.ravel().astype(np.float64), right.ravel().astype(np.float64)
    return float(1 - a @ b / np.sqrt((a @ a) * (b @ b)))


def embeddings(seed: int, count: int, bands: int = 3, dim: int = 16, magnitude: float = 1.0) -> FloatArray:
    """Return random embeddings (count, bands, dim)."""
    random = np.random.default_rng(seed)
    return (magnitude * random.standard_normal((count, bands, dim))).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 40), bands=st.integers(1, 6), exponent=st.integers(-3, 6))
def test_nearest_is_exact_against_brute_force(seed: int, count: int, bands: int, exponent: int) -> None:
    """The match is the window with the smallest 1 - cosine, whatever the length of the vectors."""
    enrolled = embeddings(seed, count, bands, magnitude=10.0**exponent)
    query = embeddings(seed + 1, 1, bands)[0]
    match = MemoryBank.of(enrolled).nearest(query)
    brute = [cosine_distance(query, window) for window in enrolled]
    assert match.distance == pytest.approx(min(brute), abs=1e-6)
    assert brute[match.index] == pytest.approx(min(brute), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, bands=st.integers(1, 20), closeness=st.sampled_from([0.0, 1e-6, 1e-4, 1e-2, 1.0]))
def test_shares_of_the_bands_add_up_to_the_distance(seed: int, bands: int, closeness: float) -> None:
    """The shares are never negative and sum to 1 - cosine, for near-identical windows too."""
    enrolled = embeddings(seed, 5, bands)
    query = (enrolled[3] + closeness * embeddings(seed + 1, 1, bands)[0]).astype(np.float32)
    match = MemoryBank.of(enrolled).nearest(query)
    assert match.shares.shape == (bands,)
    assert match.shares.min() >= 0
    assert float(match.shares.sum()) == pytest.approx(match.distance, abs=1e-6)
    assert match.distance == pytest.approx(cosine_distance(query, enrolled[match.index]), abs=1e-6)


def test_share_names_the_band_that_changed() -> None:
    """A change in one band is that band's share, up to the rescaling of the others."""
    enrolled = embeddings(0, 1, bands=4)
    query = enrolled[0].copy()
    query[2] += 0.5
    shares = MemoryBank.of(enrolled).nearest(query).shares
    assert int(shares.argmax()) == 2
    assert shares[2] > 10 * np.delete(shares, 2).max()


@pytest.mark.parametrize(("query_is_zero", "enrolled_is_zero"), [(True, False), (False, True), (True, True)])
def test_zero_vector_is_at_distance_one_of_everything(query_is_zero: bool, enrolled_is_zero: bool) -> None:
    """A vector without direction has cosine 0 to anything, and the shares still add up."""
    zeros, other = np.zeros((1, 4, 8), np.float32), embeddings(0, 1, 4, 8)
    bank = MemoryBank.of(zeros if enrolled_is_zero else other)
    query = zeros[0] if query_is_zero else other[0]
    match = bank.nearest(query)
    assert match.distance == pytest.approx(1.0)
    assert float(match.shares.sum()) == pytest.approx(1.0)
    assert bank.distances(query).tolist() == [1.0]


def test_unit_has_length_one_over_all_bands() -> None:
    """An embedding is normalised as a whole: the bands keep their proportion."""
    embedding = np.array([[3.0, 0.0], [0.0, 4.0]], np.float32)
    np.testing.assert_allclose(unit(embedding), [[0.6, 0.0], [0.0, 0.8]], rtol=1e-6)
