"""Held-out distances: no window is judged against itself, its own recording or what overlaps with it."""

import numpy as np
import numpy.typing as npt
import pytest

from fisher_edge.decision.bank import MemoryBank
from fisher_edge.decision.calibrate import FOLDS, held_out_distances
from fisher_edge.dsp.blocks import FloatArray

WINDOW = 64
Indices = npt.NDArray[np.int64]


def bank(vectors: FloatArray) -> MemoryBank:
    """Return a bank of vectors (n, dim) as one band."""
    return MemoryBank.of(vectors[:, None, :], ["normal"] * len(vectors))


def around(centre: int, count: int, spread: float, seed: int, dim: int = 12) -> FloatArray:
    """Return vectors (count, dim) scattered around one axis."""
    scattered = spread * np.random.default_rng(seed).standard_normal((count, dim))
    scattered[:, centre] += 1
    return scattered.astype(np.float32)


def brute_force(vectors: FloatArray, allowed: npt.NDArray[np.bool_]) -> list[float]:
    """Distance of every vector to the nearest allowed one."""
    rows = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    gram = 1 - rows.astype(np.float64) @ rows.T.astype(np.float64)
    return [float(gram[row][allowed[row]].min()) for row in range(len(rows)) if allowed[row].any()]


def test_each_recording_is_judged_against_the_others() -> None:
    """With several recordings a window's distance is that to the nearest window of another recording."""
    vectors = around(0, 24, 0.2, seed=0)
    recording = np.repeat([0, 1, 2], 8)
    held_out = held_out_distances(bank(vectors), recording, np.tile(np.arange(8) * WINDOW, 3), WINDOW)
    assert held_out.alone == ()
    expected = brute_force(vectors, recording[:, None] != recording[None, :])
    np.testing.assert_allclose(held_out.distances, expected, atol=1e-6)


def test_copies_within_a_recording_do_not_hide_its_spread() -> None:
    """Eight identical windows in each recording are as far as the recordings are, not at distance 0."""
    vectors = np.repeat(around(0, 3, 0.2, seed=1), 8, axis=0)
    recording = np.repeat([0, 1, 2], 8)
    held_out = held_out_distances(bank(vectors), recording, np.tile(np.arange(8) * WINDOW, 3), WINDOW)
    assert len(held_out.distances) == 24
    # A recording is "alone" only if it spreads itself: these do not, so they are compared with themselves.
    assert held_out.alone == (0, 1, 2)


@pytest.mark.parametrize("hop", [WINDOW, WINDOW // 4, 3 * WINDOW])
def test_single_recording_is_judged_by_quarters_without_overlap(hop: int) -> None:
    """A window meets only windows of other quarters with which it shares no frame."""
    count = 32
    vectors = around(0, count, 0.2, seed=2)
    start = np.arange(count) * hop
    held_out = held_out_distances(bank(vectors), np.zeros(count, np.int64), start, WINDOW)
    quarter = start * FOLDS // (start[-1] + 1)
    apart = (quarter[:, None] != quarter[None, :]) & (np.abs(start[:, None] - start[None, :]) >= WINDOW)
    expected = brute_force(vectors, apart)
    assert len(expected) == count
    np.testing.assert_allclose(held_out.distances, expected, atol=1e-6)


def test_single_recording_too_short_for_two_apart_gives_nothing() -> None:
    """Windows that all overlap cannot be held out from each other."""
    held_out = held_out_distances(bank(around(0, 4, 0.2, seed=3)), np.zeros(4, np.int64), np.arange(4) * 16, WINDOW)
    assert len(held_out.distances) == 0


def test_recording_unlike_all_others_is_reported_and_judged_against_itself() -> None:
    """An operating state recorded once is named and does not inflate the threshold of the others."""
    vectors = np.concatenate([around(0, 16, 0.02, seed=4), around(1, 8, 0.02, seed=5)])
    recording = np.repeat([0, 1, 2], 8)
    held_out = held_out_distances(bank(vectors), recording, np.tile(np.arange(8) * WINDOW, 3), WINDOW)
    assert held_out.alone == (2,)
    assert len(held_out.distances) == 24
    assert held_out.distances.max() < 0.05


def test_lone_window_of_its_own_kind_counts_as_it_is() -> None:
    """A recording of one window has no rest of itself: its distance to the others is taken."""
    vectors = np.concatenate([around(0, 16, 0.02, seed=6), around(1, 1, 0.02, seed=7)])
    recording = np.array([0] * 8 + [1] * 8 + [2])
    start = np.concatenate([np.tile(np.arange(8) * WINDOW, 2), [0]])
    held_out = held_out_distances(bank(vectors), recording, start, WINDOW)
    assert held_out.alone == ()
    assert held_out.distances[-1] > 0.5
