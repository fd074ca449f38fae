"""The table of a channel in the configuration file: its source, windows, alarm settings and operating state."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from fisher_edge.config.fields import Level, NotNegative, Positive, Table
from fisher_edge.config.plugins import keys_schema, source_function, source_types
from fisher_edge.config.redact import redacted
from fisher_edge.errors import FisherEdgeError
from fisher_edge.names import ChannelKey

__all__ = ["ChannelAlarmConfig", "ChannelConfig", "OperatingStateConfig", "SourceConfig", "check_bursts"]


class ChannelAlarmConfig(Table):
    """`alarm` of a channel: what differs from `[alarm]` of the gateway."""

    warning_per_day: Positive | None = Field(default=None, description="Overrides warning_per_day of [alarm].")
    alarm_per_day: Positive | None = Field(default=None, description="Overrides alarm_per_day of [alarm].")
    delay_s: NotNegative | None = Field(default=None, description="Overrides delay_s of [alarm].")
    hold_s: NotNegative | None = Field(default=None, description="Overrides hold_s of [alarm].")
    latch: bool | None = Field(default=None, description="Overrides latch of [alarm].")


def _describe_types(schema: dict[str, Any]) -> None:
    """Add the installed types of sources and their keys to the schema, without refusing others."""
    cases = []
    for name in (types := source_types()):
        try:
            keys = keys_schema(source_function(name))
        except FisherEdgeError:  # its packages are not installed: editors know its name, not its keys
            continue
        cases.append({"if": {"properties": {"type": {"const": name}}}, "then": keys})
    schema["properties"]["type"]["anyOf"] = [{"enum": list(types)}, {"type": "string"}]
    schema["allOf"] = cases


class SourceConfig(BaseModel):
    """`source` of a channel: where its samples come from. Its keys are those of its type."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        json_schema_extra=_describe_types,
    )

    type: str = Field(description="Type of the source: recording, bursts, serial, simulator or one of another package.")

    @property
    def options(self) -> dict[str, Any]:
        """Keys of the table besides `type`, with their secrets: do not show them."""
        return dict(self.model_extra or {})

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, redacted(value, name or "")

    @model_serializer(mode="wrap")
    def _without_secrets(self, serialize: SerializerFunctionWrapHandler) -> Any:
        return redacted(serialize(self))


class OperatingStateConfig(Table):
    """`operating_state` of a channel: where the operating state of the machine comes from."""

    name: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Name of the state, where it never changes; else give a topic."
    )
    topic: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="MQTT topic, without wildcards, of the broker in [mqtt], where it is sent: text, a number or JSON.",
    )
    field: str = Field(default="", description="Key of the JSON object that is sent there; a.b is b within a.")
    states: dict[str, tuple[float, float]] = Field(
        default={},
        description="States of a number, each with its range: { slow = [300, 900], fast = [900, 3000] } takes 900 as "
        "fast. Outside of all of them nothing is judged. Default: what is sent is the name of the state.",
    )
    max_age_s: Positive | None = Field(
        default=None, description="Seconds after which what was sent counts no more. Default: it counts until the next."
    )

    @model_validator(mode="after")
    def _possible(self) -> "OperatingStateConfig":
        """Refuse topics of several machines, ranges that are empty and states that cannot be told apart."""
        if (self.name is None) == (self.topic is None):
            raise ValueError("give either name, a state that never changes, or topic, where it is sent")
        if set(self.topic or "") & set("+#\0"):
            raise ValueError(f"topic = {self.topic!r} has a wildcard; give one topic")
        ordered = sorted(self.states.items(), key=lambda item: item[1])
        for name, (low, high) in ordered:
            if not (name.strip() and name.isprintable() and low < high):
                raise ValueError(
                    f"states, {name!r} = [{low:g}, {high:g}]: give a name and two numbers, the lower first"
                )
        for (one, (_, high)), (other, (low, _)) in pairwise(ordered):
            if low < high:
                raise ValueError(f"states {one!r} and {other!r} overlap; let the one end where the other begins")
        return self


class ChannelConfig(Table):
    """`[[channel]]`: one sensor of one asset."""

    asset: Level = Field(description="Name of the machine, one level of the topics.")
    name: Level = Field(description="Name of the sensor on this machine, one level of the topics.")
    unit: str = Field(default="", description="Unit of the samples after scaling, as it is shown: g, Pa, A.")
    scale: Positive = Field(default=1.0, description="Factor from what the source delivers to the unit.")
    source: SourceConfig = Field(description='Where the samples come from: { type = "...", and the keys of the type }.')
    other_rate_hz: Positive | None = Field(
        default=None,
        description="Rate of the sensor in Hz where the channel is enrolled at another one, as after a replacement: it "
        "is judged by the frequency bands that both rates have. Without it another rate is check_function.",
    )
    bursts: bool = Field(
        default=False,
        description="Whether the sensor sends bursts with silence between them, as battery sensors do: windows join "
        "the frames of consecutive bursts. The channel is enrolled with --bursts and needs no_data_s.",
    )
    burst_max_gap_s: Positive | None = Field(
        default=None,
        description="Longest silence in seconds across which bursts are joined; a longer one begins a new window. "
        "Default: any.",
    )
    window_s: Positive | None = Field(
        default=None,
        description="Overrides window_s of [model]. With bursts: seconds of signal without the silence, 0.96 by "
        "default, whatever [model] says.",
    )
    hop_s: Positive | None = Field(
        default=None, description="Overrides hop_s of [model]. With bursts: a quarter of the window by default."
    )
    no_data_s: Positive | None = Field(
        default=None,
        description="Seconds without a judged window after which the state is no_data. Default: three windows and a "
        "hop, at least 30 seconds. With bursts there is none, it depends on how often they come.",
    )
    operating_state: OperatingStateConfig | None = Field(
        default=None,
        description="Operating state of the machine, one of those given with enroll --state, where it is known. "
        "Default: a window belongs to the state it is nearest to.",
    )
    idle_below: Positive | None = Field(
        default=None,
        description="RMS, in the unit of the channel, below which the machine stands: such windows are not judged, nor "
        "those in which it was started or stopped.",
    )
    alarm: ChannelAlarmConfig = Field(
        default=ChannelAlarmConfig(), description="Alarm settings of this channel; what is left out is that of [alarm]."
    )

    @property
    def key(self) -> ChannelKey:
        """Asset and name."""
        return ChannelKey(self.asset, self.name)


def check_bursts(channel: ChannelConfig) -> None:
    """Refuse bursts of which nobody says how long a silence is normal, and their settings without them."""
    if channel.bursts and channel.no_data_s is None:
        raise ValueError(
            f"channel {channel.key}: bursts = true needs no_data_s, the longest normal time without a result; a window "
            "of 0.96 s takes 12 bursts of 0.1 s: set no_data_s to 30 times the time between bursts, for example"
        )
    if channel.bursts and channel.other_rate_hz is not None:
        raise ValueError(
            f"channel {channel.key}: bursts of another rate than the enrolled one cannot be judged; leave "
            "other_rate_hz out and enroll bursts of this sensor"
        )
    if channel.burst_max_gap_s is not None and not channel.bursts:
        raise ValueError(f"channel {channel.key}: burst_max_gap_s is for bursts; add bursts = true or leave it out")
