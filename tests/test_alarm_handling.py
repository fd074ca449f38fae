"""What people do about an alarm: acknowledge it, shelve the channel; and what a latch and a restart keep."""

import pytest
from alarms import STEP_S, A, Clock, N, W, every, found, interrupt, machine_of, states
from hypothesis import given
from hypothesis import strategies as st

from fisher_edge.decision.alarm import ACKNOWLEDGED, SHELVED, UNSHELVED, AlarmMachine, AlarmRule
from fisher_edge.decision.judgement import FALSE_ALARM, AlarmMemory, Change, Handling, Promise, Realised, State
from fisher_edge.errors import BadInputError

MARIA = Handling(by="maria", cause="inner race", note="seen with a stroboscope")


def alarmed(rule: AlarmRule | None = None) -> AlarmMachine:
    """Return a machine in alarm."""
    machine = machine_of(rule)
    machine.judge(found(3.0))
    return machine


def test_acknowledgement_is_an_event_with_cause_note_and_name() -> None:
    """It says who, why and when, and changes no state."""
    machine = alarmed()
    change = machine.acknowledge(MARIA)
    assert change == Change(1000.0, A, A, "alarm acknowledged: inner race", ACKNOWLEDGED, None, MARIA)
    assert machine.memory.acknowledged


def test_alarm_that_is_over_can_be_acknowledged(machine: AlarmMachine) -> None:
    """Nobody stands beside the machine at night; once is enough, and the next alarm is another one."""
    states(machine, every(STEP_S, 3.0, 0.0, 0.0, 0.0))
    assert machine.memory == AlarmMemory(unseen=A)
    change = machine.acknowledge(MARIA)
    assert (change.before, change.after, change.kind) == (N, N, ACKNOWLEDGED)
    assert change.reason == "alarm that is over acknowledged: inner race"
    with pytest.raises(BadInputError, match="no warning and no alarm to acknowledge"):
        machine.acknowledge(MARIA)
    states(machine, [found(each, time_s=100.0 + 5 * number) for number, each in enumerate((0.7, 0.0, 0.0, 0.0))])
    assert machine.memory == AlarmMemory(unseen=W)
    machine.judge(found(0.7, time_s=200.0))
    assert machine.memory == AlarmMemory(W, W, unseen=W, reach_s=1.0)
    machine.acknowledge(MARIA)
    assert machine.memory.unseen is N


def test_unseen_alarm_is_not_forgotten_over_a_warning(machine: AlarmMachine) -> None:
    """The worst of what nobody has seen is kept until somebody has."""
    states(machine, every(STEP_S, 3.0, 0.0, 0.0, 0.0))
    states(machine, [found(each, time_s=100.0 + 5 * number) for number, each in enumerate((0.7, 0.0, 0.0, 0.0))])
    assert machine.memory == AlarmMemory(unseen=A)


def test_time_to_be_shelved_that_is_over_at_the_start_says_nothing_of_the_machine() -> None:
    """A sensor that was silent is silent until a window has come."""
    clock = Clock(1000.0)
    machine = AlarmMachine(AlarmRule(), clock)
    machine.follow(State.NO_DATA, 900.0)
    change = machine.expire()
    assert change is not None
    assert (change.before, change.after) == (State.NO_DATA, State.NO_DATA)


def test_alarm_that_was_acknowledged_is_not_unseen(machine: AlarmMachine) -> None:
    """Neither after it is over, nor after another baseline ended it."""
    machine.judge(found(3.0))
    machine.acknowledge(MARIA)
    states(machine, [found(0.0, time_s=5.0 * number) for number in range(1, 5)])
    assert machine.memory == AlarmMemory()
    machine.judge(found(3.0, time_s=50.0))
    machine.forget()
    assert machine.memory == AlarmMemory()


def test_alarm_after_an_acknowledged_warning_is_not_acknowledged(machine: AlarmMachine) -> None:
    """It is worse than what was seen."""
    machine.judge(found(0.7))
    machine.acknowledge(MARIA)
    assert machine.memory.acknowledged
    machine.judge(found(3.0, time_s=5.0))
    assert machine.memory == AlarmMemory(A, A, reach_s=1.0)


def test_cause_may_be_unknown_at_first() -> None:
    """An alarm may be acknowledged before anybody knows why it came; a cause that is known stays."""
    machine = alarmed()
    assert machine.acknowledge(Handling()).reason == "alarm acknowledged: cause not known"
    assert machine.acknowledge(MARIA).reason == "alarm acknowledged: inner race"
    assert machine.acknowledge(Handling()).reason == "alarm acknowledged: inner race"


@pytest.mark.parametrize(
    ("causes", "confirmed", "refuted"),
    [
        (["worn"], 1, 0),
        ([FALSE_ALARM], 0, 1),
        ([None, "worn"], 1, 0),
        (["worn", FALSE_ALARM], 0, 1),
        ([FALSE_ALARM, "worn", "looseness"], 1, 0),
        ([None], 0, 0),
    ],
)
def test_every_alarm_is_counted_once_by_its_cause(causes: list[str | None], confirmed: int, refuted: int) -> None:
    """The last cause named is the one that counts."""
    realised, before = Realised(1, 0.0, Promise(1.0, 0.1, (0.0, 1.0), (0.0, 1.0))), None
    for cause in causes:
        realised, before = realised.settled(before, cause or before), cause or before
    assert (realised.confirmed, realised.refuted) == (confirmed, refuted)


def test_rises_are_counted_over_days() -> None:
    """A warning that becomes an alarm is one of each; what stays, or falls and rises again, is counted once."""
    realised = Realised(1, 0.0, Promise(1.0, 0.1, (0.0, 1.0), (0.0, 1.0)))
    for before, now in ((N, N), (N, W), (W, W), (W, A), (A, W), (W, N), (N, A)):
        realised = realised.after(8640.0, before, now)
    assert realised.days == pytest.approx(0.7)
    assert (realised.warnings, realised.alarms) == (1, 2)


def test_nothing_to_acknowledge_is_said(machine: AlarmMachine) -> None:
    """A quiet channel has no alarm."""
    with pytest.raises(BadInputError, match="no warning and no alarm to acknowledge"):
        machine.acknowledge(MARIA)


@pytest.fixture
def machine() -> AlarmMachine:
    """Return the alarm machine of a channel that has just started."""
    return machine_of()


def test_acknowledgement_stands_while_the_alarm_does(machine: AlarmMachine) -> None:
    """A fall to warning and another rise keep it; a new alarm after all was well is not acknowledged."""
    machine.judge(found(3.0))
    machine.acknowledge(MARIA)
    states(machine, every(STEP_S, 0.6, 0.6, 0.6, 0.6))
    assert (machine.state, machine.memory.acknowledged) == (W, True)
    assert machine.memory == AlarmMemory(W, A, acknowledged=True, cause="inner race", reach_s=1.0)
    machine.judge(found(3.0, time_s=20.0))
    assert machine.memory == AlarmMemory(A, A, acknowledged=True, cause="inner race", reach_s=1.0)
    machine.acknowledge(MARIA)
    states(machine, [found(0.0, time_s=25.0 + 5 * number) for number in range(4)])
    assert (machine.state, machine.memory.acknowledged) == (N, False)


def test_latched_alarm_waits_for_its_acknowledgement() -> None:
    """With a latch the state stays, however quiet the machine is, until somebody has seen it."""
    machine = alarmed(AlarmRule(latch=True))
    assert states(machine, every(STEP_S, *[0.0] * 10)) == [A] * 10
    machine.acknowledge(MARIA)
    assert states(machine, [found(0.0, time_s=50.0)]) == [N]


def test_latched_alarm_does_not_fall_because_it_was_acknowledged() -> None:
    """What goes on is an alarm, acknowledged or not."""
    machine = alarmed(AlarmRule(latch=True))
    machine.acknowledge(MARIA)
    assert states(machine, every(STEP_S, 3.0, 3.0, 3.0, 3.0)) == [A] * 4


def shelved(until_s: float = 2000.0) -> tuple[AlarmMachine, Clock]:
    """Return a machine that is shelved, at 1000 s, and its clock."""
    clock = Clock(1000.0)
    machine = AlarmMachine(AlarmRule(), clock)
    machine.shelve(Handling("maria", until_s=until_s))
    return machine, clock


def test_warning_of_a_shelved_channel_is_not_told_either() -> None:
    """Shelving is about both."""
    machine, _ = shelved()
    assert machine.judge(found(0.7)) is None
    assert machine.state is W


def test_rise_of_a_shelved_channel_is_not_told_until_the_time_is_over() -> None:
    """The state is as ever; the event comes when the time is over and the alarm still stands."""
    machine, clock = shelved()
    assert machine.judge(found(3.0, time_s=1000.0)) is None
    assert (machine.state, machine.memory.shelved_until_s) == (A, 2000.0)
    clock.now_s = 2000.0
    change = machine.judge(found(3.0, time_s=2000.0))
    assert change is not None
    assert (change.before, change.after, change.kind) == (N, A, "sudden")
    assert machine.memory.shelved_until_s is None


def test_what_passes_while_shelved_is_never_told() -> None:
    """An alarm that came and went meanwhile disturbs nobody."""
    machine, clock = shelved()
    told = [machine.judge(each) for each in every(STEP_S, 3.0, 0.0, 0.0, 0.0, 0.0)]
    clock.now_s = 2000.0
    assert [*told, machine.judge(found(0.0, time_s=2000.0))] == [None] * 6


def test_sensor_trouble_of_a_shelved_channel_is_told() -> None:
    """Shelving is about alarms, not about dead sensors."""
    machine, _ = shelved()
    machine.judge(found(3.0))
    change = machine.interrupt(State.NO_DATA, "no samples for 30 s")
    assert change is not None
    assert (change.before, change.after) == (N, State.NO_DATA)


def test_end_of_an_alarm_is_told_while_shelved() -> None:
    """Who was told of an alarm hears of its end."""
    clock = Clock(1000.0)
    machine = AlarmMachine(AlarmRule(), clock)
    machine.judge(found(3.0))
    assert machine.shelve(Handling(until_s=2000.0)).kind == SHELVED
    told = [machine.judge(each) for each in every(STEP_S, 0.0, 0.0, 0.0)]
    assert [(each.before, each.after) for each in told if each] == [(A, N)]


def test_unshelving_tells_what_was_not_told() -> None:
    """The event of unshelving carries the state that nobody heard of."""
    machine, _ = shelved()
    machine.judge(found(3.0))
    change = machine.unshelve(Handling("maria"))
    assert (change.before, change.after, change.kind, change.handling) == (N, A, UNSHELVED, Handling("maria"))
    assert machine.judge(found(3.0, time_s=5.0)) is None


@pytest.mark.parametrize("until_s", [None, 999.0, 1000.0])
def test_shelving_into_the_past_is_refused(machine: AlarmMachine, until_s: float | None) -> None:
    """A time that is over shelves nothing."""
    with pytest.raises(BadInputError, match="over already"):
        machine.shelve(Handling(until_s=until_s))


def test_unshelving_what_is_not_shelved_is_refused() -> None:
    """Neither before it was shelved, nor when the time is over."""
    with pytest.raises(BadInputError, match="not shelved"):
        machine_of().unshelve(Handling())
    machine, clock = shelved()
    clock.now_s = 2000.0
    with pytest.raises(BadInputError, match="not shelved"):
        machine.unshelve(Handling())


def restarted(machine: AlarmMachine, change: Change, rule: AlarmRule | None = None) -> AlarmMachine:
    """Return a machine after a restart."""
    after = machine_of(rule)
    after.follow(change.after, machine.memory.shelved_until_s)
    after.resume(machine.memory, change.time_s)
    return after


def test_restart_loses_neither_acknowledgement_nor_shelving() -> None:
    """Both are taken up, together with an alarm that was not told."""
    machine, _ = shelved()
    machine.judge(found(3.0))
    change = machine.acknowledge(MARIA)
    after = restarted(machine, change)
    assert after.memory == AlarmMemory(A, A, acknowledged=True, cause="inner race", shelved_until_s=2000.0, reach_s=1.0)
    assert after.state is A
    assert after.unshelve(Handling()).before is N


def test_another_baseline_ends_the_alarm_and_not_the_shelving() -> None:
    """What was judged by another baseline counts no more; that the channel is worked on does."""
    machine, _ = shelved()
    machine.judge(found(3.0))
    machine.acknowledge(MARIA)
    machine.forget()
    assert machine.memory == AlarmMemory(shelved_until_s=2000.0)


def test_end_of_shelving_tells_an_alarm_that_missing_data_hides() -> None:
    """While there are no windows nothing else would tell it; it is told once."""
    machine, clock = shelved()
    machine.judge(found(3.0))
    machine.interrupt(State.NO_DATA, "no samples for 30 s")
    assert machine.expire() is None
    clock.now_s = 2000.0
    change = machine.expire()
    assert change == Change(
        2000.0,
        State.NO_DATA,
        State.NO_DATA,
        "the time to be shelved is over; before no_data there was: alarm",
        UNSHELVED,
        None,
        Handling(),
    )
    assert machine.expire() is None


def test_end_of_shelving_tells_an_alarm_that_stands() -> None:
    """With the state that nobody has heard of."""
    machine, clock = shelved()
    machine.judge(found(3.0))
    clock.now_s = 2000.0
    change = machine.expire()
    assert change is not None
    assert (change.before, change.after, change.kind) == (N, A, UNSHELVED)
    assert machine.judge(found(3.0, time_s=5.0)) is None


def test_machine_goes_on_from_what_was_told_last() -> None:
    """An alarm against another baseline is not taken up, but its end is told."""
    machine = machine_of()
    machine.follow(A)
    change = machine.judge(found(0.0))
    assert change is not None
    assert (change.before, change.after) == (A, N)


steps = st.sampled_from(["far", "near", "quiet", "dead", "no data", "acknowledge", "shelve", "unshelve", "restart"])


@given(what=st.lists(steps, max_size=40), latch=st.booleans())
def test_no_sequence_loses_an_alarm_or_its_acknowledgement(what: list[str], latch: bool) -> None:
    """Whatever happens: only judged quiet windows lower the severity, only a rise or a fall to normal forgets."""
    clock, rule = Clock(0.0), AlarmRule(latch=latch)
    machine = AlarmMachine(rule, clock)
    order, last, quiet_since = [N, W, A], Change(0.0, N, N, ""), 0.0
    for number, each in enumerate(what):
        clock.now_s = time_s = STEP_S * number
        before = machine.memory
        change = do(machine, each, time_s)
        if each == "restart":
            machine = restart(machine, last, rule, clock)
        last = change if change is not None and change.after in order else last
        quiet_since = quiet_since if each in {"quiet", "acknowledge", "shelve", "unshelve", "restart"} else time_s
        severity = machine.memory.severity
        if order.index(severity) < order.index(before.severity):
            assert each in {"quiet", "near"}
            assert severity is W or time_s - quiet_since >= rule.hold_s
            assert before.acknowledged or not latch
        if before.acknowledged and not machine.memory.acknowledged:
            assert severity is N or order.index(severity) > order.index(before.worst)
        if each == "acknowledge":
            assert machine.memory.acknowledged == (severity is not N)
            assert machine.memory.unseen is N


def restart(machine: AlarmMachine, last: Change, rule: AlarmRule, clock: Clock) -> AlarmMachine:
    """Return a machine that takes up what another one remembers."""
    after = AlarmMachine(rule, clock)
    after.follow(last.after)
    after.resume(machine.memory, last.time_s)
    return after


def do(machine: AlarmMachine, what: str, time_s: float) -> Change | None:
    """Let something happen; what is refused happens not."""
    shapes = {"far": 3.0, "near": 0.7, "quiet": 0.0}
    if what in shapes:
        return machine.judge(found(shapes[what], time_s=time_s))
    if what in {"dead", "no data"}:
        interrupt(machine, what, time_s)
        return None
    handle = {
        "acknowledge": lambda: machine.acknowledge(MARIA),
        "shelve": lambda: machine.shelve(Handling(until_s=time_s + 12.0)),
        "unshelve": lambda: machine.unshelve(Handling()),
    }
    try:
        return handle[what]() if what in handle else None
    except BadInputError:
        return None
