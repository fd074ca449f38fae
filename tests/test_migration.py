"""A database of the release before is opened, keeps what it holds and delivers what it owes.

`data/schema_2.sqlite3.gz` was written by the code of that release with `data/schema_2.txt`: two versions of a normal
baseline of 16 kHz and one of a fault, all with two views; two boots with eight windows, of which the first three are
delivered, and an event in every other one.
"""

import gzip
import json
import logging
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judgements import AMPLE, result, standing
from mosquitto import Mosquitto, Subscriber, wait_until
from small_disk import small_disk

from fisher_edge.decision.judgement import State
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.errors import DiskFullError
from fisher_edge.names import ChannelKey
from fisher_edge.publish import BrokerAddress, Publisher, Topics
from fisher_edge.publish.message import Info
from fisher_edge.store.baselines import Baselines
from fisher_edge.store.database import DATABASE_NAME, Database
from fisher_edge.store.migration import VERSION
from fisher_edge.store.records import Records

PUMP = ChannelKey("pump-1", "vib-de")
OLD = ChannelKey("pump-1", "old")
FIXTURE = Path(__file__).parent / "data" / "schema_2.sqlite3.gz"


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """Return a state directory with the database of the release before."""
    with gzip.open(FIXTURE) as packed, (tmp_path / DATABASE_NAME).open("wb") as file:
        shutil.copyfileobj(packed, file)
    return tmp_path


def before(state_dir: Path, sql: str) -> list[tuple[Any, ...]]:
    """Read from the database as it was written."""
    with gzip.open(FIXTURE) as packed:
        copy = state_dir / "before.sqlite3"
        copy.write_bytes(packed.read())
    connection = sqlite3.connect(copy)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_database_is_brought_up_to_date_once(state_dir: Path) -> None:
    """The new schema is written in the first opening, and the file can shrink from then on."""
    for _ in range(2):
        with Database(state_dir, check=True) as database:
            assert database.query("PRAGMA user_version") == [(VERSION,)]
            assert database.query("PRAGMA auto_vacuum") == [(2,)]
            assert len(database.query("SELECT * FROM baseline")) == 3
            assert database.query("PRAGMA foreign_key_check") == []


def test_baselines_keep_their_arrays_and_facts(state_dir: Path) -> None:
    """Every array of every version is the one that was enrolled; what was not known stays unknown."""
    rows = before(state_dir, "SELECT label, version, active, created_s, facts, vectors, times, views FROM baseline")
    assert len(rows) == 3
    bundle = load_bundle()
    with Database(state_dir) as database:
        for label, version, active, created_s, facts_text, vectors, times, views in rows:
            facts = json.loads(facts_text)
            baseline = Baselines(database).get(PUMP, label, version)
            assert baseline is not None
            assert (baseline.active, baseline.created_s) == (bool(active), created_s)
            assert (baseline.model_name, baseline.model_sha256) == (facts["model"]["name"], facts["model"]["sha256"])
            assert baseline.rate_hz == 16000
            assert baseline.vectors.shape == (len(facts["source_of_window"]), 3, 4)
            assert baseline.vectors.tobytes() == vectors
            assert baseline.views is not None
            assert baseline.views.tobytes() == views
            assert baseline.take.tolist() == facts["source_of_window"]
            assert [take.name for take in baseline.takes] == facts["sources"]
            assert [take.specimen for take in baseline.takes] == facts["specimens"]
            assert {take.recorded_s for take in baseline.takes} == {None}
            assert np.isnan(baseline.level).all()
            grid = baseline.grid
            assert (grid.piece_frames, grid.piece_hop_frames, grid.window_pieces, grid.hop_pieces) == (128, 64, 1, 1)
            assert np.allclose(np.diff(baseline.offset_s), np.diff(np.frombuffer(times)))
            assert baseline.offset_s[0] == pytest.approx(1.28)
            (state,) = baseline.states
            assert state.held_out.tolist() == facts["held_out"]
            assert (state.level_mean, state.level_std) == (-1.25, 0.125)
            assert [each.view for each in baseline.view_calibrations] == list(bundle.front_end.views)
            assert [each.held_out.tolist() for each in baseline.view_calibrations] == [
                view["held_out"] for view in facts["views"]
            ]
        assert Baselines(database).fusion(PUMP) == {"envelope-1000hz": 0.5}
        assert {baseline.label for baseline in Baselines(database).active(PUMP)} == {None, "outer race"}


def test_what_waited_is_published_in_order_as_it_was_written(
    state_dir: Path, mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    """Each message that waits arrives with its own payload and `replay`, new ones follow, a lost channel is cleared."""
    caplog.set_level(logging.INFO)
    owed = before(state_dir, "SELECT kind, topic, payload FROM outbox ORDER BY id")
    assert len(owed) == 7
    topics = Topics("fisher-edge", "line-3")
    with Database(state_dir) as database, Subscriber(mosquitto.port) as subscriber:
        records = Records(database, database.new_boot(), limits=AMPLE)
        totals = records.totals()
        # seven that are owed; nothing is known of the state of the other channel
        assert (totals.waiting, totals.dropped_results, totals.dropped_events) == (7, 9, 1)
        address = BrokerAddress.parse(mosquitto.url)
        with Publisher(
            state_dir,
            address,
            topics,
            records.boot,
            limits=AMPLE,
            channels={PUMP},
            info=Info("1.2.3", "nano", "0" * 64, "cpu"),
        ):
            wait_until(lambda: records.totals().waiting == 0, "an empty outbox")
            records.put(PUMP, result=result(), standing=standing())
            wait_until(lambda: records.totals().waiting == 0, "an empty outbox")
            subscriber.wait_for("result", 1)
            wait_until(lambda: len(subscriber.of("state")) == 3, "three states")
        for kind in ("result", "event"):
            expected = [(topic, payload[:-1] + b',"replay":true}') for each, topic, payload in owed if each == kind]
            assert [(m.topic, m.payload) for m in subscriber.of(kind)][: len(expected)] == expected
        states = [(m.topic.split("/")[-2], m.payload, m.fields.get("seq")) for m in subscriber.of("state")]
        (last,) = (payload for kind, _, payload in owed if kind == "state")
        assert ("vib-de", last[:-1] + b',"replay":true}', 2) in states
        assert ("old", b"", None) in states
        assert states[-1][::2] == ("vib-de", 1)
        assert [m.fields["boot"] for m in subscriber.of("result")] == [1, 1, 2, 2, 3]
    assert f"channel {OLD} is not configured any more" in caplog.text


def test_events_are_history_and_alarms_can_be_resumed(state_dir: Path) -> None:
    """Events are in the history, whether delivered or not; the last judged one is found."""
    with Database(state_dir) as database:
        records = Records(database, database.new_boot(), limits=AMPLE)
        events = records.history(PUMP, "event")
        assert [(each.boot, each.seq, each.value.before, each.value.after) for each in events] == [
            (1, 1, State.NORMAL, State.WARNING),
            (1, 2, State.NORMAL, State.ALARM),
            (1, 4, State.NORMAL, State.CHECK_FUNCTION),
            (2, 1, State.NORMAL, State.WARNING),
        ]
        assert events[0].value.time_s == 1769851801.25
        last = records.last_change(PUMP, judged=True)
        assert last is not None
        assert (last.boot, last.seq, last.value.after, last.value.time_s) == (2, 1, State.WARNING, 1769851807.25)
        assert last.value.reason == "shape at 1.50 times its threshold"
        other = records.last_change(OLD)
        assert other is not None
        assert other.value.after is State.NORMAL
        assert Baselines(database).get(PUMP, None).after_record > 0  # type: ignore[union-attr]


def test_events_that_are_resumed_from_outlive_the_history(state_dir: Path) -> None:
    """Without any history the last judged event of each channel is still there."""
    with Database(state_dir) as database:
        records = Records(database, database.new_boot(), limits=AMPLE)
        records.database.query("UPDATE record SET status = 1")
        short = Records(database, records.boot, limits=AMPLE.__class__(1 << 20, 1e9, 0, 0.0))
        short.put(PUMP, standing=standing())
        short.put(PUMP, standing=standing())
        for key, after in ((PUMP, State.WARNING), (OLD, State.NORMAL)):
            last = short.last_change(key, judged=True)
            assert last is not None
            assert last.value.after is after


def test_full_disk_stops_the_migration_and_loses_nothing(tmp_path: Path, state_dir: Path) -> None:
    """Without room for the new tables the start says that the disk is full; with room it goes on."""
    with small_disk(tmp_path / "disk", 1) as folder:
        shutil.copy(state_dir / DATABASE_NAME, folder)
        hog = folder / "hog"
        room = os.statvfs(folder)
        hog.write_bytes(b"x" * (room.f_bavail * room.f_frsize - (48 << 10)))
        with pytest.raises(DiskFullError, match="the disk is full"), Database(folder):
            pass
        hog.unlink()
        with Database(folder, check=True) as database:
            assert len(Baselines(database).active(PUMP)) == 2
