"""From the outbox to the broker: one thread that delivers, reconnects and says how it fares. Start at `Publisher`."""

import logging
import random
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fisher_edge.errors import BrokerError, DamagedStateError, FisherEdgeError
from fisher_edge.publish.address import BrokerAddress
from fisher_edge.publish.message import OFFLINE, ONLINE, Topics, encode, info_message, with_replay
from fisher_edge.publish.outbox import Outbox, Row
from fisher_edge.publish.session import CredentialsRefusedError, Session
from fisher_edge.store import Store

__all__ = ["Condition", "Publisher", "Timing"]

WINDOW = 20
"""Messages that may be on their way at once, on a connection that has begun with one and proved itself."""

SUSPECT_AFTER = 3
"""Connections in a row that end with the same message unacknowledged before that message is named."""

POLL_S = 0.05
"""How often an idle connection looks for new rows."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timing:
    """How patient the publisher is."""

    first_retry_s: float = 1.0
    longest_retry_s: float = 30.0
    refused_retry_s: float = 60.0
    stable_s: float = 10.0
    """A connection that lasted this long starts the back-off anew."""
    acknowledge_s: float = 15.0
    """No acknowledgement for this long while messages are on their way ends a connection."""

    def pause_s(self, attempts: int, error: BaseException) -> float:
        """Return how long to wait after a failure: doubling up to a cap, with jitter so that a fleet spreads."""
        longest = self.longest_retry_s
        wait_s = min(longest, self.first_retry_s * 2.0 ** min(attempts - 1, 30))
        if isinstance(error, CredentialsRefusedError):
            wait_s = self.refused_retry_s
        return wait_s * random.uniform(0.5, 1.0)  # noqa: S311 -- not a secret


@dataclass(frozen=True)
class Condition:
    """How delivery fares: `attempts` failed since the last stable connection, `last_error` while not connected."""

    connected: bool = False
    last_error: str | None = None
    attempts: int = 0
    waiting: int = 0
    oldest_age_s: float = 0.0
    published: int = 0
    dropped: int = 0


class Publisher:
    """The thread between outbox and broker; use it as a context manager or call `start` and `stop`.

    Rows are sent in the order of writing with QoS 1, at most `WINDOW` at once, and deleted when the broker has
    acknowledged them. After any failure the connection is discarded and delivery starts again at the first row not
    acknowledged, so the broker may get a row twice, with the same (gateway, boot, seq), but never out of order.
    """

    def __init__(
        self,
        state_dir: Path,
        address: BrokerAddress,
        topics: Topics,
        boot: int,
        *,
        info: Mapping[str, Any],
        timing: Timing | None = None,
    ) -> None:
        self.address = address
        self.topics = topics
        self._state_dir = state_dir
        self._boot = boot
        self._timing = timing or Timing()
        self._condition = Condition()
        self._info = self._encoded_info(info)
        self._ends_at: list[int] = []
        self._stopping = threading.Event()
        self._flush_until_s = self._deadline_s = float("inf")
        self._thread = threading.Thread(target=self._live, name="fisher-edge-publisher", daemon=True)

    def __enter__(self) -> "Publisher":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Deliver what can be delivered in the time, publish `offline`, disconnect; True when nothing is left.

        What is left stays in the outbox and is sent, marked as a replay, after the next start.
        """
        self._deadline_s = time.monotonic() + timeout_s
        self._flush_until_s = self._deadline_s - min(1.0, timeout_s / 4)
        self._stopping.set()
        self._thread.join(timeout_s)
        condition = self._condition
        if condition.waiting:
            log.warning("stopped with %d messages in the outbox; they are sent after the next start", condition.waiting)
        return not self._thread.is_alive() and condition.waiting == 0

    def condition(self) -> Condition:
        """Return how delivery fares; callable from any thread."""
        return self._condition

    def is_alive(self) -> bool:
        """Tell whether the thread runs: until stopped, or until the database turns out to be damaged."""
        return self._thread.is_alive()

    def set_info(self, info: Mapping[str, Any]) -> None:
        """Replace what `…/info` says; callable from any thread."""
        self._info = self._encoded_info(info)

    def _encoded_info(self, info: Mapping[str, Any]) -> bytes:
        """Build the payload of `…/info`."""
        return encode(info_message(info, gateway=self.topics.gateway))

    def _live(self) -> None:
        """Run until stopped, whatever happens but damage to the outbox."""
        while not self._stopping.is_set():
            try:
                with Store(self._state_dir, set_aside=False) as store:
                    self._deliver(Outbox(store, self.topics, self._boot))
            except DamagedStateError as error:
                self._failed(error)
                return
            except Exception as error:  # noqa: BLE001 -- reported; a thread that ends is a silent loss
                self._failed(error)
                self._stopping.wait(self._timing.pause_s(self._condition.attempts, error))

    def _deliver(self, outbox: Outbox) -> None:
        """Connect, and connect again, until stopped; what is not the broker's fault goes to the caller."""
        while not self._stopping.is_set():
            started_s = time.monotonic()
            try:
                self._serve(outbox)
            except BrokerError as error:
                if self._condition.connected and time.monotonic() - started_s > self._timing.stable_s:
                    self._condition = replace(self._condition, attempts=0)
                self._failed(error)
                self._pause(outbox, self._timing.pause_s(self._condition.attempts, error))

    def _serve(self, outbox: Outbox) -> None:
        """Hold one connection until it is lost (BrokerError) or the publisher is stopped."""
        with closing(Session(self.address, self.topics.base.replace("/", "-"), self.topics.status)) as session:
            session.open()
            self._connected()
            delivery = Delivery(session, outbox, self._timing.acknowledge_s)
            try:
                self._hold(delivery, outbox)
                self._farewell(session, delivery, outbox)
            except BrokerError as error:
                raise self._blamed(error, delivery.first_in_flight) from error

    def _hold(self, delivery: "Delivery", outbox: Outbox) -> None:
        """Deliver until stopped, and then as long as rows are left and time is."""
        delivery.announce(self.topics.status, ONLINE)
        info = None
        while not (self._stopping.is_set() and (delivery.done or time.monotonic() > self._flush_until_s)):
            if info is not self._info:
                info = self._info
                delivery.announce(self.topics.info, info)
            self._count(outbox, delivery.step(POLL_S))

    def _farewell(self, session: Session, delivery: "Delivery", outbox: Outbox) -> None:
        """Publish `offline` and disconnect; when there is no time for that, the last will says it."""
        delivery.announce(self.topics.status, OFFLINE)
        while delivery.busy and time.monotonic() < self._deadline_s:
            self._count(outbox, delivery.settle(POLL_S))
        if not delivery.busy:
            session.disconnect()
        self._condition = replace(self._condition, connected=False)

    def _blamed(self, error: BrokerError, first: Row | None) -> BrokerError:
        """Name the message that every connection of late has ended at: the broker may refuse it."""
        self._ends_at = [*self._ends_at[1 - SUSPECT_AFTER :], first.id if first else 0]
        if first is None or self._ends_at != [first.id] * SUSPECT_AFTER:
            return error
        return BrokerError(
            f"{error}; the last {SUSPECT_AFTER} connections ended at a message of {len(first.payload)} bytes to"
            f" {first.topic}: may this client publish there, is it too large for the broker?"
        )

    def _pause(self, outbox: Outbox, pause_s: float) -> None:
        """Wait before the next attempt, keeping the numbers of the condition fresh."""
        until_s = time.monotonic() + pause_s
        while (left_s := until_s - time.monotonic()) > 0 and not self._stopping.wait(min(left_s, 0.5)):
            self._count(outbox, 0)

    def _count(self, outbox: Outbox, delivered: int) -> None:
        """Bring the numbers of the condition up to date."""
        totals = outbox.totals()
        self._condition = replace(
            self._condition,
            waiting=totals.waiting,
            oldest_age_s=outbox.oldest_age_s(),
            published=self._condition.published + delivered,
            dropped=totals.dropped,
        )

    def _connected(self) -> None:
        """Note that the broker has accepted the connection."""
        self._condition = replace(self._condition, connected=True, last_error=None)
        log.info("connected to %s", self.address)

    def _failed(self, error: Exception) -> None:
        """Note a failure, and log it when it is not the one before."""
        expected = isinstance(error, FisherEdgeError)
        text = str(error) if expected else f"internal error, {type(error).__name__}: {error}"
        changed = text != self._condition.last_error
        self._condition = replace(
            self._condition, connected=False, last_error=text, attempts=self._condition.attempts + 1
        )
        if changed:
            log.warning("%s; messages wait in the outbox", text, exc_info=None if expected else error)


class Delivery:
    """What one connection has sent and not yet seen acknowledged.

    It starts with one row on its way and takes one more for each acknowledged, up to `WINDOW`: a row that the broker
    hangs up on ends up alone, so that it, and no message sent beside it, is the one that was not acknowledged.
    """

    def __init__(self, session: Session, outbox: Outbox, acknowledge_s: float) -> None:
        self._session = session
        self._outbox = outbox
        self._acknowledge_s = acknowledge_s
        self._in_flight: dict[int, Row | None] = {}  # by message number, None for what is not from the outbox
        self._window = 1
        self._last_id = 0
        self._progress_s = time.monotonic()

    @property
    def busy(self) -> bool:
        """Tell whether an acknowledgement is due."""
        return bool(self._in_flight)

    @property
    def first_in_flight(self) -> Row | None:
        """Return the row that the broker has to acknowledge next, unless something else comes before it."""
        return next(iter(self._in_flight.values()), None)

    @property
    def done(self) -> bool:
        """Tell whether everything in the outbox was sent and acknowledged."""
        return not self._in_flight and not self._outbox.next_rows(self._last_id, 1)

    def announce(self, topic: str, payload: bytes) -> None:
        """Send a retained message that is not from the outbox."""
        self._send(topic, payload, None, retain=True)

    def step(self, timeout_s: float) -> int:
        """Send as many rows as may be on their way, take in acknowledgements, return how many rows are done."""
        room = self._window - len(self._in_flight)
        for row in self._outbox.next_rows(self._last_id, room) if room > 0 else ():
            payload = with_replay(row.payload, replay=self._outbox.is_late(row))
            self._send(row.topic, payload, row, retain=row.retain)
            self._last_id = row.id
        return self.settle(timeout_s)

    def settle(self, timeout_s: float) -> int:
        """Take in acknowledgements and delete their rows; return how many rows are done."""
        acknowledged = self._session.run(timeout_s)
        rows = [row.id for row in map(self._in_flight.pop, acknowledged) if row is not None]
        if rows:
            self._outbox.delete(rows)
            self._window = min(WINDOW, self._window + len(rows))
        now_s = time.monotonic()
        if acknowledged:
            self._progress_s = now_s
        elif self._in_flight and now_s - self._progress_s > self._acknowledge_s:
            raise BrokerError(
                f"{self._session.address} has acknowledged nothing for {self._acknowledge_s:g} s:"
                " is the broker overloaded or the connection half open?"
            )
        return len(rows)

    def _send(self, topic: str, payload: bytes, row: Row | None, *, retain: bool) -> None:
        """Send one message."""
        if not self._in_flight:
            self._progress_s = time.monotonic()
        self._in_flight[self._session.publish(topic, payload, retain=retain)] = row
