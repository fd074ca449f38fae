"""Weights of views: enrolled windows decide how much a view counts relative to the signal. Start at `weigh`.

Pure functions on vectors and similarity matrices. A view gets a weight only if a permutation test over specimens says
that it knows the classes, and if it improves accuracy on specimens that were left out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fisher_edge.decision.fusion import (
    CLASSES_WITH_TWO_UNITS,
    SIGNAL,
    Fusion,
    Scale,
    Similarities,
    ViewWeight,
    as_cosine,
    class_scores,
    fuse,
    neighbors,
    vote,
)
from fisher_edge.dsp.blocks import FloatArray

__all__ = ["CANDIDATES", "weigh"]

CANDIDATES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
# Probability that any of the views gets a weight by chance.
CHANCE = 0.05
# Random exchanges of specimens with which a view is compared.
SHUFFLES = 199
# A view is not compared any further after so many exchanges were as good: it cannot become significant.
ENOUGH = 20
# The gain is at least so many standard deviations of a fair coin tossed for each window that changed.
GAIN_DEVIATIONS = 2.0
# Windows compared with each other: more are thinned out evenly within each class.
MAX_WINDOWS = 600
SMALLEST_STD = 1e-6
SMALLEST_GAIN = 1e-9
# Share of the windows of a class that count as near enough to its other units.
WITHIN_REACH = 0.95


def weigh(
    vectors_by_view: Mapping[str, FloatArray],
    labels: Sequence[str],
    units: Sequence[str],
    candidates: Sequence[float] = CANDIDATES,
) -> Fusion:
    """Learn the scales and the weights from enrolled windows.

    `vectors_by_view`: name to vectors (n, width) of any length, "signal" among them; `labels` and `units` (n,) are the
    class of each window and what it was recorded from (a specimen if that is known, else a recording): windows of one
    unit are never compared. Each weight is the best of `candidates` by the balanced accuracy of the vote when one
    unit is left out, the lowest of equals. It stays 0 unless three quarters of the classes have two units, the view
    knows the classes (see `_p_value`) and the gain exceeds twice the square root of the number of windows that
    changed. The view that gains most comes first, and the others are tried on top of it.
    """
    names = [SIGNAL, *(name for name in vectors_by_view if name != SIGNAL)]
    kept = _thinned(np.asarray(labels))
    classes = np.unique(np.asarray(labels)[kept], return_inverse=True)[1]
    of_unit = np.unique(np.asarray(units)[kept], return_inverse=True)[1]
    same_unit = of_unit[:, None] == of_unit[None, :]
    similarities = [_cosines(vectors_by_view[name][kept]) for name in names]
    scales = [_scale(similarity[~same_unit]) for similarity in similarities]
    trial = _Trial(similarities, scales, of_unit, classes, _balance(classes, of_unit))
    p_values: list[float | None] = [None] * (len(names) - 1)
    found = [_NOTHING] * len(p_values)
    if trial.may_learn:
        tested = [min(1.0, len(p_values) * _p_value(trial, view)) for view in range(len(p_values))]
        found = _forward(trial, [view for view, each in enumerate(tested) if each <= CHANCE], candidates)
        p_values = [*tested]
    alone, fused = (trial.correct(weights) for weights in ([0.0] * len(found), [weight for weight, _, _ in found]))
    return Fusion(
        signal=scales[0],
        views=tuple(
            ViewWeight(name, scale, *each, p_value)
            for name, scale, each, p_value in zip(names[1:], scales[1:], found, p_values, strict=True)
        ),
        classes=trial.n_classes,
        classes_with_two_units=trial.n_judged_classes,
        windows=int(np.count_nonzero(trial.balance)),
        accuracy=trial.accuracy(alone),
        fused_accuracy=trial.accuracy(fused),
        reach=trial.reach(),
    )


@dataclass(frozen=True, eq=False)
class _Trial:
    """Enrolled windows that vote on each other, those of the same unit left out."""

    similarities: list[Similarities]
    scales: list[Scale]
    of_unit: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]
    balance: npt.NDArray[np.float64]
    """Weight (n,) of each window, the same sum for every class with two units; 0 for windows of other classes."""

    @property
    def same_unit(self) -> npt.NDArray[np.bool_]:
        """Whether two windows (n, n) are of one unit."""
        same: npt.NDArray[np.bool_] = self.of_unit[:, None] == self.of_unit[None, :]
        return same

    @property
    def n_classes(self) -> int:
        """Classes there are."""
        return len(np.unique(self.classes))

    @property
    def n_judged_classes(self) -> int:
        """Classes with two units."""
        return len(np.unique(self.classes[self.balance > 0]))

    @property
    def may_learn(self) -> bool:
        """Whether enough classes have two units, and there is something to tell apart."""
        return self.n_classes > 1 and self.n_judged_classes >= CLASSES_WITH_TWO_UNITS * self.n_classes

    def correct(self, weights: Sequence[float]) -> npt.NDArray[np.bool_]:
        """Whether each window (n,) gets its own class by the vote of the other units."""
        scores = as_cosine(fuse(self.similarities, self.scales, weights), self.scales[0])
        scores[self.same_unit] = -np.inf
        correct: npt.NDArray[np.bool_] = vote(scores, self.classes, neighbors(self.classes)).winners == self.classes
        return correct

    def margin(self, similarity: Similarities) -> float:
        """Score of the own class by the vote of the other units, above the mean of the others: balanced mean."""
        masked = np.where(self.same_unit, -np.inf, similarity)
        scores = class_scores(masked, self.classes, neighbors(self.classes))
        known = np.isfinite(scores)
        own = self.classes[:, None] == np.arange(scores.shape[1])
        sums = np.where(known, scores, 0.0)
        mine, rest, others = (sums * own).sum(axis=1), (sums * ~own).sum(axis=1), (known & ~own).sum(axis=1)
        margins = mine - rest / np.maximum(others, 1)
        judged = (self.balance > 0) & (known & own).any(axis=1) & (others > 0)
        return float((self.balance * margins)[judged].sum())

    def accuracy(self, correct: npt.NDArray[np.bool_]) -> float | None:
        """Share of windows named correctly, balanced over the classes with two units; None without any."""
        total = float(self.balance.sum())
        return float(self.balance[correct].sum()) / total if total else None

    def reach(self) -> float | None:
        """Return the distance within which nearly all windows of any class find another unit of theirs."""
        distant = self.same_unit | (self.classes[:, None] != self.classes[None, :])
        nearest = 1 - np.where(distant, -np.inf, self.similarities[0]).max(axis=1)
        judged = np.unique(self.classes[self.balance > 0])
        return max(
            (float(np.quantile(nearest[self.classes == each], WITHIN_REACH)) for each in judged),
            default=None,
        )


# Weight, gain and changed windows of a view without a say.
_NOTHING = (0.0, 0.0, 0)


def _forward(trial: _Trial, views: Sequence[int], candidates: Sequence[float]) -> list[tuple[float, float, int]]:
    """Return weight, gain and changed windows of every view, taking in the one of `views` that gains most first."""
    count = len(trial.similarities) - 1
    found, weights, waiting = [_NOTHING] * count, [0.0] * count, set(views)
    while waiting:
        tried = {view: _best(trial, weights, view, candidates) for view in sorted(waiting)}
        for view, (_, gain, changed) in tried.items():
            found[view] = (0.0, gain, changed)
        view = max(tried, key=lambda each: tried[each][1])
        weight, gain, changed = tried[view]
        if gain <= GAIN_DEVIATIONS * math.sqrt(changed):
            break
        weights[view], found[view] = weight, (weight, gain, changed)
        waiting.remove(view)
    return found


def _best(trial: _Trial, weights: Sequence[float], view: int, candidates: Sequence[float]) -> tuple[float, float, int]:
    """Return the best weight of one view, the others as they are, with its gain and what changed."""
    before, best = trial.correct(weights), _NOTHING
    for weight in sorted(candidates):
        now = trial.correct([*weights[:view], weight, *weights[view + 1 :]])
        gain = float(trial.balance[now].sum() - trial.balance[before].sum())
        if gain > best[1] + SMALLEST_GAIN:
            best = (float(weight), gain, int(np.count_nonzero((now != before) & (trial.balance > 0))))
    return best


def _p_value(trial: _Trial, view: int) -> float:
    """Probability that a view knows the classes of left-out specimens so well by chance.

    A view that knows nothing of the classes is worth as much when specimens change places. So they are exchanged at
    random, the windows of each staying together, since what these share is no evidence. Where there are too few
    specimens for a small probability, there is none.
    """
    random, blocks = np.random.default_rng(0), _blocks(trial)
    similarity = trial.similarities[1 + view]
    margin = trial.margin(similarity)
    reached, done = 1, 1
    while done <= SHUFFLES and reached < ENOUGH:
        order = _shuffled(blocks, random)
        reached += trial.margin(similarity[np.ix_(order, order)]) >= margin - SMALLEST_GAIN
        done += 1
    return reached / done


def _blocks(trial: _Trial) -> list[npt.NDArray[np.int64]]:
    """Windows of each class of each unit."""
    keys = np.unique(np.stack([trial.of_unit, trial.classes]), axis=1, return_inverse=True)[1].ravel()
    return [np.flatnonzero(keys == each) for each in range(int(keys.max()) + 1)]


def _shuffled(blocks: Sequence[npt.NDArray[np.int64]], random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Window (n,) whose view each window gets when blocks change places; short blocks are repeated."""
    order = np.zeros(sum(map(len, blocks)), np.int64)
    for block, other in zip(blocks, random.permutation(len(blocks)), strict=True):
        order[block] = np.resize(blocks[other], len(block))
    return order


def _balance(classes: npt.NDArray[np.int64], of_unit: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Weight of each window: classes with two units count alike and the mean weight of theirs is 1, others 0."""
    units_of_class = [len(np.unique(of_unit[classes == each])) for each in range(int(classes.max()) + 1)]
    judged = np.asarray(units_of_class)[classes] > 1
    balance = np.where(judged, 1.0 / np.bincount(classes)[classes], 0.0)
    return balance * (np.count_nonzero(judged) / max(float(balance.sum()), 1e-12))


def _thinned(labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Windows to compare: all, or evenly spaced ones of every class, as many of each."""
    names = np.unique(labels)
    if len(labels) <= MAX_WINDOWS:
        return np.arange(len(labels))
    most = max(2, MAX_WINDOWS // len(names))
    kept = []
    for name in names:
        of_class = np.flatnonzero(labels == name)
        count = min(most, len(of_class))
        kept.append(of_class[np.arange(count) * len(of_class) // count])
    return np.sort(np.concatenate(kept))


def _cosines(vectors: FloatArray) -> FloatArray:
    """Cosine of every pair of vectors (n, width): (n, n)."""
    rows = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosines: FloatArray = (rows @ rows.T).astype(np.float32)
    return cosines


def _scale(cosines: Similarities) -> Scale:
    """Return mean and standard deviation of cosines (pairs,); without any pair z is the cosine itself."""
    if not cosines.size:
        return Scale(0.0, 1.0)
    return Scale(float(cosines.mean(dtype=np.float64)), max(float(cosines.std(dtype=np.float64)), SMALLEST_STD))
