"""Fusion by evidence: enrolled windows decide how much a view counts relative to the signal. Start at `weigh`.

Pure functions on vectors and similarity matrices. A view gets a weight only where it names the faults of specimens
that were left out better than the signal alone does, by more than chance.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray

__all__ = ["CANDIDATES", "SIGNAL", "Ballot", "Fusion", "K", "Scale", "ViewWeight", "fuse", "vote", "weigh"]

SIGNAL = "signal"
CANDIDATES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
K = 5
CLASSES_WITH_TWO_UNITS = 0.75
"""Share of the classes that must have two units before a weight is learnt at all."""
MAX_WINDOWS = 1500
"""Windows compared with each other: more are thinned out evenly within each class."""
SMALLEST_STD = 1e-6
WITHIN_REACH = 0.95
"""Share of the windows of a class that count as near enough to its other units."""

Similarities = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of the cosine between enrolled windows of different units."""

    mean: float
    std: float


@dataclass(frozen=True)
class ViewWeight:
    """What was found out about one view."""

    name: str
    scale: Scale
    weight: float
    """Beside the signal, whose weight is 1; 0: the view has no say."""
    gain: float
    """Windows, balanced over the classes, that are named rightly only with the view, at the best weight tried."""
    changed: int
    """Windows named rightly by one of the two only: the gain must exceed the square root of their number."""


@dataclass(frozen=True)
class Fusion:
    """How similarities of the signal and of the views become one, and the evidence for it."""

    signal: Scale
    views: tuple[ViewWeight, ...]
    classes: int
    classes_with_two_units: int
    windows: int
    """Windows of the classes with two units, on which the accuracies are measured."""
    accuracy: float | None
    """Of the signal alone, leaving one unit out, averaged over classes; None when no class has two units."""
    fused_accuracy: float | None
    reach: float | None
    """Distance of the signal at which another unit of the same class may lie: the largest of any class; None when no
    class has two units."""

    @property
    def classes_needed(self) -> int:
        """Classes that must have two units before a weight is learnt."""
        return math.ceil(CLASSES_WITH_TWO_UNITS * self.classes)

    @property
    def may_learn(self) -> bool:
        """Whether there was enough to learn weights from."""
        return self.classes > 1 and self.classes_with_two_units >= self.classes_needed

    @property
    def scales(self) -> tuple[Scale, ...]:
        """Scales of the signal and of every view, in order."""
        return (self.signal, *(view.scale for view in self.views))

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights of the views, in order."""
        return tuple(view.weight for view in self.views)

    def only(self, names: Sequence[str]) -> "Fusion":
        """Return the same without the views that have no weight or are not among `names`."""
        return replace(self, views=tuple(view for view in self.views if view.weight and view.name in names))

    def similarity(self, similarities: Sequence[Similarities]) -> Similarities:
        """Fuse similarities (see `fuse`) and write the result on the scale of the signal's cosine.

        The order is that of z, sums of votes stay positive, and without a weight it is the signal's cosine itself.
        """
        return _as_cosine(fuse(similarities, self.scales, self.weights), self.signal)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain JSON values."""
        return asdict(self) | {"views": [asdict(view) for view in self.views]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Fusion":
        """Rebuild what `to_dict` wrote."""
        views = tuple(ViewWeight(**{**view, "scale": Scale(**view["scale"])}) for view in values["views"])
        return cls(**{**values, "signal": Scale(**values["signal"]), "views": views})


@dataclass(frozen=True, eq=False)
class Ballot:
    """Outcome of a vote: the winning class of each query (n,) and how many of the voters are of it (n,)."""

    winners: npt.NDArray[np.int64]
    votes: npt.NDArray[np.int64]


def fuse(similarities: Sequence[Similarities], scales: Sequence[Scale], weights: Sequence[float]) -> Similarities:
    """Fuse similarities (n_query, n_bank) of the signal and of each view: (z_signal + sum w z_view) / (1 + sum w).

    z is the similarity minus the mean of its scale over the standard deviation. The first of `similarities` and
    `scales` is the signal, whose weight is 1; `weights` are those of the views.
    """
    fused, total = _standardise(similarities[0], scales[0]), 1.0 + sum(weights)
    for similarity, scale, weight in zip(similarities[1:], scales[1:], weights, strict=True):
        if weight:
            fused += np.float32(weight) * _standardise(similarity, scale)
    return fused / np.float32(total)


def vote(scores: Similarities, classes: npt.NDArray[np.int64], k: int = K) -> Ballot:
    """Let the k most similar windows vote: the class with the largest sum of scores (n_query, n_bank) wins.

    `classes` (n_bank,) counts from 0. A score of -inf is no voter. An exact tie goes to the class with the smaller
    number; of windows that are equally similar at the edge of the k nearest, any may be taken.
    """
    k = min(k, scores.shape[1])
    nearest = np.argpartition(scores, -k, axis=1)[:, -k:]
    taken = np.take_along_axis(scores, nearest, axis=1).astype(np.float64)
    voters = np.isfinite(taken)
    rows = np.broadcast_to(np.arange(len(scores))[:, None], nearest.shape)
    sums = np.zeros((len(scores), int(classes.max()) + 1))
    counts = np.zeros(sums.shape, np.int64)
    np.add.at(sums, (rows[voters], classes[nearest[voters]]), taken[voters])
    np.add.at(counts, (rows[voters], classes[nearest[voters]]), 1)
    winners = np.where(counts > 0, sums, -np.inf).argmax(axis=1)
    return Ballot(winners, counts[np.arange(len(scores)), winners])


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
    unit is left out, the lowest of equals; it stays 0 unless three quarters of the classes have two units and the
    gain exceeds the square root of the number of windows that changed. The view that gains most comes first, and the
    others are tried on top of it.
    """
    names = [SIGNAL, *(name for name in vectors_by_view if name != SIGNAL)]
    kept = _thinned(np.asarray(labels))
    classes = np.unique(np.asarray(labels)[kept], return_inverse=True)[1]
    of_unit = np.unique(np.asarray(units)[kept], return_inverse=True)[1]
    same_unit = of_unit[:, None] == of_unit[None, :]
    similarities = [_cosines(vectors_by_view[name][kept]) for name in names]
    scales = [_scale(similarity[~same_unit]) for similarity in similarities]
    trial = _Trial(similarities, scales, same_unit, classes, _balance(classes, of_unit))
    alone = trial.named_rightly([0.0] * (len(names) - 1))
    found = [(0.0, 0.0, 0)] * (len(names) - 1)
    if trial.may_learn:
        found = _forward(trial, alone, candidates)
    fused = trial.named_rightly([weight for weight, _, _ in found])
    return Fusion(
        signal=scales[0],
        views=tuple(
            ViewWeight(name, scale, *each) for name, scale, each in zip(names[1:], scales[1:], found, strict=True)
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
    same_unit: npt.NDArray[np.bool_]
    classes: npt.NDArray[np.int64]
    balance: npt.NDArray[np.float64]
    """Weight (n,) of each window, the same sum for every class with two units; 0 for windows of other classes."""

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

    def named_rightly(self, weights: Sequence[float]) -> npt.NDArray[np.bool_]:
        """Whether each window (n,) gets its own class by the vote of the other units."""
        scores = _as_cosine(fuse(self.similarities, self.scales, weights), self.scales[0])
        scores[self.same_unit] = -np.inf
        return np.asarray(vote(scores, self.classes).winners == self.classes)

    def accuracy(self, rightly: npt.NDArray[np.bool_]) -> float | None:
        """Share of windows named rightly, balanced over the classes with two units; None without any."""
        total = float(self.balance.sum())
        return float(self.balance[rightly].sum()) / total if total else None

    def reach(self) -> float | None:
        """Return the distance within which nearly all windows of any class find another unit of theirs."""
        distant = self.same_unit | (self.classes[:, None] != self.classes[None, :])
        nearest = 1 - np.where(distant, -np.inf, self.similarities[0]).max(axis=1)
        judged = np.unique(self.classes[self.balance > 0])
        return max(
            (float(np.quantile(nearest[self.classes == each], WITHIN_REACH)) for each in judged),
            default=None,
        )


def _forward(
    trial: _Trial, rightly: npt.NDArray[np.bool_], candidates: Sequence[float]
) -> list[tuple[float, float, int]]:
    """Return weight, gain and changed windows of every view, taking in the one that gains most first."""
    count = len(trial.similarities) - 1
    found = [(0.0, 0.0, 0)] * count
    weights, waiting = [0.0] * count, set(range(count))
    while waiting:
        tried = {view: _best(trial, weights, view, rightly, candidates) for view in sorted(waiting)}
        for view, (_, gain, changed) in tried.items():
            found[view] = (0.0, gain, changed)
        view = max(tried, key=lambda each: tried[each][1])
        weight, gain, changed = tried[view]
        if gain <= math.sqrt(changed):
            break
        weights[view], found[view] = weight, (weight, gain, changed)
        rightly = trial.named_rightly(weights)
        waiting.remove(view)
    return found


def _best(
    trial: _Trial, weights: Sequence[float], view: int, rightly: npt.NDArray[np.bool_], candidates: Sequence[float]
) -> tuple[float, float, int]:
    """Return the best weight of one view, the others as they are, with the gain over `rightly` and what changed."""
    best = (0.0, 0.0, 0)
    for weight in sorted(candidates):
        now = trial.named_rightly([*weights[:view], weight, *weights[view + 1 :]])
        gain = float(trial.balance[now].sum() - trial.balance[rightly].sum())
        if gain > best[1] + 1e-9:
            best = (float(weight), gain, int(np.count_nonzero((now != rightly) & (trial.balance > 0))))
    return best


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


def _standardise(similarity: Similarities, scale: Scale) -> FloatArray:
    """Return z of every similarity."""
    return ((similarity - np.float32(scale.mean)) / np.float32(scale.std)).astype(np.float32)


def _as_cosine(fused: Similarities, signal: Scale) -> FloatArray:
    """Turn a fused z back into a number on the scale of the signal's cosine."""
    return (np.float32(signal.mean) + np.float32(signal.std) * fused).astype(np.float32)
