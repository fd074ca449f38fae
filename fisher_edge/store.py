"""One SQLite database (WAL) per gateway: baselines with versions, the outbox and the events.

Start at `Store`. A connection belongs to the thread that opened it; every thread opens its own.
"""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fisher_edge.database import DATABASE_NAME, explained, open_database
from fisher_edge.errors import BadInputError, StateError

__all__ = ["Baseline", "Store", "check_topic_level"]

MAX_EVENTS = 100_000
MAX_NAME = 200
FORBIDDEN_IN_TOPIC = "+#/$"


def check_topic_level(kind: str, name: str) -> None:
    """Refuse a gateway, asset or channel name that cannot be one level of an MQTT topic."""
    if len(name) > MAX_NAME:
        raise BadInputError(f"{kind} name of {len(name)} characters is longer than {MAX_NAME}; shorten it")
    bad = sorted({character for character in name if character in FORBIDDEN_IN_TOPIC or not character.isprintable()})
    if bad or not name.strip():
        what = f"contains {' '.join(map(repr, bad))}" if bad else "is empty"
        raise BadInputError(
            f"{kind} name {name!r} {what}; it becomes one level of an MQTT topic: use letters, digits, - and _"
        )


@dataclass(frozen=True, eq=False)
class Baseline:
    """Enrolled windows of one channel in one version.

    `vectors` (windows, bands * dim) float32 as the encoder gave them, `times` (windows,) in seconds UTC,
    `facts` what they were made with (see `fisher_edge.decision.enrol`). `label` None means normal. `views`
    (windows, bins) float32 holds the vectors of all views side by side; None: enrolled without views.
    """

    asset: str
    channel: str
    label: str | None
    vectors: npt.NDArray[np.float32]
    times: npt.NDArray[np.float64]
    facts: dict[str, Any] = field(default_factory=dict)
    views: npt.NDArray[np.float32] | None = None
    version: int = 0
    active: bool = True
    created_s: float = 0.0


class Store:
    """An open connection to the gateway's database; use it as a context manager.

    A damaged database is set aside and an empty one begun, or, without `set_aside`, it is a StateError; so is a
    missing one without `create`.
    """

    def __init__(self, state_dir: Path, *, set_aside: bool = True, create: bool = True) -> None:
        self.path = state_dir.absolute() / DATABASE_NAME
        if not create and not self.path.exists():
            raise StateError(f"nothing is enrolled in {state_dir}: no {DATABASE_NAME} there; check --state-dir")
        self.connection = open_database(state_dir, self.path, set_aside=set_aside)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what was committed stays."""
        self.connection.close()

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Run a block as one transaction: all of it is kept, or none.

        What is committed survives the death of the process; with `durable` it also survives a power cut. Inside
        another transaction the block is part of that one.
        """
        if self.connection.in_transaction:
            yield self.connection
            return
        with explained(self.path):
            self.connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:  # SQLite has rolled back by itself when the disk is full
                    self.connection.execute("ROLLBACK")
                raise

    def query(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        """Return the rows of a reading statement."""
        with explained(self.path):
            return self.connection.execute(sql, parameters).fetchall()

    def new_boot(self) -> int:
        """Count one more start of the daemon and return its number: no later start ever gets it again."""
        with self.transaction(durable=True) as connection:
            cursor = connection.execute("INSERT INTO boot (started_s) VALUES (?)", (time.time(),))
            return int(cursor.lastrowid or 0)

    def add_baseline(self, baseline: Baseline) -> int:
        """Store a baseline as the newest, active version of its channel and label; return the version."""
        key = (baseline.asset, baseline.channel, baseline.label)
        where = "asset = ? AND channel = ? AND label IS ?"
        with self.transaction(durable=True) as connection:
            newest = connection.execute(f"SELECT max(version) FROM baseline WHERE {where}", key).fetchone()[0]  # noqa: S608 -- constant text
            version = (newest or 0) + 1
            connection.execute(f"UPDATE baseline SET active = 0 WHERE {where}", key)  # noqa: S608 -- constant text
            connection.execute(
                "INSERT INTO baseline (asset, channel, label, version, active, created_s, facts, vectors, times, views)"
                " VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?, ?)",
                (
                    *key,
                    version,
                    time.time(),
                    json.dumps(baseline.facts),
                    np.ascontiguousarray(baseline.vectors, "<f4").tobytes(),
                    np.ascontiguousarray(baseline.times, "<f8").tobytes(),
                    None if baseline.views is None else np.ascontiguousarray(baseline.views, "<f4").tobytes(),
                ),
            )
        return version

    def baselines(
        self, asset: str | None = None, channel: str | None = None, *, active_only: bool = False
    ) -> list[Baseline]:
        """Return the baselines of one channel, of one asset or of all, oldest first."""
        with explained(self.path):
            rows = self.connection.execute(
                "SELECT asset, channel, label, vectors, times, facts, views, version, active, created_s FROM baseline"
                " WHERE (?1 IS NULL OR asset = ?1) AND (?2 IS NULL OR channel = ?2) AND active >= ?3 ORDER BY id",
                (asset, channel, int(active_only)),
            ).fetchall()
        return [_baseline(*row) for row in rows]

    def activate(self, asset: str, channel: str, label: str | None, version: int) -> None:
        """Make an earlier version of a baseline the active one again."""
        where = "asset = ? AND channel = ? AND label IS ?"
        key = (asset, channel, label)
        with self.transaction(durable=True) as connection:
            known = connection.execute(f"SELECT version FROM baseline WHERE {where} ORDER BY version", key).fetchall()  # noqa: S608 -- constant text
            if (version,) not in known:
                have = ", ".join(str(row[0]) for row in known) or "none"
                raise BadInputError(
                    f"{asset}/{channel} has no version {version} of {label or 'normal'}; it has: {have}"
                )
            connection.execute(f"UPDATE baseline SET active = (version = ?) WHERE {where}", (version, *key))  # noqa: S608 -- constant text

    def remove(self, asset: str, channel: str, label: str | None) -> int:
        """Delete all versions of a baseline and return how many there were."""
        with self.transaction(durable=True) as connection:
            cursor = connection.execute(
                "DELETE FROM baseline WHERE asset = ? AND channel = ? AND label IS ?", (asset, channel, label)
            )
            if cursor.rowcount == 0:
                raise BadInputError(f"{asset}/{channel} has no baseline for {label or 'normal'}; see: baseline list")
            return cursor.rowcount

    def set_fusion(self, asset: str, channel: str, weights: dict[str, Any] | None) -> None:
        """Keep how the signal and the views of a channel name its faults (see `fisher_edge.decision.evidence`)."""
        with self.transaction(durable=True) as connection:
            connection.execute("DELETE FROM fusion WHERE asset = ? AND channel = ?", (asset, channel))
            if weights is not None:
                connection.execute("INSERT INTO fusion VALUES (?, ?, ?)", (asset, channel, json.dumps(weights)))

    def fusion(self, asset: str, channel: str) -> dict[str, Any] | None:
        """Return what `set_fusion` kept last; None while there is nothing to fuse."""
        rows = self.query("SELECT weights FROM fusion WHERE asset = ? AND channel = ?", (asset, channel))
        return dict(json.loads(rows[0][0])) if rows else None

    def add_event(self, asset: str, channel: str, time_s: float, payload: dict[str, Any]) -> None:
        """Keep an alarm transition (inside the caller's transaction)."""
        self.connection.execute(
            "INSERT INTO event (asset, channel, time_s, payload) VALUES (?, ?, ?, ?)",
            (asset, channel, time_s, json.dumps(payload)),
        )
        self.connection.execute("DELETE FROM event WHERE id <= (SELECT max(id) FROM event) - ?", (MAX_EVENTS,))

    def last_judgement(self, asset: str, channel: str) -> dict[str, Any] | None:
        """Return the newest event of a channel that judged it (not check_function or no_data); None without one."""
        rows = self.query(
            "SELECT payload FROM event WHERE asset = ? AND channel = ?"
            " AND json_extract(payload, '$.after') IN ('normal', 'warning', 'alarm') ORDER BY id DESC LIMIT 1",
            (asset, channel),
        )
        return dict(json.loads(rows[0][0])) if rows else None


def _baseline(
    asset: str,
    channel: str,
    label: str | None,
    vectors: bytes,
    times: bytes,
    facts: str,
    views: bytes | None,
    version: int,
    active: int,
    created_s: float,
) -> Baseline:
    """Rebuild a baseline from its row."""
    time_array = np.frombuffer(times, "<f8")
    return Baseline(
        asset=asset,
        channel=channel,
        label=label,
        vectors=np.frombuffer(vectors, "<f4").reshape(len(time_array), -1),
        times=time_array,
        facts=json.loads(facts),
        views=None if views is None else np.frombuffer(views, "<f4").reshape(len(time_array), -1),
        version=version,
        active=bool(active),
        created_s=created_s,
    )
