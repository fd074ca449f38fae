"""Results, events and states: written first, published second, then kept as history. Start at `Records.put`.

The publisher reads with `waiting` and confirms with `delivered` or `set_aside`. All SQL of the tables `record`,
`record_total` and `standing` is here and in `bounds.py`.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from typing import Literal, TypeVar, overload

from fisher_edge.decision.judgement import Change, Result, Standing
from fisher_edge.errors import BadInputError, DiskFullError, UsageError
from fisher_edge.names import ChannelKey
from fisher_edge.store.body import Body, Kind, encode
from fisher_edge.store.bounds import Bounds, Limits
from fisher_edge.store.database import Database, explained
from fisher_edge.store.rows import (
    Kept,
    Row,
    SetAside,
    Totals,
    change_of,
    kept_changes,
    kept_results,
    row_of,
    standing_of,
)
from fisher_edge.store.schema import DELIVERED, NEUTRAL, SET_ASIDE, WAITING, row_bytes

__all__ = ["REPLAY_AFTER_S", "Kept", "Limits", "Records", "Row", "SetAside", "Totals"]

# A row that waited longer than this before it was sent is a replay.
REPLAY_AFTER_S = 5.0
# Begin of the year 10000, which RFC 3339 cannot write.
LAST_TIME_S = 253_402_300_800.0

Outcome = TypeVar("Outcome")


class Records:
    """What one gateway has to say, and has said.

    Belongs to the thread of its database; any number may be open on one database file. Results are numbered per boot
    from 1 without gaps, events likewise: (gateway, boot, seq) identifies a message of a kind. Of the states only the
    latest of each channel is kept. What exceeds the limits is deleted, see `fisher_edge.store.bounds`.
    """

    def __init__(
        self,
        database: Database,
        boot: int,
        *,
        limits: Limits,
        clock: Callable[[], float] = time.time,
        running: Callable[[], float] = time.monotonic,
    ) -> None:
        self.database = database
        self.boot = boot
        self._bounds = Bounds(database, limits)
        self._clock = clock
        self._running = running
        self._run_offset_s: float = database.query("SELECT run_s FROM record_total")[0][0] - running()
        database.keep_reserve()

    def put(
        self,
        key: ChannelKey,
        *,
        result: Result | None = None,
        change: Change | None = None,
        standing: Standing | None = None,
    ) -> int | None:
        """Write what one window gave, or what happened without one, in one transaction; return the result's number.

        A change is flushed to the disk. A standing replaces that of its channel. A number that is not finite is a
        BadInputError that names it; then nothing is written. On a full disk the oldest results make room, and when
        that is not enough it is a DiskFullError.
        """
        key.check()
        for time_s in (value.time_s for value in (result and result.judgement, change, standing) if value):
            _check_time(time_s)
        values: dict[Kind, Body | None] = {"result": result, "event": change, "state": standing}
        bodies = encode({kind: value for kind, value in values.items() if value is not None})

        def write(connection: sqlite3.Connection) -> int | None:
            self._bounds.make_place(connection, sum(map(len, bodies.values())))
            seq = None
            if result is not None:
                seq = self._insert(connection, "result", key, result.judgement.time_s, bodies["result"])
            if change is not None:
                self._insert(connection, "event", key, change.time_s, bodies["event"])
                if change.after.judged:
                    self._note_judged(connection, key)
            if standing is not None:
                self._stand(connection, key, seq, bodies["state"])
            self._bounds.keep(connection, self._run_s())
            return seq

        seq = self._write(write, durable=change is not None)
        self._bounds.report()
        return seq

    def waiting(self, limit: int, besides: Collection[Row] = ()) -> list[Row]:
        """Return rows to send, in the order to send them, without those of `besides`.

        Each kind is in the order of writing. When more waits than `limit`, events are taken first, then states, then
        results: an alarm does not wait behind a day of results.
        """
        states = json.dumps([row.id for row in besides if row.kind == "state"])
        others = json.dumps([row.id for row in besides if row.kind != "state"])
        found = self._waiting_records("event", limit, others)
        latest = self.database.query(
            "SELECT 'state', id, asset, channel, boot, seq, run_s, dialect, body FROM standing WHERE status = 0"
            " AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT ?",
            (states, limit - len(found)),
        )
        found += self._waiting_records("result", limit - len(found) - len(latest), others)
        rows = [*sorted(found, key=lambda row: row.id), *(row_of(*each) for each in latest)]
        for row in rows:  # another connection may be ahead
            self._run_offset_s = max(self._run_offset_s, row.run_s - self._running())
        return rows

    def delivered(self, rows: Collection[Row]) -> None:
        """Note what the broker has: results and events become history. It works on a full disk as well."""

        def write(connection: sqlite3.Connection) -> None:
            ids = json.dumps([row.id for row in rows if row.kind != "state"])
            sizes = connection.execute(
                f"UPDATE record SET status = {DELIVERED} WHERE id IN (SELECT value FROM json_each(?))"
                f" AND status = {WAITING} RETURNING size",
                (ids,),
            ).fetchall()
            size = sum(size for (size,) in sizes)
            connection.execute(
                "UPDATE record_total SET waiting = waiting - ?, waiting_bytes = waiting_bytes - ?,"
                " kept_bytes = kept_bytes + ?",
                (len(sizes), size, size),
            )
            states = [(row.id,) for row in rows if row.kind == "state"]
            connection.executemany("DELETE FROM standing WHERE id = ? AND length(body) = 0", states)
            connection.executemany(
                f"UPDATE standing SET status = {DELIVERED} WHERE id = ? AND status = {WAITING}", states
            )
            self._bounds.keep(connection, self._run_s())

        self._write(write)

    def set_aside(self, row: Row, reason: str) -> None:
        """Take a row out of the way that the broker refuses, or that cannot be decoded."""

        def write(connection: sqlite3.Connection) -> None:
            table = "standing" if row.kind == "state" else "record"
            changed = connection.execute(
                f"UPDATE {table} SET status = {SET_ASIDE}, reason = ? WHERE id = ? AND status = {WAITING}",
                (reason, row.id),
            ).rowcount
            if row.kind != "state":
                connection.execute(
                    "UPDATE record_total SET waiting = waiting - ?, set_aside = set_aside + ?", (changed, changed)
                )

        self._write(write)

    def set_aside_rows(self, limit: int = 1000) -> list[SetAside]:
        """Return results and events that are set aside, oldest first."""
        rows = self.database.query(
            "SELECT created_s, reason, kind, id, asset, channel, boot, seq, run_s, dialect, body FROM record"
            f" WHERE status = {SET_ASIDE} ORDER BY id LIMIT ?",
            (limit,),
        )
        return [SetAside(row_of(*columns), created_s, reason) for created_s, reason, *columns in rows]

    def send_again(self, ids: Sequence[int] | None = None) -> int:
        """Let rows that were set aside wait for the broker again, by default all; return how many."""
        return self._release("UPDATE record SET status = 0, reason = NULL", ids, waiting=True)

    def delete_set_aside(self, ids: Sequence[int] | None = None) -> int:
        """Delete rows that were set aside, by default all; return how many."""
        return self._release("DELETE FROM record", ids, waiting=False)

    def is_late(self, row: Row) -> bool:
        """Whether a row sent now is a replay: an earlier boot wrote it, or it waited for over `REPLAY_AFTER_S`."""
        return row.boot != self.boot or self._run_s() - row.run_s > REPLAY_AFTER_S

    def totals(self) -> Totals:
        """Return how much waits, is kept, is set aside and was dropped; states count where they wait."""
        rows = self.database.query(
            "SELECT waiting + (SELECT count(*) FROM standing WHERE status = 0), waiting_bytes, kept_bytes,"
            f" set_aside + (SELECT count(*) FROM standing WHERE status = {SET_ASIDE}), dropped_result, dropped_event,"
            " resends FROM record_total"
        )
        return Totals(*rows[0])

    def oldest_age_s(self) -> float:
        """Return how long the oldest row has waited while gateways ran, 0 when none waits."""
        rows = self.database.query(
            "SELECT min(run_s) FROM (SELECT (SELECT run_s FROM record WHERE kind = 'result' AND status = 0 ORDER BY id"
            " LIMIT 1) AS run_s UNION ALL SELECT (SELECT run_s FROM record WHERE kind = 'event' AND status = 0"
            " ORDER BY id LIMIT 1) UNION ALL SELECT (SELECT min(run_s) FROM standing WHERE status = 0))"
        )
        oldest_s = rows[0][0]
        return 0.0 if oldest_s is None else max(0.0, self._run_s() - oldest_s)

    @overload
    def history(
        self, key: ChannelKey, kind: Literal["result"], *, since_s: float = ..., limit: int = ...
    ) -> list[Kept[Result]]: ...

    @overload
    def history(
        self, key: ChannelKey, kind: Literal["event"], *, since_s: float = ..., limit: int = ...
    ) -> list[Kept[Change]]: ...

    def history(
        self, key: ChannelKey, kind: Literal["result", "event"], *, since_s: float = 0.0, limit: int = 1000
    ) -> list[Kept[Result]] | list[Kept[Change]]:
        """Return the newest results or events of a channel whose samples are not older than `since_s`, oldest first.

        Those that still wait are among them. What cannot be decoded is left out, and so are the results that an earlier
        release wrote as messages.
        """
        rows = self.database.query(
            "SELECT id, boot, seq, time_s, dialect, body FROM record WHERE asset = ? AND channel = ? AND kind = ?"
            " AND time_s >= ? ORDER BY id DESC LIMIT ?",
            (*key, kind, since_s, limit),
        )
        rows.reverse()
        return kept_results(rows) if kind == "result" else kept_changes(rows)

    def last_change(self, key: ChannelKey, *, judged: bool = False) -> Kept[Change] | None:
        """Return the newest event of a channel, with `judged` the newest into normal, warning or alarm."""
        with explained(self.database.path):
            cursor = self.database.connection.execute(
                "SELECT id, boot, seq, time_s, dialect, body FROM record"
                " WHERE asset = ? AND channel = ? AND kind = 'event' ORDER BY id DESC",
                tuple(key),
            )
            for row_id, boot, seq, time_s, dialect, body in cursor:
                change = change_of(time_s, dialect, body)
                if change is not None and (change.after.judged or not judged):
                    return Kept(row_id, boot, seq, change)
        return None

    def standings(self, key: ChannelKey | None = None) -> list[tuple[ChannelKey, Standing]]:
        """Return the latest state of every channel, or of one; without what an earlier release wrote, or is damaged."""
        rows = self.database.query(
            "SELECT asset, channel, body FROM standing"
            " WHERE (?1 IS NULL OR asset = ?1) AND (?2 IS NULL OR channel = ?2)"
            f" AND dialect = {NEUTRAL} AND length(body) > 0 ORDER BY asset, channel",
            tuple(key or (None, None)),
        )
        found = ((ChannelKey(asset, channel), standing_of(body)) for asset, channel, body in rows)
        return [(each, standing) for each, standing in found if standing is not None]

    def renew_states(self) -> None:
        """Let the latest state of every channel wait again: a broker may have forgotten the retained ones."""
        self._write(
            lambda connection: connection.execute(
                f"UPDATE standing SET status = {WAITING} WHERE status = {DELIVERED} AND body IS NOT NULL"
            )
        )

    def retire(self, channels: Collection[ChannelKey]) -> list[ChannelKey]:
        """Replace the states of all channels but these by empty ones, which clear what is retained; return those."""
        known = self.database.query("SELECT asset, channel FROM standing WHERE body IS NULL OR length(body) > 0")
        gone = [key for key in (ChannelKey(*row) for row in known) if key not in channels]

        def write(connection: sqlite3.Connection) -> None:
            for key in gone:
                self._stand(connection, key, None, b"")

        if gone:
            self._write(write)
        return gone

    def _write(self, work: Callable[[sqlite3.Connection], Outcome], *, durable: bool = False) -> Outcome:
        """Run a transaction; when the disk is full give up the reserve and try once more."""
        try:
            with self.database.transaction(durable=durable) as connection:
                outcome = work(connection)
        except DiskFullError:
            if not self.database.give_up_reserve():
                raise
            with self.database.transaction(durable=durable) as connection:
                outcome = work(connection)
        else:
            self.database.keep_reserve()
        if self.database.is_disk_short():
            self.database.empty_log()  # others may take the rest of the room at any time
        if self._bounds.deleted:
            self._bounds.deleted = False
            self.database.shrink()
        return outcome

    def _run_s(self) -> float:
        """Seconds that gateways have run on this database: a clock that nobody sets."""
        return self._run_offset_s + self._running()

    def _insert(
        self,
        connection: sqlite3.Connection,
        kind: Literal["result", "event"],
        key: ChannelKey,
        time_s: float,
        body: bytes,
    ) -> int:
        """Append one row and return its number."""
        seq = _next_seq(connection, self.boot, kind)
        size = row_bytes(body, *key)
        run_s = self._run_s()
        connection.execute(
            "INSERT INTO record (kind, status, boot, seq, asset, channel, time_s, created_s, run_s, size, dialect,"
            " body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (kind, WAITING, self.boot, seq, *key, time_s, self._clock(), run_s, size, NEUTRAL, body),
        )
        connection.execute(
            "UPDATE record_total SET waiting = waiting + 1, waiting_bytes = waiting_bytes + ?, run_s = max(run_s, ?)",
            (size, run_s),
        )
        return seq

    def _stand(self, connection: sqlite3.Connection, key: ChannelKey, seq: int | None, body: bytes) -> None:
        """Replace the state of a channel; it waits under a new id."""
        run_s = self._run_s()
        (row_id,) = connection.execute(
            "UPDATE record_total SET standing_id = standing_id + 1, run_s = max(run_s, ?) RETURNING standing_id",
            (run_s,),
        ).fetchone()
        connection.execute(
            "INSERT INTO standing (asset, channel, id, status, boot, seq, run_s, dialect, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (asset, channel) DO UPDATE SET id = excluded.id,"
            " status = excluded.status, boot = excluded.boot, seq = excluded.seq, run_s = excluded.run_s,"
            " dialect = excluded.dialect, body = excluded.body, reason = NULL",
            (*key, row_id, WAITING, self.boot, seq, run_s, NEUTRAL, body),
        )

    def _note_judged(self, connection: sqlite3.Connection, key: ChannelKey) -> None:
        """Keep the event just written until the next of its kind: a restart resumes from it."""
        connection.execute(
            "INSERT INTO standing (asset, channel, id, status, boot, run_s, dialect, judged)"
            " VALUES (?, ?, 0, ?, ?, ?, ?, (SELECT max(id) FROM record))"
            " ON CONFLICT (asset, channel) DO UPDATE SET judged = excluded.judged",
            (*key, DELIVERED, self.boot, self._run_s(), NEUTRAL),
        )

    def _waiting_records(self, kind: Kind, limit: int, besides: str) -> list[Row]:
        """Return waiting rows of a kind, oldest first."""
        rows = self.database.query(
            "SELECT kind, id, asset, channel, boot, seq, run_s, dialect, body FROM record WHERE kind = ? AND status = 0"
            " AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT ?",
            (kind, besides, max(0, limit)),
        )
        return [row_of(*row) for row in rows]

    def _release(self, statement: str, ids: Sequence[int] | None, *, waiting: bool) -> int:
        """Apply a statement to rows that are set aside and keep the totals in step."""
        chosen = "" if ids is None else " AND id IN (SELECT value FROM json_each(?))"

        def write(connection: sqlite3.Connection) -> int:
            sizes = connection.execute(
                f"{statement} WHERE status = {SET_ASIDE}{chosen} RETURNING size",
                () if ids is None else (json.dumps(list(ids)),),
            ).fetchall()
            connection.execute(
                "UPDATE record_total SET set_aside = set_aside - ?, waiting = waiting + ?,"
                " waiting_bytes = waiting_bytes - ?, resends = resends + ?",
                (len(sizes), len(sizes) if waiting else 0, 0 if waiting else sum(size for (size,) in sizes), waiting),
            )
            return len(sizes)

        return self._write(write, durable=True)


def _next_seq(connection: sqlite3.Connection, boot: int, kind: Literal["result", "event"]) -> int:
    """Take the next number of a kind, in the transaction that uses it."""
    row = connection.execute(
        f"UPDATE boot SET {kind}_seq = {kind}_seq + 1 WHERE boot = ? RETURNING {kind}_seq", (boot,)
    ).fetchone()
    if row is None:
        raise UsageError(f"boot={boot} is not in the database; take the number from Database.new_boot()")
    return int(row[0])


def _check_time(time_s: float) -> None:
    """Refuse what is no time of this epoch, such as milliseconds: no message could say it."""
    if not 0 <= time_s < LAST_TIME_S:
        raise BadInputError(f"time_s is {time_s}, which is not a time in seconds since 1970-01-01 UTC; correct it")
