"""DaSheng (arXiv 2406.06992), in its authors' package. Start at `open_adapter`."""

from pathlib import Path

import torch
from dasheng.pretrained.pretrained import Dasheng
from torch import nn

from fisher_bench.rmis.adapters.adapter import Adapter, digest_of, file_digest
from fisher_bench.rmis.adapters.mel import RESAMPLING, samples_at_16k
from fisher_bench.rmis.adapters.weights import Origin, count_parameters, read_weights, state_of
from fisher_edge.dsp.blocks import FloatArray

__all__ = ["open_adapter"]

ORIGIN = Origin("DaSheng", "dasheng_base.pt, zenodo.org/records/11511780")
ANCHOR = "time_pos_embed"
HEADS = {1280: 16}
"""By width, where heads do not have 64 numbers (0.6B)."""
HEAD_DIM = 64


def open_adapter(argument: str) -> Adapter:
    """Open the published weights: mean of the outputs (one every 40 ms), (768,)."""
    path = Path(argument)
    model = _model(path)

    @torch.inference_mode()
    def compute(wave: FloatArray, rate_hz: int) -> FloatArray:
        embedding: FloatArray = model(samples_at_16k(wave, rate_hz)[None])[0].mean(0).numpy()
        return embedding

    digest = digest_of(file_digest(path), {"model": "DaSheng", **RESAMPLING})
    return Adapter("DaSheng", digest, count_parameters(model), compute)


def _model(path: Path) -> nn.Module:
    """Build the network from the settings and weights of a file; sizes are those of the weights."""
    content = read_weights(path, ORIGIN)
    state = state_of(content, path, ORIGIN, ANCHOR)
    settings = content.get("config")
    if not isinstance(settings, dict):
        raise ORIGIN.refuse(path, "has no settings 'config'")
    if not all(bool(torch.isfinite(value).all()) for value in state.values()):
        raise ORIGIN.refuse(path, "has values that are not finite")
    depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    try:
        dim = state[ANCHOR].shape[1]
        heads = HEADS.get(dim, dim // HEAD_DIM)
        model: nn.Module = Dasheng(**{**settings, "embed_dim": dim, "depth": depth, "num_heads": heads})
        model.load_state_dict(state)
    except Exception as error:  # settings of another model fail in the most various places
        raise ORIGIN.misfit(path, error) from error
    return model.eval()
