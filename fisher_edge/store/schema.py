"""The tables of the gateway's database, version by version; the newest is the sum of all. Start at `SCHEMA_3`.

One table, one module: `baseline*` and `fusion` belong to `baselines.py`, `record`, `record_total`
and `standing` to `records.py`, `command` to `commands.py`, `boot` to `database.py`.
"""

__all__ = [
    "DELIVERED",
    "MESSAGE",
    "NEUTRAL",
    "PAGE_BYTES",
    "SCHEMA_1",
    "SCHEMA_2",
    "SCHEMA_3",
    "SCHEMA_4",
    "SCHEMA_5",
    "SET_ASIDE",
    "WAITING",
    "row_bytes",
]

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
CREATE TABLE record (                 -- results and events: first what waits for the broker, then the history
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,               -- result or event
    status INTEGER NOT NULL,          -- 0 waits for the broker, 1 delivered, 2 set aside: the broker refuses it
    boot INTEGER NOT NULL,
    seq INTEGER NOT NULL,             -- counts per boot and kind, without gaps
    asset TEXT NOT NULL,
    channel TEXT NOT NULL,
    time_s REAL NOT NULL,             -- of the samples
    created_s REAL NOT NULL,          -- when it was written, by the clock of the gateway
    run_s REAL NOT NULL,              -- when it was written, by the clock of record_total
    size INTEGER NOT NULL,            -- bytes it takes on disk, see row_bytes
    dialect INTEGER NOT NULL,         -- 0 neutral (see store/body.py), 1 a finished message of an earlier release
    body BLOB NOT NULL,
    reason TEXT                       -- why it was set aside
);
CREATE INDEX record_waiting ON record (kind, id) WHERE status = 0;
CREATE INDEX record_kept ON record (status, id) WHERE status <> 0;
CREATE INDEX record_history ON record (asset, channel, kind, id);
CREATE TABLE record_total (           -- one row: counting would be too slow
    waiting INTEGER NOT NULL DEFAULT 0,
    waiting_bytes INTEGER NOT NULL DEFAULT 0,
    kept_bytes INTEGER NOT NULL DEFAULT 0,      -- of what is delivered or set aside
    set_aside INTEGER NOT NULL DEFAULT 0,
    dropped_result INTEGER NOT NULL DEFAULT 0,
    dropped_event INTEGER NOT NULL DEFAULT 0,
    resends INTEGER NOT NULL DEFAULT 0,         -- how often a user had rows sent again that were set aside
    standing_id INTEGER NOT NULL DEFAULT 0,     -- last id given to a row of standing
    run_s REAL NOT NULL DEFAULT 0               -- seconds gateways have run on this database: a clock nobody sets
);
CREATE TABLE standing (               -- the latest state of each channel: what its retained topic says
    asset TEXT NOT NULL,
    channel TEXT NOT NULL,
    id INTEGER NOT NULL,              -- new with every state
    status INTEGER NOT NULL,          -- as in record
    boot INTEGER NOT NULL,
    seq INTEGER,                      -- of the result that led to it, NULL without one
    run_s REAL NOT NULL,
    dialect INTEGER NOT NULL,
    body BLOB,                        -- NULL: an earlier release published a state, which is not known
    reason TEXT,                      -- why it was set aside
    judged INTEGER,                   -- id of the last event into normal, warning or alarm: kept whatever its age
    PRIMARY KEY (asset, channel)
)
"""

# Whether windows are joined from bursts, and the seconds that pass while a second of signal is heard (comments inside
# would become part of the table, which SQLite then cannot read); the spread of levels is that between takes now.
SCHEMA_4 = """
ALTER TABLE baseline ADD COLUMN bursts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE baseline ADD COLUMN time_factor REAL NOT NULL DEFAULT 1;
ALTER TABLE baseline_state DROP COLUMN level_held_out
"""

# What a baseline would notice (JSON, NULL: not known), whether a name of an operating state was given at enrollment,
# and what users ask of a running gateway.
SCHEMA_5 = """
ALTER TABLE baseline ADD COLUMN sensitivity TEXT;
ALTER TABLE baseline_state ADD COLUMN given INTEGER NOT NULL DEFAULT 0;
CREATE TABLE command (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    verb TEXT NOT NULL,
    asset TEXT NOT NULL,
    channel TEXT NOT NULL,
    arguments TEXT NOT NULL,          -- JSON
    created_s REAL NOT NULL,
    status TEXT NOT NULL,             -- waiting, running, done or failed
    answer TEXT NOT NULL              -- JSON: how far it is, what came of it, or why it failed
)
"""

# Status of a row of `record` or `standing`.
WAITING, DELIVERED, SET_ASIDE = 0, 1, 2
# Dialect of a body: a dataclass of `decision.judgement`, or a message as an earlier release published it.
NEUTRAL, MESSAGE = 0, 1

# Pages of the database: size, and room for rows in a page of a table.
PAGE_BYTES = 4096
PAGE_ROOM = PAGE_BYTES - 8
# Largest row that a page holds whole, and the least that stays in the page of a larger one (SQLite's file format).
LARGEST_WHOLE = PAGE_BYTES - 35
LEAST_LOCAL = (PAGE_BYTES - 12) * 32 // 255 - 23
# Numbers and header of a row of `record`, and its entries in the indices without names (measured).
ROW_BYTES = 52
INDEX_BYTES = 60


def row_bytes(body: bytes, asset: str, channel: str) -> int:
    """Bytes that a row of `record` takes on disk, pages that no second row of its size fits into counted whole."""
    names = len(asset.encode()) + len(channel.encode())
    row = len(body) + names + ROW_BYTES
    beyond = 0
    if row > LARGEST_WHOLE:
        local = LEAST_LOCAL + (row - LEAST_LOCAL) % (PAGE_BYTES - 4)
        local = local if local <= LARGEST_WHOLE else LEAST_LOCAL
        beyond = -(-(row - local) // (PAGE_BYTES - 4)) * PAGE_BYTES
        row = local
    return PAGE_BYTES // max(1, PAGE_ROOM // row) + beyond + names + INDEX_BYTES
