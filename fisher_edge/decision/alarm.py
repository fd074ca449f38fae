"""From single windows to a state: N of the last M windows raise it, and it falls only after a hold.

A channel has two quantities that are judged apart, the shape of its sound and its level; its state is the
worse of the two. The states follow NAMUR NE 107 where it has a word for them (check_function).
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["AlarmRule", "ChannelState", "Interruption", "Quantity", "Severity", "State", "Transition", "worse"]

Severity = Literal["normal", "warning", "alarm"]
Interruption = Literal["check_function", "no_data"]
State = Literal["normal", "warning", "alarm", "check_function", "no_data", "no_baseline"]

ORDER: tuple[Severity, ...] = ("normal", "warning", "alarm")


@dataclass(frozen=True)
class AlarmRule:
    """How many windows it takes: `needed` of the last `of` to raise, the last `hold` to fall.

    To fall they must all be below `hysteresis` times the threshold.
    """

    needed: int = 2
    of: int = 3
    hold: int = 3
    hysteresis: float = 0.9


@dataclass
class Quantity:
    """One quantity of a channel against its two thresholds, window by window."""

    warning: float
    alarm: float
    rule: AlarmRule
    severity: Severity = "normal"
    _recent: deque[float] = field(default_factory=deque)

    def judge(self, value: float) -> Severity:
        """Take the value of the next window and return how serious it is now."""
        self._recent.append(value)
        while len(self._recent) > max(self.rule.of, self.rule.hold):
            self._recent.popleft()
        self.severity = worse(self._raised(), self._held())
        return self.severity

    def _raised(self) -> Severity:
        """How serious the last windows are by themselves."""
        last = list(self._recent)[-self.rule.of :]
        if sum(value > self.alarm for value in last) >= self.rule.needed:
            return "alarm"
        if sum(value > self.warning for value in last) >= self.rule.needed:
            return "warning"
        return "normal"

    def _held(self) -> Severity:
        """How far the severity may fall: past a threshold only when the last windows are all clearly below it."""
        last = list(self._recent)[-self.rule.hold :]
        highest = max(last) if len(last) == self.rule.hold else math.inf
        if self.severity == "normal" or highest < self.rule.hysteresis * self.warning:
            return "normal"
        if self.severity == "warning" or highest < self.rule.hysteresis * self.alarm:
            return "warning"
        return "alarm"


@dataclass(frozen=True)
class Transition:
    """A change of state and why."""

    before: State
    after: State
    reason: str


@dataclass
class ChannelState:
    """The state of a channel as it is shown: what was judged, or why it cannot be judged now."""

    state: State = "normal"

    def become(self, state: State, reason: str) -> Transition | None:
        """Change the state; None when it stays."""
        before, self.state = self.state, state
        return Transition(before, state, reason) if before != state else None


def worse(left: Severity, right: Severity) -> Severity:
    """Return the more serious of two."""
    return max(left, right, key=ORDER.index)
