"""The simulator through the whole gateway: calm until its fault begins, in alarm afterwards."""

import json
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from fisher_edge.daemon import Daemon

from fisher_edge.cli import main
from fisher_edge.config import Config
from fisher_edge.store import Store


def test_gateway_raises_the_alarm_when_the_simulated_bearing_spalls(tmp_path: Path) -> None:
    """Enrolled on the healthy machine, the daemon is calm until the onset and in alarm afterwards."""
    place = ("--asset", "pump", "--channel", "vib", "--state-dir", str(tmp_path / "state"))
    bearing = ("--machine", "bearing", "--rate-hz", "4000", "--seed", "1")
    healthy = str(tmp_path / "healthy.wav")
    succeed("simulate", healthy, *bearing, "--seconds", "30")
    succeed("enroll", healthy, *place, "--window-s", "0.64")
    keys = {"machine": "bearing", "fault": "outer", "onset_s": 20, "rate_hz": 4000, "seed": 1, "speed": 0}
    daemon = Daemon(
        Config.model_validate(
            {
                "gateway": {"state_dir": tmp_path / "state"},
                "model": {"window_s": 0.64, "hop_s": 0.64},
                "mqtt": {"embedded_port": 0},
                "channel": [{"asset": "pump", "name": "vib", "source": {"type": "simulator", **keys}}],
            }
        )
    )
    began_s = time.time()
    thread = threading.Thread(target=daemon.run, daemon=True)
    thread.start()
    changes: list[dict[str, Any]] = []
    deadline_s = time.monotonic() + 40
    try:
        with Store(tmp_path / "state") as store:
            while not any(change["after"] == "alarm" for change in changes) and time.monotonic() < deadline_s:
                time.sleep(0.05)
                changes = [json.loads(payload) for (payload,) in store.query("SELECT payload FROM event ORDER BY id")]
    finally:
        daemon.stop()
        thread.join(20)
    alarm = next(change["time"] for change in changes if change["after"] == "alarm")
    alarm_s = datetime.fromisoformat(alarm.replace("Z", "+00:00")).timestamp()
    assert 20 < alarm_s - began_s < 30


def succeed(*arguments: str) -> None:
    """Run a command that succeeds."""
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    assert not left.value.code
