"""The judgement of one window: a pure function of the window and of what is enrolled. Start at `Judge.judge`.

Shape and level are two statements: how far the embedding is from the enrolled ones, and how far the RMS is from that of
the operating state the window is nearest to. Each has thresholds of its own, calibrated on held-out windows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fisher_edge.decision.bank import Match, MemoryBank
from fisher_edge.decision.fusion import Fusion
from fisher_edge.decision.judgement import (
    BandShare,
    BaselineName,
    Judgement,
    Level,
    ModelName,
    Nearest,
    PlainMeasures,
    ViewScore,
)
from fisher_edge.decision.naming import comparable, examples_of, normal_of, view_vectors
from fisher_edge.decision.threshold import MIN_LEVEL_STD, fit_tail, level_threshold
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.views import View
from fisher_edge.encoder.windows import EmbeddedWindow
from fisher_edge.errors import BadInputError
from fisher_edge.store.baselines import Baseline, OperatingState, ViewCalibration

__all__ = ["Judge", "Rates", "Unenrolled", "WindowJudge", "distrusted"]

# An open cable: at least this share of the power at mains frequency and its harmonics, ...
OPEN_CABLE = 0.95
# ... where no enrolled window of the operating state had more than this.
NO_HUM = 0.5
# Standard deviation of a normal distribution over its median absolute deviation.
DEVIATIONS = 1.4826
# The spread of a view is at least this share of its median: a few nearly equal distances do not prove precision.
SMALLEST_SHARE = 0.05
SMALLEST_SPREAD = 1e-6


@dataclass(frozen=True)
class Rates:
    """Normal windows a day that may exceed the warning and the alarm threshold, for shape and level each."""

    warning_per_day: float = 1.0
    alarm_per_day: float = 0.1


@dataclass(frozen=True)
class Thresholds:
    """A value from which windows count as a warning, and one from which they count as an alarm."""

    warning: float
    alarm: float


class Judge:
    """Judges windows of one channel against its active baselines; it has no memory of the windows before.

    `enrolled` are the active baselines of the channel, `front_end` is that of the encoder (with its views), `hop_s` the
    time from one window to the next. Raises BadInputError when no normal state is among them.
    """

    def __init__(
        self,
        enrolled: Sequence[Baseline],
        front_end: FrontEnd,
        rates: Rates,
        hop_s: float,
        fusion: Fusion | None = None,
    ) -> None:
        normal = normal_of(enrolled)
        if normal is None:
            raise BadInputError("no normal state is enrolled; enroll recordings of it")
        self.normal = normal
        self.model = ModelName(normal.model_name, normal.model_sha256)
        self.views = tuple(each.view for each in normal.view_calibrations if each.view in front_end.views)
        self._bank = MemoryBank.of(normal.vectors)
        self._edges_hz = front_end.band_edges_hz(normal.rate_hz)
        self._state_of_window = normal.state_of_window
        self._tail = fit_tail(np.concatenate([state.held_out for state in normal.states]))
        self._shape = Thresholds(
            *(self._tail.threshold(rate, hop_s) for rate in (rates.warning_per_day, rates.alarm_per_day))
        )
        self._levels = [_level_thresholds(state, rates, hop_s) for state in normal.states]
        self._view_scores = [
            _ViewScorer.of(each, view_vectors(normal, each.view))
            for each in normal.view_calibrations
            if each.view in self.views
        ]
        self._weights = {view.name: view.weight for view in fusion.views} if fusion else {}
        self._examples = examples_of(normal, comparable(enrolled, normal), fusion, self.views)

    def judge(self, window: EmbeddedWindow) -> Judgement:
        """Judge one window; a sensor that cannot be trusted gives `distrust` and no distance."""
        baseline = BaselineName(self.normal.version, len(self._bank))
        if window.fault:
            return distrusted(window, self.model, window.fault, baseline)
        match = self._bank.nearest(window.embedding) if _is_finite(window) else None
        if match is None or not math.isfinite(match.distance):
            return distrusted(window, self.model, "the encoder gives no finite numbers for these samples", baseline)
        number = int(self._state_of_window[match.index])
        state = self.normal.states[number]
        if window.hum_share >= OPEN_CABLE and state.hum_share <= NO_HUM:
            reason = (
                f"open cable: {window.hum_share:.0%} of the power is at mains frequency and its harmonics, at most "
                f"{state.hum_share:.0%} of it when it was enrolled"
            )
            return distrusted(window, self.model, reason, baseline)
        vectors = {view.name: vector for view, vector in zip(self.views, window.views, strict=True)}
        return Judgement(
            time_s=window.end_time_s,
            window_s=window.window_s,
            rate_hz=float(window.rate_hz),
            model=self.model,
            baseline=baseline,
            operating_state=state.name if len(self.normal.states) > 1 else None,
            distance=match.distance,
            threshold=self._shape.alarm,
            warning_threshold=self._shape.warning,
            p_value=self._tail.p_value(match.distance),
            bands=self._band_shares(match),
            nearest=self._nearest(match.index),
            fault=self._examples.vote(window.embedding, vectors) if self._examples else None,
            level=_level(window, state, self._levels[number]),
            views=tuple(
                ViewScore(
                    scorer.view.name, self._weights.get(scorer.view.name, 0.0), scorer.z(vectors[scorer.view.name])
                )
                for scorer in self._view_scores
            ),
            measures=_plain(window),
        )

    def _band_shares(self, match: Match) -> tuple[BandShare, ...]:
        """Hz range and share of the distance of every band; the shares add up to the distance."""
        pairs = zip(self._edges_hz, match.shares, strict=True)
        return tuple(BandShare(low, high, float(share)) for (low, high), share in pairs)

    def _nearest(self, index: int) -> Nearest:
        """Say which enrolled window this is."""
        normal = self.normal
        take, offset_s = normal.takes[normal.take[index]], float(normal.offset_s[index])
        time_s = None if take.recorded_s is None else take.recorded_s + offset_s
        return Nearest(normal.version, take.name, offset_s, time_s)


class Unenrolled:
    """Measures the windows of a channel that cannot be judged for a reason: level, plain measures, sensor health."""

    views: tuple[View, ...] = ()

    def __init__(self, model: ModelName, reason: str) -> None:
        self.model = model
        self.reason = reason

    def judge(self, window: EmbeddedWindow) -> Judgement:
        """Measure one window."""
        if window.fault:
            return distrusted(window, self.model, window.fault)
        return Judgement(
            time_s=window.end_time_s,
            window_s=window.window_s,
            rate_hz=float(window.rate_hz),
            model=self.model,
            unjudged=self.reason,
            level=Level(window.measures.log_rms),
            measures=_plain(window),
        )


WindowJudge = Judge | Unenrolled


def distrusted(
    window: EmbeddedWindow, model: ModelName, reason: str, baseline: BaselineName | None = None
) -> Judgement:
    """Say that a window cannot be judged, and why."""
    return Judgement(
        time_s=window.end_time_s,
        window_s=window.window_s,
        rate_hz=float(window.rate_hz),
        model=model,
        distrust=reason,
        baseline=baseline,
    )


def _is_finite(window: EmbeddedWindow) -> bool:
    """Whether embedding and views of a window are numbers."""
    return all(bool(np.isfinite(vector).all()) for vector in (window.embedding, *window.views))


@dataclass(frozen=True, eq=False)
class _ViewScorer:
    """One view of the normal windows, and how far held-out normal windows are from the nearest of the others."""

    view: View
    bank: MemoryBank
    median: float
    spread: float

    @classmethod
    def of(cls, calibration: ViewCalibration, vectors: FloatArray) -> "_ViewScorer":
        """Take median and spread from the held-out distances: robust, for a state recorded once is an outlier."""
        median = float(np.median(calibration.held_out))
        spread = DEVIATIONS * float(np.median(np.abs(calibration.held_out - median)))
        bank = MemoryBank.of(vectors[:, None, :])
        return cls(calibration.view, bank, median, max(spread, SMALLEST_SHARE * median, SMALLEST_SPREAD))

    def z(self, vector: FloatArray) -> float:
        """Return the distance of a view (bins,) to the nearest normal one, in spreads above the median."""
        return (float(self.bank.distances(vector[None]).min()) - self.median) / self.spread


def _level(window: EmbeddedWindow, state: OperatingState, thresholds: Thresholds) -> Level:
    """Compare the log RMS of a window with that of its operating state."""
    log_rms = window.measures.log_rms
    difference = log_rms - state.level_mean
    return Level(
        log_rms=log_rms,
        z=difference / max(state.level_std, MIN_LEVEL_STD),
        deviation=abs(difference),
        threshold=thresholds.alarm,
        warning_threshold=thresholds.warning,
    )


def _plain(window: EmbeddedWindow) -> PlainMeasures:
    """Plain measures of a window."""
    measures = window.measures
    return PlainMeasures(measures.rms, measures.peak, measures.crest, measures.kurtosis)


def _level_thresholds(state: OperatingState, rates: Rates, hop_s: float) -> Thresholds:
    """Deviations of the level to warn and to alarm at."""
    both = (rates.warning_per_day, rates.alarm_per_day)
    return Thresholds(*(level_threshold(state.level_held_out, rate, hop_s) for rate in both))
