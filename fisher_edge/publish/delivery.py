"""Delivery over one connection: what was sent and is not yet acknowledged. Start at `Delivery.step`."""

import logging
import time
from dataclasses import dataclass, field

from fisher_edge.errors import BrokerError, DamagedStateError, StateError
from fisher_edge.publish.message import Topics, wire
from fisher_edge.publish.refusals import InFlight, Refusals
from fisher_edge.publish.session import Session
from fisher_edge.store.body import DamagedRowError
from fisher_edge.store.records import Records, Row

__all__ = ["WINDOW", "Delivery", "Settled"]

# Messages that may be on their way at once.
WINDOW = 20
# While the database cannot be written, so many delivered rows are kept in mind, and it is tried again so often.
MOST_UNNOTED = 1000
RETRY_S = 1.0

log = logging.getLogger(__name__)


@dataclass
class Settled:
    """Rows that the broker has and the database does not know of yet; they outlive a connection and are not resent."""

    rows: list[Row] = field(default_factory=list)
    _next_try_s: float = 0.0

    def note(self, records: Records) -> None:
        """Write into the database that the broker has the rows; a full disk or a lock puts it off."""
        if not self.rows or time.monotonic() < self._next_try_s:
            return
        try:
            records.delivered(self.rows)
        except DamagedStateError:
            raise
        except StateError as error:
            if not self._next_try_s:
                log.warning("%s; %d delivered messages cannot be noted yet", error, len(self.rows))
            self._next_try_s = time.monotonic() + RETRY_S
        else:
            self.rows.clear()
            self._next_try_s = 0.0


class Delivery:
    """What one connection has sent and not yet seen acknowledged.

    Up to `WINDOW` rows are on their way at once. Those that were when a connection was closed are sent one at a time:
    the broker may refuse one of them, which then is the only one that can be blamed.
    """

    def __init__(
        self,
        session: Session,
        records: Records,
        topics: Topics,
        *,
        settled: Settled,
        refusals: Refusals,
        acknowledge_s: float,
    ) -> None:
        self._session = session
        self._records = records
        self._topics = topics
        self._settled = settled
        self._refusals = refusals
        self._acknowledge_s = acknowledge_s
        self._in_flight: dict[int, InFlight | None] = {}  # by message number, None for an announcement
        self._empty_at: int | None = None  # version of the database at which nothing waited
        self._progress_s = time.monotonic()
        self.set_aside: str | None = None

    @property
    def busy(self) -> bool:
        """Whether an acknowledgement is due."""
        return bool(self._in_flight)

    @property
    def on_their_way(self) -> list[InFlight | None]:
        """What was sent and not acknowledged; None for an announcement."""
        return list(self._in_flight.values())

    @property
    def done(self) -> bool:
        """Whether everything that waits was sent and acknowledged."""
        return not self._in_flight and not self._records.waiting(1, self._settled.rows)

    def announce(self, topic: str, payload: bytes) -> None:
        """Send a retained message that is no row."""
        self._send(topic, payload, None, retain=True)

    def step(self, timeout_s: float) -> int:
        """Send as many rows as may be on their way, take in acknowledgements, return how many rows are done."""
        room = WINDOW - len(self._in_flight)
        if room >= WINDOW // 2 and len(self._settled.rows) < MOST_UNNOTED:
            sent = [each.row for each in self._in_flight.values() if each]
            for row in self._waiting(room, sent):
                if self._in_flight and any(map(self._refusals.doubts, [row, *sent])):
                    break
                self._send_row(row)
                sent.append(row)
        return self.settle(timeout_s)

    def _waiting(self, room: int, sent: list[Row]) -> list[Row]:
        """Return rows to send; when there was none, only once somebody has written since."""
        version = self._records.database.version()
        if version == self._empty_at:
            return []
        rows = self._records.waiting(room, [*self._settled.rows, *sent])
        self._empty_at = None if rows or self._in_flight else version
        return rows

    def settle(self, timeout_s: float) -> int:
        """Take in acknowledgements and note their rows as delivered; return how many rows are done."""
        acknowledged = self._session.run(timeout_s)
        while acknowledged and (more := self._session.run(0.0)):
            acknowledged += more
        done = [each for each in map(self._in_flight.pop, acknowledged) if each is not None]
        for each in done:
            self._refusals.accepted(each)
        self._settled.rows += [each.row for each in done]
        self._settled.note(self._records)
        now_s = time.monotonic()
        if acknowledged:
            self._progress_s = now_s
        elif self._in_flight and now_s - self._progress_s > self._acknowledge_s:
            raise BrokerError(
                f"{self._session.address} has acknowledged nothing for {self._acknowledge_s:g} s:"
                " is the broker overloaded or the connection half open?"
            )
        return len(done)

    def _send_row(self, row: Row) -> None:
        """Send one row, or set it aside when it cannot be sent."""
        try:
            message = wire(row, self._topics, replay=self._records.is_late(row))
        except DamagedRowError as error:
            self.put_aside(row, str(error))
            return
        if self._refusals.holds(message.topic):
            self._refusals.resent(self._records.totals().resends)
        if self._refusals.holds(message.topic):
            self.put_aside(row, f"the broker refuses {message.topic}")
            return
        self._send(
            message.topic, message.payload, InFlight(row, message.topic, len(message.payload)), retain=message.retain
        )

    def put_aside(self, row: Row, reason: str) -> None:
        """Take a row out of the way."""
        self._records.set_aside(row, reason)
        if reason != self.set_aside:
            log.warning("a message of %s was set aside: %s", row.key, reason)
        self.set_aside = reason

    def _send(self, topic: str, payload: bytes, row: InFlight | None, *, retain: bool) -> None:
        """Send one message."""
        if not self._in_flight:
            self._progress_s = time.monotonic()
        self._in_flight[self._session.publish(topic, payload, retain=retain)] = row
