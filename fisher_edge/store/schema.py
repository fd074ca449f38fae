"""The tables of the gateway's database, and how databases of earlier releases are brought up to date.

Start at `migrate`. One table, one module: `baseline*` and `fusion` belong to `baselines.py`, `record` and
`record_total` to `records.py`, `boot` to `database.py`.
"""

import json
import sqlite3
from fractions import Fraction
from typing import Any

import numpy as np

__all__ = ["VERSION", "migrate"]

SCHEMA_1 = """
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
    label TEXT,
    version INTEGER NOT NULL,
    active INTEGER NOT NULL,
    created_s REAL NOT NULL,
    facts TEXT NOT NULL,
    vectors BLOB NOT NULL,
    times BLOB NOT NULL
);
CREATE UNIQUE INDEX baseline_version ON baseline (asset, channel, ifnull(label, ''), version);
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    boot INTEGER NOT NULL,
    seq INTEGER,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    retain INTEGER NOT NULL,
    created_s REAL NOT NULL
);
CREATE INDEX outbox_kind ON outbox (kind, topic);
CREATE INDEX outbox_order ON outbox (kind, id);
CREATE TABLE outbox_total (
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
)
"""

SCHEMA_2 = """
ALTER TABLE baseline ADD COLUMN views BLOB;
CREATE TABLE fusion (                        -- how the signal and the views name faults, learnt from all baselines
    asset TEXT NOT NULL,
    channel TEXT NOT NULL,
    weights TEXT NOT NULL,                   -- JSON
    PRIMARY KEY (asset, channel)
)
"""

SCHEMA_3 = """
ALTER TABLE baseline RENAME TO baseline_2;
DROP INDEX baseline_version;
CREATE TABLE baseline (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    asset TEXT NOT NULL,
    channel TEXT NOT NULL,
    label TEXT,                       -- NULL is normal, else the fault these windows show
    version INTEGER NOT NULL,
    active INTEGER NOT NULL,
    created_s REAL NOT NULL,
    reason TEXT NOT NULL,             -- why it was enrolled
    after_record INTEGER NOT NULL,    -- newest record when it became active: alarms up to there are not resumed
    model_name TEXT NOT NULL,
    model_sha256 TEXT NOT NULL,
    front_end TEXT,                   -- JSON, views left out; NULL: a release that did not keep it
    rate TEXT NOT NULL,               -- Hz, a fraction: 48000 or 15625/4
    piece_frames INTEGER NOT NULL,    -- how the stream was cut, see fisher_edge.dsp.grid
    piece_hop_frames INTEGER NOT NULL,
    window_pieces INTEGER NOT NULL,
    hop_pieces INTEGER NOT NULL,
    bands INTEGER NOT NULL,
    windows INTEGER NOT NULL,
    vectors BLOB NOT NULL,            -- float32 (windows, bands * dim), not normalised
    take BLOB NOT NULL,               -- int32 (windows,), recording of each window
    offset_s BLOB NOT NULL,           -- float64 (windows,), end of each window within its recording
    level BLOB NOT NULL,              -- float64 (windows,), log RMS of each window, NaN where it is not known
    views BLOB                        -- float32 (windows, bins of all views side by side), NULL without views
);
CREATE UNIQUE INDEX baseline_version ON baseline (asset, channel, ifnull(label, ''), version);
CREATE TABLE baseline_take (          -- the recordings of a baseline
    baseline INTEGER NOT NULL REFERENCES baseline (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    specimen TEXT,
    recorded_s REAL,                  -- time of its first sample, seconds UTC; NULL: not known
    state INTEGER NOT NULL,           -- operating state it belongs to
    PRIMARY KEY (baseline, number)
);
CREATE TABLE baseline_state (         -- the operating states of a baseline
    baseline INTEGER NOT NULL REFERENCES baseline (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    held_out BLOB NOT NULL,           -- float64, distances of its windows that were held out
    level_mean REAL NOT NULL,         -- log RMS
    level_std REAL NOT NULL,
    level_held_out BLOB NOT NULL,     -- float64, deviations of its windows from the level of its other recordings
    hum_share REAL NOT NULL,          -- largest share of a window's power at mains frequency and its harmonics
    PRIMARY KEY (baseline, number)
);
CREATE TABLE baseline_view (          -- the views of a baseline, in the order of their vectors
    baseline INTEGER NOT NULL REFERENCES baseline (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    view TEXT NOT NULL,               -- JSON
    held_out BLOB NOT NULL,           -- float64
    PRIMARY KEY (baseline, number)
);
CREATE TABLE record (                 -- results, events and states: first what waits for the broker, then the history
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,               -- result, event or state
    status INTEGER NOT NULL,          -- 0 waits for the broker, 1 delivered, 2 set aside: the broker refuses it
    boot INTEGER NOT NULL,
    seq INTEGER,                      -- counts per boot and kind, without gaps; a state has that of its result
    asset TEXT NOT NULL,
    channel TEXT NOT NULL,
    time_s REAL NOT NULL,             -- of the samples
    created_s REAL NOT NULL,          -- when it was written
    dialect INTEGER NOT NULL,         -- 0 neutral (a dataclass of decision.judgement as JSON), 1 a finished message
    body BLOB NOT NULL,
    reason TEXT                       -- why it was set aside
);
CREATE INDEX record_waiting ON record (kind, id) WHERE status = 0;
CREATE INDEX record_history ON record (asset, channel, kind, id);
CREATE TABLE record_total (           -- one row: counting would be too slow
    waiting INTEGER NOT NULL DEFAULT 0,
    waiting_bytes INTEGER NOT NULL DEFAULT 0,
    kept_bytes INTEGER NOT NULL DEFAULT 0,      -- of what is delivered or set aside
    set_aside INTEGER NOT NULL DEFAULT 0,
    dropped_result INTEGER NOT NULL DEFAULT 0,
    dropped_event INTEGER NOT NULL DEFAULT 0,
    dropped_state INTEGER NOT NULL DEFAULT 0
)
"""

# Bytes of a row of `record` on disk beside its body: numbers, names and its entries in the indices (measured).
ROW_BYTES = 160
SIZE = f"length(body) + length(asset) + length(channel) + {ROW_BYTES}"


def migrate(connection: sqlite3.Connection) -> bool:
    """Bring a database up to date in one transaction (two programs may start at once); tell whether it was old."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        before: int = connection.execute("PRAGMA user_version").fetchone()[0]
        version = before
        for step in STEPS[version:]:
            step(connection)
            version += 1
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return 0 < before < VERSION


def _script(connection: sqlite3.Connection, script: str) -> None:
    """Run statements inside the transaction under way, which `executescript` would end."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""
    if statement.strip():
        connection.execute(statement)


def _to_1(connection: sqlite3.Connection) -> None:
    _script(connection, SCHEMA_1)


def _to_2(connection: sqlite3.Connection) -> None:
    _script(connection, SCHEMA_2)


def _to_3(connection: sqlite3.Connection) -> None:
    """Baselines become columns and arrays; outbox and events become records; finished messages stay as they are."""
    _script(connection, SCHEMA_3)
    rows = connection.execute(
        "SELECT id, asset, channel, label, version, active, created_s, facts, vectors, times, views FROM baseline_2"
    ).fetchall()
    for row in rows:
        try:
            _typed_baseline(connection, *row)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise sqlite3.DatabaseError(f"baseline {row[0]} of {row[1]}/{row[2]} has no usable facts") from error
    connection.execute("DROP TABLE baseline_2")
    _move_events(connection)
    connection.execute(
        "INSERT INTO record (kind, status, boot, seq, asset, channel, time_s, created_s, dialect, body)"
        " SELECT kind, 0, boot, seq, json_extract(CAST(payload AS TEXT), '$.asset'),"
        " json_extract(CAST(payload AS TEXT), '$.channel'),"
        " coalesce(CAST(strftime('%s', json_extract(CAST(payload AS TEXT), '$.time')) AS REAL), created_s),"
        " created_s, 1, payload FROM outbox ORDER BY id"
    )
    connection.execute(
        "INSERT INTO record_total (waiting, waiting_bytes, kept_bytes, dropped_result, dropped_event, dropped_state)"
        " SELECT (SELECT count(*) FROM record WHERE status = 0),"
        f" (SELECT coalesce(sum({SIZE}), 0) FROM record WHERE status = 0),"
        f" (SELECT coalesce(sum({SIZE}), 0) FROM record WHERE status <> 0),"
        " dropped_result, dropped_event, dropped_state FROM outbox_total"
    )
    connection.execute(
        "UPDATE baseline SET after_record = (SELECT coalesce(max(id), 0) FROM record WHERE kind = 'event' AND"
        " record.asset = baseline.asset AND record.channel = baseline.channel AND record.time_s <= baseline.created_s)"
    )
    for table in ("outbox", "outbox_total", "event"):
        connection.execute(f"DROP TABLE {table}")


def _move_events(connection: sqlite3.Connection) -> None:
    """Keep the events that were delivered, as neutral rows without the judgement that led to them."""
    rows = connection.execute(
        "SELECT asset, channel, time_s, payload FROM event WHERE NOT EXISTS (SELECT 1 FROM outbox WHERE kind = 'event'"
        " AND boot = json_extract(event.payload, '$.boot') AND seq = json_extract(event.payload, '$.seq')) ORDER BY id"
    ).fetchall()
    for asset, channel, time_s, payload in rows:
        fields = json.loads(payload)
        body = {name: fields[name] for name in ("before", "after", "reason")} | {"time_s": time_s, "judgement": None}
        connection.execute(
            "INSERT INTO record (kind, status, boot, seq, asset, channel, time_s, created_s, dialect, body)"
            " VALUES ('event', 1, ?, ?, ?, ?, ?, ?, 0, ?)",
            (fields["boot"], fields["seq"], asset, channel, time_s, time_s, json.dumps(body).encode()),
        )


def _typed_baseline(
    connection: sqlite3.Connection,
    row_id: int,
    asset: str,
    channel: str,
    label: str | None,
    version: int,
    active: int,
    created_s: float,
    facts_text: str,
    vectors: bytes,
    times: bytes,
    views: bytes | None,
) -> None:
    """Write one baseline of schema 2 in the form of schema 3."""
    facts: dict[str, Any] = json.loads(facts_text)
    times_s = np.frombuffer(times, "<f8")
    frame_s = (facts.get("front_end") or {}).get("hop_ms", 10) / 1000
    offset_s = times_s - times_s[0] + facts["window_frames"] * frame_s if len(times_s) else times_s
    level = facts["level"]
    connection.execute(
        "INSERT INTO baseline (id, asset, channel, label, version, active, created_s, reason, after_record, model_name,"
        " model_sha256, front_end, rate, piece_frames, piece_hop_frames, window_pieces, hop_pieces, bands, windows,"
        " vectors, take, offset_s, level, views)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, '', 0, ?, ?, ?, ?, ?, ?, 1, 1, ?, ?, ?, ?, ?, ?, ?)",
        (
            row_id,
            asset,
            channel,
            label,
            version,
            active,
            created_s,
            facts["model"]["name"],
            facts["model"]["sha256"],
            json.dumps(facts["front_end"]) if facts.get("front_end") else None,
            str(Fraction(facts["rate_hz"])),
            facts["window_frames"],
            facts["hop_frames"],
            facts["bands"],
            len(times_s),
            vectors,
            np.asarray(facts["source_of_window"], "<i4").tobytes(),
            offset_s.astype("<f8").tobytes(),
            np.full(len(times_s), np.nan, "<f8").tobytes(),
            views,
        ),
    )
    specimens = facts.get("specimens") or [None] * len(facts["sources"])
    connection.executemany(
        "INSERT INTO baseline_take VALUES (?, ?, ?, ?, NULL, 0)",
        [(row_id, number, *pair) for number, pair in enumerate(zip(facts["sources"], specimens, strict=True))],
    )
    connection.execute(
        "INSERT INTO baseline_state VALUES (?, 0, '', ?, ?, ?, ?, 1.0)",
        (
            row_id,
            np.asarray(facts.get("held_out", []), "<f8").tobytes(),
            level["mean"],
            level["std"],
            np.asarray(level["held_out"], "<f8").tobytes(),
        ),
    )
    connection.executemany(
        "INSERT INTO baseline_view VALUES (?, ?, ?, ?)",
        [
            (row_id, number, json.dumps(each["view"]), np.asarray(each["held_out"], "<f8").tobytes())
            for number, each in enumerate(facts.get("views", []))
        ],
    )


STEPS = (_to_1, _to_2, _to_3)
VERSION = len(STEPS)
