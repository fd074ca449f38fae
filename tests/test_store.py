"""The database: versions, damage, locks and deaths, none of which may lose or invent a baseline."""

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fisher_edge import database
from fisher_edge.database import DATABASE_NAME, MIGRATIONS
from fisher_edge.errors import BadInputError, StateError
from fisher_edge.store import Baseline, Store, check_topic_level


def baseline(seed: int = 0, label: str | None = None, asset: str = "pump-1", windows: int = 6) -> Baseline:
    """Return a small baseline of random numbers."""
    random = np.random.default_rng(seed)
    return Baseline(
        asset=asset,
        channel="vib-de",
        label=label,
        vectors=random.standard_normal((windows, 8)).astype(np.float32),
        times=1.7e9 + np.arange(windows, dtype=np.float64),
        facts={"seed": seed, "sources": ["Öl.flac"]},
    )


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python program of its own."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def seeds(folder: Path, **options: Any) -> list[int]:
    """Return which baselines a freshly opened store has."""
    with Store(folder) as store:
        return [row.facts["seed"] for row in store.baselines(**options)]


def test_baseline_comes_back_as_it_was(tmp_path: Path) -> None:
    """Arrays, facts and names survive closing and opening; the version and the time are added."""
    stored = baseline(3, label="inner race")
    with Store(tmp_path) as store:
        assert store.add_baseline(stored) == 1
    with Store(tmp_path) as store:
        (row,) = store.baselines()
    assert np.array_equal(row.vectors, stored.vectors)
    assert np.array_equal(row.times, stored.times)
    assert (row.asset, row.channel, row.label, row.facts) == ("pump-1", "vib-de", "inner race", stored.facts)
    assert (row.version, row.active) == (1, True)
    assert row.created_s > 1.7e9


def test_baseline_is_on_the_disk_when_it_is_reported(tmp_path: Path) -> None:
    """An enrolment survives a power cut, not only the death of the process."""
    said: list[str] = []
    with Store(tmp_path) as store:
        store.connection.set_trace_callback(said.append)
        store.add_baseline(baseline())
    assert said[0] == "PRAGMA synchronous = FULL"
    assert "COMMIT" in said


def test_newest_version_is_active_and_the_old_ones_stay(tmp_path: Path) -> None:
    """Versions count per channel and label; enrolling again replaces only the one of the same label."""
    with Store(tmp_path) as store:
        for seed, label, asset in ((1, None, "a"), (2, None, "a"), (3, "inner", "a"), (4, None, "b"), (5, None, "a")):
            store.add_baseline(baseline(seed, label, asset))
        rows = [(row.facts["seed"], row.version, row.active) for row in store.baselines()]
        assert rows == [(1, 1, False), (2, 2, False), (3, 1, True), (4, 1, True), (5, 3, True)]
        assert [row.facts["seed"] for row in store.baselines("a", "vib-de", active_only=True)] == [3, 5]
        assert [row.facts["seed"] for row in store.baselines("b")] == [4]
        assert store.baselines("nobody") == []


def test_database_is_in_wal_mode(tmp_path: Path) -> None:
    """Readers do not wait for the writer."""
    with Store(tmp_path) as store, Store(tmp_path) as reader:
        assert store.query("PRAGMA journal_mode") == [("wal",)]
        with store.transaction() as connection:
            connection.execute("INSERT INTO boot (started_s) VALUES (0)")
            assert reader.query("SELECT count(*) FROM boot") == [(0,)]
        assert reader.query("SELECT count(*) FROM boot") == [(1,)]


def test_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    """An exception inside takes everything back, and the next transaction works."""
    with Store(tmp_path) as store:

        def fail() -> None:
            with store.transaction() as connection:
                connection.execute("INSERT INTO boot (started_s) VALUES (0)")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert store.query("SELECT count(*) FROM boot") == [(0,)]
        assert store.new_boot() == 1


def test_full_disk_is_one_line_and_leaves_the_store_usable(tmp_path: Path) -> None:
    """When the database cannot grow the enrolment fails whole, what was there stays and small things go on."""
    with Store(tmp_path) as store:
        store.add_baseline(baseline(1))
        pages = store.query("PRAGMA page_count")[0][0]
        store.connection.execute(f"PRAGMA max_page_count = {pages + 4}")
        with pytest.raises(StateError, match="full; the disk is full; make room"):
            store.add_baseline(baseline(2, windows=10_000))
        assert [row.active for row in store.baselines()] == [True]
        assert store.new_boot() == 1
    assert seeds(tmp_path) == [1]


def test_boot_numbers_are_never_given_twice(tmp_path: Path) -> None:
    """Each start gets a new number, even when the rows of earlier ones are gone."""
    with Store(tmp_path) as store:
        assert [store.new_boot(), store.new_boot()] == [1, 2]
        store.connection.execute("DELETE FROM boot")
        assert store.new_boot() == 3


def test_many_openers_at_once_create_one_database(tmp_path: Path) -> None:
    """Three programs and six threads that find no database agree on one, and each writes into it."""
    code = """
        import sys
        from pathlib import Path
        from fisher_edge.store import Store
        print("ready", flush=True)
        sys.stdin.readline()
        with Store(Path(sys.argv[1])) as store:
            store.new_boot()
    """
    state = tmp_path / "deep" / "state"
    command = [sys.executable, "-c", textwrap.dedent(code), str(state)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    children = [subprocess.Popen(command, text=True, **pipes) for _ in range(3)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"

    def boot(_: int) -> None:
        with Store(state) as store:
            store.new_boot()

    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(boot, range(6))) == [None] * 6
    for child in children:
        _, errors = child.communicate(timeout=30)
        assert (child.returncode, errors) == (0, "")
    with Store(state) as store:
        assert store.query("SELECT boot FROM boot") == [(number,) for number in range(1, 10)]


def test_locked_database_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening and writing while another program holds the database exclusively says so after the patience is spent."""
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    with Store(tmp_path) as store:
        store.add_baseline(baseline(1))
    other = sqlite3.connect(tmp_path / DATABASE_NAME, isolation_level=None)
    with Store(tmp_path) as early:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StateError, match="database is locked; another program holds it") as caught:
            early.new_boot()
        assert caught.value.exit_code == 4
        assert "\n" not in str(caught.value)
    other.execute("ROLLBACK")
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    other.execute("INSERT INTO boot (started_s) VALUES (0)")
    with pytest.raises(StateError, match="locked"):
        Store(tmp_path)
    other.close()
    assert seeds(tmp_path) == [1]


def damaged(folder: Path, *, first: int, size: int) -> Path:
    """Overwrite a part of a database with baselines and return its path."""
    with Store(folder) as store:
        for seed in range(20):
            store.add_baseline(baseline(seed, windows=50))
    path = folder / DATABASE_NAME
    content = bytearray(path.read_bytes())
    assert len(content) > first + size
    content[first : first + size] = os.urandom(size)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("first", [0, 4096])
def test_damaged_database_is_set_aside_and_reported(
    tmp_path: Path, first: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The damaged file is kept under another name, an empty one is begun, other files stay, the log says so once."""
    (tmp_path / "other.txt").write_text("kept")
    content = damaged(tmp_path, first=first, size=2000).read_bytes()
    with caplog.at_level(logging.ERROR), Store(tmp_path) as store:
        assert store.baselines() == []
        assert store.add_baseline(baseline()) == 1
    (record,) = caplog.records
    assert "is damaged" in record.getMessage()
    assert "enrol again" in record.getMessage()
    (aside,) = tmp_path.glob(f"{DATABASE_NAME}.corrupt-*[0-9]")
    assert aside.read_bytes() == content
    assert (tmp_path / "other.txt").read_text() == "kept"
    assert seeds(tmp_path) == [0]


def test_boot_numbers_are_not_given_again_after_damage(tmp_path: Path) -> None:
    """The numbers of a database that was set aside are not those of its successor: subscribers know them already."""
    path = tmp_path / DATABASE_NAME
    with Store(tmp_path) as store:
        before = [store.new_boot() for _ in range(3)]
    path.write_bytes(os.urandom(8192))
    with Store(tmp_path) as store:
        after = [store.new_boot() for _ in range(2)]
    assert before == [1, 2, 3]
    assert after[1] == after[0] + 1
    assert min(after) > max(before)


def test_damaged_database_is_set_aside_once_by_many_openers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that find the damage at the same time do not set aside the new database of one another."""
    damaged(tmp_path, first=0, size=2000)
    move = database._set_aside

    def hesitate(path: Path) -> Path:
        time.sleep(0.05)
        return move(path)

    monkeypatch.setattr(database, "_set_aside", hesitate)

    def boot(_: int) -> None:
        with Store(tmp_path) as store:
            store.new_boot()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(boot, range(8))) == [None] * 8
    assert len(list(tmp_path.glob(f"{DATABASE_NAME}.corrupt-*[0-9]"))) == 1
    with Store(tmp_path) as store:
        assert store.query("SELECT count(*) FROM boot") == [(8,)]


def test_damaged_database_may_be_left_alone(tmp_path: Path) -> None:
    """Without `set_aside` damage is an error of one line and nothing is moved."""
    path = damaged(tmp_path, first=0, size=2000)
    content = path.read_bytes()
    with pytest.raises(StateError, match=r"is damaged .*nothing was changed") as caught:
        Store(tmp_path, set_aside=False)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content
    assert list(tmp_path.glob("*corrupt*")) == []


def test_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A database of a later version is neither used nor set aside."""
    with Store(tmp_path) as store:
        store.add_baseline(baseline(1))
        store.connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(StateError, match=f"newer fisher-edge .schema {len(MIGRATIONS) + 1}.; update fisher-edge"):
        Store(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [DATABASE_NAME]


def test_state_directory_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    """A file where the folder should be, or on the way there, is named with what to do."""
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "state"):
        with pytest.raises(StateError, match=r"cannot create the state directory .*; choose another with --state-dir"):
            Store(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody without permission")
def test_read_only_state_directory_is_one_line(tmp_path: Path) -> None:
    """Somebody who may not write gets one line with the advice, and the database stays as it is."""
    with Store(tmp_path / "full") as store:
        store.add_baseline(baseline(1))
    (tmp_path / "empty").mkdir()
    for folder in (*tmp_path.parents, tmp_path, tmp_path / "full", tmp_path / "empty"):
        if folder.owner() == "root" and folder.is_relative_to("/tmp/"):
            folder.chmod(0o755)
    before = (tmp_path / "full" / DATABASE_NAME).read_bytes()
    code = """
        import os, sys
        from pathlib import Path
        from fisher_edge.errors import StateError
        from fisher_edge.store import Store
        os.setgid(65534)
        os.setuid(65534)
        for folder in sys.argv[1:]:
            try:
                with Store(Path(folder)) as store:
                    store.new_boot()
            except StateError as error:
                print(error)
    """
    child = python(code, tmp_path / "full", tmp_path / "empty", tmp_path / "full" / "deeper")
    output, errors = child.communicate(timeout=30)
    assert errors == ""
    full, empty, deeper = output.splitlines()
    for line in (full, empty):
        assert "the state directory is not writable; mend its permissions or choose another --state-dir" in line
    assert "Permission denied; choose another with --state-dir" in deeper
    assert (tmp_path / "full" / DATABASE_NAME).read_bytes() == before
    assert seeds(tmp_path / "full") == [1]


def test_kill_in_a_transaction_leaves_what_was_before(tmp_path: Path) -> None:
    """A process killed between the statements of an enrolment leaves the old baseline active and no half of the new."""
    with Store(tmp_path) as store:
        store.add_baseline(baseline(1))
    code = """
        import sys, time
        from pathlib import Path
        from fisher_edge.store import Store
        with Store(Path(sys.argv[1])) as store, store.transaction() as connection:
            connection.execute("UPDATE baseline SET active = 0")
            connection.execute("INSERT INTO baseline SELECT 99, asset, channel, label, 2, 1, created_s, facts, "
                               "zeroblob(4000000), times, views FROM baseline")
            print("inside", flush=True)
            time.sleep(60)
    """
    child = python(code, tmp_path)
    assert child.stdout is not None
    assert child.stdout.readline() == "inside\n"
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=10)
    with Store(tmp_path) as store:
        assert [(row.version, row.active) for row in store.baselines()] == [(1, True)]
        assert store.add_baseline(baseline(2)) == 2


def test_event_is_kept(tmp_path: Path) -> None:
    """An event written inside a transaction is there afterwards, with its payload as JSON."""
    with Store(tmp_path) as store, store.transaction():
        store.add_event("pump-1", "vib-de", 5.0, {"after": "alarm"})
    with Store(tmp_path) as store:
        ((asset, channel, time_s, payload),) = store.query("SELECT asset, channel, time_s, payload FROM event")
    assert (asset, channel, time_s, json.loads(payload)) == ("pump-1", "vib-de", 5.0, {"after": "alarm"})


@pytest.mark.parametrize("name", ["a/b", "+", "a#", "$SYS", "", " ", "a\n", "a\x00", "a\u2028"])
def test_name_that_is_no_topic_level_is_refused(name: str) -> None:
    """Wildcards, separators, invisible characters and emptiness are named with what to use instead."""
    with pytest.raises(BadInputError, match="use letters, digits, - and _") as caught:
        check_topic_level("asset", name)
    assert "\n" not in str(caught.value)


def test_name_of_any_language_is_a_topic_level() -> None:
    """Letters beyond ASCII and inner spaces pass."""
    check_topic_level("asset", "Pumpe für Öl 2")


def test_activating_an_earlier_version_replaces_the_newer(tmp_path: Path) -> None:
    """Going back makes the earlier version the only active one; a version that is not there is named."""
    with Store(tmp_path) as store:
        for value in (1.0, 2.0):
            store.add_baseline(
                Baseline("a", "b", None, np.full((2, 4), value, np.float32), np.arange(2.0), {"rate_hz": 1})
            )
        store.activate("a", "b", None, 1)
        assert [row.version for row in store.baselines("a", "b", active_only=True)] == [1]
        with pytest.raises(BadInputError, match="no version 7 of normal; it has: 1, 2"):
            store.activate("a", "b", None, 7)


def test_removing_a_label_leaves_the_normal_state(tmp_path: Path) -> None:
    """A mistaken label goes with all its versions, the rest stays; removing it again says there is nothing."""
    with Store(tmp_path) as store:
        for label in (None, "oops", "oops"):
            store.add_baseline(Baseline("a", "b", label, np.ones((2, 4), np.float32), np.arange(2.0), {"rate_hz": 1}))
        assert store.remove("a", "b", "oops") == 2
        assert [row.label for row in store.baselines("a", "b")] == [None]
        with pytest.raises(BadInputError, match="no baseline for oops"):
            store.remove("a", "b", "oops")
