"""The vote of labelled examples and normal windows on what a window shows. Start at `Examples.vote`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fisher_edge.decision.bank import MemoryBank, Vote
from fisher_edge.decision.baselines import bank_of, shared_views, view_bank
from fisher_edge.decision.evidence import Fusion
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.views import View
from fisher_edge.store import Baseline

__all__ = ["Examples", "examples_of"]


@dataclass(frozen=True, eq=False)
class Examples:
    """Normal windows and labelled ones: their signal, and those of their views that have a say."""

    signal: MemoryBank
    views: dict[str, MemoryBank]
    """By the name of the view, in the order of `fusion`."""
    fusion: Fusion | None

    def distance(self, embedding: FloatArray) -> float:
        """Distance of the signal (bands, dim) to the nearest of all these windows."""
        return float(self.signal.distances(embedding).min())

    def vote(self, embedding: FloatArray, vectors: Mapping[str, FloatArray]) -> Vote:
        """Let the most similar windows vote; `vectors` holds the views of the window by name.

        Similar means by the signal and the views together, weighted as learnt at enrolment.
        """
        similarities = [1 - self.signal.distances(embedding)]
        similarities += [1 - bank.distances(vectors[name][None]) for name, bank in self.views.items()]
        if self.fusion is None:
            return self.signal.vote(similarities[0])
        return self.signal.vote(self.fusion.similarity(similarities))


def examples_of(
    normal: Baseline, faults: Sequence[Baseline], fusion: Fusion | None, views: Sequence[View]
) -> Examples | None:
    """Build the examples of a channel for a bundle with these views; None while there is no labelled example."""
    if not faults:
        return None
    baselines = [normal, *faults]
    there = {view.name: view for view in shared_views(baselines) if view in views}
    used = fusion.only(list(there)) if fusion else None
    banks = {view.name: view_bank(baselines, there[view.name]) for view in used.views} if used else {}
    return Examples(bank_of(baselines), banks, used)
