"""What is deleted from the records when they exceed their limits. Start at `Bounds.keep`.

The outbox (rows that wait or are set aside) is bounded in bytes, and its results in age; the history (rows that were
delivered) in bytes and age. Age is the time that gateways have run on the database: a clock that is set, or a board
that starts in 1970, makes no row old. Each call deletes a limited number of rows, so that a limit that was lowered
does not hold the gateway up.
"""

import json
import logging
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from fisher_edge.errors import UsageError
from fisher_edge.store.database import Database
from fisher_edge.store.schema import DELIVERED, SET_ASIDE, WAITING

__all__ = ["SMALLEST_BYTES", "Bounds", "Limits"]

SMALLEST_BYTES = 64 * 1024
# Rows that one call deletes of each kind.
BATCH = 64
# How often rows are looked for that are too old.
LOOK_S = 1.0
# Dropping is over when the outbox is below this share of its limits.
ROOM_AGAIN = 0.8
NEVER = float("-inf")
# Events that a restart resumes from are kept whatever their age.
RESUMED = "SELECT judged FROM standing WHERE judged IS NOT NULL"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """Bytes on disk and age of what waits for the broker, and of the history."""

    waiting_bytes: int
    waiting_s: float
    history_bytes: int
    history_s: float

    def __post_init__(self) -> None:
        if self.waiting_bytes < SMALLEST_BYTES:
            raise UsageError(f"waiting_bytes={self.waiting_bytes} is below {SMALLEST_BYTES}, which a few rows need")


class Bounds:
    """Keeps the records of one database within limits, inside the caller's transactions."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self.database = database
        self.limits = limits
        self._dropped = 0
        self._why = ""
        self._dropping = False
        self._roomy = True
        self._next_look_s = NEVER
        self.deleted = False

    def make_place(self, connection: sqlite3.Connection, new_bytes: int) -> None:
        """Delete before a row is written what it takes the place of, when the disk is nearly full."""
        self._dropped = 0
        if self.database.is_tight():
            # Twice as much: a page is free only when all of its rows are gone.
            left = self._forget(connection, 2 * new_bytes, oldest_s=NEVER)
            if left > 0:
                self._drop(connection, "kind = 'result'", WAITING, left, oldest_s=NEVER)
            self._why = "the disk is nearly full"

    def keep(self, connection: sqlite3.Connection, run_s: float) -> None:
        """Delete what exceeds the limits: of the outbox first what is set aside, then results, then events."""
        waiting_bytes, kept_bytes = connection.execute("SELECT waiting_bytes, kept_bytes FROM record_total").fetchone()
        limits = self.limits
        excess = waiting_bytes - limits.waiting_bytes
        excess_kept = kept_bytes - limits.history_bytes
        is_time = run_s >= self._next_look_s
        if is_time:
            self._next_look_s = run_s + LOOK_S
        if excess > 0 or is_time:
            self._keep_outbox(connection, excess, run_s - limits.waiting_s)
        if excess_kept > 0 or is_time:
            self._forget(connection, excess_kept, run_s - limits.history_s)
        self._roomy = self._has_room(connection, run_s) if self._dropping and not self._dropped else True

    def _keep_outbox(self, connection: sqlite3.Connection, excess: int, oldest_s: float) -> None:
        """Drop rows of the outbox while there is excess, and results that are too old."""
        dropped = self._dropped
        excess = self._drop(connection, "1", SET_ASIDE, excess, oldest_s)
        excess = self._drop(connection, "kind = 'result'", WAITING, excess, oldest_s)
        if excess > 0:
            self._drop(connection, f"kind = 'event' AND id NOT IN ({RESUMED})", WAITING, excess, oldest_s=NEVER)
        if self._dropped > dropped:
            self._why = (
                f"the outbox is over its limit of {self.limits.waiting_bytes / 1e6:.1f} MB or"
                f" {self.limits.waiting_s / 86400:.1f} days"
            )

    def report(self) -> None:
        """Log when dropping begins and when it is over."""
        if self._dropped and not self._dropping:
            self._dropping = True
            log.warning("%s: dropping the oldest results", self._why)
        elif self._dropping and not self._dropped and self._roomy and not self.database.is_tight():
            self._dropping = False
            total = sum(self.database.query("SELECT dropped_result, dropped_event FROM record_total")[0])
            log.info("the outbox has room again; dropped since the database began: %d", total)

    def _drop(self, connection: sqlite3.Connection, which: str, status: int, excess: int, oldest_s: float) -> int:
        """Delete the oldest rows of the outbox of a sort while there is excess or they are too old; return the rest."""
        rows = connection.execute(
            f"SELECT id, size, run_s FROM record WHERE status = {status} AND {which} ORDER BY id LIMIT {BATCH}"
        )
        doomed, freed = _oldest(rows, excess, oldest_s)
        if doomed:
            kinds = self._delete(connection, doomed)
            results = kinds.count("result")
            count = "waiting" if status == WAITING else "set_aside"
            connection.execute(
                f"UPDATE record_total SET {count} = {count} - ?, waiting_bytes = waiting_bytes - ?,"
                " dropped_result = dropped_result + ?, dropped_event = dropped_event + ?",
                (len(kinds), freed, results, len(kinds) - results),
            )
            self._dropped += len(kinds)
        return excess - freed

    def _forget(self, connection: sqlite3.Connection, excess: int, oldest_s: float) -> int:
        """Delete the oldest of the history, but not what a restart resumes from; return the excess that is left."""
        rows = connection.execute(
            f"SELECT id, size, run_s FROM record WHERE status = {DELIVERED} AND id NOT IN ({RESUMED})"
            f" ORDER BY id LIMIT {BATCH}"
        )
        doomed, freed = _oldest(rows, excess, oldest_s)
        if doomed:
            self._delete(connection, doomed)
            connection.execute("UPDATE record_total SET kept_bytes = kept_bytes - ?", (freed,))
        return excess - freed

    def _delete(self, connection: sqlite3.Connection, ids: list[int]) -> list[str]:
        """Delete rows and return their kinds."""
        rows = connection.execute(
            "DELETE FROM record WHERE id IN (SELECT value FROM json_each(?)) RETURNING kind", (json.dumps(ids),)
        ).fetchall()
        self.deleted = True
        return [kind for (kind,) in rows]

    def _has_room(self, connection: sqlite3.Connection, run_s: float) -> bool:
        """Whether the outbox is well below its limits."""
        (waiting_bytes,) = connection.execute("SELECT waiting_bytes FROM record_total").fetchone()
        oldest = connection.execute(
            "SELECT run_s FROM record WHERE kind = 'result' AND status = 0 ORDER BY id LIMIT 1"
        ).fetchone()
        return bool(
            waiting_bytes <= ROOM_AGAIN * self.limits.waiting_bytes
            and (oldest is None or run_s - oldest[0] <= ROOM_AGAIN * self.limits.waiting_s)
        )


def _oldest(rows: Iterable[tuple[int, int, float]], excess: int, oldest_s: float) -> tuple[list[int], int]:
    """Choose rows from the first on while there is excess or they are older than a time; return ids and bytes."""
    doomed, freed = [], 0
    for row_id, size, run_s in rows:
        if freed >= excess and run_s >= oldest_s:
            break
        doomed.append(row_id)
        freed += size
    return doomed, freed
