"""The file beneath the store: its schema, opening it, setting a damaged one aside, and who may use it.

Start at `open_database`.
"""

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fisher_edge.errors import DamagedStateError, StateError

__all__ = ["DATABASE_NAME", "MIGRATIONS", "explained", "only_daemon", "open_database"]

DATABASE_NAME = "fisher-edge.sqlite3"
LOCK_NAME = "daemon.lock"
BUSY_SECONDS = 5.0

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

VIEWS = """
ALTER TABLE baseline ADD COLUMN views BLOB;  -- float32 (windows, bins of all views), NULL without views
CREATE TABLE fusion (                        -- how the signal and the views name faults, learnt from all baselines
    asset TEXT NOT NULL,
    channel TEXT NOT NULL,
    weights TEXT NOT NULL,                   -- JSON
    PRIMARY KEY (asset, channel)
)
"""

MIGRATIONS = [SCHEMA, VIEWS]
"""Scripts that lead from one `user_version` to the next."""

log = logging.getLogger(__name__)


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


def open_database(state_dir: Path, path: Path, *, set_aside: bool) -> sqlite3.Connection:
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
def explained(path: Path) -> Iterator[None]:
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
