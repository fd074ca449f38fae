"""Assessment: what windows say when they are calibrated together, before anything is stored. See `assess`.

It takes windows, not files: they may come from recordings or from a running sensor.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fisher_edge.decision.bank import MemoryBank
from fisher_edge.decision.calibrate import (
    SMALLEST_DISTANCE,
    Calibration,
    Enrollment,
    calibrate,
    grouped,
    held_out_distances,
)
from fisher_edge.decision.evidence import Rates, limits, promise, slack
from fisher_edge.decision.fusion import Fusion
from fisher_edge.decision.judge import enrollment_of
from fisher_edge.decision.judgement import ModelName
from fisher_edge.decision.naming import NORMAL, view_vectors
from fisher_edge.decision.reactions import Embed, Normal, Signal
from fisher_edge.decision.sensitivity import Sensitivity, sensitivity
from fisher_edge.dsp.blocks import FloatArray, Rate
from fisher_edge.dsp.changes import Spot
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import Grid
from fisher_edge.encoder.windows import EmbeddedWindow
from fisher_edge.errors import BadInputError
from fisher_edge.names import ChannelKey
from fisher_edge.store.baselines import Baseline, OperatingState, Take, ViewCalibration

__all__ = ["Assessed", "Enrolled", "EnrolledTake", "Made", "SetAside", "assess", "slack_of", "takes_of"]

MIN_HELD_OUT = 4

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Made:
    """What windows were made with: the encoder, its front-end, the grid of the stream, the rate."""

    model: ModelName
    front_end: FrontEnd
    grid: Grid
    rate_hz: Rate


@dataclass(frozen=True)
class EnrolledTake:
    """One recording: its name, its windows with their ends in seconds from its start, what and when was recorded.

    `state` names the operating state it shows; None: to be found. `spots` are stretches of its signal in which changes
    are tried, to say what would be noticed.
    """

    name: str
    windows: Iterable[EmbeddedWindow]
    specimen: str | None = None
    recorded_s: float | None = None
    state: str | None = None
    spots: tuple[Spot, ...] = ()


@dataclass(frozen=True)
class SetAside:
    """A recording that was not enrolled: its place among those that were given, its name, and why."""

    number: int
    name: str
    reason: str


@dataclass(frozen=True)
class Enrolled:
    """What an enrollment has stored.

    `windows_before` were enrolled earlier and kept; `spread` is the median held-out distance of a normal window.
    `takes` is the number of recordings (or blocks of one) that the spread was learnt from, and `promise` says for each
    number of false alarms a day in which interval (90 %) the true one lies. `spans_s` are the spans of time that are
    watched; `states` are the operating states found and `state_of_take` says which one each recording belongs to.
    `alone` names recordings that are the only ones of their operating state, `odd` those that are unlike the others of
    theirs, and `set_aside` says which recordings were not enrolled, and why. `sensitivity` says which changes of a
    normal state would be noticed; None: no stretches of its signal were given. Others are compared with the windows of
    the `coreset`: all, or some of many, which makes distances longer by the factor `coreset_loss` on average.
    """

    asset: str
    channel: str
    label: str | None
    version: int
    windows: int
    windows_before: int
    coreset: int
    coreset_loss: float
    window_s: float
    hop_s: float
    spread: float
    takes: int
    promise: dict[str, tuple[float, float]]
    spans_s: tuple[float, ...]
    states: tuple[str, ...]
    state_of_take: tuple[str, ...]
    alone: tuple[str, ...]
    odd: tuple[str, ...]
    set_aside: tuple[SetAside, ...]
    sensitivity: Sensitivity | None
    fusion: Fusion | None


def assess(
    key: ChannelKey,
    takes: Sequence[EnrolledTake],
    made: Made,
    *,
    label: str | None = None,
    before: Baseline | None = None,
    reason: str = "",
    embed: Embed | None = None,
) -> "Assessed":
    """Calibrate windows as `enroll` does, together with those of the baseline `before`, and store nothing."""
    columns, set_aside = _Columns.of(takes)
    takes = [take for number, take in enumerate(takes) if number not in {each.number for each in set_aside}]
    if before is not None:
        _check_alike(before, columns, made)
        takes, columns = [*takes_of(before), *takes], columns.after(before)
    names = [take.state for take in takes]
    states = _normal(columns, made.grid, names) if label is None else _unstated(columns, len(takes))
    noticed = _sensitivity(columns, takes, made, states, embed) if embed else None
    baseline = Baseline(
        key=key,
        label=label,
        model_name=made.model.name,
        model_sha256=made.model.sha256,
        front_end=replace(made.front_end, views=()),
        rate_hz=made.rate_hz,
        grid=made.grid,
        vectors=columns.vectors,
        take=columns.take.astype(np.int32),
        offset_s=columns.end_s,
        level=columns.level,
        takes=tuple(
            Take(take.name, take.specimen, take.recorded_s, state)
            for take, state in zip(takes, states.state_of_take, strict=True)
        ),
        states=states.states,
        view_calibrations=_view_calibrations(columns, made, states),
        views=np.concatenate(columns.views, axis=1) if columns.views else None,
        sensitivity=noticed.to_dict() if noticed else None,
        reason=reason,
    )
    return Assessed(baseline, len(before) if before else 0, states, set_aside, noticed)


def slack_of(windows: Sequence[EmbeddedWindow], made: Made) -> float | None:
    """How much wider limits would be than further recording can make them (see `evidence.slack`).

    `windows` are those of a recording under way; None while they are too few to calibrate, or the sensor is faulty.
    """
    if not windows:
        return None
    try:
        found = assess(ChannelKey("", ""), [EnrolledTake("", windows)], made)
    except BadInputError:
        return None
    calibration = found.states.calibration
    return slack(calibration, Rates(), calibration.step_s) if calibration else None


def _check_alike(before: Baseline, columns: "_Columns", made: Made) -> None:
    """Refuse to extend a baseline that was made in another way, or by windows that it holds already."""
    label = before.label or NORMAL
    views = tuple(each.view for each in before.view_calibrations)
    alike = (before.model_sha256, before.rate_hz, views) == (made.model.sha256, made.rate_hz, made.front_end.views)
    alike = alike and before.has_front_end(made.front_end)
    if not alike or _window_of(before.grid) != _window_of(made.grid):
        raise BadInputError(
            f"the recordings of {label!r} that are enrolled were made with another model, rate or window; enroll all "
            "of them again, without --add"
        )
    if {row.tobytes() for row in before.vectors} & {row.tobytes() for row in columns.vectors}:
        raise BadInputError(
            f"some of these windows are among those of {label!r} already; leave out the recording they are from"
        )


def _window_of(grid: Grid) -> tuple[int, int, int]:
    """Frames and pieces of a window, whatever the time to the next one: pieces matter only where there are several."""
    return grid.piece_frames, grid.window_pieces, grid.piece_hop_frames if grid.window_pieces > 1 else 0


def takes_of(baseline: Baseline) -> list[EnrolledTake]:
    """The recordings of a baseline, without windows; an operating state that was found is to be found again."""
    states = [baseline.states[take.state] for take in baseline.takes]
    return [
        EnrolledTake(take.name, (), take.specimen, take.recorded_s, state.name if state.given else None)
        for take, state in zip(baseline.takes, states, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class _Columns:
    """The windows of all recordings, a row each: `vectors` (windows, bands, dim), of each view (windows, bins)."""

    vectors: FloatArray
    views: list[FloatArray]
    take: np.ndarray
    end_s: np.ndarray
    level: np.ndarray
    hum_share: np.ndarray

    @classmethod
    def of(cls, takes: Sequence[EnrolledTake]) -> tuple["_Columns", tuple[SetAside, ...]]:
        """Collect the windows, one recording after the other; also say which recordings are set aside, and why.

        A recording of a sensor that cannot be trusted is nobody's normal state; when none is left, it is an error.
        """
        kept, set_aside = [], []
        for number, take in enumerate(takes):
            windows = list(take.windows)
            faulty = next((window for window in windows if window.fault), None)
            if faulty is None:
                kept.append(windows)
                continue
            first_s = faulty.end_time_s - faulty.window_s
            reason = f"{first_s:.2f} to {faulty.end_time_s:.2f} s: {faulty.fault}"
            set_aside.append(SetAside(number, take.name, reason))
        if set_aside and not any(kept):
            raise BadInputError(f"{set_aside[0].name}, {set_aside[0].reason}; cut that part out")
        rows = [(number, window) for number, windows in enumerate(kept) for window in windows]
        if not rows:
            raise BadInputError("the recordings hold no window; enroll longer ones, or choose a shorter --window-s")
        vectors = np.stack([window.embedding for _, window in rows])
        if not np.isfinite(vectors).all():
            raise BadInputError("the encoder gives no finite numbers for these recordings; check their scale")
        columns = cls(
            vectors=vectors,
            views=[np.stack(of_view) for of_view in zip(*(window.views for _, window in rows), strict=True)],
            take=np.array([number for number, _ in rows]),
            end_s=np.array([window.end_time_s for _, window in rows]),
            level=np.array([window.measures.log_rms for _, window in rows]),
            hum_share=np.array([window.hum_share for _, window in rows]),
        )
        return columns, tuple(set_aside)

    def after(self, before: Baseline) -> "_Columns":
        """The windows of a baseline, and then these; what it keeps of a state only, its windows have alike."""
        hum = np.array([state.hum_share for state in before.states])[before.state_of_window]
        views = [view_vectors(before, each.view) for each in before.view_calibrations]
        return _Columns(
            vectors=np.concatenate([before.vectors, self.vectors]),
            views=[np.concatenate(pair) for pair in zip(views, self.views, strict=True)],
            take=np.concatenate([before.take, self.take + len(before.takes)]),
            end_s=np.concatenate([before.offset_s, self.end_s]),
            level=np.concatenate([enrollment_of(before).level, self.level]),
            hum_share=np.concatenate([hum, self.hum_share]),
        )

    def enrollment(self, vectors: FloatArray, grid: Grid) -> Enrollment:
        """The windows with these vectors (windows, bands, dim) as their calibration needs them."""
        take = self.take.astype(np.int64)
        return Enrollment(MemoryBank.of(vectors), take, self.end_s, self.level, grid.window_s)


@dataclass(frozen=True)
class _States:
    """Operating states of an enrollment, that of each take, takes alone in theirs, and the calibration.

    `loss` is the mean ratio of held-out distances with the coreset to those with all windows.
    """

    states: tuple[OperatingState, ...]
    state_of_take: tuple[int, ...]
    alone: tuple[int, ...] = ()
    calibration: Calibration | None = None
    loss: float = 1.0


def _normal(columns: _Columns, grid: Grid, given: Sequence[str | None]) -> _States:
    """Calibrate a normal state whose takes have the `given` operating states; too few windows are a BadInputError."""
    enrollment = columns.enrollment(columns.vectors, grid)
    grouping = grouped(enrollment, given)
    held_out = held_out_distances(enrollment, grouping.state_of_take)
    count = int(np.isfinite(held_out).sum())
    calibration = calibrate(enrollment, grouping.state_of_take)
    if calibration is None or count < MIN_HELD_OUT:
        raise BadInputError(
            f"{len(columns.take)} windows leave {count} that can be held out to say what is normal, {MIN_HELD_OUT} are "
            "needed; enroll several recordings, longer ones, or a shorter --window-s"
        )
    of_window = np.array(grouping.state_of_take, np.int64)[columns.take]
    states = []
    for number in range(max(grouping.state_of_take) + 1):
        own = of_window == number
        name = given[grouping.state_of_take.index(number)]
        found = str(number + 1) if str(number + 1) not in given else f"{number + 1} (found)"
        state = _state(name or found, columns, own, held_out[own & np.isfinite(held_out)])
        states.append(replace(state, given=name is not None))
    loss = _loss(enrollment, grouping.state_of_take, held_out) if len(calibration.core) < len(held_out) else 1.0
    return _States(tuple(states), grouping.state_of_take, grouping.alone, calibration, loss)


def _loss(enrollment: Enrollment, state_of_take: Sequence[int], held_out: Doubles) -> float:
    """Mean ratio (geometric) of the held-out distances with a coreset to those with all windows."""
    everything = held_out_distances(enrollment, state_of_take, np.arange(len(held_out)))
    found = np.isfinite(held_out)
    ratios = np.maximum(held_out[found], SMALLEST_DISTANCE) / np.maximum(everything[found], SMALLEST_DISTANCE)
    return float(np.exp(np.log(ratios).mean()))


def _sensitivity(
    columns: _Columns, takes: Sequence[EnrolledTake], made: Made, normal: _States, embed: Embed
) -> Sensitivity | None:
    """Say which changes a normal state would notice; None for examples of a fault, and without spots."""
    spots = [(number, spot) for number, take in enumerate(takes) for spot in take.spots]
    if normal.calibration is None or not spots:
        return None
    windows = columns.enrollment(columns.vectors, made.grid)
    names = [take.name for take in takes]
    signal = Signal(
        spots=[spot for _, spot in spots],
        take=[number for number, _ in spots],
        embed=embed,
        edges_hz=made.front_end.band_edges_hz(made.rate_hz),
        rate_hz=float(made.rate_hz),
    )
    return sensitivity(Normal(windows, normal.state_of_take, names, normal.calibration), signal)


def _unstated(columns: _Columns, takes: int) -> _States:
    """Examples of a fault: one state without held-out distances, because faults have no limit."""
    everything = np.ones(len(columns.take), np.bool_)
    return _States((_state("1", columns, everything, np.zeros(0)),), (0,) * takes)


def _state(name: str, columns: _Columns, own: np.ndarray, held_out: np.ndarray) -> OperatingState:
    """One operating state, whose windows are marked `own` (windows,)."""
    level = columns.level[own]
    return OperatingState(
        name=name,
        held_out=held_out,
        level_mean=float(level.mean()),
        level_std=float(level.std()),
        hum_share=float(columns.hum_share[own].max()),
    )


def _view_calibrations(columns: _Columns, made: Made, normal: _States) -> tuple[ViewCalibration, ...]:
    """Held-out distances in each view; none of examples of a fault."""
    calibrations = []
    for view, vectors in zip(made.front_end.views, columns.views, strict=True):
        held_out = np.zeros(0)
        if normal.calibration:
            enrollment = columns.enrollment(vectors[:, None, :], made.grid)
            held_out = held_out_distances(enrollment, normal.state_of_take, normal.calibration.core)
        calibrations.append(ViewCalibration(view, held_out[np.isfinite(held_out)]))
    return tuple(calibrations)


@dataclass(frozen=True, eq=False)
class Assessed:
    """A baseline that is not stored yet, how many of its windows were enrolled before, and what is left out."""

    baseline: Baseline
    windows_before: int
    states: _States
    set_aside: tuple[SetAside, ...]
    sensitivity: Sensitivity | None

    def enrolled(self, version: int, fusion: Fusion | None) -> Enrolled:
        """Say what was stored, and what its calibration means."""
        baseline, normal = self.baseline, self.states
        calibration, grid, rates = normal.calibration, baseline.grid, Rates()
        held_out = np.concatenate([state.held_out for state in normal.states])
        promised = promise(calibration, rates, calibration.step_s) if calibration else {}
        return Enrolled(
            asset=baseline.key.asset,
            channel=baseline.key.channel,
            label=baseline.label,
            version=version,
            windows=len(baseline) - self.windows_before,
            windows_before=self.windows_before,
            coreset=len(calibration.core) if calibration else len(baseline),
            coreset_loss=normal.loss,
            window_s=grid.window_s,
            hop_s=grid.hop_s,
            spread=float(np.median(held_out)) if len(held_out) else 0.0,
            takes=calibration.takes if calibration else 0,
            promise={f"{rate:g}": interval for rate, interval in promised.items()},
            spans_s=tuple(round(span_s, 3) for span_s, _ in limits(calibration, rates, calibration.step_s))
            if calibration
            else (),
            states=tuple(state.name for state in normal.states),
            state_of_take=tuple(normal.states[number].name for number in normal.state_of_take),
            alone=tuple(baseline.takes[number].name for number in normal.alone),
            odd=tuple(baseline.takes[number].name for number in calibration.odd) if calibration else (),
            set_aside=self.set_aside,
            sensitivity=self.sensitivity,
            fusion=fusion,
        )
