"""How long a window takes on this machine, part by part, and beside the official code path. See `measure`."""

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fisher_edge.decision.bank import MemoryBank
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.ort import EncoderSession

__all__ = ["Latency", "measure", "official_call"]

REPEATS = 7
BANK_WINDOWS = 1000
MEGABYTE_KIB = 1024


@dataclass(frozen=True)
class Latency:
    """Median CPU milliseconds of one window on one thread, and the memory of the process (without PyTorch)."""

    bundle: str
    provider: str
    rate_hz: int
    seconds: float
    bands: int
    front_end_ms: float
    encoder_ms: float
    knn_ms: float
    total_ms: float
    peak_memory_mb: float
    official_ms: float | None = None
    ratio: float | None = None
    """Official CPU time over ours, median of pairs run in turn."""
    official_difference: float | None = None
    """Largest absolute difference between the two embeddings, when both have the checkpoint's weights."""


def measure(
    bundle: str, rate_hz: int, seconds: float, *, against_official: bool = False, checkpoint: Path | None = None
) -> Latency:
    """Time front-end, encoder and nearest-neighbour search (1000 windows) on noise of one rate.

    With `against_official` the published code path runs in turn with ours, in this process, on one thread; it
    needs PyTorch. Without `checkpoint` it has random weights, which changes its embeddings, not its time.
    """
    session = EncoderSession(load_bundle(bundle))
    front_end = session.bundle.front_end
    generator = np.random.default_rng(0)
    wave = generator.standard_normal(round(rate_hz * seconds)).astype(np.float32)
    bands = front_end.sub_bands(wave, rate_hz)
    embedding = session.embed(bands)
    vectors = generator.standard_normal((BANK_WINDOWS, *embedding.shape)).astype(np.float32)
    bank = MemoryBank.of(vectors, ["normal"] * BANK_WINDOWS)

    def ours() -> FloatArray:
        return session.embed(front_end.sub_bands(wave, rate_hz))

    ours()
    bank.nearest(embedding)
    peak_memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE_KIB
    official = official_call(session, wave, rate_hz, checkpoint) if against_official else None
    pairs = [(_cpu_ms(ours), _cpu_ms(official) if official else None) for _ in range(REPEATS)]
    compared: dict[str, Any] = {}
    if official:
        times = [(our, other) for our, other in pairs if other is not None]
        compared = {
            "official_ms": statistics.median(other for _, other in times),
            "ratio": statistics.median(other / our for our, other in times),
            "official_difference": float(np.abs(official() - ours()).max()) if checkpoint else None,
        }
    return Latency(
        bundle=session.bundle.name,
        provider=session.provider,
        rate_hz=rate_hz,
        seconds=seconds,
        bands=len(bands),
        front_end_ms=_median_ms(lambda: front_end.sub_bands(wave, rate_hz)),
        encoder_ms=_median_ms(lambda: session.embed(bands)),
        knn_ms=_median_ms(lambda: bank.nearest(embedding)),
        total_ms=statistics.median(our for our, _ in pairs),
        peak_memory_mb=peak_memory_mb,
        **compared,
    )


def official_call(
    session: EncoderSession, wave: FloatArray, rate_hz: int, checkpoint: Path | None
) -> Callable[[], FloatArray]:
    """Return the official code path for this signal, on one thread, with an encoder of the bundle's shape."""
    import torch  # noqa: PLC0415 -- an extra

    from fisher_bench.official import embed_officially  # noqa: PLC0415 -- needs torch
    from fisher_train.checkpoint import build_encoder, load_checkpoint  # noqa: PLC0415 -- needs torch
    from fisher_train.encoder import Encoder, EncoderConfig  # noqa: PLC0415 -- needs torch

    torch.set_num_threads(1)
    front_end, manifest = session.bundle.front_end, session.bundle.manifest
    if checkpoint is not None:
        encoder = build_encoder(load_checkpoint(checkpoint))
    else:
        shape = EncoderConfig(
            embed_dim=manifest["dim"],
            depth=manifest["depth"],
            num_heads=manifest["heads"],
            band_width=front_end.band_width,
        )
        encoder = Encoder(shape).eval()
    return lambda: embed_officially(encoder, front_end, wave, rate_hz)


def _median_ms(call: Callable[[], object]) -> float:
    """Median CPU time of some calls."""
    return statistics.median(_cpu_ms(call) for _ in range(REPEATS))


def _cpu_ms(call: Callable[[], object]) -> float:
    """CPU milliseconds of this process during one call."""
    start = time.process_time()
    call()
    return 1000 * (time.process_time() - start)
