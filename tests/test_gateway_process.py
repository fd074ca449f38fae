"""The gateway as a process of its own, against a real mosquitto: delivery, stopping, killing, bad days."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command import COMMAND
from machine import EXAMPLES
from mosquitto import Mosquitto, Subscriber, free_port, wait_until

from fisher_edge.encoder.protocol import Encoder
from fisher_edge.gateway.recordings import enroll_recordings
from fisher_edge.names import ChannelKey
from fisher_edge.sources.recording import read_recording
from fisher_edge.store.database import DATABASE_NAME, Database

HEALTHY = [EXAMPLES / "gearbox" / f"healthy-load{load}0.flac" for load in (0, 3, 6, 9)]
FAULTY = EXAMPLES / "gearbox" / "broken-tooth-load50.flac"
KEPT_OUT = EXAMPLES / "gearbox" / "healthy-load50.flac"
CHANNELS = ("vib", "vib-2")
KILLS = int(os.environ.get("FISHER_EDGE_KILLS", "6"))


class Process:
    """A configuration with gearbox channels and the process that runs it."""

    def __init__(self, folder: Path, url: str, files: list[Path], *, speed: float = 4.0, loop: bool = True) -> None:
        self.state_dir = folder / "state"
        self.config = folder / "gateway.toml"
        self.log = folder / "gateway.log"
        self.process: subprocess.Popen[bytes] | None = None
        listed = ", ".join(json.dumps(str(file)) for file in files)
        source = f'{{ type = "recording", files = [{listed}], speed = {speed}, loop = {str(loop).lower()} }}'
        self.config.write_text(
            f'[gateway]\nname = "line-3"\nstate_dir = "state"\n[model]\nwindow_s = 1.28\n[mqtt]\nurl = "{url}"\n'
            + "".join(
                f'[[channel]]\nasset = "gear"\nname = "{name}"\nunit = "g"\nsource = {source}\n' for name in CHANNELS
            )
        )

    def enroll(self, encoder: Encoder) -> "Process":
        """Enroll the healthy recordings for both channels."""
        with Database(self.state_dir) as database:
            for name in CHANNELS:
                recordings = [read_recording(file) for file in HEALTHY]
                enroll_recordings(database, encoder, recordings, ChannelKey("gear", name), window_s=1.28, audio_bytes=0)
        return self

    def replace(self, old: str, new: str) -> None:
        """Change a text of the configuration."""
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))

    def start(self) -> "Process":
        """Start the gateway."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*COMMAND, "run", str(self.config)], stderr=log)
        return self

    def end(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def rows(self, sql: str) -> list[tuple[int, ...]]:
        """Return rows of the database."""
        with sqlite3.connect(self.state_dir / DATABASE_NAME) as connection:
            return connection.execute(sql).fetchall()


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """Give a list of processes that are killed when the test ends, if they still run."""
    started: list[Process] = []
    yield started
    for each in started:
        if each.process is not None and each.process.poll() is None:
            each.process.kill()
            each.process.wait(30)


def test_replaying_a_fault_goes_from_normal_to_alarm(
    tmp_path: Path, mosquitto: Mosquitto, encoder: Encoder, processes: list[Process]
) -> None:
    """Healthy windows are normal, faulty ones reach the alarm, and results have the documented fields."""
    gateway = Process(tmp_path, mosquitto.url, [KEPT_OUT, FAULTY], speed=8.0).enroll(encoder)
    processes.append(gateway)
    with Subscriber(mosquitto.port) as subscriber:
        gateway.start()
        wait_until(lambda: any(m.fields["after"] == "alarm" for m in subscriber.of("event")), "an alarm", 60)
        assert gateway.end(signal.SIGTERM) == 0
        subscriber.wait_for_status(b"offline")
    results = [message.fields for message in subscriber.of("result")]
    assert results[0]["state"] == "normal"
    assert {"alarm", "normal"} <= {result["state"] for result in results}
    assert [result["seq"] for result in results] == list(range(1, len(results) + 1))
    assert results[0].keys() >= {
        *("schema", "gateway", "asset", "channel", "seq", "boot", "time", "window_s", "rate_hz", "state", "distance"),
        *("score", "evidence", "bands", "nearest", "fault", "level", "views", "features", "baseline"),
        *("model", "latency_ms", "replay", "unit", "skipped", "operating_state"),
    }
    assert results[0]["nearest"]["recording"] in {file.name for file in HEALTHY}
    statuses = [message.payload for message in subscriber.of("status")]
    assert statuses == [b"online", b"offline"]


def test_killed_gateway_leaves_the_last_will_and_is_checked_at_its_next_start(
    tmp_path: Path, mosquitto: Mosquitto, encoder: Encoder, processes: list[Process]
) -> None:
    """After kill -9 the broker says offline, and a late subscriber still finds the latest state."""
    gateway = Process(tmp_path, mosquitto.url, [KEPT_OUT]).enroll(encoder)
    processes.append(gateway)
    with Subscriber(mosquitto.port) as subscriber:
        gateway.start()
        wait_until(lambda: len(subscriber.of("result")) > 2, "results", 60)
        gateway.end(signal.SIGKILL)
        subscriber.wait_for_status(b"offline")
    with Subscriber(mosquitto.port) as late:
        wait_until(lambda: late.of("state"), "the retained state")
        assert late.of("state")[0].retain
        assert late.of("state")[0].fields["state"] in {"normal", "warning", "alarm"}
        assert [each["channel"] for each in late.of("info")[0].fields["channels"]] == list(CHANNELS)


def test_recordings_that_do_not_loop_give_every_window_once(
    tmp_path: Path, mosquitto: Mosquitto, encoder: Encoder, processes: list[Process]
) -> None:
    """A replay without waiting ends by itself, and every window of both channels arrives exactly once."""
    gateway = Process(tmp_path, mosquitto.url, [KEPT_OUT, FAULTY], speed=0, loop=False).enroll(encoder)
    processes.append(gateway)
    with Subscriber(mosquitto.port) as subscriber:
        gateway.start()
        assert gateway.process is not None
        assert gateway.process.wait(60) == 0
        expected = 2 * sum(_windows_in(file) for file in (KEPT_OUT, FAULTY))
        subscriber.wait_for("result", expected)
        assert subscriber.seqs("result") == list(range(1, expected + 1))


def _windows_in(file: Path) -> int:
    """Windows of one piece (96 frames, one every 32) in a recording at 12.8 kHz."""
    frames = 1 + (soundfile.info(file).frames - 320) // 128
    return int(1 + (frames - 96) // 32)


def test_dead_sensor_is_check_function(
    tmp_path: Path, mosquitto: Mosquitto, encoder: Encoder, processes: list[Process]
) -> None:
    """A flat line is a matter of the sensor, not an anomaly; a recording that ends ends the gateway."""
    flat = tmp_path / "flat.wav"
    soundfile.write(flat, np.zeros(12_800 * 4, np.float32), 12_800)
    gateway = Process(tmp_path, mosquitto.url, [flat], speed=0, loop=False).enroll(encoder)
    processes.append(gateway)
    with Subscriber(mosquitto.port) as subscriber:
        gateway.start()
        assert gateway.process is not None
        assert gateway.process.wait(60) == 0
        wait_until(lambda: len(subscriber.of("event")) >= 2, "the events", 30)
    assert {message.fields["after"] for message in subscriber.of("event")} == {"check_function"}
    assert "flat line" in subscriber.of("event")[0].fields["reason"]
    assert {message.fields["distance"] for message in subscriber.of("result")} == {None}


def test_embedded_broker_serves_subscribers(tmp_path: Path, encoder: Encoder, processes: list[Process]) -> None:
    """With no broker configured the gateway brings its own, which any MQTT client can use."""
    port = free_port()
    gateway = Process(tmp_path, "embedded", [FAULTY]).enroll(encoder)
    gateway.replace('url = "embedded"', f'url = "embedded"\nembedded_port = {port}')
    processes.append(gateway.start())
    wait_until(lambda: "connected" in gateway.log.read_text(), "the gateway", 60)
    with Subscriber(port) as subscriber:
        wait_until(lambda: len(subscriber.of("result")) > 3, "results", 60)
    assert gateway.end(signal.SIGTERM) == 0


def test_port_in_use_is_one_line(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """The embedded broker cannot take a port that is taken: one line, exit code 6."""
    gateway = Process(tmp_path, "embedded", [FAULTY])
    gateway.replace('url = "embedded"', f'url = "embedded"\nembedded_port = {mosquitto.port}')
    command = [*COMMAND, "run", str(gateway.config)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 6
    assert str(mosquitto.port) in done.stderr.splitlines()[-1]


def test_killed_again_and_again_loses_no_result(
    tmp_path: Path, new_mosquitto: Callable[..., Mosquitto], encoder: Encoder, processes: list[Process]
) -> None:
    """Killed at random, the broker away for half of the time: every seq arrives, in order, per boot.

    The number of kills is that of the environment variable FISHER_EDGE_KILLS, 6 without it.
    """
    broker = new_mosquitto().start()
    gateway = Process(tmp_path, broker.url, [KEPT_OUT, FAULTY], speed=8.0).enroll(encoder)
    processes.append(gateway)
    moment = random.Random(5)
    with Subscriber(broker.port, name="recorder") as subscriber:
        for kill in range(KILLS):
            if kill % 2:
                broker.stop()
            gateway.start()
            wait_until(lambda boots=kill + 1: _boots(gateway) == boots, f"boot {kill + 1}", 60)  # type: ignore[misc]
            time.sleep(moment.uniform(0.05, 1.5))  # a random moment is what is tested
            gateway.end(signal.SIGKILL)
            if kill % 2:
                broker.start()
        gateway.start()
        wait_until(lambda: KILLS + 1 in {m.fields["boot"] for m in subscriber.of("result")}, "the last boot", 120)
        gateway.end(signal.SIGTERM)
        assert gateway.rows("SELECT waiting FROM record_total") == [(0,)]
        numbered = {row[0]: row[1] for row in gateway.rows("SELECT boot, result_seq FROM boot WHERE result_seq > 0")}
        wait_until(lambda: _counts(subscriber) == numbered, "every numbered result", 30)
    arrived = _first_arrivals(subscriber)
    print(f"{sum(map(len, arrived.values()))} results of {len(arrived)} boots, {KILLS} kills")
    for boot, seqs in arrived.items():
        assert seqs == list(range(1, len(seqs) + 1)), f"boot {boot}"
    assert list(arrived) == sorted(arrived)
    assert {message.fields["channel"] for message in subscriber.of("result")} == set(CHANNELS)


def _boots(gateway: Process) -> int:
    """Starts of the gateway that the database has counted."""
    return int(gateway.rows("SELECT count(*) FROM boot")[0][0])


def _counts(subscriber: Subscriber) -> dict[int, int]:
    """How many different results of each boot have arrived."""
    return {boot: len(seqs) for boot, seqs in _first_arrivals(subscriber).items()}


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
