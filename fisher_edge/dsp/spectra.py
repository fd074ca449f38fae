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
    accuracy, and memory stays small at 1 MHz. NumPy's transform is no faster in float32.
    """
    frames = np.lib.stride_tricks.sliding_window_view(wave, n_fft)[::hop]
    window, bins = hann(n_fft), n_fft // 2 + 1
    magnitude = np.empty((len(frames), bins), np.float32)
    low = np.zeros((len(frames), 2), np.complex128)
    chunk = min(MOST_FRAMES, max(1, CHUNK_SAMPLES // n_fft), len(frames))
    tapered, spectrum = np.empty((chunk, n_fft)), np.empty((chunk, bins), np.complex128)
    single = np.empty((chunk, bins), np.complex64)
    for start in range(0, len(frames), chunk):
        part = slice(start, start + chunk)
        count = len(frames[part])
        np.multiply(frames[part], window, out=tapered[:count])
        np.fft.rfft(tapered[:count], out=spectrum[:count])
        low[part, :bins] = spectrum[:count, :2]
        np.copyto(
            single[:count], spectrum[:count], casting="same_kind"
        )  # an absolute value in float64 takes twice as long
        np.abs(single[:count], out=magnitude[part])
    return Spectra(magnitude, low)
