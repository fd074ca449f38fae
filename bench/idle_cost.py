"""What a gateway costs while nothing happens: processor time, memory, start-up. Compares checkouts side by side.

Run: python bench/idle_cost.py CHECKOUT [CHECKOUT ...]. Each is started with a channel whose recording is not there;
all run at the same time, so that a busy machine is busy for all of them.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import psutil

SECONDS = 30.0
SOURCES = ("", "train", "export", "firmware_bridge", "bench")
CONFIG = """
[gateway]
state_dir = "state"
[mqtt]
url = "embedded"
embedded_port = 0
[[channel]]
asset = "pump-1"
name = "vib"
source = { type = "recording", files = ["nowhere.wav"] }
"""


def start(checkout: Path, folder: Path) -> psutil.Popen:
    """Start the gateway of a checkout in a folder."""
    folder.mkdir()
    (folder / "gateway.toml").write_text(CONFIG)
    path = os.pathsep.join(str(checkout / source) for source in SOURCES)
    with (folder / "log").open("wb") as log:
        return psutil.Popen(
            [sys.executable, "-m", "fisher_edge.cli", "run", "gateway.toml"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            stderr=log,
        )


def cpu_s(process: psutil.Popen) -> float:
    """Processor time of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Print one line for each checkout."""
    checkouts = [Path(each).resolve() for each in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as name:
        processes = [start(checkout, Path(name) / str(n)) for n, checkout in enumerate(checkouts)]
        logs = [Path(name) / str(n) / "log" for n in range(len(checkouts))]
        started: dict[int, float] = {}
        while len(started) < len(processes):
            time.sleep(0.02)
            for n, process in enumerate(processes):
                if n not in started and "monitoring" in logs[n].read_text():
                    started[n] = cpu_s(process)
        before = [cpu_s(process) for process in processes]
        time.sleep(SECONDS)
        for n, process in enumerate(processes):
            idle = (cpu_s(process) - before[n]) / SECONDS
            memory = process.memory_info().rss / 1e6
            print(f"{checkouts[n]}: {idle:.2%} of a core, {memory:.0f} MB, {started[n]:.2f} s of CPU to start")
            process.terminate()
        for process in processes:
            process.wait(30)


if __name__ == "__main__":
    main()
