"""A microcontroller on a serial port as a source of the gateway.

Registered under the entry-point group `fisher_edge.sources` as `serial`; the parameters of `open_serial` are the keys
of its table.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from fisher_bridge.clock import Measured
from fisher_bridge.continuity import Samples
from fisher_bridge.messages import StreamInfo
from fisher_bridge.port import PortSettings
from fisher_bridge.reader import PortReader, Subscription, shared_reader
from fisher_edge.dsp.blocks import Block, as_rate, rate_text
from fisher_edge.errors import SensorError, UsageError
from fisher_edge.sources.source import SourceContext

__all__ = ["SerialSource", "open_serial"]

TAKE_S = 0.2
POLL_S = 0.25


class SerialSource:
    """Blocks of one channel of one stream. A port that is unplugged is an error once; then the source waits for it."""

    finite = False
    patient = False

    def __init__(
        self, context: SourceContext, settings: PortSettings, stream: int, channel: int, rate_hz: float | None
    ) -> None:
        self.context = context
        self.settings = settings
        self.stream = stream
        self.channel = channel
        self.rate_hz = rate_hz
        self._open = ExitStack()
        self._connection: tuple[PortReader, Subscription] | None = None
        self._failed = False

    def __enter__(self) -> "SerialSource":
        if not self._failed:
            self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the stream and close the port, unless other channels use them."""
        self._connection = None
        self._open.close()

    def blocks(self, stop: threading.Event) -> Iterator[Block]:
        """Yield blocks until `stop` is set.

        Raises BadInputError when the device cannot be read (any more), SensorError when its rate is not what it says.
        """
        while self._connection is None:
            if Path(self.settings.path).exists():
                self._connect()
            elif stop.wait(POLL_S):
                return
        reader, subscription = self._connection
        while not stop.is_set():
            for samples in subscription.take(TAKE_S):
                self._check(samples.stream, reader.session.deviations.get(self.stream))
                self._failed = False
                yield self._block(samples)

    def _connect(self) -> None:
        """Open the port and ask for the stream; that is a failure until samples come."""
        self._failed = True
        with ExitStack() as stack:
            reader = stack.enter_context(shared_reader(self.settings))
            subscription = stack.enter_context(reader.subscribe(self.stream, self.rate_hz))
            self._connection = reader, subscription
            self._open = stack.pop_all()

    def _check(self, info: StreamInfo, deviation: Measured | None) -> None:
        """Refuse a channel that does not exist, and a real rate too far from the nominal one."""
        if self.channel >= info.channels:
            raise UsageError(
                f"stream {self.stream} of {self.settings.path} has {info.channels} channels, counted from 0; "
                f"there is no channel {self.channel}"
            )
        if deviation is not None and deviation.is_wrong_rate():
            real_hz = info.rate_hz * (1 + deviation.value * 1e-6)
            raise SensorError(
                f"{self.settings.path} says {rate_text(as_rate(info.rate_hz))} Hz and delivers {real_hz:.1f} Hz; "
                "correct its firmware"
            )

    def _block(self, samples: Samples) -> Block:
        """Return the block of our channel, in its unit, with its time by the clock of the gateway."""
        scale = np.float32(samples.stream.scale * self.context.scale)
        return Block(
            samples=samples.raw[:, self.channel].astype(np.float32) * scale,
            rate_hz=as_rate(samples.stream.rate_hz),
            index=samples.index,
            time_s=samples.time_s + (self.context.clock() - time.monotonic()),
        )


def open_serial(
    context: SourceContext,
    *,
    port: Annotated[str, Field(description="Serial port, best by the name that stays: /dev/serial/by-id/...")],
    baud: Annotated[int, Field(ge=300, le=50_000_000, description="Baud rate; USB devices take any.")] = 921_600,
    stream: Annotated[int, Field(ge=0, le=15, description="Stream of the device.")] = 0,
    channel: Annotated[int, Field(ge=0, le=254, description="Channel of the stream, from 0.")] = 0,
    rate_hz: Annotated[
        float | None, Field(gt=0, le=4e6, description="Rate in Hz to set, where the device can.")
    ] = None,
    rtscts: Annotated[bool, Field(description="Whether the port uses RTS/CTS flow control.")] = False,
) -> SerialSource:
    """Open the source `{ type = "serial", port = "/dev/serial/by-id/usb-…", baud = 921600, stream = 0, channel = 0 }`.

    Several channels may share a port. Values are in the device's unit times the scale of the channel.
    """
    return SerialSource(context, PortSettings(str(context.base_dir / port), baud, rtscts), stream, channel, rate_hz)
