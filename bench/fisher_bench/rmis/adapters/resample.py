"""Resampling for encoders that know one rate only. Start at `resampled`."""

import numpy as np
import soxr

from fisher_edge.dsp.blocks import FloatArray

__all__ = ["QUALITY", "resampled"]

QUALITY = "HQ"
"""soxr's 20 bit filter: passes up to 0.91 of half the lower rate."""


def resampled(wave: FloatArray, rate_hz: int, target_hz: int) -> FloatArray:
    """Bring a signal (n,) to another rate, as float32."""
    if rate_hz == target_hz:
        return wave
    return np.asarray(soxr.resample(wave, rate_hz, target_hz, quality=QUALITY), np.float32)
