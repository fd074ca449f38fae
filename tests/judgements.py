"""Judgements, results, changes and states for tests, with values as they come."""

import random
from dataclasses import replace
from typing import Any

from fisher_edge.decision.judgement import (
    BandShare,
    BaselineName,
    Change,
    Evidence,
    FaultVote,
    Judgement,
    Level,
    ModelName,
    Nearest,
    PlainMeasures,
    Result,
    Standing,
    State,
    ViewScore,
)
from fisher_edge.store.records import Limits

__all__ = ["AMPLE", "TIME_S", "change", "judgement", "noise", "result", "standing"]

# 2026-01-31T09:30:00.250Z
TIME_S = 1769851800.25
# Limits that no test reaches.
AMPLE = Limits(waiting_bytes=1 << 30, waiting_s=1e9, history_bytes=1 << 30, history_s=1e9)

JUDGEMENT = Judgement(
    time_s=TIME_S,
    window_s=10.24,
    rate_hz=48000,
    model=ModelName("fisher-mini", "ab" * 32),
    baseline=BaselineName(3, 420),
    operating_state="running",
    distance=0.25,
    score=1.5,
    evidence=Evidence(0.5, 0.25, None, 0.75, 10.24, 655.36),
    bands=(BandShare(0.0, 1000.0, 0.15, 2.0), BandShare(500.0, 1500.0, 0.1, -0.5)),
    nearest=Nearest(3, "normal-01.wav", 20.48, TIME_S - 86400),
    fault=FaultVote("outer race", 4, 7),
    level=Level(-1.5, 0.5, 0.25, Evidence(0.25, 0.125, None, 0.3, 20.48, 655.36)),
    views=(ViewScore("envelope-1000hz", 0.5, 1.25),),
    measures=PlainMeasures(0.25, 1.0, 4.0, 3.0),
    latency_ms=12.5,
)


def judgement(**fields: Any) -> Judgement:
    """Return a judgement of a channel with a baseline, a fault and a view."""
    return replace(JUDGEMENT, **fields)


def result(reason: str | None = None, **fields: Any) -> Result:
    """Return a result; the fields are those of its judgement."""
    return Result(judgement(**fields), State.NORMAL, "g", reason)


def change(after: State = State.ALARM, reason: str = "shape at 1.5 times its limit", **fields: Any) -> Change:
    """Return a change of state."""
    return replace(Change(TIME_S, State.NORMAL, after, reason, "sudden", judgement()), **fields)


def standing(state: State = State.NORMAL, **fields: Any) -> Standing:
    """Return a state with the judgement behind it."""
    return replace(Standing(TIME_S, state, TIME_S - 60, None, judgement(), "g"), **fields)


def noise(size: int, seed: int = 1) -> str:
    """Return text that cannot be compressed to much less than half of its size."""
    return random.Random(seed).randbytes(size // 2).hex()
