"""From the records to the broker: one thread that delivers, reconnects and says how it fares. Start at `Publisher`."""

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from fisher_edge.errors import BrokerError, DamagedStateError, FisherEdgeError, StateError, UsageError
from fisher_edge.names import ChannelKey
from fisher_edge.publish.address import BrokerAddress
from fisher_edge.publish.delivery import Delivery, Settled
from fisher_edge.publish.message import OFFLINE, ONLINE, Info, Topics, info_message
from fisher_edge.publish.refusals import REFUSED_AFTER, Refusals
from fisher_edge.publish.session import ConnectionClosedError, CredentialsRefusedError, Session
from fisher_edge.store.body import to_text
from fisher_edge.store.bounds import Limits
from fisher_edge.store.database import Database
from fisher_edge.store.records import Records, Totals

__all__ = ["Condition", "Publisher", "Timing"]

# How often an idle connection looks for new rows, and how often the totals are read.
POLL_S = 0.05
COUNT_S = 0.2

Listener = Callable[[bytes], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timing:
    """How patient the publisher is.

    The pause between attempts doubles from the first to the longest; a connection that lasted `stable_s` starts it
    again. No acknowledgement for `acknowledge_s` while messages are on their way ends a connection.
    """

    first_retry_s: float = 1.0
    longest_retry_s: float = 30.0
    refused_retry_s: float = 60.0
    stable_s: float = 10.0
    acknowledge_s: float = 15.0

    def pause_s(self, attempts: int, error: BaseException) -> float:
        """Return how long to wait after a failure: doubling up to a cap, with jitter so that a fleet spreads."""
        longest = self.longest_retry_s
        wait_s = min(longest, self.first_retry_s * 2.0 ** min(attempts - 1, 30))
        if isinstance(error, CredentialsRefusedError):
            wait_s = self.refused_retry_s
        return wait_s * random.uniform(0.5, 1.0)  # noqa: S311 -- not a secret


@dataclass(frozen=True)
class Condition:
    """How delivery fares; a snapshot that never changes.

    `last_error` says why there is no connection, or why there may soon be none; `attempts` have failed since the last
    stable connection. `published` counts the rows that the broker took since the start; `totals` says what waits, is
    set aside and was dropped, by kind.
    """

    address: str
    connected: bool = False
    last_error: str | None = None
    attempts: int = 0
    published: int = 0
    oldest_age_s: float = 0.0
    last_set_aside: str | None = None
    totals: Totals = field(default_factory=lambda: Totals(0, 0, 0, 0, 0, 0))

    @property
    def waiting(self) -> int:
        """Messages that wait for the broker."""
        return self.totals.waiting

    @property
    def dropped(self) -> int:
        """Messages that were dropped since the database began."""
        return self.totals.dropped

    @property
    def set_aside(self) -> int:
        """Messages that the broker refuses."""
        return self.totals.set_aside


class Publisher:
    """The thread between records and broker; use it as a context manager or call `start` and `stop`.

    Rows are sent with QoS 1, each kind in the order of writing, and noted as delivered when the broker has acknowledged
    them. After any failure the connection is discarded and delivery starts again at the first row not acknowledged, so
    the broker may get a row twice, with the same (gateway, boot, seq), but never out of order. With every connection
    the latest state of each channel is sent again; those of channels that are not among `channels` are cleared.
    `listeners` take what others send to their topics, on the thread of the publisher.
    """

    def __init__(
        self,
        state_dir: Path,
        address: BrokerAddress,
        topics: Topics,
        boot: int,
        *,
        limits: Limits,
        channels: Collection[ChannelKey],
        info: Info,
        listeners: Mapping[str, Listener] | None = None,
        timing: Timing | None = None,
    ) -> None:
        self.address = address
        self.topics = topics
        self._state_dir = state_dir
        self._boot = boot
        self._limits = limits
        self._channels = frozenset(channels)
        self._listeners = listeners or {}
        self._timing = timing or Timing()
        self._condition = Condition(str(address))
        self._info = self._encoded_info(info)
        self._settled = Settled()
        self._refusals = Refusals()
        self._said: str | None = None
        self._next_count_s = 0.0
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

        What is left stays in the database and is sent, marked as a replay, after the next start.
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
        """Whether the thread runs: until stopped, or until the database turns out to be damaged."""
        return self._thread.is_alive()

    def set_info(self, info: Info) -> None:
        """Replace what `…/info` says; callable from any thread."""
        self._info = self._encoded_info(info)

    def _encoded_info(self, info: Info) -> bytes:
        return to_text(info_message(info, gateway=self.topics.gateway))

    def _live(self) -> None:
        """Run until stopped, whatever happens but damage to the database."""
        while not self._stopping.is_set():
            try:
                with Database(self._state_dir, set_aside=False) as database:
                    self._deliver(Records(database, self._boot, limits=self._limits))
            except DamagedStateError as error:
                self._failed(error)
                return
            except Exception as error:  # noqa: BLE001 -- reported; a thread that ends is a silent loss
                self._failed(error)
                self._stopping.wait(self._timing.pause_s(self._condition.attempts, error))

    def _deliver(self, records: Records) -> None:
        """Connect, and connect again, until stopped; what is not the broker's fault goes to the caller."""
        for key in records.retire(self._channels):
            log.info("channel %s is not configured any more: clearing its state at the broker", key)
        self._refusals.resent(records.totals().resends)
        while not self._stopping.is_set():
            try:
                self._serve(records)
            except (BrokerError, UsageError) as error:  # UsageError: the ca_file cannot be used
                self._failed(error)
                self._pause(records, self._timing.pause_s(self._condition.attempts, error))

    def _serve(self, records: Records) -> None:
        """Hold one connection until it is lost (BrokerError) or the publisher is stopped."""
        with closing(Session(self.address, self.topics.base.replace("/", "-"), self.topics.status)) as session:
            try:
                session.open()
            except BrokerError:
                self._refusals.failed()
                raise
            started_s = time.monotonic()
            self._connected(records)
            delivery = Delivery(
                session,
                records,
                self.topics,
                settled=self._settled,
                refusals=self._refusals,
                acknowledge_s=self._timing.acknowledge_s,
            )
            try:
                session.subscribe(self._listeners)
                self._hold(session, delivery, records)
                self._farewell(session, delivery, records)
            except BrokerError as error:
                raise self._ended(error, delivery, time.monotonic() - started_s) from error

    def _hold(self, session: Session, delivery: Delivery, records: Records) -> None:
        """Deliver until stopped, and then as long as rows are left and time is; hand out what others send."""
        delivery.announce(self.topics.status, ONLINE)
        info = None
        while not (self._stopping.is_set() and (delivery.done or time.monotonic() > self._flush_until_s)):
            if info is not self._info:
                info = self._info
                delivery.announce(self.topics.info, info)
            self._count(records, delivery.step(POLL_S), delivery.set_aside)
            for topic, payload in session.received():
                self._hear(topic, payload)

    def _hear(self, topic: str, payload: bytes) -> None:
        """Hand a message to its listener; whatever is wrong with either, delivery goes on."""
        try:
            self._listeners[topic](payload)
        except Exception:
            log.exception("a message to %s could not be taken", topic)

    def _farewell(self, session: Session, delivery: Delivery, records: Records) -> None:
        """Publish `offline` and disconnect; when there is no time for that, the last will says it."""
        delivery.announce(self.topics.status, OFFLINE)
        while delivery.busy and time.monotonic() < self._deadline_s:
            self._count(records, delivery.settle(POLL_S), delivery.set_aside)
        if not delivery.busy:
            session.disconnect()
        self._count_rows(records)
        self._condition = replace(self._condition, connected=False)

    def _ended(self, error: BrokerError, delivery: Delivery, lasted_s: float) -> BrokerError:
        """Draw conclusions from the end of an accepted connection, and say why it ended."""
        if lasted_s > self._timing.stable_s:
            self._condition = replace(self._condition, attempts=0)
        if not isinstance(error, ConnectionClosedError):
            self._refusals.failed()
            return error
        on_their_way = delivery.on_their_way
        if self._refusals.closed(on_their_way, lasted_s) and (refused := on_their_way[0]):
            delivery.put_aside(
                refused.row,
                f"{self.address} closed {REFUSED_AFTER} connections in a row at a message of {refused.payload_bytes}"
                f" bytes to {refused.topic}: may this client publish there, is it too large for the broker?",
            )
            self._condition = replace(self._condition, last_set_aside=delivery.set_aside)
        if self._refusals.taken_over:
            return BrokerError(
                f"{self.address} closes connections that it has just accepted, again and again: does another gateway"
                f" use the name {self.topics.gateway!r}? give each its own name under [gateway]"
            )
        return error

    def _pause(self, records: Records, pause_s: float) -> None:
        """Wait before the next attempt, keeping the numbers of the condition fresh."""
        until_s = time.monotonic() + pause_s
        while (left_s := until_s - time.monotonic()) > 0 and not self._stopping.wait(min(left_s, 0.5)):
            self._settled.note(records)
            self._count(records, 0, None)

    def _count(self, records: Records, delivered: int, set_aside: str | None) -> None:
        """Bring the numbers of the condition up to date, those of the database from time to time."""
        self._condition = replace(
            self._condition,
            published=self._condition.published + delivered,
            last_set_aside=set_aside or self._condition.last_set_aside,
        )
        if time.monotonic() >= self._next_count_s:
            self._next_count_s = time.monotonic() + COUNT_S
            self._count_rows(records)

    def _count_rows(self, records: Records) -> None:
        """Read the totals."""
        totals = records.totals()
        oldest_age_s = records.oldest_age_s() if totals.waiting else 0.0
        self._condition = replace(self._condition, oldest_age_s=oldest_age_s, totals=totals)

    def _connected(self, records: Records) -> None:
        """Note that the broker has accepted the connection, and let it have the latest states again."""
        self._condition = replace(self._condition, connected=True)
        if not self._refusals.taken_over:
            self._condition = replace(self._condition, last_error=None)
            self._said = None
            log.info("connected to %s", self.address)
        try:
            records.renew_states()
        except DamagedStateError:
            raise
        except StateError as error:  # a full disk: what waits is more important
            log.warning("%s; the states at the broker may be out of date", error)

    def _failed(self, error: Exception) -> None:
        """Note a failure, and log it when it is not the one before."""
        expected = isinstance(error, FisherEdgeError)
        text = str(error) if expected else f"internal error, {type(error).__name__}: {error}"
        self._condition = replace(
            self._condition, connected=False, last_error=text, attempts=self._condition.attempts + 1
        )
        if text != self._said:
            log.warning("%s; messages wait in the outbox", text, exc_info=None if expected else error)
        self._said = text
