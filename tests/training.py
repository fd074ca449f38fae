"""Small runs of pre-training for tests: in this process, in one of their own, or in several under torchrun."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile

from fisher_edge.dsp.frontend import FrontEnd
from fisher_train.cli import main
from fisher_train.data.simulated import Plan

__all__ = ["FRONT_END", "PLAN", "SMALL", "Run", "log_of", "losses_of", "make_recordings", "train_here"]

FRONT_END = FrontEnd(band_width=50, top_band="pad", amplitude="standardise")
PLAN = Plan(0, FRONT_END, rates_hz=(1000, 4000), families=2, singles=2, held=5, first=4, new_per_step=1)
"""Batches of 10 pairs of 96 frames, quickly rendered."""

SMALL = ["--batch", "8", "--frames", "96", "--workers", "0", "--log-every", "1", "--save-every", "0"]
"""The smallest batches that have all that large ones have; a line and a checkpoint after every step."""
CLOCKS = {"elapsed_s", "bands_per_s"}
"""What differs between two runs that train the same."""


class Run:
    """A run in a process of its own, or in several."""

    def __init__(self, out: Path, *arguments: object, processes: int = 1, **environment: str) -> None:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [sys.executable, *(launcher if processes > 1 else []), "-m", "fisher_train", *map(str, arguments)]
        self.out = out
        self.process = subprocess.Popen(
            [*command, "--out", str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )

    def end(self) -> tuple[int, str, str]:
        """Wait for the end; return exit code, standard output and standard error."""
        output, errors = self.process.communicate(timeout=120)
        return self.process.returncode, output, errors

    def wait_until(self, ready: Callable[[Path], bool]) -> None:
        """Wait until `ready(out)`; the run must not have finished by itself."""
        deadline = time.monotonic() + 60
        while not ready(self.out):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def kill_when(self, ready: Callable[[Path], bool]) -> None:
        """End all processes with SIGKILL as soon as `ready(out)`; they must not have finished by themselves."""
        self.wait_until(ready)
        processes = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for process in processes:
            process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=60)
        psutil.wait_procs(processes, timeout=60)


def train_here(out: Path, *arguments: object) -> list[dict[str, Any]]:
    """Train in this process; return the lines of the log."""
    assert main([*map(str, arguments), "--out", str(out)]) == 0
    return log_of(out)


def log_of(out: Path, *, torn: bool = False) -> list[dict[str, Any]]:
    """Return the lines of a run's log without its clocks; `torn`: without the last, which may not be whole."""
    text = (out / "log.jsonl").read_text("utf-8").splitlines()
    lines = [json.loads(line) for line in (text[:-1] if torn else text)]
    return [{key: value for key, value in line.items() if key not in CLOCKS} for line in lines]


def losses_of(out: Path) -> list[float]:
    """Return the loss of every line of a run's log."""
    return [line["loss"] for line in log_of(out)]


def make_recordings(folder: Path) -> Path:
    """Write two short sounds of different rates and return their folder."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for rate_hz in (4000, 6000):
        time_s = np.arange(2 * rate_hz) / rate_hz
        wave = 0.1 * rng.standard_normal(len(time_s)) + 0.2 * np.sin(2 * np.pi * rate_hz / 10 * time_s)
        soundfile.write(folder / f"{rate_hz}.wav", wave, rate_hz)
    return folder
