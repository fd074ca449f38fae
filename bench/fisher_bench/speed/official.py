"""The code path of the published model in eager PyTorch: what a user would run without this project.

The front-end is `torch.stft`, the encoder computes every token of every block, all bands in one batch. The
arithmetic is the specification's, so its embeddings equal ours and only the time differs.
"""

import numpy as np
import torch
from torch import Tensor

from fisher_edge.dsp.blocks import FloatArray, Rate
from fisher_edge.dsp.frontend import LOG_FLOOR, MIN_TOP_BINS, STANDARD_DEVIATION, FrontEnd
from fisher_edge.dsp.grid import stretches
from fisher_train.encoder import Encoder

__all__ = ["embed_officially"]


@torch.inference_mode()
def embed_officially(encoder: Encoder, front_end: FrontEnd, wave: FloatArray, rate_hz: Rate) -> FloatArray:
    """Embed a signal (n,): (bands, dim)."""
    signal = torch.from_numpy(wave)
    windows = [_sub_bands(signal[part], front_end, rate_hz) for part in stretches(front_end, len(wave), rate_hz)]
    pieces = torch.from_numpy(np.concatenate([front_end.pieces(bands.numpy()) for bands in windows], axis=1))
    tokens: Tensor = encoder.modality_encoders["IMAGE"](pieces.flatten(0, 1))
    for block in encoder.blocks:
        tokens = block(tokens)
    embedding: FloatArray = tokens[:, 0].view(*pieces.shape[:2], -1).mean(1).float().numpy()
    return embedding


def _sub_bands(wave: Tensor, front_end: FrontEnd, rate_hz: Rate) -> Tensor:
    """Log-STFT, normalised and cut: (bands, frames, band_width)."""
    wave = wave - wave.mean()
    if front_end.amplitude == "standardise":
        wave = wave * (STANDARD_DEVIATION / wave.std(correction=0))
    n_fft = front_end.n_fft(rate_hz)
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(wave, n_fft, front_end.hop(rate_hz), window=window, center=False, return_complex=True)
    log = torch.log(spectrum.abs() + LOG_FLOOR).T[: front_end.max_frames]
    spec = (log - front_end.mean) / (2 * front_end.std)
    width, bins = front_end.band_width, spec.shape[1]
    whole, rest = divmod(bins, width)
    if not whole or (front_end.top_band == "pad" and rest >= MIN_TOP_BINS):
        spec = torch.nn.functional.pad(spec, (0, width - rest))
    elif front_end.top_band == "overlap" and rest >= MIN_TOP_BINS:
        spec = torch.cat([spec[:, : whole * width], spec[:, -width:]], dim=1)
    bands = spec.shape[1] // width
    return spec[:, : bands * width].reshape(len(spec), bands, width).transpose(0, 1).contiguous()
