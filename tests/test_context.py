"""What is known of a machine besides its signal: from the configuration or from a topic, as long as it counts."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_source import FakeClock
from pydantic import ValidationError

from fisher_edge.config import OperatingStateConfig
from fisher_edge.gateway.context import NOT_KNOWN, Context, Situation

SPEEDS = {"slow": (300.0, 900.0), "fast": (900.0, 3000.0)}


def context_of(**options: object) -> Context:
    """Return the context of a channel whose state comes from a topic."""
    return Context(OperatingStateConfig.model_validate({"topic": "plant/rpm", **options}), FakeClock())


def after(payload: bytes, **options: object) -> Situation:
    """Return the situation after a message."""
    context = context_of(**options)
    context.take(payload)
    return context.now()


def test_without_configuration_nothing_is_known() -> None:
    """A window then belongs to the state it is nearest to."""
    assert Context(None).now() == NOT_KNOWN
    assert Context(None).topic is None


def test_gateway_that_has_just_started_awaits_the_first_message() -> None:
    """A retained one comes in a moment: until then the machine may stand still. It does not wait for ever."""
    clock = FakeClock()
    assert Context(OperatingStateConfig(topic="plant/rpm"), clock).now() == NOT_KNOWN
    context = Context(OperatingStateConfig(topic="plant/rpm"), clock, awaited_s=10.0)
    assert context.now() == Situation(awaited=True)
    clock.now_s += 10.1
    assert context.now() == NOT_KNOWN
    context.take(b"fast")
    assert context.now() == Situation("fast")


def test_state_may_be_constant() -> None:
    """A name of the configuration never changes."""
    context = Context(OperatingStateConfig(name="fast"))
    assert (context.now(), context.topic) == (Situation("fast"), None)


@pytest.mark.parametrize(
    ("payload", "options", "state"),
    [
        (b"recipe 7", {}, "recipe 7"),
        (b" 7 ", {}, "7"),
        (b"900", {"states": SPEEDS}, "fast"),
        (b"899.9", {"states": SPEEDS}, "slow"),
        (b'{"rpm": 300}', {"states": SPEEDS, "field": "rpm"}, "slow"),
        (b'{"drive": {"rpm": "1e3"}}', {"states": SPEEDS, "field": "drive.rpm"}, "fast"),
        (b'{"recipe": 7}', {"field": "recipe"}, "7"),
        (b'{"recipe": 7.5}', {"field": "recipe"}, "7.5"),
        (b'{"recipe": -12}', {"field": "recipe"}, "-12"),
        (b'{"run": true}', {"field": "run"}, "true"),
    ],
)
def test_state_is_read_from_a_message(payload: bytes, options: dict[str, object], state: str) -> None:
    """Text names a state, a number falls into a range, JSON has a field."""
    assert after(payload, **options) == Situation(state)


@pytest.mark.parametrize("payload", [b"0", b"299.9", b"3000", b"-inf", b"1e400"])
def test_number_outside_all_ranges_is_idle(payload: bytes) -> None:
    """The reason names the number and the states there are."""
    situation = after(payload, states=SPEEDS)
    assert situation.state is None
    assert situation.idle is not None
    assert "belongs to none of the operating states slow, fast" in situation.idle


@pytest.mark.parametrize(
    ("payload", "options", "reason"),
    [
        (b"\xff", {}, "no UTF-8"),
        (b"", {}, "neither text nor a number"),
        (b"x" * 201, {}, "is longer than 200 characters"),
        (b"a\x00b", {}, "has characters that no name has"),
        (b'{"s": "\\ud800"}', {"field": "s"}, "has characters that no name has"),
        (b"fast", {"states": SPEEDS}, "'fast' is not a number"),
        (b"nan", {"states": SPEEDS}, "nan is not a number"),
        (b"{", {"field": "rpm"}, "has no field 'rpm'"),
        (b"[1]", {"field": "rpm"}, "has no field 'rpm'"),
        (b'{"rpm": 5}', {"field": "rpm.x"}, "has no field 'rpm.x'"),
        (b'{"rpm": null}', {"field": "rpm"}, "neither text nor a number"),
        (b'{"rpm": {}}', {"field": "rpm"}, "neither text nor a number"),
    ],
)
def test_message_that_cannot_be_read_says_nothing(
    payload: bytes, options: dict[str, object], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The state is then not known, and one line says why, once."""
    context = context_of(**options)
    context.take(payload)
    context.take(payload)
    assert context.now() == NOT_KNOWN
    (line,) = caplog.messages
    assert line.startswith("topic plant/rpm: ")
    assert reason in line


def test_number_larger_than_any_float_is_idle() -> None:
    """Other programs send what they like."""
    assert after(b'{"rpm": 1' + 400 * b"0" + b"}", field="rpm", states=SPEEDS).idle is not None
    assert after(b'{"rpm": 1' + 400 * b"0" + b"}", field="rpm") == Situation("inf")


@given(payload=st.binary(max_size=200), field=st.sampled_from(["", "a", "a.b"]), ranged=st.booleans())
def test_no_message_raises(payload: bytes, field: str, ranged: bool) -> None:
    """Whatever is sent, there is a situation."""
    logging.disable()
    assert isinstance(after(payload, field=field, states=SPEEDS if ranged else {}), Situation)
    logging.disable(logging.NOTSET)


def test_state_counts_until_it_is_too_old() -> None:
    """Without a further message for `max_age_s` it is not known."""
    clock = FakeClock()
    context = Context(OperatingStateConfig(topic="plant/rpm", max_age_s=60.0), clock)
    context.take(b"fast")
    clock.now_s += 60.0
    assert context.now() == Situation("fast")
    clock.now_s += 0.1
    assert context.now() == NOT_KNOWN


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "give either name"),
        ({"name": "fast", "topic": "a"}, "give either name"),
        ({"topic": "plant/+/rpm"}, "has a wildcard"),
        ({"topic": "plant/#"}, "has a wildcard"),
        ({"topic": "a", "states": {"slow": [900, 300]}}, "two numbers, the lower first"),
        ({"topic": "a", "states": {" ": [300, 900]}}, "give a name"),
        ({"topic": "a", "states": {"slow": [300, 900], "fast": [899, 3000]}}, "'slow' and 'fast' overlap"),
        ({"topic": "a", "max_age_s": 0}, "greater than 0"),
    ],
)
def test_configuration_that_cannot_be_is_refused(options: dict[str, object], reason: str) -> None:
    """One line says what is wrong."""
    with pytest.raises(ValidationError, match=reason):
        OperatingStateConfig.model_validate(options)
