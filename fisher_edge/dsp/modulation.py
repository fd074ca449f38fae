"""How the level of each sub-band swells and fades: the modulation spectrum. Start at `modulation_spectrum`.

Strikes that come in groups, surges and the passing of a loaded part show here, band by band, as lines below 50 Hz.
"""

from itertools import pairwise

import numpy as np

from fisher_edge.dsp.blocks import FloatArray, Rate
from fisher_edge.dsp.spectra import hann, short_time_spectra

__all__ = ["BANDS", "FRAMES_PER_S", "modulation_spectrum"]

BANDS = 12
"""Half octaves down from half the rate, the lowest band holding all that is left."""
FRAMES_PER_S = 100
FRAME_MS = 25
QUIETEST = 1e-4
"""Lower bound of an amplitude, as a share of the RMS amplitude of all bins."""


def modulation_spectrum(wave: FloatArray, rate_hz: Rate, top_hz: int, window_ms: int, hop_ms: int) -> FloatArray:
    """Return the amplitude spectrum (BANDS, top_hz * window_ms / 1000) of the log level of each half-octave band.

    `wave` (n,) is cut into frames of 25 ms, 100 a second; the level of a band is the mean log amplitude of its bins.
    Stretches of `window_ms`, `hop_ms` apart, are tapered (Hann), transformed and averaged. The first column is the
    lowest frequency above 0; bands that hold no bin are 0, and so is everything of a signal shorter than a frame.
    """
    n_fft, hop = FRAME_MS * rate_hz // 1000, rate_hz // FRAMES_PER_S
    columns = top_hz * window_ms // 1000
    spectrum = np.zeros((BANDS, columns), np.float32)
    if hop < 1 or n_fft < 2 or len(wave) < n_fft:
        return spectrum
    log = _floored_log(short_time_spectra(wave, n_fft, hop).magnitude)
    length = max(2, window_ms * FRAMES_PER_S // 1000)
    stride = max(1, hop_ms * FRAMES_PER_S // 1000)
    bands = {band: bins for band, bins in enumerate(_half_octaves(log.shape[1])) if bins.stop > bins.start}
    levels = np.stack([log[:, bins].mean(axis=1) for bins in bands.values()])
    spectrum[list(bands)] = _averaged(levels, length, stride)[:, 1 : columns + 1]
    return spectrum


def _floored_log(magnitude: FloatArray) -> FloatArray:
    """Log of amplitudes (frames, bins), in their place, bounded from below."""
    power = np.einsum("fb,fb->f", magnitude, magnitude).mean(dtype=np.float64) / magnitude.shape[1]
    np.maximum(magnitude, np.float32(QUIETEST * np.sqrt(power)), out=magnitude)
    return np.log(magnitude, out=magnitude)


def _half_octaves(bins: int) -> list[slice]:
    """Bins of every band, from the highest band down."""
    edges = [round((bins - 1) * 2 ** (-band / 2)) + 1 for band in range(BANDS)] + [1]
    return [slice(low, high) for high, low in pairwise(edges)]


def _averaged(levels: FloatArray, length: int, stride: int) -> FloatArray:
    """Mean amplitude spectra (bands, bins) of stretches of levels (bands, frames), each without its mean."""
    stretch = min(length, levels.shape[1])
    parts = np.lib.stride_tricks.sliding_window_view(levels, stretch, axis=1)[:, ::stride]
    centred = (parts - parts.mean(axis=2, keepdims=True)) * hann(stretch).astype(np.float32)
    mean: FloatArray = np.abs(np.fft.rfft(centred, length)).mean(axis=1).astype(np.float32)
    return mean
