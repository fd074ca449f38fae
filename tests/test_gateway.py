"""The daemon within this process: one to a state directory, and an end when there is nothing to write to."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from machine import machine_signal, sound_file

from fisher_edge.config import Config
from fisher_edge.daemon import Daemon
from fisher_edge.database import DATABASE_NAME
from fisher_edge.errors import DamagedStateError, StateError
from fisher_edge.store import Store


def daemon_of(folder: Path) -> Daemon:
    """Return a daemon that replays a recording for ever on a channel nobody has enrolled."""
    source = {"type": "recording", "files": [sound_file(folder / "a.wav", machine_signal(0))], "loop": True}
    return Daemon(
        Config.model_validate(
            {
                "gateway": {"state_dir": folder / "state"},
                "model": {"window_s": 0.32},
                "mqtt": {"embedded_port": 0},
                "channel": [{"asset": "pump-1", "name": "vib-de", "source": source}],
            }
        )
    )


@contextmanager
def running(daemon: Daemon) -> Iterator[list[BaseException]]:
    """Run a daemon on a thread until it has written results; what it raises in the end is in the list."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            daemon.run()
        except Exception as error:  # noqa: BLE001 -- the tests look at it
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        deadline_s = time.monotonic() + 30
        while not _results(daemon) and not raised:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        yield raised
    finally:
        daemon.stop()
        thread.join(20)


def _results(daemon: Daemon) -> int:
    """Results that the database has numbered."""
    state_dir = daemon.config.gateway.state_dir
    try:
        with Store(state_dir, set_aside=False, create=False) as store:
            return sum(seq for (seq,) in store.query("SELECT result_seq FROM boot"))
    except StateError:  # not yet there, or damaged still
        return 0


def test_second_daemon_on_a_state_directory_is_refused(tmp_path: Path) -> None:
    """Two daemons would send one outbox as one client: the second says so and ends, the first goes on."""
    with running(daemon_of(tmp_path)) as raised:
        with pytest.raises(StateError, match="another fisher-edge run uses the state directory") as caught:
            daemon_of(tmp_path).run()
        assert not raised
    assert "\n" not in str(caught.value)
    with running(daemon_of(tmp_path)) as again:
        assert not again


def test_database_damaged_under_way_ends_the_daemon_and_the_next_start_mends_it(tmp_path: Path) -> None:
    """Results are not dropped for ever: the daemon ends with one line, its next start sets the file aside."""
    with running(daemon_of(tmp_path)) as raised:
        for part in ("", "-wal"):
            path = tmp_path / "state" / (DATABASE_NAME + part)
            with path.open("r+b") as file:
                file.write(os.urandom(path.stat().st_size))
        deadline_s = time.monotonic() + 15
        while not raised and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert [type(error) for error in raised] == [DamagedStateError], raised
        assert "\n" not in str(raised[0])
    with running(daemon_of(tmp_path)) as again:
        assert not again
    assert len(list((tmp_path / "state").glob("*.corrupt-*[0-9]"))) == 1
