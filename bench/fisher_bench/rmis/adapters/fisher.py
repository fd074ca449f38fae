"""FISHER and this project's encoders: bundles in ONNX Runtime, checkpoints and random weights in PyTorch.

Start at `open_path`. The embedding is the [CLS] of every sub-band, low to high, side by side; the views of a
gateway are not part of it. Signals keep their rate.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import Tensor

from fisher_bench.judge.represent import Embed, embedder, random_encoder
from fisher_bench.rmis.adapters.adapter import Adapter, digest_of
from fisher_bench.rmis.adapters.spec import nearest
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import pieces_of
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.select import open_encoder
from fisher_edge.encoder.windows import embed_window
from fisher_edge.errors import UsageError
from fisher_export.pipeline import bundle_front_end
from fisher_train.checkpoint import build_encoder, load_checkpoint
from fisher_train.encoder import PRESETS, Encoder

__all__ = ["OUR_FRONT_END", "open_path", "open_random"]

OUR_FRONT_END = FrontEnd(band_width=50, top_band="pad", amplitude="standardise")
NOT_WEIGHTS = ("_scale", "_zero_point", "positions", "positions_half")
"""Suffixes of the tensors that a bundle stores besides its weights."""
MANIFEST_NAME = "manifest.json"


def open_path(path: str, variant: str = "") -> Adapter:
    """Open a bundle folder ("default": the one of the package) or a checkpoint.

    The variant `normalise=identity` leaves the normalisation of an official FISHER's spectra out: what the released
    benchmark does to DCASE, IICA and UMGED.
    """
    if path == "default" or (Path(path) / MANIFEST_NAME).is_file():
        return _bundle(path, variant)
    checkpoint = load_checkpoint(path)
    front_end = _front_end(bundle_front_end(checkpoint), path, variant)
    return _torch(checkpoint.name + _suffix(variant), build_encoder(checkpoint), front_end)


def open_random(argument: str) -> Adapter:
    """Open a preset with random weights: PRESET or PRESET:SEED (0)."""
    preset, _, seed = argument.partition(":")
    if preset not in PRESETS:
        raise UsageError(f"no preset is called {preset!r}; {nearest(preset, list(PRESETS))}")
    if seed and not (seed.isascii() and seed.isdigit()):
        raise UsageError(f"seed {seed!r} is not a whole number from 0; write random:{preset}:0")
    encoder = random_encoder(PRESETS[preset], int(seed or 0))
    front_end = replace(OUR_FRONT_END, band_width=encoder.config.band_width)
    return _torch(f"random {preset} {int(seed or 0)}", encoder, front_end)


def _bundle(path: str, variant: str) -> Adapter:
    bundle = load_bundle(path)
    front_end = _front_end(bundle.front_end, path, variant)
    encoder = open_encoder(bundle)
    graph = onnx.load_from_string(bundle.model).graph
    stored = [tensor for tensor in graph.initializer if not tensor.name.endswith(NOT_WEIGHTS)]
    return Adapter(
        name=encoder.name + _suffix(variant),
        digest=_digest(encoder.sha256, front_end),
        parameters=sum(int(np.prod(tensor.dims)) for tensor in stored),
        compute=_concatenated(lambda pieces: embed_window(encoder, front_end, pieces), front_end),
    )


def _torch(name: str, encoder: Encoder, front_end: FrontEnd) -> Adapter:
    return Adapter(
        name=name,
        digest=_digest(_state_digest(encoder.state_dict()), front_end, asdict(encoder.config)),
        parameters=sum(parameter.numel() for parameter in encoder.parameters()),
        compute=_concatenated(embedder(encoder, front_end), front_end),
    )


def _concatenated(embed: Embed, front_end: FrontEnd) -> Callable[[FloatArray, int], FloatArray]:
    """[CLS] of the sub-bands of a window, the mean over its pieces, as one vector."""

    def compute(wave: FloatArray, rate_hz: int) -> FloatArray:
        return embed(pieces_of(front_end, wave, rate_hz, pad_frames=_is_official(front_end))).ravel()

    return compute


def _is_official(front_end: FrontEnd) -> bool:
    """Whether an encoder was trained as the published ones, whose windows RMIS pads with zeros to 1024 frames."""
    return front_end.amplitude == "raw" and front_end.piece_frames == 0


def _front_end(front_end: FrontEnd, path: str, variant: str) -> FrontEnd:
    """Apply the variant of a spec: with a mean of 0 and a deviation of 0.5, (x - mean) / (2 std) is x."""
    if not variant:
        return front_end
    if not _is_official(front_end):
        raise UsageError(f"{variant} is for official weights of FISHER, which {path} does not hold; leave it out")
    return replace(front_end, mean=0.0, std=0.5)


def _suffix(variant: str) -> str:
    return ", not normalised" if variant else ""


def _digest(weights: str, front_end: FrontEnd, config: Mapping[str, Any] | None = None) -> str:
    settings = {"front_end": front_end.to_dict(), "pad_frames": _is_official(front_end), "encoder": config}
    return digest_of(weights, settings)


def _state_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of named weights."""
    total = hashlib.sha256()
    for name, value in sorted(state.items()):
        total.update(f"{name} {tuple(value.shape)}".encode())
        total.update(value.detach().numpy().tobytes())
    return total.hexdigest()
