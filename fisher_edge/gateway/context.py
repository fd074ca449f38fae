"""What is known of a machine besides the signal of its sensor: its operating state. Start at `Context`."""

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from fisher_edge.config import OperatingStateConfig
from fisher_edge.names import MAX_NAME

__all__ = ["NOT_KNOWN", "Context", "Situation"]

LONGEST_SHOWN = 60
LARGEST_INTEGER = 10**15

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Situation:
    """The operating state, where it is known, and why there is nothing to judge, where that is so.

    `awaited` says that it will be known in a moment: the gateway has just started.
    """

    state: str | None = None
    idle: str | None = None
    awaited: bool = False


NOT_KNOWN = Situation()


class Context:
    """The situation of one channel; `take` and `now` may be called from different threads.

    `monotonic` returns seconds of a clock that nobody sets; for `awaited_s` from now on the first message is awaited.
    """

    def __init__(
        self,
        config: OperatingStateConfig | None,
        monotonic: Callable[[], float] = time.monotonic,
        awaited_s: float = 0.0,
    ) -> None:
        self.topic = config.topic if config else None
        self._config = config
        self._monotonic = monotonic
        self._latest = (Situation(config.name if config else None), math.inf)
        if self.topic is not None and awaited_s:
            self._latest = (Situation(awaited=True), monotonic() + awaited_s)
        self._said: str | None = None

    def now(self) -> Situation:
        """Return the situation; one that is too old counts no more."""
        situation, until_s = self._latest
        return situation if self._monotonic() <= until_s else NOT_KNOWN

    def take(self, payload: bytes) -> None:
        """Take what was sent; what cannot be read says nothing, and is logged once."""
        config = self._config
        assert config is not None
        try:
            value = _value(payload, config.field)
            situation = _situation(value, config.states)
        except ValueError as error:
            situation = NOT_KNOWN
            if str(error) != self._said:
                self._said = str(error)
                log.warning("topic %s: %s; the operating state is not known", config.topic, error)
        age_s = math.inf if config.max_age_s is None else config.max_age_s
        self._latest = (situation, self._monotonic() + age_s)


def _value(payload: bytes, field: str) -> str | float:
    """Read text, a number or a field of a JSON object; ValueError when there is none."""
    try:
        text = payload.decode().strip()
    except UnicodeDecodeError as error:
        raise ValueError("what was sent is no UTF-8 text") from error
    if not field:
        value: object = text
    else:
        try:
            value = json.loads(text)
            for name in field.split("."):
                value = value[name]  # type: ignore[index]  # refused below
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ValueError(f"{text[:LONGEST_SHOWN]!r} has no field {field!r}") from error
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, int):
        value = str(value) if abs(value) < LARGEST_INTEGER else math.inf
    if isinstance(value, str) and value and not value.isprintable():
        raise ValueError(f"{value[:LONGEST_SHOWN]!r} has characters that no name has")
    if isinstance(value, str) and len(value) > MAX_NAME:
        raise ValueError(f"{value[:LONGEST_SHOWN]!r}... is longer than {MAX_NAME} characters")
    if isinstance(value, str | float) and str(value).strip():
        return value
    raise ValueError(f"{str(value)[:LONGEST_SHOWN]!r} is neither text nor a number")


def _situation(value: str | float, states: dict[str, tuple[float, float]]) -> Situation:
    """Return the situation that a value means."""
    if not states:
        return Situation(f"{value:g}" if isinstance(value, float) else str(value))
    try:
        number = float(value)
    except ValueError as error:
        raise ValueError(f"{str(value)[:LONGEST_SHOWN]!r} is not a number") from error
    if math.isnan(number):
        raise ValueError("nan is not a number")
    for name, (low, high) in states.items():
        if low <= number < high:
            return Situation(name)
    return Situation(idle=f"the machine idles: {number:g} belongs to none of the operating states {', '.join(states)}")
