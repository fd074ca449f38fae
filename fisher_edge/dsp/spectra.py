"""Amplitude spectra of short frames, the first step of every representation. Start at `short_time_spectra`."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray

__all__ = ["Spectra", "hann", "short_time_spectra"]

# Samples transformed at a time, in whole frames: they fit the cache, and the memory is reused.
CHUNK_SAMPLES = 32_768
MOST_FRAMES = 64

Complex = npt.NDArray[np.complex128]


@dataclass(frozen=True, eq=False)
class Spectra:
    """Amplitude spectra of frames before centring: `magnitude` (frames, bins), `low` (frames, 2) complex.

    A periodic Hann window has a spectrum in bins 0 and 1 only, so a constant that is subtracted later
    changes nothing but these two: they are kept complex, and frames can be centred after the fact, exactly.
    """

    magnitude: FloatArray
    low: Complex

    def centred(self, mean: float, n_fft: int) -> FloatArray:
        """Return the amplitude (frames, bins) as if `mean` had been subtracted from every sample."""
        magnitude = self.magnitude.copy()
        low = self.low - mean * np.fft.rfft(hann(n_fft))[:2]
        magnitude[:, :2] = np.abs(low)[:, : magnitude.shape[1]]
        return magnitude


@lru_cache(maxsize=64)
def hann(n: int) -> npt.NDArray[np.float64]:
    """Periodic Hann window of n samples, read-only: 0.5 - 0.5 cos(2 pi k / n)."""
    window: npt.NDArray[np.float64] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    window.flags.writeable = False
    return window


def short_time_spectra(wave: npt.NDArray[np.floating], n_fft: int, hop: int) -> Spectra:
    """Transform every whole frame of a signal (n,), without centring or scaling.

    The transform runs in float64 over a few frames at a time: a constant far above the signal costs no
    accuracy, and memory stays small at 1 MHz.
    """
    frames = np.lib.stride_tricks.sliding_window_view(wave, n_fft)[::hop]
    window = hann(n_fft)
    magnitude = np.empty((len(frames), n_fft // 2 + 1), np.float32)
    low = np.zeros((len(frames), 2), np.complex128)
    chunk = min(MOST_FRAMES, max(1, CHUNK_SAMPLES // n_fft))
    for start in range(0, len(frames), chunk):
        part = slice(start, start + chunk)
        spectrum = np.fft.rfft(frames[part] * window)
        magnitude[part] = np.abs(spectrum)
        low[part, : spectrum.shape[1]] = spectrum[:, :2]
    return Spectra(magnitude, low)
