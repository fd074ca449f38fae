"""Vision transformers with the weight names of timm, in transformers' layers. Start at `vit_config` and `vit_names`.

AudioMAE and CED publish timm's names: queries, keys and values in one matrix, layers in `blocks`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from transformers import ViTConfig

from fisher_bench.rmis.adapters.weights import Origin

__all__ = ["vit_config", "vit_names"]

HEAD_DIM = 64
NORM_EPS = 1e-6
FIRST_HIDDEN = "layers.0.mlp.fc1.weight"
LAYER = re.compile(r"layers\.(\d+)\..+")
BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")
PARTS = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.o_proj",
    "norm2": "layernorm_after",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
QKV = ("attention.q_proj", "attention.k_proj", "attention.v_proj")


def vit_config(state: Mapping[str, Tensor], path: Path, origin: Origin) -> ViTConfig:
    """Shape of a transformer from its renamed weights: heads have 64 numbers, norms an epsilon of 1e-6."""
    layers = {int(match[1]) for match in map(LAYER.fullmatch, state) if match}
    hidden = state.get(FIRST_HIDDEN)
    is_matrix = hidden is not None and hidden.ndim == 2 and hidden.numel() > 0
    if hidden is None or not is_matrix or hidden.shape[1] % HEAD_DIM or layers != set(range(len(layers))):
        raise origin.refuse(path, f"holds no transformer blocks with heads of {HEAD_DIM} numbers")
    config = ViTConfig(
        hidden_size=hidden.shape[1],
        intermediate_size=hidden.shape[0],
        num_hidden_layers=len(layers),
        num_attention_heads=hidden.shape[1] // HEAD_DIM,
        layer_norm_eps=NORM_EPS,
        image_size=(1024, 128),
        patch_size=16,
        num_channels=1,
    )
    config._attn_implementation = "sdpa"  # noqa: SLF001  # the model sets this, a single layer does not
    return config


def vit_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of the blocks from timm's names to those of transformers; others keep theirs."""
    renamed = {}
    for key, value in state.items():
        match = BLOCK.fullmatch(key)
        if match is None:
            renamed[key] = value
        elif match[2] == "attn.qkv" and value.ndim:
            for name, part in zip(QKV, value.chunk(3), strict=False):  # fewer rows than three: weights are lacking
                renamed[f"layers.{match[1]}.{name}.{match[3]}"] = part
        elif match[2] in PARTS:
            renamed[f"layers.{match[1]}.{PARTS[match[2]]}.{match[3]}"] = value
    return renamed
