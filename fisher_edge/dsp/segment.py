"""A stretch of one channel's signal and the transforms that its views and checks share. See `Segment`."""

from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray, Rate
from fisher_edge.dsp.spectra import short_time_spectra

__all__ = ["FAINTEST", "FRAMES_PER_S", "FRAME_MS", "Segment", "fast_length"]

FAINTEST = 1e-6
"""Smallest signal relative to its offset: below it is rounding."""
FRAME_MS = 25
FRAMES_PER_S = 100


class Segment:
    """Finite samples (n,) at one rate. Each transform is computed once, when it is first asked for.

    `amplitude` may be given where it is known already, as that of a piece is.
    """

    def __init__(self, samples: FloatArray, rate_hz: Rate, amplitude: FloatArray | None = None) -> None:
        self.samples = samples
        self.rate_hz = rate_hz
        if amplitude is not None:
            self.amplitude = amplitude

    @cached_property
    def amplitude(self) -> FloatArray:
        """Amplitude (frames, bins) of frames of 25 ms, 100 a second, mean removed; too few samples have no frame."""
        n_fft, hop = FRAME_MS * self.rate_hz // 1000, self.rate_hz // FRAMES_PER_S
        if hop < 1 or n_fft < 2 or len(self.samples) < n_fft:
            return np.zeros((0, 1), np.float32)
        return short_time_spectra(self.samples - np.mean(self.samples, dtype=np.float64), n_fft, hop).magnitude

    @cached_property
    def scaled(self) -> FloatArray | None:
        """The samples without their mean and with a peak of 1; None when they are constant.

        A few samples are left out at the end (3 % at most of a thousand or more), so that the length has small factors.
        """
        kept = self.samples[: fast_length(len(self.samples))]
        mean = np.mean(kept, dtype=np.float64)
        scaled = np.empty(len(kept), np.float32)
        np.subtract(kept, mean, out=scaled, dtype=np.float64, casting="same_kind")
        largest = max(float(scaled.max()), -float(scaled.min()))
        if largest <= FAINTEST * (largest + abs(float(mean))):
            return None
        scaled /= np.float32(largest)
        return scaled

    @cached_property
    def spectrum(self) -> npt.NDArray[np.complex64] | None:
        """Fourier transform (n // 2 + 1,) of `scaled`, without a taper; None when the samples are constant."""
        if self.scaled is None:
            return None
        return np.fft.rfft(self.scaled)  # type: ignore[return-value]  # NumPy's annotation knows no single precision


@lru_cache(maxsize=64)
def fast_length(samples: int) -> int:
    """Largest product of 2, 3, 5 and 7 up to `samples`: a prime length costs a transform several times as much."""
    for length in range(samples, 1, -1):
        rest = length
        for factor in (2, 3, 5, 7):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
    return samples
