"""The long measurements of the bridge on an emulated device: a minute of clock each way, and a hundred cables pulled.

`python tests/bridge_acceptance.py` prints what LOG.md holds.
"""

import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from test_bridge_device import descriptors, replug

from fisher_bridge.emulator import emulated
from fisher_bridge.port import PortSettings
from fisher_bridge.reader import shared_reader
from fisher_edge.dsp.blocks import Block
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import grid_of
from fisher_edge.dsp.stream import PieceStream

SECONDS = 60.0


def clock_of(drift_ppm: float, seed: int) -> str:
    """Read a drifting, jittering device for a minute and cut windows: the errors of their times, and the rate."""
    options = ["--drift-ppm", str(drift_ppm), "--jitter-ms", "5", "--rate", "10000", "--frame", "100"]
    front_end = FrontEnd()
    windows = PieceStream(front_end, 10_000, grid_of(front_end, 1.26, 0.5, 10_000))
    errors = []
    with emulated([*options, "--seed", str(seed)]) as device:
        began_s = time.monotonic()
        with shared_reader(PortSettings(device.port)) as reader, reader.subscribe(0) as subscription:
            while time.monotonic() < began_s + SECONDS:
                for samples in subscription.take(0.2):
                    block = Block(samples.raw[:, 0].astype(np.float32), 10_000, samples.index, samples.time_s)
                    run_s = device.true_s(samples.ticks, drift_ppm) - samples.index / 10_000 / (1 + drift_ppm * 1e-6)
                    for window in windows.push(block):
                        end = (window.start + len(window.samples)) / 10_000 / (1 + drift_ppm * 1e-6)
                        errors.append(window.end_time_s - (run_s + end))
            rate = reader.session.deviations[0]
        device.stop()
    return (
        f"drift {drift_ppm:+.0f} ppm, jitter 5 ms: {rate.value:+.2f} +- {rate.error:.2f} ppm after {SECONDS:.0f} s; "
        f"ends of {len(errors)} windows within {1e3 * max(map(abs, errors)):.2f} ms of the truth"
    )


def main() -> None:
    """Measure and print."""
    for seed, drift_ppm in enumerate((200.0, -200.0)):
        print(clock_of(drift_ppm, seed), flush=True)
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "board"
        replug(link, 1, stop)
        before = descriptors()
        lives = replug(link, 100, stop)
        least = min(lives)
        print(f"{len(lives)} replugs, {least} samples a life or more, descriptors {before} and {descriptors()}")


if __name__ == "__main__":
    main()
