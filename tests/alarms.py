"""An alarm machine with a clock that stands still, and what it is given: judgements and interruptions."""

from dataclasses import dataclass, replace
from typing import Any

from fisher_edge.decision.alarm import AlarmMachine, AlarmRule
from fisher_edge.decision.judgement import Evidence, Judgement, Level, ModelName, State

MODEL = ModelName("nano", "0" * 64)
N, W, A = State.NORMAL, State.WARNING, State.ALARM
ORDER = [N, W, A]
STEP_S = 5.0
LONG_S = 3600.0


@dataclass
class Clock:
    """A clock that stands still until a test moves it."""

    now_s: float

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now_s


def evidence(alarm: float, warning: float | None = None, span_s: float = 1.0, reach_s: float = 60.0) -> Evidence:
    """Return evidence of so many times the limit of an alarm; that of a warning is at half, unless it is given."""
    kind = "sudden" if span_s <= 60 else "persistent"
    return replace(
        Evidence(warning=2 * alarm if warning is None else warning, span_s=span_s, reach_s=reach_s), **{kind: alarm}
    )


def found(shape: float = 0.0, level: float = 0.0, time_s: float = 0.0, **options: Any) -> Judgement:
    """Return a judgement with evidence of shape and level, in multiples of their alarm limits."""
    spans = {name: options.pop(name) for name in ("span_s", "reach_s") if name in options}
    return Judgement(
        time_s=time_s,
        window_s=1.0,
        rate_hz=16_000.0,
        model=MODEL,
        distance=0.01,
        score=0.0,
        evidence=evidence(shape, **spans),
        level=Level(0.0, 0.0, level, evidence(level, **spans)),
        **options,
    )


def distrusted(time_s: float = 0.0, reason: str = "flat line") -> Judgement:
    """Return a judgement of a dead sensor."""
    return Judgement(time_s, 1.0, 16_000.0, MODEL, distrust=reason)


def unjudged(time_s: float = 0.0) -> Judgement:
    """Return a judgement of a sensor for which nothing is enrolled."""
    return Judgement(time_s, 1.0, 16_000.0, MODEL, unjudged="nothing is enrolled", level=Level(0.0))


def machine_of(rule: AlarmRule | None = None) -> AlarmMachine:
    """Return the alarm machine of a channel that has just started."""
    return AlarmMachine(rule or AlarmRule(), Clock(1000.0))


def states(machine: AlarmMachine, judgements: list[Judgement]) -> list[State]:
    """Judge windows and return the state after each."""
    after = []
    for judgement in judgements:
        machine.judge(judgement)
        after.append(machine.state)
    return after


def every(step_s: float, *shapes: float, **options: Any) -> list[Judgement]:
    """Return judgements of shapes one after the other, so many seconds apart."""
    return [found(shape, time_s=step_s * number, **options) for number, shape in enumerate(shapes)]


def interrupt(machine: AlarmMachine, what: str, time_s: float) -> None:
    """Let something that cannot be judged happen."""
    if what == "dead":
        machine.judge(distrusted(time_s))
    elif what == "unjudged":
        machine.judge(unjudged(time_s))
    else:
        which = {"no data": State.NO_DATA, "check": State.CHECK_FUNCTION, "no baseline": State.NO_BASELINE}
        machine.interrupt(which[what], what)  # type: ignore[arg-type]
