"""CPU time of a window, by part and against the official code path, and of a second of signal in a gateway.

Start at `measure`.
"""

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fisher_bench.speed.gateway_cost import cost_per_second, noise_bank
from fisher_edge.dsp.blocks import FloatArray, Rate
from fisher_edge.dsp.grid import grid_of, pieces_of
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.select import open_encoder
from fisher_edge.encoder.windows import embed_window

__all__ = ["Latency", "measure", "official_call"]

REPEATS = 7
MEGABYTE_KIB = 1024
BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16", "bf16"}


@dataclass(frozen=True)
class Latency:
    """Median CPU milliseconds on one thread, and the memory of the process (without PyTorch).

    `front_end_ms` to `total_ms` are those of a window of `seconds` computed by itself. A gateway computes each piece
    once: `cpu_ms_per_s` is what a second of signal costs it, by `parts_ms_per_s` as well.
    """

    bundle: str
    provider: str
    rate_hz: float
    seconds: float
    bands: int
    front_end_ms: float
    encoder_ms: float
    knn_ms: float
    total_ms: float
    window_s: float
    hop_s: float
    cpu_ms_per_s: float
    parts_ms_per_s: dict[str, float]
    peak_memory_mb: float
    official_ms: float | None = None
    ratio: float | None = None
    """Official CPU time of a window over ours, median of pairs run in turn."""
    bf16_ratio: float | None = None
    """The same with PyTorch in bfloat16, where the processor has it."""
    official_difference: float | None = None
    """Largest absolute difference between the two embeddings, when both have the checkpoint's weights."""


def measure(
    bundle: str,
    rate_hz: Rate,
    seconds: float,
    *,
    hop_s: float | None = None,
    provider: str = "auto",
    against_official: bool = False,
    checkpoint: Path | None = None,
) -> Latency:
    """Time a window of noise, and a second of noise on its way through a gateway with this window and hop.

    With `against_official` the published code path runs in turn with ours, in this process, on one thread; it
    needs PyTorch. Without `checkpoint` it has random weights, which changes its embeddings, not its time.
    """
    encoder = open_encoder(load_bundle(bundle), provider)
    front_end = encoder.bundle.front_end
    grid = grid_of(front_end, seconds, hop_s, rate_hz)
    wave = np.random.default_rng(0).standard_normal(round(rate_hz * seconds)).astype(np.float32)
    pieces = pieces_of(front_end, wave, rate_hz)
    embedding = embed_window(encoder, front_end, pieces)
    bank = noise_bank(*embedding.shape)

    def ours() -> FloatArray:
        return embed_window(encoder, front_end, pieces_of(front_end, wave, rate_hz))

    cost = cost_per_second(encoder, grid, rate_hz)
    peak_memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE_KIB
    official = official_call(encoder, wave, rate_hz, checkpoint) if against_official else None
    half = _in_bfloat16(official) if official and _has_bfloat16() else None
    pairs = [(_cpu_ms(ours), _cpu_ms(official) if official else None) for _ in range(REPEATS)]
    compared: dict[str, Any] = {}
    if official:
        times = [(our, other) for our, other in pairs if other is not None]
        compared = {
            "official_ms": statistics.median(other for _, other in times),
            "ratio": statistics.median(other / our for our, other in times),
            "bf16_ratio": statistics.median(_cpu_ms(half) / _cpu_ms(ours) for _ in range(REPEATS)) if half else None,
            "official_difference": float(np.abs(official() - ours()).max()) if checkpoint else None,
        }
    return Latency(
        bundle=encoder.name,
        provider=encoder.provider,
        rate_hz=float(rate_hz) if rate_hz != int(rate_hz) else int(rate_hz),
        seconds=seconds,
        bands=len(embedding),
        front_end_ms=_median_ms(lambda: pieces_of(front_end, wave, rate_hz)),
        encoder_ms=_median_ms(lambda: embed_window(encoder, front_end, pieces)),
        knn_ms=_median_ms(lambda: bank.nearest(embedding)),
        total_ms=statistics.median(our for our, _ in pairs),
        window_s=grid.window_s,
        hop_s=grid.hop_s,
        cpu_ms_per_s=cost.whole,
        parts_ms_per_s={name: value for name, value in asdict(cost).items() if name != "whole"},
        peak_memory_mb=peak_memory_mb,
        **compared,
    )


def official_call(ours: Encoder, wave: FloatArray, rate_hz: Rate, checkpoint: Path | None) -> Callable[[], FloatArray]:
    """Return the official code path for this signal, on one thread, with an encoder of the bundle's shape."""
    import torch  # noqa: PLC0415 -- an extra

    from fisher_bench.speed.official import embed_officially  # noqa: PLC0415 -- needs torch
    from fisher_train.checkpoint import build_encoder, load_checkpoint  # noqa: PLC0415 -- needs torch
    from fisher_train.encoder import Encoder as TorchEncoder  # noqa: PLC0415 -- needs torch
    from fisher_train.encoder import EncoderConfig  # noqa: PLC0415 -- needs torch

    torch.set_num_threads(1)
    front_end, manifest = ours.bundle.front_end, ours.bundle.manifest
    if checkpoint is not None:
        encoder = build_encoder(load_checkpoint(checkpoint))
    else:
        shape = EncoderConfig(
            embed_dim=manifest["dim"],
            depth=manifest["depth"],
            num_heads=manifest["heads"],
            band_width=front_end.band_width,
        )
        encoder = TorchEncoder(shape).eval()
    return lambda: embed_officially(encoder, front_end, wave, rate_hz)


def _has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 by itself; elsewhere PyTorch is slower with it."""
    try:
        facts = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return not BFLOAT16_FLAGS.isdisjoint(facts)


def _in_bfloat16(call: Callable[[], FloatArray]) -> Callable[[], FloatArray]:
    """Run a call of PyTorch in automatic mixed precision, the fastest setting that one line gives."""
    import torch  # noqa: PLC0415 -- an extra

    def mixed() -> FloatArray:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return call()

    return mixed


def _median_ms(call: Callable[[], object]) -> float:
    """Median CPU time of some calls."""
    return statistics.median(_cpu_ms(call) for _ in range(REPEATS))


def _cpu_ms(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return 1000 * (time.process_time() - start)
