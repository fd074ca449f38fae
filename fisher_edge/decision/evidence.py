"""Evidence over time: a change counts when it is large at once, or small and lasting. Start at `Tracker.take`.

Residuals (what is left of a window when its nearest enrolled window is taken off) are averaged over spans of time:
chance averages out, a lasting change stays. Each span has a limit that a normal machine exceeds as often as its part of
the false alarms a day allows. The expected number of exceedances is the sum over spans and looks, whatever windows have
to do with each other; only the prediction for one take must hold.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fisher_edge.decision.calibrate import Calibration, Span, score_of
from fisher_edge.decision.judgement import Evidence
from fisher_edge.decision.predict import Prediction

__all__ = ["LOUDEST", "Limits", "Rates", "Tracker", "Unusual", "level_limits", "limits", "promise", "slack"]

Doubles = npt.NDArray[np.float64]

DAY_S = 86_400
LONGEST_S = 3 * DAY_S
SUDDEN_S = 60.0
DRIFT_S = 12 * 3600.0
LOOK_S = 60.0
"""What differs between takes (load, temperature, background) is taken to change no faster than this."""
PARTS = 8
"""A mean over a long span is kept in so many parts."""
RECENT = 3
"""A single window proves nothing: two of the last three must exceed the limit of the shortest span."""
LASTS = 0.5
"""An unfamiliar operating state lasts while the evidence is above this share of the limit of a warning."""
LOUDEST = 1.5
"""Times the limit of a warning beyond which the level of one window counts no more when it is averaged."""
QUANTITIES = 2
"""Shape and level share the false alarms alike."""
INTERVAL = (0.05, 0.95)
DRAWS = 2000
MANY = 10_000
"""Takes that leave nothing to learn."""


@dataclass(frozen=True)
class Rates:
    """False warnings and false alarms a day that are acceptable on a channel, shape and level together."""

    warning_per_day: float = 1.0
    alarm_per_day: float = 0.1


@dataclass(frozen=True)
class Limits:
    """Values of one quantity over one span that count as a warning and as an alarm, above what is normal."""

    normal: float
    warning: float
    alarm: float

    def over(self, value: float) -> tuple[float, float]:
        """Multiples of the warning and of the alarm limit; 0 where the value is not above normal."""
        above = max(0.0, value - self.normal)
        return above / (self.warning - self.normal), above / (self.alarm - self.normal)


@dataclass(frozen=True, eq=False)
class Unusual:
    """What the tracker takes of one window.

    `residual` (bands, dim); `bands` (bands,) and `score` say how unusual it is by itself, `log_ratio` how far (mean log
    ratio of squared distances to normal ones); `state` is the number of the operating state it is judged by, and
    `known` says that the machine is in that state, not only near it.
    """

    residual: Doubles
    bands: Doubles
    score: float
    log_ratio: float
    level: float
    state: int
    known: bool = False


@dataclass(frozen=True)
class Found:
    """Evidence of shape and of level, and whether the change may be an operating state that was not enrolled."""

    shape: Evidence
    level: Evidence
    unfamiliar: bool


class Tracker:
    """Evidence of one channel, window after window; `step_s` is the time from one window to the next."""

    def __init__(self, calibration: Calibration, rates: Rates, step_s: float) -> None:
        self._calibration = calibration
        self._counts = [calibration.windows_now(span, step_s) for span in calibration.spans]
        self._spans = _lengths(calibration, step_s)
        self._rates = rates
        self._step_s = step_s
        self._shape = [self._shape_limits(index) for index in range(len(self._spans))]
        self._level = [limit for _, limit in level_limits(calibration, rates, step_s)]
        self.forget()

    def forget(self) -> None:
        """Start again: the windows so far say nothing about those to come."""
        self._residuals = _Ring(self._counts[-1])
        self._deviations: deque[float] = deque(maxlen=max(RECENT, self._counts[-1]))
        self._recent: deque[Unusual] = deque(maxlen=RECENT)
        self._unfamiliar = False
        self._means = [(_LongMean(windows), _LongMean(windows)) for windows in self._spans[len(self._counts) :]]

    def take(self, window: Unusual) -> Found:
        """Take the next window and return the evidence after it."""
        self._recent.append(window)
        self._residuals.append(self._calibration.spans[0].tamed(window.residual))
        self._deviations.append(self._deviation(window))
        shape, level = self._sudden()
        loudest = LOUDEST * self._level[0].warning
        deviations = np.clip(self._deviations, -loudest, loudest)
        for span, windows in zip(self._calibration.spans[1:], self._counts[1:], strict=True):
            full = len(self._residuals) >= windows
            mean = self._residuals.mean(windows) if full else None
            shape.append(None if mean is None else float(score_of(span.unusual(mean))))
            level.append(abs(float(np.mean(deviations[-windows:]))) if full else None)
        longest_shape = shape[-1]
        for of_shape, of_level in self._means:
            shape.append(of_shape.take(longest_shape))
            mean_level = of_level.take(float(deviations[-1]))
            level.append(None if mean_level is None else abs(mean_level))
        found = self._evidence(shape, self._shape)
        self._unfamiliar = self._is_unfamiliar(found)
        return Found(found, self._evidence(level, self._level), self._unfamiliar)

    def _deviation(self, window: Unusual) -> float:
        """Difference of the level from that of the operating state.

        Where the state may be unknown, its level may be anywhere between those of the others, and beyond them by as
        much as they are apart.
        """
        levels = [level.mean for level in self._calibration.levels]
        if self._in_zone(window) and (self._unfamiliar or self._is_sudden(window)):
            apart = float(np.diff(np.sort(levels)).max())
            return window.level - min(max(window.level, min(levels) - apart), max(levels) + apart)
        return window.level - levels[window.state]

    def _in_zone(self, window: Unusual) -> bool:
        """Whether a window is no farther than another operating state would be."""
        zone = self._calibration.zone
        return zone is not None and not window.known and window.log_ratio <= zone

    def _is_sudden(self, window: Unusual) -> bool:
        """Whether a window is beyond the warning limit by itself."""
        return self._shape[0].over(window.score)[0] > 1

    def _is_unfamiliar(self, shape: Evidence) -> bool:
        """Whether this may be an operating state that was not enrolled: it begins suddenly, and lasts."""
        within = [window for window in self._recent if self._in_zone(window)]
        if len(within) < RECENT - 1:
            return False
        if self._unfamiliar:
            return shape.warning > LASTS
        return sum(map(self._is_sudden, within)) >= RECENT - 1

    def _sudden(self) -> tuple[list[float | None], list[float | None]]:
        """Second largest score and deviation of the last three windows; None before there are two."""
        if len(self._recent) < RECENT - 1:
            return [None], [None]
        deviations = [abs(each) for each in list(self._deviations)[-RECENT:]]
        return [sorted(each.score for each in self._recent)[-2]], [sorted(deviations)[-2]]

    def _shape_limits(self, index: int) -> Limits:
        """Limits of the shape over one span; beyond the longest that was calibrated its prediction holds."""
        spans = self._calibration.spans
        span: Span = spans[min(index, len(spans) - 1)]
        return _limits(span.score, span.score.mean, self._rates, self._spans, self._spans[index], self._step_s)

    def _evidence(self, values: Sequence[float | None], limits: Sequence[Limits]) -> Evidence:
        """Evidence by kind, from the value of each span (None: not yet full)."""
        kinds: dict[str, float] = {}
        warning, worst, span_s, reach_s = 0.0, 0.0, 0.0, 0.0
        for value, limit, windows in zip(values, limits, self._spans, strict=True):
            if value is None:
                continue
            reach_s = windows * self._step_s
            over_warning, over_alarm = limit.over(value)
            kind = _kind(windows, self._step_s)
            kinds[kind] = max(kinds.get(kind, 0.0), over_alarm)
            warning = max(warning, over_warning)
            if over_alarm > worst:
                worst, span_s = over_alarm, reach_s
        return Evidence(
            sudden=kinds.get("sudden"),
            persistent=kinds.get("persistent"),
            drift=kinds.get("drift"),
            warning=warning,
            span_s=span_s,
            reach_s=reach_s,
        )


def limits(calibration: Calibration, rates: Rates, step_s: float) -> list[tuple[float, Limits]]:
    """Return of every span its length in seconds and the limits of its score."""
    lengths = _lengths(calibration, step_s)
    last = len(calibration.spans) - 1
    found = []
    for index, windows in enumerate(lengths):
        score = calibration.spans[min(index, last)].score
        found.append((windows * step_s, _limits(score, score.mean, rates, lengths, windows, step_s)))
    return found


def slack(calibration: Calibration, rates: Rates, step_s: float) -> float:
    """How much wider the limits of an alarm are than those that very many takes of the same spread would allow.

    The mean over spans of the ratio of both, above what is normal; 1 where nothing is left to gain.
    """
    lengths = _lengths(calibration, step_s)
    last = len(calibration.spans) - 1
    ratios = []
    for index, windows in enumerate(lengths):
        score = calibration.spans[min(index, last)].score
        many = Prediction(score.mean, score.sd / math.sqrt(1 + 1 / score.takes), MANY, MANY)
        now, then = (_limits(each, each.mean, rates, lengths, windows, step_s).alarm for each in (score, many))
        ratios.append((now - score.mean) / (then - score.mean))
    return float(np.mean(ratios))


def level_limits(calibration: Calibration, rates: Rates, step_s: float) -> list[tuple[float, Limits]]:
    """Return of every span its length in seconds and the limits of the deviation of its level (log RMS)."""
    lengths = _lengths(calibration, step_s)
    return [
        (windows * step_s, _level_limits(calibration.levels, rates, lengths, windows, step_s)) for windows in lengths
    ]


def promise(calibration: Calibration, rates: Rates, step_s: float) -> dict[float, tuple[float, float]]:
    """Return for both rates the interval (90 %) in which the true rate of false alarms lies, shape and level together.

    What is uncertain is the spread between takes: few of them leave room for a machine that wanders more.
    """
    lengths = _lengths(calibration, step_s)
    rng = np.random.default_rng(0)
    last = len(calibration.spans) - 1
    found = {}
    for rate in (rates.warning_per_day, rates.alarm_per_day):
        total = np.zeros(DRAWS)
        for index, windows in enumerate(lengths):
            looks, probability = _looks(lengths, windows, step_s, rate)
            score = calibration.spans[min(index, last)].score
            total += QUANTITIES * looks * _drawn_tails(score, score.limit(probability), rng)
        found[rate] = (float(np.quantile(total, INTERVAL[0])), float(np.quantile(total, INTERVAL[1])))
    return found


def _drawn_tails(score: Prediction, limit: float, rng: np.random.Generator) -> Doubles:
    """Probability (draws,) of exceeding a limit for means and spreads that fit what was enrolled."""
    unbiased = score.sd / np.sqrt(1 + 1 / score.takes)
    sd = unbiased * np.sqrt(score.freedom / rng.chisquare(score.freedom, DRAWS))
    mean = score.mean + sd * rng.normal(size=DRAWS) / np.sqrt(score.takes)
    return _normal_tail((limit - mean) / sd)


def _normal_tail(z: Doubles) -> Doubles:
    """Probability that a normal variable exceeds z."""
    return np.array([0.5 * math.erfc(each / math.sqrt(2)) for each in z])


def _lengths(calibration: Calibration, step_s: float) -> list[int]:
    """Windows of every span: those that were calibrated, then twice as long each up to three days."""
    lengths = [calibration.windows_now(span, step_s) for span in calibration.spans]
    while 2 * lengths[-1] * step_s <= LONGEST_S:
        lengths.append(2 * lengths[-1])
    return lengths


def _looks(lengths: Sequence[int], windows: int, step_s: float, per_day: float) -> tuple[float, float]:
    """Independent looks a day over a span, and the probability each may have of a false alarm."""
    looks = DAY_S / max(windows * step_s / 2, LOOK_S)
    return looks, min(0.4, per_day / (QUANTITIES * len(lengths) * looks))


def _limits(
    prediction: Prediction, normal: float, rates: Rates, lengths: Sequence[int], windows: int, step_s: float
) -> Limits:
    """Limits of a quantity that is predicted so."""
    values = [
        prediction.limit(_looks(lengths, windows, step_s, rate)[1])
        for rate in (rates.warning_per_day, rates.alarm_per_day)
    ]
    return Limits(normal, *values)


def _level_limits(
    levels: Sequence[Prediction], rates: Rates, lengths: Sequence[int], windows: int, step_s: float
) -> Limits:
    """Limits of the deviation of the level, up or down, in the operating state that is known least."""
    widest = max(levels, key=lambda level: level.sd)
    around = Prediction(0.0, widest.sd, widest.freedom, widest.takes)
    halved = Rates(rates.warning_per_day / 2, rates.alarm_per_day / 2)
    return _limits(around, 0.0, halved, lengths, windows, step_s)


def _kind(windows: int, step_s: float) -> str:
    """Kind of evidence over a span."""
    if windows == 1 or windows * step_s <= SUDDEN_S:
        return "sudden"
    return "drift" if windows * step_s >= DRIFT_S else "persistent"


class _Ring:
    """The last so many arrays of one shape, side by side so that means over them cost one pass."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows = np.empty(0)
        self._count = 0

    def __len__(self) -> int:
        return min(self._count, self._most)

    def append(self, row: Doubles) -> None:
        """Take the next array; the last `most` stay."""
        if not self._count:
            self._rows = np.empty((2 * self._most, *row.shape))
        place = self._count % self._most
        self._rows[place] = self._rows[place + self._most] = row
        self._count += 1

    def mean(self, count: int) -> Doubles:
        """Mean of the last `count`."""
        end = (self._count - 1) % self._most + self._most + 1
        return np.asarray(self._rows[end - count : end].mean(axis=0))


class _LongMean:
    """Mean of the last so many values, in parts: memory does not grow with the span."""

    def __init__(self, windows: int) -> None:
        self._per_part = max(1, windows // PARTS)
        self._parts: deque[float] = deque(maxlen=max(1, windows // self._per_part))
        self._sum, self._count = 0.0, 0

    def take(self, value: float | None) -> float | None:
        """Take the next value (None: there is none) and return the mean; None until there are enough."""
        if value is not None:
            self._sum, self._count = self._sum + value, self._count + 1
            if self._count == self._per_part:
                self._parts.append(self._sum / self._count)
                self._sum, self._count = 0.0, 0
        return float(np.mean(self._parts)) if len(self._parts) == self._parts.maxlen else None
