"""AudioMAE (arXiv 2207.06405), ViT-B on log-mel spectra, pre-trained on AudioSet. Start at `open_adapter`."""

from pathlib import Path

import torch
from torch import nn
from transformers import ViTModel

from fisher_bench.rmis.adapters.adapter import Adapter, digest_of, file_digest
from fisher_bench.rmis.adapters.mel import RESAMPLING, kaldi_mel, padded, samples_at_16k
from fisher_bench.rmis.adapters.vit import NORM_EPS, vit_config, vit_names
from fisher_bench.rmis.adapters.weights import Origin, count_parameters, fill, read_weights, state_of
from fisher_edge.dsp.blocks import FloatArray

__all__ = ["open_adapter"]

ORIGIN = Origin("AudioMAE", "pretrained.pth, github.com/facebookresearch/AudioMAE")
MEAN, STD = -4.2677393, 4.5689974
FRAMES = 1024
NAMES = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}


def open_adapter(argument: str, variant: str = "") -> Adapter:
    """Open the published weights: mean of the patches of 1024 frames, (768,).

    The released benchmark takes the mean before the last norm and puts it through a norm without weights (the
    authors' class for fine-tuning has one there, their file no weights of it). With `features=authors` the patches go
    through the trained last norm first, as in pre-training.
    """
    path = Path(argument)
    state = vit_names(state_of(read_weights(path, ORIGIN), path, ORIGIN, "cls_token"))
    state = {NAMES.get(key, key): value for key, value in state.items()}
    with torch.device("meta"):
        model = ViTModel(vit_config(state, path, ORIGIN), add_pooling_layer=False)
    fill(model, state, path, ORIGIN)
    parameters = count_parameters(model)
    pooled_norm: nn.Module = nn.Identity()
    if not variant:
        pooled_norm = nn.LayerNorm(model.config.hidden_size, NORM_EPS, elementwise_affine=False)
        model.set_submodule("layernorm", nn.Identity())

    @torch.inference_mode()
    def compute(wave: FloatArray, rate_hz: int) -> FloatArray:
        mel = padded(kaldi_mel(samples_at_16k(wave, rate_hz), window="hanning", htk_compat=True), FRAMES)
        tokens = model((mel[None, None] - MEAN) / (2 * STD)).last_hidden_state
        embedding: FloatArray = pooled_norm(tokens[0, 1:].mean(0)).numpy()
        return embedding

    name = "AudioMAE, trained norm" if variant else "AudioMAE"
    return Adapter(name, digest_of(file_digest(path), {"model": name, **RESAMPLING}), parameters, compute)
