"""The gateway's SQLite database (WAL): opening it, its locks, transactions, and setting a damaged one aside.

Start at `Database`. The tables are described in `schema.py`; each has one module that reads and writes it. A connection
belongs to the thread that opened it; every thread opens its own.
"""

import errno
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fisher_edge.errors import DamagedStateError, DiskFullError, StateError
from fisher_edge.store.migration import VERSION, migrate
from fisher_edge.store.schema import PAGE_BYTES

__all__ = ["DATABASE_NAME", "Database", "daemon_runs", "explained", "free_bytes", "make_private", "only_daemon"]

DATABASE_NAME = "fisher-edge.sqlite3"
LOCK_NAME = "daemon.lock"
UNCLEAN_NAME = "running"
RESERVE_NAME = "reserve"
BUSY_SECONDS = 5.0
# The write-ahead log is emptied into the database when it is so large, or has this share of a small disk.
LOG_BYTES = 2 << 20
LOG_SHARE = 8
# Free pages that stay in the file; more are given back to the disk, so many at a time.
FREE_PAGES = 256
SHRINK_PAGES = 256

log = logging.getLogger(__name__)


class Database:
    """An open connection to the gateway's database; use it as a context manager.

    A damaged database is set aside and an empty one begun, or, without `set_aside`, it is a DamagedStateError; a
    missing one is a StateError without `create`. `check` reads the whole file for damage, which takes a while: it is
    for the first opening after an unclean stop.
    """

    def __init__(self, state_dir: Path, *, set_aside: bool = True, create: bool = True, check: bool = False) -> None:
        self.state_dir = state_dir.absolute()
        self.path = self.state_dir / DATABASE_NAME
        self._durable = False
        self._holds_reserve = False
        if not create and not self.path.exists():
            raise StateError(f"nothing is enrolled in {state_dir}: no {DATABASE_NAME} there; check --state-dir")
        try:
            self.connection = _open(self.state_dir, self.path, set_aside=set_aside, check=check)
        except DiskFullError:
            if not _give_up_reserve(self.state_dir):
                raise
            self.connection = _open(self.state_dir, self.path, set_aside=set_aside, check=check)

    def __enter__(self) -> "Database":
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
            if durable != self._durable:
                self.connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
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

    def version(self) -> int:
        """Return a number that changes when another connection has written, at hardly any cost."""
        return int(self.query("PRAGMA data_version")[0][0])

    @property
    def spare_bytes(self) -> int:
        """Room that the log needs: with less the disk is nearly full."""
        return _log_bytes(self.state_dir)

    def is_disk_short(self) -> bool:
        """Whether the disk is nearly full."""
        return free_bytes(self.state_dir) < self.spare_bytes

    def is_tight(self) -> bool:
        """Whether the disk is nearly full and the file has few free pages: rows should take the place of others."""
        return self.is_disk_short() and (
            free_bytes(self.state_dir) + self._free_pages() * PAGE_BYTES < self.spare_bytes
        )

    def empty_log(self) -> None:
        """Write the log into the database, so that it is used again from its start; give up the reserve if needed."""
        if not self.connection.in_transaction and not self._checkpoint():
            self.give_up_reserve()

    def _checkpoint(self) -> bool:
        """Write the log into the database, as far as there is room; tell whether there was."""
        try:
            self.query("PRAGMA wal_checkpoint(PASSIVE)")
        except DiskFullError:
            return False
        return True

    def shrink(self) -> None:
        """Give free pages of the file back to the disk when there are many, some at a time."""
        if not self.connection.in_transaction and self._free_pages() >= FREE_PAGES + SHRINK_PAGES:
            with explained(self.path):  # a statement frees one page a step, and only a script is run to its end
                self.connection.executescript(f"PRAGMA incremental_vacuum({SHRINK_PAGES})")

    def _free_pages(self) -> int:
        """Pages of the file that hold nothing."""
        return int(self.query("PRAGMA freelist_count")[0][0])

    def keep_reserve(self) -> None:
        """Hold a little room on the disk that `give_up_reserve` can return, unless there is hardly any.

        It is what the log may hold, and half as much: so the log can be emptied on a disk that others have filled.
        """
        if self._holds_reserve:
            return
        reserve, size = self.state_dir / RESERVE_NAME, self.spare_bytes * 3 // 2
        if not reserve.exists() and free_bytes(self.state_dir) < size + self.spare_bytes:
            return
        try:
            with reserve.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, size)
            self._holds_reserve = True
        except OSError:  # others were faster: there is no room to hold
            reserve.unlink(missing_ok=True)

    def give_up_reserve(self) -> bool:
        """Return the room that is held back, and use it to empty the log; tell whether there was any."""
        self._holds_reserve = False
        there = _give_up_reserve(self.state_dir)
        if there:
            log.warning("the disk of %s is full: make room on it", self.state_dir)
            self._checkpoint()
        return there

    def new_boot(self) -> int:
        """Count one more start of the daemon and return its number: no later start ever gets it again."""
        with self.transaction(durable=True) as connection:
            cursor = connection.execute("INSERT INTO boot (started_s) VALUES (?)", (time.time(),))
            return int(cursor.lastrowid or 0)


@contextmanager
def only_daemon(state_dir: Path) -> Iterator[bool]:
    """Keep a second daemon off the state directory; yield whether the last one ended without closing it.

    Both would send the same messages, as the same client. The lock goes with the process, however it ends; commands
    that enroll or score do not need it.
    """
    make_private(state_dir)
    try:
        file = (state_dir / LOCK_NAME).open("ab")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _explanation(state_dir, error) from error
        raise StateError(
            f"cannot write into the state directory {state_dir}: {error.strerror}; correct its permissions or choose "
            "another"
        ) from error
    marker = state_dir / UNCLEAN_NAME
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateError(
                f"another fisher-edge run uses the state directory {state_dir}; stop it, or give this gateway a "
                "state_dir of its own"
            ) from error
        unclean = marker.exists()
        with _explained_file(state_dir):
            marker.touch()
        try:
            yield unclean
        except DamagedStateError:
            raise  # the marker stays: the next start checks the whole file
        except BaseException:
            if not unclean:  # else nobody knows whether the file has been checked yet
                marker.unlink(missing_ok=True)
            raise
        marker.unlink(missing_ok=True)


def daemon_runs(state_dir: Path) -> bool:
    """Whether a gateway runs on a state directory."""
    try:
        with (state_dir / LOCK_NAME).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def make_private(folder: Path) -> None:
    """Create a folder of the state directory, which other users of the machine cannot read."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
    except OSError as error:
        raise StateError(
            f"cannot create the state directory {folder}: {error.strerror}; choose another with --state-dir"
        ) from error


def free_bytes(folder: Path) -> int:
    """Room that is left on the disk of a folder."""
    room = _disk_of(folder)
    return room.f_bavail * room.f_frsize


def _disk_of(folder: Path) -> os.statvfs_result:
    """What is known about the disk of a folder."""
    try:
        return os.statvfs(folder)
    except OSError as error:
        raise StateError(f"the state directory {folder} was deleted while it was used ({error.strerror})") from error


def _log_bytes(state_dir: Path) -> int:
    """Size at which the log is emptied, less on a small disk."""
    disk = _disk_of(state_dir)
    return min(LOG_BYTES, disk.f_blocks * disk.f_frsize // LOG_SHARE)


def _give_up_reserve(state_dir: Path) -> bool:
    """Delete the file that holds room back; tell whether there was one."""
    reserve = state_dir / RESERVE_NAME
    there = reserve.exists()
    reserve.unlink(missing_ok=True)
    return there


def _open(state_dir: Path, path: Path, *, set_aside: bool, check: bool) -> sqlite3.Connection:
    """Open the database, setting a corrupt one aside so that the gateway can go on."""
    make_private(state_dir)
    try:
        with _one_at_a_time(state_dir):
            try:
                return _connect(path, check=check)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                if not set_aside:
                    raise DamagedStateError(
                        f"database {path} is damaged ({error}); nothing was changed: fisher-edge run sets it aside "
                        "when it starts, or move it away and enroll again"
                    ) from error
                aside = _set_aside(path)
                log.error(  # noqa: TRY400 -- one line, no traceback
                    "%s is damaged (%s); it was moved to %s and an empty one begun: enroll again", path, error, aside
                )
                connection = _connect(path, check=False)
                _begin_boots_at_now(connection)
                return connection
    except (sqlite3.Error, OSError) as error:
        raise _explanation(path, error) from error


def _begin_boots_at_now(connection: sqlite3.Connection) -> None:
    """Number the boots of a replacement from the current time: they never collide with boots already published."""
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


def _connect(path: Path, *, check: bool) -> sqlite3.Connection:
    """Open one connection and bring the schema up to date; with `check`, read the whole file for damage."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        path.chmod(0o640)
        if not connection.execute("PRAGMA page_count").fetchone()[0]:  # later they only write to the file
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA journal_size_limit = {_log_bytes(path.parent)}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_log_bytes(path.parent) // PAGE_BYTES}")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        if check and (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise StateError(f"{path} was written by a newer fisher-edge (schema {version}); update fisher-edge")
        if version < VERSION:
            _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema up to date; a database of an earlier release is rewritten once, so that it can shrink."""
    connection.execute("PRAGMA foreign_keys = OFF")
    if migrate(connection):
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        try:
            connection.execute("VACUUM")
        except sqlite3.OperationalError as error:
            log.warning("the database was brought up to date, but its file cannot shrink: %s", error)
    connection.execute("PRAGMA foreign_keys = ON")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into one line that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explanation(path, error) from error


@contextmanager
def _explained_file(path: Path) -> Iterator[None]:
    """Turn the errors of a file into one line that says what to do."""
    try:
        yield
    except OSError as error:
        raise _explanation(path, error) from error


def _explanation(path: Path, error: sqlite3.Error | OSError) -> StateError:
    """Say what a database error means for the user."""
    text = str(error)
    if type(error) is sqlite3.DatabaseError:  # not one of its kinds, such as a lock or a full disk
        return DamagedStateError(
            f"database {path} is damaged ({text}): fisher-edge run sets it aside at its next start; then enroll again"
        )
    if "full" in text or getattr(error, "errno", None) == errno.ENOSPC or _disk_is_full(path):
        return DiskFullError(f"database {path}: the disk is full ({text}); nothing is damaged: make room on it")
    if "locked" in text:
        advice = "another program holds it; stop that program or choose another --state-dir"
    elif "readonly" in text or "unable to open" in text:
        advice = "the state directory is not writable; correct its permissions or choose another --state-dir"
    elif isinstance(error, OSError):
        text, advice = error.strerror or text, "correct the state directory or choose another --state-dir"
    else:
        advice = "stop the daemon, move the file aside and enroll again"
    return StateError(f"database {path}: {text}; {advice}")


def _disk_is_full(path: Path) -> bool:
    """Whether the disk of a file has no room for one more page of the database."""
    try:
        return free_bytes(path.parent) < PAGE_BYTES
    except StateError:
        return False
