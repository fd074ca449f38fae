"""Calibration: operating states, windows judged as if not enrolled, and how unusual bands, score and level may be."""

import numpy as np
import numpy.typing as npt
import pytest

from fisher_edge.decision.bank import MemoryBank
from fisher_edge.decision.calibrate import (
    BLOCKS,
    LONGEST_SPAN,
    SMALLEST_SPREAD,
    USUAL_SCORE,
    Calibration,
    Enrollment,
    calibrate,
    grouped,
    held_out_distances,
    score_of,
)
from fisher_edge.decision.predict import ROBUST, Prediction
from fisher_edge.dsp.blocks import FloatArray

BANDS, DIM = 4, 6
WINDOW_S = 1.0
RARE = 1e-4
Takes = list[tuple[FloatArray, float]]


def around(axis: int, count: int, seed: int, *, spread: float = 0.05, apart: float = 0.0) -> FloatArray:
    """Return windows (count, bands, dim) of one take around one of six directions in every band.

    `spread` is the noise of each window, `apart` that of the take as a whole.
    """
    random = np.random.default_rng(seed)
    vectors = spread * random.standard_normal((count, BANDS, DIM)) + apart * random.standard_normal((BANDS, DIM))
    vectors[:, :, axis] += 1
    return vectors.astype(np.float32)


def enrolled(takes: Takes, hop_s: float = WINDOW_S) -> Enrollment:
    """Return the enrollment of recordings, each given by its windows and its level (natural log of the RMS)."""
    counts = [len(windows) for windows, _ in takes]
    return Enrollment(
        bank=MemoryBank.of(np.concatenate([windows for windows, _ in takes])),
        take=np.repeat(np.arange(len(takes)), counts),
        end_s=np.concatenate([WINDOW_S + hop_s * np.arange(count) for count in counts]),
        level=np.concatenate(
            [log_rms + 0.02 * np.sin(np.arange(count)) for count, (_, log_rms) in zip(counts, takes, strict=True)]
        ),
        window_s=WINDOW_S,
    )


def calibrated(enrollment: Enrollment) -> Calibration:
    """Group the takes and calibrate."""
    calibration = calibrate(enrollment, grouped(enrollment).state_of_take)
    assert calibration is not None
    return calibration


def healthy(seeds: range, *, axis: int = 0, level: float = 0.0, apart: float = 0.02) -> Takes:
    """Return takes of a machine in one operating state."""
    return [(around(axis, 12, seed, apart=apart), level) for seed in seeds]


def scores(enrollment: Enrollment, calibration: Calibration, windows: FloatArray, state: int = 0) -> list[float]:
    """Score of new windows by the shortest span, each against the windows of one operating state."""
    among = np.asarray(grouped(enrollment).state_of_take)[enrollment.take] == state
    span = calibration.spans[0]
    return [float(score_of(span.unusual(enrollment.bank.residual(window, among)))) for window in windows]


# Operating states


def test_repetitions_of_one_state_are_one_state() -> None:
    """Takes that resemble each other as their own windows do belong together, and none is alone."""
    grouping = grouped(enrolled(healthy(range(5))))
    assert (grouping.state_of_take, grouping.alone) == ((0,) * 5, ())


def test_shape_alone_makes_another_state() -> None:
    """Two speeds that are equally loud are two states, numbered as they come."""
    takes = [(around(seed % 2, 8, seed), 0.0) for seed in range(4)]
    assert grouped(enrolled(takes)).state_of_take == (0, 1, 0, 1)


@pytest.mark.parametrize(("level", "states"), [(0.6, 1), (0.8, 2), (-0.8, 2)])
def test_level_alone_makes_another_state(level: float, states: int) -> None:
    """Takes of the same shape are one state up to twice as loud, more is another."""
    takes = [(around(0, 8, seed), level * (seed % 2)) for seed in range(4)]
    assert len(set(grouped(enrolled(takes)).state_of_take)) == states


def test_states_that_are_linked_by_one_between_them_are_one() -> None:
    """Takes of a load that rises step by step are one state, however far first and last are apart."""
    angles = np.radians(4.0 * np.arange(8))
    takes: Takes = []
    for seed, angle in enumerate(angles):
        windows = 0.03 * np.random.default_rng(seed).standard_normal((8, BANDS, DIM))
        windows[:, :, 0] += np.cos(angle)
        windows[:, :, 1] += np.sin(angle)
        takes.append((windows.astype(np.float32), 0.0))
    assert grouped(enrolled(takes)).state_of_take == (0,) * 8
    assert grouped(enrolled([takes[0], takes[-1]])).state_of_take == (0, 1)


def test_take_alone_in_its_state_is_named() -> None:
    """A state recorded once is alone where others are not; a single recording, or one state, is not."""
    odd = (around(3, 12, 9), 0.0)
    assert grouped(enrolled([*healthy(range(3)), odd])).alone == (3,)
    assert grouped(enrolled([odd])).alone == ()
    assert grouped(enrolled(healthy(range(2)))).alone == ()


def test_overlap_of_windows_makes_no_states() -> None:
    """Windows that share samples are near each other; takes of one state stay one state all the same."""
    takes: Takes = []
    for seed in range(4):
        pieces = around(0, 35, seed, spread=0.2)
        takes.append((np.stack([pieces[first : first + 4].mean(axis=0) for first in range(32)]), 0.0))
    assert grouped(enrolled(takes, hop_s=WINDOW_S / 4)).state_of_take == (0,) * 4


def test_takes_of_one_window_are_grouped_by_how_far_apart_takes_usually_are() -> None:
    """A take too short to have a spread of its own belongs to the state it resembles, and to no other."""
    long = [(around(seed % 2, 8, seed), 0.0) for seed in range(4)]
    short = [(around(axis, 1, 20 + axis), 0.0) for axis in (0, 1, 2)]
    assert grouped(enrolled([*long, *short])).state_of_take == (0, 1, 0, 1, 0, 1, 2)
    assert grouped(enrolled([(around(seed % 2, 1, seed), 0.0) for seed in range(6)])).state_of_take == (0, 1) * 3
    assert grouped(enrolled([(around(0, 1, 0), 0.0)])).state_of_take == (0,)


# Windows held out


def brute_force(enrollment: Enrollment, allowed: npt.NDArray[np.bool_]) -> list[float]:
    """Distance of every window to the nearest allowed one; NaN where none is."""
    rows = enrollment.bank.vectors.reshape(len(allowed), -1).astype(np.float64)
    distances = np.where(allowed, 1 - rows @ rows.T, np.inf).min(axis=1)
    return [float(distance) if np.isfinite(distance) else float("nan") for distance in distances]


def test_window_is_held_out_with_its_take() -> None:
    """A window meets the windows of other takes of its operating state alone."""
    enrollment = enrolled([*healthy(range(3)), *healthy(range(3, 5), axis=1)])
    states = grouped(enrollment).state_of_take
    of_window = np.asarray(states)[enrollment.take]
    allowed = (enrollment.take[:, None] != enrollment.take) & (of_window[:, None] == of_window)
    held_out = held_out_distances(enrollment, states)
    np.testing.assert_allclose(held_out, brute_force(enrollment, allowed), atol=1e-6)
    assert len(held_out) == 60


@pytest.mark.parametrize("hop_s", [WINDOW_S, WINDOW_S / 4, 3 * WINDOW_S])
def test_single_recording_is_held_out_by_blocks_without_overlap(hop_s: float) -> None:
    """Where a state was recorded once a window meets windows of other blocks with which it shares no sample."""
    enrollment = enrolled([(around(0, 64, 2), 0.0)], hop_s)
    block = np.arange(64) * BLOCKS // 64
    apart = np.abs(enrollment.end_s[:, None] - enrollment.end_s) >= WINDOW_S - 1e-9
    expected = brute_force(enrollment, apart & (block[:, None] != block))
    np.testing.assert_allclose(held_out_distances(enrollment, (0,)), expected, atol=1e-6)


def test_windows_that_all_overlap_cannot_be_held_out() -> None:
    """A recording as short as that gives no calibration."""
    enrollment = enrolled([(around(0, 4, 3), 0.0)], WINDOW_S / 8)
    assert np.isnan(held_out_distances(enrollment, (0,))).all()
    assert calibrate(enrollment, (0,)) is None


# Score


def test_score_is_the_mean_of_the_more_unusual_half_of_the_bands() -> None:
    """Three of five, two of four; one band alone counts for a part only; rows are scored one by one."""
    assert score_of(np.array([0.0, 9.0, -5.0, 3.0, 1.0])) == pytest.approx(13 / 3)
    assert score_of(np.array([0.0, 4.0, -5.0, 2.0])) == 3.0
    assert score_of(np.array([7.0])) == 7.0
    assert score_of(np.array([[1.0, 2.0], [4.0, 3.0]])).tolist() == [2.0, 4.0]


def test_bands_are_standardised_by_what_is_normal_in_each() -> None:
    """Median and robust spread of the log of squared residuals; a loud band and a steady one are equally unusual."""
    takes: Takes = []
    for seed in range(4):
        windows = around(0, 30, seed)
        windows[:, 1] += 0.4 * np.random.default_rng(100 + seed).standard_normal((30, DIM)).astype(np.float32)
        takes.append((windows, 0.0))
    enrollment = enrolled(takes)
    span = calibrated(enrollment).spans[0]
    assert span.windows == 1
    assert span.centre[1] > span.centre[[0, 2, 3]].max() + 2
    vectors = enrollment.bank.vectors.astype(np.float64)
    squared = ((vectors[:, None] - vectors[None]) ** 2).sum(axis=3)
    squared[enrollment.take[:, None] == enrollment.take] = np.inf
    logs = np.log(squared.min(axis=1) + 1e-6)
    centre = np.median(logs, axis=0)
    np.testing.assert_allclose(span.centre, centre, atol=1e-6)
    np.testing.assert_allclose(
        span.spread, ROBUST * np.median(np.abs(logs - centre), axis=0) + SMALLEST_SPREAD, atol=1e-6
    )
    residual = np.full((BANDS, DIM), 0.1)
    expected = (np.log(DIM * 0.01 + 1e-6) - span.centre) / span.spread
    np.testing.assert_allclose(span.unusual(residual), expected, atol=1e-6)


def test_equal_windows_prove_no_precision() -> None:
    """Takes that are copies of one window keep a floor of spread; everything stays finite."""
    window = around(0, 1, 0)
    enrollment = enrolled([(np.repeat(window, 8, axis=0), 0.0) for _ in range(3)])
    calibration = calibrated(enrollment)
    for span in calibration.spans:
        assert np.isfinite(span.centre).all()
        np.testing.assert_allclose(span.spread, SMALLEST_SPREAD)
        assert np.isfinite(span.score.limit(RARE))


# Spans of time


def test_spans_are_as_long_as_two_takes() -> None:
    """1, 2, 4, ... windows as long as two takes hold so many, at most 64."""
    lengths = {12: [1, 2, 4, 8], 16: [1, 2, 4, 8, 16], 1: [1], 200: [1, 2, 4, 8, 16, 32, LONGEST_SPAN]}
    for count, expected in lengths.items():
        calibration = calibrated(enrolled([(around(0, count, seed), 0.0) for seed in range(3)]))
        assert [span.windows for span in calibration.spans] == expected
    one_long = [(around(0, count, seed), 0.0) for seed, count in enumerate((64, 5, 5))]
    assert [span.windows for span in calibrated(enrolled(one_long)).spans] == [1, 2, 4]


def test_longer_spans_have_smaller_residuals() -> None:
    """Averaging removes what is chance; what a take is apart from the others stays."""
    noise = calibrated(enrolled([(around(0, 64, seed), 0.0) for seed in range(4)]))
    takes = calibrated(enrolled([(around(0, 64, seed, apart=0.05), 0.0) for seed in range(4)]))
    by_span = [float(span.centre.mean()) for span in noise.spans]
    assert by_span == sorted(by_span, reverse=True)
    assert noise.spans[5].centre.mean() < noise.spans[0].centre.mean() - 1
    assert takes.spans[5].centre.mean() > noise.spans[5].centre.mean() + 0.5


def test_step_is_the_time_from_window_to_window() -> None:
    """Read from the ends of the windows, whatever the length of the takes."""
    assert calibrated(enrolled(healthy(range(3)), hop_s=0.25)).step_s == pytest.approx(0.25)


# Takes as the unit of evidence


def limit(calibration: Calibration) -> float:
    """Score that is exceeded rarely."""
    return calibration.spans[0].score.limit(RARE)


def test_score_is_predicted_from_takes_and_not_from_windows() -> None:
    """Ten times as many windows of the same takes are no more certain; more takes are."""
    few = calibrated(enrolled([(around(0, 8, seed), 0.0) for seed in range(3)]))
    long = calibrated(enrolled([(around(0, 80, seed), 0.0) for seed in range(3)]))
    many = calibrated(enrolled([(around(0, 8, seed), 0.0) for seed in range(24)]))
    assert (few.takes, long.takes, many.takes) == (3, 3, 24)
    freedoms = [each.spans[0].score.freedom for each in (few, long, many)]
    assert freedoms == [USUAL_SCORE.takes + 2, USUAL_SCORE.takes + 2, USUAL_SCORE.takes + 23]


def test_one_odd_take_is_named_and_neither_widens_nor_collapses_the_spread() -> None:
    """A take within the state but unlike the others is left out: the limit is about what it is without it."""
    normal = healthy(range(8))
    odd = around(0, 12, 50)
    odd[:, :, 1] += 0.2
    with_odd, without = enrolled([*normal, (odd, 0.0)]), enrolled(normal)
    assert grouped(with_odd).state_of_take == (0,) * 9
    calibration, expected = calibrated(with_odd), calibrated(without)
    assert (calibration.odd, expected.odd) == ((8,), ())
    assert calibration.takes == 8
    assert limit(calibration) == pytest.approx(limit(expected), rel=0.3)


def test_one_run_in_take_hides_no_fault() -> None:
    """A take of another day that is alone in its state leaves the limit of the others: a fault is beyond it."""
    fault = around(0, 12, 70)
    fault[:, :2, 2] += 0.5
    plain, with_one = enrolled(healthy(range(5))), enrolled([*healthy(range(5)), (around(4, 12, 60), 0.0)])
    assert grouped(with_one).alone == (5,)
    for enrollment in (plain, with_one):
        calibration = calibrated(enrollment)
        assert min(scores(enrollment, calibration, fault)) > 1.5 * limit(calibration)
        fresh = around(0, 12, 80, apart=0.02)
        assert max(scores(enrollment, calibration, fresh)) < limit(calibration)


def test_takes_that_all_differ_are_judged_by_the_state_they_are_in() -> None:
    """Every take is a state of its own: windows of new takes of those states stay below the limit."""
    enrollment = enrolled([(around(axis, 32, axis), 0.0) for axis in range(5)])
    assert grouped(enrollment).state_of_take == (0, 1, 2, 3, 4)
    calibration = calibrated(enrollment)
    for axis in range(5):
        assert max(scores(enrollment, calibration, around(axis, 12, 90 + axis), axis)) < limit(calibration)
    broken = around(0, 12, 95)
    broken[:, :2, 5] += 0.6
    assert min(scores(enrollment, calibration, broken)) > limit(calibration)


def test_states_recorded_once_are_calibrated_by_blocks() -> None:
    """Contiguous blocks stand in for takes where no state was recorded twice; they are no odd takes."""
    enrollment = enrolled([(around(0, 64, 1), 0.0)])
    calibration = calibrated(enrollment)
    assert (calibration.takes, calibration.odd) == (BLOCKS, ())
    assert [span.windows for span in calibration.spans] == [1, 2, 4, 8, 16, 32]
    assert [span.score.takes for span in calibration.spans][-1] == 2, "two stretches of 32 windows"
    assert calibrated(enrolled([(around(0, 32, 1), 0.0)], hop_s=WINDOW_S / 16)).takes == 2, "two do not overlap"


def test_state_recorded_once_says_nothing_about_the_spread_between_takes() -> None:
    """Beside states recorded twice its blocks are not counted as takes."""
    enrollment = enrolled([*healthy(range(4)), (around(2, 12, 8), 0.0)])
    assert calibrated(enrollment).takes == 4


# Level


def test_every_state_has_a_level_of_its_own() -> None:
    """Where a machine is enrolled at rest and running, twice as loud as either is beyond its rare limit."""
    enrollment = enrolled([*healthy(range(4)), *healthy(range(4, 8), axis=1, level=-4.5)])
    running, rest = calibrated(enrollment).levels
    assert (running.mean, rest.mean) == pytest.approx((0.0, -4.5), abs=0.02)
    for level in (running, rest):
        assert level.mean + 0.05 < level.limit(RARE) < level.mean + np.log(2)


def test_spread_of_the_level_is_pooled_over_the_states() -> None:
    """A state recorded once borrows the spread of the others, and is known less well."""
    loads = [(around(0, 8, seed), 0.2 * (seed % 2)) for seed in range(6)]
    several, once = calibrated(enrolled([*loads, (around(1, 8, 7), 3.0)])).levels
    assert (several.freedom, once.freedom) == (11, 11)
    assert once.sd == pytest.approx(several.sd * np.sqrt(2 / (1 + 1 / 6)))
    steady: Prediction = calibrated(enrolled([(around(0, 8, seed), 0.0) for seed in range(6)])).levels[0]
    assert several.sd > 2 * steady.sd


# States that were not enrolled


def test_nothing_is_unfamiliar_where_one_state_is_known() -> None:
    """Without a second state nobody knows how far another one may be."""
    assert calibrated(enrolled(healthy(range(4)))).zone is None


def test_zone_is_as_far_as_the_states_are_from_each_other() -> None:
    """A state as far as the known ones are apart is within the zone, one several times as far is not."""
    angle = np.radians(20)

    def turned(count: int, seed: int, by: float) -> FloatArray:
        windows = around(0, count, seed)
        windows[:, :, 0] += np.cos(by) - 1
        windows[:, :, 1] += np.sin(by)
        return windows

    enrollment = enrolled([(turned(12, seed, angle * (seed % 2)), 0.0) for seed in range(6)])
    assert grouped(enrollment).state_of_take == (0, 1) * 3
    calibration = calibrated(enrollment)
    assert calibration.zone is not None
    span = calibration.spans[0]
    for by, within in ((-angle, True), (-5 * angle, False)):
        logs = []
        for window in turned(12, 40, by):
            residual = enrollment.bank.residual(window, enrollment.take % 2 == 0)
            logs.append(float((span.unusual(residual) * span.spread).mean()))
        assert bool(np.median(logs) <= calibration.zone) is within
        assert np.median(logs) > 1
