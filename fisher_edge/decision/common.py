"""Judging a sensor of another rate than the enrolled one, by the bands that both have. Start at `common_of`.

Both are heard at the lower of the two rates: the sensor's stream is brought down to it, or the enrolled recordings are.
Each piece is then standardised over the same bandwidth on both sides, and the limits are those of the common bands.
Vectors of the higher rate cannot be used as they are: what lies above the lower rate's bandwidth scales the rest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fisher_edge.decision.bank import MemoryBank
from fisher_edge.decision.calibrate import Enrollment, held_out_distances
from fisher_edge.decision.judgement import BaselineName
from fisher_edge.dsp.blocks import FloatArray, Rate, rate_text
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import at_rate
from fisher_edge.dsp.resample import PASSED
from fisher_edge.encoder.windows import EmbeddedWindow
from fisher_edge.errors import BadInputError
from fisher_edge.store.baselines import Baseline, OperatingState, ViewCalibration

__all__ = ["Common", "common_of", "relearnt", "restricted"]

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Common:
    """What a sensor at `sensor_hz` and a baseline enrolled at `enrolled_hz` have in common.

    `rate_hz` is the lower rate, at which both are heard; of the `enrolled_bands` of the baseline the lowest `bands`
    count, up to `top_hz`.
    """

    sensor_hz: Rate
    enrolled_hz: Rate
    rate_hz: Rate
    bands: int
    enrolled_bands: int
    top_hz: float

    def name(self, version: int, windows: int) -> BaselineName:
        """Name a baseline in results."""
        return BaselineName(version, windows, float(self.enrolled_hz), self.bands, self.enrolled_bands)

    def __str__(self) -> str:
        return (
            f"the sensor has {rate_text(self.sensor_hz)} Hz, the baseline was enrolled at "
            f"{rate_text(self.enrolled_hz)} Hz: judged by the lowest {self.bands} of {self.enrolled_bands} bands, up "
            f"to {self.top_hz:g} Hz"
        )


def common_of(front_end: FrontEnd, enrolled_hz: Rate, sensor_hz: Rate) -> Common:
    """Find the bands that two rates have in common: whole ones, below what any anti-alias filter changes.

    Raises BadInputError when there is none.
    """
    rate_hz = min(enrolled_hz, sensor_hz)
    front_end.check_rate(rate_hz)
    top_hz = PASSED * float(rate_hz) / 2
    bin_hz = float(rate_hz) / front_end.n_fft(rate_hz)
    bands = int(top_hz / bin_hz) // front_end.band_width
    if not bands:
        raise BadInputError(
            f"a sensor of {rate_text(sensor_hz)} Hz and a baseline enrolled at {rate_text(enrolled_hz)} Hz have no "
            f"whole band of {front_end.band_width * bin_hz:g} Hz in common; enroll recordings of this sensor"
        )
    enrolled_bands = front_end.n_bands(enrolled_hz)
    return Common(sensor_hz, enrolled_hz, rate_hz, bands, enrolled_bands, bands * front_end.band_width * bin_hz)


def restricted(baseline: Baseline, common: Common) -> Baseline:
    """Return a baseline that was enrolled at the lower rate with its common bands only."""
    vectors = baseline.vectors[:, : common.bands]
    held_out = _held_out(baseline, vectors)
    states = [
        replace(state, held_out=_of_state(held_out, baseline.state_of_window == number))
        for number, state in enumerate(baseline.states)
    ]
    return replace(baseline, vectors=vectors, states=tuple(states))


def relearnt(
    baseline: Baseline, common: Common, front_end: FrontEnd, takes: Sequence[Iterable[EmbeddedWindow]]
) -> Baseline:
    """Return a baseline with the windows (one row of them a recording) that it has at the lower rate.

    `front_end` is that of the baseline, with its views. The operating states stay.
    """
    rows = [(number, window) for number, windows in enumerate(takes) for window in windows]
    windows = [window for _, window in rows]
    views = [np.stack(of_view) for of_view in zip(*(window.views for window in windows), strict=True)]
    moved = replace(
        baseline,
        rate_hz=common.rate_hz,
        grid=at_rate(front_end, baseline.grid, common.rate_hz),
        vectors=np.stack([window.embedding[: common.bands] for window in windows]),
        take=np.array([number for number, _ in rows], np.int32),
        offset_s=np.array([window.end_time_s for window in windows]),
        level=np.array([window.measures.log_rms for window in windows]),
        views=np.concatenate(views, axis=1) if views else None,
        sensitivity=None,
    )
    hum_share = np.array([window.hum_share for window in windows])
    return replace(moved, states=_states(moved, hum_share), view_calibrations=_views(moved, views))


def _states(baseline: Baseline, hum_share: Doubles) -> tuple[OperatingState, ...]:
    """Operating states of a baseline by its windows, whose share of hum is (n,)."""
    held_out, states = _held_out(baseline, baseline.vectors), []
    for number, state in enumerate(baseline.states):
        own = baseline.state_of_window == number
        levels = baseline.level[own]
        states.append(
            replace(
                state,
                held_out=_of_state(held_out, own),
                level_mean=float(levels.mean()),
                level_std=float(levels.std()),
                hum_share=float(hum_share[own].max()),
            )
        )
    return tuple(states)


def _views(baseline: Baseline, vectors: Sequence[FloatArray]) -> tuple[ViewCalibration, ...]:
    """Held-out distances in the views of a baseline, whose vectors are (n, bins) each."""
    everything = np.ones(len(baseline), np.bool_)
    return tuple(
        ViewCalibration(each.view, _of_state(_held_out(baseline, rows[:, None, :]), everything))
        for each, rows in zip(baseline.view_calibrations, vectors, strict=True)
    )


def _held_out(baseline: Baseline, vectors: FloatArray) -> Doubles:
    """Held-out distance (n,) of windows with these vectors (n, bands, dim); a fault has none, which is NaN."""
    if baseline.label is not None:
        return np.full(len(baseline), np.nan)
    take = baseline.take.astype(np.int64)
    enrolled = Enrollment(MemoryBank.of(vectors), take, baseline.offset_s, baseline.level, baseline.grid.window_s)
    return held_out_distances(enrolled, [each.state for each in baseline.takes])


def _of_state(held_out: Doubles, own: npt.NDArray[np.bool_]) -> Doubles:
    """Those of the marked windows that could be held out."""
    return held_out[own & np.isfinite(held_out)]
