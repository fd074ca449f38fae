"""Plain measures of a signal: level, peak and shape of its distribution, useful before anything is learnt.

They are kept as sums that combine exactly: the measures of a window are those of its pieces, added up. Source of the
formulas: Pébay, Formulas for robust, one-pass parallel computation of covariances and arbitrary-order statistical
moments, SAND2008-6212, equations 2.1 and 3.1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from fisher_edge.dsp.blocks import FloatArray

__all__ = ["Measures"]

# Samples at a time: in float64 they stay in the cache, and too few for a library to start threads.
CHUNK = 8192


@dataclass(frozen=True)
class Measures:
    """Number of samples, their mean, sums of powers 2 to 4 of their deviations from it, lowest and highest."""

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0
    m3: float = 0.0
    m4: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    @classmethod
    def of(cls, samples: FloatArray) -> "Measures":
        """Measure samples (n,), finite ones; none at all is the neutral element."""
        return cls.combined([_of_chunk(samples[start : start + CHUNK]) for start in range(0, len(samples), CHUNK)])

    @classmethod
    def combined(cls, parts: "Sequence[Measures]") -> "Measures":
        """Return the measures of all samples of the parts together."""
        return reduce(_added, parts, cls())

    @property
    def rms(self) -> float:
        """Root mean square in the unit of the channel, mean removed: the standard deviation."""
        return math.sqrt(self.m2 / self.count) if self.count else 0.0

    @property
    def peak(self) -> float:
        """Largest distance of a sample from the mean."""
        return max(self.high - self.mean, self.mean - self.low) if self.count else 0.0

    @property
    def crest(self) -> float:
        """Peak over RMS; 0 for a flat line."""
        return self.peak / self.rms if self.m2 > 0 else 0.0

    @property
    def kurtosis(self) -> float:
        """Fourth moment over the square of the second: 3 for Gaussian noise; 0 for a flat line."""
        return self.count * self.m4 / self.m2**2 if self.m2**2 > 0 else 0.0

    @property
    def log_rms(self) -> float:
        """Natural log of the RMS: the level, in the unit of the channel."""
        return math.log(self.rms + 1e-12)


def _of_chunk(samples: FloatArray) -> Measures:
    """Measure so few samples that several passes cost no memory traffic."""
    low, high = float(samples.min()), float(samples.max())
    deviation = samples.astype(np.float64)
    mean = float(deviation.mean())
    deviation -= mean  # exactly 0 for a flat line: so few float32 numbers add up without rounding
    square = deviation * deviation
    return Measures(
        len(samples), mean, float(square.sum()), float(square @ deviation), float(square @ square), low, high
    )


def _added(a: Measures, b: Measures) -> Measures:
    """Combine two; an empty one changes nothing."""
    if not a.count or not b.count:
        return a if a.count else b
    n, d = a.count + b.count, b.mean - a.mean
    ab, difference = a.count * b.count / n, a.count - b.count
    return Measures(
        count=n,
        mean=a.mean + d * b.count / n,
        m2=a.m2 + b.m2 + d**2 * ab,
        m3=a.m3 + b.m3 + d**3 * ab * difference / n + 3 * d * (a.count * b.m2 - b.count * a.m2) / n,
        m4=a.m4
        + b.m4
        + d**4 * ab * (a.count**2 - a.count * b.count + b.count**2) / n**2
        + 6 * d**2 * (a.count**2 * b.m2 + b.count**2 * a.m2) / n**2
        + 4 * d * (a.count * b.m3 - b.count * a.m3) / n,
        low=min(a.low, b.low),
        high=max(a.high, b.high),
    )
