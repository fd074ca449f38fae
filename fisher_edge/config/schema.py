"""The tables of the configuration file as frozen models; `Config` is the whole file.

The descriptions are what editors show, and what docs/configuration.md says.
"""

import re
import socket
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    Field,
    PrivateAttr,
    ValidationError,
    field_serializer,
    model_validator,
)

from fisher_edge.config.channel import ChannelConfig, OperatingStateConfig, check_bursts
from fisher_edge.config.fields import (
    BundleName,
    Level,
    Megabytes,
    NotNegative,
    OwnPath,
    Positive,
    Root,
    SecretFile,
    Table,
    Url,
    folder,
)
from fisher_edge.config.redact import redacted
from fisher_edge.names import MAX_NAME

__all__ = [
    "BURST_WINDOW_S",
    "TABLES",
    "AlarmConfig",
    "AudioConfig",
    "Config",
    "GatewayConfig",
    "HistoryConfig",
    "ModelConfig",
    "MqttConfig",
]

STATE_DIR = "state"
# Seconds of signal in a window of bursts where none are chosen: one piece of the default model.
BURST_WINDOW_S = 0.96


def _default_name() -> str:
    """Return the name of this host, made valid for one level of a topic."""
    return re.sub(r"[^\w.-]", "-", socket.gethostname())[:MAX_NAME] or "gateway"


class GatewayConfig(Table):
    """`[gateway]`: who this gateway is and where it keeps its state."""

    name: Level = Field(
        default_factory=_default_name,
        description="Name of the gateway, one level of its topics and unique on its broker. Default: the host name.",
    )
    state_dir: OwnPath = Field(
        default=Path(STATE_DIR),
        description="Folder for baselines, history and messages that wait for the broker.",
    )


class ModelConfig(Table):
    """`[model]`: the encoder, and how the signal is cut into windows."""

    bundle: BundleName = Field(
        default="default", description='Folder of the model bundle, or "default" for the one that is installed.'
    )
    provider: str = Field(
        default="auto",
        min_length=1,
        description='What runs the model (providers.md): "auto" (quickest faithful one, measured at the first start), '
        '"cpu", "openvino", "cuda", "ort-tensorrt" or "tensorrt". One that cannot be used is refused at the '
        "start, and no other takes its place.",
    )
    require: str | None = Field(
        default=None,
        min_length=1,
        description='Provider that must be the one in use: the start fails when "auto" chooses another.',
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


class MqttConfig(Table):
    """`[mqtt]`: the broker, and the messages that wait for it."""

    url: Url = Field(
        default="embedded",
        description='mqtt://[USER@]HOST[:PORT], mqtts:// for TLS, or "embedded" for a broker inside the gateway.',
    )
    root: Root = Field(default="fisher-edge", description="Root of the topics: ROOT/GATEWAY/ASSET/CHANNEL/...")
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


class AlarmConfig(Table):
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


class HistoryConfig(Table):
    """`[history]`: results kept on disk after they are delivered, for trends."""

    mb: Megabytes = Field(default=256, description="Megabytes of results that are kept; the oldest leave first.")
    days: Positive = Field(default=90, description="Days that a result is kept.")


class AudioConfig(Table):
    """`[audio]`: recordings kept on disk."""

    enrollment_mb: Annotated[float, Field(ge=0)] = Field(
        default=256,
        description="Megabytes of recordings of enrollments that are kept, so that a new model can learn from them; 0 "
        "keeps none.",
    )


class Config(Table):
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
        self._base_dir = folder(context)

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
            check_bursts(channel)
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
