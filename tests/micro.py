"""A micro encoder with random weights, signals to verify it on, and its checkpoint: quick to export."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch

from fisher_edge.dsp.frontend import FrontEnd
from fisher_export.verify import Signal
from fisher_train.checkpoint import Checkpoint, save_checkpoint
from fisher_train.encoder import Encoder, EncoderConfig

__all__ = ["CONFIG", "FRONT_END", "PRODUCTS_OF_A_BLOCK", "micro_checkpoint", "node_kinds", "save_micro", "signals"]

CONFIG = EncoderConfig(embed_dim=32, depth=2, num_heads=2, band_width=50, max_length=128, max_freq=3)
FRONT_END = FrontEnd(band_width=50, top_band="pad", amplitude="standardise")
PRODUCTS_OF_A_BLOCK = 6
"""Query, key, value, projection and the two of the MLP; attention has two more without constant weights."""


def micro_checkpoint(config: EncoderConfig = CONFIG, front_end: FrontEnd = FRONT_END) -> Checkpoint:
    """Return a checkpoint whose weights, biases and norms all matter."""
    generator = torch.Generator().manual_seed(0)
    state = Encoder(config).state_dict()
    for key, value in state.items():
        if not key.endswith("positions"):
            spread = 0.5 / value.shape[-1] ** 0.5 if value.ndim == 2 else 0.1
            state[key] = torch.randn(value.shape, generator=generator) * spread + (value.ndim == 1) * value
    return Checkpoint(config, front_end, state, "micro", {"licence": "Apache-2.0", "version": "7"})


def save_micro(folder: Path, checkpoint: Checkpoint | None = None) -> Path:
    """Save a micro checkpoint and return its folder."""
    save_checkpoint(folder, checkpoint or micro_checkpoint())
    return folder


def signals(rates_hz: Sequence[int] = (8000, 16_000), seconds: float = 12.0) -> list[Signal]:
    """Return one signal for each rate: tones that move through noise, so that no two windows are alike."""
    found = []
    for number, rate_hz in enumerate(rates_hz):
        time_s = np.arange(round(seconds * rate_hz)) / rate_hz
        noise = np.random.default_rng(number).standard_normal(len(time_s))
        tones = np.sin(2 * np.pi * (100 + 60 * time_s) * time_s) * np.exp(np.sin(time_s))
        found.append(Signal(f"micro-{number}.wav", (tones + 0.1 * noise).astype(np.float32), rate_hz))
    return found


def node_kinds(model: onnx.ModelProto) -> dict[str, int]:
    """Count the nodes of each kind in an exported graph."""
    names = [node.op_type for node in model.graph.node]
    return {name: names.count(name) for name in set(names)}
