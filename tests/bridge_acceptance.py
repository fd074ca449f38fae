"""The long measurements of the bridge on an emulated device: a minute of clock each way, and a hundred cables pulled.

`python tests/bridge_acceptance.py` prints what LOG.md holds.
"""

import tempfile
import threading
import time
from pathlib import Path

from test_bridge_device import descriptors, replug

from fisher_bridge.emulator import emulated
from fisher_bridge.port import PortSettings
from fisher_bridge.reader import shared_reader

SECONDS = 60.0
FRAME_S = 0.01


def clock_of(drift_ppm: float, seed: int) -> str:
    """Read a drifting, jittering device for a minute: its rate, and how old samples are when they arrive.

    Where the time of a sample comes from does not matter to its age: the last sample of a frame is sent at once and
    held up by at most 5 ms, so that over many frames the least age is that of a time stamp without error.
    """
    options = ["--drift-ppm", str(drift_ppm), "--jitter-ms", "5", "--rate", "10000", "--frame", "100"]
    with emulated([*options, "--seed", str(seed)]) as device:
        began_s = time.monotonic()
        with shared_reader(PortSettings(device.port)) as reader, reader.subscribe(0) as subscription:
            first = None
            errors = []
            while time.monotonic() < began_s + SECONDS:
                for samples in subscription.take(0.2):
                    end_s = samples.time_s + len(samples.raw) / 10_000
                    true_s = samples.index / 10_000 / (1 + drift_ppm * 1e-6)
                    first = first or samples.time_s - true_s
                    errors.append(samples.time_s - true_s)
                    assert end_s <= time.monotonic() + 2e-3
            rate, clock = reader.session.deviations[0], reader.session.clock
        device.stop()
    assert clock is not None
    settled = errors[len(errors) // 60 :]
    worst_ms = 1e3 * max(abs(error - errors[-1]) for error in settled)
    return (
        f"drift {drift_ppm:+.0f} ppm, jitter 5 ms: rate {rate.value:+.2f} +- {rate.error:.2f} ppm; time stamps of a "
        f"minute within {worst_ms:.2f} ms of the last (the first second left out)"
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
        print(
            print(
                f"{len(lives)} replugs, {min(lives)} samples a life or more, descriptors {before} and {descriptors()}"
            )
        )


if __name__ == "__main__":
    main()
