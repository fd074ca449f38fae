"""The memory bank: exact nearest neighbours, distances that add up over the bands, votes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fisher_edge.decision.bank import MemoryBank, Vote, unit
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


def directions(*degrees: float) -> FloatArray:
    """Return embeddings (n, 1, 2) at these angles: the further apart, the larger the distance."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)[:, None, :]


def vote(bank: MemoryBank, query: FloatArray) -> Vote:
    """Let the windows of a bank vote by their cosine to a query."""
    return bank.vote(1 - bank.distances(query))


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 40), bands=st.integers(1, 6), exponent=st.integers(-3, 6))
def test_nearest_is_exact_against_brute_force(seed: int, count: int, bands: int, exponent: int) -> None:
    """The match is the window with the smallest 1 - cosine, whatever the length of the vectors."""
    enrolled = embeddings(seed, count, bands, magnitude=10.0**exponent)
    query = embeddings(seed + 1, 1, bands)[0]
    match = MemoryBank.of(enrolled, ["normal"] * count).nearest(query)
    brute = [cosine_distance(query, window) for window in enrolled]
    assert match.distance == pytest.approx(min(brute), abs=1e-6)
    assert brute[match.index] == pytest.approx(min(brute), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, bands=st.integers(1, 20), closeness=st.sampled_from([0.0, 1e-6, 1e-4, 1e-2, 1.0]))
def test_shares_of_the_bands_add_up_to_the_distance(seed: int, bands: int, closeness: float) -> None:
    """The shares are never negative and sum to 1 - cosine, for near-identical windows too."""
    enrolled = embeddings(seed, 5, bands)
    query = (enrolled[3] + closeness * embeddings(seed + 1, 1, bands)[0]).astype(np.float32)
    match = MemoryBank.of(enrolled, ["normal"] * 5).nearest(query)
    assert match.shares.shape == (bands,)
    assert match.shares.min() >= 0
    assert float(match.shares.sum()) == pytest.approx(match.distance, abs=1e-6)
    assert match.distance == pytest.approx(cosine_distance(query, enrolled[match.index]), abs=1e-6)


def test_share_names_the_band_that_changed() -> None:
    """A change in one band is that band's share, up to the rescaling of the others."""
    enrolled = embeddings(0, 1, bands=4)
    query = enrolled[0].copy()
    query[2] += 0.5
    shares = MemoryBank.of(enrolled, ["normal"]).nearest(query).shares
    assert int(shares.argmax()) == 2
    assert shares[2] > 10 * np.delete(shares, 2).max()


@pytest.mark.parametrize(("query_is_zero", "enrolled_is_zero"), [(True, False), (False, True), (True, True)])
def test_zero_vector_is_at_distance_one_of_everything(query_is_zero: bool, enrolled_is_zero: bool) -> None:
    """A vector without direction has cosine 0 to anything, and the shares still add up."""
    zeros, other = np.zeros((1, 4, 8), np.float32), embeddings(0, 1, 4, 8)
    bank = MemoryBank.of(zeros if enrolled_is_zero else other, ["normal"])
    query = zeros[0] if query_is_zero else other[0]
    match = bank.nearest(query)
    assert match.distance == pytest.approx(1.0)
    assert float(match.shares.sum()) == pytest.approx(1.0)
    assert bank.distances(query).tolist() == [1.0]


def test_unit_has_length_one_over_all_bands() -> None:
    """An embedding is normalised as a whole: the bands keep their proportion."""
    embedding = np.array([[3.0, 0.0], [0.0, 4.0]], np.float32)
    np.testing.assert_allclose(unit(embedding), [[0.6, 0.0], [0.0, 0.8]], rtol=1e-6)


def test_vote_is_won_by_the_majority_of_the_five_nearest() -> None:
    """Three of the five nearest win although the very nearest two say otherwise; the sixth has no vote."""
    bank = MemoryBank.of(directions(1, 2, 5, 6, 7, 50), ["normal", "normal", "inner", "inner", "inner", "outer"])
    assert vote(bank, directions(0)[0]) == Vote("inner", 3, 5)


@pytest.mark.parametrize(
    ("angles", "labels", "winner"),
    [
        ((1, 3, 2, 3.1, 9), ("a", "a", "b", "b", "c"), "a"),
        ((1, 5, 2, 3, 9), ("a", "a", "b", "b", "c"), "b"),
        ((2, 3, 1, 5, 9), ("b", "b", "a", "a", "c"), "b"),
    ],
)
def test_vote_gives_a_tie_to_the_label_with_the_nearer_windows(
    angles: tuple[float, ...], labels: tuple[str, ...], winner: str
) -> None:
    """Two votes each: the smaller sum of distances decides, whatever the order of enrolment."""
    assert vote(MemoryBank.of(directions(*angles), list(labels)), directions(0)[0]) == Vote(winner, 2, 5)


def test_vote_of_fewer_windows_than_k_counts_those_there_are() -> None:
    """With two windows k is two."""
    assert vote(MemoryBank.of(directions(1, 2), ["a", "a"]), directions(0)[0]) == Vote("a", 2, 2)


def test_vote_of_equal_windows_goes_to_the_first_label() -> None:
    """Windows that are exactly as similar: the label that comes first in the alphabet."""
    bank = MemoryBank.of(directions(3, 3), ["b", "a"])
    assert vote(bank, directions(0)[0]) == Vote("a", 1, 2)
