"""From a source in the configuration to the object that yields its blocks."""

import threading
from collections.abc import Iterator
from typing import Protocol

from fisher_edge.config import ChannelConfig
from fisher_edge.dsp.blocks import Block
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
    """Return the source of a channel; nothing is opened before the first block is asked for."""
    source = channel.source
    return RecordingSource(
        files=source.files,
        rate_hz=source.rate_hz,
        channel=source.channel,
        scale=channel.scale,
        speed=source.speed,
        loop=source.loop,
    )
