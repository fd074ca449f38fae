"""The judgement of one channel: window in, verdict out. See `Monitor.judge`.

Shape and level are two statements: how far the window's embedding is from the enrolled ones, and how far its
RMS is from theirs. Each has thresholds of its own, calibrated on held-out enrolment windows.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

from fisher_edge.decision.alarm import (
    AlarmRule,
    ChannelState,
    Interruption,
    Quantity,
    Severity,
    State,
    Transition,
    worse,
)
from fisher_edge.decision.bank import Match
from fisher_edge.decision.baselines import active_of, bank_of, comparable, same_front_end
from fisher_edge.decision.evidence import Fusion
from fisher_edge.decision.examples import examples_of
from fisher_edge.decision.threshold import Tail, fit_tail, probability
from fisher_edge.decision.view_score import view_scores
from fisher_edge.dsp.blocks import FloatArray, rfc3339
from fisher_edge.dsp.features import features, level_log_rms, sensor_fault
from fisher_edge.dsp.stream import Window
from fisher_edge.dsp.views import view_vector
from fisher_edge.encoder.ort import EncoderSession
from fisher_edge.errors import BadInputError
from fisher_edge.store import Baseline, Store

__all__ = ["Monitor", "Policy", "Unenrolled", "Verdict", "load_monitor"]

UNLIKE_ANYTHING = "unlike anything enrolled"
FAR = 3.0
"""A window whose nearest example is this many times the alarm threshold away resembles none, unless examples of one
fault lie as far from each other."""
MIN_LEVEL_STD = 0.01
"""Smallest spread of the level (1 %) that is believed: steadier enrolments say little about tomorrow."""


@dataclass(frozen=True)
class Policy:
    """When to speak up: normal windows a day that may exceed a threshold, for shape and level each, and how many."""

    warning_per_day: float = 1.0
    alarm_per_day: float = 0.1
    rule: AlarmRule = field(default_factory=AlarmRule)


@dataclass(frozen=True)
class Verdict:
    """Judgement of one window: the result fields of the MQTT interface, and a change of state if there is one."""

    fields: dict[str, Any]
    transition: Transition | None


class Monitor:
    """Judges the windows of one channel, in order, against its baseline and its labelled faults."""

    def __init__(
        self,
        session: EncoderSession,
        normal: Baseline,
        faults: Sequence[Baseline],
        policy: Policy | None = None,
        hop_frames: int | None = None,
        fusion: Fusion | None = None,
    ) -> None:
        policy = policy or Policy()
        self.normal = normal
        self.window_frames = int(normal.facts["window_frames"])
        self.hop_frames = hop_frames or int(normal.facts["hop_frames"])
        self.rate_hz: int | None = int(normal.facts["rate_hz"])
        self._session = session
        self._bank = bank_of([normal])
        views = session.bundle.front_end.views
        self._views = view_scores(normal, views)
        self._weights = {view.name: view.weight for view in fusion.views} if fusion else {}
        self._reach = (fusion.reach or 0.0) if fusion else 0.0
        self._examples = examples_of(normal, faults, fusion, views)
        self._tail = fit_tail(normal.facts["held_out"])
        hop_s = self.hop_frames * session.bundle.front_end.hop_ms / 1000
        level_tail = fit_tail(normal.facts["level"]["held_out"])
        warning, alarm = (
            (self._tail.threshold(rate, hop_s), _level_threshold(level_tail, rate, hop_s))
            for rate in (policy.warning_per_day, policy.alarm_per_day)
        )
        self._shape = Quantity(warning[0], alarm[0], policy.rule)
        self._level = Quantity(warning[1], alarm[1], policy.rule)
        self._channel = ChannelState()

    @property
    def state(self) -> State:
        """The channel's state now."""
        return self._channel.state

    def judge(self, window: Window) -> Verdict:
        """Judge one window; a sensor that cannot be trusted gives `check_function`, never an anomaly."""
        started = time.perf_counter()
        fields = _frame(window, self._session) | {
            "threshold": self._shape.alarm,
            "warning_threshold": self._shape.warning,
            "baseline": {"version": self.normal.version, "windows": len(self._bank)},
        }
        fault = sensor_fault(window.samples)
        if fault:
            return _unjudged(self._channel, fields, fault)
        embedding = self._session.embed(window.bands)
        match, level = self._bank.nearest(embedding), self._level_of(window)
        vectors = self._vectors(window)
        shape_severity = self._shape.judge(match.distance)
        severity = worse(shape_severity, self._level.judge(level["deviation"]))
        ratio = match.distance / self._shape.alarm
        reason = f"shape at {ratio:.2f} times its threshold, level at {level['ratio']:.2f} times its own"
        transition = self._channel.become(severity, reason)
        fields |= {
            "state": self.state,
            "distance": match.distance,
            "ratio": ratio,
            "p_value": self._tail.p_value(match.distance),
            "bands": self._band_shares(match),
            "nearest": {"baseline": self.normal.version, "time": rfc3339(float(self.normal.times[match.index]))},
            "fault": self._fault(embedding, vectors, match),
            "level": level,
            "views": self._view_fields(vectors),
            "features": features(window.samples),
            "latency_ms": 1000 * (time.perf_counter() - started),
        }
        return Verdict(fields, transition)

    def resume(self, event: dict[str, Any]) -> None:
        """Take up the judgement where the last event left it, so that a restart clears no alarm.

        `event` is a stored change of state to warning or alarm; the quantity that was further beyond its
        threshold carries it on.
        """
        severity: Severity = event["after"]
        level_ratio = (event.get("level") or {}).get("ratio", 0.0)
        quantity = self._level if level_ratio > (event.get("ratio") or 0.0) else self._shape
        quantity.severity = severity
        self._channel = ChannelState(severity)

    def failed(self, window: Window, reason: str) -> Verdict:
        """Note that a window could not be judged although there was one."""
        return _unjudged(self._channel, _frame(window, self._session), reason)

    def interrupt(self, state: Interruption, reason: str) -> Transition | None:
        """Note that the channel cannot be judged; what was judged before stands until it can."""
        return self._channel.become(state, reason)

    def _band_shares(self, match: Match) -> list[dict[str, float]]:
        """Hz range and share of the distance of every band; the shares add up to the distance."""
        assert self.rate_hz is not None
        edges = self._session.bundle.front_end.band_edges_hz(self.rate_hz)
        return [
            {"low_hz": low, "high_hz": high, "share": float(share)}
            for (low, high), share in zip(edges, match.shares, strict=True)
        ]

    def _vectors(self, window: Window) -> dict[str, FloatArray]:
        """Views of a window by name, those that the normal state has."""
        return {score.view.name: view_vector(score.view, window.samples, window.rate_hz) for score in self._views}

    def _view_fields(self, vectors: Mapping[str, FloatArray]) -> list[dict[str, Any]]:
        """Say of every view how much it counts when faults are named, and how far from normal it is."""
        return [
            {"name": name, "weight": self._weights.get(name, 0.0), "z": score.z(vectors[name])}
            for score, name in ((score, score.view.name) for score in self._views)
        ]

    def _fault(self, embedding: FloatArray, vectors: Mapping[str, FloatArray], match: Match) -> dict[str, Any] | None:
        """Let the labelled examples and the normal windows vote, once there are labelled ones."""
        if self._examples is None:
            return None
        nearest = min(match.distance, self._examples.distance(embedding))
        vote = self._examples.vote(embedding, vectors)
        label = UNLIKE_ANYTHING if nearest > max(FAR * self._shape.alarm, self._reach) else vote.label
        return {"label": label, "votes": vote.votes, "k": vote.k}

    def _level_of(self, window: Window) -> dict[str, float]:
        """Log RMS of a window, its deviation from the enrolled mean, z, and the deviation over its threshold."""
        level, enrolled = level_log_rms(window.samples), self.normal.facts["level"]
        difference = level - enrolled["mean"]
        return {
            "log_rms": level,
            "z": difference / max(enrolled["std"], MIN_LEVEL_STD),
            "deviation": abs(difference),
            "threshold": self._level.alarm,
            "ratio": abs(difference) / self._level.alarm,
        }


class Unenrolled:
    """Watches a channel that has no baseline yet: plain measures and sensor health, no distance."""

    def __init__(self, session: EncoderSession, window_frames: int, hop_frames: int) -> None:
        self.window_frames = window_frames
        self.hop_frames = hop_frames
        self.rate_hz: int | None = None
        self._session = session
        self._channel = ChannelState("no_baseline")

    @property
    def state(self) -> State:
        """The channel's state now."""
        return self._channel.state

    def judge(self, window: Window) -> Verdict:
        """Measure one window."""
        fields = _frame(window, self._session)
        fault = sensor_fault(window.samples)
        if fault:
            return _unjudged(self._channel, fields, fault)
        transition = self._channel.become("no_baseline", "nothing is enrolled for this channel")
        fields |= {
            "state": self.state,
            "level": {"log_rms": level_log_rms(window.samples)},
            "features": features(window.samples),
        }
        return Verdict(fields, transition)

    def failed(self, window: Window, reason: str) -> Verdict:
        """Note that a window could not be measured although there was one."""
        return _unjudged(self._channel, _frame(window, self._session), reason)

    def interrupt(self, state: Interruption, reason: str) -> Transition | None:
        """Note that the channel cannot be measured."""
        return self._channel.become(state, reason)


def load_monitor(
    store: Store,
    session: EncoderSession,
    asset: str,
    channel: str,
    policy: Policy | None = None,
    hop_frames: int | None = None,
) -> Monitor:
    """Build the monitor of a channel from its active baselines, for windows as far apart as enrolled or as given.

    Raises BadInputError when no normal state is enrolled, or it was enrolled with another model.
    """
    baselines = store.baselines(asset, channel, active_only=True)
    normal = active_of(baselines, None)
    if normal is None:
        raise BadInputError(
            f"nothing is enrolled for asset {asset!r}, channel {channel!r} in {store.path}; run: fisher-edge enroll "
            f"FILES --asset {asset} --channel {channel}"
        )
    made_with = normal.facts["model"]
    if made_with["sha256"] != session.bundle.sha256:
        raise BadInputError(
            f"the baseline of {asset}/{channel} was enrolled with model {made_with['name']} "
            f"({made_with['sha256'][:8]}), not {session.bundle.name} ({session.bundle.sha256[:8]}): their "
            "embeddings cannot be compared; enrol again or give the same --model"
        )
    if not same_front_end(normal, session.bundle.front_end):
        raise BadInputError(
            f"the baseline of {asset}/{channel} was enrolled with another front-end than that of "
            f"{session.bundle.name}: their embeddings cannot be compared; enrol again or give the same --model"
        )
    weights = store.fusion(asset, channel)
    fusion = Fusion.from_dict(weights) if weights else None
    return Monitor(session, normal, comparable(baselines, normal), policy, hop_frames, fusion)


def _level_threshold(tail: Tail, false_alarms_per_day: float, hop_s: float) -> float:
    """Return the deviation of the level to raise at: as enrolled, but never tighter than a spread of 1 % asks for."""
    deviations = NormalDist().inv_cdf(1 - probability(false_alarms_per_day, hop_s) / 2)
    return max(tail.threshold(false_alarms_per_day, hop_s), deviations * MIN_LEVEL_STD)


def _unjudged(channel: ChannelState, fields: dict[str, Any], reason: str) -> Verdict:
    """Say check_function and why."""
    transition = channel.become("check_function", reason)
    return Verdict(fields | {"state": channel.state, "reason": reason}, transition)


def _frame(window: Window, session: EncoderSession) -> dict[str, Any]:
    """Return the fields that every result has, whatever is found."""
    return {
        "time": rfc3339(window.end_time_s),
        "window_s": window.seconds,
        "rate_hz": window.rate_hz,
        "state": None,
        "distance": None,
        "threshold": None,
        "warning_threshold": None,
        "ratio": None,
        "p_value": None,
        "bands": [],
        "nearest": None,
        "fault": None,
        "level": None,
        "views": [],
        "features": {},
        "baseline": None,
        "model": {"name": session.bundle.name, "sha256": session.bundle.sha256},
        "latency_ms": None,
    }
