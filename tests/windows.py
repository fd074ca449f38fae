"""Windows and baselines made by hand: no signal, no encoder."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fisher_edge.decision.assess import EnrolledTake, Made
from fisher_edge.decision.judgement import ModelName
from fisher_edge.dsp.blocks import FloatArray, Rate
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import grid_of
from fisher_edge.dsp.measures import Measures
from fisher_edge.dsp.views import View
from fisher_edge.encoder.windows import EmbeddedWindow
from fisher_edge.names import ChannelKey
from fisher_edge.store.baselines import Baseline, OperatingState, Take, ViewCalibration

__all__ = ["FRONT_END", "KEY", "VIEWS", "baseline", "embedding", "made", "take", "window"]

KEY = ChannelKey("pump-1", "vib-de")
VIEWS = (View("envelope"), View("slow", 200, 400))
# Four bands of 2 kHz at 16 kHz.
FRONT_END = FrontEnd(band_width=50)
BANDS, DIM = 4, 6
MODEL = ModelName("nano", "a" * 64)


def made(
    window_s: float = 0.64,
    hop_s: float = 0.64,
    views: tuple[View, ...] = (),
    model: ModelName = MODEL,
    rate_hz: Rate = 16_000,
) -> Made:
    """Return what windows were made with."""
    front_end = replace(FRONT_END, views=views)
    return Made(model, front_end, grid_of(front_end, window_s, hop_s, rate_hz), rate_hz)


def embedding(axis: int, seed: int, spread: float = 0.05) -> FloatArray:
    """Return an embedding (4, 6) near one of 24 directions: a kind of sound."""
    vector = spread * np.random.default_rng(seed).standard_normal(BANDS * DIM)
    vector[axis] += 1
    return vector.astype(np.float32).reshape(BANDS, DIM)


def window(vector: FloatArray, end_s: float = 0.64, *, log_rms: float = 0.0, **options: Any) -> EmbeddedWindow:
    """Return a window of 0.64 s with this embedding and this level."""
    deviation = math.exp(log_rms)
    measures = Measures(100, 0.0, 100 * deviation**2, 0.0, 300 * deviation**4, -2 * deviation, 3 * deviation)
    fields: dict[str, Any] = {
        "embedding": vector,
        "views": (),
        "measures": measures,
        "fault": None,
        "hum_share": 0.1,
        "rate_hz": 16_000,
        "start": 0,
        "end_time_s": end_s,
        "window_s": 0.64,
        "number": 0,
    }
    return EmbeddedWindow(**fields | options)


def take(
    name: str, axis: int, seed: int, count: int = 8, *, log_rms: float = 0.0, specimen: str | None = None, **of: Any
) -> EnrolledTake:
    """Return a recording of windows that follow each other, all of one kind; `recorded_s` may be given."""
    recorded_s = of.pop("recorded_s", None)
    windows = [
        window(embedding(axis, 1000 * seed + number), 0.64 * (number + 1), log_rms=log_rms + 0.01 * (number % 3), **of)
        for number in range(count)
    ]
    return EnrolledTake(name, windows, specimen, recorded_s)


def baseline(
    seed: int = 0, label: str | None = None, key: ChannelKey = KEY, windows: int = 6, views: Sequence[View] = ()
) -> Baseline:
    """Return a small baseline of random numbers: two recordings, two operating states."""
    random = np.random.default_rng(seed)
    how = made()
    return Baseline(
        key=key,
        label=label,
        model_name=how.model.name,
        model_sha256=how.model.sha256,
        front_end=how.front_end,
        rate_hz=how.rate_hz,
        grid=how.grid,
        vectors=random.standard_normal((windows, BANDS, DIM)).astype(np.float32),
        take=np.sort(np.arange(windows, dtype=np.int32) % 2),
        offset_s=np.arange(windows, dtype=np.float64) + 0.64,
        level=random.standard_normal(windows),
        takes=(Take("Öl 1.flac", "6205-a", 1.7e9 + 0.25, 0), Take("b.wav", state=1)),
        states=tuple(
            OperatingState(str(number + 1), random.random(5), number - 3.5, 0.1 + number, 0.25) for number in range(2)
        ),
        view_calibrations=tuple(ViewCalibration(view, random.random(4)) for view in views),
        views=np.concatenate([random.random((windows, view.bins)) for view in views], axis=1).astype(np.float32)
        if views
        else None,
        reason=f"seed {seed}",
    )
