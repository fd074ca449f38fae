"""Names of faults: labelled examples and normal windows vote on what a window resembles. Start at `Examples.vote`.

`learn` weighs the views of a channel whenever its baselines change.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fisher_edge.decision.bank import MemoryBank
from fisher_edge.decision.fusion import SIGNAL, Fusion, neighbors, vote
from fisher_edge.decision.judgement import FaultVote
from fisher_edge.decision.weighing import weigh
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.views import View
from fisher_edge.store.baselines import Baseline

__all__ = [
    "NORMAL",
    "Examples",
    "comparable",
    "examples_of",
    "learn",
    "made_alike",
    "normal_of",
    "view_vectors",
    "views_of",
]

NORMAL = "normal"
UNLIKE_ANYTHING = "unlike anything enrolled"
# A window whose nearest example is this many times as far as normal windows typically are resembles none, unless
# examples of one fault lie as far from each other.
FAR_TYPICAL = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Examples:
    """Normal windows and labelled ones: their signal, and those of their views that count."""

    signal: MemoryBank
    labels: tuple[str, ...]
    views: dict[str, MemoryBank]
    """By the name of the view, in the order of `fusion`."""
    fusion: Fusion | None
    reach: float
    """Distance at which another specimen of the same fault may lie (see `Fusion.reach`)."""
    typical: float
    """Median distance of held-out normal windows."""

    def vote(self, embedding: FloatArray, views: Mapping[str, FloatArray]) -> FaultVote:
        """Name the label whose windows are most similar; `views` holds the views of the window by name.

        Similarity counts the signal and the views, weighted as learnt at enrollment.
        """
        distances = self.signal.distances(embedding)
        similarities = [1 - distances]
        similarities += [1 - bank.distances(views[name][None]) for name, bank in self.views.items()]
        fused = similarities[0] if self.fusion is None else self.fusion.similarity(similarities)
        names, classes = np.unique(self.labels, return_inverse=True)
        k = neighbors(classes)
        ballot = vote(fused[None], classes, k)
        far = float(distances.min()) > max(FAR_TYPICAL * self.typical, self.reach)
        label = UNLIKE_ANYTHING if far else str(names[ballot.winners[0]])
        return FaultVote(label, int(ballot.votes[0]), k)


def examples_of(
    normal: Baseline, faults: Sequence[Baseline], fusion: Fusion | None, views: Sequence[View]
) -> Examples | None:
    """Build the examples of a channel for an encoder with these views; None while there is no labelled example."""
    if not faults:
        return None
    baselines = [normal, *faults]
    there = {view.name: view for view in _shared_views(baselines) if view in views}
    used = fusion.only(list(there)) if fusion else None
    banks = {view.name: _view_bank(baselines, there[view.name]) for view in used.views} if used else {}
    signal = MemoryBank.of(np.concatenate([baseline.vectors for baseline in baselines]))
    reach = (fusion.reach or 0.0) if fusion else 0.0
    typical = float(np.median(np.concatenate([state.held_out for state in normal.states])))
    return Examples(signal, tuple(_labels(baselines)), banks, used, reach, typical)


def learn(enrolled: Sequence[Baseline]) -> Fusion | None:
    """Learn the weights from all active baselines of a channel; None without comparable examples of faults."""
    normal = normal_of(enrolled)
    faults = comparable(enrolled, normal) if normal else []
    if normal is None or not faults:
        return None
    baselines = [normal, *faults]
    vectors = {SIGNAL: np.concatenate([each.vectors.reshape(len(each), -1) for each in baselines])}
    for view in _shared_views(baselines):
        vectors[view.name] = np.concatenate([view_vectors(baseline, view) for baseline in baselines])
    units = [unit for baseline in baselines for unit in _units(baseline)]
    return weigh(vectors, _labels(baselines), units)


def normal_of(enrolled: Sequence[Baseline]) -> Baseline | None:
    """Return the normal state among the active baselines of a channel, if there is one."""
    return next((baseline for baseline in enrolled if baseline.label is None), None)


def comparable(enrolled: Sequence[Baseline], normal: Baseline) -> list[Baseline]:
    """Return the labelled examples made in the same way as the normal state, logging which are not."""
    fitting = []
    for baseline in enrolled:
        if baseline.label is None:
            continue
        if made_alike(baseline, normal):
            fitting.append(baseline)
        else:
            log.warning(
                "the examples of %r for %s have no vote: they were enrolled with another model or rate than the normal "
                "state; enroll them again",
                baseline.label,
                baseline.key,
            )
    return fitting


def made_alike(left: Baseline, right: Baseline) -> bool:
    """Whether the embeddings of two baselines can be compared; old ones do not say what their front-end was."""
    front_ends = (left.front_end, right.front_end)
    same_front_end = None in front_ends or front_ends[0] == front_ends[1]
    return left.model_sha256 == right.model_sha256 and same_front_end and left.rate_hz == right.rate_hz


def views_of(baseline: Baseline) -> list[View]:
    """Views a baseline was enrolled with, in the order of their vectors."""
    return [each.view for each in baseline.view_calibrations]


def view_vectors(baseline: Baseline, view: View) -> FloatArray:
    """Vectors (windows, bins) of one view of a baseline."""
    assert baseline.views is not None
    views = views_of(baseline)
    first = sum(each.bins for each in views[: views.index(view)])
    return baseline.views[:, first : first + view.bins]


def _shared_views(baselines: Sequence[Baseline]) -> list[View]:
    """Views that all of some baselines have, in the order of the first."""
    others = [views_of(baseline) for baseline in baselines[1:]]
    return [view for view in views_of(baselines[0]) if all(view in views for views in others)]


def _view_bank(baselines: Sequence[Baseline], view: View) -> MemoryBank:
    """Put one view of the windows of some baselines, which all have it, into one bank."""
    return MemoryBank.of(np.concatenate([view_vectors(baseline, view) for baseline in baselines])[:, None, :])


def _labels(baselines: Sequence[Baseline]) -> list[str]:
    """Label of each window."""
    return [baseline.label or NORMAL for baseline in baselines for _ in baseline.vectors]


def _units(baseline: Baseline) -> list[str]:
    """What each window was recorded from: its specimen, or its recording where none was named."""
    names = [
        f"specimen {take.specimen}" if take.specimen else f"recording {number} of {baseline.label or NORMAL}"
        for number, take in enumerate(baseline.takes)
    ]
    return [names[number] for number in baseline.take]
