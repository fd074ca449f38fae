"""Fault diagnosis: the vote of the k nearest, over sealed or official splits, and the curve over the train share.

Start at `score_diagnosis` and `multi_split`. Source: RMIS (arXiv 2507.16696, section IV) as released.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.integrate import simpson, trapezoid

from fisher_bench.protocol import FIRST_SEED, SealedSplit, macro_accuracy, sealed_splits, vote
from fisher_bench.rmis.catalogue import RmisSet
from fisher_bench.rmis.scoring.files import Scored
from fisher_bench.rmis.scoring.neighbours import Neighbours, find_neighbours
from fisher_edge.errors import BadInputError, UsageError

__all__ = ["PAPER_K", "TEST_SHARES", "Curve", "Rule", "area", "multi_split", "score_diagnosis"]

PAPER_K = 10
"""Neighbours on the set with an official split, as the paper has it; the released settings say 5."""
TEST_SHARES = tuple(step / 20 for step in range(1, 20))
"""0.05 to 0.95."""
Rule = Literal["simpson", "trapezoid"]
RULES: dict[Rule, Callable[..., Any]] = {"simpson": simpson, "trapezoid": trapezoid}
"""The released code integrates by Simpson's rule, the paper says trapezoid."""
Labels = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Curve:
    """Mean macro accuracy (per cent) by share of the recordings that are enrolled, end points included."""

    train_shares: tuple[float, ...]
    accuracies: tuple[float, ...]
    left_out: tuple[float, ...] = ()
    """Shares at which a small set has no split with every class on both sides."""


def score_diagnosis(known: RmisSet, scored: Scored, *, runs: int = 10) -> dict[str, Any]:
    """Return `k`, the `runs` with their rows, predictions and macro accuracy, and `mean_macro_accuracy`.

    The set with an official split has one run and is also scored with the k of the paper.
    """
    labels = scored.columns["label"]
    neighbours = find_neighbours(scored.embeddings)
    if known.split == "official":
        return _official(known, scored, neighbours)
    splits = _splits(scored, runs, known.test_share)
    results = [_run(known, labels, neighbours, split, number) for number, split in enumerate(splits)]
    return {
        "k": known.k,
        "test_size": known.test_share,
        "runs": results,
        "mean_macro_accuracy": float(np.mean([result["macro_accuracy"] for result in results])),
    }


def multi_split(known: RmisSet, scored: Scored, *, runs: int = 10) -> Curve:
    """Accuracy over the train share, ten splits each; without training it is chance, with everything 100.

    Raises UsageError for a set that has no sealed split.
    """
    if known.split != "sealed":
        raise UsageError(f"{known.name} has an official split; the curve over the train share is not defined for it")
    labels = scored.columns["label"]
    neighbours = find_neighbours(scored.embeddings)
    points = {0.0: 100 / len(known.classes), 1.0: 100.0}
    left_out = []
    for share in TEST_SHARES:
        try:
            splits = _splits(scored, runs, share)
        except BadInputError:  # too few recordings
            left_out.append(round(1 - share, 2))
            continue
        accuracies = [macro_accuracy(labels[s.asked], _predict(known, labels, neighbours, s, known.k)) for s in splits]
        points[round(1 - share, 2)] = float(np.mean(accuracies))
    shares = tuple(sorted(points))
    return Curve(shares, tuple(points[share] for share in shares), tuple(sorted(left_out)))


def area(curve: Curve, rule: Rule = "simpson") -> float:
    """Area under a curve over the train share, in per cent."""
    return float(RULES[rule](curve.accuracies, x=curve.train_shares))


def _splits(scored: Scored, runs: int, test_share: float) -> list[SealedSplit]:
    """Sealed splits; recordings are numbered in the order of the sorted files, rows as they were given."""
    order = np.argsort(scored.columns["file"], kind="stable")
    labels, keys = scored.columns["label"][order], scored.columns["recording"][order]
    drawn = sealed_splits(labels, keys, runs=runs, asked_share=test_share)
    return [SealedSplit(order[split.enrolled], order[split.asked], split.seed) for split in drawn]


def _run(known: RmisSet, labels: Labels, neighbours: Neighbours, split: SealedSplit, number: int) -> dict[str, Any]:
    predicted = _predict(known, labels, neighbours, split, known.k)
    return {
        "run": number,
        "seed": FIRST_SEED + number,
        "drawn_seed": split.seed,
        "train_rows": split.enrolled.tolist(),
        "test_rows": split.asked.tolist(),
        "predicted": predicted.tolist(),
        "macro_accuracy": macro_accuracy(labels[split.asked], predicted),
    }


def _official(known: RmisSet, scored: Scored, neighbours: Neighbours) -> dict[str, Any]:
    labels, side = scored.columns["label"], scored.columns["split"]
    split = SealedSplit(np.flatnonzero(side == "train"), np.flatnonzero(side == "test"), seed=0)
    if not len(split.enrolled) or not len(split.asked):
        raise UsageError(f"{known.name} has an official split; the files must name both train and test rows")
    accuracies = {
        k: macro_accuracy(labels[split.asked], _predict(known, labels, neighbours, split, k))
        for k in (known.k, PAPER_K)
    }
    return {
        "k": known.k,
        "predicted": _predict(known, labels, neighbours, split, known.k).tolist(),
        "macro_accuracy_by_k": {str(k): accuracy for k, accuracy in accuracies.items()},
        "mean_macro_accuracy": accuracies[known.k],
    }


def _predict(known: RmisSet, labels: Labels, neighbours: Neighbours, split: SealedSplit, k: int) -> Labels:
    """Class of every asked row; a tie goes to the class with the lowest id."""
    code_of = {label: code for code, label in enumerate(known.classes)}
    codes = np.asarray([code_of[label] for label in labels.tolist()])
    rows, cosines = neighbours.nearest(split.enrolled, split.asked, k)
    return np.asarray(known.classes)[vote(cosines, codes[rows], len(known.classes))]
