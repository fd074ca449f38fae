"""Every embedding ever made with one model and window length, in one SQLite file. Start at `EmbeddingCache`.

A segment is known by its set, its place within the set, and the size and time of change of its file. The name of the
file alone is not enough: sets name the files of all machines alike. What is in the cache survives a killed process; one
process writes at a time.
"""

import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.errors import BadInputError, UsageError

__all__ = ["EmbeddingCache", "segment_key"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS embedding (key TEXT PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS spent (cpu_s REAL NOT NULL, signal_s REAL NOT NULL);
"""
# Raised when keys change their meaning: a cache of another version is emptied, since its entries may belong to other
# files. Version 0 named a segment by the name, size and time of its file alone.
KEY_VERSION = 1
ASKED_AT_ONCE = 500


def segment_key(set_name: str, file: str, path: Path) -> str:
    """Key of the segment `file` of a set, whose samples lie at `path`. Raises BadInputError when they are gone."""
    try:
        info = path.stat()
    except OSError as error:
        raise BadInputError(f"{path} of the index is not there ({error.strerror}); prepare the set again") from None
    return hashlib.sha256(f"{set_name}\0{file}\0{info.st_size}\0{info.st_mtime_ns}".encode()).hexdigest()


class EmbeddingCache:
    """Embeddings by segment, for one model (its digest) and one window length."""

    def __init__(self, folder: Path, digest: str, window_s: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{digest[:24]}-{window_s:g}s.sqlite3"
        self._lock = (folder / f"{self.path.name}.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise UsageError(f"{self.path} is in use by another `rmis embed`; wait for it or give --cache") from None
        try:
            self._open(digest)
        except sqlite3.OperationalError:  # not the file's fault: a full disk, for example
            self.close()
            raise
        except sqlite3.DatabaseError as error:
            self.close()
            raise BadInputError(f"{self.path} is damaged ({error}); delete it, it is made again") from None

    def __enter__(self) -> "EmbeddingCache":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()

    def known(self, keys: Sequence[str]) -> set[str]:
        """Return the keys that are in the cache."""
        found: set[str] = set()
        for start in range(0, len(keys), ASKED_AT_ONCE):
            part = keys[start : start + ASKED_AT_ONCE]
            marks = ",".join("?" * len(part))
            rows = self._database.execute(f"SELECT key FROM embedding WHERE key IN ({marks})", part)
            found.update(key for (key,) in rows)
        return found

    def vector(self, key: str) -> FloatArray:
        """Return one embedding (dim,), float32. Raises KeyError when it is not there."""
        row = self._database.execute("SELECT vector FROM embedding WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        return np.frombuffer(row[0], np.float32)

    def add(self, vectors: Iterable[tuple[str, FloatArray]], cpu_s: float, signal_s: float) -> None:
        """Commit embeddings (key, (dim,)) with their cost: `cpu_s` of CPU time for `signal_s` of signal."""
        with self._database:
            self._database.executemany(
                "INSERT OR REPLACE INTO embedding VALUES (?, ?)",
                ((key, np.ascontiguousarray(vector, np.float32).tobytes()) for key, vector in vectors),
            )
            self._database.execute("INSERT INTO spent VALUES (?, ?)", (cpu_s, signal_s))

    def spent(self) -> tuple[float, float]:
        """CPU seconds spent in this cache, and the seconds of signal they were spent on."""
        row = self._database.execute("SELECT total(cpu_s), total(signal_s) FROM spent").fetchone()
        return float(row[0]), float(row[1])

    def close(self) -> None:
        """Close the file and let another process write."""
        if hasattr(self, "_database"):
            self._database.close()
        self._lock.close()

    def _open(self, digest: str) -> None:
        self._database = sqlite3.connect(self.path)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.executescript(SCHEMA)
        with self._database:
            if self._database.execute("PRAGMA user_version").fetchone()[0] != KEY_VERSION:
                self._database.execute("DELETE FROM embedding")
                self._database.execute(f"PRAGMA user_version = {KEY_VERSION}")
            self._database.execute("INSERT OR IGNORE INTO about VALUES ('digest', ?)", (digest,))
        row = self._database.execute("SELECT value FROM about WHERE name = 'digest'").fetchone()
        if row[0] != digest:
            self.close()
            raise BadInputError(f"{os.fspath(self.path)} belongs to another model; delete it or give --cache")
