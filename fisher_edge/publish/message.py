"""What goes over MQTT: topics, names of fields, text of time. Start at `wire` and `result_message`.

Pure functions. Every payload is a JSON object with a `schema` field, except the one word on `…/status`. The form is
documented in docs/mqtt.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from fisher_edge.decision.judgement import (
    AlarmMemory,
    BaselineName,
    Change,
    Evidence,
    Handling,
    Judgement,
    Level,
    Nearest,
    Realised,
    Result,
    Standing,
)
from fisher_edge.errors import BadInputError
from fisher_edge.names import ChannelKey, check_name, check_root
from fisher_edge.store.body import DamagedRowError, Kind, decode, plain, to_text
from fisher_edge.store.records import Row
from fisher_edge.store.schema import MESSAGE

__all__ = [
    "OFFLINE",
    "ONLINE",
    "Info",
    "InfoChannel",
    "Topics",
    "Wire",
    "event_fields",
    "info_message",
    "result_fields",
    "result_message",
    "rfc3339",
    "seconds",
    "state_fields",
    "wire",
]

ONLINE = b"online"
OFFLINE = b"offline"


@dataclass(frozen=True)
class Topics:
    """The topics of one gateway: `<root>/<gateway>/…`; the root may have several levels."""

    root: str
    gateway: str

    def __post_init__(self) -> None:
        check_root(self.root)
        check_name("gateway", self.gateway)

    @property
    def base(self) -> str:
        """What all topics of the gateway begin with."""
        return f"{self.root}/{self.gateway}"

    @property
    def status(self) -> str:
        """Topic of `online` and `offline` (retained, last will)."""
        return f"{self.base}/status"

    @property
    def info(self) -> str:
        """Topic of what the gateway is and runs (retained)."""
        return f"{self.base}/info"

    def channel(self, key: ChannelKey, kind: Kind) -> str:
        """Topic of one kind of message of a channel: every window, every change, or the latest state (retained)."""
        key.check()
        return f"{self.base}/{key.asset}/{key.channel}/{kind}"


@dataclass(frozen=True)
class Wire:
    """A message as it is published."""

    topic: str
    payload: bytes
    retain: bool


@dataclass(frozen=True)
class InfoChannel:
    """A channel in the info of its gateway; `baseline_version` None: nothing that it can be judged by."""

    key: ChannelKey
    unit: str
    window_s: float
    baseline_version: int | None


@dataclass(frozen=True)
class Info:
    """What a gateway is and runs."""

    version: str
    model_name: str
    model_sha256: str
    provider: str
    channels: tuple[InfoChannel, ...] = ()


def wire(row: Row, topics: Topics, *, replay: bool) -> Wire:
    """Return the message of a row; DamagedRowError when its body cannot be decoded.

    A row that an earlier release wrote is a finished message, which is sent as it is with `replay` added. An empty body
    stays empty: it clears the retained state of a channel that is no longer configured.
    """
    try:
        return Wire(topics.channel(row.key, row.kind), _payload(row, topics, replay=replay), row.kind == "state")
    except BadInputError as error:
        raise DamagedRowError(f"the {row.kind} cannot be published: {error}") from error


def result_message(
    result: Result, *, gateway: str | None, key: ChannelKey, boot: int | None, seq: int, replay: bool
) -> dict[str, Any]:
    """Return the message of one window; a number that is not finite is a BadInputError that names the field.

    Without gateway and boot it is that of a recording which is scored.
    """
    fields = plain(result_fields(result), "result")
    return {**_header("result", gateway, key, boot, seq), **fields, "replay": replay}


def result_fields(result: Result) -> dict[str, Any]:
    """Return what a message says of one window, without the identity; numbers as they are."""
    found, measures, baseline = result.judgement, result.judgement.measures, result.judgement.baseline
    reason = result.reason or found.distrust or found.unjudged or found.idle or found.passing
    return {
        "time": rfc3339(found.time_s),
        "window_s": found.window_s,
        "rate_hz": _rate(found.rate_hz),
        "unit": result.unit,
        "state": result.state.value,
        **({} if reason is None else {"reason": reason}),
        "skipped": result.skipped,
        "operating_state": found.operating_state,
        **_distance(found),
        **_explanation(found),
        "features": vars(measures) if measures else {},
        "baseline": _baseline(baseline) if baseline else None,
        "promise": _promise(result.realised),
        "model": vars(found.model),
        "latency_ms": found.latency_ms,
    }


def event_fields(change: Change) -> dict[str, Any]:
    """Return what a message says of a change of state, with the judgement that led to it, if one did."""
    found = change.judgement
    return {
        "time": rfc3339(change.time_s),
        "before": change.before.value,
        "after": change.after.value,
        "reason": change.reason,
        "kind": change.kind,
        **({} if change.handling is None else {"handling": _handling(change.handling)}),
        **(
            {}
            if found is None
            else {"operating_state": found.operating_state, **_distance(found), **_explanation(found)}
        ),
    }


def state_fields(standing: Standing) -> dict[str, Any]:
    """Return what a message says of the latest state of a channel."""
    found = standing.judgement
    return {
        "time": rfc3339(standing.time_s),
        "state": standing.state.value,
        "since": rfc3339(standing.since_s),
        **({} if standing.reason is None else {"reason": standing.reason}),
        "unit": standing.unit,
        "gaps": standing.gaps,
        "dropped": standing.dropped,
        "real_rate_hz": standing.real_rate_hz,
        **_alarm(standing.alarm or AlarmMemory()),
        "promise": _promise(standing.realised),
        **({} if found is None else {**_distance(found), "level": _level(found.level)}),
    }


def info_message(info: Info, *, gateway: str) -> dict[str, Any]:
    """Return the message that says what the gateway is and runs."""
    fields = {
        "version": info.version,
        "model": {"name": info.model_name, "sha256": info.model_sha256},
        "provider": info.provider,
        "channels": [
            {
                "asset": channel.key.asset,
                "channel": channel.key.channel,
                "unit": channel.unit,
                "window_s": channel.window_s,
                "baseline": channel.baseline_version,
            }
            for channel in info.channels
        ],
    }
    return {"schema": "fisher-edge/info/1", "gateway": gateway, **plain(fields, "info")}


def rfc3339(time_s: float) -> str:
    """Write seconds since 1970 UTC as RFC 3339 with milliseconds: 2026-01-31T09:30:00.250Z."""
    try:
        moment = datetime.fromtimestamp(time_s, timezone.utc)
    except (ValueError, OverflowError, OSError) as error:
        raise BadInputError(f"{time_s} is not a time in seconds since 1970-01-01 UTC ({error})") from error
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(stamp: str) -> float:
    """Read a time stamp as `rfc3339` writes it."""
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def _payload(row: Row, topics: Topics, *, replay: bool) -> bytes:
    """Return what is published of a row; its numbers were rounded when it was written."""
    if not row.body:
        return b""
    if row.dialect == MESSAGE:
        if not (row.body.startswith(b"{") and row.body.endswith(b"}")):
            raise DamagedRowError(f"the {row.kind} of an earlier release is not a message")
        return row.body[:-1] + (b',"replay":true}' if replay else b',"replay":false}')
    fields = FIELDS[row.kind](decode(row.kind, row.body))
    return to_text({**_header(row.kind, topics.gateway, row.key, row.boot, row.seq), **fields, "replay": replay})


def _header(kind: Kind, gateway: str | None, key: ChannelKey, boot: int | None, seq: int | None) -> dict[str, Any]:
    """Return the identity that every message of a channel begins with."""
    return {
        "schema": f"fisher-edge/{kind}/2",
        "gateway": gateway,
        "asset": key.asset,
        "channel": key.channel,
        "boot": boot,
        "seq": seq,
    }


def _distance(found: Judgement) -> dict[str, Any]:
    """Return how far a window is from normal, how unusual that is, and what windows add up to."""
    return {"distance": found.distance, "score": found.score, "evidence": _evidence(found.evidence)}


def _evidence(evidence: Evidence | None) -> dict[str, Any] | None:
    """Return the evidence of shape or level, over the limit of an alarm; null: no such span of time is full yet."""
    if evidence is None:
        return None
    kinds = {"sudden": evidence.sudden, "persistent": evidence.persistent, "drift": evidence.drift}
    return {**kinds, "warning": evidence.warning}


def _explanation(found: Judgement) -> dict[str, Any]:
    """Return what a window resembles, and in what it differs."""
    return {
        "bands": [vars(band) for band in found.bands],
        "nearest": _nearest(found.nearest),
        "fault": vars(found.fault) if found.fault else None,
        "level": _level(found.level),
        "views": [vars(view) for view in found.views],
    }


def _alarm(alarm: AlarmMemory) -> dict[str, Any]:
    """Return what is known of the alarm of a channel, whatever its state is now."""
    until_s = alarm.shelved_until_s
    return {
        "severity": alarm.severity.value,
        "unseen": alarm.unseen.value,
        "acknowledged": alarm.acknowledged,
        "cause": alarm.cause,
        "shelved_until": None if until_s is None else rfc3339(until_s),
    }


def _handling(handling: Handling) -> dict[str, Any]:
    """Return what a person did about an alarm."""
    until = {} if handling.until_s is None else {"until": rfc3339(handling.until_s)}
    return {"by": handling.by, "cause": handling.cause, "note": handling.note, **until}


def _promise(realised: Realised | None) -> dict[str, Any] | None:
    """Return how many false alarms were promised, and what came of it."""
    if realised is None:
        return None
    promise = realised.promise
    return {
        "warning_per_day": promise.warning_per_day,
        "alarm_per_day": promise.alarm_per_day,
        "warning_interval": promise.warning_interval,
        "alarm_interval": promise.alarm_interval,
        "days": realised.days,
        "warnings": realised.warnings,
        "alarms": realised.alarms,
        "confirmed": realised.confirmed,
        "refuted": realised.refuted,
    }


def _baseline(baseline: BaselineName) -> dict[str, Any]:
    """Return which baseline judged a window, and its rate and bands where the sensor has another rate."""
    fields = {name: value for name, value in vars(baseline).items() if value is not None}
    return fields if baseline.rate_hz is None else {**fields, "rate_hz": _rate(baseline.rate_hz)}


def _nearest(nearest: Nearest | None) -> dict[str, Any] | None:
    """Return which enrolled window is nearest, and when it was recorded."""
    if nearest is None:
        return None
    return {
        "baseline": nearest.version,
        "recording": nearest.recording,
        "offset_s": nearest.offset_s,
        "time": None if nearest.time_s is None else rfc3339(nearest.time_s),
    }


def _level(level: Level | None) -> dict[str, Any] | None:
    """Return the level of a window; without a baseline there is nothing to compare it with."""
    if level is None:
        return None
    if level.deviation is None:
        return {"log_rms": level.log_rms}
    return {
        "log_rms": level.log_rms,
        "z": level.z,
        "deviation": level.deviation,
        "evidence": _evidence(level.evidence),
    }


def _rate(rate_hz: float) -> float:
    """Return a rate as an integer when it is one: 48000, not 48000.0."""
    return int(rate_hz) if float(rate_hz).is_integer() else rate_hz


FIELDS: dict[Kind, Callable[[Any], dict[str, Any]]] = {
    "result": result_fields,
    "event": event_fields,
    "state": state_fields,
}
