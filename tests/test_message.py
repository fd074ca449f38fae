"""Topics, payloads and time stamps."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fisher_edge.dsp.blocks import rfc3339
from fisher_edge.errors import BadInputError
from fisher_edge.publish.message import (
    Topics,
    channel_message,
    encode,
    info_message,
    seconds,
    with_replay,
)

TOPICS = Topics("plant/fisher-edge", "line-3")
IDENTITY = {"gateway": "line-3", "asset": "pump-1", "channel": "vib-de", "boot": 7, "seq": 12}


def message(**fields: Any) -> dict[str, Any]:
    """Build a result with the given fields."""
    return channel_message("result", fields, gateway="line-3", asset="pump-1", channel="vib-de", boot=7, seq=12)


def test_topics_of_a_gateway() -> None:
    """Topics follow the table of the MQTT interface, under a root of one or more levels."""
    assert TOPICS.status == "plant/fisher-edge/line-3/status"
    assert TOPICS.info == "plant/fisher-edge/line-3/info"
    assert TOPICS.state("pump-1", "vib-de") == "plant/fisher-edge/line-3/pump-1/vib-de/state"
    assert TOPICS.result("pump-1", "vib-de") == "plant/fisher-edge/line-3/pump-1/vib-de/result"
    assert TOPICS.event("pump-1", "vib-de") == "plant/fisher-edge/line-3/pump-1/vib-de/event"


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "$SYS", "a\nb"])
def test_names_that_break_a_topic_are_refused(name: str) -> None:
    """A name that is no single topic level never reaches the outbox."""
    with pytest.raises(BadInputError, match="gateway name"):
        Topics("fisher-edge", name)
    with pytest.raises(BadInputError, match="asset name"):
        TOPICS.result(name, "vib-de")
    with pytest.raises(BadInputError, match="channel name"):
        TOPICS.state("pump-1", name)


@pytest.mark.parametrize("root", ["", "/plant", "plant/", "pl#ant"])
def test_roots_with_a_bad_level_are_refused(root: str) -> None:
    """Every level of the root is checked."""
    with pytest.raises(BadInputError, match="root name"):
        Topics(root, "line-3")


@given(st.floats(0, 4e9))
def test_seconds_reads_a_time_stamp_back(time_s: float) -> None:
    """A time stamp keeps the time to a millisecond."""
    assert abs(seconds(rfc3339(time_s)) - time_s) < 0.0011


def test_message_has_identity_and_fields() -> None:
    """Identity comes first and is not overwritten by fields of the same name; `replay` waits for the sending."""
    built = message(time="2026-01-31T09:30:00.250Z", distance=0.25, seq=None, gateway="other", replay=None)
    assert built == {
        "schema": "fisher-edge/result/1",
        **IDENTITY,
        "time": "2026-01-31T09:30:00.250Z",
        "distance": 0.25,
    }
    assert next(iter(built)) == "schema"


def test_message_turns_numpy_values_into_plain_ones() -> None:
    """NumPy scalars and arrays may stand anywhere in the fields."""
    built = message(
        distance=np.float32(0.25),
        bands=[{"low_hz": np.int64(10), "share": np.float32(0.5)}],
        features={"rms": np.array([1.0, 2.0])},
        fault=None,
    )
    assert built["distance"] == 0.25
    assert built["bands"] == [{"low_hz": 10, "share": 0.5}]
    assert built["features"] == {"rms": [1.0, 2.0]}
    assert json.loads(encode(built)) == built


@pytest.mark.parametrize("bad", [math.nan, math.inf, np.float32("nan"), np.array([1.0, math.nan])])
def test_message_refuses_nan_and_names_the_field(bad: Any) -> None:
    """A number without a JSON form is refused with the path to it."""
    with pytest.raises(BadInputError, match=r"result\.bands\[1\]\.share.* is (nan|inf)"):
        message(bands=[{"share": 0.5}, {"share": bad}])


def test_encode_is_compact_utf8_and_refuses_nan() -> None:
    """The wire form has no blanks and no escapes, and the encoder itself lets no NaN through."""
    assert encode({"asset": "Kühlpumpe", "n": [1, 2]}) == '{"asset":"Kühlpumpe","n":[1,2]}'.encode()
    with pytest.raises(BadInputError, match="null"):
        encode({"distance": math.nan})


@pytest.mark.parametrize("replay", [True, False])
def test_with_replay_adds_the_field(replay: bool) -> None:
    """The flag is added to the encoded message without decoding it."""
    built = message(distance=0.25)
    assert json.loads(with_replay(encode(built), replay=replay)) == {**built, "replay": replay}


def test_info_message_has_schema_and_gateway() -> None:
    """The info names its schema and its gateway."""
    assert info_message({"version": "1.0", "gateway": "x"}, gateway="line-3") == {
        "schema": "fisher-edge/info/1",
        "gateway": "line-3",
        "version": "1.0",
    }
