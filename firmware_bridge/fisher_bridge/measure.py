"""How much the bridge can take, measured on an emulated device behind a real pty."""

import os
import selectors
import time
from typing import Any

from fisher_bridge.emulator import emulated
from fisher_bridge.port import PortSettings, open_port
from fisher_bridge.reader import PortReader, shared_reader
from fisher_bridge.session import Session

__all__ = ["sustained", "throughput"]

READ_BYTES = 1 << 16
CHANNELS, RATE_HZ = 8, 51_200
WARM_S = 2.0
DECODED_BYTES = 64 << 20


def throughput(seconds: float) -> dict[str, float]:
    """Measure int16 samples a second: through a pty, and of the decoder alone on the same bytes.

    The device sends as fast as the pty takes its frames; whatever is lost is counted. Both figures are of one core.
    """
    session = Session(10_000_000, time.monotonic())
    kept: list[bytes] = []
    with emulated(["--fast", "--channels", "1", "--frame", "1000"]) as device:
        port = open_port(PortSettings(device.port))
        try:
            session.want(0, None, time.monotonic())
            _read_until(port.fileno(), session, time.monotonic() + WARM_S, kept)
            session.take_untimed()
            before, began_s, used_s = session.counts.samples, time.monotonic(), time.thread_time()
            _read_until(port.fileno(), session, began_s + seconds, None)
            wall_s, cpu_s = time.monotonic() - began_s, time.thread_time() - used_s
        finally:
            port.close()
        device.process.kill()
    samples = session.counts.samples - before
    return {
        "megasamples_per_s": samples / wall_s / 1e6,
        "decoder_alone_megasamples_per_s": _decoder_alone(b"".join(kept)),
        "reader_core_share": cpu_s / wall_s,
        "lost_samples": session.counts.lost_samples + session.counts.dropped_samples,
        "damaged": session.counts.damaged,
    }


def _read_until(fd: int, session: Session, end_s: float, kept: list[bytes] | None) -> None:
    """Read and decode until a time, making arrays now and then as the runtime does."""
    taken_s = 0.0
    selector = selectors.PollSelector()
    selector.register(fd, selectors.EVENT_READ)
    while (now_s := time.monotonic()) < end_s:
        os.write(fd, session.due(now_s))
        if not selector.select(0.05):
            continue
        data = os.read(fd, READ_BYTES)
        session.receive(data, now_s)
        if kept is not None and len(kept) * len(data) < DECODED_BYTES:
            kept.append(data)
        if now_s - taken_s > 0.05:
            session.take_untimed()
            taken_s = now_s


def _decoder_alone(data: bytes) -> float:
    """Decode what was received once more, without the pty, in pieces as large as a read."""
    session = Session(10_000_000, time.monotonic())
    session.want(0, None, time.monotonic())
    began_s = time.thread_time()
    for first in range(0, len(data), READ_BYTES):
        session.receive(data[first : first + READ_BYTES], 0.0)
        session.take_untimed()
    return session.counts.samples / (time.thread_time() - began_s) / 1e6


def sustained(seconds: float) -> dict[str, float]:
    """Run eight channels at 51.2 kHz in real time, all taken by a consumer; return the share of a core and the loss."""
    options = ["--channels", str(CHANNELS), "--rate", str(RATE_HZ)]
    with emulated(options) as device, shared_reader(PortSettings(device.port)) as reader:
        with reader.subscribe(0) as subscription:
            _consume(reader, subscription, WARM_S)
            before, used_s, began_s = reader.session.counts.samples, time.process_time(), time.monotonic()
            _consume(reader, subscription, seconds)
            cpu_s, wall_s = time.process_time() - used_s, time.monotonic() - began_s
            samples = reader.session.counts.samples - before
        sent: dict[str, Any] = device.stop()
    counts = reader.session.counts
    return {
        "megabytes_per_s": 2 * CHANNELS * samples / wall_s / 1e6,
        "core_share": cpu_s / wall_s,
        "lost_samples": counts.lost_samples,
        "dropped_samples": counts.dropped_samples + sent["samples_dropped"],
        "delivery_dropped": subscription.dropped,
    }


def _consume(reader: PortReader, subscription: Any, seconds: float) -> None:
    """Take samples for some time, and make of every channel the float32 array that a source yields."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        reader.raise_failure()
        for samples in subscription.take(0.2):
            for channel in range(samples.raw.shape[1]):
                samples.raw[:, channel].astype("f4")
