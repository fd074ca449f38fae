"""Topics, payloads and time stamps."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judgements import TIME_S, change, result, standing

from fisher_edge.decision.judgement import (
    AlarmMemory,
    Change,
    Evidence,
    Handling,
    Judgement,
    Level,
    ModelName,
    Nearest,
    Promise,
    Realised,
    Result,
    Standing,
    State,
)
from fisher_edge.errors import BadInputError
from fisher_edge.names import ChannelKey
from fisher_edge.publish.message import (
    Info,
    InfoChannel,
    Topics,
    info_message,
    result_message,
    rfc3339,
    seconds,
    wire,
)
from fisher_edge.store.body import DamagedRowError, Kind, encode, to_text
from fisher_edge.store.records import Row
from fisher_edge.store.schema import MESSAGE, NEUTRAL

TOPICS = Topics("plant/fisher-edge", "line-3")
KEY = ChannelKey("pump-1", "vib-de")
IDENTITY: dict[str, Any] = {"gateway": "line-3", "key": KEY, "boot": 7, "seq": 12, "replay": False}
ON_THE_WIRE = {"gateway": "line-3", "asset": "pump-1", "channel": "vib-de", "boot": 7, "seq": 12}
EVIDENCE = {
    "distance": 0.25,
    "score": 1.5,
    "evidence": {"sudden": 0.5, "persistent": 0.25, "drift": None, "warning": 0.75},
    "bands": [
        {"low_hz": 0.0, "high_hz": 1000.0, "share": 0.15, "unusual": 2.0},
        {"low_hz": 500.0, "high_hz": 1500.0, "share": 0.1, "unusual": -0.5},
    ],
    "nearest": {"baseline": 3, "recording": "normal-01.wav", "offset_s": 20.48, "time": "2026-01-30T09:30:00.250Z"},
    "fault": {"label": "outer race", "votes": 4, "k": 7},
    "level": {
        "log_rms": -1.5,
        "z": 0.5,
        "deviation": 0.25,
        "evidence": {"sudden": 0.25, "persistent": 0.125, "drift": None, "warning": 0.3},
    },
    "views": [{"name": "envelope-1000hz", "weight": 0.5, "z": 1.25}],
}


def row(kind: Kind, value: Any, dialect: int = NEUTRAL) -> Row:
    """Return a row that waits."""
    content = encode({kind: value})[kind] if dialect == NEUTRAL else value
    return Row(kind, 1, KEY, 7, 12, 0.0, dialect, content)


def message(kind: Kind, value: Any, *, replay: bool = False) -> dict[str, Any]:
    """Return the message that is published of a value."""
    decoded: dict[str, Any] = json.loads(wire(row(kind, value), TOPICS, replay=replay).payload)
    return decoded


def test_topics_of_a_gateway() -> None:
    """Topics follow the table of the MQTT interface, under a root of one or more levels."""
    assert TOPICS.status == "plant/fisher-edge/line-3/status"
    assert TOPICS.info == "plant/fisher-edge/line-3/info"
    assert TOPICS.channel(KEY, "state") == "plant/fisher-edge/line-3/pump-1/vib-de/state"


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "$SYS", "a\nb"])
def test_names_that_break_a_topic_are_refused(name: str) -> None:
    """A name that is no single topic level is never published."""
    with pytest.raises(BadInputError, match="gateway name"):
        Topics("fisher-edge", name)
    with pytest.raises(BadInputError, match="asset name"):
        TOPICS.channel(ChannelKey(name, "vib-de"), "result")
    with pytest.raises(BadInputError, match="channel name"):
        TOPICS.channel(ChannelKey("pump-1", name), "state")


@pytest.mark.parametrize("root", ["", "/plant", "plant/", "pl#ant"])
def test_roots_with_a_bad_level_are_refused(root: str) -> None:
    """Every level of the root is checked."""
    with pytest.raises(BadInputError, match="root name"):
        Topics(root, "line-3")


@given(st.floats(0, 4e9))
def test_seconds_reads_a_time_stamp_back(time_s: float) -> None:
    """A time stamp keeps the time to a millisecond."""
    assert abs(seconds(rfc3339(time_s)) - time_s) < 0.0011


@pytest.mark.parametrize("time_s", [math.nan, math.inf, 1.8e12, -1e18])
def test_time_that_cannot_be_written_is_one_line(time_s: float) -> None:
    """Milliseconds taken for seconds are an error with the value."""
    with pytest.raises(BadInputError, match="not a time in seconds"):
        rfc3339(time_s)


def test_result_has_every_documented_field() -> None:
    """A result of a window that was judged."""
    assert result_message(replace(result(), skipped=2), **IDENTITY) == {
        "schema": "fisher-edge/result/2",
        **ON_THE_WIRE,
        "time": "2026-01-31T09:30:00.250Z",
        "window_s": 10.24,
        "rate_hz": 48000,
        "unit": "g",
        "state": "normal",
        "skipped": 2,
        "operating_state": "running",
        **EVIDENCE,
        "features": {"rms": 0.25, "peak": 1.0, "crest": 4.0, "kurtosis": 3.0},
        "baseline": {"version": 3, "windows": 420},
        "promise": None,
        "model": {"name": "fisher-mini", "sha256": "ab" * 32},
        "latency_ms": 12.5,
        "replay": False,
    }


def test_result_that_was_not_judged_says_why() -> None:
    """Without trust in the sensor there is a reason, and null where nothing was found."""
    found = Judgement(TIME_S, 10.24, 48000, ModelName("fisher-mini", "ab" * 32), distrust="flat line")
    unjudged = result_message(Result(found, State.CHECK_FUNCTION, "g"), **IDENTITY)
    assert unjudged["reason"] == "flat line"
    assert (unjudged["state"], unjudged["features"], unjudged["bands"]) == ("check_function", {}, [])
    assert [unjudged[name] for name in ("distance", "evidence", "level", "nearest", "fault", "baseline")] == [None] * 6
    assert (
        result_message(Result(found, State.CHECK_FUNCTION, "g", "fell behind"), **IDENTITY)["reason"] == "fell behind"
    )
    assert "reason" not in result_message(result(), **IDENTITY)
    assert result_message(result(unjudged="nothing is enrolled"), **IDENTITY)["reason"] == "nothing is enrolled"


def test_level_without_a_baseline_has_its_value_only() -> None:
    """Nothing is enrolled: the level is measured and compared with nothing."""
    assert result_message(result(level=Level(-1.5)), **IDENTITY)["level"] == {"log_rms": -1.5}


def test_nearest_recording_of_unknown_time() -> None:
    """A recording that does not say when it was made has no time."""
    nearest = result_message(result(nearest=Nearest(3, "a.wav", 1.0, None)), **IDENTITY)["nearest"]
    assert nearest == {"baseline": 3, "recording": "a.wav", "offset_s": 1.0, "time": None}


def test_rate_that_is_no_integer_stays_a_fraction() -> None:
    """3906.25 Hz is not 3906 Hz; a whole rate is written as an integer."""
    assert result_message(result(rate_hz=15625 / 4), **IDENTITY)["rate_hz"] == 3906.25
    assert '"rate_hz":48000,' in to_text(result_message(result(rate_hz=48000.0), **IDENTITY)).decode()


def test_event_has_what_led_to_it() -> None:
    """A change of state with the judgement, and one that no window led to."""
    header = {
        "schema": "fisher-edge/event/2",
        **ON_THE_WIRE,
        "time": "2026-01-31T09:30:00.250Z",
        "before": "normal",
        "after": "alarm",
        "reason": "shape at 1.5 times its limit",
        "kind": "sudden",
    }
    assert message("event", change()) == {
        **header,
        "operating_state": "running",
        **EVIDENCE,
        "replay": False,
    }
    assert message("event", change(judgement=None)) == {**header, "replay": False}


def test_state_says_since_when_and_how_the_channel_fares() -> None:
    """The latest state, with a window behind it and without."""
    assert message("state", standing(gaps=3, dropped=2, real_rate_hz=47990.5)) == {
        "schema": "fisher-edge/state/2",
        **ON_THE_WIRE,
        "time": "2026-01-31T09:30:00.250Z",
        "state": "normal",
        "since": "2026-01-31T09:29:00.250Z",
        "unit": "g",
        "gaps": 3,
        "dropped": 2,
        "real_rate_hz": 47990.5,
        "severity": "normal",
        "unseen": "normal",
        "acknowledged": False,
        "cause": None,
        "shelved_until": None,
        "promise": None,
        **{name: EVIDENCE[name] for name in ("distance", "score", "evidence", "level")},
        "replay": False,
    }
    silent = message("state", Standing(TIME_S, State.NO_DATA, TIME_S, "no data for 10 s", unit="g"))
    assert (silent["state"], silent["reason"]) == ("no_data", "no data for 10 s")
    assert not {"distance", "level"} & set(silent)


def test_state_says_what_is_known_of_the_alarm() -> None:
    """Severity, acknowledgement and shelving stand beside the state, whatever that is."""
    alarm = AlarmMemory(State.ALARM, acknowledged=True, shelved_until_s=TIME_S)
    said = message("state", standing(state=State.NO_DATA, alarm=alarm))
    assert {name: said[name] for name in ("state", "severity", "acknowledged", "shelved_until")} == {
        "state": "no_data",
        "severity": "alarm",
        "acknowledged": True,
        "shelved_until": "2026-01-31T09:30:00.250Z",
    }


def test_event_says_who_did_what() -> None:
    """An acknowledgement has cause and note, a shelving its end."""
    kept = Change(TIME_S, State.ALARM, State.ALARM, "r", "acknowledged", None, Handling("maria", "inner race", "seen"))
    assert message("event", kept)["handling"] == {"by": "maria", "cause": "inner race", "note": "seen"}
    shelved = replace(kept, kind="shelved", handling=Handling(until_s=TIME_S))
    assert message("event", shelved)["handling"]["until"] == "2026-01-31T09:30:00.250Z"
    assert "handling" not in message("event", replace(kept, handling=None))


def test_promise_stands_beside_what_came_of_it() -> None:
    """Results and states say how many false alarms were promised, and how many alarms came."""
    promise = Promise(1.0, 0.1, (0.3, 3.0), (0.01, 0.3))
    realised = Realised(3, 0.0, promise, days=2.5, warnings=2, alarms=1, confirmed=1, refuted=0)
    expected = {
        "warning_per_day": 1.0,
        "alarm_per_day": 0.1,
        "warning_interval": [0.3, 3.0],
        "alarm_interval": [0.01, 0.3],
        "days": 2.5,
        "warnings": 2,
        "alarms": 1,
        "confirmed": 1,
        "refuted": 0,
    }
    assert message("result", replace(result(), realised=realised))["promise"] == expected
    assert message("state", standing(realised=realised))["promise"] == expected


def test_numbers_are_rounded_to_seven_digits() -> None:
    """No message carries digits that mean nothing."""
    value = result(distance=1 / 3, score=200 / 3, evidence=Evidence(sudden=10 / 9))
    for published in (result_message(value, **IDENTITY), message("result", value)):
        assert (published["distance"], published["score"], published["evidence"]["sudden"]) == (
            0.3333333,
            66.66667,
            1.111111,
        )


def test_numpy_values_become_plain_ones() -> None:
    """A judgement that holds NumPy scalars is published like any other."""
    published = result_message(result(distance=np.float32(0.25), rate_hz=np.int64(48000)), **IDENTITY)
    assert json.loads(to_text(published)) == result_message(result(), **IDENTITY)


@pytest.mark.parametrize("bad", [math.nan, math.inf, np.float32("nan")])
def test_number_that_is_not_finite_is_named(bad: float) -> None:
    """A number without a JSON form is refused with the path to it."""
    with pytest.raises(BadInputError, match=r"result\.level\.z is (nan|inf)"):
        result_message(result(level=replace(Level(0.0, 0.0, 0.0), z=bad)), **IDENTITY)


def test_text_is_compact_utf8() -> None:
    """The wire form has no blanks and no escapes; a file name that is no Unicode is published all the same."""
    assert to_text({"asset": "Kühlpumpe", "n": [1, 2]}) == '{"asset":"Kühlpumpe","n":[1,2]}'.encode()
    assert to_text({"recording": "\udcff.wav"}) == b'{"recording":"?.wav"}'


@pytest.mark.parametrize("replay", [True, False])
def test_wire_of_each_kind(replay: bool) -> None:
    """A row becomes the message of its kind on its topic; states are retained."""
    values: dict[Kind, Any] = {"result": result(), "event": change(), "state": standing()}
    for kind, value in values.items():
        published = wire(row(kind, value), TOPICS, replay=replay)
        fields = json.loads(published.payload)
        assert published.topic == f"plant/fisher-edge/line-3/pump-1/vib-de/{kind}"
        assert {name: fields[name] for name in ON_THE_WIRE} == ON_THE_WIRE
        assert (fields["schema"], fields["replay"]) == (f"fisher-edge/{kind}/2", replay)
        assert published.retain == (kind == "state")
    assert message("result", result()) == result_message(result(), **IDENTITY)


@pytest.mark.parametrize("replay", [True, False])
def test_message_of_an_earlier_release_is_sent_as_it_is(replay: bool) -> None:
    """A finished message gets `replay` and nothing else; it is not written again."""
    published = wire(row("event", b'{"schema":"fisher-edge/event/1", "seq":1}', MESSAGE), TOPICS, replay=replay)
    word = b"true" if replay else b"false"
    assert published.payload == b'{"schema":"fisher-edge/event/1", "seq":1,"replay":' + word + b"}"


def test_row_that_was_judged_by_thresholds_is_published_without_evidence() -> None:
    """A row of a release before that waits is a message of today with null where nothing is known."""
    body = (
        b'{"time_s":1769851800.25,"before":"normal","after":"alarm","reason":"far off","judgement":{"time_s":1.5,'
        b'"window_s":1.0,"rate_hz":8000,"model":{"name":"nano","sha256":"ab"},"distance":0.25,"threshold":0.5,'
        b'"level":{"log_rms":-1.5,"z":0.5,"deviation":0.25,"threshold":0.75}}}'
    )
    fields = json.loads(wire(replace(row("event", change()), body=body), TOPICS, replay=True).payload)
    assert (fields["schema"], fields["after"], fields["kind"]) == ("fisher-edge/event/2", "alarm", None)
    assert (fields["distance"], fields["score"], fields["evidence"]) == (0.25, None, None)
    assert fields["level"] == {"log_rms": -1.5, "z": 0.5, "deviation": 0.25, "evidence": None}


def test_empty_state_clears_the_retained_one() -> None:
    """The state of a channel that is no longer configured is an empty retained message."""
    published = wire(replace(row("state", standing()), body=b""), TOPICS, replay=True)
    assert (published.payload, published.retain) == (b"", True)


@pytest.mark.parametrize(
    "damaged",
    [
        replace(row("result", result()), body=b"garbage"),
        replace(row("result", result()), dialect=MESSAGE, body=b"garbage"),
        replace(row("result", result()), key=ChannelKey("a/b", "c")),
        row("state", standing(since_s=1.8e12)),
    ],
)
def test_row_that_cannot_be_a_message_is_an_error_of_its_own(damaged: Row) -> None:
    """Whatever is wrong with a row, it is an error that concerns this row only."""
    with pytest.raises(DamagedRowError):
        wire(damaged, TOPICS, replay=False)


def test_info_message_names_the_gateway_what_it_runs_and_its_channels() -> None:
    """The info has its schema, versions, provider, and of each channel what it is and what judges it."""
    channel = InfoChannel(ChannelKey("pump-1", "vib-de"), "g", 10.56, 3)
    assert info_message(Info("1.0", "nano", "ab", "cpu", (channel,)), gateway="line-3") == {
        "schema": "fisher-edge/info/1",
        "gateway": "line-3",
        "version": "1.0",
        "model": {"name": "nano", "sha256": "ab"},
        "provider": "cpu",
        "channels": [{"asset": "pump-1", "channel": "vib-de", "unit": "g", "window_s": 10.56, "baseline": 3}],
    }


def test_model_name_is_a_plain_object() -> None:
    """Nested values are written by their fields."""
    assert result_message(result(model=ModelName("a", "b")), **IDENTITY)["model"] == {"name": "a", "sha256": "b"}
