"""From single windows to a state: N of the last M windows raise it, and it falls only after a hold.

The states follow NAMUR NE 107 where it has a word for them (check_function).
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["AlarmLogic", "Interruption", "State", "Transition"]

State = Literal["normal", "warning", "alarm", "check_function", "no_data", "no_baseline"]
Interruption = Literal["check_function", "no_data"]

SEVERITY = {"normal": 0, "warning": 1, "alarm": 2}


@dataclass(frozen=True)
class Transition:
    """A change of state and why."""

    before: State
    after: State
    reason: str


@dataclass
class AlarmLogic:
    """Decides the state of one channel, window by window.

    A level is raised when `needed` of the last `of` windows are beyond its threshold, and lowered when the
    last `hold` windows are all below `hysteresis` times it. A window that cannot be judged (faulty sensor, no
    data) changes the state but clears no alarm: the judgement resumes where it was.
    """

    warning: float
    alarm: float
    needed: int = 2
    of: int = 3
    hold: int = 3
    hysteresis: float = 0.9
    state: State = "normal"
    _judged: State = "normal"
    _recent: deque[float] = field(default_factory=deque)

    def judge(self, distance: float) -> Transition | None:
        """Take the distance of the next window and return the change of state it causes, if any."""
        self._recent.append(distance)
        while len(self._recent) > max(self.of, self.hold):
            self._recent.popleft()
        self._judged = self._level()
        return self._become(self._judged, f"distance {distance:.4g} against a threshold of {self.alarm:.4g}")

    def interrupt(self, state: Interruption, reason: str) -> Transition | None:
        """Note that the channel cannot be judged."""
        return self._become(state, reason)

    def _level(self) -> State:
        """Level that the recent windows call for, given the one judged before."""
        last = list(self._recent)
        raised: State = "normal"
        for level, threshold in (("warning", self.warning), ("alarm", self.alarm)):
            if sum(distance > threshold for distance in last[-self.of :]) >= self.needed:
                raised = level  # type: ignore[assignment]
        if SEVERITY[raised] >= SEVERITY[self._judged]:
            return raised
        threshold = self.alarm if self._judged == "alarm" else self.warning
        held = last[-self.hold :]
        if len(held) == self.hold and max(held) < self.hysteresis * threshold:
            return raised
        return self._judged

    def _become(self, state: State, reason: str) -> Transition | None:
        """Change the state; None when it stays."""
        if state == self.state:
            return None
        before, self.state = self.state, state
        return Transition(before, state, reason)
