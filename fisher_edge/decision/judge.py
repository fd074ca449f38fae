"""The judgement of a window by what is enrolled, and by the windows before it. Start at `Judge.judge`.

Shape and level are two statements: how unusual the embedding is band by band, and how far the RMS is from that of the
operating state the window is nearest to. What windows add up to over time is in `evidence`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fisher_edge.decision.bank import Comparison, Match, MemoryBank
from fisher_edge.decision.calibrate import Calibration, Enrollment, calibrate, score_of
from fisher_edge.decision.common import Common
from fisher_edge.decision.coreset import MOST_WINDOWS
from fisher_edge.decision.evidence import Rates, Tracker, Unusual, promise
from fisher_edge.decision.fusion import Fusion
from fisher_edge.decision.judgement import (
    BandShare,
    BaselineName,
    Evidence,
    Judgement,
    Level,
    ModelName,
    Nearest,
    PlainMeasures,
    Promise,
    ViewScore,
)
from fisher_edge.decision.naming import comparable, examples_of, normal_of, view_vectors
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.views import View
from fisher_edge.encoder.windows import EmbeddedWindow
from fisher_edge.errors import BadInputError
from fisher_edge.store.baselines import Baseline, ViewCalibration

__all__ = ["Judge", "Unenrolled", "WindowJudge", "distrusted", "enrollment_of", "measured"]

Doubles = npt.NDArray[np.float64]

# An open cable: at least this share of the power at mains frequency and its harmonics, ...
OPEN_CABLE = 0.95
# ... where no enrolled window of the operating state had more than this.
NO_HUM = 0.5
# Standard deviation of a normal distribution over its median absolute deviation.
DEVIATIONS = 1.4826
# The spread of a view is at least this share of its median: a few nearly equal distances do not prove precision.
SMALLEST_SHARE = 0.05
SMALLEST_SPREAD = 1e-6


class Judge:
    """Judges the windows of one channel, in order, against its active baselines; its `Tracker` remembers those before.

    `enrolled` are the active baselines of the channel, `front_end` is that of the encoder (with its views), `hop_s` the
    time from one window to the next. `common` says what is judged where the sensor has another rate, and `enrolled`
    are then as `fisher_edge.decision.common` makes them. Windows are compared with at most `most` enrolled ones, a
    coreset. Raises BadInputError when no normal state is among them.
    """

    def __init__(
        self,
        enrolled: Sequence[Baseline],
        front_end: FrontEnd,
        rates: Rates,
        hop_s: float,
        fusion: Fusion | None = None,
        common: Common | None = None,
        *,
        most: int = MOST_WINDOWS,
    ) -> None:
        normal = normal_of(enrolled)
        if normal is None:
            raise BadInputError("no normal state is enrolled; enroll recordings of it")
        # What it was enrolled from lies in the bank from here on.
        self.normal = replace(normal, vectors=np.empty((0, 0, 0), np.float32), views=None)
        name = common.name if common else BaselineName
        self._name = name(normal.version, len(normal))
        self.model = ModelName(normal.model_name, normal.model_sha256)
        self.views = tuple(each.view for each in normal.view_calibrations if each.view in front_end.views)
        enrollment = enrollment_of(normal)
        calibration = calibrate(enrollment, [take.state for take in normal.takes], most=most)
        if calibration is None:
            raise BadInputError(f"the baseline of {normal.key} holds too few windows to judge by; enroll again")
        self.calibration: Calibration = calibration
        self._core = calibration.core
        self._bank = enrollment.bank.only(self._core)
        self._bands = normal.vectors.shape[1]
        self._edges_hz = front_end.band_edges_hz(normal.rate_hz)[: self._bands]
        self._state_of_window = normal.state_of_window[self._core]
        self._given = {state.name: number for number, state in enumerate(normal.states) if state.given}
        self._rates, self.hop_s = rates, hop_s
        self._tracker = Tracker(calibration, rates, hop_s)
        self._view_scores = [
            _ViewScorer.of(each, view_vectors(normal, each.view)[self._core])
            for each in normal.view_calibrations
            if each.view in self.views
        ]
        self._weights = {view.name: view.weight for view in fusion.views} if fusion else {}
        self._examples = examples_of(normal.only(self._core), comparable(enrolled, normal), fusion, self.views)

    def judge(self, window: EmbeddedWindow, operating_state: str | None = None) -> Judgement:
        """Judge one window; a sensor that cannot be trusted gives `distrust` and no distance.

        `operating_state` is that of the machine where it is known. It counts when states were given at enrollment; one
        that was not among them is unfamiliar. Else a window is judged by the state it is nearest to.
        """
        baseline, embedding = self._name, window.embedding[: self._bands]
        if window.fault:
            return distrusted(window, self.model, window.fault, baseline)
        comparison = self._bank.compare(embedding) if _is_finite(window) else None
        match = comparison.nearest() if comparison else None
        if comparison is None or match is None or not math.isfinite(match.distance):
            return distrusted(window, self.model, "the encoder gives no finite numbers for these samples", baseline)
        if operating_state is not None and self._given and operating_state not in self._given:
            return self._unfamiliar(window, match, operating_state)
        known = self._given.get(operating_state or "")
        states = range(len(self.normal.states)) if known is None else [known]
        number, residual = self._nearest_state(comparison, states)
        state = self.normal.states[number]
        if window.hum_share >= OPEN_CABLE and state.hum_share <= NO_HUM:
            reason = (
                f"open cable: {window.hum_share:.0%} of the power is at mains frequency and its harmonics, at most "
                f"{state.hum_share:.0%} of it when it was enrolled"
            )
            return distrusted(window, self.model, reason, baseline)
        vectors = {view.name: vector for view, vector in zip(self.views, window.views, strict=True)}
        unusual = self._unusual(window, residual, number, known=known is not None)
        found = self._tracker.take(unusual)
        level = self.calibration.levels[number]
        difference = unusual.level - level.mean
        return Judgement(
            time_s=window.end_time_s,
            window_s=window.window_s,
            rate_hz=float(window.rate_hz),
            model=self.model,
            baseline=baseline,
            operating_state=state.name if state.given or len(self.normal.states) > 1 else None,
            distance=match.distance,
            score=unusual.score,
            evidence=found.shape,
            unfamiliar=found.unfamiliar,
            bands=self._band_shares(match, unusual),
            nearest=self._nearest(int(self._core[match.index])),
            fault=self._examples.vote(embedding, vectors) if self._examples else None,
            level=Level(unusual.level, difference / level.sd, abs(difference), found.level),
            views=tuple(
                ViewScore(
                    scorer.view.name, self._weights.get(scorer.view.name, 0.0), scorer.z(vectors[scorer.view.name])
                )
                for scorer in self._view_scores
            ),
            measures=_plain(window),
        )

    def take_over(self, other: "Judge") -> None:
        """Go on with the evidence of another judge of the same normal state."""
        if other.baseline == self.baseline and other.hop_s == self.hop_s:
            self._tracker = other._tracker  # noqa: SLF001 -- of the same class

    def forget(self) -> None:
        """Start again without the evidence of the windows so far."""
        self._tracker.forget()

    @property
    def baseline(self) -> tuple[int, float]:
        """Version of the normal state, and when it was enrolled (s UTC, as records round it): no other one has both."""
        return self.normal.version, round(self.normal.created_s, 3)

    @cached_property
    def promise(self) -> Promise:
        """How many false warnings and alarms a day are promised, and in which interval (90 %) the true rates lie."""
        intervals = promise(self.calibration, self._rates, self.hop_s)
        warning, alarm = self._rates.warning_per_day, self._rates.alarm_per_day
        return Promise(warning, alarm, intervals[warning], intervals[alarm])

    def _nearest_state(self, comparison: Comparison, among: Sequence[int]) -> tuple[int, Doubles]:
        """Return the operating state in which a window is least unusual.

        Beside it is what is left (bands, dim) of the window when the nearest ones of that state are taken off.
        """
        residuals = [comparison.residual(self._state_of_window == number) for number in among]
        span = self.calibration.spans[0]
        least = int(np.argmin([score_of(span.unusual(residual)) for residual in residuals]))
        return among[least], residuals[least]

    def _unusual(self, window: EmbeddedWindow, residual: Doubles, state: int, *, known: bool) -> Unusual:
        """Say how unusual each band of a window is in its operating state."""
        span = self.calibration.spans[0]
        bands = span.unusual(residual)
        return Unusual(
            residual=residual,
            bands=bands,
            score=float(score_of(bands)),
            log_ratio=float((bands * span.spread).mean()),
            level=window.measures.log_rms,
            state=state,
            known=known,
        )

    def _unfamiliar(self, window: EmbeddedWindow, match: Match, operating_state: str) -> Judgement:
        """Say that the machine is in an operating state that was never enrolled: there is nothing to judge by."""
        shares = zip(self._edges_hz, match.shares, strict=True)
        return replace(
            measured(window, self.model, operating_state),
            baseline=self._name,
            distance=match.distance,
            evidence=Evidence(),
            unfamiliar=True,
            bands=tuple(BandShare(low, high, float(share)) for (low, high), share in shares),
            nearest=self._nearest(int(self._core[match.index])),
            level=Level(window.measures.log_rms, evidence=Evidence()),
        )

    def _band_shares(self, match: Match, unusual: Unusual) -> tuple[BandShare, ...]:
        """Hz range, share of the distance and unusualness of every band; the shares add up to the distance."""
        rows = zip(self._edges_hz, match.shares, unusual.bands, strict=True)
        return tuple(BandShare(low, high, float(share), float(z)) for (low, high), share, z in rows)

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

    def judge(self, window: EmbeddedWindow, operating_state: str | None = None) -> Judgement:
        """Measure one window."""
        if window.fault:
            return distrusted(window, self.model, window.fault)
        return replace(measured(window, self.model, operating_state), unjudged=self.reason)


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


def measured(window: EmbeddedWindow, model: ModelName, operating_state: str | None = None) -> Judgement:
    """Say what needs no baseline: level and plain measures."""
    return Judgement(
        time_s=window.end_time_s,
        window_s=window.window_s,
        rate_hz=float(window.rate_hz),
        model=model,
        operating_state=operating_state,
        level=Level(window.measures.log_rms),
        measures=_plain(window),
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


def _plain(window: EmbeddedWindow) -> PlainMeasures:
    """Plain measures of a window."""
    measures = window.measures
    return PlainMeasures(measures.rms, measures.peak, measures.crest, measures.kurtosis)


def enrollment_of(normal: Baseline) -> Enrollment:
    """Return the windows of a normal baseline as its calibration needs them."""
    bank = MemoryBank.of(normal.vectors)
    take = normal.take.astype(np.int64)
    return Enrollment(bank, take, normal.offset_s, _levels(normal), normal.grid.window_s)


def _levels(normal: Baseline) -> Doubles:
    """Level of every window; where a former release kept only mean and spread, values that have these."""
    states = [normal.states[number] for number in normal.state_of_window]
    mean = np.array([state.level_mean for state in states])
    spread = np.array([state.level_std for state in states])
    sign = np.where(np.arange(len(states)) % 2, 1.0, -1.0)
    return np.asarray(np.where(np.isnan(normal.level), mean + sign * spread, normal.level))
