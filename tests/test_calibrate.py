"""Calibration: windows judged as if not enrolled, recordings grouped into operating states with a level each."""

import numpy as np
import numpy.typing as npt
import pytest
from fisher_edge.decision.threshold import fit_tail

from fisher_edge.decision.bank import MemoryBank
from fisher_edge.decision.calibrate import FOLDS, Calibration, calibrate, held_out_distances
from fisher_edge.dsp.blocks import FloatArray

WINDOW = 64
Indices = npt.NDArray[np.int64]


def bank(vectors: FloatArray) -> MemoryBank:
    """Return a bank of vectors (n, dim) as one band."""
    return MemoryBank.of(vectors[:, None, :])


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


def test_where_all_recordings_differ_the_distance_between_them_counts() -> None:
    """Recordings that each repeat themselves, far from one another: their distance is the spread of the normal state.

    Judged against themselves, the next recording of the same machine would be an alarm throughout.
    """
    vectors = np.concatenate([around(axis, 8, 0.01, seed=10 + axis) for axis in range(4)])
    recording = np.repeat(np.arange(4), 8)
    held_out = held_out_distances(bank(vectors), recording, np.tile(np.arange(8) * WINDOW, 4), WINDOW)
    assert held_out.alone == (0, 1, 2, 3)
    expected = brute_force(vectors, recording[:, None] != recording[None, :])
    np.testing.assert_allclose(held_out.distances, expected, atol=1e-6)
    assert held_out.distances.min() > 0.9


@pytest.mark.parametrize(("ratio", "alone"), [(3.5, ()), (8.0, (2,))])
def test_recording_is_alone_when_it_is_five_times_as_far_from_the_others_as_from_itself(
    ratio: float, alone: tuple[int, ...]
) -> None:
    """Below five times its own spread a recording counts as one of the others, above it does not."""
    degree = np.radians(1.0)
    # Half of the windows of every recording lie a degree from the other half, which is in another quarter of it; the
    # third recording is the same, moved aside.
    along = np.tile(np.repeat([0.0, degree], 4), 3)
    aside = np.repeat([0.0, 0.0, np.sqrt(ratio) * degree], 8)
    vectors = np.stack([np.cos(along), np.sin(along), aside], axis=1).astype(np.float32)
    ends = np.tile(np.repeat([0, 4], 4) * WINDOW, 3)
    held_out = held_out_distances(bank(vectors), np.repeat([0, 1, 2], 8), ends, WINDOW)
    assert held_out.alone == alone


@pytest.mark.parametrize("hop", [WINDOW, WINDOW // 4, 3 * WINDOW])
def test_single_recording_is_judged_by_quarters_without_overlap(hop: int) -> None:
    """A window meets only windows of other quarters with which it shares no frame."""
    count = 32
    vectors = around(0, count, 0.2, seed=2)
    start = np.arange(count, dtype=np.float64) * hop
    held_out = held_out_distances(bank(vectors), np.zeros(count, np.int64), start, WINDOW)
    quarter = start * FOLDS // (start[-1] + 1)
    apart = (quarter[:, None] != quarter[None, :]) & (np.abs(start[:, None] - start[None, :]) >= WINDOW)
    expected = brute_force(vectors, apart)
    assert len(expected) == count
    np.testing.assert_allclose(held_out.distances, expected, atol=1e-6)


def test_single_recording_too_short_for_two_apart_gives_nothing() -> None:
    """Windows that all overlap cannot be held out from each other."""
    held_out = held_out_distances(
        bank(around(0, 4, 0.2, seed=3)), np.zeros(4, np.int64), np.arange(0.0, 64.0, 16.0), WINDOW
    )
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


def calibrated(takes: list[tuple[FloatArray, float]], hop: int = WINDOW, hum: float = 0.0) -> Calibration:
    """Calibrate recordings, each given by its vectors (n, dim) and its level (natural log of the RMS)."""
    vectors = np.concatenate([of_take for of_take, _ in takes])
    counts = [len(of_take) for of_take, _ in takes]
    level = np.concatenate(
        [log_rms + 0.02 * np.sin(np.arange(count)) for count, (_, log_rms) in zip(counts, takes, strict=True)]
    )
    end_s = np.concatenate([np.arange(count) * float(hop) for count in counts])
    return calibrate(
        bank(vectors), np.repeat(np.arange(len(takes)), counts), end_s, WINDOW, level, np.full(len(level), hum)
    )


def test_standstill_and_running_are_two_states_with_a_level_each() -> None:
    """Where a machine is enrolled at rest and running, three times as loud as running is beyond its level's alarm."""
    running = [(around(0, 8, 0.1, seed), 0.0) for seed in range(4)]
    standstill = [(around(1, 8, 0.1, seed), -4.5) for seed in range(4, 8)]
    calibration = calibrated([*running, *standstill])
    assert calibration.state_of_take == (0, 0, 0, 0, 1, 1, 1, 1)
    assert [state.name for state in calibration.states] == ["1", "2"]
    assert [state.level_mean for state in calibration.states] == pytest.approx([0.0, -4.5], abs=0.02)
    for state in calibration.states:
        assert len(state.held_out) == len(state.level_held_out) == 32
        assert fit_tail(state.level_held_out).threshold(0.1, 2.0) < np.log(3)


def test_states_share_no_held_out_distance() -> None:
    """Every held-out distance belongs to the state of its window: a wide state and a narrow one keep their own."""
    wide = [(around(0, 8, 0.2, seed), 0.0) for seed in range(3)]
    narrow = [(around(1, 8, 0.02, seed), 3.0) for seed in range(3, 6)]
    calibration = calibrated([wide[0], narrow[0], wide[1], narrow[1], wide[2], narrow[2]])
    assert calibration.state_of_take == (0, 1, 0, 1, 0, 1)
    assert calibration.states[0].held_out.min() > 5 * calibration.states[1].held_out.max()
    assert len(calibration.held_out) == 48


@pytest.mark.parametrize(("level", "states"), [(0.6, 1), (0.8, 2), (-0.8, 2)])
def test_level_alone_makes_another_state(level: float, states: int) -> None:
    """Recordings of the same shape are one state up to twice as loud, more is another."""
    takes = [(around(0, 8, 0.1, seed), level * (seed % 2)) for seed in range(4)]
    assert len(calibrated(takes).states) == states


def test_shape_alone_makes_another_state() -> None:
    """Two speeds that are equally loud are two states."""
    takes = [(around(seed % 2, 8, 0.1, seed), 0.0) for seed in range(4)]
    assert calibrated(takes).state_of_take == (0, 1, 0, 1)


def test_equal_recordings_are_one_state() -> None:
    """Repetitions of one state have one number, one level and nothing that is alone."""
    calibration = calibrated([(around(0, 8, 0.1, seed), 0.0) for seed in range(5)])
    assert calibration.state_of_take == (0, 0, 0, 0, 0)
    assert calibration.alone == ()
    (state,) = calibration.states
    assert (len(state.held_out), len(state.level_held_out)) == (40, 40)


def test_overlap_of_windows_makes_no_states() -> None:
    """Windows that share samples are near each other; recordings of one state stay one state all the same."""
    takes = []
    for seed in range(4):
        pieces = around(0, 35, 0.4, seed)
        overlapping = np.stack([pieces[first : first + 4].mean(axis=0) for first in range(32)])
        takes.append((overlapping, 0.0))
    assert calibrated(takes, hop=WINDOW // 4).state_of_take == (0, 0, 0, 0)


def test_recordings_of_one_window_are_grouped_by_how_far_apart_recordings_usually_are() -> None:
    """A recording too short to have a spread of its own belongs to the state it resembles, and to no other."""
    long = [(around(seed % 2, 8, 0.1, seed), 0.0) for seed in range(4)]
    short = [(around(axis, 1, 0.1, 20 + axis), 0.0) for axis in (0, 1, 2)]
    assert calibrated([*long, *short]).state_of_take == (0, 1, 0, 1, 0, 1, 2)
    assert calibrated([(around(seed % 2, 1, 0.1, seed), 0.0) for seed in range(6)]).state_of_take == (0, 1) * 3
    assert calibrated([(around(0, 1, 0.1, 0), 0.0)]).state_of_take == (0,)


def test_level_of_a_window_is_held_against_the_other_recordings_of_its_state() -> None:
    """The deviation is that from the mean of the others; a state of one recording has its own mean only."""
    takes = [(around(0, 8, 0.1, seed), 0.1 * seed) for seed in range(3)] + [(around(1, 8, 0.1, 7), 2.0)]
    levels = [log_rms + 0.02 * np.sin(np.arange(8)) for _, log_rms in takes]
    together, single = calibrated(takes).states
    expected = [
        np.abs(own - np.concatenate([each for other, each in enumerate(levels[:3]) if other != number]).mean())
        for number, own in enumerate(levels[:3])
    ]
    np.testing.assert_allclose(together.level_held_out, np.concatenate(expected))
    np.testing.assert_allclose(single.level_held_out, np.abs(levels[3] - levels[3].mean()))
    assert (together.level_mean, together.level_std) == pytest.approx(
        (np.concatenate(levels[:3]).mean(), np.concatenate(levels[:3]).std())
    )


def test_state_knows_the_largest_share_of_hum() -> None:
    """One enrolled window with mains hum is enough for hum to be normal in that state, and in no other."""
    vectors = np.concatenate([around(0, 8, 0.1, 0), around(1, 8, 0.1, 1)])
    hum = np.zeros(16)
    hum[3] = 0.9
    take, end_s = np.repeat([0, 1], 8), np.tile(np.arange(8.0) * WINDOW, 2)
    calibration = calibrate(bank(vectors), take, end_s, WINDOW, np.zeros(16), hum)
    assert [state.hum_share for state in calibration.states] == [0.9, 0.0]
