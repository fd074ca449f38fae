"""What is at the other end of a port, and whether the link can carry it: `probe` runs its streams for some seconds."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from fisher_bridge.clock import Measured
from fisher_bridge.continuity import Counts
from fisher_bridge.messages import SAMPLE_BYTES, Hello, StreamInfo
from fisher_bridge.port import PortSettings
from fisher_bridge.reader import PortReader, shared_reader
from fisher_bridge.session import Session
from fisher_edge.errors import BadInputError

__all__ = ["Probe", "needed_bytes_per_s", "probe"]

FRAME_BYTES = 33
"""Bytes of a DATA besides its samples: header, CRC, delimiters and stuffing."""
FRAME_PAYLOAD = 512
BITS_PER_BYTE = 10
"""On a UART: start bit, eight bits, stop bit."""
FULL = 0.85
TICK_S = 0.1


@dataclass(frozen=True)
class Probe:
    """What a device says, and what was measured while its streams ran for `seconds`."""

    hello: Hello
    seconds: float
    counts: Counts
    bytes_per_s: float
    clock_ppm: Measured
    round_trip_ms: float
    rates_ppm: dict[int, Measured]
    device_dropped: int
    device_overruns: int
    baud: int | None
    """None where the line has no baud rate of its own: USB, a pty."""
    pings_unanswered: bool = False
    """Whether the device stopped answering pings: its clock and rates are uncertain."""

    @property
    def needed_bytes_per_s(self) -> float:
        """What all streams of the device need on the line."""
        return sum(needed_bytes_per_s(stream) for stream in self.hello.streams)

    @property
    def troubles(self) -> list[str]:
        """What is wrong, each with what to do; empty when the link carries the streams."""
        silent = ["it has stopped answering pings, so that its clock is uncertain: check its firmware"]
        return [*self._line_troubles(), *self._rate_troubles(), *(silent if self.pings_unanswered else [])]

    def _line_troubles(self) -> list[str]:
        """What the line cannot carry, loses or what the device cannot send."""
        found = []
        capacity = self.baud / BITS_PER_BYTE if self.baud else None
        if capacity and self.needed_bytes_per_s > FULL * capacity:
            needed = round(self.needed_bytes_per_s * BITS_PER_BYTE / FULL)
            found.append(
                f"its streams need {self.needed_bytes_per_s:.0f} bytes/s and the line carries {capacity:.0f}: "
                f"take {needed} baud or more, a lower rate or fewer channels"
            )
        counts = self.counts
        if counts.lost_frames:
            share = counts.lost_frames / (counts.frames + counts.lost_frames)
            found.append(
                f"the line lost {counts.lost_frames} frames ({share:.2%}), {counts.lost_samples} samples a channel: "
                f"check cable, ground and baud rate"
            )
        if counts.dropped_samples or self.device_overruns:
            found.append(
                f"the device left out {counts.dropped_samples} samples and counts {self.device_overruns} overruns: "
                f"its buffer is too small or the line too slow"
            )
        return found

    def _rate_troubles(self) -> list[str]:
        """Rates that are not what the device says."""
        return [
            f"stream {number} delivers {rate.value / 1e4:+.2f} % more than it says: correct the rate in the firmware"
            for number, rate in self.rates_ppm.items()
            if rate.is_wrong_rate()
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self) | {"needed_bytes_per_s": round(self.needed_bytes_per_s), "troubles": self.troubles}


def needed_bytes_per_s(stream: StreamInfo) -> float:
    """Return what a stream needs on the line, in frames of about half a kilobyte."""
    payload = stream.rate_hz * stream.channels * SAMPLE_BYTES[stream.format]
    return payload * (1 + FRAME_BYTES / FRAME_PAYLOAD)


def probe(settings: PortSettings, seconds: float, stop: threading.Event) -> Probe:
    """Meet a device, run all its streams for some seconds and measure. Raises BadInputError without a device."""
    with shared_reader(settings) as reader, ExitStack() as subscriptions:
        _wait(reader, stop, lambda session: session.hello is not None)
        hello = reader.session.hello
        assert hello is not None
        taken = [subscriptions.enter_context(reader.subscribe(stream.number)) for stream in hello.streams]
        _wait(reader, stop, lambda session: session.clock is not None)
        began_s, began_bytes = time.monotonic(), reader.received_bytes
        while time.monotonic() < began_s + seconds and not stop.is_set():
            for subscription in taken:
                subscription.take(TICK_S)
        session = reader.session
        assert session.clock is not None
        stats = session.stats
        return Probe(
            hello=session.hello or hello,
            seconds=time.monotonic() - began_s,
            counts=session.counts,
            bytes_per_s=(reader.received_bytes - began_bytes) / (time.monotonic() - began_s),
            clock_ppm=session.clock.drift_ppm,
            round_trip_ms=2e3 * session.clock.offset_error_s,
            rates_ppm=dict(session.deviations),
            device_dropped=stats.dropped if stats else 0,
            device_overruns=stats.overruns if stats else 0,
            baud=settings.baud if _has_baud(settings.path) else None,
            pings_unanswered=session.pings_unanswered,
        )


def _wait(reader: PortReader, stop: threading.Event, known: Callable[[Session], bool]) -> None:
    """Wait until something is known of the device; what prevents it is raised by the reader."""
    while not known(reader.session):
        reader.raise_failure()
        if stop.wait(TICK_S):
            raise BadInputError(f"stopped before {reader.settings.path} had answered; ask again, and wait longer")


def _has_baud(path: str) -> bool:
    """Whether the baud rate of a port limits it: not on a pty, nor where USB ends in the microcontroller itself."""
    return not os.path.realpath(path).startswith(("/dev/pts/", "/dev/ttyACM"))
