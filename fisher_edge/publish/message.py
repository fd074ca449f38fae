"""What goes over MQTT: topics and JSON payloads. Start at `Topics` and `channel_message`.

Pure functions. Every payload is a JSON object with a `schema` field, except the one word on `…/status`.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np

from fisher_edge.errors import BadInputError
from fisher_edge.store import check_topic_level

__all__ = [
    "OFFLINE",
    "ONLINE",
    "Kind",
    "Topics",
    "channel_message",
    "encode",
    "info_message",
    "seconds",
    "with_replay",
]

ONLINE = b"online"
OFFLINE = b"offline"

Kind = Literal["result", "event", "state"]


@dataclass(frozen=True)
class Topics:
    """The topics of one gateway: `<root>/<gateway>/…`; the root may have several levels."""

    root: str
    gateway: str

    def __post_init__(self) -> None:
        for level in self.root.split("/"):
            check_topic_level("root", level)
        check_topic_level("gateway", self.gateway)

    @property
    def base(self) -> str:
        """Return what all topics of the gateway begin with."""
        return f"{self.root}/{self.gateway}"

    @property
    def status(self) -> str:
        """Return the topic of `online` and `offline` (retained, last will)."""
        return f"{self.base}/status"

    @property
    def info(self) -> str:
        """Return the topic of what the gateway is and runs (retained)."""
        return f"{self.base}/info"

    def state(self, asset: str, channel: str) -> str:
        """Return the topic of a channel's latest state (retained)."""
        return self.channel(asset, channel, "state")

    def result(self, asset: str, channel: str) -> str:
        """Return the topic of every window of a channel."""
        return self.channel(asset, channel, "result")

    def event(self, asset: str, channel: str) -> str:
        """Return the topic of a channel's alarm transitions."""
        return self.channel(asset, channel, "event")

    def channel(self, asset: str, channel: str, kind: Kind) -> str:
        """Return the topic of one kind of message of a channel."""
        check_topic_level("asset", asset)
        check_topic_level("channel", channel)
        return f"{self.base}/{asset}/{channel}/{kind}"


def seconds(stamp: str) -> float:
    """Read a time stamp (see `fisher_edge.dsp.blocks.rfc3339`) back as seconds since 1970 UTC."""
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def channel_message(
    kind: Kind,
    fields: Mapping[str, Any],
    *,
    gateway: str,
    asset: str,
    channel: str,
    boot: int,
    seq: int | None,
) -> dict[str, Any]:
    """Return the message of a result, an event or a state, without `replay`, which is set when it is sent.

    The identity (schema, names, boot, seq) goes before `fields` and wins over fields of the same name. NumPy values
    become plain ones; NaN is a BadInputError that names the field.
    """
    header = {
        "schema": f"fisher-edge/{kind}/1",
        "gateway": gateway,
        "asset": asset,
        "channel": channel,
        "boot": boot,
        "seq": seq,
    }
    own = {name: value for name, value in fields.items() if name not in header and name != "replay"}
    return {**header, **_plain(own, kind)}


def info_message(fields: Mapping[str, Any], *, gateway: str) -> dict[str, Any]:
    """Return the message that says what the gateway is and runs."""
    header = {"schema": "fisher-edge/info/1", "gateway": gateway}
    return {**header, **_plain({name: fields[name] for name in fields if name not in header}, "info")}


def encode(message: Mapping[str, Any]) -> bytes:
    """Write a message as compact UTF-8 JSON; NaN and infinity have no JSON form and are a BadInputError."""
    try:
        text = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise BadInputError(f"a message holds a number without a JSON form ({error}); write null instead") from error
    return text.encode()


def with_replay(payload: bytes, *, replay: bool) -> bytes:
    """Add the field `replay` to an encoded message."""
    return payload[:-1] + (b',"replay":true}' if replay else b',"replay":false}')


def _plain(value: Any, path: str) -> Any:
    """Return a value as JSON knows it; `path` names it in an error."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(item, f"{path}.{name}") for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise BadInputError(f"{path} is {value}, which has no JSON form; write null (None) instead")
    return value
