"""Simulated machines: healthy ones alarm as seldom as promised, at any hop; what changes at once or slowly is found."""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fisher_edge.decision.alarm import AlarmMachine, AlarmRule
from fisher_edge.decision.bank import MemoryBank
from fisher_edge.decision.calibrate import Calibration, Enrollment, calibrate, score_of
from fisher_edge.decision.evidence import PARTS, Found, Rates, Tracker, Unusual, _LongMean, limits, promise
from fisher_edge.decision.judgement import Judgement, Level, ModelName, State

Doubles = npt.NDArray[np.float64]
BANDS, DIM = 4, 6
NOISE, APART = 0.05, 0.04
"""Noise of a window, and offset of a take, in units of the length of a band's vector."""
LEVEL_NOISE, LEVEL_APART = 0.01, 0.02
RATES = Rates(warning_per_day=40.0, alarm_per_day=20.0)


def smooth(random: np.random.Generator, count: int) -> Doubles:
    """Noise (count, bands, dim) of windows that overlap by half."""
    noise = random.standard_normal((count + 1, BANDS, DIM))
    return NOISE * (noise[1:] + noise[:-1]) / math.sqrt(2)


@dataclass
class Machine:
    """A simulated machine: takes that differ, windows that resemble each other; every operating state is a direction.

    `states` is the angle (degrees) of each operating state from the first.
    """

    seed: int = 0
    step_s: float = 60.0
    takes: int = 6
    windows: int = 16
    apart: float = APART
    states: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        count = self.takes * len(self.states)
        state = np.tile(np.arange(len(self.states)), self.takes)
        rows = [
            self.base(self.states[number])
            + self.apart * self.random.standard_normal((BANDS, DIM))
            + smooth(self.random, self.windows)
            for number in state
        ]
        level = LEVEL_APART * np.repeat(self.random.standard_normal(count), self.windows)
        self.enrollment = Enrollment(
            bank=MemoryBank.of(np.concatenate(rows).astype(np.float32)),
            take=np.repeat(np.arange(count), self.windows),
            end_s=np.tile(self.step_s * (2.0 + np.arange(self.windows)), count),
            level=level + LEVEL_NOISE * self.random.standard_normal(len(level)),
            window_s=2 * self.step_s,
        )
        self.state = np.repeat(state, self.windows)
        calibration = calibrate(self.enrollment, tuple(int(each) for each in state))
        assert calibration is not None
        self.calibration: Calibration = calibration

    @staticmethod
    def base(degrees: float) -> Doubles:
        """Vectors (bands, dim) of an operating state."""
        vectors = np.zeros((BANDS, DIM))
        vectors[:, 0], vectors[:, 1] = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        return vectors

    def seen(self, embedding: Doubles, level: float = 0.0, state: int = 0) -> Unusual:
        """Compare an embedding with an operating state, as the judge does."""
        residual = self.enrollment.bank.compare(embedding.astype(np.float32)).residual(self.state == state)
        span = self.calibration.spans[0]
        bands = span.unusual(residual)
        return Unusual(residual, bands, float(score_of(bands)), float((bands * span.spread).mean()), level, state)

    def healthy(self, count: int, *, shift: float = 0.0, level: float = 0.0, degrees: float = 0.0) -> list[Unusual]:
        """Return windows in a row; `shift` moves half of the bands towards a direction of its own."""
        rows = self.base(degrees) + smooth(self.random, count)
        rows[:, :2, 3] += shift
        return [self.seen(row, level + LEVEL_NOISE * self.random.standard_normal()) for row in rows]

    def tracker(self, rates: Rates = RATES, step_s: float | None = None) -> Tracker:
        """Return a tracker that has seen nothing."""
        return Tracker(self.calibration, rates, step_s or self.step_s)


def last(tracker: Tracker, windows: list[Unusual]) -> Found:
    """Take windows and return the evidence after the last."""
    found = [tracker.take(window) for window in windows]
    return found[-1]


def worst(value: float | None) -> float:
    """A value that must be there."""
    assert value is not None
    return value


@pytest.mark.parametrize(
    ("jumps", "exceeded"),
    [
        ([1], False),
        ([1, 1], True),
        ([1, 0, 1], True),
        ([1, 0, 0, 1], False),
        ([1, 1, 0], True),
        ([1, 1, 0, 0], False),
        ([1, 0, 0], False),
    ],
)
def test_two_of_the_last_three_windows_make_a_sudden_change(jumps: list[int], exceeded: bool) -> None:
    """By the limit of the shortest span a single window proves nothing, for shape and for level alike."""
    machine = Machine()
    (strange,) = machine.healthy(1, shift=0.8, level=0.5)
    windows = [*machine.healthy(5), *(strange if jump else machine.healthy(1)[0] for jump in jumps)]
    found = last(machine.tracker(), windows)
    assert (worst(found.shape.sudden) > 1) is exceeded
    assert (worst(found.level.sudden) > 1) is exceeded


@pytest.mark.parametrize("windows", [1, 16])
@pytest.mark.parametrize(("shift", "level"), [(5.0, 0.0), (0.0, 3.0), (0.0, -3.0), (5.0, 3.0)])
def test_one_bang_is_neither_alarm_nor_warning(shift: float, level: float, windows: int) -> None:
    """A single window, however strange and loud, stands in no span; the evidence after it is as small as before."""
    machine = Machine(windows=windows)
    stream = [*machine.healthy(16), *machine.healthy(1, shift=shift, level=level), *machine.healthy(32)]
    tracker = machine.tracker(Rates())
    found = [tracker.take(window) for window in stream]
    assert max(each.shape.warning for each in found) < 1
    assert max(each.level.warning for each in found) < 1


def test_first_window_is_no_evidence() -> None:
    """Before there are two windows nothing is said, however strange the first is."""
    machine = Machine()
    tracker = machine.tracker()
    strange = machine.healthy(2, shift=0.8, level=0.5)
    first = tracker.take(strange[0])
    assert (first.shape.sudden, first.shape.alarm, first.shape.reach_s) == (None, 0.0, 0.0)
    assert (first.level.sudden, first.level.alarm) == (None, 0.0)
    assert worst(tracker.take(strange[1]).shape.sudden) > 1


def test_large_jump_is_sudden() -> None:
    """Windows every second: a fault is an alarm with its second window, by a span of a second or two."""
    machine = Machine(step_s=1.0)
    tracker = machine.tracker(Rates())
    assert last(tracker, machine.healthy(20)).shape.alarm < 1
    found = last(tracker, machine.healthy(2, shift=0.8)).shape
    assert (found.kind, found.alarm > 1, found.span_s <= 2.0) == ("sudden", True, True)
    assert found.warning > found.alarm


def test_level_is_held_against_that_of_the_operating_state() -> None:
    """The same level is normal in one state and far off in another."""
    machine = Machine(states=(0.0, 40.0))
    quiet = replace(machine.calibration.levels[1], mean=-3.0)
    machine.calibration = replace(machine.calibration, levels=(machine.calibration.levels[0], quiet))
    for state, level, alarm in ((0, 0.0, False), (1, -3.0, False), (0, -3.0, True), (1, 0.0, True)):
        windows = [machine.seen(machine.base((0.0, 40.0)[state]) + row, level, state) for row in smooth(
            np.random.default_rng(3), 4)]  # fmt: skip
        found = last(machine.tracker(), windows)
        assert (found.level.alarm > 1) is alarm


def test_shorter_hop_has_spans_of_equal_seconds() -> None:
    """With four times as many windows every span but the shortest holds four times as many."""
    machine = Machine()
    enrolled, often = (limits(machine.calibration, Rates(), step_s) for step_s in (60.0, 15.0))
    assert [span_s for span_s, _ in often[1:]] == [span_s for span_s, _ in enrolled[1:]]
    tracker = machine.tracker(Rates(), 15.0)
    reaches = [tracker.take(window).shape.reach_s for window in machine.healthy(64)]
    assert [reaches.index(60.0 * 2**power) + 1 for power in range(1, 5)] == [8, 16, 32, 64]


@pytest.mark.parametrize("times", [3, 20, 1000])
def test_longer_hop_averages_out_as_much_chance(times: int) -> None:
    """Fewer windows that overlap less: spans last as long at least, and a healthy machine stays below the limits."""
    machine = Machine()
    enrolled, seldom = (limits(machine.calibration, Rates(), step_s) for step_s in (60.0, 60.0 * times))
    for (span_s, _), (longer_s, _) in zip(enrolled[:5], seldom[:5], strict=True):
        assert longer_s >= span_s
    tracker = machine.tracker(Rates(), 60.0 * times)
    found = [tracker.take(window) for window in machine.healthy(40)]
    assert max(each.shape.alarm for each in found) < 1
    assert found[-1].shape.reach_s >= 8 * 60.0 * times


@pytest.mark.parametrize("step_s", [120.0, 60.0, 15.0, 600.0])
def test_takes_of_one_window_are_watched(step_s: float) -> None:
    """Where no span but the shortest was calibrated, two of three windows and longer means of the score remain."""
    machine = Machine(windows=1)
    assert len(machine.calibration.spans) == 1
    found = last(machine.tracker(step_s=step_s), machine.healthy(12))
    assert (found.shape.alarm < 1, found.level.alarm < 1) == (True, True)
    assert last(machine.tracker(step_s=step_s), machine.healthy(3, shift=0.8, level=0.5)).shape.alarm > 1


def test_drift_is_found_in_spans_of_hours() -> None:
    """A level that has moved a little for a day is drift; the memory of the long spans does not grow with them."""
    machine = Machine(step_s=600.0)
    tracker = machine.tracker(Rates())
    before = last(tracker, machine.healthy(400))
    assert before.level.alarm < 1
    assert before.level.drift is not None
    assert before.level.reach_s >= 24 * 3600
    after = last(tracker, machine.healthy(432, level=0.16))
    assert worst(after.level.drift) > 1
    held = sum(len(mean._parts) for means in tracker._means for mean in means)
    assert held <= 2 * len(tracker._means) * (PARTS + 1)
    assert len(tracker._means) == 4
    assert len(tracker._residuals) == 16


@given(windows=st.integers(1, 300), values=st.lists(st.floats(-10, 10), max_size=700))
def test_long_mean_is_the_mean_of_its_parts(windows: int, values: list[float]) -> None:
    """Nothing until so many values were there (up to a part), then the mean of the last whole parts."""
    mean = _LongMean(windows)
    part = max(1, windows // PARTS)
    parts = windows // part
    for count, value in enumerate(values, 1):
        found = mean.take(value)
        whole = count // part * part
        if whole < parts * part:
            assert found is None
        else:
            assert found == pytest.approx(np.mean(values[whole - parts * part : whole]), abs=1e-9)
    assert len(mean._parts) <= 2 * PARTS


def test_long_mean_skips_what_is_not_there() -> None:
    """A value that is missing is no value of 0."""
    mean = _LongMean(2)
    assert [mean.take(value) for value in (None, 1.0, None, 3.0, None)] == [None, None, None, 2.0, 2.0]


@pytest.mark.parametrize(
    ("degrees", "unfamiliar", "beyond"), [(-25.0, True, True), (-150.0, False, True), (0.0, False, False)]
)
def test_window_as_far_as_the_states_are_apart_may_be_another_state(
    degrees: float, unfamiliar: bool, beyond: bool
) -> None:
    """Three speeds are enrolled 25 degrees apart: as far again is unfamiliar, much farther is a fault."""
    machine = Machine(states=(0.0, 25.0, 50.0))
    found = last(machine.tracker(Rates()), [*machine.healthy(8), *machine.healthy(2, degrees=degrees)])
    assert found.unfamiliar is unfamiliar
    assert (found.shape.alarm > 1) is beyond


def test_single_window_is_not_unfamiliar() -> None:
    """Two of the last three, as for everything sudden."""
    machine = Machine(states=(0.0, 25.0, 50.0))
    tracker = machine.tracker(Rates())
    assert not last(tracker, [*machine.healthy(8), *machine.healthy(1, degrees=-25.0)]).unfamiliar
    assert not tracker.take(machine.healthy(1)[0]).unfamiliar
    assert tracker.take(machine.healthy(1, degrees=-25.0)[0]).unfamiliar


def alarms_per_day(machine: Machine, days: float, wander_s: float) -> float:
    """Alarms a day of a healthy machine that wanders between takes (AR(1)) with a correlation time, by its state."""
    count, keep = round(days * 86_400 / machine.step_s), math.exp(-machine.step_s / wander_s)
    random, tracker = machine.random, machine.tracker()
    alarm, alarms = AlarmMachine(AlarmRule(), lambda: 0.0), 0
    offset = machine.apart * random.standard_normal((BANDS, DIM))
    level = LEVEL_APART * random.standard_normal()
    fresh = math.sqrt(1 - keep**2)
    model = ModelName("nano", "0" * 64)
    for number, noise in enumerate(smooth(random, count)):
        offset = keep * offset + fresh * machine.apart * random.standard_normal((BANDS, DIM))
        level = keep * level + fresh * LEVEL_APART * random.standard_normal()
        window = machine.seen(machine.base(0.0) + offset + noise, level + LEVEL_NOISE * random.standard_normal())
        found = tracker.take(window)
        judgement = Judgement(number * machine.step_s, 1.0, 1.0, model, evidence=found.shape)
        change = alarm.judge(replace(judgement, level=Level(level, 0.0, 0.0, found.level)))
        alarms += change is not None and change.after is State.ALARM
    return alarms / days


@pytest.mark.parametrize("wander_s", [600.0, 3600.0])
def test_healthy_machines_alarm_no_more_often_than_promised(wander_s: float) -> None:
    """Takes differ, windows overlap, the machine wanders for minutes: on average at most as many alarms as asked for.

    The rate is high (20 a day) so that it can be measured; every machine stays below the end of the promised interval.
    """
    rates = []
    for seed in range(4):
        machine = Machine(seed=seed)
        low, high = promise(machine.calibration, RATES, machine.step_s)[RATES.alarm_per_day]
        assert low < RATES.alarm_per_day < high
        rates.append(alarms_per_day(machine, 1.0, wander_s))
        assert rates[-1] < high
    assert 0 < np.mean(rates) <= RATES.alarm_per_day
