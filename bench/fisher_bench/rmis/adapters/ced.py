"""CED (arXiv 2308.11957), a transformer distilled from ensembles of audio taggers. Start at `open_adapter`."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchaudio.transforms import AmplitudeToDB, MelSpectrogram
from transformers import ViTConfig
from transformers.models.vit.modeling_vit import ViTLayer

from fisher_bench.rmis.adapters.adapter import Adapter, digest_of, file_digest
from fisher_bench.rmis.adapters.mel import RATE_HZ, RESAMPLING, samples_at_16k
from fisher_bench.rmis.adapters.vit import NORM_EPS, vit_config, vit_names
from fisher_bench.rmis.adapters.weights import Origin, count_parameters, fill, read_weights, state_of
from fisher_edge.dsp.blocks import FloatArray

__all__ = ["Ced", "open_adapter"]

ORIGIN = Origin("CED", "audiotransformer_base_mAP_4999.pt, github.com/RicherMans/CED")
N_FFT, HOP, MEL_BANDS, TOP_DB = 512, 160, 64, 120
PATCH = 16
LONGEST_FRAMES = 1012
"""For which there are positions (in whole patches)."""


class Ced(nn.Module):
    """Mel spectra (64, frames) in dB to the mean of the patches (dim,); frames past the last position are not seen."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        dim = config.hidden_size
        self.init_bn = nn.BatchNorm2d(MEL_BANDS)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, dim, PATCH, PATCH)})
        self.time_pos_embed = nn.Parameter(torch.empty(1, dim, 1, LONGEST_FRAMES // PATCH))
        self.freq_pos_embed = nn.Parameter(torch.empty(1, dim, MEL_BANDS // PATCH, 1))
        self.layers = nn.ModuleList(ViTLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(dim, NORM_EPS)

    def forward(self, mel: Tensor) -> Tensor:
        """Normalise every mel band, cut into patches, add both positions, transform, average."""
        normalised = self.init_bn(mel[None, :, None, :LONGEST_FRAMES])  # bands as channels: (1, 64, 1, frames)
        patches = self.patch_embed["proj"](normalised.transpose(1, 2))  # (1, dim, 4, n_time)
        patches = patches + self.time_pos_embed[..., : patches.shape[3]] + self.freq_pos_embed
        tokens = patches.flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens = layer(tokens)
        mean: Tensor = self.norm(tokens)[0].mean(0)
        return mean


def open_adapter(argument: str) -> Adapter:
    """Open the published weights (.pt, or .safetensors as published for transformers): mean of the patches, (768,)."""
    path = Path(argument)
    found = vit_names(state_of(read_weights(path, ORIGIN), path, ORIGIN, "time_pos_embed"))
    state = {key.replace("init_bn.1.", "init_bn."): value for key, value in found.items()}
    with torch.device("meta"):
        model = Ced(vit_config(state, path, ORIGIN))
    fill(model, state, path, ORIGIN)
    to_mel = _mel_spectrum()

    @torch.inference_mode()
    def compute(wave: FloatArray, rate_hz: int) -> FloatArray:
        embedding: FloatArray = model(to_mel(samples_at_16k(wave, rate_hz))).numpy()
        return embedding

    digest = digest_of(file_digest(path), {"model": "CED", **RESAMPLING})
    return Adapter("CED", digest, count_parameters(model), compute)


def _mel_spectrum() -> nn.Module:
    """Samples at 16 kHz to the power of 64 mel bands (64, frames) in dB, at most 120 dB below the largest."""
    mel = MelSpectrogram(RATE_HZ, n_fft=N_FFT, hop_length=HOP, f_min=0, f_max=RATE_HZ / 2, n_mels=MEL_BANDS)
    return nn.Sequential(mel, AmplitudeToDB(top_db=TOP_DB))
