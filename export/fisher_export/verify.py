"""How close an exported bundle is to its checkpoint, measured with the runtime's own loader.

Start at `measure`: parity on held-out windows of real recordings, and the time of both side by side.
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fisher_edge.dsp.blocks import FloatArray, Rate
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import pieces_of
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.windows import embed_window
from fisher_edge.errors import BadInputError
from fisher_train.encoder import Encoder as TorchEncoder

__all__ = ["GATES", "Parity", "Signal", "cut_windows", "embed_with_torch", "measure", "neighbour_agreement"]

WINDOW_S = 1.28
MIN_WINDOWS = 8
MIN_OF_ONE_RATE = 3
"""Windows of the same rate from which a nearest other one can change."""
FLOAT32_RESOLUTION = 1e-6
"""Differences of cosine distance that are lost when unit vectors of some hundred float32 numbers are multiplied."""
LATENCY_RATE_HZ = 16_000
LATENCY_SECONDS = 10
REPEATS = 5

GATES = {
    "fp32": {"cosine": 0.99999},
    "int8": {"centred_cosine": 0.995, "neighbour_agreement": 0.9},
}
"""The figures below which an export is refused, by precision."""


@dataclass(frozen=True, eq=False)
class Signal:
    """A recording used to verify an export: its name, samples (n,) and rate."""

    name: str
    wave: FloatArray
    rate_hz: Rate


@dataclass(frozen=True)
class Parity:
    """An export compared with its checkpoint; cosines are those of single sub-bands."""

    windows: int
    cosine: float
    """Smallest cosine between a sub-band's embedding before and after."""
    centred_cosine: float
    """Mean cosine after removing the mean embedding, which makes small differences count."""
    neighbour_agreement: float
    """Share of windows whose nearest other window of the same rate is still the same."""
    latency_ratio: float
    """CPU time of the checkpoint in PyTorch, divided by that of the bundle: 10 s at 16 kHz, signal to embedding."""

    def failures(self, precision: str) -> list[str]:
        """Name every figure below the gate of this precision."""
        return [
            f"{name} {getattr(self, name):.6f} < {least}"
            for name, least in GATES[precision].items()
            if not getattr(self, name) >= least
        ]


def cut_windows(signals: Sequence[Signal], front_end: FrontEnd) -> list[tuple[Rate, FloatArray]]:
    """Cut recordings into what the encoder sees at a time: (rate_hz, sub-bands) of each.

    Pieces on the grid, or windows of 1.28 s where windows are seen whole; a shorter recording is one.
    """
    windows = []
    for signal in signals:
        front_end.check_rate(signal.rate_hz)
        length = front_end.n_samples(_frames(front_end, signal.rate_hz), signal.rate_hz)
        starts = range(0, max(1, len(signal.wave) - length + 1), length)
        windows += [
            (signal.rate_hz, front_end.sub_bands(signal.wave[start : start + length], signal.rate_hz))
            for start in starts
        ]
    if len(windows) < MIN_WINDOWS:
        raise BadInputError(
            f"{len(windows)} windows are too few to verify an export ({MIN_WINDOWS} needed); "
            f"give more or longer recordings with --calibration"
        )
    if max(Counter(rate for rate, _ in windows).values()) < MIN_OF_ONE_RATE:
        raise BadInputError(
            f"no rate has {MIN_OF_ONE_RATE} windows, so nearest neighbours cannot be compared; give more recordings "
            "of one rate with --calibration"
        )
    return windows


def _frames(front_end: FrontEnd, rate_hz: Rate) -> int:
    return front_end.piece_frames if front_end.on_grid else front_end.frames_of(WINDOW_S, rate_hz)


def embed_with_torch(encoder: TorchEncoder, bands: FloatArray) -> FloatArray:
    """Embed the sub-bands (bands, frames, band_width) of one piece with PyTorch: (bands, dim)."""
    with torch.inference_mode():
        embedding: FloatArray = encoder(torch.from_numpy(np.ascontiguousarray(bands))).numpy()
    return embedding


def measure(encoder: TorchEncoder, exported: Encoder, signals: Sequence[Signal]) -> Parity:
    """Compare a bundle with the encoder it was exported from, on windows of real recordings."""
    windows = cut_windows(signals, exported.bundle.front_end)
    before = [embed_with_torch(encoder, bands) for _, bands in windows]
    after = exported.embed([bands for _, bands in windows])
    rows_before, rows_after = np.concatenate(before), np.concatenate(after)
    centre = rows_before.mean(axis=0)
    return Parity(
        windows=len(windows),
        cosine=float(_cosine(rows_before, rows_after).min()),
        centred_cosine=float(_cosine(rows_before - centre, rows_after - centre).mean()),
        neighbour_agreement=neighbour_agreement([rate for rate, _ in windows], before, after),
        latency_ratio=_latency_ratio(encoder, exported),
    )


def _cosine(left: FloatArray, right: FloatArray) -> FloatArray:
    """Cosine of each row pair, in float64; 0 where a row is zero, as centred rows of equal windows are."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / np.maximum(norms, 1e-12))


def neighbour_agreement(rates: Sequence[Rate], before: list[FloatArray], after: list[FloatArray]) -> float:
    """Share of windows whose nearest other window of the same rate is the same before and after.

    Two candidates whose distances differ by less than the runtime's float32 search resolves are the same.
    """
    kept: list[bool] = []
    for rate in set(rates):
        chosen = [index for index, other in enumerate(rates) if other == rate]
        if len(chosen) >= MIN_OF_ONE_RATE:
            distance = _distances([before[index] for index in chosen])
            nearest_after = _distances([after[index] for index in chosen]).argmin(axis=1)
            excess = distance[np.arange(len(chosen)), nearest_after] - distance.min(axis=1)
            kept += (excess < FLOAT32_RESOLUTION).tolist()
    return float(np.mean(kept))


def _distances(embeddings: list[FloatArray]) -> npt.NDArray[np.float64]:
    """Cosine distance of every pair of windows over all bands, infinite to itself."""
    rows = np.stack([embedding.ravel() for embedding in embeddings]).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    distances = 1 - rows @ rows.T
    np.fill_diagonal(distances, np.inf)
    return np.asarray(distances)


def _latency_ratio(encoder: TorchEncoder, exported: Encoder) -> float:
    """Median CPU time of PyTorch over that of the bundle, run in turn on one thread, front-end included."""
    front_end = exported.bundle.front_end
    wave = np.random.default_rng(0).standard_normal(LATENCY_SECONDS * LATENCY_RATE_HZ).astype(np.float32)
    rate_hz = LATENCY_RATE_HZ
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ratios = [
            _cpu_seconds(lambda: [embed_with_torch(encoder, bands) for bands in pieces_of(front_end, wave, rate_hz)])
            / _cpu_seconds(lambda: embed_window(exported, front_end, pieces_of(front_end, wave, rate_hz)))
            for _ in range(REPEATS)
        ]
    finally:
        torch.set_num_threads(threads)
    return statistics.median(ratios)


def _cpu_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start
