"""Thresholds in plain terms: from held-out normal distances to expected false alarms per day.

Within the sample the p-value of a distance is conformal; beyond it the tail is a generalised Pareto
distribution, fitted to the upper part by probability-weighted moments (Hosking and Wallis, 1987).
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

__all__ = ["MIN_LEVEL_STD", "Tail", "fit_tail", "level_threshold", "probability"]

TAIL_SHARE = 0.25
MIN_TAIL = 5
MIN_SHAPE_COUNT = 20
"""Fewer excesses have a mean but no shape: they are taken as exponential, their mean a standard error larger."""
MAX_SHAPE = 0.5
SMALLEST_P = 1e-9
"""No sample of this size supports a smaller probability."""
# Smallest spread of the level (1 %) that is believed: steadier enrollments say little about tomorrow.
MIN_LEVEL_STD = 0.01
DAY_S = 86_400
SMALLEST_SCALE = 1e-5
"""About the distance between two int8 embeddings of one window."""
SMALLEST_SHARE = 0.05
"""The tail is at least this share of its own start wide: a handful of near-equal distances proves no cliff."""


@dataclass(frozen=True)
class Tail:
    """Distribution of the distance of normal windows: the held-out sample and what lies beyond it."""

    sample: tuple[float, ...]
    """Held-out distances in ascending order."""
    start: float
    scale: float
    shape: float

    def p_value(self, distance: float) -> float:
        """Probability that a normal window is at least this far: conformal within the sample, fitted beyond it."""
        count = len(self.sample)
        rank = count - int(np.searchsorted(self.sample, distance, side="left"))
        conformal = (rank + 1) / (count + 1)
        if distance <= self.sample[-1]:
            return conformal
        beyond = self._survival((distance - self.start) / self.scale)
        return max(SMALLEST_P, min(conformal, (self._tail_count() + 1) / (count + 1) * beyond))

    def distance_at(self, p_value: float) -> float:
        """Return the distance that a normal window exceeds with this probability."""
        ratio = (self._tail_count() + 1) / (len(self.sample) + 1) / p_value
        if ratio <= 1:
            return min(self.start, float(np.quantile(self.sample, 1 - p_value)))
        if self.shape < 1e-6:
            return self.start + self.scale * math.log(ratio)
        return float(self.start + self.scale / self.shape * (ratio**self.shape - 1))

    def threshold(self, false_alarms_per_day: float, hop_s: float) -> float:
        """Return the distance that normal windows, one every `hop_s`, exceed so many times a day."""
        return max(SMALLEST_SCALE, self.distance_at(probability(false_alarms_per_day, hop_s)))

    def _survival(self, excess: float) -> float:
        """Share of the tail beyond a scaled excess."""
        if self.shape < 1e-6:
            return math.exp(-excess)
        return float((1 + self.shape * excess) ** (-1 / self.shape))

    def _tail_count(self) -> int:
        """Held-out windows beyond the start of the tail."""
        return sum(distance > self.start for distance in self.sample)


def probability(false_alarms_per_day: float, hop_s: float) -> float:
    """Return the share of windows, one every `hop_s`, that so many a day are, within what can be asked for."""
    return min(0.5, max(SMALLEST_P, false_alarms_per_day * hop_s / DAY_S))


def level_threshold(held_out: npt.ArrayLike, per_day: float, hop_s: float) -> float:
    """Return the deviation of the level (log RMS) that normal windows, one every `hop_s`, exceed so many times a day.

    `held_out` (n,) are deviations of windows that were held out. It is never tighter than a spread of 1 % asks for.
    """
    deviations = NormalDist().inv_cdf(1 - probability(per_day, hop_s) / 2)
    return max(fit_tail(held_out).threshold(per_day, hop_s), deviations * MIN_LEVEL_STD)


def fit_tail(distances: npt.ArrayLike) -> Tail:
    """Fit the upper quarter of held-out normal distances (n,), n >= 1."""
    sample = np.sort(np.asarray(distances, np.float64))
    tail_size = min(len(sample) - 1, max(MIN_TAIL, round(TAIL_SHARE * len(sample))))
    start = float(sample[len(sample) - 1 - tail_size])
    excess = sample[len(sample) - tail_size :] - start
    scale, shape = _pareto(excess) if len(excess) else (0.0, 0.0)
    return Tail(tuple(sample.tolist()), start, max(scale, SMALLEST_SHARE * start, SMALLEST_SCALE), shape)


def _pareto(excess: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Scale and shape of a generalised Pareto by probability-weighted moments, shape within [0, 0.5]."""
    count = len(excess)
    mean = float(excess.mean())
    weights = (count - 1 - np.arange(count)) / max(count - 1, 1)
    weighted = float((weights * excess).mean())
    if count < MIN_SHAPE_COUNT:
        return mean * (1 + 1 / math.sqrt(count)), 0.0
    if mean <= 2 * weighted:
        return mean, 0.0
    shape = min(max(2 - mean / (mean - 2 * weighted), 0.0), MAX_SHAPE)
    return mean * (1 - shape), shape
