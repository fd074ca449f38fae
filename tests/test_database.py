"""The database: damage, locks, full disks and deaths, none of which may lose or invent anything."""

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from windows import KEY, baseline

from fisher_edge.errors import DamagedStateError, DiskFullError, StateError
from fisher_edge.store import database as module
from fisher_edge.store.baselines import Baselines
from fisher_edge.store.database import DATABASE_NAME, Database, free_bytes, make_private, only_daemon
from fisher_edge.store.migration import VERSION
from fisher_edge.store.schema import PAGE_BYTES

ROOT = os.getuid() == 0


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python program of its own."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **pipes)


def says(child: subprocess.Popen[str]) -> str:
    """Return the next line of a program."""
    assert child.stdout is not None
    return child.stdout.readline().strip()


def enrolled(folder: Path, **options: Any) -> list[str]:
    """Return which baselines a freshly opened database has."""
    with Database(folder, **options) as database:
        return [each.reason for each in Baselines(database).facts()]


def boot(folder: Path) -> int:
    """Open the database and count one more start."""
    with Database(folder) as database:
        return database.new_boot()


def test_readers_do_not_wait_for_the_writer(tmp_path: Path) -> None:
    """While one connection writes, another reads what was there before."""
    with Database(tmp_path) as database, Database(tmp_path) as reader:
        with database.transaction() as connection:
            connection.execute("INSERT INTO boot (started_s) VALUES (0)")
            assert reader.query("SELECT count(*) FROM boot") == [(0,)]
        assert reader.query("SELECT count(*) FROM boot") == [(1,)]


def test_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    """An exception takes everything back, that of a transaction inside too, and the next transaction works."""
    with Database(tmp_path) as database:

        def fail() -> None:
            with database.transaction() as connection:
                connection.execute("INSERT INTO boot (started_s) VALUES (0)")
                with database.transaction():
                    connection.execute("INSERT INTO boot (started_s) VALUES (1)")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert database.query("SELECT count(*) FROM boot") == [(0,)]
        assert database.new_boot() == 1


def test_only_what_must_outlive_a_power_cut_waits_for_the_disk(tmp_path: Path) -> None:
    """Durable transactions are flushed, the others are not, whatever ran before."""
    with Database(tmp_path) as database:
        for durable, level in ((True, 2), (False, 1), (True, 2)):
            with database.transaction(durable=durable):
                pass
            assert database.query("PRAGMA synchronous") == [(level,)]


def test_missing_database_is_not_made_by_readers(tmp_path: Path) -> None:
    """Without `create` a missing database is an error that names the option, and nothing is made."""
    with pytest.raises(StateError, match=r"nothing is enrolled in .*check --state-dir"):
        Database(tmp_path / "state", create=False)
    assert list(tmp_path.iterdir()) == []


def test_database_is_private(tmp_path: Path) -> None:
    """Other users of the machine can read neither the database nor its folder."""
    folder = tmp_path / "deep" / "state"
    boot(folder)
    assert (folder / DATABASE_NAME).stat().st_mode & 0o007 == 0
    assert folder.stat().st_mode & 0o007 == 0


def test_deleted_rows_give_their_room_back(tmp_path: Path) -> None:
    """The file can shrink: it is made with incremental vacuum."""
    with Database(tmp_path) as database:
        assert database.query("PRAGMA auto_vacuum") == [(2,)]


def test_boot_numbers_are_never_given_twice(tmp_path: Path) -> None:
    """Each start gets a new number, even when the rows of earlier ones are gone."""
    with Database(tmp_path) as database:
        assert [database.new_boot(), database.new_boot()] == [1, 2]
        database.connection.execute("DELETE FROM boot")
        assert database.new_boot() == 3


def test_many_openers_at_once_create_one_database(tmp_path: Path) -> None:
    """Three programs and six threads that find no database agree on one, and each writes into it."""
    code = """
        import sys
        from pathlib import Path
        from fisher_edge.store.database import Database
        print("ready", flush=True)
        sys.stdin.readline()
        with Database(Path(sys.argv[1])) as database:
            database.new_boot()
    """
    state = tmp_path / "deep" / "state"
    children = [python(code, state) for _ in range(3)]
    assert [says(child) for child in children] == ["ready"] * 3
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    with ThreadPoolExecutor(6) as pool:
        assert len(list(pool.map(boot, [state] * 6))) == 6
    for child in children:
        _, errors = child.communicate(timeout=60)
        assert (child.returncode, errors) == (0, "")
    with Database(state) as database:
        assert database.query("SELECT boot FROM boot") == [(number,) for number in range(1, 10)]


def test_locked_database_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening and writing while another program holds the database says so after the patience is spent."""
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.0)
    boot(tmp_path)
    other = sqlite3.connect(tmp_path / DATABASE_NAME, isolation_level=None)
    with Database(tmp_path) as early:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StateError, match="database is locked; another program holds it") as caught:
            early.new_boot()
    assert not isinstance(caught.value, DamagedStateError | DiskFullError)
    assert "\n" not in str(caught.value)
    other.execute("ROLLBACK")
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    other.execute("INSERT INTO boot (started_s) VALUES (0)")
    with pytest.raises(StateError, match="locked"):
        Database(tmp_path)
    other.close()
    assert boot(tmp_path) == 2
    assert not list(tmp_path.glob("*corrupt*"))


# Damage


def damaged(folder: Path, first: int = 0, size: int = 2000) -> Path:
    """Overwrite a part of a database with baselines and return its path; a negative start counts from the end."""
    with Database(folder) as database:
        for seed in range(20):
            Baselines(database).add(baseline(seed, windows=50))
    path = folder / DATABASE_NAME
    content = bytearray(path.read_bytes())
    first %= len(content)
    content[first : first + size] = b"\xa5" * size
    path.write_bytes(content)
    return path


def test_damaged_database_is_set_aside_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The damaged file is kept under another name, an empty one is begun, other files stay, the log says so once."""
    (tmp_path / "other.txt").write_text("kept")
    content = damaged(tmp_path).read_bytes()
    with caplog.at_level(logging.ERROR), Database(tmp_path) as database:
        assert Baselines(database).add(baseline(7)) == 1
    (record,) = caplog.records
    assert "is damaged" in record.getMessage()
    assert "enroll again" in record.getMessage()
    (aside,) = tmp_path.glob(f"{DATABASE_NAME}.corrupt-*[0-9]")
    assert aside.read_bytes() == content
    assert (tmp_path / "other.txt").read_text() == "kept"
    assert enrolled(tmp_path) == ["seed 7"]


@pytest.mark.parametrize("check", [True, False])
def test_damaged_database_is_left_alone_by_those_who_may_not(tmp_path: Path, check: bool) -> None:
    """Without `set_aside` damage is an error of one line and nothing is moved."""
    path = damaged(tmp_path)
    content = path.read_bytes()
    with pytest.raises(DamagedStateError, match=r"is damaged .*nothing was changed") as caught:
        Database(tmp_path, set_aside=False, check=check)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content
    assert not list(tmp_path.glob("*corrupt*"))


def test_damage_in_the_middle_of_the_file_is_found_by_the_check_alone(tmp_path: Path) -> None:
    """A page that opening does not touch is found with `check`, set aside, and not looked for without it."""
    damaged(tmp_path, first=-3 * PAGE_BYTES, size=2 * PAGE_BYTES)
    with Database(tmp_path, set_aside=False) as database:
        assert database.query("SELECT count(*) FROM boot") == [(0,)]
    with pytest.raises(DamagedStateError):
        Database(tmp_path, set_aside=False, check=True)
    assert enrolled(tmp_path, check=True) == []
    assert len(list(tmp_path.glob(f"{DATABASE_NAME}.corrupt-*[0-9]"))) == 1


def test_check_of_a_sound_database_changes_nothing(tmp_path: Path) -> None:
    """After an unclean stop a sound database is used on."""
    with Database(tmp_path) as database:
        Baselines(database).add(baseline(1))
    assert enrolled(tmp_path, check=True) == ["seed 1"]
    assert not list(tmp_path.glob("*corrupt*"))


def test_damage_met_while_running_is_a_damaged_state(tmp_path: Path) -> None:
    """Reading a damaged page later says what the next start does about it."""
    damaged(tmp_path, first=-3 * PAGE_BYTES, size=2 * PAGE_BYTES)
    with (
        Database(tmp_path, set_aside=False) as database,
        pytest.raises(DamagedStateError, match="sets it aside at its next start"),
    ):
        Baselines(database).active(KEY)


def test_boot_numbers_are_not_given_again_after_damage(tmp_path: Path) -> None:
    """The numbers of a database that was set aside are not those of its successor: subscribers know them already."""
    before = [boot(tmp_path) for _ in range(3)]
    (tmp_path / DATABASE_NAME).write_bytes(b"\xa5" * 8192)
    after = [boot(tmp_path) for _ in range(2)]
    assert before == [1, 2, 3]
    assert after[1] == after[0] + 1
    assert min(after) > max(before)


def test_damaged_database_is_set_aside_once_by_many_openers(tmp_path: Path) -> None:
    """Threads that find the damage at the same time do not set aside the new database of one another."""
    damaged(tmp_path)
    together = Barrier(8)

    def open_together(_: int) -> int:
        together.wait()
        return boot(tmp_path)

    with ThreadPoolExecutor(8) as pool:
        numbers = sorted(pool.map(open_together, range(8)))
    assert numbers == list(range(numbers[0], numbers[0] + 8))
    assert len(list(tmp_path.glob(f"{DATABASE_NAME}.corrupt-*[0-9]"))) == 1


def test_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A database of a later version is neither used nor set aside."""
    with Database(tmp_path) as database:
        database.connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(StateError, match=f"newer fisher-edge .schema {VERSION + 1}.; update fisher-edge"):
        Database(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [DATABASE_NAME]


# The state directory


def test_state_directory_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    """A file where the folder should be, or on the way there, is named with what to do."""
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "state"):
        with pytest.raises(StateError, match=r"cannot create the state directory .*; choose another with --state-dir"):
            Database(folder)


@pytest.mark.skipif(not ROOT, reason="only root can become somebody without permission")
def test_read_only_state_directory_is_one_line(tmp_path: Path) -> None:
    """Somebody who may not write gets one line with the advice, and the database stays as it is."""
    with Database(tmp_path / "full") as database:
        Baselines(database).add(baseline(1))
    (tmp_path / "empty").mkdir()
    for folder in (*tmp_path.parents, tmp_path, tmp_path / "full", tmp_path / "empty"):
        if folder.owner() == "root" and folder.is_relative_to("/tmp/"):
            folder.chmod(0o755)
    before = (tmp_path / "full" / DATABASE_NAME).read_bytes()
    code = """
        import os, sys
        from pathlib import Path
        from fisher_edge.errors import DamagedStateError, DiskFullError, StateError
        from fisher_edge.store.database import Database
        os.setgid(65534)
        os.setuid(65534)
        for folder in sys.argv[1:]:
            try:
                with Database(Path(folder)) as database:
                    database.new_boot()
            except StateError as error:
                print(type(error).__name__, error)
    """
    child = python(code, tmp_path / "full", tmp_path / "empty", tmp_path / "full" / "deeper")
    output, errors = child.communicate(timeout=60)
    assert errors == ""
    full, empty, deeper = output.splitlines()
    for line in (full, empty):
        assert line.startswith("StateError ")
        assert "correct" in line
        assert "or choose another --state-dir" in line
    assert "Permission denied; choose another with --state-dir" in deeper
    assert (tmp_path / "full" / DATABASE_NAME).read_bytes() == before
    assert enrolled(tmp_path / "full") == ["seed 1"]


# One daemon, and how it ended

HOLD = """
    import sys
    from pathlib import Path
    from fisher_edge.store.database import only_daemon
    with only_daemon(Path(sys.argv[1])) as unclean:
        print(unclean, flush=True)
        sys.stdin.readline()
"""


def unclean(folder: Path) -> bool:
    """Start and end as the daemon and return whether the one before ended without closing."""
    with only_daemon(folder) as found:
        return found


def test_second_daemon_is_kept_off(tmp_path: Path) -> None:
    """While one daemon runs another is refused; commands are not, and after its end the directory is free."""
    with only_daemon(tmp_path):
        with pytest.raises(StateError, match="another fisher-edge run uses the state directory"), only_daemon(tmp_path):
            pass
        assert boot(tmp_path) == 1
    assert unclean(tmp_path) is False


def test_killed_daemon_is_noticed_by_the_next(tmp_path: Path) -> None:
    """After kill -9 the next start knows, and the one after that is clean again."""
    child = python(HOLD, tmp_path)
    assert says(child) == "False"
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=60)
    assert unclean(tmp_path) is True
    assert unclean(tmp_path) is False


def test_daemon_that_ends_by_itself_is_clean(tmp_path: Path) -> None:
    """A normal end leaves nothing behind that the next start would check for."""
    child = python(HOLD, tmp_path)
    assert says(child) == "False"
    child.communicate("stop\n", timeout=60)
    assert (child.returncode, unclean(tmp_path)) == (0, False)


def end_with(folder: Path, error: BaseException) -> None:
    """Run as the daemon and fail."""
    with pytest.raises(type(error)), only_daemon(folder):
        raise error


def test_damage_is_checked_for_at_the_next_start(tmp_path: Path) -> None:
    """A daemon that met damage leaves the next one to read the whole file; any other failure does not."""
    end_with(tmp_path, DamagedStateError("damaged"))
    assert unclean(tmp_path) is True
    end_with(tmp_path, StateError("locked"))
    end_with(tmp_path, KeyboardInterrupt())
    assert unclean(tmp_path) is False


def test_failed_start_after_a_kill_does_not_hide_it(tmp_path: Path) -> None:
    """A start that fails before it could check the file leaves that to the next one."""
    end_with(tmp_path, DamagedStateError("damaged"))
    end_with(tmp_path, DiskFullError("full"))
    assert unclean(tmp_path) is True


def test_kill_in_a_transaction_leaves_what_was_before(tmp_path: Path) -> None:
    """A process killed between the statements of an enrollment leaves the old baseline active, and no new one."""
    with Database(tmp_path) as database:
        Baselines(database).add(baseline(1))
    code = """
        import sys
        from pathlib import Path
        from fisher_edge.store.database import Database
        with Database(Path(sys.argv[1])) as database, database.transaction() as connection:
            connection.execute("UPDATE baseline SET active = 0, vectors = zeroblob(4000000)")
            print("inside", flush=True)
            sys.stdin.readline()
    """
    child = python(code, tmp_path)
    assert says(child) == "inside"
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=60)
    with Database(tmp_path, check=True) as database:
        (kept,) = Baselines(database).active(KEY)
        assert kept.vectors.shape == baseline(1).vectors.shape
        assert Baselines(database).add(baseline(2)) == 2


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return the folder of a disk of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=755", "tmpfs", str(folder)]
    if not ROOT or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root with the right to mount can make a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Write a file until the disk has no room left."""
    with (folder / "filler").open("ab", buffering=0) as file:
        while free_bytes(folder):
            file.write(b"\0" * PAGE_BYTES)


def assert_only_room_is_asked_for(error: StateError) -> None:
    """The error of a full disk says so, and never advises to give up what is enrolled."""
    text = str(error)
    assert isinstance(error, DiskFullError)
    assert "the disk is full" in text
    assert "nothing is damaged: make room" in text
    assert "\n" not in text
    for advice in ("aside", "enroll", "move", "another"):
        assert advice not in text


def test_database_that_cannot_grow_is_a_full_disk(tmp_path: Path) -> None:
    """An enrollment that does not fit fails whole with one line, what was there stays, small things go on."""
    with Database(tmp_path) as database:
        Baselines(database).add(baseline(1))
        pages = database.query("PRAGMA page_count")[0][0]
        database.connection.execute(f"PRAGMA max_page_count = {pages + 4}")
        with pytest.raises(DiskFullError) as caught:
            Baselines(database).add(baseline(2, windows=10_000))
        assert_only_room_is_asked_for(caught.value)
        assert [each.active for each in Baselines(database).facts()] == [True]
        assert database.new_boot() == 1
    assert enrolled(tmp_path) == ["seed 1"]


def test_opening_on_a_full_disk_asks_for_room(small_disk: Path) -> None:
    """Neither the first nor a later opening takes a full disk for damage, and nothing is set aside."""
    fill(small_disk)
    with pytest.raises(DiskFullError) as caught:
        Database(small_disk)
    assert_only_room_is_asked_for(caught.value)
    (small_disk / "filler").unlink()
    with Database(small_disk) as database:
        Baselines(database).add(baseline(1))
    fill(small_disk)
    for check in (True, False):
        with pytest.raises(DiskFullError) as caught:
            Database(small_disk, check=check)
        assert_only_room_is_asked_for(caught.value)
    (small_disk / "filler").unlink()
    assert enrolled(small_disk) == ["seed 1"]
    assert not list(small_disk.glob("*corrupt*"))


def test_writing_on_a_full_disk_asks_for_room(small_disk: Path) -> None:
    """An enrollment on a full disk fails whole; the database is used on when there is room."""
    with Database(small_disk) as database:
        Baselines(database).add(baseline(1))
        fill(small_disk)
        with pytest.raises(DiskFullError) as caught:
            Baselines(database).add(baseline(2, windows=5000))
        assert_only_room_is_asked_for(caught.value)
        (small_disk / "filler").unlink()
        Baselines(database).add(baseline(3))
    assert enrolled(small_disk) == ["seed 1", "seed 3"]


def test_reserve_gives_room_back_on_a_full_disk(small_disk: Path) -> None:
    """The reserve is real room: once given up, rows can be written on a disk that was full."""
    with Database(small_disk) as database:
        database.keep_reserve()
        fill(small_disk)
        assert free_bytes(small_disk) < PAGE_BYTES
        assert database.give_up_reserve() is True
        assert free_bytes(small_disk) >= database.spare_bytes // 2  # the log was emptied into the file with some of it
        assert database.new_boot() == 1
        assert database.give_up_reserve() is False


def test_opening_on_a_full_disk_spends_the_reserve(small_disk: Path) -> None:
    """A start that finds the disk full opens with the room that was held back, and loses nothing."""
    with Database(small_disk) as database:
        Baselines(database).add(baseline(1))
        database.keep_reserve()
    fill(small_disk)
    assert enrolled(small_disk) == ["seed 1"]
    assert boot(small_disk) == 1
    assert not (small_disk / module.RESERVE_NAME).exists()


def test_disk_is_tight_when_neither_it_nor_the_file_has_room(small_disk: Path) -> None:
    """Room is what the disk has left and what deleted rows have left in the file."""
    with Database(small_disk) as database:
        assert database.is_tight() is False
        Baselines(database).add(baseline(1, windows=20_000))
        fill(small_disk)
        assert database.is_tight() is True
        Baselines(database).remove(KEY, None)
        assert free_bytes(small_disk) < database.spare_bytes
        assert database.is_tight() is False


def test_deleted_rows_are_given_back_in_parts(tmp_path: Path) -> None:
    """Many free pages are given back to the disk, some at a time; a few are kept for the next rows."""
    with Database(tmp_path) as database:
        Baselines(database).add(baseline(1, windows=40_000))
        Baselines(database).remove(KEY, None)
        free = [database.query("PRAGMA freelist_count")[0][0]]
        while len(free) < 2 or free[-1] < free[-2]:
            database.shrink()
            free.append(database.query("PRAGMA freelist_count")[0][0])
    assert len(free) > 3
    assert all(before - after == module.SHRINK_PAGES for before, after in pairwise(free[:-1]))
    assert module.FREE_PAGES <= free[-1] < module.FREE_PAGES + module.SHRINK_PAGES


def test_giving_pages_back_ends_no_transaction(tmp_path: Path) -> None:
    """Inside a transaction nothing is given back, and the transaction can still be taken back."""
    with Database(tmp_path) as database:
        Baselines(database).add(baseline(1, windows=40_000))

        def fail() -> None:
            with database.transaction():
                Baselines(database).remove(KEY, None)
                database.shrink()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
    assert enrolled(tmp_path) == ["seed 1"]


def test_reserve_is_not_taken_where_there_is_hardly_any_room(small_disk: Path) -> None:
    """Where little more than the reserve is left, keeping one would itself fill the disk."""
    with Database(small_disk) as database:
        spare = free_bytes(small_disk) - 5 * database.spare_bytes // 2 + PAGE_BYTES
        (small_disk / "filler").write_bytes(b"\0" * spare)
        database.keep_reserve()
        assert database.give_up_reserve() is False
        (small_disk / "filler").unlink()
        database.keep_reserve()
        database.keep_reserve()
        assert database.give_up_reserve() is True


def test_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    """A folder that is there already is left as it is."""
    make_private(tmp_path / "a" / "b")
    (tmp_path / "a" / "b").chmod(0o700)
    make_private(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
