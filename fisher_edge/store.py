"""One SQLite database (WAL) per gateway: baselines with versions, the outbox and the events.

Start at `Store`. A connection belongs to the thread that opened it; every thread opens its own.
"""

import fcntl
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fisher_edge.errors import BadInputError, DamagedStateError, StateError

__all__ = ["DATABASE_NAME", "Baseline", "Store", "check_topic_level", "only_daemon"]

DATABASE_NAME = "fisher-edge.sqlite3"
LOCK_NAME = "daemon.lock"
BUSY_SECONDS = 5.0
MAX_EVENTS = 100_000
MAX_NAME = 200
FORBIDDEN_IN_TOPIC = "+#/$"

SCHEMA = """
CREATE TABLE boot (
    boot INTEGER PRIMARY KEY AUTOINCREMENT,
    started_s REAL NOT NULL,
    result_seq INTEGER NOT NULL DEFAULT 0,  -- last number given to a result of this boot
    event_seq INTEGER NOT NULL DEFAULT 0    -- and to an event
);
CREATE TABLE baseline (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    asset TEXT NOT NULL,
    channel TEXT NOT NULL,
    label TEXT,                       -- NULL is normal, else the fault these windows show
    version INTEGER NOT NULL,
    active INTEGER NOT NULL,
    created_s REAL NOT NULL,
    facts TEXT NOT NULL,              -- JSON: model, front-end values, sources, calibration
    vectors BLOB NOT NULL,            -- float32 (windows, bands * dim), not normalised
    times BLOB NOT NULL               -- float64 (windows,), end of each window, seconds UTC
);
CREATE UNIQUE INDEX baseline_version ON baseline (asset, channel, ifnull(label, ''), version);
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,               -- result, event or state
    boot INTEGER NOT NULL,
    seq INTEGER,                      -- counts per boot and kind, without gaps, a state has that of its result
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    retain INTEGER NOT NULL,
    created_s REAL NOT NULL
);
CREATE INDEX outbox_kind ON outbox (kind, topic);
CREATE INDEX outbox_order ON outbox (kind, id);
CREATE TABLE outbox_total (           -- one row, kept in step with the outbox: counting it would be too slow
    waiting INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    dropped_result INTEGER NOT NULL DEFAULT 0,
    dropped_event INTEGER NOT NULL DEFAULT 0,
    dropped_state INTEGER NOT NULL DEFAULT 0
);
INSERT INTO outbox_total DEFAULT VALUES;
CREATE TABLE event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    asset TEXT NOT NULL,
    channel TEXT NOT NULL,
    time_s REAL NOT NULL,
    payload TEXT NOT NULL
);
"""

MIGRATIONS = [SCHEMA]
"""Scripts that lead from one `user_version` to the next."""

log = logging.getLogger(__name__)


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
    `facts` what they were made with (see `fisher_edge.decision.enrol`). `label` None means normal.
    """

    asset: str
    channel: str
    label: str | None
    vectors: npt.NDArray[np.float32]
    times: npt.NDArray[np.float64]
    facts: dict[str, Any] = field(default_factory=dict)
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
        self.connection = _open(state_dir, self.path, set_aside=set_aside)

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

        What is committed survives the death of the process; with `durable` it also survives a power cut.
        """
        with _explained(self.path):
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
        with _explained(self.path):
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
                "INSERT INTO baseline (asset, channel, label, version, active, created_s, facts, vectors, times)"
                " VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?)",
                (
                    *key,
                    version,
                    time.time(),
                    json.dumps(baseline.facts),
                    np.ascontiguousarray(baseline.vectors, "<f4").tobytes(),
                    np.ascontiguousarray(baseline.times, "<f8").tobytes(),
                ),
            )
        return version

    def baselines(
        self, asset: str | None = None, channel: str | None = None, *, active_only: bool = False
    ) -> list[Baseline]:
        """Return the baselines of one channel, of one asset or of all, oldest first."""
        with _explained(self.path):
            rows = self.connection.execute(
                "SELECT asset, channel, label, vectors, times, facts, version, active, created_s FROM baseline"
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
        version=version,
        active=bool(active),
        created_s=created_s,
    )


@contextmanager
def only_daemon(state_dir: Path) -> Iterator[None]:
    """Keep a second daemon off the state directory: both would send the same outbox, as the same client.

    The lock goes with the process, however it ends; commands that enrol or score do not need it.
    """
    _make(state_dir)
    try:
        file = (state_dir / LOCK_NAME).open("ab")
    except OSError as error:
        raise StateError(
            f"cannot write into the state directory {state_dir}: {error.strerror}; mend its permissions or take another"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateError(
                f"another fisher-edge run uses the state directory {state_dir}; stop it, or give this gateway a "
                "state_dir of its own"
            ) from error
        yield


def _make(state_dir: Path) -> None:
    """Create the state directory unless it is there."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(
            f"cannot create the state directory {state_dir}: {error.strerror}; choose another with --state-dir"
        ) from error


def _open(state_dir: Path, path: Path, *, set_aside: bool) -> sqlite3.Connection:
    """Open the database, setting a corrupt one aside so that the gateway can go on."""
    _make(state_dir)
    try:
        with _one_at_a_time(state_dir):
            try:
                return _connect(path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                if not set_aside:
                    raise DamagedStateError(
                        f"database {path} is damaged ({error}); nothing was changed: fisher-edge run sets it aside "
                        "when it starts, or move it away and enrol again"
                    ) from error
                aside = _set_aside(path)
                log.error(  # noqa: TRY400 -- one line, no traceback
                    "%s is damaged (%s); it was moved to %s and an empty one begun: enrol again", path, error, aside
                )
                connection = _connect(path)
                _number_boots_anew(connection)
                return connection
    except (sqlite3.Error, OSError) as error:
        raise _explanation(path, error) from error


def _number_boots_anew(connection: sqlite3.Connection) -> None:
    """Number the boots of a replacement from the time on: those of the lost database are known to subscribers."""
    connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('boot', ?)", (int(time.time()),))


def _set_aside(path: Path) -> Path:
    """Move a damaged database and its log out of the way."""
    aside = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside


@contextmanager
def _one_at_a_time(state_dir: Path) -> Iterator[None]:
    """Let programs open the database in turn: neither sets aside what the other has just begun."""
    folder = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _connect(path: Path) -> sqlite3.Connection:
    """Open one connection and bring the schema up to date."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        check = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if check != "ok":
            raise sqlite3.DatabaseError(check)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise StateError(f"{path} was written by a newer fisher-edge (schema {version}); update fisher-edge")
        if version < len(MIGRATIONS):
            _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    """Run the scripts that are missing, in one transaction: two programs may start at once."""
    connection.execute("BEGIN IMMEDIATE")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    for script in MIGRATIONS[version:]:
        for statement in script.split(";"):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    connection.execute("COMMIT")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into one line that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explanation(path, error) from error


def _explanation(path: Path, error: sqlite3.Error | OSError) -> StateError:
    """Say what a database error means for the user."""
    text = str(error)
    if type(error) is sqlite3.DatabaseError:  # not one of its kinds, such as a lock or a full disk
        return DamagedStateError(
            f"database {path} is damaged ({text}): fisher-edge run sets it aside when it starts again; then enrol again"
        )
    if "locked" in text:
        advice = "another program holds it; stop that program or choose another --state-dir"
    elif "readonly" in text or "unable to open" in text:
        advice = "the state directory is not writable; mend its permissions or choose another --state-dir"
    elif isinstance(error, OSError):
        text, advice = error.strerror or text, "mend the state directory or choose another --state-dir"
    elif "full" in text:
        advice = "the disk is full; make room"
    else:
        advice = "stop the daemon, move the file aside and enrol again"
    return StateError(f"database {path}: {text}; {advice}")
