"""Plain measures of a window and the checks of its sensor: useful before anything is learnt."""

import math

import numpy as np

from fisher_edge.dsp.blocks import FloatArray

__all__ = ["features", "level_log_rms", "sensor_fault"]

CLIPPED_SHARE = 0.01
"""Share of samples at the extreme value from which a window counts as clipped."""
SAME_VALUE = 1e-4
"""Share of the span within which values count as one: a float tone repeats its values up to rounding only."""
CLIPPED_PILE = 5
"""Times more samples a clipped extreme holds than the value next to it: a coarse sine peaks at 2.4 times."""


def features(samples: FloatArray) -> dict[str, float]:
    """Return RMS and peak (unit of the channel), crest factor and kurtosis of a window (n,), mean removed."""
    centred = samples - np.mean(samples, dtype=np.float64)
    power = float(np.mean(centred**2))
    rms = math.sqrt(power)
    peak = float(np.max(np.abs(centred)))
    return {
        "rms": rms,
        "peak": peak,
        "crest": peak / rms if rms else 0.0,
        "kurtosis": float(np.mean(centred**4)) / power**2 if power else 0.0,
    }


def level_log_rms(samples: FloatArray) -> float:
    """Return the natural log of a window's standard deviation: its level, in the unit of the channel."""
    return math.log(float(np.std(samples, dtype=np.float64)) + 1e-12)


def sensor_fault(samples: FloatArray) -> str | None:
    """Say why the samples of a window (n,) cannot come from a healthy sensor; None when they can."""
    if not np.isfinite(samples).all():
        return f"{np.count_nonzero(~np.isfinite(samples))} samples are not finite (NaN or Inf)"
    low, high = float(samples.min()), float(samples.max())
    if low == high:
        return f"flat line: every sample is {low:g}"
    for extreme, rest in ((low, samples[samples > low]), (high, samples[samples < high])):
        next_to_it = rest.min() if extreme == low else rest.max()
        at_extreme = int(np.count_nonzero(samples == extreme))
        beside = int(np.count_nonzero(np.abs(rest - next_to_it) <= SAME_VALUE * (high - low)))
        if at_extreme > CLIPPED_SHARE * len(samples) and at_extreme > CLIPPED_PILE * beside:
            return f"clipped: {at_extreme / len(samples):.1%} of the samples are at the extreme {extreme:g}"
    return None
