"""The command about messages that the broker refuses."""

import json
from pathlib import Path

import pytest
from command import run_here
from judgements import AMPLE, change, result

from fisher_edge.names import ChannelKey
from fisher_edge.store.database import Database
from fisher_edge.store.records import Records

KEY = ChannelKey("pump-1", "vib-de")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return a state directory with two messages set aside and one that waits."""
    with Database(tmp_path / "state") as database:
        records = Records(database, database.new_boot(), limits=AMPLE)
        records.put(KEY, result=result(), change=change())
        records.put(KEY, result=result())
        first, second, _ = records.waiting(3)
        records.set_aside(first, "refused three times")
        records.set_aside(second, "refused three times")
    return tmp_path / "state"


def waiting(state: Path) -> int:
    """Messages that wait for the broker."""
    with Database(state) as database:
        return int(database.query("SELECT waiting FROM record_total")[0][0])


def test_list_says_what_is_set_aside_and_why(state: Path) -> None:
    """Each message is one line, or one object with `--json`."""
    lines = run_here("outbox", "list", "--state-dir", state).stdout.splitlines()
    assert len(lines) == 2
    assert all("pump-1/vib-de" in line and line.endswith("refused three times") for line in lines)
    rows = json.loads(run_here("outbox", "list", "--state-dir", state, "--json").stdout)
    assert {row["kind"] for row in rows} <= {"result", "event"}
    assert [row["reason"] for row in rows] == ["refused three times"] * 2


def test_resend_lets_messages_wait_again(state: Path) -> None:
    """One by its number, then the rest."""
    rows = json.loads(run_here("outbox", "list", "--state-dir", state, "--json").stdout)
    done = run_here("outbox", "resend", str(rows[0]["number"]), "--state-dir", state)
    assert (done.returncode, done.stdout) == (0, "1 message(s) wait for the broker again\n")
    assert waiting(state) == 2
    run_here("outbox", "resend", "--state-dir", state)
    assert waiting(state) == 3
    assert run_here("outbox", "list", "--state-dir", state).stdout == "no message is set aside\n"


def test_discard_deletes_messages(state: Path) -> None:
    """What is discarded is gone, and what waits is untouched."""
    done = run_here("outbox", "discard", "--state-dir", state)
    assert (done.returncode, done.stdout) == (0, "2 message(s) deleted\n")
    assert waiting(state) == 1
    assert run_here("outbox", "list", "--state-dir", state).stdout == "no message is set aside\n"


@pytest.mark.parametrize("command", ["resend", "discard"])
def test_number_that_no_message_has_is_one_line(state: Path, command: str) -> None:
    """Nothing happens to the others."""
    rows = json.loads(run_here("outbox", "list", "--state-dir", state, "--json").stdout)
    done = run_here("outbox", command, str(rows[0]["number"]), "99999", "--state-dir", state)
    assert done.returncode == 4
    assert done.stderr == "error: no message that is set aside has the number 99999; see: fisher-edge outbox list\n"
    assert json.loads(run_here("outbox", "list", "--state-dir", state, "--json").stdout) == rows


def test_missing_state_directory_is_one_line(tmp_path: Path) -> None:
    """Nothing is created by looking."""
    done = run_here("outbox", "list", "--state-dir", tmp_path / "nowhere")
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "nowhere").exists()
