"""Windows of recordings at another rate: band-limited, read with what lies around them, never with a step at an end.

Start at `random_window`. The filter (soxr, 20 bit) passes up to 0.91 of half the target rate and stops at half of it.
"""

import math

import numpy as np
import soxr

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.errors import BadInputError
from fisher_train.recordings.recording import Recording

__all__ = ["random_window", "resample"]

MARGIN = 256
"""Samples at the target rate read on either side of a window, more than half the filter's length."""
TRIES = 16
"""Draws of a window before silence is accepted."""


def random_window(recording: Recording, rate_hz: int, samples: int, rng: np.random.Generator) -> FloatArray:
    """Return a window (n,) of a recording, resampled to `rate_hz`; n < `samples` when the recording is shorter.

    Windows of a constant, as of digital silence, are drawn again a limited number of times. Raises BadInputError when
    the recording's rate is below `rate_hz`: the bands above half of it would be empty.
    """
    if rate_hz > recording.rate_hz:
        raise BadInputError(
            f"{recording.path} has {recording.rate_hz} Hz; at {rate_hz} Hz its upper bands would be empty: "
            "draw a lower rate"
        )
    needed = math.ceil(samples * recording.rate_hz / rate_hz)
    for _ in range(TRIES):
        first = int(rng.integers(max(0, recording.samples - needed) + 1))
        window = _window(recording, rate_hz, first, needed)[:samples]
        if np.ptp(window) > 0:
            break
    return window


def _window(recording: Recording, rate_hz: int, first: int, needed: int) -> FloatArray:
    """Return about `needed` samples of a recording from `first` on, resampled."""
    if rate_hz == recording.rate_hz:
        return recording.read(first, needed)
    margin = math.ceil(MARGIN * recording.rate_hz / rate_hz)
    start = max(0, first - margin)
    around = recording.read(start, first + needed + margin - start)
    before = round((first - start) * rate_hz / recording.rate_hz)
    within = math.ceil(min(needed, recording.samples - first) * rate_hz / recording.rate_hz)
    return resample(around, recording.rate_hz, rate_hz)[before : before + within]


def resample(wave: FloatArray, rate_hz: int, target_hz: int) -> FloatArray:
    """Resample a signal (n,) around its mean: zero before and after it is then no step."""
    centre = np.float32(np.mean(wave, dtype=np.float64))
    resampled: FloatArray = soxr.resample(wave - centre, rate_hz, target_hz, quality="HQ")
    return resampled + centre
