"""The whole path: C firmware library, pty, bridge, spectra, neighbours, MQTT."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from compiler import NEEDS_COMPILER
from machine import EXAMPLES
from mosquitto import Mosquitto, Subscriber, wait_until

from fisher_bridge.emulator import device_options, emulated

pytestmark = NEEDS_COMPILER
COMMAND = [sys.executable, "-m", "fisher_edge.cli"]
GEARBOX = EXAMPLES / "gearbox"
PLACE = ("--asset", "gear", "--channel", "vib", "--window-s", "0.64", "--state-dir")
HEALTHY = [GEARBOX / f"healthy-load{load}.flac" for load in (0, 10, 20, 30, 40, 60, 70, 80, 90)]


@pytest.fixture
def gateway(tmp_path: Path, mosquitto: Mosquitto) -> Iterator[Path]:
    """Return the link of a board, for which a gateway that is enrolled on the gearbox runs."""
    link, config = tmp_path / "board", tmp_path / "gateway.toml"
    files = [str(file) for file in HEALTHY if file.exists()]
    subprocess.run([*COMMAND, "enroll", *files, *PLACE, str(tmp_path / "state")], check=True, capture_output=True)
    config.write_text(
        f'[gateway]\nname = "line"\nstate_dir = "state"\n[model]\nwindow_s = 0.64\n[mqtt]\nurl = "{mosquitto.url}"\n'
        '[[channel]]\nasset = "gear"\nname = "vib"\nno_data_s = 5\n'
        f'source = {{ type = "serial", port = "{link}", channel = 0 }}\n'
    )
    with (tmp_path / "log").open("w") as log, subprocess.Popen([*COMMAND, "run", str(config)], stderr=log) as process:
        try:
            yield link
        finally:
            process.terminate()
            assert process.wait(20) == 0


def replayed(file: Path, folder: Path) -> Path:
    """Return a recording as 16-bit WAV, which a board could have sent."""
    samples, rate_hz = soundfile.read(file, dtype="int16")
    path = folder / f"{file.stem}.wav"
    soundfile.write(path, samples, rate_hz, subtype="PCM_16")
    return path


def changes(subscriber: Subscriber) -> list[str]:
    """States that were reached, in order."""
    return [message.fields["after"] for message in subscriber.of("event")]


def test_fault_on_the_wire_becomes_an_alarm_on_mqtt(gateway: Path, mosquitto: Mosquitto, tmp_path: Path) -> None:
    """Healthy recordings through a board are normal, a pulled cable is no_data, a broken tooth is an alarm."""
    link = str(gateway)
    with Subscriber(mosquitto.port) as subscriber:
        healthy = replayed(GEARBOX / "healthy-load50.flac", tmp_path)
        with device_options(healthy, None, 1) as options, emulated([*options, "--link", link]) as board:
            wait_until(lambda: len(subscriber.of("result")) >= 12, "results of the healthy gearbox", 40)
            board.process.kill()
        wait_until(lambda: "no_data" in changes(subscriber), "the pulled cable", 10)
        faulty = replayed(GEARBOX / "broken-tooth-load50.flac", tmp_path)
        with device_options(faulty, None, 1) as options, emulated([*options, "--link", link]):
            wait_until(lambda: "alarm" in changes(subscriber), "an alarm", 40)
        results: list[dict[str, Any]] = [message.fields for message in subscriber.of("result")]
    calm = [result for result in results if result["state"] == "normal"]
    assert len(calm) >= 10
    assert {result["rate_hz"] for result in results} == {12_800}
    assert {result["unit"] for result in results if "unit" in result} <= {""}
    assert all(json.dumps(result) for result in results)


def test_bad_line_does_not_move_the_state(gateway: Path, mosquitto: Mosquitto, tmp_path: Path) -> None:
    """With one frame in 10^4 lost and one bit in 10^6 flipped, windows end at gaps and nothing else happens."""
    with Subscriber(mosquitto.port) as subscriber:
        healthy = replayed(GEARBOX / "healthy-load50.flac", tmp_path)
        damage = ["--loss", "1e-4", "--bitflip", "1e-6", "--seed", "2"]
        damage += ["--frame", "16", "--link", str(gateway)]
        with device_options(healthy, None, 1) as options, emulated([*options, *damage]) as board:
            wait_until(lambda: len(subscriber.of("result")) >= 60, "results", 90)
            results = [message.fields for message in subscriber.of("result")]
            reached = [message.fields for message in subscriber.of("event")]
            sent = board.stop()
    assert sent["frames_lost"] + sent["frames_flipped"] > 2
    assert {result["state"] for result in results} == {"normal"}
    assert [change["after"] for change in reached if change["time"] > results[0]["time"]] == []
