"""The simulator through the whole gateway: calm until its fault begins, in alarm afterwards."""

import threading
import time
from pathlib import Path

from command import run_here, troubles

from fisher_edge.config import Config
from fisher_edge.decision.judgement import Change, State
from fisher_edge.gateway import Gateway
from fisher_edge.names import ChannelKey
from fisher_edge.store.bounds import Limits
from fisher_edge.store.database import Database
from fisher_edge.store.records import Records

ONSET_S = 20
LIMITS = Limits(waiting_bytes=1 << 24, waiting_s=3600, history_bytes=1 << 24, history_s=3600)
KEY = ChannelKey("pump", "vib")


def test_gateway_raises_the_alarm_when_the_simulated_bearing_spalls(tmp_path: Path) -> None:
    """Enrolled on the healthy machine, the gateway is calm until the onset and in alarm afterwards."""
    bearing = ("--machine", "bearing", "--rate-hz", "4000", "--seed", "1")
    healthy = tmp_path / "healthy.wav"
    place = ("--asset", "pump", "--channel", "vib", "--state-dir", tmp_path / "state", "--window-s", "0.64")
    for command in (("simulate", healthy, *bearing, "--seconds", "30"), ("enroll", healthy, *place)):
        done = run_here(*command)
        assert (done.returncode, troubles(done)) == (0, [])
    began_s = time.time()
    alarm = alarm_of(gateway_on(tmp_path / "state"))
    assert ONSET_S < alarm.time_s - began_s < ONSET_S + 10


def gateway_on(state_dir: Path) -> Gateway:
    """Return a gateway with the machine that was enrolled, to which a fault comes after a while."""
    keys = {"machine": "bearing", "fault": "outer", "onset_s": ONSET_S, "rate_hz": 4000, "seed": 1, "speed": 0}
    return Gateway(
        Config.model_validate(
            {
                "gateway": {"state_dir": state_dir},
                "model": {"window_s": 0.64, "hop_s": 0.64},
                "mqtt": {"embedded_port": 0},
                "channel": [{"asset": KEY.asset, "name": KEY.channel, "source": {"type": "simulator", **keys}}],
            }
        )
    )


def alarm_of(gateway: Gateway) -> Change:
    """Run a gateway until it raises an alarm; return that change of state."""
    thread = threading.Thread(target=gateway.run, daemon=True)
    thread.start()
    deadline_s = time.monotonic() + 40
    try:
        with Database(gateway.config.gateway.state_dir) as database:
            records = Records(database, 1, limits=LIMITS)
            while time.monotonic() < deadline_s:
                last = records.last_change(KEY)
                if last is not None and last.value.after is State.ALARM:
                    return last.value
                time.sleep(0.05)
    finally:
        gateway.stop()
        thread.join(20)
    raise AssertionError("no alarm")
