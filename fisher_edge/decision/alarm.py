"""From judgements to the state of a channel: a pure machine with an injected clock. Start at `AlarmMachine`.

N of the last M windows raise an alarm, and it falls only after a hold. A channel has two quantities that are judged
apart, the shape of its sound and its level; its state is the worse of the two.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from fisher_edge.decision.judgement import Change, Judgement, State

__all__ = ["AlarmMachine", "AlarmRule", "Interruption", "Quantity", "worse"]

Severity = Literal[State.NORMAL, State.WARNING, State.ALARM]
Interruption = Literal[State.CHECK_FUNCTION, State.NO_DATA, State.NO_BASELINE]

ORDER: tuple[Severity, ...] = (State.NORMAL, State.WARNING, State.ALARM)


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
    """One quantity of a channel, window by window, as multiples of its warning and of its alarm threshold."""

    rule: AlarmRule
    severity: Severity = State.NORMAL
    _recent: deque[tuple[float, float]] = field(default_factory=deque)

    def judge(self, over_warning: float, over_alarm: float) -> Severity:
        """Take the next window and return how serious the quantity is now."""
        self._recent.append((over_warning, over_alarm))
        while len(self._recent) > max(self.rule.of, self.rule.hold):
            self._recent.popleft()
        self.severity = worse(self._raised(), self._held())
        return self.severity

    def _raised(self) -> Severity:
        """How serious the last windows are by themselves."""
        last = list(self._recent)[-self.rule.of :]
        if sum(alarm > 1 for _, alarm in last) >= self.rule.needed:
            return State.ALARM
        if sum(warning > 1 for warning, _ in last) >= self.rule.needed:
            return State.WARNING
        return State.NORMAL

    def _held(self) -> Severity:
        """How far the severity may fall: past a threshold only when the last windows are all clearly below it."""
        last = list(self._recent)[-self.rule.hold :]
        whole = len(last) == self.rule.hold
        warning = max(each for each, _ in last) if whole else math.inf
        alarm = max(each for _, each in last) if whole else math.inf
        if self.severity is State.NORMAL or warning < self.rule.hysteresis:
            return State.NORMAL
        if self.severity is State.WARNING or alarm < self.rule.hysteresis:
            return State.WARNING
        return State.ALARM


class AlarmMachine:
    """The state of one channel; `clock` returns seconds since 1970-01-01 UTC.

    What was judged stands while the channel cannot be judged: no data never clears an alarm.
    """

    def __init__(self, rule: AlarmRule, clock: Callable[[], float], state: State = State.NORMAL) -> None:
        self.state = state
        self.since_s = clock()
        self.reason: str | None = None
        self._clock = clock
        self._rule = rule
        self._shape = Quantity(rule)
        self._level = Quantity(rule)

    def judge(self, judgement: Judgement) -> Change | None:
        """Take a judgement of the next window; return the change of state it leads to, if any."""
        if judgement.distrust is not None:
            return self._become(State.CHECK_FUNCTION, judgement.distrust, judgement.time_s, judgement)
        if judgement.unjudged is not None:
            return self._become(State.NO_BASELINE, judgement.unjudged, judgement.time_s, judgement)
        assert judgement.distance is not None
        assert judgement.threshold is not None
        assert judgement.warning_threshold is not None
        shape = self._shape.judge(
            judgement.distance / judgement.warning_threshold, judgement.distance / judgement.threshold
        )
        level_ratio = self._judge_level(judgement)
        severity = worse(shape, self._level.severity)
        reason = (
            f"shape at {judgement.distance / judgement.threshold:.2f} times its threshold, level at {level_ratio:.2f} "
            "times its own"
        )
        return self._become(severity, reason, judgement.time_s, judgement)

    def interrupt(self, state: Interruption, reason: str) -> Change | None:
        """Note that the channel cannot be judged now; return the change of state, if it is one."""
        return self._become(state, reason, self._clock(), None)

    def resume(self, change: Change) -> None:
        """Take up the judgement where the last change left it, so that a restart clears no alarm.

        The quantity that was further beyond its threshold carries it on.
        """
        if change.after not in ORDER or change.after is State.NORMAL:
            return
        level = change.judgement.level if change.judgement else None
        level_ratio = (level.ratio if level else None) or 0.0
        shape_ratio = (change.judgement.ratio if change.judgement else None) or 0.0
        quantity = self._level if level_ratio > shape_ratio else self._shape
        quantity.severity = change.after
        self.state, self.reason, self.since_s = change.after, change.reason, change.time_s

    def forget(self) -> None:
        """Begin anew after an enrollment: what was judged against another baseline says nothing about this one."""
        self._shape, self._level = Quantity(self._rule), Quantity(self._rule)

    def _judge_level(self, judgement: Judgement) -> float:
        """Judge the level and return its multiple of the alarm threshold."""
        level = judgement.level
        assert level is not None
        assert level.deviation is not None
        assert level.threshold is not None
        assert level.warning_threshold is not None
        self._level.judge(level.deviation / level.warning_threshold, level.deviation / level.threshold)
        return level.deviation / level.threshold

    def _become(self, state: State, reason: str, time_s: float, judgement: Judgement | None) -> Change | None:
        """Change the state; None when it stays."""
        before, self.state = self.state, state
        self.reason = None if state.judged else reason
        if before is state:
            return None
        self.since_s = time_s
        return Change(time_s, before, state, reason, judgement)


def worse(left: Severity, right: Severity) -> Severity:
    """Return the more serious of two."""
    return max(left, right, key=ORDER.index)
