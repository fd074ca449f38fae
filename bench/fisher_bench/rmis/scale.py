"""How the benchmark embeds at scale: throughput at every rate, memory over a long run, a run killed half-way.

Run: python -m fisher_bench.rmis.scale throughput --model default --workers 2 --out DIR
     python -m fisher_bench.rmis.scale endurance --hours 1000 --model cheap:mean-log-stft --workers 2 --out DIR

Segments of 10 s of noise, a few files linked under many names, are embedded through the command line. `throughput`
takes the rates of RMIS in turn and adds up how long all of it would take, here and by floating-point operations on a
GPU. `endurance` samples the memory of all processes, kills them with SIGKILL half-way and continues.
"""

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
import torch

from fisher_bench.rmis.catalogue import SETS
from fisher_bench.rmis.index import Index, Segment, write_index
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import pieces_of
from fisher_edge.encoder.bundle import load_bundle
from fisher_train.encoder import PRESETS, Encoder
from fisher_train.measure.cost import flop_counter

__all__ = ["hours_by_rate", "main", "tera_flops_an_hour"]

SEGMENT_S = 10
FILES = 64
"""Different files of noise; all others are links to them."""
MEASURED_RATES = {16_000: "dcase20", 25_600: "sdust_bearing", 48_000: "wt_plane_gearbox", 51_200: "umged_vib"}
"""Rates of all but a fiftieth of the hours, each with a set that has it; others count as the nearest."""
SAMPLED_EVERY_S = 0.5
GPU_TERA_FLOPS = 30.0
"""A second, as reached rather than promised, of one current data-centre GPU in half precision: an assumption."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(
        prog="python -m fisher_bench.rmis.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["throughput", "endurance"])
    parser.add_argument("--hours", type=float, default=1.0, help="hours of signal (throughput: at every rate)")
    parser.add_argument("--model", default="default")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    measure = throughput if options.what == "throughput" else endurance
    print(json.dumps(measure(options.hours, options.model, options.workers, options.out), indent=1))
    return 0


def throughput(hours: float, model: str, workers: int, out: Path) -> dict[str, Any]:
    """Hours of signal an hour at every rate, and the time that the hours of RMIS would take."""
    reached = {}
    for rate_hz, set_name in MEASURED_RATES.items():
        folder = _make_set(out / f"set-{rate_hz}", set_name, rate_hz, hours)
        done = json.loads(subprocess.run(_command(folder, model, workers, out), capture_output=True, check=True).stdout)
        reached[rate_hz] = done["hours_per_hour"]
    due = hours_by_rate()
    total_s = 3600 * sum(h / reached[_nearest(rate_hz)] for rate_hz, h in due.items())
    return {
        "model": model,
        "workers": workers,
        "hours_per_hour": reached,
        "rmis_hours": sum(due.values()),
        "rmis_on_this_machine_hours": total_s / 3600,
        "by_flops": {preset: _on_gpu(preset, due) for preset in PRESETS},
    }


def endurance(hours: float, model: str, workers: int, out: Path) -> dict[str, Any]:
    """Memory of all processes at every tenth of a run, and what a kill half-way cost."""
    folder = _make_set(out / f"set-{hours:g}h", MEASURED_RATES[16_000], 16_000, hours)
    command = _command(folder, model, workers, out)
    count = round(hours * 3600 / SEGMENT_S)
    first = _watched(command, out, stop_at=count // 2)
    before = first["kept"]
    second = _watched(command, out, stop_at=None)
    facts = json.loads(second["output"])
    return {
        "model": model,
        "workers": workers,
        "segments": count,
        "kept_when_killed": before,
        "embedded_after": facts["new_clips"],
        "computed_twice": before + facts["new_clips"] - count,
        "hours_per_hour": facts["hours_per_hour"],
        "memory_mb_before": first["memory_mb"],
        "memory_mb_after": second["memory_mb"],
    }


def hours_by_rate() -> dict[int, int]:
    """Hours of all sets of the benchmark by sampling rate (Hz)."""
    hours: Counter[int] = Counter()
    for known in SETS:
        hours[known.rate_hz] += known.hours
    return dict(hours)


def tera_flops_an_hour(preset: str, rate_hz: int) -> float:
    """Floating-point operations (1e12) of an encoder for an hour of signal, in windows of ten seconds."""
    encoder = Encoder(PRESETS[preset]).eval()
    width = encoder.config.band_width
    front_end = load_bundle().front_end if preset == "nano" else FrontEnd(band_width=width)
    wave = np.random.default_rng(0).standard_normal(SEGMENT_S * rate_hz).astype(np.float32)
    pieces = pieces_of(front_end, wave, rate_hz, pad_frames=not front_end.on_grid)
    with torch.no_grad(), flop_counter() as counter:
        encoder(torch.from_numpy(pieces[0][:1]))
    operations = float(counter.get_total_flops()) * len(pieces) * len(pieces[0])
    return operations * 3600 / SEGMENT_S / 1e12


def _on_gpu(preset: str, hours: dict[int, int]) -> dict[str, float]:
    """Operations of the whole benchmark and the minutes that a GPU would take for them, reading aside."""
    total = sum(h * tera_flops_an_hour(preset, rate_hz) for rate_hz, h in hours.items())
    return {"peta_flops": total / 1000, "minutes_on_one_gpu": total / GPU_TERA_FLOPS / 60}


def _nearest(rate_hz: int) -> int:
    return min(MEASURED_RATES, key=lambda measured: abs(measured - rate_hz))


def _make_set(folder: Path, set_name: str, rate_hz: int, hours: float) -> Path:
    """Write a few files of noise and link them under as many names as the hours have segments."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(rate_hz)
    sources = []
    for number in range(FILES):
        sources.append(folder / f"noise{number:02d}.wav")
        soundfile.write(sources[-1], 0.1 * rng.standard_normal(SEGMENT_S * rate_hz), rate_hz)
    segments = []
    for number in range(round(hours * 3600 / SEGMENT_S)):
        file = f"{number // 1000:04d}/{number:07d}.wav"
        path = folder / file
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        os.link(sources[number % FILES], path)
        segments.append(Segment(file, file, "vibration", rate_hz, SEGMENT_S * rate_hz, "x", 0, f"{number // 6}"))
    write_index(folder, Index(tuple(segments), {"name": set_name}))
    return folder


def _command(folder: Path, model: str, workers: int, out: Path) -> list[str]:
    arguments = ["--model", model, "--workers", str(workers), "--out", str(out / "run" / folder.name), "--json"]
    return [sys.executable, "-m", "fisher_edge.cli", "rmis", "embed", str(folder), *arguments]


def _watched(command: list[str], out: Path, stop_at: int | None) -> dict[str, Any]:
    """Run a command and sample the memory of it and its workers; kill it once `stop_at` embeddings are kept."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    family = psutil.Process(process.pid)
    samples: list[float] = []
    while process.poll() is None:
        samples.append(_memory_mb(family))
        if stop_at is not None and _kept(out) >= stop_at:
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(SAMPLED_EVERY_S)
    output = process.stdout.read() if process.stdout else b""
    steps = [samples[len(samples) * tenth // 10] for tenth in range(1, 10)] if len(samples) > 10 else samples
    return {"memory_mb": [round(step) for step in steps], "output": output, "kept": _kept(out)}


def _memory_mb(family: psutil.Process) -> float:
    """Resident memory of a process and its children."""
    total = 0
    try:
        for process in (family, *family.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.NoSuchProcess:  # it ended meanwhile
        pass
    return total / 2**20


def _kept(out: Path) -> int:
    """Count the embeddings that are in the cache for good."""
    for path in (out / "run" / "cache").glob("*.sqlite3"):
        try:
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
                return int(database.execute("SELECT count(*) FROM embedding").fetchone()[0])
        except sqlite3.OperationalError:  # it is not made yet
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
