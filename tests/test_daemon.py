"""The daemon as a process of its own, against a real mosquitto: delivery, stopping, killing, bad days."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from mosquitto import Mosquitto, Subscriber, free_port, wait_until

from fisher_edge.database import DATABASE_NAME

EXAMPLES = Path(__file__).parents[1] / "examples"
HEALTHY = [EXAMPLES / "gearbox" / f"healthy-load{load}0.flac" for load in (0, 3, 6, 9)]
FAULTY = EXAMPLES / "gearbox" / "broken-tooth-load50.flac"
KEPT_OUT = EXAMPLES / "gearbox" / "healthy-load50.flac"
COMMAND = [sys.executable, "-m", "fisher_edge.cli"]


class Gateway:
    """A configuration with one gearbox channel and the process that runs it."""

    def __init__(self, folder: Path, url: str, files: list[Path], speed: float = 4.0, *, loop: bool = True) -> None:
        self.state_dir = folder / "state"
        self.config = folder / "gateway.toml"
        self.log = folder / "daemon.log"
        self.process: subprocess.Popen[bytes] | None = None
        listed = ", ".join(json.dumps(str(file)) for file in files)
        self.config.write_text(
            f'[gateway]\nname = "line-3"\nstate_dir = "state"\n[model]\nwindow_s = 1.28\n[mqtt]\nurl = "{url}"\n'
            '[[channel]]\nasset = "gear"\nname = "vib"\nunit = "g"\nno_data_s = 2\n'
            f'source = {{ type = "recording", files = [{listed}], speed = {speed}, loop = {str(loop).lower()} }}\n'
        )

    def enroll(self) -> None:
        """Enrol the healthy recordings."""
        names = [str(file) for file in HEALTHY]
        place = ["--asset", "gear", "--channel", "vib", "--window-s", "1.28", "--state-dir", str(self.state_dir)]
        subprocess.run([*COMMAND, "enroll", *names, *place], check=True, capture_output=True)

    def start(self) -> "Gateway":
        """Start the daemon."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*COMMAND, "run", str(self.config)], stderr=log)
        return self

    def end(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)

    def outbox_depth(self) -> int:
        """Rows that wait for the broker."""
        with sqlite3.connect(self.state_dir / DATABASE_NAME) as connection:
            return int(connection.execute("SELECT count(*) FROM outbox").fetchone()[0])


@pytest.fixture
def gateway(tmp_path: Path, mosquitto: Mosquitto) -> Gateway:
    """Return an enrolled gateway that replays a healthy and then a faulty gearbox for ever."""
    made = Gateway(tmp_path, mosquitto.url, [KEPT_OUT, FAULTY])
    made.enroll()
    return made


def test_daemon_replaying_a_fault_goes_from_normal_to_alarm(gateway: Gateway, mosquitto: Mosquitto) -> None:
    """Healthy windows are normal, faulty ones reach the alarm, and every result has the documented fields."""
    with Subscriber(mosquitto.port) as subscriber:
        gateway.start()
        wait_until(lambda: any(m.fields["after"] == "alarm" for m in subscriber.of("event")), "an alarm", 30)
        started_s = time.monotonic()
        assert gateway.end(signal.SIGTERM) == 0
        stopped_s = time.monotonic() - started_s
        subscriber.wait_for_status(b"offline")
    results = [message.fields for message in subscriber.of("result")]

    assert results[0]["state"] == "normal"
    assert {"alarm", "normal"} <= {result["state"] for result in results}
    assert [result["seq"] for result in results] == list(range(1, len(results) + 1))
    assert results[0].keys() >= {
        *("schema", "gateway", "asset", "channel", "seq", "boot", "time", "window_s", "rate_hz", "state", "distance"),
        *("threshold", "ratio", "p_value", "bands", "nearest", "fault", "level", "views", "features", "baseline"),
        *("model", "latency_ms", "replay", "unit"),
    }
    assert stopped_s < 5
    statuses = [message.payload for message in subscriber.of("status")]
    assert statuses == [b"online", b"offline"]


def test_daemon_killed_leaves_the_last_will(gateway: Gateway, mosquitto: Mosquitto) -> None:
    """After kill -9 the broker says offline, and a late subscriber still finds the latest state."""
    with Subscriber(mosquitto.port) as subscriber:
        gateway.start()
        wait_until(lambda: len(subscriber.of("result")) > 2, "results", 30)
        gateway.end(signal.SIGKILL)
        subscriber.wait_for_status(b"offline")
    with Subscriber(mosquitto.port) as late:
        wait_until(lambda: late.of("state"), "the retained state")
        assert late.of("state")[0].retain
        assert late.of("state")[0].fields["state"] in {"normal", "warning", "alarm"}
        assert late.of("info")[0].fields["channels"] == [{"asset": "gear", "channel": "vib", "unit": "g"}]


def test_daemon_without_a_broker_keeps_results_and_says_so_once(gateway: Gateway, mosquitto: Mosquitto) -> None:
    """While the broker is away results wait in the outbox; when it is back they all arrive, marked as replayed."""
    mosquitto.stop()
    gateway.start()
    wait_until(lambda: gateway.state_dir.exists() and gateway.outbox_depth() > 80, "6 s of results in the outbox", 30)
    assert gateway.log.read_text().count("refused") == 1
    mosquitto.start()
    with Subscriber(mosquitto.port) as subscriber:
        wait_until(lambda: len(subscriber.of("result")) > 20, "late results", 60)
        gateway.end(signal.SIGTERM)
        seqs = subscriber.seqs("result")
        assert seqs == list(range(1, len(seqs) + 1))
        assert subscriber.of("result")[0].fields["replay"] is True


def test_daemon_ends_by_itself_when_its_recordings_do(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Recordings that do not loop, replayed without waiting, give every window exactly once."""
    gateway = Gateway(tmp_path, mosquitto.url, [KEPT_OUT, FAULTY], speed=0, loop=False)
    gateway.enroll()
    with Subscriber(mosquitto.port) as subscriber:
        gateway.start()
        assert gateway.process is not None
        assert gateway.process.wait(60) == 0
        expected = sum(_windows_in(file) for file in (KEPT_OUT, FAULTY))
        subscriber.wait_for("result", expected)
        assert subscriber.seqs("result") == list(range(1, expected + 1))


def _windows_in(file: Path) -> int:
    """Windows of 1.28 s (128 frames, one every 32) in a recording at 12.8 kHz."""
    frames = 1 + (soundfile.info(file).frames - 320) // 128
    return int(1 + (frames - 128) // 32)


def test_daemon_without_baseline_publishes_plain_measures(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """A channel that is not enrolled gives features and says no_baseline, never an alarm."""
    gateway = Gateway(tmp_path, mosquitto.url, [FAULTY], speed=0, loop=False)
    with Subscriber(mosquitto.port) as subscriber:
        gateway.start()
        wait_until(lambda: subscriber.of("result"), "a result", 30)
        gateway.end(signal.SIGTERM)
    result = subscriber.of("result")[0].fields
    assert result["state"] == "no_baseline"
    assert result["distance"] is None
    assert result["features"]["rms"] > 0


def test_daemon_with_a_dead_sensor_says_check_function(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """A flat line is a matter of the sensor, not an anomaly."""
    flat = tmp_path / "flat.wav"
    soundfile.write(flat, np.zeros(12_800 * 4, np.float32), 12_800)
    gateway = Gateway(tmp_path, mosquitto.url, [flat], speed=0, loop=False)
    gateway.enroll()
    with Subscriber(mosquitto.port) as subscriber:
        gateway.start()
        wait_until(lambda: subscriber.of("event"), "an event", 30)
        gateway.end(signal.SIGTERM)
    event = subscriber.of("event")[0].fields
    assert event["after"] == "check_function"
    assert "flat line" in event["reason"]
    assert {message.fields["distance"] for message in subscriber.of("result")} == {None}


def test_daemon_whose_recording_is_missing_reports_no_data_and_goes_on(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """A source that fails is reported once and tried again; when the file appears its windows are judged."""
    late = tmp_path / "late.flac"
    gateway = Gateway(tmp_path, mosquitto.url, [late], speed=0)
    gateway.enroll()
    with Subscriber(mosquitto.port) as subscriber:
        gateway.start()
        wait_until(lambda: subscriber.of("event"), "an event", 30)
        assert subscriber.of("event")[0].fields["after"] == "no_data"
        late.write_bytes(FAULTY.read_bytes())
        wait_until(lambda: subscriber.of("result"), "a result", 30)
        gateway.end(signal.SIGTERM)
    assert gateway.log.read_text().count("ERROR") == 1


def test_daemon_outlives_a_locked_database(gateway: Gateway, mosquitto: Mosquitto) -> None:
    """While another program holds the database nothing is lost: the daemon waits, says so, and goes on."""
    with Subscriber(mosquitto.port) as subscriber:
        gateway.start()
        wait_until(lambda: len(subscriber.of("result")) > 2, "results", 30)
        connection = sqlite3.connect(gateway.state_dir / DATABASE_NAME, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        wait_until(lambda: "locked" in gateway.log.read_text(), "a word about the lock", 30)
        connection.execute("ROLLBACK")
        connection.close()
        before = len(subscriber.of("result"))
        wait_until(lambda: len(subscriber.of("result")) > before + 5, "results after the lock", 30)
        gateway.end(signal.SIGTERM)
        seqs = subscriber.seqs("result")
        assert seqs == list(range(1, len(seqs) + 1))


def test_daemon_with_a_port_in_use_names_the_port(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """The embedded broker cannot take a port that is taken: one line, exit code 6."""
    gateway = Gateway(tmp_path, "embedded", [FAULTY])
    gateway.config.write_text(
        gateway.config.read_text().replace('url = "embedded"', f'url = "embedded"\nembedded_port = {mosquitto.port}')
    )
    done = subprocess.run(
        [*COMMAND, "run", str(gateway.config)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 6
    assert str(mosquitto.port) in done.stderr.splitlines()[-1]


def test_daemon_with_embedded_broker_serves_subscribers(tmp_path: Path) -> None:
    """With no broker configured the daemon brings its own, which any MQTT client can use."""
    port = free_port()
    gateway = Gateway(tmp_path, "embedded", [FAULTY])
    gateway.config.write_text(
        gateway.config.read_text().replace('url = "embedded"', f'url = "embedded"\nembedded_port = {port}')
    )
    gateway.enroll()
    gateway.start()
    wait_until(lambda: "connected" in gateway.log.read_text(), "the daemon", 30)
    with Subscriber(port) as subscriber:
        wait_until(lambda: len(subscriber.of("result")) > 3, "results", 30)
    assert gateway.end(signal.SIGTERM) == 0


KILLS = int(os.environ.get("FISHER_EDGE_KILLS", "20"))


def test_daemon_killed_again_and_again_loses_no_result(tmp_path: Path, new_mosquitto: Callable[..., Mosquitto]) -> None:
    """Killed 20 times in a replay, the broker stopped for half of them: every seq arrives, in order, per boot."""
    broker = new_mosquitto().start()
    gateway = Gateway(tmp_path, broker.url, [KEPT_OUT, FAULTY], speed=8.0)
    gateway.enroll()
    moment = random.Random(5)
    with Subscriber(broker.port, name="recorder") as subscriber:
        for kill in range(KILLS):
            if kill % 2:
                broker.stop()
            gateway.start()
            boots = kill + 1
            wait_until(lambda boots=boots: _boots(gateway) == boots, f"boot {boots}", 30)  # type: ignore[misc]
            time.sleep(moment.uniform(0.05, 1.5))
            gateway.end(signal.SIGKILL)
            if kill % 2:
                broker.start()
        gateway.start()
        wait_until(lambda: KILLS + 1 in {m.fields["boot"] for m in subscriber.of("result")}, "the last boot", 60)
        gateway.end(signal.SIGTERM)
        assert gateway.outbox_depth() == 0
        subscriber.wait_for_status(b"offline")
        time.sleep(0.5)

    arrived = _first_arrivals(subscriber)
    print(f"{sum(map(len, arrived.values()))} results of {len(arrived)} boots, {KILLS} kills")
    assert len(arrived) >= KILLS / 2
    assert {boot: len(seqs) for boot, seqs in arrived.items()} == _numbered(gateway)
    for boot, seqs in arrived.items():
        assert seqs == list(range(1, len(seqs) + 1)), f"boot {boot}"
    assert list(arrived) == sorted(arrived)


def _boots(gateway: Gateway) -> int:
    """Starts of the daemon that the database has counted."""
    with sqlite3.connect(gateway.state_dir / DATABASE_NAME) as connection:
        return int(connection.execute("SELECT count(*) FROM boot").fetchone()[0])


def _numbered(gateway: Gateway) -> dict[int, int]:
    """Results that the database has numbered, by boot: what must arrive."""
    with sqlite3.connect(gateway.state_dir / DATABASE_NAME) as connection:
        return dict(connection.execute("SELECT boot, result_seq FROM boot WHERE result_seq > 0"))


def _first_arrivals(subscriber: Subscriber) -> dict[int, list[int]]:
    """Order in which the numbers of each boot came first; a later copy must be the same message."""
    seen: dict[tuple[int, int], object] = {}
    arrived = defaultdict(list)
    for message in subscriber.of("result"):
        key = (message.fields["boot"], message.fields["seq"])
        content = {name: value for name, value in message.fields.items() if name != "replay"}
        if key not in seen:
            seen[key] = content
            arrived[key[0]].append(key[1])
        assert seen[key] == content
    return dict(arrived)


def test_daemon_with_a_window_longer_than_the_model_sees_refuses(tmp_path: Path) -> None:
    """A window beyond 10.24 s is a mistake in the configuration: one line, exit code 2, before anything runs."""
    gateway = Gateway(tmp_path, "embedded", [FAULTY])
    gateway.config.write_text(gateway.config.read_text().replace("window_s = 1.28", "window_s = 60"))
    done = subprocess.run(
        [*COMMAND, "run", str(gateway.config)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "window_s = 60 is not within the 0.16 to 10.24 s" in done.stderr.splitlines()[-1]


def test_daemon_with_a_baseline_of_another_model_goes_on_with_plain_measures(
    gateway: Gateway, mosquitto: Mosquitto
) -> None:
    """After a change of model the channel is not judged wrongly and not left out: it says no_baseline."""
    with sqlite3.connect(gateway.state_dir / DATABASE_NAME) as connection:
        (facts,) = connection.execute("SELECT facts FROM baseline").fetchone()
        changed = json.loads(facts)
        changed["model"]["sha256"] = "0" * 64
        connection.execute("UPDATE baseline SET facts = ?", (json.dumps(changed),))
    with Subscriber(mosquitto.port) as subscriber:
        gateway.start()
        wait_until(lambda: subscriber.of("result"), "a result", 30)
        gateway.end(signal.SIGTERM)
    assert subscriber.of("result")[0].fields["state"] == "no_baseline"
    assert "cannot be compared" in gateway.log.read_text()


def test_daemon_restarted_in_alarm_stays_in_alarm_until_windows_clear_it(
    gateway: Gateway, mosquitto: Mosquitto
) -> None:
    """A restart is no all-clear: the state goes on as alarm, and healthy windows then lower it with an event."""
    with Subscriber(mosquitto.port) as subscriber:
        gateway.start()
        wait_until(lambda: any(m.fields["after"] == "alarm" for m in subscriber.of("event")), "an alarm", 30)
        gateway.end(signal.SIGKILL)
    gateway.config.write_text(gateway.config.read_text().replace(json.dumps(str(FAULTY)), json.dumps(str(KEPT_OUT))))
    with Subscriber(mosquitto.port) as subscriber:
        gateway.start()
        wait_until(lambda: any(m.fields["boot"] == 2 for m in subscriber.of("event")), "an event", 30)
        gateway.end(signal.SIGTERM)
    boot = max(message.fields["boot"] for message in subscriber.of("result"))
    results = [message.fields for message in subscriber.of("result") if message.fields["boot"] == boot]
    event = next(message.fields for message in subscriber.of("event") if message.fields["boot"] == boot)
    assert results[0]["state"] == "alarm"
    assert results[0]["ratio"] < 0.9
    assert (event["before"], event["after"]) == ("alarm", "normal")


def test_daemon_keeps_an_error_of_one_channel_to_that_channel(gateway: Gateway, mosquitto: Mosquitto) -> None:
    """When a baseline cannot be compared with what arrives, the channel says check_function and the daemon lives."""
    with sqlite3.connect(gateway.state_dir / DATABASE_NAME) as connection:
        (facts,) = connection.execute("SELECT facts FROM baseline").fetchone()
        broken = json.loads(facts)
        broken["bands"] = 2
        connection.execute("UPDATE baseline SET facts = ?", (json.dumps(broken),))
    with Subscriber(mosquitto.port) as subscriber:
        gateway.start()
        wait_until(lambda: len(subscriber.of("result")) > 2, "results", 30)
        assert gateway.end(signal.SIGTERM) == 0
    result = subscriber.of("result")[0].fields
    assert result["state"] == "check_function"
    assert result["reason"].startswith("internal error")
    assert gateway.log.read_text().count("could not be judged") == 1
