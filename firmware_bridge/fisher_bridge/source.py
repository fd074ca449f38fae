"""A microcontroller on a serial port as a source of the gateway.

Registered under the entry-point group `fisher_edge.sources` as `serial`; `open_serial` lists the keys.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from fisher_bridge.clock import Measured
from fisher_bridge.continuity import Samples
from fisher_bridge.messages import StreamInfo
from fisher_bridge.port import PortSettings
from fisher_bridge.reader import shared_reader
from fisher_edge.dsp.blocks import Block
from fisher_edge.errors import SensorError, UsageError

__all__ = ["SerialSource", "open_serial"]

TAKE_S = 0.2
POLL_S = 0.25


class SerialSource:
    """Blocks of one channel of one stream; a port that is unplugged is an error once, then waited for."""

    patient = False

    def __init__(self, settings: PortSettings, stream: int, channel: int, rate_hz: float | None, scale: float) -> None:
        self.settings = settings
        self.stream = stream
        self.channel = channel
        self.rate_hz = rate_hz
        self.scale = scale
        self._told = False

    def blocks(self, stop: threading.Event) -> Iterator[Block]:
        """Yield blocks until `stop` is set.

        Raises BadInputError when the device cannot be read (any more), SensorError when its rate is not what it says.
        """
        while self._told and not Path(self.settings.path).exists():
            if stop.wait(POLL_S):
                return
        self._told = True
        with shared_reader(self.settings) as reader, reader.subscribe(self.stream, self.rate_hz) as subscription:
            while not stop.is_set():
                for samples in subscription.take(TAKE_S):
                    self._check(samples.stream, reader.session.deviations.get(self.stream))
                    yield self._block(samples)
                    self._told = False

    def _check(self, info: StreamInfo, deviation: Measured | None) -> None:
        """Refuse a channel that is not there, and a real rate too far from the nominal one."""
        if self.channel >= info.channels:
            raise UsageError(
                f"stream {self.stream} of {self.settings.path} has {info.channels} channels, counted from 0; "
                f"there is no channel {self.channel}"
            )
        if deviation is not None and deviation.is_wrong_rate():
            real_hz = info.rate_hz * (1 + deviation.value * 1e-6)
            raise SensorError(
                f"{self.settings.path} says {info.rate_hz:g} Hz and delivers {real_hz:.1f} Hz; mend its firmware"
            )

    def _block(self, samples: Samples) -> Block:
        """Return the block of our channel, in its unit, with its place in the time of the world."""
        scale = np.float32(samples.stream.scale * self.scale)
        return Block(
            samples=samples.raw[:, self.channel].astype(np.float32) * scale,
            rate_hz=round(samples.stream.rate_hz),
            index=samples.index,
            time_s=samples.time_s + (time.time() - time.monotonic()),
        )


def open_serial(
    *,
    port: str,
    baud: Annotated[int, Field(ge=300, le=50_000_000)] = 921_600,
    stream: Annotated[int, Field(ge=0, le=15)] = 0,
    channel: Annotated[int, Field(ge=0, le=254)] = 0,
    rate_hz: Annotated[float, Field(gt=0, le=4e6)] | None = None,
    rtscts: bool = False,
    scale: float = 1.0,
) -> SerialSource:
    """Open the source `{ type = "serial", port = "/dev/serial/by-id/usb-…", baud = 921600, stream = 0, channel = 0 }`.

    `rate_hz` sets the rate of the stream, where the device can; several channels may share a port. Values are in the
    device's unit times `scale`.
    """
    return SerialSource(PortSettings(port, baud, rtscts), stream, channel, rate_hz, scale)
