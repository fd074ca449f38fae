"""BEATs (arXiv 2212.09058), in the implementation of speechbrain. Start at `open_adapter`."""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from speechbrain.lobes.models.beats import BEATs
from speechbrain.utils.importutils import LazyModule
from torch import Tensor

from fisher_bench.rmis.adapters.adapter import Adapter, digest_of, file_digest
from fisher_bench.rmis.adapters.mel import RESAMPLING, samples_at_16k
from fisher_bench.rmis.adapters.weights import Origin, count_parameters, read_weights, state_of
from fisher_edge.dsp.blocks import FloatArray

__all__ = ["open_adapter"]

for _name in [name for name, module in sys.modules.items() if isinstance(module, LazyModule)]:
    del sys.modules[
        _name
    ]  # speechbrain's old names: whoever walks over all modules, as inspect does, would import them

ORIGIN = Origin("BEATs", "BEATs_iter3.pt, github.com/microsoft/unilm/tree/master/beats")


def open_adapter(argument: str) -> Adapter:
    """Open the published weights: mean of the patches, (768,); a wave of 1 is full scale."""
    path = Path(argument)
    model = _model(path)

    @torch.inference_mode()
    def compute(wave: FloatArray, rate_hz: int) -> FloatArray:
        patches = model(samples_at_16k(wave, rate_hz)[None], torch.ones(1))[0]
        embedding: FloatArray = patches[0].mean(0).numpy()
        return embedding

    digest = digest_of(file_digest(path), {"model": "BEATs", **RESAMPLING})
    return Adapter("BEATs", digest, count_parameters(model), compute)


def _model(path: Path) -> Any:
    """Build the network from the settings and weights of a file."""
    content = read_weights(path, ORIGIN)
    state = state_of(content, path, ORIGIN, "patch_embedding.weight")
    if not isinstance(content.get("cfg"), dict):
        raise ORIGIN.refuse(path, "has no settings 'cfg'")
    if not all(bool(torch.isfinite(value).all()) for value in state.values()):
        raise ORIGIN.refuse(path, "has values that are not finite")
    try:
        model = _shaped(content["cfg"], state)
        model.load_state_dict(state)
    except Exception as error:  # settings of another model fail in the most various places
        raise ORIGIN.misfit(path, error) from error
    return model.eval()


def _shaped(settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> Any:
    """Build the network, its weights all zero, which takes a file: a small one, as equal numbers are stored once.

    The published file itself is not given to speechbrain: it would be read a second time, and onto the device that it
    was saved from.
    """
    zeros = {name: torch.zeros(()).expand(value.shape) for name, value in state.items()}
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"cfg": dict(settings), "model": zeros}, Path(folder, "beats.pt"))
        return BEATs(ckp_path=str(Path(folder, "beats.pt")), freeze=True, output_all_hiddens=False)
