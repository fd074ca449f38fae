"""How far a window is from the normal state in one view: evidence beside the distance, never part of it."""

from dataclasses import dataclass

import numpy as np

from fisher_edge.decision.bank import MemoryBank
from fisher_edge.decision.baselines import view_bank, views_of
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.views import View
from fisher_edge.store import Baseline

__all__ = ["ViewScore", "view_scores"]

DEVIATIONS = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
SMALLEST_SHARE = 0.05
"""The spread is at least this share of the median: a handful of near-equal distances proves no precision."""
SMALLEST_SPREAD = 1e-6


@dataclass(frozen=True, eq=False)
class ViewScore:
    """One view of the normal windows, and how far held-out normal windows are from the nearest of the others."""

    view: View
    bank: MemoryBank
    median: float
    spread: float

    def z(self, vector: FloatArray) -> float:
        """Return the distance of a view (bins,) to the nearest normal one, in spreads above the median."""
        distance = float(self.bank.distances(vector[None]).min())
        return (distance - self.median) / self.spread


def view_scores(normal: Baseline, views: tuple[View, ...]) -> list[ViewScore]:
    """Return a score for each of these views that the normal state was enrolled with."""
    enrolled = views_of(normal)
    return [
        _score(view, view_bank([normal], view), normal.facts["views"][enrolled.index(view)]["held_out"])
        for view in views
        if view in enrolled
    ]


def _score(view: View, bank: MemoryBank, held_out: list[float]) -> ViewScore:
    """Take median and spread from the held-out distances: robust, for a state recorded once is an outlier."""
    median = float(np.median(held_out))
    spread = DEVIATIONS * float(np.median(np.abs(np.asarray(held_out) - median)))
    return ViewScore(view, bank, median, max(spread, SMALLEST_SHARE * median, SMALLEST_SPREAD))
