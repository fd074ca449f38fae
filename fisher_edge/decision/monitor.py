"""The judgement of one channel: window in, verdict out. See `Monitor.judge`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np

from fisher_edge.decision.alarm import AlarmLogic, Interruption, State, Transition
from fisher_edge.decision.bank import Match, MemoryBank
from fisher_edge.decision.threshold import Tail, fit_tail
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.features import features, level_log_rms, sensor_fault
from fisher_edge.dsp.stream import Window
from fisher_edge.encoder.ort import EncoderSession
from fisher_edge.errors import BadInputError
from fisher_edge.store import Baseline, Store

__all__ = ["Monitor", "Policy", "Unenrolled", "Verdict", "load_monitor", "rfc3339"]

NORMAL = "normal"
UNLIKE_ANYTHING = "unlike anything enrolled"
FAR = 3.0
"""A window whose nearest labelled example is this many times the alarm threshold away resembles none."""
MIN_LEVEL_STD = 0.05


@dataclass(frozen=True)
class Policy:
    """When to speak up: false alarms a day that are acceptable, and how many windows it takes."""

    warning_per_day: float = 1.0
    alarm_per_day: float = 0.1
    needed: int = 2
    of: int = 3
    hold: int = 3


@dataclass(frozen=True)
class Verdict:
    """Judgement of one window: the result fields of the MQTT interface, and a change of state if there is one."""

    fields: dict[str, Any]
    state: State
    transition: Transition | None


class Monitor:
    """Judges the windows of one channel, in order, against its baseline and its labelled faults."""

    def __init__(
        self, session: EncoderSession, normal: Baseline, faults: Sequence[Baseline], policy: Policy | None = None
    ) -> None:
        policy = policy or Policy()
        self.session = session
        self.normal = normal
        self.window_frames = int(normal.facts["window_frames"])
        self.hop_frames = int(normal.facts["hop_frames"])
        self.rate_hz = int(normal.facts["rate_hz"])
        self._bank = _bank(normal)
        self._examples = _examples(normal, faults)
        self._tail: Tail = fit_tail(normal.facts["held_out"])
        hop_s = self.hop_frames * session.bundle.front_end.hop_ms / 1000
        self._alarm = AlarmLogic(
            warning=self._tail.threshold(policy.warning_per_day, hop_s),
            alarm=self._tail.threshold(policy.alarm_per_day, hop_s),
            needed=policy.needed,
            of=policy.of,
            hold=policy.hold,
        )

    def judge(self, window: Window) -> Verdict:
        """Judge one window; a sensor that cannot be trusted gives `check_function`, never an anomaly."""
        started = time.perf_counter()
        fields = _frame(window, self.session)
        fields |= {
            "threshold": self._alarm.alarm,
            "warning_threshold": self._alarm.warning,
            "baseline": {"version": self.normal.version, "windows": len(self._bank)},
        }
        fault = sensor_fault(window.samples)
        if fault:
            transition = self._alarm.interrupt("check_function", fault)
            fields |= {"state": self._alarm.state, "reason": fault}
            return Verdict(fields, self._alarm.state, transition)
        embedding = self.session.embed(window.bands)
        match = self._bank.nearest(embedding)
        transition = self._alarm.judge(match.distance)
        fields |= {
            "state": self._alarm.state,
            "distance": match.distance,
            "ratio": match.distance / self._alarm.alarm,
            "p_value": self._tail.p_value(match.distance),
            "bands": self._band_shares(match),
            "nearest": {"baseline": self.normal.version, "time": rfc3339(float(self.normal.times[match.index]))},
            "fault": self._fault(embedding, match),
            "level": self._level(window),
            "features": features(window.samples),
            "latency_ms": 1000 * (time.perf_counter() - started),
        }
        return Verdict(fields, self._alarm.state, transition)

    def interrupt(self, state: Interruption, reason: str) -> Transition | None:
        """Note that the channel cannot be judged; what was judged before stands until it can."""
        return self._alarm.interrupt(state, reason)

    @property
    def state(self) -> State:
        """The channel's state now."""
        return self._alarm.state

    def _band_shares(self, match: Match) -> list[dict[str, float]]:
        """Hz range and share of the distance of every band; the shares add up to the distance."""
        edges = self.session.bundle.front_end.band_edges_hz(self.rate_hz)
        return [
            {"low_hz": low, "high_hz": high, "share": float(share)}
            for (low, high), share in zip(edges, match.shares, strict=True)
        ]

    def _fault(self, embedding: FloatArray, match: Match) -> dict[str, Any] | None:
        """Let the labelled examples and the normal windows vote, once there are labelled ones."""
        if self._examples is None:
            return None
        nearest = min(match.distance, float(self._examples.distances(embedding).min()))
        vote = self._examples.vote(embedding)
        label = UNLIKE_ANYTHING if nearest > FAR * self._alarm.alarm else vote.label
        return {"label": label, "votes": vote.votes, "k": vote.k}

    def _level(self, window: Window) -> dict[str, float]:
        """Log RMS of the window and how many standard deviations it is from the enrolled ones."""
        level, enrolled = level_log_rms(window.samples), self.normal.facts["level"]
        return {"log_rms": level, "z": (level - enrolled["mean"]) / max(enrolled["std"], MIN_LEVEL_STD)}


class Unenrolled:
    """Watches a channel that has no baseline yet: plain measures, sensor health, no distance."""

    def __init__(self, session: EncoderSession, window_frames: int, hop_frames: int) -> None:
        self.session = session
        self.window_frames = window_frames
        self.hop_frames = hop_frames
        self.rate_hz: int | None = None
        self.state: State = "no_baseline"

    def judge(self, window: Window) -> Verdict:
        """Measure one window."""
        fault = sensor_fault(window.samples)
        fields = _frame(window, self.session)
        if fault:
            transition = self._become("check_function", fault)
            return Verdict(fields | {"state": self.state, "reason": fault}, self.state, transition)
        transition = self._become("no_baseline", "nothing is enrolled for this channel")
        fields |= {
            "state": self.state,
            "level": {"log_rms": level_log_rms(window.samples), "z": None},
            "features": features(window.samples),
        }
        return Verdict(fields, self.state, transition)

    def interrupt(self, state: Interruption, reason: str) -> Transition | None:
        """Note that the channel cannot be measured."""
        return self._become(state, reason)

    def _become(self, state: State, reason: str) -> Transition | None:
        """Change the state; None when it stays."""
        before, self.state = self.state, state
        return Transition(before, state, reason) if before != state else None


def load_monitor(
    store: Store, session: EncoderSession, asset: str, channel: str, policy: Policy | None = None
) -> Monitor:
    """Build the monitor of a channel from its active baselines.

    Raises BadInputError when nothing is enrolled, or was enrolled with another model.
    """
    baselines = store.baselines(asset, channel, active_only=True)
    normal = next((baseline for baseline in baselines if baseline.label is None), None)
    if normal is None:
        raise BadInputError(
            f"nothing is enrolled for asset {asset!r}, channel {channel!r} in {store.path}; run: fisher-edge enroll "
            f"FILES --asset {asset} --channel {channel}"
        )
    for baseline in baselines:
        made_with = baseline.facts["model"]
        if made_with["sha256"] != session.bundle.sha256:
            raise BadInputError(
                f"the baseline of {asset}/{channel} was enrolled with model {made_with['name']} "
                f"({made_with['sha256'][:8]}), not {session.bundle.name} ({session.bundle.sha256[:8]}): their "
                "embeddings cannot be compared; enrol again or give the same --model"
            )
    return Monitor(session, normal, [baseline for baseline in baselines if baseline.label], policy)


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


def rfc3339(time_s: float) -> str:
    """Format seconds since 1970 as RFC 3339 in UTC with milliseconds."""
    moment = datetime.fromtimestamp(time_s, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _bank(*baselines: Baseline) -> MemoryBank:
    """Put the windows of some baselines into one bank, labelled."""
    bands = int(baselines[0].facts["bands"])
    vectors = np.concatenate([baseline.vectors for baseline in baselines])
    labels = [baseline.label or NORMAL for baseline in baselines for _ in baseline.vectors]
    return MemoryBank.of(vectors.reshape(len(vectors), bands, -1), labels)


def _examples(normal: Baseline, faults: Sequence[Baseline]) -> MemoryBank | None:
    """Bank for the vote on the fault class; None while there is no labelled example."""
    usable = [fault for fault in faults if fault.facts["rate_hz"] == normal.facts["rate_hz"]]
    return _bank(normal, *usable) if usable else None
