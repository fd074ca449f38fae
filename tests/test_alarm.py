"""From values to states: N of M windows raise, all of the hold below the hysteresis lower."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fisher_edge.decision.alarm import AlarmRule, ChannelState, Quantity, Transition, worse

WARNING, ALARM = 1.0, 2.0
values = st.lists(st.floats(0, 3), max_size=40)
rules = st.builds(
    lambda needed, more, hold: AlarmRule(needed, needed + more, hold),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(1, 6),
)


def severities(sequence: list[float], rule: AlarmRule | None = None) -> list[str]:
    """Judge values one after the other."""
    quantity = Quantity(WARNING, ALARM, rule or AlarmRule())
    return [quantity.judge(value) for value in sequence]


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
    judged = ["normal", *severities(sequence, rule)]
    for index in range(1, len(judged)):
        if worse(judged[index], judged[index - 1]) != judged[index]:  # type: ignore[arg-type]
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
    assert set(severities([min(value, WARNING) for value in sequence])) <= {"normal"}


def test_memory_of_a_quantity_is_bounded() -> None:
    """A channel that runs for years keeps a handful of values."""
    quantity = Quantity(WARNING, ALARM, AlarmRule(needed=1, of=2, hold=5))
    for _ in range(1000):
        quantity.judge(0.0)
    assert len(quantity._recent) == 5


def test_channel_state_reports_changes_only() -> None:
    """Becoming what it is already is no transition; a change says what was before and why."""
    channel = ChannelState()
    assert channel.become("normal", "as before") is None
    assert channel.become("alarm", "far off") == Transition("normal", "alarm", "far off")
    assert channel.become("no_data", "unplugged") == Transition("alarm", "no_data", "unplugged")
    assert channel.state == "no_data"


def test_worse_orders_severities() -> None:
    """Alarm before warning before normal, from either side."""
    assert (worse("normal", "warning"), worse("alarm", "warning"), worse("normal", "normal")) == (
        "warning",
        "alarm",
        "normal",
    )
