"""Speed of the encoder in int8 and in float32, signal to embedding, against the published code path in PyTorch.

    pytest bench/bench_encoder.py

Random weights: they do not change the time. Seconds depend on the machine and are only shown; what is asserted
are ratios.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fisher_bench.speed.official import embed_officially
from fisher_bench.speed.pairs import cpu_ratio
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.ort import OrtEncoder
from fisher_edge.encoder.windows import embed_window
from fisher_export.pipeline import Precision, export
from fisher_export.verify import Signal
from fisher_train.checkpoint import Checkpoint, save_checkpoint
from fisher_train.encoder import PRESETS, Encoder

RATE_HZ = 16_000
SECONDS = 10
LEAST: dict[tuple[str, Precision], float] = {("nano", "fp32"): 1.0, ("nano", "int8"): 1.3, ("tiny", "int8"): 1.6}
"""Ratio to PyTorch in float32, with room for processors without int8 dot products."""


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """White noise."""
    return np.random.default_rng(seed).standard_normal(round(seconds * RATE_HZ)).astype(np.float32)


@pytest.mark.parametrize(("preset", "precision"), LEAST)
def test_encoder_against_the_official_path(benchmark: Any, tmp_path: Path, preset: str, precision: Precision) -> None:
    """Signal to embedding takes less CPU time than the official code path, on one thread each."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = PRESETS[preset]
    encoder = Encoder(config).eval()
    front_end = FrontEnd(band_width=config.band_width)
    save_checkpoint(tmp_path / preset, Checkpoint(config, front_end, encoder.state_dict(), preset))
    signals = [Signal("noise", noise(21), RATE_HZ)]
    bundle = export(tmp_path / preset, tmp_path / "out", precision, signals, force=True, variants=False).path
    exported = OrtEncoder(load_bundle(bundle))
    wave = noise(SECONDS)

    def official() -> np.ndarray:
        return embed_officially(encoder, front_end, wave, RATE_HZ)

    def ours() -> np.ndarray:
        return embed_window(exported, front_end, [front_end.sub_bands(wave, RATE_HZ)])

    assert np.abs(official() - ours()).max() < {"fp32": 1e-3, "int8": 0.5}[precision]
    ratio = cpu_ratio(official, ours, pairs=5)
    benchmark.pedantic(ours, rounds=3)
    benchmark.extra_info["the official path takes"] = f"{ratio:.2f} times as long"
    print(f"\n{preset} {precision}: the official path takes {ratio:.2f} times as long")
    assert ratio > LEAST[preset, precision]
