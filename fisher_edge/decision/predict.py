"""What the next recording will show, predicted from the few that were enrolled. Start at `predict`.

The unit of evidence is the take (a recording, or a block of a live enrollment): its windows overlap and resemble each
other, takes differ. Few takes say little about their spread, so it is combined with what is usual in other machines,
and the prediction has the tails of a t distribution with as many degrees of freedom as both are worth together.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["Prediction", "Usual", "predict", "student_quantile", "student_tail", "with_more"]

Doubles = npt.NDArray[np.float64]
# A take is odd when its mean exceeds the median of all by so many robust standard deviations.
ODD = 4.0
FEWEST_FOR_ODD = 4
ROBUST = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
FRACTION_STEPS = 200
BISECTIONS = 60


@dataclass(frozen=True)
class Usual:
    """Spread between takes that is usual in other machines, and how many takes this knowledge is worth."""

    sd: float
    takes: float


@dataclass(frozen=True)
class Prediction:
    """Distribution of a quantity of the next take: a t distribution of `freedom` degrees around `mean`.

    `sd` is its scale, the uncertainty of the mean included; `takes` is how many it was learnt from.
    """

    mean: float
    sd: float
    freedom: float
    takes: int

    def limit(self, probability: float) -> float:
        """Value that the next take exceeds with this probability."""
        return self.mean + self.sd * student_quantile(probability, self.freedom)

    def tail(self, value: float) -> float:
        """Probability that the next take exceeds a value."""
        return student_tail((value - self.mean) / self.sd, self.freedom)


def predict(values: Doubles, take: npt.NDArray[np.int64], usual: Usual) -> tuple[Prediction, tuple[int, ...]]:
    """Predict the next take from the values (n,) of windows and whose they are (n,); also return the odd takes.

    An odd take is left out of mean and spread: it says nothing about the others.
    """
    takes = np.unique(take)
    means = np.array([values[take == number].mean() for number in takes])
    odd = _odd(means, usual.sd)
    kept = means[~odd]
    within = float(np.mean([values[take == number].var() for number in takes[~odd]]))
    between = float(kept.var(ddof=1)) if len(kept) > 1 else 0.0
    prediction = pooled(float(kept.mean()), between + within, len(kept) - 1, len(kept), usual)
    return prediction, tuple(int(number) for number in takes[odd])


def pooled(mean: float, variance: float, freedom: int, takes: int, usual: Usual) -> Prediction:
    """Combine a variance between takes of so many degrees of freedom with what is usual."""
    together = usual.takes + freedom
    sd = math.sqrt((usual.takes * usual.sd**2 + freedom * variance) / together)
    return Prediction(mean, sd * math.sqrt(1 + 1 / takes), together, takes)


def with_more(prediction: Prediction, takes: int, freedom: int, usual: Usual) -> Prediction:
    """Prediction from so many further takes, worth so many degrees of freedom, that spread as those so far do."""
    known = prediction.freedom - usual.takes
    squares = prediction.freedom * prediction.sd**2 / (1 + 1 / prediction.takes) - usual.takes * usual.sd**2
    variance = squares / known if known > 0 else usual.sd**2
    return pooled(prediction.mean, variance, round(known) + freedom, prediction.takes + takes, usual)


def student_tail(t: float, freedom: float) -> float:
    """Probability that a t variable of so many degrees of freedom exceeds t."""
    half = 0.5 * _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))
    return half if t >= 0 else 1 - half


@lru_cache(maxsize=4096)
def student_quantile(probability: float, freedom: float) -> float:
    """Value that a t variable of so many degrees of freedom exceeds with this probability, 0 < p < 1."""
    if probability > 0.5:
        return -student_quantile(1 - probability, freedom)
    low, high = 0.0, 1.0
    while student_tail(high, freedom) > probability:
        low, high = high, 2 * high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if student_tail(middle, freedom) > probability else (low, middle)
    return (low + high) / 2


def _odd(means: Doubles, usual_sd: float) -> npt.NDArray[np.bool_]:
    """Which takes lie far above the others."""
    if len(means) < FEWEST_FOR_ODD:
        return np.zeros(len(means), np.bool_)
    median = float(np.median(means))
    sd = max(ROBUST * float(np.median(np.abs(means - median))), usual_sd)
    return np.asarray(means > median + ODD * sd)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function by its continued fraction (modified Lentz; DLMF 8.17.22)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300
    fraction, c, d = 1.0, 1.0, 0.0
    for step in _fraction_terms(a, b, x):
        d = 1 / (1 + step * d or tiny)
        c = 1 + step / c or tiny
        fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return math.exp(log_front) / (a * fraction) if fraction else 0.0


def _fraction_terms(a: float, b: float, x: float) -> Iterator[float]:
    """Numerators of the continued fraction."""
    for m in range(FRACTION_STEPS):
        if m:
            yield m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        yield -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
