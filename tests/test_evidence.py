"""Evidence over time: sudden, persistent and drift; limits by rate; unfamiliar states; false alarms by simulation."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from test_calibrate import AWAY, BANDS, DIM, HOME, NOISE, calibrated, enrollment, state, windows

from fisher_edge.decision.calibrate import Calibration, Enrollment, grouped, score_of
from fisher_edge.decision.evidence import (
    DAY_S,
    Found,
    Rates,
    Tracker,
    Unusual,
    _LongMean,
    _Ring,
    limits,
    promise,
    slack,
)
from fisher_edge.decision.predict import Prediction

STEP_S = 1.0


def unusual(found: Calibration, enrolled: Enrollment, window: np.ndarray, level: float = 0.0) -> Unusual:
    """What the judge would say of one window."""
    own = int(np.argmin(enrolled.bank.distances(window)))
    of_state = calibration_states(enrolled)
    residual = enrolled.bank.compare(window).residual(of_state == of_state[own])
    span = found.spans[0]
    bands = span.unusual(residual)
    log_ratio = float((bands * span.spread).mean())
    return Unusual(residual, bands, float(score_of(bands)), log_ratio, level, int(of_state[own]))


@cache
def calibration_states(enrolled: Enrollment) -> np.ndarray:
    """Operating state of every enrolled window."""
    return np.array(grouped(enrolled).state_of_take)[enrolled.take]


def follow(
    enrolled: Enrollment,
    stream: Iterable[np.ndarray],
    levels: Sequence[float] | None = None,
    rates: Rates | None = None,
    step_s: float = STEP_S,
) -> list[Found]:
    """Track windows one after the other."""
    found = calibrated(enrolled)
    tracker = Tracker(found, rates or Rates(), step_s)
    stream = list(stream)
    levels = [0.0] * len(stream) if levels is None else levels
    return [tracker.take(unusual(found, enrolled, window, level)) for window, level in zip(stream, levels, strict=True)]


@pytest.fixture(scope="module")
def enrolled() -> Enrollment:
    """Six takes of sixteen windows of one operating state."""
    return enrollment([windows(16, seed, HOME, 0.5) for seed in range(6)])


def shifted(count: int, by: float, seed: int = 77) -> np.ndarray:
    """Windows of the enrolled state with a lasting change of so many times the noise."""
    return windows(count, seed, HOME + by * NOISE * np.sign(state(8)), 0.5)


def test_healthy_windows_give_no_evidence(enrolled: Enrollment) -> None:
    """A hundred windows of the enrolled state stay below every limit."""
    assert max(max(each.shape.alarm, each.level.alarm) for each in follow(enrolled, shifted(100, 0.0))) < 0.7


def test_large_change_is_sudden_with_its_second_window(enrolled: Enrollment) -> None:
    """One window proves nothing; two of three do."""
    found = follow(enrolled, [*shifted(5, 0.0), *shifted(2, 20.0)])
    assert (found[5].shape.sudden or 0.0) < 1
    assert (found[6].shape.sudden or 0.0) > 1
    assert found[6].shape.kind == "sudden"


def test_one_bang_is_no_alarm(enrolled: Enrollment) -> None:
    """A single strange window stands neither in the shortest span nor in the mean of a longer one."""
    found = follow(enrolled, [*shifted(20, 0.0), *shifted(1, 100.0), *shifted(60, 0.0)])
    assert max(each.shape.alarm for each in found) < 1


def test_small_lasting_change_is_persistent() -> None:
    """What no window shows by itself, the mean of many does."""
    takes = enrollment([windows(64, seed, HOME, 0.1) for seed in range(6)], hop_s=10.0)
    small = windows(100, 5, HOME + 0.5 * NOISE * np.sign(state(8)), 0.1)
    found = follow(takes, small, step_s=10.0)
    assert max(each.shape.sudden or 0.0 for each in found) < 1
    assert max(each.shape.persistent or 0.0 for each in found) > 1
    assert found[-1].shape.kind == "persistent"
    assert found[-1].shape.span_s > 60


@pytest.mark.parametrize("level", [1.0, -1.0])
def test_level_counts_up_and_down(enrolled: Enrollment, level: float) -> None:
    """A factor of e louder or quieter is an alarm of the level alone."""
    found = follow(enrolled, shifted(6, 0.0), [0.0, 0.0, *[level] * 4])
    assert found[1].level.alarm == 0
    assert found[3].level.alarm > 1
    assert found[3].shape.alarm < 1


def test_fewer_false_alarms_need_more_evidence(enrolled: Enrollment) -> None:
    """Limits grow as the acceptable rate shrinks, and a warning comes before its alarm."""
    found = calibrated(enrolled)
    often, seldom = (limits(found, Rates(rate, rate / 10), STEP_S) for rate in (1.0, 0.1))
    for (_, loose), (_, strict) in zip(often, seldom, strict=True):
        assert loose.warning < loose.alarm
        assert strict.alarm > loose.alarm


def test_spans_double_up_to_three_days(enrolled: Enrollment) -> None:
    """Beyond what was calibrated, spans go on doubling."""
    spans = [span_s for span_s, _ in limits(calibrated(enrolled), Rates(), STEP_S)]
    assert all(later == 2 * earlier for earlier, later in itertools.pairwise(spans))
    assert spans[-1] <= 3 * DAY_S < 2 * spans[-1]


def test_another_hop_averages_out_as_much_chance() -> None:
    """Windows of 1 s enrolled every 0.25 s and monitored every 1 s: a quarter of the windows are as much evidence."""
    found = calibrated(enrollment([windows(32, seed, HOME) for seed in range(4)], hop_s=0.25))
    assert [found.windows_now(span, 1.0) for span in found.spans] == [1, 2, 2, 2, 4, 8]
    assert [found.windows_now(span, 60.0) for span in found.spans] == [1, 2, 2, 2, 4, 8]
    assert [found.windows_now(span, 0.25) for span in found.spans] == [1, 2, 4, 8, 16, 32]


def two_states() -> Enrollment:
    """Two operating states, each recorded three times."""
    near = HOME + 0.3 * state(7)
    return enrollment([windows(8, s, HOME) for s in range(3)] + [windows(8, s, near) for s in range(10, 13)])


def test_third_state_is_unfamiliar_and_a_stranger_is_not() -> None:
    """About as far as the states are from each other may be a state; much farther is a fault."""
    third = windows(6, 33, HOME + 0.3 * state(9))
    found = follow(two_states(), third)
    assert [each.unfamiliar for each in found] == [False, *[True] * 5]
    assert found[-1].shape.warning > 1
    assert not any(each.unfamiliar for each in follow(two_states(), windows(6, 34, AWAY)))


def test_level_within_the_enrolled_states_is_usual_in_an_unfamiliar_one() -> None:
    """Between quiet and loud states a third may be anywhere, and beyond them by as much; farther off it is judged."""
    takes = two_states()
    levels = np.where(calibration_states(takes) == 0, 0.0, 1.0)
    takes = Enrollment(takes.bank, takes.take, takes.end_s, levels, takes.window_s)
    third = windows(8, 33, HOME + 0.3 * state(9))
    for level in (0.5, 1.9, -0.9):
        assert max(each.level.alarm for each in follow(takes, third, [level] * 8)[2:]) == 0
    assert max(each.level.alarm for each in follow(takes, third, [3.0] * 8)) > 1


def test_unfamiliar_lasts_while_the_change_does() -> None:
    """Windows that fall just below the limit in between do not turn it into an alarm."""
    takes = two_states()
    third = list(windows(12, 33, HOME + 0.3 * state(9)))
    third[5:7] = list(windows(2, 44, HOME + 0.08 * state(9)))
    assert all(each.unfamiliar for each in follow(takes, third)[1:])


def test_false_alarms_are_as_rare_as_promised_under_dependence() -> None:
    """Machines whose conditions wander between and within takes: exceedances a day, against the promise.

    Window noise is shared by overlapping neighbours, and what differs between takes wanders with a correlation time of
    ten minutes.
    """
    step_s, rate = 30.0, 20.0
    rates = Rates(rate, rate)
    alarms, days, high = 0, 0.0, 0.0
    for machine in range(3):
        rng = np.random.default_rng(machine)
        direction = rng.normal(size=(3, BANDS, DIM))

        def stream(count: int, rng: np.random.Generator = rng, direction: np.ndarray = direction) -> np.ndarray:
            keep, value, rows = np.exp(-step_s / 600.0), rng.normal(size=3), []
            noise = rng.normal(size=(count + 1, BANDS, DIM))
            for index in range(count):
                value = keep * value + np.sqrt(1 - keep**2) * rng.normal(size=3)
                own = np.tensordot(value, direction, 1) * 0.3 * NOISE
                rows.append(HOME + own + NOISE * (noise[index] + noise[index + 1]) / np.sqrt(2))
            return np.asarray(rows, np.float32)

        takes = enrollment([stream(5) for _ in range(10)])
        found = calibrated(takes)
        tracker = Tracker(found, rates, step_s)
        count, before = 1440, False
        for window in stream(count):
            now = tracker.take(unusual(found, takes, window)).shape.alarm > 1
            alarms, before = alarms + (now and not before), now
        days += count * step_s / DAY_S
        high = max(high, promise(found, rates, step_s)[rate][1])
    assert alarms / days <= high / 2
    assert alarms / days <= rate


def test_promise_widens_with_fewer_takes() -> None:
    """The interval around the asked rate says how little few takes know."""
    few = calibrated(enrollment([windows(8, seed, HOME, 0.5) for seed in range(3)]))
    many = calibrated(enrollment([windows(8, seed, HOME, 0.5) for seed in range(40)]))
    for rate in (0.1, 1.0):
        (low, high), (lower, higher) = (promise(each, Rates(), STEP_S)[rate] for each in (many, few))
        assert low < rate < high
        assert high / low < higher / lower


def test_slack_is_what_further_takes_would_gain() -> None:
    """Limits are wider than they could be, less so with more takes, and never narrower."""
    calibrations = [
        calibrated(enrollment([windows(16, seed, HOME, 0.5) for seed in range(takes)])) for takes in (3, 6, 24)
    ]
    slacks = [slack(each, Rates(), STEP_S) for each in calibrations]
    assert slacks == sorted(slacks, reverse=True)
    assert slacks[-1] > 1
    for found, said in zip(calibrations, slacks, strict=True):
        known = replace(found, spans=tuple(replace(span, score=settled(span.score)) for span in found.spans))
        pairs = zip(limits(found, Rates(), STEP_S), limits(known, Rates(), STEP_S), strict=True)
        ratios = [(now.alarm - now.normal) / (then.alarm - then.normal) for (_, now), (_, then) in pairs]
        assert said == pytest.approx(np.mean(ratios))
        assert slack(known, Rates(), STEP_S) == pytest.approx(1.0, abs=1e-3)


def settled(score: Prediction) -> Prediction:
    """Return what very many takes of the same spread would predict."""
    return Prediction(score.mean, score.sd / math.sqrt(1 + 1 / score.takes), 10_000, 10_000)


def test_long_means_keep_bounded_memory() -> None:
    """A span of days is kept in eight parts."""
    mean = _LongMean(80)
    values = [mean.take(float(value)) for value in range(200)]
    assert values[78] is None
    assert values[79] == pytest.approx(np.mean(range(80)))
    assert values[199] == pytest.approx(np.mean(range(120, 200)))
    assert len(mean._parts) == 8


def test_ring_gives_the_mean_of_the_last_rows() -> None:
    """Whatever the place in the ring."""
    ring = _Ring(4)
    for value in range(11):
        ring.append(np.full((2, 2), float(value)))
        for count in range(1, len(ring) + 1):
            assert ring.mean(count)[0, 0] == pytest.approx(np.mean(range(value - count + 1, value + 1)))
    assert len(ring) == 4
