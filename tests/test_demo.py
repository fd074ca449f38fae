"""The demonstration as a user runs it: on a terminal, without one, and for a program that reads JSON."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios

from command import COMMAND, run_here

from fisher_edge.demo.examples import SENSORS
from fisher_edge.example_files import example_files, find_examples

DEMO = ("demo", "--seconds", "5")


def test_demo_keeps_healthy_recordings_normal_and_alarms_on_faulty_ones() -> None:
    """All healthy windows that were not enrolled stay normal, every sensor's fault is caught, all over MQTT."""
    done = run_here(*DEMO, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert [sensor["asset"] for sensor in facts["sensors"]] == ["gearbox", "bearing", "motor"]
    assert facts["messages"] > 300
    for sensor in facts["sensors"]:
        assert sensor["healthy_windows"] >= 15
        assert sensor["healthy_not_normal"] == 0
        assert sensor["alarm"]


def test_demo_without_a_terminal_prints_lines_and_a_summary() -> None:
    """Piped output holds one line every two seconds and the paragraph that sums up, no control characters."""
    done = run_here(*DEMO)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert len(re.findall(r"^ *\d+\.\d s  gearbox", done.stdout, re.MULTILINE)) >= 2
    assert "as expected" in done.stdout
    assert "fisher-edge run gateway.toml" in done.stdout


def test_demo_on_a_terminal_draws_all_sensors_within_80_columns() -> None:
    """On a terminal of 80 columns there is a live picture with states, charts and bands."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80"}
    with subprocess.Popen([*COMMAND, *DEMO], stdout=terminal, stderr=subprocess.DEVNULL, env=environment) as process:
        os.close(terminal)
        shown = b""
        while chunk := _read(controller):
            shown += chunk
    os.close(controller)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    for word in ("three sensors, one encoder", "NORMAL", "ALARM", "x its limit", "kHz", "MQTT messages", "real time"):
        assert word in text, word
    assert max(len(line) for line in re.split(r"[\r\n]+", text)) <= 80


def _read(controller: int) -> bytes:
    """Read what the program shows; nothing once it has ended."""
    try:
        return os.read(controller, 65536)
    except OSError:  # the other end of a pseudo-terminal that is closed
        return b""


def test_examples_are_what_the_demonstration_plays() -> None:
    """Every recording that a sensor names is there, and none is both enrolled and replayed."""
    there = {str(path.relative_to(find_examples())) for path in example_files()}
    for sensor in SENSORS:
        played = {*sensor.kept_out, *sensor.faulty}
        assert not played & set(sensor.enrolled)
        assert {f"{sensor.folder}/{name}" for name in {*played, *sensor.enrolled}} <= there
