"""EAT (arXiv 2401.03497), the predecessor of FISHER's encoder, pre-trained on AudioSet. Start at `open_adapter`.

The network is that of `fisher_train.encoder` with one band of 128 mel bins, and so are the names of its weights.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fisher_bench.rmis.adapters.adapter import Adapter, digest_of, file_digest
from fisher_bench.rmis.adapters.mel import MEL_BANDS, RESAMPLING, kaldi_mel, padded, samples_at_16k
from fisher_bench.rmis.adapters.weights import Origin, count_parameters, fill, read_weights, state_of
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.errors import BadArtifactError
from fisher_train.encoder import Encoder, EncoderConfig

__all__ = ["open_adapter"]

ORIGIN = Origin("EAT", "EAT-base_epoch30 (pre-trained), github.com/cwx-worst-one/EAT")
MEAN, STD = -4.2677393, 4.5689974
FRAMES = 1024
PATCH, HEAD_DIM = 16, 64
IMAGE, CLS = "modality_encoders.IMAGE.", "extra_tokens"
POSITIONS = IMAGE + "fixed_positional_encoder.positions"
HIDDEN = "blocks.0.mlp.fc1.weight"
IMPLEMENTED = {"layer_norm_first": False, "num_extra_tokens": 1, "prenet_depth": 0, "use_alibi_encoder": False}
"""Settings of which the network implements one value."""


def open_adapter(argument: str, variant: str = "") -> Adapter:
    """Open the published weights (.pt, or .safetensors for transformers): [CLS], (768,); 1024 frames are seen at most.

    The released benchmark shows the network as many frames as there are; with `features=authors` they are filled up
    to 1024 first, as in the authors' script.
    """
    path = Path(argument)
    content = read_weights(path, ORIGIN)
    _check_settings(content, path)
    state = _state(content, path)
    with torch.device("meta"):
        encoder = Encoder(_config(state, path))
    fill(encoder, state, path, ORIGIN)

    @torch.inference_mode()
    def compute(wave: FloatArray, rate_hz: int) -> FloatArray:
        mel = kaldi_mel(samples_at_16k(wave, rate_hz), window="hanning", htk_compat=True)
        mel = padded(mel, FRAMES if variant else min(FRAMES, len(mel)))
        embedding: FloatArray = encoder((mel[None] - MEAN) / (2 * STD))[0].numpy()
        return embedding

    name = "EAT, padded" if variant else "EAT"
    digest = digest_of(file_digest(path), {"model": name, **RESAMPLING})
    return Adapter(name, digest, count_parameters(encoder), compute)


def _state(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Weights under the names of fairseq's file, also of the file for transformers, which has shorter ones."""
    if path.suffix != ".safetensors":
        return state_of(content, path, ORIGIN, IMAGE + CLS)
    state = state_of(content, path, ORIGIN, CLS)
    renamed = {key.replace("pre_norm.", "context_encoder.norm."): value for key, value in state.items()}
    return {key if key.startswith("blocks.") else IMAGE + key: value for key, value in renamed.items()}


def _config(state: Mapping[str, Tensor], path: Path) -> EncoderConfig:
    """Shape of the network from its weights; patches are in time-major order, heads have 64 numbers."""
    hidden, positions = state.get(HIDDEN), state.get(POSITIONS)
    if hidden is None or hidden.ndim != 2 or not hidden.numel() or positions is None or positions.ndim != 3:
        raise ORIGIN.refuse(path, f"has no weights {HIDDEN} or {POSITIONS}")
    columns = MEL_BANDS // PATCH
    try:
        return EncoderConfig(
            embed_dim=hidden.shape[1],
            depth=len({key.split(".")[1] for key in state if key.startswith("blocks.")}),
            num_heads=hidden.shape[1] // HEAD_DIM,
            band_width=MEL_BANDS,
            mlp_ratio=hidden.shape[0] / hidden.shape[1],
            patch_size=PATCH,
            max_length=positions.shape[1] // columns,
            max_freq=columns,
            flatten="freq",
        )
    except BadArtifactError as error:
        raise ORIGIN.refuse(path, f"has weights of a shape no encoder has ({error})") from error


def _check_settings(content: Mapping[str, Any], path: Path) -> None:
    """Refuse settings of another network than the published one, where the file has any."""
    settings: Any = content.get("cfg")
    model = settings.get("model") if isinstance(settings, Mapping) else None
    model = model if isinstance(model, Mapping) else {}
    modalities = model.get("modalities")
    image = modalities.get("image") if isinstance(modalities, Mapping) else None
    for part in (model, image if isinstance(image, Mapping) else {}):
        for name, value in IMPLEMENTED.items():
            if part.get(name, value) != value:
                raise ORIGIN.refuse(path, f"asks for {name}={part[name]!r}, which the base model does not have")
