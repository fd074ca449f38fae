"""A port on a thread of its own, shared by everybody who wants samples of its device. See `shared_reader`."""

import logging
import os
import selectors
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import serial

from fisher_bridge.continuity import Samples
from fisher_bridge.port import PortSettings, open_port
from fisher_bridge.session import CLOCK_S, RATE_ATTEMPTS, Session
from fisher_edge.errors import BadInputError, FisherEdgeError, SensorError, UsageError
from fisher_edge.sources.shared import Devices, Feed

__all__ = ["PortReader", "Subscription", "shared_reader"]

READ_BYTES = 1 << 16
TICK_S = 0.1
DELIVER_S = 0.05
"""Samples are handed on so often, many frames at once."""
GREETING_S = 5.0
"""A board that is reset when its port is opened says HELLO within so long."""
SILENCE_S = 3.0
"""A device that answers no ping for so long is not there."""
SENSOR_FAULT = 5
"""Code of an ERROR that no command caused."""
LONGEST_QUEUE = 600
"""Deliveries, of DELIVER_S each, that wait for a consumer: half a minute; then the oldest are dropped."""
JOIN_S = 2.0
REPORT_S = 60.0
"""Losses are logged when they begin, and then no more often than this."""

log = logging.getLogger(__name__)


class Subscription(Feed[Samples]):
    """The samples of one stream for one consumer, in order; `dropped` counts what it did not take in time."""

    def __init__(self, stream: int) -> None:
        super().__init__(LONGEST_QUEUE, lambda samples: len(samples.raw))
        self.stream = stream


class PortReader:
    """Reads one port until it fails or is closed; a reader that has failed is not started again."""

    def __init__(self, settings: PortSettings) -> None:
        self.settings = settings
        self.session = Session(settings.baud, time.monotonic())
        self.failure: Exception | None = None
        self.received_bytes = 0
        self._port = open_port(settings)
        self._selector = selectors.PollSelector()  # select() fails for descriptors over 1023
        self._selector.register(self._port.fileno(), selectors.EVENT_READ)
        self._heard_s = self._delivered_s = time.monotonic()
        self._reported = (0, 0, 0)
        self._report_s = self._heard_s
        self._told_rates: dict[int, float] = {}
        self._told_unsupported: set[int] = set()
        self._told_unanswered = False
        self._lock = threading.Lock()
        self._subscriptions: list[Subscription] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"port {settings.path}", daemon=True)

    def start(self) -> None:
        """Start the thread that reads the port."""
        self._thread.start()

    def close(self) -> None:
        """Stop the device's streams, and close the port."""
        self._stop.set()
        self._thread.join(JOIN_S)

    @contextmanager
    def subscribe(self, stream: int, rate_hz: float | None = None) -> Iterator[Subscription]:
        """Return a subscription to a stream, which runs as long as it has subscribers.

        Raises UsageError when others use it at another rate, and the error that ended the reading, if any.
        """
        subscription = Subscription(stream)
        with self._lock:
            self.raise_failure()
            if self.session.wanted.get(stream, rate_hz) != rate_hz:
                raise UsageError(
                    f"stream {stream} of {self.settings.path} is asked for at {self.session.wanted[stream]} and at "
                    f"{rate_hz} Hz; give all channels of a stream one rate_hz"
                )
            self.session.want(stream, rate_hz, time.monotonic())
            self._subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            with self._lock:
                self._subscriptions.remove(subscription)
                if stream not in {other.stream for other in self._subscriptions} and self.failure is None:
                    with suppress(OSError):  # a device that has just gone need not stop
                        self._write(self.session.unwant(stream))

    def raise_failure(self) -> None:
        """Raise what ended the reading, if anything has."""
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        """Serve the port; whatever ends that is handed to everybody who waits, once the port can be opened again."""
        failure: Exception | None = None
        try:
            while not self._stop.is_set():
                self._serve()
        except Exception as error:  # noqa: BLE001 -- handed on to every consumer
            failure = error if isinstance(error, FisherEdgeError) else self._gone(error)
        with self._lock:
            with suppress(OSError):  # a device that is gone cannot be closed politely
                self._port.close()
            self.failure = failure
            if failure is not None:
                for subscription in self._subscriptions:
                    subscription.fail(failure)

    def _serve(self) -> None:
        """Send what is due, wait for bytes, take them."""
        now_s = time.monotonic()
        with self._lock:
            self._write(self.session.due(now_s))
            wait_s = min(TICK_S, max(0.0, self.session.next_due_s() - now_s))
        if self._selector.select(wait_s):
            data = os.read(self._port.fileno(), READ_BYTES)
            if not data:
                raise BadInputError(f"{self.settings.path} is gone; plug the device in again")
            now_s = time.monotonic()
            with self._lock:
                self._heard_s = now_s
                self.received_bytes += len(data)
                self.session.receive(data, now_s)
        if time.monotonic() - self._delivered_s >= DELIVER_S:
            self._deliver()

    def _deliver(self) -> None:
        """Hand on what has arrived, and check that the device is there and follows its commands."""
        self._delivered_s = time.monotonic()
        with self._lock:
            for samples in self.session.take(self._delivered_s):
                for subscription in self._subscriptions:
                    if subscription.stream == samples.stream.number:
                        subscription.put(samples)
            self._check(self._delivered_s)
            self._report(self._delivered_s)
            self._tell()

    def _report(self, now_s: float) -> None:
        """Log what has been lost since the last time, so that nothing is lost unnoticed."""
        counts = self.session.counts
        untaken = sum(subscription.dropped for subscription in self._subscriptions)
        lost = counts.lost_frames, counts.dropped_samples, untaken
        if lost != self._reported and now_s >= self._report_s:
            log.warning(
                "port %s: so far %d frames lost on the line (%d samples a channel), %d samples left out by the device, "
                "%d not taken in time",
                self.settings.path,
                counts.lost_frames,
                counts.lost_samples,
                counts.dropped_samples,
                untaken,
            )
            self._reported, self._report_s = lost, now_s + REPORT_S

    def _tell(self) -> None:
        """Log where the device deviates from what was asked, once for each change."""
        session, path = self.session, self.settings.path
        for stream, rate_hz in session.achieved.items():
            if self._told_rates.get(stream) != rate_hz:
                asked_hz = session.wanted.get(stream) or rate_hz
                log.info("port %s: stream %d runs at %.9g Hz, asked for %.9g Hz", path, stream, rate_hz, asked_hz)
        self._told_rates = dict(session.achieved)
        for command in session.unsupported - self._told_unsupported:
            log.info("port %s: the device does not know the optional command %d", path, command)
        self._told_unsupported = set(session.unsupported)
        if session.pings_unanswered and not self._told_unanswered:
            log.warning(
                "port %s: the device has stopped answering pings; times are extrapolated and rates not checked", path
            )
        elif self._told_unanswered and not session.pings_unanswered:
            log.warning("port %s: the device answers pings again", path)
        self._told_unanswered = session.pings_unanswered

    def _check(self, now_s: float) -> None:
        """Raise BadInputError when there is no device, it is not what was asked for, or it refuses."""
        session, path = self.session, self.settings.path
        if session.hello is None:
            if now_s - session.asked_s > GREETING_S:
                raise BadInputError(self._no_greeting())
            return
        if now_s - self._heard_s > SILENCE_S:
            raise BadInputError(f"{path} has been silent for {SILENCE_S:g} s; check the cable and the device")
        for stream in session.wanted:
            if session.hello.stream(stream) is None:
                there = ", ".join(str(info.number) for info in session.hello.streams)
                raise BadInputError(f"{path} has no stream {stream}; it has {there}")
        if session.missed_rate is not None:
            missed, asked_hz = session.missed_rate, session.wanted[session.missed_rate.number]
            raise BadInputError(
                f"{path}: stream {missed.number} was asked {RATE_ATTEMPTS} times for {asked_hz:.9g} Hz and stays at "
                f"{missed.rate_hz:.9g} Hz; set rate_hz to a rate that the device has"
            )
        if session.clock is None and now_s - session.met_s > CLOCK_S:
            raise BadInputError(f"{path} answers no pings, so that its clock is not known; check its firmware")
        if session.refusal is not None and session.refusal.code == SENSOR_FAULT:
            raise SensorError(f"{path}: the device says its sensor is at fault: {session.refusal.text!r}; look at it")
        if session.refusal is not None:
            raise BadInputError(f"{path}: the device says {session.refusal.text!r}; ask for what it can do")

    def _no_greeting(self) -> str:
        """Say what came instead of a HELLO."""
        path, baud, decoder = self.settings.path, self.settings.baud, self.session.decoder
        if decoder.other_versions:
            versions = ", ".join(str(version) for version in sorted(decoder.other_versions))
            return f"{path} speaks version {versions} of the protocol, this bridge version 1; update the older one"
        if not self.received_bytes:
            return f"{path}: nothing came in {GREETING_S:g} s; check the cable, the power and the baud rate ({baud})"
        said = f" (it says {decoder.text!r})" if decoder.text else ""
        return (
            f"{path}: {self.received_bytes} bytes came in {GREETING_S:g} s, and no HELLO{said}; "
            f"check the baud rate ({baud}) and the firmware"
        )

    def _write(self, data: bytes) -> None:
        """Send what the port takes now: every question is asked again, and a ping that is lost is one of many."""
        if data:
            with suppress(BlockingIOError):
                os.write(self._port.fileno(), data)

    def _gone(self, error: Exception) -> Exception:
        """Turn an error of the port into a BadInputError; return any other error as it is."""
        if not isinstance(error, OSError | serial.SerialException):
            return error
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        return BadInputError(f"{self.settings.path} is gone ({reason}); plug the device in again")


_ports: Devices[PortReader] = Devices()


def shared_reader(settings: PortSettings) -> AbstractContextManager[PortReader]:
    """Return the reader of a port, the same for every caller while it works: a port can be opened only once.

    Raises BadInputError when the port cannot be opened, UsageError when it is open with other settings.
    """

    def opened() -> PortReader:
        reader = PortReader(settings)
        reader.start()
        return reader

    how = f"{settings.baud} baud{' and RTS/CTS' if settings.rtscts else ''}"
    return _ports.use(os.path.realpath(settings.path), opened, how)
