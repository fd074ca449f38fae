"""The tables of the configuration file as frozen models; `Config` is the whole file.

The descriptions are what editors show, and what docs/configuration.md says.
"""

import re
import socket
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_serializer,
    model_serializer,
    model_validator,
)

from fisher_edge.config.plugins import keys_schema, source_function, source_types
from fisher_edge.config.redact import redacted
from fisher_edge.errors import BadInputError, FisherEdgeError
from fisher_edge.names import MAX_NAME, ChannelKey, check_name, check_root

__all__ = [
    "BURST_WINDOW_S",
    "TABLES",
    "AlarmConfig",
    "AudioConfig",
    "ChannelAlarmConfig",
    "ChannelConfig",
    "Config",
    "GatewayConfig",
    "HistoryConfig",
    "ModelConfig",
    "MqttConfig",
    "SourceConfig",
]

BASE_DIR = "base_dir"
STATE_DIR = "state"
# Seconds of signal in a window of bursts where none are chosen: one piece of the default model.
BURST_WINDOW_S = 0.96
LONGEST_HOST = 253
LARGEST_SECRET = 1 << 20


def _default_name() -> str:
    """Return the name of this host, made valid for one level of a topic."""
    return re.sub(r"[^\w.-]", "-", socket.gethostname())[:MAX_NAME] or "gateway"


def _level(name: str) -> str:
    try:
        return check_name("the", name)
    except BadInputError as error:
        raise ValueError(str(error)) from error


def _root(name: str) -> str:
    try:
        return check_root(name)
    except BadInputError as error:
        raise ValueError(str(error)) from error


def _absolute(path: Path, info: ValidationInfo) -> Path:
    """Let a relative path count from the folder of the file."""
    if "\0" in str(path):
        raise ValueError("no path has a zero byte; correct it")
    return _folder(info.context) / path


def _bundle(name: str, info: ValidationInfo) -> str:
    return name if name == "default" else str(_folder(info.context) / name)


def _folder(context: Any) -> Path:
    """Return the folder of the file; without a file paths stay as they are."""
    return context[BASE_DIR] if context else Path()


def _small_file(path: Path) -> Path:
    """Refuse what is there and cannot be read to its end: a pipe would wait, a device never ends.

    Whether a missing file matters is known only to whoever needs it.
    """
    try:
        if not path.exists() or (path.is_file() and path.stat().st_size <= LARGEST_SECRET):
            return path
    except OSError:  # a folder that this user may not enter
        return path
    raise ValueError(f"{path} is not a small file; give the path of a text file")


def _url(url: str) -> str:
    """Refuse a host that no name server takes; everything else about the URL is found where it is used."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return url
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ValueError("a part of the host's name is empty or longer than 63 letters; correct the URL") from error
    if len(host) > LONGEST_HOST:
        raise ValueError(f"the host's name is longer than {LONGEST_HOST} letters; correct the URL")
    return url


Level = Annotated[str, AfterValidator(_level)]
OwnPath = Annotated[Path, AfterValidator(_absolute)]
SecretFile = Annotated[OwnPath, AfterValidator(_small_file)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Megabytes = Annotated[float, Field(ge=1)]


class _Table(BaseModel):
    """A table of the file: unknown keys are errors, values do not change, no text shows a secret."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, redacted(value, name or "")


class GatewayConfig(_Table):
    """`[gateway]`: who this gateway is and where it keeps its state."""

    name: Level = Field(
        default_factory=_default_name,
        description="Name of the gateway, one level of its topics and unique on its broker. Default: the host name.",
    )
    state_dir: OwnPath = Field(
        default=Path(STATE_DIR),
        description="Folder for baselines, history and messages that wait for the broker.",
    )


class ModelConfig(_Table):
    """`[model]`: the encoder, and how the signal is cut into windows."""

    bundle: Annotated[str, AfterValidator(_bundle)] = Field(
        default="default", description='Folder of the model bundle, or "default" for the one that is installed.'
    )
    provider: str = Field(
        default="auto",
        min_length=1,
        description='What runs the model: "auto" (the best there is), "cpu", or another provider of this build. One '
        "that this build does not have is refused at the start.",
    )
    window_s: Positive = Field(
        default=10.24,
        description="Seconds of signal that are judged together, as enrolled: rounded to whole pieces of the model, "
        "0.96 s each for the default one. A shorter window is one piece of its own length.",
    )
    hop_s: Positive | None = Field(
        default=None,
        description="Seconds from one window to the next. Default: a quarter of the window, at most 2 seconds.",
    )


class MqttConfig(_Table):
    """`[mqtt]`: the broker, and the messages that wait for it."""

    url: Annotated[str, AfterValidator(_url)] = Field(
        default="embedded",
        description='mqtt://[USER@]HOST[:PORT], mqtts:// for TLS, or "embedded" for a broker inside the gateway.',
    )
    root: Annotated[str, AfterValidator(_root)] = Field(
        default="fisher-edge", description="Root of the topics: ROOT/GATEWAY/ASSET/CHANNEL/..."
    )
    password_file: SecretFile | None = Field(default=None, description="File that holds the password of the user.")
    ca_file: SecretFile | None = Field(
        default=None,
        description="PEM file of the authority that signed the broker's certificate. Default: those of the system.",
    )
    embedded_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=1883, description="Port of the embedded broker; 0 takes a free one."
    )
    outbox_mb: Megabytes = Field(default=256, description="Megabytes of messages that may wait for the broker.")
    outbox_days: Positive = Field(default=30, description="Days of running time that a result may wait for the broker.")

    @field_serializer("url")
    def _without_password(self, url: str) -> Any:
        return redacted(url)


class AlarmConfig(_Table):
    """`[alarm]`: how many false alarms a day are acceptable, and how fast the state follows the evidence."""

    warning_per_day: Positive = Field(default=1.0, description="False warnings a day that are acceptable.")
    alarm_per_day: Positive = Field(
        default=0.1,
        description="False alarms a day that are acceptable, shape and level together; at most warning_per_day.",
    )
    delay_s: NotNegative = Field(
        default=0.0, description="Seconds that evidence must stay beyond its limit before the state rises."
    )
    hold_s: NotNegative = Field(
        default=10.0, description="Seconds that evidence must stay clearly below its limit before the state falls."
    )
    latch: bool = Field(
        default=False, description="Whether a warning or an alarm stays until it is acknowledged, however quiet it is."
    )

    @model_validator(mode="after")
    def _possible(self) -> "AlarmConfig":
        """Refuse an alarm that comes before its warning."""
        if self.warning_per_day < self.alarm_per_day:
            raise ValueError(
                f"warning_per_day = {self.warning_per_day:g} is below alarm_per_day = {self.alarm_per_day:g}: alarms "
                "would come before warnings; raise warning_per_day or lower alarm_per_day"
            )
        return self


class ChannelAlarmConfig(_Table):
    """`alarm` of a channel: what differs from `[alarm]` of the gateway."""

    warning_per_day: Positive | None = Field(default=None, description="Overrides warning_per_day of [alarm].")
    alarm_per_day: Positive | None = Field(default=None, description="Overrides alarm_per_day of [alarm].")
    delay_s: NotNegative | None = Field(default=None, description="Overrides delay_s of [alarm].")
    hold_s: NotNegative | None = Field(default=None, description="Overrides hold_s of [alarm].")
    latch: bool | None = Field(default=None, description="Overrides latch of [alarm].")


class HistoryConfig(_Table):
    """`[history]`: results kept on disk after they are delivered, for trends."""

    mb: Megabytes = Field(default=256, description="Megabytes of results that are kept; the oldest leave first.")
    days: Positive = Field(default=90, description="Days that a result is kept.")


class AudioConfig(_Table):
    """`[audio]`: recordings kept on disk."""

    enrollment_mb: Annotated[float, Field(ge=0)] = Field(
        default=256,
        description="Megabytes of recordings of enrollments that are kept, so that a new model can learn from them; 0 "
        "keeps none.",
    )


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

    type: str = Field(description="Type of the source: recording, serial, simulator or one of another package.")

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


class OperatingStateConfig(_Table):
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


class ChannelConfig(_Table):
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
        default=None, description="RMS, in the unit of the channel, below which the machine stands and is not judged."
    )
    alarm: ChannelAlarmConfig = Field(
        default=ChannelAlarmConfig(), description="Alarm settings of this channel; what is left out is that of [alarm]."
    )

    @property
    def key(self) -> ChannelKey:
        """Asset and name."""
        return ChannelKey(self.asset, self.name)


class Config(_Table):
    """The whole file."""

    gateway: GatewayConfig = Field(
        default_factory=GatewayConfig, description="Who this gateway is and where it keeps its state."
    )
    model: ModelConfig = Field(
        default=ModelConfig(), description="The encoder, and how the signal is cut into windows."
    )
    mqtt: MqttConfig = Field(default=MqttConfig(), description="The broker, and the messages that wait for it.")
    alarm: AlarmConfig = Field(default=AlarmConfig(), description="When a channel is in warning or in alarm.")
    history: HistoryConfig = Field(default=HistoryConfig(), description="Results kept on disk for trends.")
    audio: AudioConfig = Field(default=AudioConfig(), description="Recordings kept on disk.")
    channel: tuple[ChannelConfig, ...] = Field(min_length=1, description="One table [[channel]] for each sensor.")

    _base_dir: Path = PrivateAttr(default=Path())

    def model_post_init(self, context: Any) -> None:
        """Remember the folder of the file."""
        self._base_dir = _folder(context)

    @property
    def base_dir(self) -> Path:
        """Folder of the file, from which relative paths of the sources count."""
        return self._base_dir

    def lengths_of(self, channel: ChannelConfig) -> tuple[float, float | None]:
        """Return window and hop of a channel in seconds of signal: its own, and for the rest those of `[model]`."""
        if channel.bursts:
            return channel.window_s or BURST_WINDOW_S, channel.hop_s
        return channel.window_s or self.model.window_s, channel.hop_s or self.model.hop_s

    def alarm_of(self, channel: ChannelConfig) -> AlarmConfig:
        """Return the alarm settings of a channel: its own, and for the rest those of `[alarm]`."""
        return AlarmConfig(**(self.alarm.model_dump() | channel.alarm.model_dump(exclude_none=True)))

    @model_validator(mode="after")
    def _channels_fit(self) -> "Config":
        """Refuse two channels of one name, and settings that contradict those they are added to."""
        seen = set()
        for number, channel in enumerate(self.channel, 1):
            if channel.key in seen:
                raise ValueError(f"channel {channel.key} is there twice; rename one")
            seen.add(channel.key)
            _check_bursts(channel)
            window_s, hop_s = self.lengths_of(channel)
            if hop_s is not None and hop_s > window_s:
                raise ValueError(
                    f"channel {channel.key}: hop_s = {hop_s:g} is above window_s = {window_s:g}, so that part of the "
                    "signal is never looked at; choose hop_s up to window_s"
                )
            try:
                self.alarm_of(channel)
            except ValidationError as error:
                text = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"[[channel]] {number}, alarm together with [alarm]: {text}") from error
        return self


def _check_bursts(channel: ChannelConfig) -> None:
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


# Tables by the key under which they stand; "" is the file itself.
TABLES: dict[str, type[BaseModel]] = {
    "": Config,
    "gateway": GatewayConfig,
    "model": ModelConfig,
    "mqtt": MqttConfig,
    "alarm": AlarmConfig,
    "history": HistoryConfig,
    "audio": AudioConfig,
    "channel": ChannelConfig,
    "operating_state": OperatingStateConfig,
}
