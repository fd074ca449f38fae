"""What enrolled windows say about normal: operating states, and how unusual each band, score and level may be.

Start at `grouped` (which recordings show one operating state) and `calibrate`. Every enrolled window is judged as if
its take had not been enrolled, by the coreset where there are many. A take is a recording; where every operating state
was recorded once, contiguous blocks of the recordings stand in for takes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fisher_edge.decision.bank import MemoryBank
from fisher_edge.decision.coreset import MOST_WINDOWS, coreset
from fisher_edge.decision.predict import ROBUST, Prediction, Usual, pooled, predict

__all__ = [
    "SMALLEST_DISTANCE",
    "USUAL_LEVEL",
    "USUAL_SCORE",
    "Allowed",
    "Calibration",
    "Enrollment",
    "Grouping",
    "Span",
    "calibrate",
    "grouped",
    "held_out_distances",
    "run_means",
    "score_of",
]

Integers = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

BLOCKS = 8
"""Blocks a recording is cut into where it is the only one of its operating state."""
CHUNK_WINDOWS = 64
# Two recordings belong to one operating state when the distance between them is at most this many times the distance
# within them ...
SAME_STATE_RATIO = 3.0
# ... and their levels (log RMS) differ by no more than this: a factor of 2.
SAME_STATE_LEVEL = 0.7
SMALLEST_DISTANCE = 1e-6
"""About the distance between two int8 embeddings of one window, and the floor of squared distances by band."""
SMALLEST_SPREAD = 0.15
"""Added to the spread of a band, in natural log of squared distance: a few equal distances prove no precision."""
TAMED = 3.0
"""Standard deviations of a band beyond which a residual counts no more when it is averaged."""
LONGEST_SPAN = 64
"""Windows over which residuals are averaged at most."""
# Means of the score and of the level of takes of one machine in one operating state have this standard deviation; the
# knowledge is worth so many takes. From enrollments of real machines, see LOG.md for what else they allow.
USUAL_SCORE = Usual(sd=0.35, takes=16)
USUAL_LEVEL = Usual(sd=0.03, takes=8)
# An operating state never enrolled is about as far from the nearest enrolled one as those are from each other: up to
# this many times the squared distance.
UNFAMILIAR_RATIO = 2.5


@dataclass(frozen=True, eq=False)
class Enrollment:
    """Enrolled windows as the calibration needs them.

    Of each window: its recording `take` (n,), where it ends there `end_s` (n,) and its log RMS `level` (n,). `window_s`
    is the time from the first to the last sample of a window.
    """

    bank: MemoryBank
    take: Integers
    end_s: Doubles
    level: Doubles
    window_s: float

    def step_s(self) -> float:
        """Usual time from one window to the next of a recording."""
        steps = np.diff(self.end_s)[np.diff(self.take) == 0]
        return float(np.median(steps)) if len(steps) else self.window_s


@dataclass(frozen=True, eq=False)
class Grouping:
    """Operating state of each take, and the takes that are alone in theirs."""

    state_of_take: tuple[int, ...]
    alone: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Span:
    """What is normal when the residuals of so many windows in a row are averaged.

    `centre` and `spread` (bands,) are of the natural log of the squared residual; `score` predicts that of a take.
    """

    windows: int
    centre: Doubles
    spread: Doubles
    score: Prediction

    def tamed(self, residual: Doubles) -> Doubles:
        """Shorten each band of a residual (..., bands, dim) to what is just about unusual.

        One bang must not stand in the mean of a long span; a change that lasts does, however short it is made.
        """
        longest = np.exp((self.centre + TAMED * self.spread) / 2)
        length = np.sqrt((residual**2).sum(axis=-1))
        return np.asarray(residual * np.minimum(1.0, longest / np.maximum(length, longest))[..., None])

    def unusual(self, residual: Doubles) -> Doubles:
        """How unusual each band (bands,) of a mean residual (bands, dim) is, in standard deviations of that band."""
        squared = (residual**2).sum(axis=-1)
        return np.asarray((_log(squared, self.windows) - self.centre) / self.spread)


@dataclass(frozen=True, eq=False)
class Calibration:
    """What is normal: by span of time, the level of each operating state, and how far an unfamiliar state may be.

    `window_s` is the length of a window, `step_s` the time from one to the next. `zone` is the mean log ratio of
    squared distances up to which a sudden change may be an operating state that was not enrolled, None where only one
    is known. `odd` are takes that were left out of the spread because they are unlike the others of their state.
    `core` (k,) are the windows that others are compared with.
    """

    spans: tuple[Span, ...]
    levels: tuple[Prediction, ...]
    window_s: float
    step_s: float
    zone: float | None
    odd: tuple[int, ...]
    core: Integers

    def windows_now(self, span: Span, step_s: float) -> int:
        """Windows, one every `step_s`, that average out as much chance as a span did at enrollment.

        Overlapping windows share samples: only what they do not share averages out.
        """
        fresh, fresh_now = min(self.step_s, self.window_s), min(step_s, self.window_s)
        return 1 if span.windows == 1 else max(2, math.ceil(span.windows * fresh / fresh_now - 1e-9))

    @property
    def takes(self) -> int:
        """Takes that the spread was learnt from."""
        return self.spans[0].score.takes


def score_of(unusual: Doubles) -> Doubles:
    """Score of a window from its bands (..., bands): the mean of the more unusual half of them.

    A fault moves some bands far, rarely all of them; one band alone is noise.
    """
    half = (unusual.shape[-1] + 1) // 2
    return np.asarray(np.sort(unusual, axis=-1)[..., -half:].mean(axis=-1))


def grouped(enrolled: Enrollment, given: Sequence[str | None] | None = None) -> Grouping:
    """Group takes into operating states: those of one `given` name, and of the rest those alike in shape and level.

    A take alone in its state, where others are not, is one that stands alone.
    """
    rows = enrolled.bank.vectors.reshape(len(enrolled.bank), -1)
    own_of = [np.flatnonzero(enrolled.take == number) for number in np.unique(enrolled.take)]
    levels = [float(np.median(enrolled.level[own])) for own in own_of]
    between = np.array([[_between(rows[first], rows[second]) for second in own_of] for first in own_of])
    between = np.minimum(between, between.T)
    within = _within([_inside(rows, own, enrolled) for own in own_of], between)
    typical = np.maximum(within[:, None], within[None, :])
    near = between <= SAME_STATE_RATIO * np.maximum(typical, np.median(within))
    near &= np.abs(np.subtract.outer(levels, levels)) <= SAME_STATE_LEVEL
    if given is not None:
        names = np.array([name or "" for name in given])
        near = np.where((names == "")[:, None] & (names == "")[None], near, names[:, None] == names[None])
    states = _linked(near)
    alone = tuple(number for number, state in enumerate(states) if states.count(state) == 1 and len(states) > 1)
    return Grouping(states, alone)


def held_out_distances(enrolled: Enrollment, state_of_take: Sequence[int], core: Integers | None = None) -> Doubles:
    """Cosine distance (n,) of each window to the nearest of another take of its state (see `calibrate`); NaN: none.

    `core` (k,) are the windows it is compared with, by default a coreset where there are many.
    """
    allowed = Allowed(enrolled, state_of_take)
    core = coreset(enrolled.bank.vectors, allowed.block) if core is None else core
    rows = enrolled.bank.vectors.reshape(len(enrolled.bank), -1)
    others = rows[core].T
    nearest = [
        np.where(allowed.of(chunk, core), np.maximum(1.0 - (rows[chunk] @ others).astype(np.float64), 0.0), np.inf).min(
            axis=1
        )
        for chunk in _chunks(len(rows))
    ]
    found = np.concatenate(nearest)
    return np.where(np.isfinite(found), found, np.nan)


def calibrate(enrolled: Enrollment, state_of_take: Sequence[int], *, most: int = MOST_WINDOWS) -> Calibration | None:
    """Calibrate a normal state for comparison with at most so many windows; None when no window can be held out."""
    allowed = Allowed(enrolled, state_of_take)
    core = coreset(enrolled.bank.vectors, allowed.block, most)
    residuals, held = _residuals(enrolled.bank, core, allowed)
    if not held.any():
        return None
    spans: list[Span] = []
    odd: tuple[int, ...] = ()
    for windows in _span_lengths():
        runs = _runs(residuals, held, enrolled.take, allowed, windows)
        if runs is None:
            break
        squared, group = runs
        centre, spread = _standard(_log(squared, windows))
        prediction, apart = predict(_held_out_scores(_log(squared, windows), group), group, USUAL_SCORE)
        spans.append(Span(windows, centre, spread, prediction))
        if windows == 1:
            residuals = spans[0].tamed(residuals)
            odd = () if allowed.cut else apart
    of_window = np.asarray(state_of_take, np.int64)[enrolled.take]
    return Calibration(
        spans=tuple(spans),
        levels=_levels(enrolled.level, of_window, np.where(allowed.use, allowed.block, -1 - enrolled.take)),
        window_s=enrolled.window_s,
        step_s=enrolled.step_s(),
        zone=_zone(enrolled.bank, core, of_window, spans[0].centre),
        odd=odd,
        core=core,
    )


class Allowed:
    """Which enrolled windows a window may be compared with: those of other takes (or blocks) of its operating state.

    `block` (n,) is the unit of evidence of each window, `cut` whether blocks stand in for takes, `use` (n,) whose state
    says something about the spread between takes.
    """

    def __init__(self, enrolled: Enrollment, state_of_take: Sequence[int]) -> None:
        states = np.asarray(state_of_take, np.int64)
        self._take, self._end_s, self._window_s = enrolled.take, enrolled.end_s, enrolled.window_s
        self._state = states[enrolled.take]
        single = np.bincount(states)[states] == 1
        self.cut = bool(single.all())
        overlap = max(1, round(enrolled.window_s / enrolled.step_s()))
        self.block = np.empty(len(enrolled.take), np.int64)
        number = 0
        for take in np.unique(enrolled.take):
            own = np.flatnonzero(enrolled.take == take)
            count = max(1, min(BLOCKS, len(own) // overlap)) if single[take] else 1
            self.block[own] = number + np.arange(len(own)) * count // len(own)
            number += count
        self.use = np.full(len(self.block), True) if self.cut else ~single[enrolled.take]

    def held(self, core: Integers) -> Flags:
        """Windows (n,) that may be compared with any of `core` (k,)."""
        return np.concatenate([self.of(chunk, core).any(axis=1) for chunk in _chunks(len(self.block))])

    def of(self, chunk: slice | Integers, core: Integers) -> Flags:
        """Which windows of `core` (chunk, k) those of a chunk may be compared with."""
        other = (self._state[chunk, None] == self._state[core]) & (self.block[chunk, None] != self.block[core])
        overlapping = np.abs(self._end_s[chunk, None] - self._end_s[core]) < self._window_s - 1e-6
        return np.asarray(other & ~((self._take[chunk, None] == self._take[core]) & overlapping))


def _residuals(bank: MemoryBank, core: Integers, allowed: Allowed) -> tuple[Doubles, Flags]:
    """Residual (n, bands, dim) of each window from the own nearest of each band, and whether it has one (n,)."""
    others = bank.only(core)
    residuals, held = np.zeros(bank.vectors.shape), np.zeros(len(bank), np.bool_)
    for chunk in _chunks(len(bank)):
        may = allowed.of(chunk, core)
        held[chunk] = may.any(axis=1)
        residuals[chunk] = others.residuals(bank.vectors[chunk], may)
    return residuals, held


def run_means(rows: Doubles, windows: int) -> Doubles:
    """Means (n - windows + 1, ...) of so many rows (n, ...) in a row."""
    sums = np.cumsum(np.concatenate([np.zeros((1, *rows.shape[1:])), rows]), axis=0)
    return np.asarray((sums[windows:] - sums[:-windows]) / windows)


def _span_lengths() -> Iterator[int]:
    """1, 2, 4, ... windows."""
    windows = 1
    while windows <= LONGEST_SPAN:
        yield windows
        windows *= 2


def _runs(
    residuals: Doubles, held: Flags, take: Integers, allowed: Allowed, windows: int
) -> tuple[Doubles, Integers] | None:
    """Squared mean residuals (runs, bands) of so many windows in a row of one recording, and the take of each (runs,).

    None where fewer than two takes are so long: nothing is known about that span.
    """
    squared, groups = [], []
    for number in np.unique(take):
        own = np.flatnonzero((take == number) & held & allowed.use)
        if len(own) < windows:
            continue
        means = run_means(residuals[own], windows)
        squared.append((means**2).sum(axis=2))
        block = allowed.block[own][: len(means)]
        if allowed.cut and windows > 1:
            longest = max(windows, int(np.bincount(block - block[0]).max()))
            block = block[0] + np.arange(len(means)) // longest
        groups.append(block)
    if not squared:
        return None
    group = np.concatenate(groups)
    return None if windows > 1 and len(np.unique(group)) < 2 else (np.concatenate(squared), group)


def _log(squared: Doubles, windows: int) -> Doubles:
    """Natural log of squared residuals, with a floor that averaging lowers."""
    return np.asarray(np.log(squared + SMALLEST_DISTANCE / windows))


def _standard(logs: Doubles) -> tuple[Doubles, Doubles]:
    """Median and robust standard deviation (bands,) of logs (runs, bands)."""
    centre = np.median(logs, axis=0)
    return centre, ROBUST * np.median(np.abs(logs - centre), axis=0) + SMALLEST_SPREAD


def _held_out_scores(logs: Doubles, group: Integers) -> Doubles:
    """Score (runs,) of logs (runs, bands) by the centre and spread of the other takes, as a new take is scored.

    By their own, takes would look more alike than they are: the upper half of the bands favors those whose spread came
    out too small.
    """
    takes = np.unique(group)
    if len(takes) == 1:
        centre, spread = _standard(logs)
        return score_of((logs - centre) / spread)
    scores = np.empty(len(logs))
    for take in takes:
        own = group == take
        centre, spread = _standard(logs[~own])
        scores[own] = score_of((logs[own] - centre) / spread)
    return scores


def _levels(level: Doubles, state: Integers, block: Integers) -> tuple[Prediction, ...]:
    """Predict the level of each operating state; the spread between takes is pooled over the states."""
    means, within = [], []
    for number in range(int(state.max()) + 1):
        blocks = [level[(state == number) & (block == each)] for each in np.unique(block[state == number])]
        means.append(np.array([of_block.mean() for of_block in blocks]))
        within += [float(of_block.var()) for of_block in blocks]
    freedom = sum(len(of_state) - 1 for of_state in means)
    squares = sum(float(((of_state - of_state.mean()) ** 2).sum()) for of_state in means)
    variance = (squares / freedom if freedom else 0.0) + float(np.mean(within))
    return tuple(pooled(float(each.mean()), variance, freedom, len(each), USUAL_LEVEL) for each in means)


def _zone(bank: MemoryBank, core: Integers, state: Integers, centre: Doubles) -> float | None:
    """How far (mean log ratio of squared distances) from the enrolled states another one may be; None: one is known."""
    if state.max() == 0:
        return None
    ratios, enrolled = [], bank.only(core)
    for number in np.unique(state):
        others = state[core] != number
        logs = [
            _log((enrolled.compare(bank.vectors[window]).residual(others) ** 2).sum(axis=1), 1) - centre
            for window in np.flatnonzero(state == number)
        ]
        ratios.append(float(np.mean(logs)))
    return float(np.median(ratios) + np.log(UNFAMILIAR_RATIO))


def _between(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> float:
    """Median distance of the windows of one recording to the nearest of another."""
    return float(np.median(1.0 - (first @ second.T).max(axis=1)))


def _inside(rows: npt.NDArray[np.float32], own: Integers, enrolled: Enrollment) -> Doubles:
    """Distance of the windows of a recording to the nearest other one that does not overlap; none: empty."""
    distances = np.maximum(1.0 - (rows[own] @ rows[own].T).astype(np.float64), 0.0)
    ends = enrolled.end_s[own]
    apart = np.abs(ends[:, None] - ends[None]) >= enrolled.window_s - 1e-6
    nearest = np.where(apart, distances, np.inf).min(axis=1)
    return np.asarray(nearest[np.isfinite(nearest)])


def _within(inside: Sequence[Doubles], between: Doubles) -> Doubles:
    """Median distance within each recording (takes,); where one is too short to tell, that which is usual."""
    within = np.array([np.median(distances) if len(distances) else np.nan for distances in inside])
    if np.isnan(within).all():
        others = between + np.diag(np.full(len(between), np.inf))
        within = others.min(axis=1) if len(others) > 1 else np.zeros(1)
    return np.maximum(np.where(np.isnan(within), np.nanmedian(within), within), SMALLEST_DISTANCE)


def _linked(near: Flags) -> tuple[int, ...]:
    """Connected groups of a symmetric relation, numbered in the order of their first members."""
    group = [-1] * len(near)
    for first in range(len(near)):
        if group[first] >= 0:
            continue
        number, waiting = max(group) + 1, [first]
        while waiting:
            member = waiting.pop()
            if group[member] < 0:
                group[member] = number
                waiting.extend(int(other) for other in np.flatnonzero(near[member]))
    return tuple(group)


def _chunks(count: int) -> Iterator[slice]:
    """A few windows at a time."""
    return (slice(first, min(first + CHUNK_WINDOWS, count)) for first in range(0, count, CHUNK_WINDOWS))
