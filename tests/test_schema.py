"""Databases of earlier schemas, written by hand: what was enrolled, waits or happened is there afterwards."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from windows import KEY

from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.views import View
from fisher_edge.errors import DamagedStateError
from fisher_edge.names import ChannelKey
from fisher_edge.store.baselines import Baselines, Take
from fisher_edge.store.database import DATABASE_NAME, Database
from fisher_edge.store.migration import VERSION
from fisher_edge.store.schema import SCHEMA_1, SCHEMA_2, row_bytes

VECTORS = np.arange(48, dtype="<f4").reshape(6, 2, 4)
TIMES = 1.7e9 + 0.64 * np.arange(6)
VIEW = View("slow", 200, 400)
VIEWS = np.linspace(0, 1, 6 * VIEW.bins, dtype="<f4").reshape(6, VIEW.bins)
FACTS: dict[str, Any] = {
    "model": {"name": "nano", "sha256": "a" * 64},
    "rate_hz": 16_000,
    "window_frames": 128,
    "hop_frames": 64,
    "bands": 2,
    "sources": ["Öl.flac", "b.wav"],
    "source_of_window": [0, 0, 0, 1, 1, 1],
    "held_out": [0.01, 0.02, 0.03, 0.04],
    "level": {"mean": -2.5, "std": 0.25, "held_out": [0.1, 0.2, 0.3]},
}
NEWER: dict[str, Any] = {
    "front_end": {key: value for key, value in FrontEnd(top_band="pad").to_dict().items() if key != "piece_rule"},
    "specimens": ["6205-a", None],
    "views": [{"view": VIEW.to_dict(), "held_out": [0.5, 0.75]}],
}


def payload(seq: int, **fields: Any) -> str:
    """Return a message of the release before, as far as it matters here."""
    return json.dumps({"asset": "pump-1", "channel": "vib-de", "boot": 4, "seq": seq} | fields)


def old_database(folder: Path, schema: int) -> None:
    """Write a database of schema 1 or 2: three baselines, messages that wait, and events."""
    connection = sqlite3.connect(folder / DATABASE_NAME)
    connection.executescript(SCHEMA_1)
    if schema == 2:
        connection.executescript(SCHEMA_2)
    for row, (label, version, active, created_s) in enumerate(
        [(None, 1, 0, 100.0), (None, 2, 1, 200.0), ("inner", 1, 1, 300.0)], start=1
    ):
        facts = FACTS | (NEWER if schema == 2 else {})
        if label:
            facts |= {"held_out": [], "level": FACTS["level"] | {"held_out": []}}
        values = [row, *KEY, label, version, active, created_s, json.dumps(facts), VECTORS.tobytes(), TIMES.tobytes()]
        values += [VIEWS.tobytes()] if schema == 2 else []
        connection.execute(f"INSERT INTO baseline VALUES ({', '.join('?' * len(values))})", values)
    if schema == 2:
        connection.execute("INSERT INTO fusion VALUES (?, ?, '{\"classes\": 2}')", KEY)
    connection.execute("INSERT INTO boot (boot, started_s) VALUES (4, 50.0)")
    for seq, time_s, after in ((1, 150.0, "warning"), (2, 250.0, "alarm"), (3, 350.0, "normal")):
        event = payload(seq, before="normal", after=after, reason="far off")
        connection.execute("INSERT INTO event (asset, channel, time_s, payload) VALUES (?, ?, ?, ?)",
                           (*KEY, time_s, event))  # fmt: skip
    waiting = [
        ("event", 3, payload(3, time="1970-01-01T00:05:50.000Z", after="normal"), 0),
        ("result", 77, payload(77, time="1970-01-01T00:06:00.500Z"), 0),
        ("state", 77, payload(77, time="1970-01-01T00:06:00.500Z", state="normal"), 1),
    ]
    connection.executemany(
        "INSERT INTO outbox (kind, boot, seq, topic, payload, retain, created_s) VALUES (?, 4, ?, 't', ?, ?, 360.0)",
        [(kind, seq, body.encode(), retain) for kind, seq, body, retain in waiting],
    )
    connection.execute("UPDATE outbox_total SET waiting = 3, bytes = 999, dropped_result = 5, dropped_event = 1")
    connection.execute(f"PRAGMA user_version = {schema}")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("schema", [1, 2])
def test_baselines_of_an_earlier_schema_are_there(tmp_path: Path, schema: int) -> None:
    """Vectors, recordings, calibration and versions are those that were enrolled; what was not known is unknown."""
    old_database(tmp_path, schema)
    with Database(tmp_path) as database:
        assert database.query("PRAGMA user_version") == [(VERSION,)]
        baselines = Baselines(database)
        normal, fault = baselines.active(KEY)
        facts = [(each.label, each.version, each.active, each.created_s) for each in baselines.facts()]
        fusion = baselines.fusion(KEY)
    assert facts == [(None, 1, False, 100.0), (None, 2, True, 200.0), ("inner", 1, True, 300.0)]
    np.testing.assert_array_equal(normal.vectors, VECTORS)
    assert (normal.model_name, normal.model_sha256, normal.rate_hz) == ("nano", "a" * 64, 16_000)
    assert (normal.grid.piece_frames, normal.grid.piece_hop_frames) == (128, 64)
    assert (normal.grid.window_pieces, normal.grid.hop_pieces) == (1, 1)
    assert (normal.grid.window_s, normal.grid.hop_s) == (1.28, 0.64)
    assert normal.take.tolist() == FACTS["source_of_window"]
    np.testing.assert_allclose(normal.offset_s, 1.28 + 0.64 * np.arange(6), atol=1e-6)
    assert np.isnan(normal.level).tolist() == [True] * 6
    (state,) = normal.states
    assert state.held_out.tolist() == [0.01, 0.02, 0.03, 0.04]
    assert (state.level_mean, state.level_std) == (-2.5, 0.25)
    assert state.hum_share == 1.0, "how much hum was normal is not known: none is distrusted"
    assert len(fault.states[0].held_out) == 0
    if schema == 1:
        assert (normal.front_end, normal.views, normal.view_calibrations, fusion) == (None, None, (), None)
        assert normal.takes == (Take("Öl.flac"), Take("b.wav"))
    else:
        assert normal.front_end == FrontEnd(top_band="pad")
        assert normal.takes == (Take("Öl.flac", "6205-a"), Take("b.wav"))
        np.testing.assert_array_equal(normal.views, VIEWS)
        (calibration,) = normal.view_calibrations
        assert (calibration.view, calibration.held_out.tolist()) == (VIEW, [0.5, 0.75])
        assert fusion == {"classes": 2}


@pytest.mark.parametrize("schema", [1, 2])
def test_messages_that_waited_still_wait_as_they_are(tmp_path: Path, schema: int) -> None:
    """The outbox keeps its order, its numbers and every byte; what was dropped stays counted."""
    old_database(tmp_path, schema)
    with Database(tmp_path) as database:
        rows = database.query(
            "SELECT kind, boot, seq, asset, channel, time_s, created_s, dialect, body FROM record WHERE status = 0"
            " ORDER BY id"
        )
        sizes = database.query("SELECT status, size, body FROM record")
        totals = database.query("SELECT waiting, waiting_bytes, kept_bytes, set_aside FROM record_total")
        dropped = database.query("SELECT dropped_result, dropped_event FROM record_total")
    assert [row[:8] for row in rows] == [
        ("event", 4, 3, *KEY, 350.0, 360.0, 1),
        ("result", 4, 77, *KEY, 360.5, 360.0, 1),
    ]
    assert rows[0][-1] == payload(3, time="1970-01-01T00:05:50.000Z", after="normal").encode()
    assert [size for _, size, _ in sizes] == [row_bytes(body, *KEY) for *_, body in sizes]
    waiting, kept = (sum(size for status, size, _ in sizes if status == which) for which in (0, 1))
    assert totals == [(2, waiting, kept, 0)]
    assert dropped == [(5, 1)]


@pytest.mark.parametrize("schema", [1, 2])
def test_state_that_waited_is_the_standing_of_its_channel(tmp_path: Path, schema: int) -> None:
    """A retained state still waits, byte by byte, and names the newest event that judged the channel."""
    old_database(tmp_path, schema)
    with Database(tmp_path) as database:
        (row,) = database.query("SELECT asset, channel, status, boot, seq, dialect, body, judged FROM standing")
        assert database.query("SELECT standing_id FROM record_total") == database.query("SELECT id FROM standing")
        newest = database.query("SELECT max(id) FROM record WHERE kind = 'event'")[0][0]
    state = payload(77, time="1970-01-01T00:06:00.500Z", state="normal").encode()
    assert row == (*KEY, 0, 4, 77, 1, state, newest)


def test_events_that_were_delivered_are_history(tmp_path: Path) -> None:
    """Events are kept once: those that still wait are not written a second time."""
    old_database(tmp_path, 2)
    with Database(tmp_path) as database:
        rows = database.query(
            "SELECT status, boot, seq, asset, channel, time_s, dialect, body FROM record WHERE kind = 'event'"
            " ORDER BY id"
        )
    assert [row[:7] for row in rows] == [
        (1, 4, 1, *KEY, 150.0, 0),
        (1, 4, 2, *KEY, 250.0, 0),
        (0, 4, 3, *KEY, 350.0, 1),
    ]
    assert json.loads(rows[1][-1]) == {
        "before": "normal",
        "after": "alarm",
        "reason": "far off",
        "time_s": 250.0,
    }


def test_alarms_before_an_enrollment_are_not_resumed(tmp_path: Path) -> None:
    """Each baseline knows the newest event of its channel from before it was enrolled."""
    old_database(tmp_path, 2)
    with Database(tmp_path) as database:
        known = [Baselines(database).get(*which) for which in ((KEY, None, 1), (KEY, None, 2), (KEY, "inner", 1))]
        after = [each.after_record for each in known if each]
        events = dict(database.query("SELECT seq, id FROM record WHERE kind = 'event'"))
    assert after == [0, events[1], events[2]]


def test_migrated_database_takes_new_rows_and_gives_room_back(tmp_path: Path) -> None:
    """Boots go on counting, parts of a baseline go with it, and the file can shrink."""
    old_database(tmp_path, 1)
    with Database(tmp_path) as database:
        assert database.new_boot() == 5
        assert database.query("PRAGMA auto_vacuum") == [(2,)]
        assert database.query("PRAGMA foreign_keys") == [(1,)]
        assert Baselines(database).remove(KEY, None) == 2
        assert database.query("SELECT DISTINCT baseline FROM baseline_take") == [(3,)]
        tables = {name for (name,) in database.query("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert not tables & {"outbox", "outbox_total", "event", "baseline_2"}


@pytest.mark.parametrize("facts", ["{}", "[]", "nonsense", '{"window_frames": 1, "level": 3}'])
def test_migration_that_fails_changes_nothing(tmp_path: Path, facts: str) -> None:
    """A baseline that cannot be read leaves the old database as it was, for the release before to go on with."""
    old_database(tmp_path, 2)
    path = tmp_path / DATABASE_NAME
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE baseline SET facts = ? WHERE id = 3", (facts,))
    connection.close()
    with pytest.raises(
        DamagedStateError, match=r"baseline 3 of pump-1/vib-de has no usable facts.; nothing was changed"
    ):
        Database(tmp_path, set_aside=False)
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("SELECT count(*) FROM baseline").fetchone() == (3,)
        assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (3,)
        assert not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'record'").fetchall()
    connection.close()


def test_channels_of_a_migrated_database(tmp_path: Path) -> None:
    """What is enrolled is listed by channel."""
    old_database(tmp_path, 2)
    with Database(tmp_path) as database:
        assert Baselines(database).channels() == [ChannelKey("pump-1", "vib-de")]
