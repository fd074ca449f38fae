"""The configuration file: one TOML, checked once and turned into frozen models. See `load_config`."""

import difflib
import re
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_serializer,
)

from fisher_edge.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:  # the standard library has the same module from 3.11 on
    import tomli as tomllib

__all__ = [
    "SOURCES_GROUP",
    "ChannelConfig",
    "Config",
    "GatewayConfig",
    "ModelConfig",
    "MqttConfig",
    "PluginSourceConfig",
    "RecordingSourceConfig",
    "load_config",
]

MAX_BYTES = 1 << 20
SOURCES_GROUP = "fisher_edge.sources"
"""Entry-point group through which packages bring further types of sources; see `fisher_edge.sources.open`."""
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


def _levels(name: str) -> str:
    """Refuse what MQTT would take but nobody can read: a blank level of a topic, or one with invisible characters."""
    if not name.isprintable() or not all(level.strip() for level in name.split("/")):
        raise ValueError("it is part of an MQTT topic: use letters, digits, - and _")
    return name


Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^+#/$\x00-\x1f\x7f]+$"), AfterValidator(_levels)]
Root = Annotated[str, Field(min_length=1, pattern=r"^[^+#$\x00-\x1f\x7f]+$"), AfterValidator(_levels)]


class _Table(BaseModel):
    """A table of the file: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class GatewayConfig(_Table):
    """`[gateway]`: who this gateway is and where it keeps its state."""

    name: Name = "gateway"
    state_dir: Path = Path("state")


class ModelConfig(_Table):
    """`[model]`: the encoder and how the signal is cut into windows."""

    bundle: str = "default"
    provider: Literal["auto", "cpu"] = "auto"
    window_s: Positive = 10.24
    hop_s: Positive | None = None


class MqttConfig(_Table):
    """`[mqtt]`: the broker; `embedded` starts one inside the daemon."""

    url: Annotated[str, Field(repr=False)] = "embedded"
    root: Root = "fisher-edge"
    password_file: Path | None = None
    ca_file: Path | None = None
    embedded_port: Annotated[int, Field(ge=0, le=65535)] = 1883
    outbox_mb: Annotated[float, Field(ge=1)] = 256
    outbox_days: Positive = 30

    @field_serializer("url")
    def _without_password(self, url: str) -> str:
        """Show the URL as it may be shown."""
        return re.sub(r"(//[^:/]*):.*@", r"\1:***@", url)


class AlarmConfig(_Table):
    """`[alarm]`: how many false alarms a day are acceptable and how many windows it takes."""

    warning_per_day: Positive = 1.0
    alarm_per_day: Positive = 0.1
    needed: Count = 2
    of: Count = 3
    hold: Count = 3


class RecordingSourceConfig(_Table):
    """`source` of type `recording`: files replayed as a sensor would deliver them; speed 0 is without waiting."""

    type: Literal["recording"]
    files: Annotated[tuple[Path, ...], Field(min_length=1)]
    rate_hz: Count | None = None
    channel: Annotated[int, Field(ge=0)] | None = None
    speed: NotNegative = 1.0
    loop: bool = False


def _installed(name: str) -> str:
    """Refuse a type of source that no installed package brings."""
    known = {"recording", *(entry.name for entry in entry_points(group=SOURCES_GROUP))}
    if name not in known:
        raise ValueError(f"known types are {', '.join(sorted(known))}; install the package that brings it")
    return name


class PluginSourceConfig(BaseModel):
    """`source` of any other type: its keys are those of the package that brings the type."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    type: Annotated[str, AfterValidator(_installed)]

    @property
    def options(self) -> dict[str, Any]:
        """Keys of the table besides `type`."""
        return dict(self.model_extra or {})


def _kind_of_source(table: Any) -> str:
    """Tell which of the two tables above a source is, also while it is serialised."""
    name = table.get("type", "recording") if isinstance(table, dict) else getattr(table, "type", "recording")
    return "recording" if name == "recording" else "plugin"


SourceConfig = Annotated[
    Annotated[RecordingSourceConfig, Tag("recording")] | Annotated[PluginSourceConfig, Tag("plugin")],
    Discriminator(_kind_of_source),
]


class ChannelConfig(_Table):
    """`[[channel]]`: one sensor of one asset."""

    asset: Name
    name: Name
    unit: str = ""
    scale: Positive = 1.0
    source: SourceConfig
    window_s: Positive | None = None
    hop_s: Positive | None = None
    no_data_s: Positive = 30.0


class Config(_Table):
    """The whole file."""

    gateway: GatewayConfig = GatewayConfig()
    model: ModelConfig = ModelConfig()
    mqtt: MqttConfig = MqttConfig()
    alarm: AlarmConfig = AlarmConfig()
    channel: Annotated[tuple[ChannelConfig, ...], Field(min_length=1)]


def load_config(path: Path) -> Config:
    """Read and check a configuration file; relative paths in it count from its folder.

    Raises UsageError with one line for each kind of mistake: file, table, key and what to write.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror}; check the path") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} has {len(data)} bytes, more than a configuration can have; check the path")
    try:
        tables = tomllib.loads(data.decode())
        config = Config.model_validate(tables)
    except ValidationError as error:
        raise UsageError(f"{path}: {_first_mistake(error)}") from error
    except (ValueError, RecursionError) as error:  # of the parser: bad TOML, bad UTF-8, endless numbers or nesting
        raise UsageError(f"{path} is not valid TOML: {error}; mend that place") from error
    _check_channels(path, config)
    return _with_absolute_paths(config, path.resolve().parent)


def _first_mistake(error: ValidationError) -> str:
    """Say in one line what is wrong first, and how many more there are."""
    mistakes = _mistakes(error)
    first = mistakes[0]
    where = _place(first["loc"])
    rest = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        known = _known_keys(first["loc"][:-1])
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key {key!r} in {_place(first['loc'][:-1]) or 'the file'}; {hint}{rest}"
    if first["type"] == "missing":
        return f"{where} is missing; add it{rest}"
    if first["loc"] == ("channel",):
        return f"channels are written as tables under [[channel]], one for each sensor{rest}"
    if first["type"] == "model_type":
        return f"{where} is one table, not {type(first['input']).__name__}; write its keys in it{rest}"
    if first["type"] == "string_pattern_mismatch":
        return f"{where} = {first['input']!r} cannot be part of an MQTT topic (no + # / $); rename it{rest}"
    return f"{where} = {_shown(first['input'])}: {first['msg'].removeprefix('Value error, ').lower()}{rest}"


def _mistakes(error: ValidationError) -> list[Any]:
    """Return the mistakes, misspelt keys first: pydantic also blames the list that an invalid item is left out of."""
    mistakes: list[Any] = [{**mistake, "loc": _untagged(mistake["loc"])} for mistake in error.errors()]
    inside = {mistake["loc"][:length] for mistake in mistakes for length in range(len(mistake["loc"]))}
    own = [mistake for mistake in mistakes if mistake["loc"] not in inside]
    return sorted(own, key=lambda mistake: mistake["type"] != "extra_forbidden")


def _untagged(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Drop from a place the name of the kind of source, which is not in the file."""
    tag = location.index("source") + 1 if "source" in location else len(location)
    return location[:tag] + location[tag + 1 :]


def _shown(value: Any) -> str:
    """Show a value of the file, shortened."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _place(location: tuple[int | str, ...]) -> str:
    """Name a place in the file the way it is written: [[channel]] 2, source, rate_hz."""
    parts: list[str] = []
    for part in location:
        if isinstance(part, int):
            table = parts[-1].strip("[]")
            parts[-1] = f"[[{table}]] {part + 1}" if len(parts) == 1 else f"{table} {part + 1}"
        elif not parts:
            parts.append(f"[{part}]" if part in Config.model_fields else str(part))
        else:
            parts.append(str(part))
    return ", ".join(parts)


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Keys that the table at a place may have."""
    table: Any = Config
    nested = {"channel": ChannelConfig, "source": RecordingSourceConfig}
    for part in location:
        if isinstance(part, str):
            table = nested.get(part, table.model_fields[part].annotation)
    return sorted(table.model_fields)


def _check_channels(path: Path, config: Config) -> None:
    """Refuse two channels of one name and an alarm that can never be raised."""
    seen = set()
    for channel in config.channel:
        if (channel.asset, channel.name) in seen:
            raise UsageError(f"{path}: channel {channel.asset}/{channel.name} is there twice; rename one")
        seen.add((channel.asset, channel.name))
    if config.alarm.needed > config.alarm.of:
        raise UsageError(
            f"{path}: [alarm] needed = {config.alarm.needed} of = {config.alarm.of}; needed cannot exceed of"
        )


def _with_absolute_paths(config: Config, folder: Path) -> Config:
    """Resolve relative paths against the folder of the file."""
    channels = tuple(
        channel.model_copy(update={"source": _with_absolute_files(channel.source, folder)})
        for channel in config.channel
    )
    gateway = config.gateway.model_copy(update={"state_dir": folder / config.gateway.state_dir})
    model = config.model
    if model.bundle != "default":
        model = model.model_copy(update={"bundle": str(folder / model.bundle)})
    secrets = {
        key: folder / value for key in ("password_file", "ca_file") if (value := getattr(config.mqtt, key)) is not None
    }
    return config.model_copy(
        update={
            "channel": channels,
            "gateway": gateway,
            "model": model,
            "mqtt": config.mqtt.model_copy(update=secrets),
        }
    )


def _with_absolute_files(
    source: RecordingSourceConfig | PluginSourceConfig, folder: Path
) -> RecordingSourceConfig | PluginSourceConfig:
    """Resolve the files of a recording; keys of other sources are their own business."""
    if isinstance(source, PluginSourceConfig):
        return source
    return source.model_copy(update={"files": tuple(folder / file for file in source.files)})
