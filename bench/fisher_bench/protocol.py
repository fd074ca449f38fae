"""The arithmetic of the RMIS protocol: sealed splits, the vote of the neighbours, accuracy and area.

Source: RMIS (arXiv 2507.16696, section IV). Splits equal those of scikit-learn's `train_test_split`.
"""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.errors import BadInputError

__all__ = ["FIRST_SEED", "area_under_roc", "macro_accuracy", "sealed_splits", "similarity_vote"]

Labels = npt.NDArray[np.str_]
Indices = npt.NDArray[np.int64]
FIRST_SEED = 111
NEXT_TRY = 100
MOST_TRIES = 1000


def sealed_splits(
    labels: Labels, units: Labels, *, runs: int = 10, asked_share: float = 0.5
) -> Iterator[tuple[Indices, Indices]]:
    """Yield (enrolled, asked) indices: whole units on either side, drawn with the seeds of the protocol.

    While a class is missing on one side the seed is raised by 100 and drawn again. Raises BadInputError when no
    such split exists.
    """
    names = np.asarray(list(dict.fromkeys(zip(labels.tolist(), units.tolist(), strict=True))))
    keys = np.asarray([f"{label}\0{unit}" for label, unit in names])
    of_row = np.asarray([f"{label}\0{unit}" for label, unit in zip(labels, units, strict=True)])
    classes = np.unique(labels)
    asked_count = math.ceil(asked_share * len(keys))
    for run in range(runs):
        for attempt in range(MOST_TRIES):
            order = np.random.RandomState(FIRST_SEED + run + NEXT_TRY * attempt).permutation(len(keys))
            asked = np.isin(of_row, keys[order[:asked_count]])
            sides = np.unique(labels[asked]), np.unique(labels[~asked])
            if all(len(side) == len(classes) for side in sides):
                yield np.flatnonzero(~asked), np.flatnonzero(asked)
                break
        else:
            raise BadInputError("no split has every class on both sides; a class needs at least two recordings")


def similarity_vote(similarity: FloatArray, labels: Labels, k: int = 5) -> Labels:
    """Class of each asked window (n,) from its similarities (n, enrolled): the largest sum over its k nearest.

    A tie goes to the class that comes first in the alphabet.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    k = min(k, len(labels))
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    scores = np.full((len(similarity), len(classes)), -np.inf)
    rows = np.arange(len(similarity))
    for column in nearest.T:
        code = codes[column]
        known = np.where(np.isinf(scores[rows, code]), 0.0, scores[rows, code])
        scores[rows, code] = known + similarity[rows, column]
    winners: Labels = classes[scores.argmax(axis=1)]
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
