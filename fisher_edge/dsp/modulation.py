"""How the level of each sub-band swells and fades: the modulation spectrum. Start at `modulation_spectrum`.

Strikes that come in groups, surges and the passing of a loaded part show here, band by band, as lines below 50 Hz.
"""

from itertools import pairwise

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.segment import FRAMES_PER_S
from fisher_edge.dsp.spectra import hann

__all__ = ["BANDS", "modulation_spectrum"]

BANDS = 12
"""Half octaves down from half the rate, the lowest band holding all that is left."""
QUIETEST = 1e-4
"""Lower bound of an amplitude, as a share of the RMS amplitude of all bins."""


def modulation_spectrum(amplitude: FloatArray, top_hz: int, window_ms: int, hop_ms: int) -> FloatArray:
    """Return the amplitude spectrum (BANDS, top_hz * window_ms / 1000) of the log level of each half-octave band.

    `amplitude` (frames, bins) is that of a `Segment`; the level of a band is the mean log amplitude of its bins.
    Stretches of `window_ms`, `hop_ms` apart, are tapered (Hann), transformed and averaged. The first column is the
    lowest frequency above 0; bands that hold no bin are 0, and so is everything of a signal shorter than a frame.
    """
    columns = top_hz * window_ms // 1000
    spectrum = np.zeros((BANDS, columns), np.float32)
    if not amplitude.any():
        return spectrum
    log = _floored_log(amplitude)
    length = max(2, window_ms * FRAMES_PER_S // 1000)
    stride = max(1, hop_ms * FRAMES_PER_S // 1000)
    bands = {band: bins for band, bins in enumerate(_half_octaves(log.shape[1])) if bins.stop > bins.start}
    levels = np.stack([log[:, bins].mean(axis=1) for bins in bands.values()])
    spectrum[list(bands)] = _averaged(levels, length, stride)[:, 1 : columns + 1]
    return spectrum


def _floored_log(amplitude: FloatArray) -> FloatArray:
    """Log of amplitudes (frames, bins) over the largest, bounded from below."""
    relative: FloatArray = amplitude / amplitude.max()
    power = np.einsum("fb,fb->f", relative, relative).mean(dtype=np.float64) / relative.shape[1]
    np.maximum(relative, np.float32(QUIETEST * np.sqrt(power)), out=relative)
    np.log(relative, out=relative)
    return relative


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
