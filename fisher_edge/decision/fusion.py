"""Fusion: the similarities of the signal and of the views become one, by which classes are scored. Start at `Fusion`.

Pure functions on similarity matrices. The weights come from `fisher_edge.decision.weighing`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray

__all__ = [
    "CLASSES_WITH_TWO_UNITS",
    "SIGNAL",
    "Ballot",
    "Fusion",
    "Scale",
    "Similarities",
    "ViewWeight",
    "as_cosine",
    "class_scores",
    "fuse",
    "neighbors",
    "vote",
]

SIGNAL = "signal"
# A class is scored by at most so many of its windows, ...
MOST_NEIGHBORS = 3
# ... one for each so many windows that a class has.
WINDOWS_A_NEIGHBOR = 4
# Share of the classes that must have two units before a weight is learnt at all.
CLASSES_WITH_TWO_UNITS = 0.75

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
    """Windows named correctly with the view, minus those without, balanced over the classes, at the best weight."""
    changed: int
    """Windows named correctly by one of the two only: the gain must exceed twice the square root of their number."""
    p_value: float | None = None
    """Probability that any of the views seems to know the classes as well by chance; None if it was not tested."""


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

        The order is that of z, and without a weight it is the signal's cosine itself.
        """
        return as_cosine(fuse(similarities, self.scales, self.weights), self.signal)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain JSON values."""
        return asdict(self) | {"views": [asdict(view) for view in self.views]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Fusion":
        """Rebuild what `to_dict` wrote; what older releases wrote has no `p_value`."""
        views = tuple(ViewWeight(**{**view, "scale": Scale(**view["scale"])}) for view in values["views"])
        return cls(**{**values, "signal": Scale(**values["signal"]), "views": views})


@dataclass(frozen=True, eq=False)
class Ballot:
    """Outcome of a vote: the winning class of each query (n,), and how many of its k nearest windows are of it (n,)."""

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


def neighbors(classes: npt.NDArray[np.int64]) -> int:
    """How many windows of a class score it: a quarter of what the median class has, at least 1, at most 3."""
    counts = np.unique(classes, return_counts=True)[1]
    return int(np.clip(np.median(counts) // WINDOWS_A_NEIGHBOR, 1, MOST_NEIGHBORS))


def vote(scores: Similarities, classes: npt.NDArray[np.int64], k: int) -> Ballot:
    """Name the class whose k most similar windows have the largest mean score (n_query, n_bank).

    `classes` (n_bank,) counts from 0. A class with fewer than k windows is scored by all of them. A score of -inf is
    no window. An exact tie goes to the class with the smaller number. The votes count the k most similar windows of
    all classes, so a class can win without one; of windows that are equally similar at their edge, any may be taken.
    """
    winners = class_scores(scores, classes, k).argmax(axis=1)
    best = _best_columns(scores, k)
    voters = np.isfinite(np.take_along_axis(scores, best, axis=1))
    return Ballot(winners, np.count_nonzero(voters & (classes[best] == winners[:, None]), axis=1))


def class_scores(scores: Similarities, classes: npt.NDArray[np.int64], k: int) -> npt.NDArray[np.float64]:
    """Mean (n_query, n_classes) of the k largest finite scores in each class, of fewer where there are fewer."""
    means = np.full((len(scores), int(classes.max()) + 1), -np.inf)
    for each in np.unique(classes):
        means[:, each] = _mean_of_best(scores[:, classes == each], k)
    return means


def _best_columns(scores: Similarities, k: int) -> npt.NDArray[np.int64]:
    """Columns (n_query, k) of the largest scores, in any order; fewer where there are fewer."""
    k = min(k, scores.shape[1])
    return np.argpartition(scores, -k, axis=1)[:, -k:]


def _mean_of_best(scores: Similarities, k: int) -> npt.NDArray[np.float64]:
    """Mean (n_query,) of the k largest finite scores, fewer where there are fewer; -inf without any."""
    best = np.take_along_axis(scores, _best_columns(scores, k), axis=1).astype(np.float64)
    known = np.isfinite(best)
    counts = known.sum(axis=1)
    means: npt.NDArray[np.float64] = np.where(known, best, 0.0).sum(axis=1) / np.maximum(counts, 1)
    return np.where(counts > 0, means, -np.inf)


def _standardise(similarity: Similarities, scale: Scale) -> FloatArray:
    """Return z of every similarity."""
    return ((similarity - np.float32(scale.mean)) / np.float32(scale.std)).astype(np.float32)


def as_cosine(fused: Similarities, signal: Scale) -> FloatArray:
    """Turn a fused z back into a number on the scale of the signal's cosine."""
    return (np.float32(signal.mean) + np.float32(signal.std) * fused).astype(np.float32)
