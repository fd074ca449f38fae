"""From judgements to the state of a channel: a pure machine with an injected clock. Start at `AlarmMachine`.

It rises as soon as the evidence of shape or level has been beyond its limit for `delay_s`, and falls when all of it has
been clearly below for `hold_s`. Missing data never clears an alarm. A person may acknowledge an alarm, or shelve the
channel for a time: its state is then as ever, but a rise is told only when the time is over.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fisher_edge.decision.judgement import AlarmMemory, Change, Evidence, Handling, Judgement, State
from fisher_edge.errors import BadInputError

__all__ = [
    "ACKNOWLEDGED",
    "SHELVED",
    "UNFAMILIAR",
    "UNSHELVED",
    "AlarmMachine",
    "AlarmRule",
    "Interruption",
    "remembered",
    "worse",
]

Severity = Literal[State.NORMAL, State.WARNING, State.ALARM]
Interruption = Literal[State.IDLE, State.CHECK_FUNCTION, State.NO_DATA, State.NO_BASELINE]

ORDER: tuple[Severity, ...] = (State.NORMAL, State.WARNING, State.ALARM)
UNFAMILIAR = "unfamiliar operating state"
ACKNOWLEDGED, SHELVED, UNSHELVED = "acknowledged", "shelved", "unshelved"


@dataclass(frozen=True)
class AlarmRule:
    """How long (s) evidence must stay beyond its limit before the state rises, and below before it falls.

    "Below" means below `hysteresis` times the limit. With `latch` it falls only once it is acknowledged.
    """

    delay_s: float = 0.0
    hold_s: float = 10.0
    hysteresis: float = 0.9
    latch: bool = False


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
        self._told = state
        self._worst: Severity = State.NORMAL
        self._unseen: Severity = State.NORMAL
        self._acknowledged = False
        self._cause: str | None = None
        self._shelved_until_s: float | None = None
        self._severity: Severity = State.NORMAL
        self._beyond_since: dict[Severity, float] = {}
        """Since when (s) the evidence has said at least this."""
        self._below: tuple[Severity, float] | None = None
        """The most serious that the evidence has said since a time (s), all less than the severity."""
        self._reach_s = 0.0
        """Length of the span that raised the state: it falls only when one as long says that all is well."""

    @property
    def memory(self) -> AlarmMemory:
        """What a restart must not forget."""
        until_s = self._shelved_until_s if self._is_shelved() else None
        return AlarmMemory(
            self._severity, self._worst, self._unseen, self._acknowledged, self._cause, until_s, self._reach_s
        )

    def judge(self, judgement: Judgement) -> Change | None:
        """Take a judgement of the next window; return the change of state it leads to, if any."""
        if judgement.distrust is not None:
            return self._become(State.CHECK_FUNCTION, judgement.distrust, judgement.time_s, judgement)
        if judgement.unjudged is not None:
            return self._become(State.NO_BASELINE, judgement.unjudged, judgement.time_s, judgement)
        if judgement.idle is not None:
            return self._become(State.IDLE, judgement.idle, judgement.time_s, judgement)
        if judgement.passing is not None:
            return None
        assert judgement.evidence is not None
        assert judgement.level is not None
        assert judgement.level.evidence is not None
        shape, level = judgement.evidence, judgement.level.evidence
        unfamiliar = judgement.unfamiliar and self._severity is not State.ALARM and level.alarm <= 1
        before: Severity = self._severity
        self._rise(_beyond(shape, level, unfamiliar, 1.0), judgement.time_s)
        clearly = _beyond(shape, level, unfamiliar, self._rule.hysteresis)
        self._fall(clearly if shape.reach_s >= self._reach_s else self._severity, judgement.time_s)
        if self._severity is not before:
            self._reach_s = 0.0 if self._severity is State.NORMAL else _spoke(shape, level).span_s
            self._note_worst()
        reason = f"shape at {shape.alarm:.2f} times its limit, level at {level.alarm:.2f} times its own"
        kind = None if self._severity is State.NORMAL else _spoke(shape, level).kind
        if unfamiliar:
            which = f" {judgement.operating_state!r}" if judgement.score is None else ""
            reason, kind = f"{UNFAMILIAR}{which}: enroll it if it is normal; {reason}", UNFAMILIAR
        return self._become(self._severity, reason, judgement.time_s, judgement, kind)

    def interrupt(self, state: Interruption, reason: str) -> Change | None:
        """Note that the channel cannot be judged now; return the change of state, if it is one."""
        return self._become(state, reason, self._clock(), None)

    def acknowledge(self, handling: Handling) -> Change:
        """Note that a person has seen the warning or alarm, or the last one, which is over.

        BadInputError when there is none.
        """
        if self._severity is State.NORMAL and self._unseen is State.NORMAL:
            raise BadInputError("there is no warning and no alarm to acknowledge; see: fisher-edge alarms list")
        if self._severity is State.NORMAL:
            over, self._unseen = self._unseen, State.NORMAL
            return self._handled(
                ACKNOWLEDGED,
                f"{over.value} that is over acknowledged: {handling.cause or 'cause not known'}",
                handling,
            )
        self._acknowledged, self._cause = True, handling.cause or self._cause
        self._unseen = State.NORMAL
        said = self._cause or "cause not known"
        return self._handled(ACKNOWLEDGED, f"{self._severity.value} acknowledged: {said}", handling)

    def shelve(self, handling: Handling) -> Change:
        """Tell no rise until `until_s`; BadInputError when that is over."""
        until_s = handling.until_s
        if until_s is None or until_s <= self._clock():
            raise BadInputError("the time to shelve until is over already; give a later one")
        self._shelved_until_s = until_s
        return self._handled(SHELVED, "shelved: no warning and no alarm is told until its time is over", handling)

    def unshelve(self, handling: Handling) -> Change:
        """Tell rises again; BadInputError when the channel is not shelved."""
        if not self._is_shelved():
            raise BadInputError("the channel is not shelved; see: fisher-edge alarms list")
        self._shelved_until_s = None
        return self._handled(UNSHELVED, "shelved no longer", handling)

    def expire(self) -> Change | None:
        """Tell that the time to be shelved is over, together with a rise that was not told; None: it is not."""
        if self._shelved_until_s is None or self._is_shelved():
            return None
        self._shelved_until_s = None
        reason = "the time to be shelved is over"
        if not self.state.judged and self._severity is not State.NORMAL:
            reason += f"; before {self.state.value} there was: {self._severity.value}"
        return self._handled(UNSHELVED, reason, Handling())

    def resume(self, memory: AlarmMemory, since_s: float) -> None:
        """Take up what was judged before a restart, which clears no alarm."""
        self._shelved_until_s = memory.shelved_until_s
        self._unseen = memory.unseen if memory.unseen in ORDER else State.NORMAL
        if memory.severity in ORDER[1:]:
            self._severity, self._reach_s = memory.severity, memory.reach_s
            self._worst = worse(memory.severity, memory.worst) if memory.worst in ORDER else memory.severity
            self._acknowledged, self._cause = memory.acknowledged, memory.cause
            self.state, self.since_s = self._severity, since_s

    def follow(self, told: State, shelved_until_s: float | None = None) -> None:
        """Go on from the state that was told last, and with how long the channel is shelved."""
        self._told, self._shelved_until_s = told, shelved_until_s
        self.state = self.state if told.judged else told

    def forget(self) -> None:
        """Start again after an enrollment: what was judged against another baseline says nothing about this one."""
        self._severity, self._beyond_since, self._below, self._reach_s = State.NORMAL, {}, None, 0.0
        self._note_worst()
        self._unseen = State.NORMAL

    def _note_worst(self) -> None:
        """Keep the worst severity since all was well; what is worse, or over, is acknowledged no longer."""
        worst = State.NORMAL if self._severity is State.NORMAL else worse(self._worst, self._severity)
        if worst is not self._worst:
            if worst is State.NORMAL and not self._acknowledged:
                self._unseen = worse(self._unseen, self._worst)
            self._worst, self._acknowledged, self._cause = worst, False, None

    def _rise(self, now: Severity, time_s: float) -> None:
        """Let the severity rise to what the evidence has said for long enough; `now` is what it says."""
        said = ORDER[: ORDER.index(now) + 1]
        self._beyond_since = {each: min(self._beyond_since.get(each, time_s), time_s) for each in said}
        for each, since_s in self._beyond_since.items():
            if time_s - since_s >= self._rule.delay_s:
                self._severity = worse(self._severity, each)

    def _fall(self, now: Severity, time_s: float) -> None:
        """Let the severity fall to the most serious that the evidence has said for long enough."""
        if ORDER.index(now) >= ORDER.index(self._severity):
            self._below = None
            return
        most, since_s = self._below or (now, time_s)
        most, since_s = worse(most, now), min(since_s, time_s)
        self._below = (most, since_s)
        latched = self._rule.latch and not self._acknowledged
        if time_s - since_s >= self._rule.hold_s and not latched:
            self._severity, self._below = most, None

    def _become(
        self, state: State, reason: str, time_s: float, judgement: Judgement | None, kind: str | None = None
    ) -> Change | None:
        """Change the state; None when there is nothing to tell."""
        before, self.state = self.state, state
        if not state.judged:
            self._below = None
        self.reason = None if state.judged else reason
        if before is not state:
            self.since_s = time_s
        told = self._told
        if state is told or (state in ORDER[1:] and self._is_shelved()):
            return None
        self._told = state
        return Change(time_s, told, state, reason, kind, judgement)

    def _is_shelved(self) -> bool:
        """Whether a rise is not told now."""
        return self._shelved_until_s is not None and self._clock() < self._shelved_until_s

    def _handled(self, kind: str, reason: str, handling: Handling) -> Change:
        """What a person did, as an event; where a rise has not been told yet, it is told with it."""
        told = self._told
        self._told = self.state if kind == UNSHELVED else told
        return Change(self._clock(), told, self._told, reason, kind, None, handling)


def worse(left: Severity, right: Severity) -> Severity:
    """Return the more serious of two."""
    return max(left, right, key=ORDER.index)


def remembered(change: Change) -> AlarmMemory:
    """Return what an event says about the alarm."""
    found, reach_s = change.judgement, 0.0
    if found is not None and found.evidence and found.level and found.level.evidence:
        reach_s = _spoke(found.evidence, found.level.evidence).span_s
    return AlarmMemory(change.after, change.after, reach_s=reach_s)


def _beyond(shape: Evidence, level: Evidence, unfamiliar: bool, limit: float) -> Severity:
    """How serious evidence is; an unfamiliar operating state is a warning, however far the shape is."""
    if level.alarm > limit or (shape.alarm > limit and not unfamiliar):
        return State.ALARM
    if unfamiliar or max(shape.warning, level.warning) > limit:
        return State.WARNING
    return State.NORMAL


def _spoke(shape: Evidence, level: Evidence) -> Evidence:
    """The evidence that says more."""
    return shape if shape.alarm >= level.alarm else level
