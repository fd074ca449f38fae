"""From judgements to states: evidence raises at once or after a delay, and lowers after a hold, by a given clock."""

from dataclasses import replace

import pytest
from alarms import (
    LONG_S,
    MODEL,
    ORDER,
    STEP_S,
    A,
    Clock,
    N,
    W,
    distrusted,
    every,
    evidence,
    found,
    interrupt,
    machine_of,
    states,
    unjudged,
)
from hypothesis import given
from hypothesis import strategies as st

from fisher_edge.decision.alarm import UNFAMILIAR, AlarmMachine, AlarmRule, remembered, worse
from fisher_edge.decision.judgement import Change, Judgement, Level, State


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands at 1000 s."""
    return Clock(1000.0)


@pytest.fixture
def machine(clock: Clock) -> AlarmMachine:
    """Return the alarm machine of a channel that has just started."""
    return AlarmMachine(AlarmRule(), clock)


# Hold 10 s, hysteresis 0.9; a window every 5 s.
@pytest.mark.parametrize(
    ("rule", "shapes", "expected"),
    [
        (AlarmRule(), [0, 3], [N, A]),
        (AlarmRule(), [0.4, 0.5], [N, N]),
        (AlarmRule(), [0.6, 0.6, 3], [W, W, A]),
        (AlarmRule(), [1.0, 1.0], [W, W]),
        (AlarmRule(), [3, 0, 0, 0], [A, A, A, N]),
        (AlarmRule(), [3, 0.6, 0.6, 0.6, 0, 0, 0], [A, A, A, W, W, W, N]),
        (AlarmRule(), [3, 0, 0, 3, 0, 0, 0], [A, A, A, A, A, A, N]),
        (AlarmRule(), [3, 0, 0, 0.95, 0, 0, 0], [A, A, A, A, A, A, N]),
        (AlarmRule(), [3, 0.95, 0.95, 0.95, 0.95], [A] * 5),
        (AlarmRule(), [3, 0.89, 0.89, 0.89], [A, A, A, W]),
        (AlarmRule(), [0.6, 0.47, 0.47, 0.47, 0.47], [W] * 5),
        (AlarmRule(), [0.6, 0.44, 0.44, 0.44], [W, W, W, N]),
        (AlarmRule(), [3, 0, 0.6, 0.3], [A, A, A, W]),
        (AlarmRule(hold_s=0), [3, 0, 3, 0], [A, N, A, N]),
        (AlarmRule(hold_s=20), [3, 0, 0, 0, 0, 0], [A, A, A, A, A, N]),
        (AlarmRule(delay_s=10), [3, 3, 3, 3], [N, N, A, A]),
        (AlarmRule(delay_s=10), [3, 3, 0, 3, 3, 3], [N, N, N, N, N, A]),
        (AlarmRule(delay_s=10), [3, 0.6, 3, 3, 3, 3], [N, N, W, W, A, A]),
        (AlarmRule(delay_s=10), [0.6, 3, 0.6, 3], [N, N, W, W]),
        (AlarmRule(delay_s=7), [3, 3, 3], [N, N, A]),
        (AlarmRule(hysteresis=0.5), [3, 0.6, 0.6, 0.6, 0.49, 0.2, 0.2], [A, A, A, A, A, A, W]),
    ],
)
def test_state_follows_the_evidence(rule: AlarmRule, shapes: list[float], expected: list[State]) -> None:
    """It rises once evidence was beyond a limit for the delay, and falls once all was clearly below for the hold."""
    assert states(machine_of(rule), every(STEP_S, *shapes)) == expected


@pytest.mark.parametrize("far", [{"shape": 3.0}, {"level": 3.0}])
def test_shape_and_level_each_raise_an_alarm(machine: AlarmMachine, far: dict[str, float]) -> None:
    """Either quantity alone makes the channel an alarm, while the other stays quiet."""
    assert states(machine, [found(), found(**far)]) == [N, A]


@pytest.mark.parametrize("near", [{"shape": 0.7}, {"level": 0.7}])
def test_warning_has_a_limit_of_its_own(machine: AlarmMachine, near: dict[str, float]) -> None:
    """Between the two limits either quantity is a warning, however long it lasts."""
    judgements = [found(time_s=STEP_S * number, **near) for number in range(50)]
    assert states(machine, judgements) == [W] * 50


def test_alarm_stands_until_both_quantities_are_quiet(machine: AlarmMachine) -> None:
    """An alarm of the shape that becomes one of the level stays an alarm."""
    judgements = [found(3.0, 0.0, 0.0), *(found(0.0, 3.0, 5.0 * number) for number in range(1, 6))]
    assert states(machine, judgements) == [A] * 6


def test_change_says_when_why_by_which_kind_and_by_which_window(machine: AlarmMachine) -> None:
    """A change carries the time of the window, both states, both multiples, the kind and the judgement."""
    last = found(shape=2.5, level=0.25, time_s=12.0)
    assert machine.judge(found(time_s=11.0)) is None
    change = machine.judge(last)
    reason = "shape at 2.50 times its limit, level at 0.25 times its own"
    assert change == Change(12.0, N, A, reason, "sudden", last)
    assert machine.judge(found(shape=3.0, time_s=13.0)) is None
    assert (machine.since_s, machine.reason) == (12.0, None)


def test_kind_is_that_of_the_evidence_that_says_more(machine: AlarmMachine) -> None:
    """A lasting change of the level is persistent though the shape is sudden; back to normal has no kind."""
    shape, level = evidence(1.2), evidence(1.5, span_s=LONG_S)
    judgement = replace(found(), evidence=shape, level=Level(0.0, 0.0, 0.5, level))
    change = machine.judge(judgement)
    assert change is not None
    assert change.kind == "persistent"
    fallen = [machine.judge(found(time_s=time_s, reach_s=LONG_S)) for time_s in (5.0, 10.0, 15.0)]
    assert [each and (each.after, each.kind) for each in fallen] == [None, None, (N, None)]


# What cannot be judged


def test_interruption_says_when_and_why(machine: AlarmMachine, clock: Clock) -> None:
    """An interruption has the time of the clock and a reason, which stands until windows are judged again."""
    clock.now_s = 1234.0
    change = machine.interrupt(State.NO_DATA, "unplugged")
    assert change == Change(1234.0, N, State.NO_DATA, "unplugged")
    clock.now_s = 2000.0
    assert machine.interrupt(State.NO_DATA, "unplugged for long") is None
    assert (machine.state, machine.since_s, machine.reason) == (State.NO_DATA, 1234.0, "unplugged for long")
    machine.judge(found(time_s=2001.0))
    assert (machine.state, machine.since_s, machine.reason) == (N, 2001.0, None)


def test_dead_sensor_is_check_function_with_its_reason(machine: AlarmMachine) -> None:
    """A distrusted window changes the state at once, at its own time, and its reason is kept up to date."""
    dead = distrusted(5.0)
    assert machine.judge(dead) == Change(5.0, N, State.CHECK_FUNCTION, "flat line", None, dead)
    assert machine.judge(distrusted(6.0, "clipped")) is None
    assert (machine.state, machine.reason) == (State.CHECK_FUNCTION, "clipped")


def test_window_that_is_not_judged_is_no_baseline(machine: AlarmMachine) -> None:
    """A sound sensor without anything to compare with is `no_baseline`, with the reason of the judge."""
    change = machine.judge(unjudged(7.0))
    assert change == Change(7.0, N, State.NO_BASELINE, "nothing is enrolled", None, unjudged(7.0))


interruptions = st.lists(st.sampled_from(["dead", "unjudged", "no data", "check", "no baseline"]), max_size=20)


@given(what=interruptions, severity=st.sampled_from([W, A]), gap_s=st.floats(0, 1e6))
def test_no_interruption_clears_an_alarm(what: list[str], severity: State, gap_s: float) -> None:
    """After any dead windows and missing data, however long, the state is back with the next window."""
    machine = machine_of()
    machine.judge(found(3.0 if severity is A else 0.7))
    for number, each in enumerate(what):
        interrupt(machine, each, gap_s * number)
    assert states(machine, [found(time_s=gap_s * len(what))]) == [severity]


@given(what=st.lists(st.sampled_from(["far", "quiet", "dead", "no data"]), max_size=40))
def test_alarm_is_cleared_by_judged_windows_alone(what: list[str]) -> None:
    """Windows every 5 s, some missing: an alarm falls only after quiet ones in a row."""
    machine = machine_of()
    machine.judge(found(3.0, time_s=-STEP_S))
    quiet: list[float] = []
    judged = machine.state
    for number, each in enumerate(what):
        time_s = STEP_S * number
        if each in {"dead", "no data"}:
            interrupt(machine, each, time_s)
            quiet = []
            continue
        quiet = [] if each == "far" else [*quiet, time_s]
        machine.judge(found(3.0 if each == "far" else 0.0, time_s=time_s))
        if judged is A and machine.state is not A:
            assert quiet[-1] - quiet[0] >= 10.0
        judged = machine.state
        assert judged is A or each == "quiet"


# Flapping, and how far evidence must reach


@given(
    shapes=st.lists(st.floats(0, 3), min_size=1, max_size=60),
    hold_s=st.floats(0, 60),
    delay_s=st.floats(0, 30),
    steps=st.lists(st.floats(0.1, 20), min_size=60, max_size=60),
)
def test_state_never_falls_sooner_than_the_hold(
    shapes: list[float], hold_s: float, delay_s: float, steps: list[float]
) -> None:
    """Between any rise and the next fall, and between a fall and the one before, there is at least `hold_s`."""
    machine = machine_of(AlarmRule(delay_s=delay_s, hold_s=hold_s))
    time_s, last_s = 0.0, float("-inf")
    for shape, step_s in zip(shapes, steps, strict=False):
        time_s += step_s
        before = machine.state
        machine.judge(found(shape, time_s=time_s))
        if ORDER.index(machine.state) < ORDER.index(before):
            assert time_s - last_s >= hold_s
        if machine.state is not before:
            last_s = time_s


@given(shapes=st.lists(st.floats(0, 3), max_size=40), delay_s=st.floats(0, 30))
def test_state_rises_only_after_the_delay(shapes: list[float], delay_s: float) -> None:
    """Whatever comes, an alarm has evidence beyond its limit behind it for all of the delay; below it there is none."""
    machine = machine_of(AlarmRule(delay_s=delay_s))
    beyond: list[float] = []
    for number, shape in enumerate(shapes):
        time_s = STEP_S * number
        beyond = [*beyond, time_s] if shape > 1 else []
        before = machine.state
        machine.judge(found(shape, time_s=time_s))
        if machine.state is A and before is not A:
            assert time_s - beyond[0] >= delay_s
        if beyond and time_s - beyond[0] >= delay_s:
            assert machine.state is A


@given(
    windows=st.lists(st.tuples(st.floats(0, 3), st.sampled_from([10.0, 60.0, LONG_S, 2 * LONG_S])), max_size=40),
    restarted=st.booleans(),
)
def test_alarm_of_a_span_falls_only_with_evidence_that_reaches_as_far(
    windows: list[tuple[float, float]], restarted: bool
) -> None:
    """After a restart short spans are full first: they do not clear what only an hour has shown."""
    machine = machine_of()
    change = machine.judge(found(1.5, time_s=-1.0, span_s=LONG_S, reach_s=LONG_S))
    assert change is not None
    if restarted:
        machine = machine_of()
        machine.resume(remembered(change), change.time_s)
    for number, (shape, reach_s) in enumerate(windows):
        before = machine.state
        machine.judge(found(shape, time_s=STEP_S * number, span_s=min(10.0, reach_s), reach_s=reach_s))
        if before is A and machine.state is not A:
            assert reach_s >= LONG_S
            return
    if all(reach_s < LONG_S for _, reach_s in windows):
        assert machine.state is A


def test_sudden_alarm_falls_without_long_evidence(machine: AlarmMachine) -> None:
    """What a few windows have shown a few windows may clear."""
    judgements = every(STEP_S, 3, 0, 0, 0, span_s=1.0, reach_s=1.0)
    assert states(machine, judgements) == [A, A, A, N]


# Operating states that were not enrolled


def test_unfamiliar_state_is_a_warning_of_its_own_kind(machine: AlarmMachine) -> None:
    """However far its shape is, a state that was not enrolled is a warning that says what to do."""
    change = machine.judge(found(5.0, 0.2, 3.0, unfamiliar=True))
    assert change is not None
    assert (change.before, change.after, change.kind) == (N, W, UNFAMILIAR) == (N, W, "unfamiliar operating state")
    assert change.reason == (
        "unfamiliar operating state: enroll it if it is normal; shape at 5.00 times its limit, level at 0.20 times its "
        "own"
    )
    later = [found(5.0, 0.2, 3.0 + STEP_S * number, unfamiliar=True) for number in range(1, 40)]
    assert states(machine, later) == [W] * 39


def test_level_alarm_in_an_unfamiliar_state_is_an_alarm(machine: AlarmMachine) -> None:
    """A level beyond its limit is judged whatever the operating state is."""
    change = machine.judge(found(5.0, 1.5, unfamiliar=True))
    assert change is not None
    assert (change.after, change.kind) == (A, "sudden")


def test_alarm_does_not_become_unfamiliar(machine: AlarmMachine) -> None:
    """A fault that comes nearer to what might be another state stays an alarm until its evidence is gone."""
    machine.judge(found(5.0))
    judgements = [found(2.0, time_s=STEP_S * number, unfamiliar=True) for number in range(1, 10)]
    assert states(machine, judgements) == [A] * 9


@given(
    st.lists(st.tuples(st.floats(0, 9), st.floats(0, 1), st.booleans()), max_size=40), st.floats(0, 20), st.floats(0, 9)
)
def test_shape_of_unfamiliar_windows_alone_raises_no_alarm(
    windows: list[tuple[float, float, bool]], delay_s: float, hold_s: float
) -> None:
    """With every window unfamiliar or within its limit, no shape is an alarm."""
    machine = machine_of(AlarmRule(delay_s, hold_s))
    judgements = [
        found(shape if unfamiliar else min(shape, 1.0), level, STEP_S * number, unfamiliar=unfamiliar)
        for number, (shape, level, unfamiliar) in enumerate(windows)
    ]
    assert A not in states(machine, judgements)


# Restart and enrollment


@pytest.mark.parametrize("severity", [W, A])
def test_alarm_is_resumed_after_a_restart(machine: AlarmMachine, severity: State) -> None:
    """State and time are those before; quiet windows end it after the hold as ever."""
    before = found(3.0 if severity is A else 0.7, time_s=500.0)
    machine.resume(remembered(Change(500.0, N, severity, "far off", "sudden", before)), 500.0)
    assert (machine.state, machine.since_s, machine.reason) == (severity, 500.0, None)
    assert states(machine, every(STEP_S, 0, 0, 0)) == [severity, severity, N]


@pytest.mark.parametrize("after", [N, State.NO_DATA, State.CHECK_FUNCTION, State.NO_BASELINE])
def test_only_warnings_and_alarms_are_resumed(machine: AlarmMachine, after: State) -> None:
    """A restart begins at normal unless the channel was a warning or an alarm."""
    machine.resume(remembered(Change(500.0, A, after, "whatever", None, found(shape=3.0))), 500.0)
    assert (machine.state, machine.since_s) == (N, 1000.0)


@pytest.mark.parametrize("judgement", [None, distrusted(), Judgement(0.0, 1.0, 16e3, MODEL, distance=0.5)])
def test_alarm_without_evidence_is_resumed(machine: AlarmMachine, judgement: Judgement | None) -> None:
    """An event of an earlier release holds no evidence: its alarm stands until the windows after it are quiet."""
    machine.resume(remembered(Change(500.0, N, A, "far off", None, judgement)), 500.0)
    assert states(machine, every(STEP_S, 0.95, 0.95, 0.95, 0, 0, 0)) == [A, A, A, A, A, N]


def test_new_enrollment_forgets_the_alarm() -> None:
    """What was judged against another baseline neither holds the alarm nor counts towards a new one."""
    machine = machine_of(AlarmRule(delay_s=10))
    states(machine, every(STEP_S, 3, 3, 3))
    assert machine.state is A
    machine.forget()
    assert states(machine, [found(time_s=15.0)]) == [N]
    machine.judge(found(3.0, time_s=20.0))
    machine.forget()
    assert states(machine, [found(3.0, time_s=31.0)]) == [N]


def test_worse_orders_severities() -> None:
    """Alarm before warning before normal, from either side."""
    assert worse(State.NORMAL, State.WARNING) is State.WARNING
    assert worse(State.ALARM, State.WARNING) is State.ALARM
    assert worse(State.NORMAL, State.NORMAL) is State.NORMAL
