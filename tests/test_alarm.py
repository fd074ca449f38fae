"""From judgements to states: N of M windows raise, all of the hold below the hysteresis lower, by a given clock."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fisher_edge.decision.alarm import AlarmMachine, AlarmRule, Quantity, worse
from fisher_edge.decision.judgement import Change, Judgement, Level, ModelName, State

WARNING, ALARM = 1.0, 2.0
MODEL = ModelName("nano", "0" * 64)
values = st.lists(st.floats(0, 3), max_size=40)
rules = st.builds(
    lambda needed, more, hold: AlarmRule(needed, needed + more, hold),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(1, 6),
)


@dataclass
class Clock:
    """A clock that stands still until a test moves it."""

    now_s: float

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now_s


def severities(sequence: list[float], rule: AlarmRule | None = None) -> list[str]:
    """Judge values one after the other."""
    quantity = Quantity(rule or AlarmRule())
    return [quantity.judge(value / WARNING, value / ALARM).value for value in sequence]


@pytest.mark.parametrize(
    ("sequence", "last"),
    [
        ([3, 0, 0, 3, 0, 0], "normal"),
        ([0, 3, 3], "alarm"),
        ([3, 0, 3], "alarm"),
        ([3, 1.5], "warning"),
        ([1.5, 0, 1.5], "warning"),
        ([1.5, 1.5, 1.5, 3], "warning"),
        ([1.0, 1.0, 1.0], "normal"),
        ([2.0, 2.0, 2.0], "warning"),
    ],
)
def test_two_of_three_windows_raise(sequence: list[float], last: str) -> None:
    """A single window raises nothing, two of the last three do, exactly at the threshold is not above it."""
    assert severities(sequence)[-1] == last


def test_alarm_falls_to_warning_and_then_to_normal() -> None:
    """Each step down takes its own hold of windows clearly below the threshold that is left."""
    sequence = [3, 3, 1.5, 1.5, 1.5, 0.5, 0.5, 0.5]
    assert severities(sequence) == ["normal", *["alarm"] * 3, *["warning"] * 3, "normal"]


def test_alarm_falls_straight_to_normal_when_all_is_quiet() -> None:
    """Three windows far below both thresholds end an alarm."""
    assert severities([3, 3, 0, 0, 0])[-2:] == ["alarm", "normal"]


@pytest.mark.parametrize(("value", "last"), [(1.95, "alarm"), (1.79, "warning"), (0.95, "warning"), (0.89, "normal")])
def test_hysteresis_holds_every_state_alike(value: float, last: str) -> None:
    """Just below a threshold is not enough to leave it, wherever the channel comes from: 0.9 times it is."""
    assert severities([3, 3, *[value] * 20])[-1] == last


def test_one_high_window_starts_the_hold_anew() -> None:
    """The windows of the hold must follow each other."""
    assert severities([3, 3, 0, 0, 1.9, 0, 0])[-1] == "alarm"
    assert severities([3, 3, 0, 0, 1.9, 0, 0, 0])[-1] == "normal"


@given(sequence=values, rule=rules)
def test_severity_never_falls_before_the_hold(sequence: list[float], rule: AlarmRule) -> None:
    """Whatever comes, a state that falls has `hold` windows below its threshold's hysteresis behind it."""
    order = ["normal", "warning", "alarm"]
    judged = ["normal", *severities(sequence, rule)]
    for index in range(1, len(judged)):
        if order.index(judged[index]) < order.index(judged[index - 1]):
            threshold = {"alarm": ALARM, "warning": WARNING}[judged[index - 1]]
            held = sequence[max(0, index - rule.hold) : index]
            assert len(held) == rule.hold
            assert max(held) < rule.hysteresis * threshold


@given(sequence=values, rule=rules)
def test_severity_rises_exactly_with_n_of_m(sequence: list[float], rule: AlarmRule) -> None:
    """The channel is in alarm whenever `needed` of the last `of` windows exceed its threshold."""
    judged = severities(sequence, rule)
    for index, severity in enumerate(judged):
        last = sequence[max(0, index + 1 - rule.of) : index + 1]
        if sum(value > ALARM for value in last) >= rule.needed:
            assert severity == "alarm"
        if sum(value > WARNING for value in last) >= rule.needed:
            assert severity != "normal"


@given(sequence=values)
def test_severity_is_normal_while_nothing_exceeds(sequence: list[float]) -> None:
    """Values at or below the warning threshold never raise anything."""
    assert severities([min(value, WARNING) for value in sequence]) == ["normal"] * len(sequence)


def test_memory_of_a_quantity_is_bounded() -> None:
    """A channel that runs for years keeps a handful of values."""
    quantity = Quantity(AlarmRule(needed=1, of=2, hold=5))
    for _ in range(1000):
        quantity.judge(0.0, 0.0)
    assert len(quantity._recent) == 5


def found(shape: float = 0.0, level: float = 0.0, time_s: float = 0.0, **options: Any) -> Judgement:
    """Return a judgement with a shape and a level of so many times their alarm thresholds; the warnings are at half."""
    return Judgement(
        time_s=time_s,
        window_s=1.0,
        rate_hz=16_000.0,
        model=MODEL,
        distance=shape * 0.02,
        threshold=0.02,
        warning_threshold=0.01,
        level=Level(0.0, 0.0, level * 0.4, threshold=0.4, warning_threshold=0.2),
        **options,
    )


def distrusted(time_s: float = 0.0, reason: str = "flat line") -> Judgement:
    """Return a judgement of a dead sensor."""
    return Judgement(time_s, 1.0, 16_000.0, MODEL, distrust=reason)


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands at 1000 s."""
    return Clock(1000.0)


@pytest.fixture
def machine(clock: Clock) -> AlarmMachine:
    """Return the alarm machine of a channel that has just started."""
    return AlarmMachine(AlarmRule(), clock)


def states(machine: AlarmMachine, judgements: list[Judgement]) -> list[State]:
    """Judge windows and return the state after each."""
    after = []
    for judgement in judgements:
        machine.judge(judgement)
        after.append(machine.state)
    return after


@pytest.mark.parametrize("far", [{"shape": 3.0}, {"level": 3.0}])
def test_shape_and_level_each_raise_an_alarm(machine: AlarmMachine, far: dict[str, float]) -> None:
    """Either quantity alone makes the channel an alarm with its second window, while the other stays quiet."""
    assert states(machine, [found(**far)] * 2) == [State.NORMAL, State.ALARM]


@pytest.mark.parametrize("near", [{"shape": 0.7}, {"level": 0.7}])
def test_warning_has_a_threshold_of_its_own(machine: AlarmMachine, near: dict[str, float]) -> None:
    """Between the two thresholds either quantity is a warning, however long it lasts."""
    assert states(machine, [found(**near)] * 5) == [State.NORMAL, *[State.WARNING] * 4]


def test_windows_of_shape_and_of_level_do_not_add_up(machine: AlarmMachine) -> None:
    """One window of a strange shape and one of a strange level are two single windows, not two of three."""
    assert states(machine, [found(shape=3.0), found(level=3.0)]) == [State.NORMAL] * 2


def test_change_says_when_why_and_by_which_window(machine: AlarmMachine) -> None:
    """A change carries the time of the window, both states, both multiples and the judgement; staying is none."""
    last = found(shape=2.5, level=0.25, time_s=12.0)
    assert machine.judge(found(shape=3.0, time_s=11.0)) is None
    change = machine.judge(last)
    reason = "shape at 2.50 times its threshold, level at 0.25 times its own"
    assert change == Change(12.0, State.NORMAL, State.ALARM, reason, last)
    assert machine.judge(found(shape=3.0, time_s=13.0)) is None
    assert (machine.since_s, machine.reason) == (12.0, None)


def test_interruption_says_when_and_why(machine: AlarmMachine, clock: Clock) -> None:
    """An interruption has the time of the clock and a reason, which stands until windows are judged again."""
    clock.now_s = 1234.0
    change = machine.interrupt(State.NO_DATA, "unplugged")
    assert change == Change(1234.0, State.NORMAL, State.NO_DATA, "unplugged")
    clock.now_s = 2000.0
    assert machine.interrupt(State.NO_DATA, "unplugged for long") is None
    assert (machine.state, machine.since_s, machine.reason) == (State.NO_DATA, 1234.0, "unplugged for long")
    machine.judge(found(time_s=2001.0))
    assert (machine.state, machine.since_s, machine.reason) == (State.NORMAL, 2001.0, None)


def test_dead_sensor_is_check_function_with_its_reason(machine: AlarmMachine) -> None:
    """A distrusted window changes the state at once, at its own time, and its reason is kept up to date."""
    dead = distrusted(5.0)
    assert machine.judge(dead) == Change(5.0, State.NORMAL, State.CHECK_FUNCTION, "flat line", dead)
    assert machine.judge(distrusted(6.0, "clipped")) is None
    assert (machine.state, machine.reason) == (State.CHECK_FUNCTION, "clipped")


def test_window_that_is_not_judged_is_no_baseline(machine: AlarmMachine) -> None:
    """A sound sensor without anything to compare with is `no_baseline`, with the reason of the judge."""
    unjudged = Judgement(7.0, 1.0, 16_000.0, MODEL, unjudged="nothing is enrolled", level=Level(0.0))
    change = machine.judge(unjudged)
    assert change == Change(7.0, State.NORMAL, State.NO_BASELINE, "nothing is enrolled", unjudged)


def test_interruptions_clear_no_alarm(machine: AlarmMachine) -> None:
    """After a dead sensor and missing data the alarm is back with the next window, until the hold is over."""
    states(machine, [found(shape=3.0)] * 2)
    states(machine, [distrusted()] * 10)
    machine.interrupt(State.NO_DATA, "unplugged")
    assert states(machine, [found()] * 3) == [State.ALARM, State.ALARM, State.NORMAL]


def test_dead_windows_do_not_count_towards_an_alarm(machine: AlarmMachine) -> None:
    """Between two strange windows, dead ones are no windows: two of the last three judged still raise."""
    after = states(machine, [found(shape=3.0), *[distrusted()] * 5, found(), found(shape=3.0)])
    assert after == [State.NORMAL, *[State.CHECK_FUNCTION] * 5, State.NORMAL, State.ALARM]


@pytest.mark.parametrize(
    ("shape", "level", "carried_by"), [(3.0, 1.5, "shape"), (1.5, 3.0, "level"), (3.0, 0.0, "shape")]
)
def test_resumed_alarm_is_carried_by_the_quantity_that_raised_it(
    clock: Clock, shape: float, level: float, carried_by: str
) -> None:
    """After a restart an alarm stands at once, and falls when the quantity further beyond its threshold is quiet."""
    machine = AlarmMachine(AlarmRule(), clock)
    machine.resume(Change(500.0, State.NORMAL, State.ALARM, "far off", found(shape, level)))
    assert (machine.state, machine.since_s, machine.reason) == (State.ALARM, 500.0, "far off")
    # Just below the alarm threshold of the carrier: too near to fall. The other quantity is quiet all along.
    near = found(shape=0.95) if carried_by == "shape" else found(level=0.95)
    other = found(level=0.95) if carried_by == "shape" else found(shape=0.95)
    assert states(machine, [near] * 6) == [State.ALARM] * 6
    machine = AlarmMachine(AlarmRule(), clock)
    machine.resume(Change(500.0, State.NORMAL, State.ALARM, "far off", found(shape, level)))
    assert states(machine, [other] * 3) == [State.ALARM, State.ALARM, State.WARNING]


@pytest.mark.parametrize("after", [State.NORMAL, State.NO_DATA, State.CHECK_FUNCTION, State.NO_BASELINE])
def test_only_warnings_and_alarms_are_resumed(machine: AlarmMachine, after: State) -> None:
    """A restart begins at normal unless the channel was a warning or an alarm."""
    machine.resume(Change(500.0, State.ALARM, after, "whatever", found(shape=3.0)))
    assert (machine.state, machine.since_s) == (State.NORMAL, 1000.0)


@pytest.mark.parametrize("judgement", [None, distrusted()])
def test_alarm_without_a_distance_is_resumed_by_the_shape(machine: AlarmMachine, judgement: Judgement | None) -> None:
    """An event of an earlier release has no judgement: the alarm stands until the shape is quiet."""
    machine.resume(Change(500.0, State.NORMAL, State.ALARM, "far off", judgement))
    assert states(machine, [found(shape=0.95)] * 4) == [State.ALARM] * 4


def test_new_enrollment_forgets_the_alarm(machine: AlarmMachine) -> None:
    """What was judged against another baseline neither holds the alarm nor counts towards a new one."""
    states(machine, [found(shape=3.0, level=3.0)] * 3)
    machine.forget()
    assert states(machine, [found(), found(shape=3.0, level=3.0)]) == [State.NORMAL] * 2


def test_worse_orders_severities() -> None:
    """Alarm before warning before normal, from either side."""
    assert worse(State.NORMAL, State.WARNING) is State.WARNING
    assert worse(State.ALARM, State.WARNING) is State.ALARM
    assert worse(State.NORMAL, State.NORMAL) is State.NORMAL
