"""One audio file to one embedding: windows without overlap, each embedded, and their mean. Start at `embed_clip`.

Source: RMIS (arXiv 2507.16696) as released.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from fisher_bench.rmis.adapters import Adapter
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.errors import BadInputError

__all__ = ["embed_clip", "read_clip", "windows_of"]

LEAST_REMAINDER = 0.05
"""Share of a window that must be left over for one more window, which ends where the signal ends."""


def embed_clip(adapter: Adapter, wave: FloatArray, rate_hz: int, window_s: float) -> FloatArray:
    """Return the mean (dim,) of the embeddings of the windows of a clip (samples,)."""
    vectors = [adapter.embed(window, rate_hz) for window in windows_of(wave, rate_hz, window_s)]
    return np.asarray(np.mean(vectors, axis=0, dtype=np.float64), np.float32)


def windows_of(wave: FloatArray, rate_hz: int, window_s: float) -> Iterator[FloatArray]:
    """Yield the windows of a clip, each without its mean and then, if the clip is shorter, padded with zeros."""
    length = max(1, round(window_s * rate_hz))
    if len(wave) <= length:
        window = np.zeros(length, np.float32)
        window[: len(wave)] = _centred(wave)
        yield window
        return
    whole, rest = divmod(len(wave), length)
    for start in range(0, whole * length, length):
        yield _centred(wave[start : start + length])
    if rest and rest >= math.ceil(LEAST_REMAINDER * length):
        yield _centred(wave[-length:])


def read_clip(path: Path, rate_hz: int) -> FloatArray:
    """Read a file of one channel (samples,), float32. Raises BadInputError when it is damaged or not what it was."""
    try:
        wave, found_hz = soundfile.read(path, dtype="float32")
    except (soundfile.SoundFileError, OSError) as error:
        raise BadInputError(f"{path} cannot be read ({error}); prepare the set again") from None
    if wave.ndim != 1 or not len(wave) or found_hz != rate_hz:
        raise BadInputError(
            f"{path} has shape {wave.shape} at {found_hz} Hz, the index says one channel at {rate_hz} Hz; prepare again"
        )
    clip: FloatArray = wave
    return clip


def _centred(wave: FloatArray) -> FloatArray:
    centred: FloatArray = wave - np.float32(np.mean(wave, dtype=np.float64))
    return centred
