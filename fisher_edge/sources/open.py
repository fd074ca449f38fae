"""From a source in the configuration to the object that yields its blocks.

A package brings a type of source of its own through the entry-point group `fisher_edge.sources`: the name is the
type, the object a function with annotated keyword parameters (the keys of the table, and `scale` of the channel) that
returns a `Source` and opens nothing yet. The extra of the entry point is what its imports need.
"""

import threading
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any, Protocol

from pydantic import ConfigDict, ValidationError, validate_call

from fisher_edge.config import SOURCES_GROUP, ChannelConfig, PluginSourceConfig
from fisher_edge.dsp.blocks import Block
from fisher_edge.errors import MissingExtraError, UsageError
from fisher_edge.sources.recording import RecordingSource

__all__ = ["Source", "open_source"]


class Source(Protocol):
    """Yields the blocks of one channel."""

    @property
    def patient(self) -> bool:
        """Whether the source can wait for its consumer; a live sensor cannot."""
        ...

    def blocks(self, stop: threading.Event) -> Iterator[Block]:
        """Yield blocks until the source ends or `stop` is set."""
        ...


def open_source(channel: ChannelConfig) -> Source:
    """Return the source of a channel; nothing is opened before the first block is asked for.

    Raises UsageError for wrong keys of a source of another package, MissingExtraError when that needs more packages.
    """
    source = channel.source
    if isinstance(source, PluginSourceConfig):
        return _open_plugin(source, channel)
    return RecordingSource(
        files=source.files,
        rate_hz=source.rate_hz,
        channel=source.channel,
        scale=channel.scale,
        speed=source.speed,
        loop=source.loop,
    )


def _open_plugin(config: PluginSourceConfig, channel: ChannelConfig) -> Source:
    """Call the function of an entry point with the keys of the table, each checked against its annotation."""
    where = f"source of channel {channel.asset}/{channel.name}"
    (entry, *_) = entry_points(group=SOURCES_GROUP, name=config.type)
    try:
        function = entry.load()
    except ModuleNotFoundError as error:
        if entry.extras:
            raise MissingExtraError(str(error.name), entry.extras[0]) from error
        raise UsageError(f"{where}: type {config.type!r} needs the package {error.name}; install it") from error
    checked = validate_call(config=ConfigDict(allow_inf_nan=False))(function)
    try:
        opened: Source = checked(**config.options, scale=channel.scale)
    except ValidationError as error:
        known = sorted(set(function.__annotations__) - {"return", "scale"})
        raise UsageError(f"{where}: {_mistake(error.errors()[0], known)}") from error
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    return opened


def _mistake(mistake: Any, known: list[str]) -> str:
    """Say in one line which key is wrong and what it may be."""
    key = ".".join(str(part) for part in mistake["loc"])
    if mistake["type"] == "unexpected_keyword_argument":
        return f"unknown key {key!r}; known keys: {', '.join(known)}"
    if mistake["type"] == "missing_keyword_only_argument":
        return f"{key} is missing; add it"
    return f"{key} = {mistake['input']!r}: {mistake['msg'].lower()}"
