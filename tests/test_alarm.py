"""From evidence to states: what is beyond its limit raises, a hold below lowers, by the time of the windows."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fisher_edge.decision.alarm import UNFAMILIAR, AlarmMachine, AlarmRule
from fisher_edge.decision.judgement import Change, Evidence, Judgement, Level, ModelName, State

MODEL = ModelName("nano", "0" * 64)
SPAN_S = 60.0
REACH_S = 600.0
RULE = AlarmRule(delay_s=0.0, hold_s=3.0)


@dataclass
class Clock:
    """A clock that stands still until a test moves it."""

    now_s: float

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now_s


def evidence(over: float, span_s: float = SPAN_S, reach_s: float = REACH_S) -> Evidence:
    """Return evidence of so many times the limit of an alarm; that of a warning is at half."""
    return Evidence(sudden=over, warning=2 * over, span_s=span_s, reach_s=reach_s)


def found(shape: float = 0.0, level: float = 0.0, time_s: float = 0.0, **options: Any) -> Judgement:
    """Return a judgement with evidence of shape and of level of so many times the limit of an alarm."""
    spans = {name: options.pop(name) for name in ("span_s", "reach_s") if name in options}
    return Judgement(
        time_s=time_s,
        window_s=1.0,
        rate_hz=16_000.0,
        model=MODEL,
        distance=0.02,
        score=1.0,
        evidence=evidence(shape, **spans),
        level=Level(0.0, 0.0, 0.1, evidence(level, **spans)),
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
    return AlarmMachine(RULE, clock)


def seconds(judgements: list[Judgement], first_s: float = 0.0) -> list[Judgement]:
    """Let windows follow each other second by second."""
    return [replace(judgement, time_s=first_s + index) for index, judgement in enumerate(judgements)]


def states(machine: AlarmMachine, judgements: list[Judgement]) -> list[State]:
    """Judge windows and return the state after each."""
    after = []
    for judgement in judgements:
        machine.judge(judgement)
        after.append(machine.state)
    return after


@pytest.mark.parametrize("far", [{"shape": 1.01}, {"level": 1.01}])
def test_shape_and_level_each_raise_an_alarm(machine: AlarmMachine, far: dict[str, float]) -> None:
    """Evidence of either beyond its limit is an alarm with the window that completes it."""
    assert states(machine, [found(), found(**far)]) == [State.NORMAL, State.ALARM]


@pytest.mark.parametrize("near", [{"shape": 0.7}, {"level": 0.7}])
def test_warning_has_a_limit_of_its_own(machine: AlarmMachine, near: dict[str, float]) -> None:
    """Between the two limits either is a warning, however long it lasts."""
    assert states(machine, seconds([found(**near)] * 5)) == [State.WARNING] * 5


@pytest.mark.parametrize(("value", "last"), [(1.0, "warning"), (0.5, "normal")])
def test_exactly_at_a_limit_is_not_beyond_it(machine: AlarmMachine, value: float, last: str) -> None:
    """A limit itself raises nothing."""
    assert states(machine, seconds([found(shape=value)] * 5))[-1].value == last


@pytest.mark.parametrize(("value", "last"), [(0.95, "alarm"), (0.89, "warning"), (0.47, "warning"), (0.44, "normal")])
def test_hysteresis_holds_every_state_alike(machine: AlarmMachine, value: float, last: str) -> None:
    """Just below a limit is not enough to leave a state, 0.9 times it is."""
    assert states(machine, seconds([found(shape=3.0), *[found(shape=value)] * 20]))[-1].value == last


def test_state_falls_after_the_hold(machine: AlarmMachine) -> None:
    """Three seconds of quiet end an alarm; a window in between begins the hold again."""
    quiet, near = found(), found(shape=0.95)
    after = states(machine, seconds([found(shape=3.0), quiet, quiet, near, quiet, quiet, quiet, quiet]))
    assert after == [*[State.ALARM] * 7, State.NORMAL]


def test_alarm_falls_no_further_than_the_whole_hold_allows(machine: AlarmMachine) -> None:
    """A hold with one window at the level of a warning ends at the warning."""
    after = states(machine, seconds([found(shape=3.0), found(), found(shape=0.7), found(), found()]))
    assert after[-1] is State.WARNING


def test_delay_waits_before_the_state_rises(clock: Clock) -> None:
    """Evidence must stay beyond the limit for the delay; one quiet window begins it again."""
    machine = AlarmMachine(AlarmRule(delay_s=2.0, hold_s=3.0), clock)
    far, quiet = found(shape=3.0), found()
    after = states(machine, seconds([far, far, quiet, far, far, far]))
    assert after == [*[State.NORMAL] * 5, State.ALARM]


def test_state_falls_only_by_evidence_of_the_span_that_raised_it(machine: AlarmMachine) -> None:
    """What an hour showed is not cleared by the first minute after a restart."""
    states(machine, seconds([found(shape=3.0, span_s=3600.0, reach_s=3600.0)]))
    short = seconds([found(reach_s=60.0)] * 20, 1.0)
    assert states(machine, short) == [State.ALARM] * 20
    assert states(machine, seconds([found(reach_s=3600.0)] * 4, 21.0))[-1] is State.NORMAL


def test_change_says_when_why_and_by_which_window(machine: AlarmMachine) -> None:
    """A change carries the time of the window, both states, both multiples, the kind and the judgement."""
    last = found(shape=2.5, level=0.25, time_s=12.0)
    assert machine.judge(found(time_s=11.0)) is None
    change = machine.judge(last)
    reason = "shape at 2.50 times its limit, level at 0.25 times its own"
    assert change == Change(12.0, State.NORMAL, State.ALARM, reason, "sudden", last)
    assert machine.judge(found(shape=3.0, time_s=13.0)) is None
    assert (machine.since_s, machine.reason) == (12.0, None)


@pytest.mark.parametrize("kind", ["sudden", "persistent", "drift"])
def test_change_names_the_kind_of_evidence(machine: AlarmMachine, kind: str) -> None:
    """The kind is that of the quantity and of the span that say most."""
    shape = Evidence(**{kind: 1.5}, warning=3.0, span_s=SPAN_S, reach_s=REACH_S)
    change = machine.judge(replace(found(), evidence=shape))
    assert change is not None
    assert change.kind == kind


def test_unfamiliar_state_is_a_warning_however_far_its_shape(machine: AlarmMachine) -> None:
    """It asks to be enrolled, under a kind of its own."""
    change = machine.judge(found(shape=5.0, unfamiliar=True))
    assert change is not None
    assert (change.after, change.kind) == (State.WARNING, UNFAMILIAR)
    assert "enroll it if it is normal" in change.reason


def test_level_alarms_in_an_unfamiliar_state(machine: AlarmMachine) -> None:
    """A level beyond all enrolled states is an alarm."""
    assert states(machine, [found(shape=5.0, level=1.5, unfamiliar=True)]) == [State.ALARM]


def test_unfamiliar_state_ends_no_alarm(machine: AlarmMachine) -> None:
    """A machine that is in alarm and then sounds like another state stays in alarm."""
    assert states(machine, seconds([found(shape=3.0), *[found(shape=3.0, unfamiliar=True)] * 20])) == [State.ALARM] * 21


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
    assert machine.judge(dead) == Change(5.0, State.NORMAL, State.CHECK_FUNCTION, "flat line", None, dead)
    assert machine.judge(distrusted(6.0, "clipped")) is None
    assert (machine.state, machine.reason) == (State.CHECK_FUNCTION, "clipped")


def test_window_that_is_not_judged_is_no_baseline(machine: AlarmMachine) -> None:
    """A sound sensor without anything to compare with is `no_baseline`, with the reason of the judge."""
    unjudged = Judgement(7.0, 1.0, 16_000.0, MODEL, unjudged="nothing is enrolled", level=Level(0.0))
    change = machine.judge(unjudged)
    assert change == Change(7.0, State.NORMAL, State.NO_BASELINE, "nothing is enrolled", None, unjudged)


def test_interruptions_clear_no_alarm(machine: AlarmMachine) -> None:
    """After a dead sensor and missing data the alarm is back with the next window, until the hold is over."""
    states(machine, [found(shape=3.0)])
    states(machine, seconds([distrusted()] * 10, 1.0))
    machine.interrupt(State.NO_DATA, "unplugged")
    assert states(machine, seconds([found()] * 4, 11.0)) == [*[State.ALARM] * 3, State.NORMAL]


def test_resumed_alarm_stands_until_its_span_says_that_all_is_well(clock: Clock) -> None:
    """After a restart an alarm stands at once, with its time and reason."""
    machine = AlarmMachine(RULE, clock)
    machine.resume(Change(500.0, State.NORMAL, State.ALARM, "far off", "persistent", found(3.0, span_s=600.0)))
    assert (machine.state, machine.since_s, machine.reason) == (State.ALARM, 500.0, "far off")
    assert states(machine, seconds([found(reach_s=599.0)] * 10, 600.0)) == [State.ALARM] * 10
    assert states(machine, seconds([found(reach_s=600.0)] * 4, 610.0))[-1] is State.NORMAL


@pytest.mark.parametrize("after", [State.NORMAL, State.NO_DATA, State.CHECK_FUNCTION, State.NO_BASELINE])
def test_only_warnings_and_alarms_are_resumed(machine: AlarmMachine, after: State) -> None:
    """A restart begins at normal unless the channel was a warning or an alarm."""
    machine.resume(Change(500.0, State.ALARM, after, "whatever", None, found(shape=3.0)))
    assert (machine.state, machine.since_s) == (State.NORMAL, 1000.0)


@pytest.mark.parametrize("judgement", [None, distrusted()])
def test_alarm_of_an_earlier_release_is_resumed(machine: AlarmMachine, judgement: Judgement | None) -> None:
    """An event without evidence: the alarm stands until a hold of quiet windows."""
    machine.resume(Change(500.0, State.NORMAL, State.ALARM, "far off", None, judgement))
    assert states(machine, seconds([found(shape=0.95)] * 8, 600.0)) == [State.ALARM] * 8


def test_new_enrollment_forgets_the_alarm(machine: AlarmMachine) -> None:
    """What was judged against another baseline does not hold the alarm."""
    states(machine, [found(shape=3.0, level=3.0, span_s=3600.0, reach_s=3600.0)])
    machine.forget()
    assert states(machine, [found(time_s=1.0, reach_s=1.0)]) == [State.NORMAL]


inputs = st.one_of(
    st.builds(
        lambda shape, level, reach_s, unfamiliar: found(shape, level, reach_s=reach_s, unfamiliar=unfamiliar),
        st.floats(0, 3),
        st.floats(0, 3),
        st.sampled_from([1.0, SPAN_S, REACH_S]),
        st.booleans(),
    ),
    st.just(distrusted()),
    st.sampled_from([State.NO_DATA, State.CHECK_FUNCTION, State.NO_BASELINE]),
)


def put(machine: AlarmMachine, entry: Judgement | State, time_s: float) -> None:
    """Give a machine a window or an interruption."""
    if isinstance(entry, Judgement):
        machine.judge(replace(entry, time_s=time_s))
    else:
        assert entry in {State.NO_DATA, State.CHECK_FUNCTION, State.NO_BASELINE}
        machine.interrupt(entry, "gone")


@given(entries=st.lists(inputs, max_size=40), missing=st.lists(inputs, max_size=20))
def test_missing_data_clears_no_alarm(entries: list[Judgement | State], missing: list[Judgement | State]) -> None:
    """Whatever came before: after interruptions and dead windows alone, the next near window is still an alarm."""
    machine = AlarmMachine(RULE, Clock(0.0))
    for time_s, entry in enumerate([*entries, found(shape=3.0)]):
        put(machine, entry, float(time_s))
    for time_s, entry in enumerate(missing):
        if not isinstance(entry, Judgement) or entry.distrust:
            put(machine, entry, 100.0 + time_s)
    put(machine, found(shape=0.95), 200.0)
    assert machine.state is State.ALARM


@given(entries=st.lists(inputs, max_size=60))
def test_severity_never_falls_before_the_hold(entries: list[Judgement | State]) -> None:
    """A judged state that falls has a hold of windows clearly below the limit behind it."""
    machine = AlarmMachine(RULE, Clock(0.0))
    order = [State.NORMAL, State.WARNING, State.ALARM]
    judged, seen = State.NORMAL, [(0.0, 9.0)]
    for time_s, entry in enumerate(entries):
        put(machine, entry, float(time_s))
        if not isinstance(entry, Judgement) or entry.distrust or not entry.evidence or not entry.level:
            continue
        assert entry.level.evidence is not None
        seen.append((float(time_s), max(entry.evidence.alarm, entry.level.evidence.alarm)))
        if order.index(machine.state) < order.index(judged) and not any(
            isinstance(each, Judgement) and each.unfamiliar for each in entries
        ):
            held = [over for when, over in seen if when >= time_s - RULE.hold_s]
            assert max(held) <= (RULE.hysteresis if judged is State.ALARM else RULE.hysteresis / 2)
        judged = machine.state
