"""The log-mel spectra of other people's encoders, at 16 kHz. Start at `kaldi_mel`."""

import numpy as np
import torch
from torch import Tensor
from torchaudio.compliance import kaldi

from fisher_bench.rmis.adapters.resample import QUALITY, resampled
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.errors import BadInputError

__all__ = ["MEL_BANDS", "RATE_HZ", "RESAMPLING", "kaldi_mel", "padded", "samples_at_16k"]

RATE_HZ = 16_000
MEL_BANDS = 128
RESAMPLING = {"rate_hz": RATE_HZ, "resampling": QUALITY}
"""What every digest of such an encoder contains."""
SHORTEST_SAMPLES = 2_800
"""16 frames of 25 ms, 10 ms apart: one patch."""


def samples_at_16k(wave: FloatArray, rate_hz: int) -> Tensor:
    """Resample a window (samples,) to 16 kHz: (samples,); BadInputError when it is shorter than one patch."""
    samples = resampled(wave, rate_hz, RATE_HZ)
    if len(samples) < SHORTEST_SAMPLES:
        raise BadInputError(
            f"window of {len(wave)} samples at {rate_hz} Hz is shorter than one patch (175 ms); use longer windows"
        )
    return torch.from_numpy(np.ascontiguousarray(samples))


def kaldi_mel(samples: Tensor, *, window: str, htk_compat: bool = False) -> Tensor:
    """128 log-mel bands over frames of 25 ms, 10 ms apart, as Kaldi computes them: (frames, 128)."""
    mel: Tensor = kaldi.fbank(
        samples[None],
        htk_compat=htk_compat,
        num_mel_bins=MEL_BANDS,
        sample_frequency=RATE_HZ,
        window_type=window,
        dither=0.0,
    )
    return mel


def padded(mel: Tensor, frames: int) -> Tensor:
    """Cut (frames, bands) to so many frames or fill up with zeros."""
    return torch.nn.functional.pad(mel[:frames], (0, 0, 0, max(0, frames - len(mel))))
