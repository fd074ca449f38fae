"""Everything that `fisher-edge bench` measures, as one object of JSON values and as text. Start at `report`."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fisher_bench.speed import latency, stages
from fisher_bench.speed.machine import describe, watched
from fisher_bench.speed.start import FirstScore, first_score
from fisher_edge.dsp.blocks import Rate
from fisher_edge.dsp.grid import grid_of
from fisher_edge.encoder.base import PATCH, BaseEncoder, tokens_of
from fisher_edge.encoder.bundle import Bundle, load_bundle
from fisher_edge.encoder.select import PROVIDERS, open_encoder
from fisher_edge.errors import FisherEdgeError

__all__ = ["Asked", "acceptance", "lines", "operations", "report"]

MLP_RATIO = 4
PEAK_SHAPE = (1024, 1024, 1024)
RANDOM_SEED = 0


@dataclass(frozen=True)
class Asked:
    """What to measure: see the options of the command."""

    bundle: str
    rate_hz: Rate
    seconds: float
    hop_s: float | None = None
    provider: str = "auto"
    against_official: bool = False
    checkpoint: Path | None = None
    channels: int = 0
    minutes: float = 1.0


def report(asked: Asked, tell: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Measure a window, the stages, the first score and, where asked for, real channels.

    `tell` is called with what is being done.
    """
    with watched() as conditions:
        tell("a window")
        measured = latency.measure(
            asked.bundle,
            asked.rate_hz,
            asked.seconds,
            hop_s=asked.hop_s,
            provider=asked.provider,
            against_official=asked.against_official,
            checkpoint=asked.checkpoint,
        )
        encoder = open_encoder(load_bundle(asked.bundle), asked.provider)
        grid = grid_of(encoder.bundle.front_end, asked.seconds, asked.hop_s, asked.rate_hz)
        tell("the stages")
        found = stages.to_dict(stages.measure(encoder, grid, asked.rate_hz))
        tell("the first score after a start")
        starts = _starts(asked)
        tell("the peak of the machine")
        peak = _peak(encoder.bundle, grid.piece_frames, measured.bands, found["encoder"]["cpu_ms"]["p50"])
        run = None
        if asked.channels:
            from fisher_bench.speed.channels import run_channels  # noqa: PLC0415 -- needs psutil

            run = run_channels(
                asked.bundle,
                asked.channels,
                asked.rate_hz,
                window_s=asked.seconds,
                hop_s=measured.hop_s,
                minutes=asked.minutes,
                provider=asked.provider,
                tell=tell,
            ).to_dict()
    return {
        **asdict(measured),
        "stages": found,
        "start": starts,
        "peak": peak,
        "channels": run,
        "machine": describe(),
        "conditions": conditions.to_dict(),
    }


def acceptance(asked: Asked, tell: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Return the report with every provider there is: whether it is there, faithful to the self-test, and how fast."""
    providers = {}
    for provider in PROVIDERS:
        if provider == "auto":
            continue
        tell(f"the provider {provider}")
        try:
            encoder = open_encoder(load_bundle(asked.bundle), provider)
        except FisherEdgeError as error:
            providers[provider] = {"there": False, "why": str(error)}
            continue
        grid = grid_of(encoder.bundle.front_end, asked.seconds, asked.hop_s, asked.rate_hz)
        assert isinstance(encoder, BaseEncoder)
        embedding = stages.encoder_stage(encoder, grid, asked.rate_hz)
        providers[provider] = {
            "there": True,
            "runs": encoder.provider,
            "self_test_cosine": encoder.self_test_cosine(),
            "least_cosine": encoder.bundle.selftest.min_cosine,
            "encoder": {"wall_ms": embedding.wall_ms, "cpu_ms": embedding.cpu_ms},
        }
    return {"providers": providers, **report(asked, tell)}


def operations(bundle: Bundle, frames: int) -> float:
    """Multiplications and additions of one sub-band of so many frames: the last block serves [CLS] alone."""
    dim, depth = int(bundle.manifest["dim"]), int(bundle.manifest["depth"])
    patches = tokens_of(frames, bundle.front_end.band_width)
    tokens = patches + 1
    linear = 2 * dim**2 * (4 + 2 * MLP_RATIO)
    block = tokens * linear + 4 * tokens**2 * dim
    last = 2 * 2 * tokens * dim**2 + (linear - 2 * 2 * dim**2) + 4 * tokens * dim
    return float(2 * patches * PATCH**2 * dim + (depth - 1) * block + last)


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the figures for a person."""
    parts = ", ".join(f"{name} {value:.2f}" for name, value in found["parts_ms_per_s"].items())
    yield f"{found['bundle']} on {found['provider']}, {found['rate_hz']:.12g} Hz, {found['bands']} bands, CPU time"
    yield (
        f"  a window of {found['seconds']:g} s by itself: front-end {found['front_end_ms']:.2f} ms, encoder "
        f"{found['encoder_ms']:.2f} ms, nearest of 1000 windows {found['knn_ms']:.2f} ms; signal to embedding "
        f"{found['total_ms']:.2f} ms"
    )
    yield (
        f"  a second of signal, windows of {found['window_s']:.4g} s every {found['hop_s']:.4g} s: "
        f"{found['cpu_ms_per_s']:.2f} ms, at most {1000 / found['cpu_ms_per_s']:.0f} channels a core"
    )
    yield f"    {parts}"
    yield "  stage                        wall ms p50    p90    p99    CPU ms p50    p90    p99"
    for name, stage in found["stages"].items():
        wall = " ".join(f"{value:6.2f}" for value in stage["wall_ms"].values())
        cpu = " ".join(f"{value:6.2f}" for value in (stage["cpu_ms"] or {}).values())
        yield f"  {name + ', ' + stage['what']:28}     {wall}        {cpu}".rstrip()
    start, peak, run = found["start"], found["peak"], found["channels"]
    yield (
        f"  first score {start['cpu_s']:.2f} s of CPU after the start of a process, {start['memory_mb']:.0f} MB"
        + (f"; PyTorch {start['cpu_ratio']:.1f} times as long, {start['memory_ratio']:.1f} times as much" if
           start["cpu_ratio"] else "")
    )  # fmt: skip
    if peak is not None:
        yield (
            f"  encoder at {peak['gops']:.0f} Gop/s, {peak['fraction']:.0%} of the {peak['int8_gops']:.0f} that ONNX "
            f"Runtime reaches in a large int8 product (float32 {peak['fp32_gops']:.0f})"
        )
    if found["ratio"] is not None:
        yield f"  official code path {found['official_ms']:.2f} ms a window: {found['ratio']:.2f} times ours"
    if found["bf16_ratio"] is not None:
        yield f"  the same in bfloat16: {found['bf16_ratio']:.2f} times ours"
    if run is not None:
        yield _run_line(run)
    for name, provider in found.get("providers", {}).items():
        yield f"  {name}: " + (
            f"{provider['runs']}, self-test cosine {provider['self_test_cosine']:.4f} (least "
            f"{provider['least_cosine']:.4f}), a piece {provider['encoder']['wall_ms']['p50']:.2f} ms"
            if provider["there"]
            else f"not there: {provider['why']}"
        )
    yield f"  {found['machine']['processor']}, {_seen(found['conditions'])}"


def _run_line(run: Mapping[str, Any]) -> str:
    """Say how channels fared."""
    return (
        f"  {run['channels']} channels on one core for {run['minutes']:g} minutes: {run['results']} results, "
        f"{run['skipped_windows']} windows lost, {run['cpu_ms_per_s']:.2f} ms CPU a second of signal, core "
        f"{run['core_share']:.0%} busy, {_late(run['late_s'])}, {run['memory_mb']:.0f} MB"
    )


def _seen(conditions: Mapping[str, Any]) -> str:
    """Say what the board told of temperature, power and throttling."""
    known = ((conditions["hottest_c"], "degrees C at most"), (conditions["watts"], "W"))
    told = [f"{value:.0f} {unit}" for value, unit in known if value is not None]
    if conditions["throttled"]:
        told.append(f"throttled {conditions['throttled']} times")
    return ", ".join(told) or "no temperature or power to be read"


def _late(late_s: Mapping[str, float | None]) -> str:
    """Say how late results were."""
    if late_s["p50"] is None or late_s["p99"] is None:
        return "no result came"
    return f"results {late_s['p50']:.2f} s late (99 %: {late_s['p99']:.2f} s)"


def _starts(asked: Asked) -> dict[str, Any]:
    """Measure the first score, and PyTorch's where it is compared with."""
    wave = np.random.default_rng(RANDOM_SEED).standard_normal(round(asked.rate_hz * asked.seconds), np.float32)
    ours = first_score(asked.bundle, asked.rate_hz, wave, provider=asked.provider)
    other: FirstScore | None = None
    if asked.against_official:
        other = first_score(asked.bundle, asked.rate_hz, wave, official=True)
    return {
        **asdict(ours),
        "cpu_ratio": other.cpu_s / ours.cpu_s if other else None,
        "memory_ratio": other.memory_mb / ours.memory_mb if other else None,
    }


def _peak(bundle: Bundle, frames: int, bands: int, encoder_ms: float) -> dict[str, float] | None:
    """Compare the encoder with large products on this machine; None without the packages of the export stage."""
    if not all(importlib.util.find_spec(name) for name in ("onnx", "torch")):
        return None
    from fisher_bench.speed.roofline import rates_gflops  # noqa: PLC0415 -- needs torch and onnx

    rates = rates_gflops(*PEAK_SHAPE)
    gops = bands * operations(bundle, frames) / encoder_ms / 1e6
    return {
        "gops": gops,
        "int8_gops": rates["ONNX Runtime int8"],
        "fp32_gops": rates["ONNX Runtime fp32"],
        "fraction": gops / rates["ONNX Runtime int8"],
    }
