"""What self-distillation costs: one real optimiser step of each preset at full size on this processor.

`python -m fisher_train.measure cost --preset tiny --preset small --json`. A sample is 1024 frames of one signal: its
bands and all their clones, which is also the smallest micro-batch of a sample. Time, memory and operations are
measured with `--samples`; what is said of the paper's batch (24, 32 or 16 samples per GPU) is extrapolated from them.
"""

import argparse
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.errors import BadInputError, FisherEdgeError
from fisher_train.encoder import PRESETS
from fisher_train.objectives.distillation import Distillation
from fisher_train.objectives.masking import MAX_CLONED_BANDS, clones_per_band, kept_patches
from fisher_train.objectives.teacher import PAPER_STEPS
from fisher_train.run.optimizer import parameter_groups

__all__ = ["Cost", "main", "measure"]

BATCH_PER_GPU = {"nano": 16, "tiny": 24, "mini": 32, "small": 16}
"""Samples per GPU in the paper; `nano` is ours and takes that of `small`."""
GPUS = 4
FRAMES = 1024
Shape = Sequence[int]
EXAMPLE = "example: python -m fisher_train.measure cost --preset tiny --rate-hz 16000"


@dataclass(frozen=True)
class Cost:
    """Measured on this processor, float32, one thread; the last three fields are extrapolated."""

    preset: str
    rate_hz: int
    samples: int
    bands: int
    """Bands of one sample."""
    clones: int
    """Clones of one band."""
    tokens: int
    """Kept patches of one clone and its [CLS]."""
    encoder_parameters: int
    decoder_parameters: int
    cpu_s: float
    """Processor time of a step: teacher, student, decoder, backward, AdamW, moving average."""
    tflop: float
    """Operations of a step in 10^12; a multiplication and an addition are two."""
    peak_gb: float
    """Highest resident memory of the process above what it has before the model is built."""
    sample_gb: float
    """What a further sample adds to it."""
    loss: float
    batch_per_gpu: int
    batch_gb: float
    """Extrapolated: the peak and the memory of the further samples."""
    batch_tflop: float
    """Extrapolated: a step of one GPU."""
    run_eflop: float
    """Extrapolated: 400 k steps on 4 GPUs, without evaluation."""


def measure(preset: str, *, rate_hz: int = 16_000, samples: int = 1, frames: int = FRAMES) -> Cost:
    """Take three optimiser steps: operations are counted in the first, time in the second, both of `samples`.

    The third has twice as many samples: what it adds to the peak is the memory of a sample, without what is
    loaded once. The peak is that of the process, so each preset wants one of its own (see `main`).
    """
    before = _resident_gb("VmRSS")
    torch.manual_seed(0)
    model = Distillation(PRESETS[preset])
    optimizer = torch.optim.AdamW(parameter_groups([model], 0.05), 5e-4, betas=(0.9, 0.95))
    batch = _batch(preset, rate_hz, samples, frames)
    with flop_counter() as counter:
        _step(model, optimizer, batch)
    start = time.process_time()
    loss = _step(model, optimizer, batch)
    cpu_s = time.process_time() - start
    peak_gb = _resident_gb("VmHWM") - before
    _step(model, optimizer, _batch(preset, rate_hz, 2 * samples, frames))
    sample_gb = (_resident_gb("VmHWM") - before - peak_gb) / samples
    tflop, batch_per_gpu = counter.get_total_flops() / 1e12, BATCH_PER_GPU[preset]
    return Cost(
        preset=preset,
        rate_hz=rate_hz,
        samples=samples,
        bands=len(batch[0]) // samples,
        clones=batch[1].shape[1],
        tokens=1 + batch[1].shape[2],
        encoder_parameters=sum(value.numel() for value in model.encoder.parameters()),
        decoder_parameters=sum(value.numel() for value in model.decoder.parameters()),
        cpu_s=cpu_s,
        tflop=tflop,
        peak_gb=peak_gb,
        sample_gb=sample_gb,
        loss=loss,
        batch_per_gpu=batch_per_gpu,
        batch_gb=peak_gb + sample_gb * (batch_per_gpu - samples),
        batch_tflop=tflop * batch_per_gpu / samples,
        run_eflop=tflop * batch_per_gpu / samples * GPUS * PAPER_STEPS / 1e6,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure presets one after the other, each in a process of its own; print a table or JSON."""
    options = _parser().parse_args(arguments)
    try:
        if options.samples < 1:
            raise BadInputError(f"--samples {options.samples} is no batch; give 1 or more")
        FrontEnd().check_rate(options.rate_hz)
        costs = [_measure_alone(preset, options) for preset in options.preset or list(PRESETS)]
    except FisherEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if options.json:
        print(json.dumps([asdict(cost) for cost in costs], indent=2))
    else:
        Console().print(_table(costs))
    return 0


def flop_counter() -> FlopCounterMode:
    """Count the operations of what runs inside, with two corrections to what torch counts on a processor.

    Torch leaves out attention there, and takes the weight gradient of a grouped convolution for an ungrouped one.
    """
    aten = torch.ops.aten
    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: _attention_flop,  # noqa: SLF001 -- its only name
            aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flop,  # noqa: SLF001
            aten.convolution_backward: _convolution_backward_flop,
        },
    )


def _attention_flop(query: Shape, key: Shape, *_: object, **__: object) -> int:
    """Two products, of queries with keys and of the weights with the values."""
    return 4 * math.prod(query) * key[-2]


def _attention_backward_flop(_grad: Shape, query: Shape, key: Shape, *_: object, **__: object) -> int:
    """Five products: the weights again, and the gradients of weights, queries, keys and values."""
    return 10 * math.prod(query) * key[-2]


def _convolution_backward_flop(grad: Shape, _input: Shape, weight: Shape, *rest: Any, **_: object) -> int:
    """As many as forward for the gradient of the input, and again for that of the weight."""
    products = sum(bool(wanted) for wanted in rest[-1][:2])
    return 2 * math.prod(grad) * math.prod(weight[1:]) * products


def _measure_alone(preset: str, options: argparse.Namespace) -> Cost:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_one_thread) as process:
        values = {"rate_hz": options.rate_hz, "samples": options.samples, "frames": options.frames}
        return process.submit(measure, preset, **values).result()


def _one_thread() -> None:
    torch.set_num_threads(1)


def _batch(preset: str, rate_hz: int, samples: int, frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return bands of white noise (what they hold does not change the cost), kept patches and seeds."""
    config, rng = PRESETS[preset], np.random.default_rng(0)
    front_end = FrontEnd(band_width=config.band_width)
    waves = rng.standard_normal((samples, front_end.n_samples(frames, rate_hz)))
    bands = np.concatenate([front_end.sub_bands(wave, rate_hz) for wave in waves])
    clones = clones_per_band(MAX_CLONED_BANDS[preset], len(bands) // samples)
    kept = np.stack([kept_patches(rng, *config.patch_grid(frames), clones) for _ in bands])
    return torch.from_numpy(bands), torch.from_numpy(kept), torch.arange(len(bands))


def _step(model: Distillation, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor, Tensor]) -> float:
    loss, _ = model(*batch)
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(model.parameters(), 4.0)
    optimizer.step()
    optimizer.zero_grad()
    model.after_step(0, PAPER_STEPS)
    return float(loss.detach())


def _resident_gb(field: str) -> float:
    """Read a field of this process's status (Linux); VmHWM is the highest resident memory since it started."""
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e9
    raise BadInputError(f"this system does not report {field} in /proc/self/status; measure on Linux")


def _table(costs: Sequence[Cost]) -> Table:
    first = costs[0]
    table = Table(title=f"One step of self-distillation: {first.samples} x {first.rate_hz} Hz, float32, one thread")
    table.add_column("")
    for cost in costs:
        table.add_column(cost.preset, justify="right")
    rows: dict[str, Callable[[Cost], str]] = {
        "encoder, M parameters": lambda cost: f"{cost.encoder_parameters / 1e6:.2f}",
        "decoder, M parameters": lambda cost: f"{cost.decoder_parameters / 1e6:.2f}",
        "bands x clones of a sample": lambda cost: f"{cost.bands} x {cost.clones}",
        "tokens of a clone": lambda cost: f"{cost.tokens}",
        "step, s of processor": lambda cost: f"{cost.cpu_s:.2f}",
        "step, TFLOP": lambda cost: f"{cost.tflop:.3f}",
        "step, peak GB": lambda cost: f"{cost.peak_gb:.2f}",
        "a further sample, GB": lambda cost: f"{cost.sample_gb:.2f}",
        "samples per GPU": lambda cost: f"{cost.batch_per_gpu}",
        "* their step, TFLOP": lambda cost: f"{cost.batch_tflop:.2f}",
        "* their step, GB": lambda cost: f"{cost.batch_gb:.0f}",
        "* a run, EFLOP": lambda cost: f"{cost.run_eflop:.1f}",
    }
    for name, text in rows.items():
        table.add_row(name, *(text(cost) for cost in costs))
    table.caption = f"* extrapolated; a run is {PAPER_STEPS} steps on {GPUS} GPUs"
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fisher_train.measure cost", description="Measure a step of self-distillation.", epilog=EXAMPLE
    )
    parser.add_argument("--preset", action="append", choices=list(PRESETS), help="may be repeated; default: all")
    parser.add_argument("--rate-hz", type=int, default=16_000, help="sampling rate, which gives the number of bands")
    parser.add_argument("--samples", type=int, default=1, help="samples in a step")
    parser.add_argument("--frames", type=int, default=FRAMES, help="frames of a sample (10 ms each)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser
