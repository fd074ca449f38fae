"""The arithmetic of the RMIS protocol: sealed splits, the vote of the neighbours, accuracy and area.

Source: RMIS (arXiv 2507.16696, section IV). Splits equal those of scikit-learn's `train_test_split`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.errors import BadInputError

__all__ = [
    "FIRST_SEED",
    "SealedSplit",
    "area_under_roc",
    "macro_accuracy",
    "sealed_splits",
    "similarity_vote",
    "vote",
]

Labels = npt.NDArray[np.str_]
Indices = npt.NDArray[np.int64]
FIRST_SEED = 111
NEXT_TRY = 100
MOST_TRIES = 1000


@dataclass(frozen=True, eq=False)
class SealedSplit:
    """Rows enrolled and asked, in the order in which their units were drawn."""

    enrolled: Indices
    asked: Indices
    seed: int
    """The one that was drawn with in the end."""


def sealed_splits(labels: Labels, units: Labels, *, runs: int = 10, asked_share: float = 0.5) -> Iterator[SealedSplit]:
    """Yield one split a run: whole units on either side, drawn with the seeds of the protocol.

    Units are numbered in the order in which they appear. While a class is missing on one side the seed is raised by
    100 and drawn again. Raises BadInputError when no such split exists.
    """
    rows_of: dict[tuple[str, str], list[int]] = {}
    for row, unit in enumerate(zip(labels.tolist(), units.tolist(), strict=True)):
        rows_of.setdefault(unit, []).append(row)
    groups = list(rows_of.values())
    codes = np.unique([label for label, _ in rows_of], return_inverse=True)[1]
    classes = codes.max(initial=-1) + 1
    asked_count = math.ceil(asked_share * len(groups))
    most_tries = MOST_TRIES if classes <= asked_count <= len(groups) - classes else 0
    for run in range(runs):
        for seed in range(FIRST_SEED + run, FIRST_SEED + run + NEXT_TRY * most_tries, NEXT_TRY):
            order = np.random.RandomState(seed).permutation(len(groups))
            sides = order[asked_count:], order[:asked_count]
            if all(len(np.unique(codes[side])) == classes for side in sides):
                enrolled, asked = (np.concatenate([groups[unit] for unit in side]) for side in sides)
                yield SealedSplit(enrolled, asked, seed)
                break
        else:
            raise BadInputError(
                f"no split of {len(groups)} recordings with {asked_count} on the asked side has all {classes} classes "
                "on both sides; a class needs at least two recordings"
            )


def similarity_vote(similarity: FloatArray, labels: Labels, k: int = 5) -> Labels:
    """Class of each asked window (n,) from its similarities (n, enrolled): the largest sum over its k nearest.

    A tie goes to the class that comes first in the alphabet.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, : min(k, len(labels))]
    winners: Labels = classes[vote(np.take_along_axis(similarity, nearest, axis=1), codes[nearest], len(classes))]
    return winners


def vote(similarity: FloatArray, codes: Indices, classes: int) -> Indices:
    """Class code of each row from the similarities (n, k) and codes (n, k) of its neighbours: the largest sum.

    A class that no neighbour belongs to cannot win; a tie goes to the lowest code.
    """
    scores = np.full((len(similarity), classes), -np.inf)
    rows = np.arange(len(similarity))
    for code, value in zip(codes.T, similarity.T, strict=True):
        known = np.where(np.isinf(scores[rows, code]), 0.0, scores[rows, code])
        scores[rows, code] = known + value
    winners: Indices = scores.argmax(axis=1)
    return winners


def macro_accuracy(truth: Labels, found: Labels) -> float:
    """Mean over the classes of the share of their windows that was found, in per cent."""
    return 100 * float(np.mean([np.mean(found[truth == label] == label) for label in np.unique(truth)]))


def area_under_roc(normal: npt.ArrayLike, anomalous: npt.ArrayLike) -> float:
    """Probability that an anomalous score exceeds a normal one, ties counting half (Mann-Whitney), 0 to 1."""
    n, a = np.asarray(normal, np.float64), np.asarray(anomalous, np.float64)
    if not len(n) or not len(a):
        raise BadInputError("an area under the curve needs scores of both kinds; check the dataset")
    n = np.sort(n)
    below, through = np.searchsorted(n, a, "left"), np.searchsorted(n, a, "right")
    return float(np.mean(below + through) / (2 * len(n)))
