"""Checks of the samples of one piece: can they come from a healthy sensor? Start at `signal_fault`."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray, Rate
from fisher_edge.dsp.segment import Segment

__all__ = ["hum_share", "signal_fault"]

LARGEST = 1e20
# A dead sensor leaves the noise of its converter: up to three steps to either side, and one value for luck.
FEW_VALUES = 8
# Samples a value must have on average before few values mean anything: 16 frames at 100 Hz are 17 samples.
SAMPLES_A_VALUE = 8
HEAD = 1024
CONSTANT_SHARE = 0.2
# Share of samples at the extreme value from which a piece counts as clipped.
CLIPPED_SHARE = 0.01
# Share of the span within which values count as one: a float tone repeats its values up to rounding only.
SAME_VALUE = 1e-4
# Times more samples a clipped extreme holds than the value next to it: a coarse sine peaks at 2.4 times.
CLIPPED_PILE = 5
MAINS_HZ = (50, 60)
LINE_BINS = 1.5


def signal_fault(samples: FloatArray, rate_hz: Rate) -> str | None:
    """Say in one line why the samples of a piece (n,) cannot come from a healthy sensor; None when they can."""
    finite = np.isfinite(samples)
    if not finite.all():
        return f"{np.count_nonzero(~finite)} samples are not finite (NaN or Inf)"
    low, high = float(samples.min()), float(samples.max())
    if low == high:
        return f"flat line: every sample is {low:g}"
    largest = max(high, -low)
    if largest > LARGEST:
        return f"a sample of {largest:g} is beyond {LARGEST:g}, which no sensor measures"
    return _few_values(samples) or _constant_stretch(samples, rate_hz) or _clipped(samples, low, high)


def hum_share(segment: Segment) -> float:
    """Return the share (0 to 1) of the power of a segment that lies at 50 or 60 Hz and its harmonics.

    The mains frequency with the larger share counts. Every line is three bins wide, 3 Hz for a piece of a second. An
    open cable picks up little else; a motor's current is hum by nature, so that only a baseline can tell.
    """
    if segment.spectrum is None or segment.scaled is None:
        return 0.0
    power = _tapered_power(segment.spectrum)
    bin_hz = float(segment.rate_hz) / len(segment.scaled)
    total = float(power.sum())
    if not total > 0:
        return 0.0
    return max(float(power[_on_lines(len(power), bin_hz, mains_hz)].sum()) / total for mains_hz in MAINS_HZ)


def _few_values(samples: FloatArray) -> str | None:
    """Find the noise of a converter without a sensor: a handful of values, again and again."""
    most = min(FEW_VALUES, len(samples) // SAMPLES_A_VALUE)
    if len(np.unique(samples[:HEAD])) > most:
        return None
    values = len(np.unique(samples))
    if values > most:
        return None
    return f"dead sensor: {len(samples)} samples take only {values} values, the noise of a converter without a signal"


def _constant_stretch(samples: FloatArray, rate_hz: Rate) -> str | None:
    """Find one value held over a large part of the piece, as a sensor does that has lost its supply for a while.

    Such a stretch covers one of the parts, half as long, that are looked at first.
    """
    part = max(1, int(CONSTANT_SHARE * len(samples) / 2))
    parts = samples[: len(samples) // part * part].reshape(-1, part)
    if not (parts.min(axis=1) == parts.max(axis=1)).any():
        return None
    changes = np.flatnonzero(samples[1:] != samples[:-1]) + 1
    edges = np.concatenate([[0], changes, [len(samples)]])
    lengths = np.diff(edges)
    longest = int(lengths.argmax())
    if lengths[longest] <= CONSTANT_SHARE * len(samples):
        return None
    seconds = float(lengths[longest] / rate_hz)
    return f"signal lost: {lengths[longest]} samples in a row ({seconds:.3g} s) are {samples[edges[longest]]:g}"


def _clipped(samples: FloatArray, low: float, high: float) -> str | None:
    """Find an extreme value that holds more samples than a waveform leaves there."""
    for extreme in (low, high):
        at_extreme = int(np.count_nonzero(samples == np.float32(extreme)))
        if at_extreme <= CLIPPED_SHARE * len(samples):
            continue
        rest = samples[samples != np.float32(extreme)]
        next_to_it = rest.min() if extreme == low else rest.max()
        beside = int(np.count_nonzero(np.abs(rest - next_to_it) <= SAME_VALUE * (high - low)))
        if at_extreme > CLIPPED_PILE * beside:
            return f"clipped: {at_extreme / len(samples):.1%} of the samples are at the extreme {extreme:g}"
    return None


def _tapered_power(spectrum: npt.NDArray[np.complex64]) -> npt.NDArray[np.float32]:
    """Power (bins - 1,) of a signal with a periodic Hann taper, up to half its rate, from its spectrum without one.

    The spectrum of the taper is 1/2 at 0 and -1/4 on either side of it.
    """
    tapered = spectrum[:-1] / 2
    tapered[1:] -= (spectrum[:-2] + spectrum[2:]) / 4
    tapered[0] -= spectrum[1].real / 2
    return tapered.real**2 + tapered.imag**2


@lru_cache(maxsize=64)
def _on_lines(bins: int, bin_hz: float, mains_hz: int) -> npt.NDArray[np.int64]:
    """Bins on a harmonic of the mains, the fundamental included, zero excluded."""
    frequency = np.arange(bins) * bin_hz
    harmonic = np.maximum(np.rint(frequency / mains_hz), 1)
    return np.flatnonzero(np.abs(frequency - harmonic * mains_hz) <= LINE_BINS * bin_hz)
