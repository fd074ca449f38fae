"""What waits for the broker, in SQLite: written first, published second, deleted when the broker has it.

Start at `Outbox.put`. The publisher reads with `next_rows` in the order of writing and confirms with `delete`.
"""

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fisher_edge.errors import UsageError
from fisher_edge.publish.message import Kind, Topics, channel_message, encode, seconds
from fisher_edge.store import Store

__all__ = ["REPLAY_AFTER_S", "Outbox", "Row", "Totals"]

REPLAY_AFTER_S = 5.0
"""A row that waited longer than this before it was sent is marked `replay`."""

SMALLEST_BYTES = 64 * 1024
SIZE = "length(payload) + length(topic) + 64"
"""What a row costs: the last term stands for its numbers and its two index entries."""

INSERT = (
    "INSERT INTO outbox (kind, boot, seq, topic, payload, retain, created_s) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 -- constant
    f" RETURNING {SIZE}"
)

DROP_ORDER: tuple[Kind, ...] = ("result", "state", "event")
ROOM_AGAIN = 0.8
"""Dropping is over when the outbox is below this share of its limits."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One message that waits; `payload` has no `replay` field yet."""

    id: int
    kind: Kind
    boot: int
    seq: int | None
    topic: str
    payload: bytes
    retain: bool
    created_s: float


@dataclass(frozen=True)
class Totals:
    """How much waits, and how much was dropped since the database began."""

    waiting: int
    bytes: int
    dropped_results: int
    dropped_events: int
    dropped_states: int

    @property
    def dropped(self) -> int:
        """Return how many messages were dropped in all."""
        return self.dropped_results + self.dropped_events + self.dropped_states


class Outbox:
    """The messages of one gateway that the broker has not acknowledged, bounded in bytes and age.

    Belongs to the thread of its store; any number may be open on one database. Results are numbered per boot from 1
    without gaps, events likewise: (gateway, boot, seq) identifies a message of a kind. When there is no room the
    oldest results go first, then states, then events; results older than `max_age_s` go as well. What is dropped
    is counted in the database.
    """

    def __init__(
        self,
        store: Store,
        topics: Topics,
        boot: int,
        *,
        max_bytes: int = 64 * 1024 * 1024,
        max_age_s: float = 7 * 86400.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if max_bytes < SMALLEST_BYTES:
            raise UsageError(f"max_bytes={max_bytes} of the outbox is below {SMALLEST_BYTES}, which a few rows need")
        self.store = store
        self.topics = topics
        self.boot = boot
        self.max_bytes = max_bytes
        self.max_age_s = max_age_s
        self._clock = clock
        self._started_s = time.monotonic()
        self._dropping = False

    def put(
        self,
        asset: str,
        channel: str,
        *,
        result: Mapping[str, Any] | None = None,
        event: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> int | None:
        """Write what one window gave, in one transaction, and return the number of its result.

        The fields are those of the message without its identity (see `channel_message`). An event needs `time`; it is
        kept in the store's event table as well and flushed to the disk. A state replaces the one of its channel that
        still waits.
        """
        with self.store.transaction(durable=event is not None) as connection:
            seq = None
            if result is not None:
                seq = _next_seq(connection, self.boot, "result")
                self._insert(connection, "result", asset, channel, seq, result)
            if event is not None:
                event_seq = _next_seq(connection, self.boot, "event")
                message = self._insert(connection, "event", asset, channel, event_seq, event)
                self.store.add_event(asset, channel, seconds(message["time"]), message)
            if state is not None:
                _withdraw(connection, self.topics.state(asset, channel))
                self._insert(connection, "state", asset, channel, seq, state)
            dropped = self._make_room(connection)
        self._report(dropped)
        return seq

    def put_result(self, asset: str, channel: str, fields: Mapping[str, Any]) -> int | None:
        """Write a result alone and return its number."""
        return self.put(asset, channel, result=fields)

    def put_event(self, asset: str, channel: str, fields: Mapping[str, Any]) -> None:
        """Write an event alone."""
        self.put(asset, channel, event=fields)

    def put_state(self, asset: str, channel: str, fields: Mapping[str, Any]) -> None:
        """Write a state that no result led to, such as no data."""
        self.put(asset, channel, state=fields)

    def next_rows(self, after_id: int, limit: int) -> list[Row]:
        """Return the rows that follow one, oldest first; ids grow in the order of the commits."""
        rows = self.store.query(
            "SELECT id, kind, boot, seq, topic, payload, retain, created_s"
            " FROM outbox WHERE id > ? ORDER BY id LIMIT ?",
            (after_id, limit),
        )
        return [Row(*row) for row in rows]

    def delete(self, ids: Sequence[int]) -> None:
        """Remove rows that the broker has acknowledged; those already gone do not matter."""
        with self.store.transaction() as connection:
            _delete(connection, ids)

    def is_late(self, row: Row) -> bool:
        """Tell whether a row sent now is a replay: an earlier boot wrote it, or it waited over `REPLAY_AFTER_S`."""
        return row.boot != self.boot or self._clock() - row.created_s > REPLAY_AFTER_S

    def totals(self) -> Totals:
        """Return how much waits and how much was dropped."""
        rows = self.store.query("SELECT waiting, bytes, dropped_result, dropped_event, dropped_state FROM outbox_total")
        return Totals(*rows[0])

    def depth(self) -> int:
        """Return how many rows wait."""
        return self.totals().waiting

    def oldest_age_s(self) -> float:
        """Return for how long the first row has waited, 0 when none waits."""
        rows = self.store.query("SELECT created_s FROM outbox ORDER BY id LIMIT 1")
        return max(0.0, self._clock() - rows[0][0]) if rows else 0.0

    def _insert(
        self,
        connection: sqlite3.Connection,
        kind: Kind,
        asset: str,
        channel: str,
        seq: int | None,
        fields: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Append one message and return it."""
        message = channel_message(
            kind, fields, gateway=self.topics.gateway, asset=asset, channel=channel, boot=self.boot, seq=seq
        )
        topic = self.topics.channel(asset, channel, kind)
        size = connection.execute(
            INSERT,
            (kind, self.boot, seq, topic, encode(message), kind == "state", self._clock()),
        ).fetchone()
        connection.execute("UPDATE outbox_total SET waiting = waiting + 1, bytes = bytes + ?", size)
        return message

    def _make_room(self, connection: sqlite3.Connection) -> int:
        """Drop what exceeds the limits, the least valuable first, and return the number of rows dropped."""
        excess = self.totals().bytes - self.max_bytes
        dropped = 0
        for kind in DROP_ORDER:
            doomed = []
            for row_id, size, boot, created_s in connection.execute(
                f"SELECT id, {SIZE}, boot, created_s FROM outbox WHERE kind = ? ORDER BY id",  # noqa: S608 -- constant
                (kind,),
            ):
                if excess <= 0 and not (kind == "result" and self._is_too_old(boot, created_s)):
                    break
                doomed.append(row_id)
                excess -= size
            if doomed:
                _delete(connection, doomed)
                connection.execute(
                    f"UPDATE outbox_total SET dropped_{kind} = dropped_{kind} + ?",  # noqa: S608 -- constant
                    (len(doomed),),
                )
                dropped += len(doomed)
        return dropped

    def _is_too_old(self, boot: int, created_s: float, share: float = 1.0) -> bool:
        """Tell whether a result has waited for too long.

        A clock that is set right after the start must not age the rows of this boot: they are no older than it.
        """
        limit_s = share * self.max_age_s
        now_s = self._clock()
        return now_s - created_s > limit_s and (boot != self.boot or time.monotonic() - self._started_s > limit_s)

    def _report(self, dropped: int) -> None:
        """Log when dropping begins and when it is over."""
        if dropped and not self._dropping:
            self._dropping = True
            log.warning(
                "the outbox is over its limit of %.1f MB or %.1f days: dropping the oldest results",
                self.max_bytes / 1e6,
                self.max_age_s / 86400,
            )
        elif self._dropping and not dropped and self._has_room():
            self._dropping = False
            log.info("the outbox has room again; dropped since the database began: %d", self.totals().dropped)

    def _has_room(self) -> bool:
        """Tell whether the outbox is well below its limits."""
        if self.totals().bytes > ROOM_AGAIN * self.max_bytes:
            return False
        oldest = self.store.query("SELECT boot, created_s FROM outbox WHERE kind = 'result' ORDER BY id LIMIT 1")
        return not any(self._is_too_old(boot, created_s, ROOM_AGAIN) for boot, created_s in oldest)


def _next_seq(connection: sqlite3.Connection, boot: int, kind: Kind) -> int:
    """Take the next number of a kind, in the transaction that uses it."""
    row = connection.execute(
        f"UPDATE boot SET {kind}_seq = {kind}_seq + 1 WHERE boot = ? RETURNING {kind}_seq",  # noqa: S608 -- constant
        (boot,),
    ).fetchone()
    if row is None:
        raise UsageError(f"boot={boot} is not in the database; take the number from Store.new_boot()")
    return int(row[0])


def _withdraw(connection: sqlite3.Connection, topic: str) -> None:
    """Remove the state of a topic that still waits: a newer one takes its place."""
    rows = connection.execute("SELECT id FROM outbox WHERE kind = 'state' AND topic = ?", (topic,)).fetchall()
    _delete(connection, [row[0] for row in rows])


def _delete(connection: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Remove rows and keep the totals in step."""
    sizes = connection.execute(
        f"DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?)) RETURNING {SIZE}",  # noqa: S608 -- constant
        (json.dumps(list(ids)),),
    ).fetchall()
    connection.execute(
        "UPDATE outbox_total SET waiting = waiting - ?, bytes = bytes - ?",
        (len(sizes), sum(size for (size,) in sizes)),
    )
