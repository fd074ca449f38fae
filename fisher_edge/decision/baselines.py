"""What is enrolled for a channel, changed as one: a baseline, and the weights that are learnt from all of them.

Start at `add`. Whatever adds, activates or removes a baseline learns the weights anew in the same transaction.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from fisher_edge.decision.bank import MemoryBank
from fisher_edge.decision.evidence import SIGNAL, Fusion, weigh
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.views import View
from fisher_edge.errors import BadInputError
from fisher_edge.store import Baseline, Store

__all__ = [
    "NORMAL",
    "Added",
    "activate",
    "active_of",
    "add",
    "bank_of",
    "comparable",
    "front_end_facts",
    "joined",
    "remove",
    "same_front_end",
    "shared_views",
    "specimens_of",
    "view_bank",
    "views_of",
]

log = logging.getLogger(__name__)

NORMAL = "normal"
FIRST_FIELDS = ("band_width", "win_ms", "hop_ms", "max_frames", "mean", "std", "top_band", "amplitude")
"""Of the front-end, in the first version."""


@dataclass(frozen=True)
class Added:
    """What storing a baseline has led to."""

    version: int
    windows_before: int
    """Windows of the version before that it holds, too."""
    fusion: Fusion | None
    """The weights learnt from all that is enrolled now."""


def add(store: Store, baseline: Baseline, *, extend: bool = False) -> Added:
    """Store a baseline as the newest of its channel and label.

    With `extend` it holds the windows of the active version as well. Raises BadInputError when these were made in
    another way or are among the new ones.
    """
    with store.transaction(durable=True):
        enrolled = store.baselines(baseline.asset, baseline.channel, active_only=True) if extend else []
        before = active_of(enrolled, baseline.label)
        version = store.add_baseline(joined(before, baseline) if before else baseline)
        fusion = _learn(store, baseline.asset, baseline.channel)
    return Added(version, len(before.vectors) if before else 0, fusion)


def joined(first: Baseline, second: Baseline) -> Baseline:
    """Return the windows of two enrolments of one label as one baseline, later recordings after earlier ones.

    Raises BadInputError when they were made in different ways, or when both hold the same window.
    """
    label = second.label or NORMAL
    same_length = first.facts["window_frames"] == second.facts["window_frames"]
    if not (_made_alike(first, second) and same_length and views_of(first) == views_of(second)):
        raise BadInputError(
            f"the examples of {label!r} that are enrolled were made with another model, rate or window; enrol all of "
            "them again, without --add"
        )
    if {row.tobytes() for row in first.vectors} & {row.tobytes() for row in second.vectors}:
        raise BadInputError(
            f"some of these windows are among the examples of {label!r} already; leave out the recording they are from"
        )
    earlier, later = first.facts, second.facts
    owners = [number + len(earlier["sources"]) for number in later["source_of_window"]]
    facts = {
        **later,
        "sources": earlier["sources"] + later["sources"],
        "specimens": specimens_of(first) + specimens_of(second),
        "source_of_window": earlier["source_of_window"] + owners,
        "level": _pooled_level(first, second),
    }
    views = None
    if first.views is not None and second.views is not None:
        views = np.concatenate([first.views, second.views])
    return replace(
        second,
        vectors=np.concatenate([first.vectors, second.vectors]),
        times=np.concatenate([first.times, second.times]),
        facts=facts,
        views=views,
    )


def activate(store: Store, asset: str, channel: str, label: str | None, version: int) -> None:
    """Make an earlier version of a baseline the active one again."""
    with store.transaction(durable=True):
        store.activate(asset, channel, label, version)
        _learn(store, asset, channel)


def remove(store: Store, asset: str, channel: str, label: str | None) -> int:
    """Delete all versions of a baseline and return how many there were."""
    with store.transaction(durable=True):
        count = store.remove(asset, channel, label)
        _learn(store, asset, channel)
        return count


def active_of(enrolled: Sequence[Baseline], label: str | None) -> Baseline | None:
    """Return the one of a channel's active baselines that has this label (None: its normal state), if there is one."""
    return next((baseline for baseline in enrolled if baseline.label == label), None)


def specimens_of(baseline: Baseline) -> list[str | None]:
    """Specimen of each recording; older baselines do not name any."""
    return baseline.facts.get("specimens") or [None] * len(baseline.facts["sources"])


def comparable(baselines: Sequence[Baseline], normal: Baseline) -> list[Baseline]:
    """Return the labelled examples made in the same way as the normal state, saying which are not."""
    fitting = []
    for baseline in baselines:
        if baseline.label is None:
            continue
        if _made_alike(baseline, normal):
            fitting.append(baseline)
        else:
            log.warning(
                "the examples of %r for %s/%s have no vote: they were enrolled with another model or rate than the "
                "normal state; enrol them again",
                baseline.label,
                baseline.asset,
                baseline.channel,
            )
    return fitting


def views_of(baseline: Baseline) -> list[View]:
    """Views a baseline was enrolled with, in the order of their vectors."""
    return [View.from_dict(each["view"]) for each in baseline.facts.get("views", [])]


def shared_views(baselines: Sequence[Baseline]) -> list[View]:
    """Views that all of some baselines have, in the order of the first."""
    others = [views_of(baseline) for baseline in baselines[1:]]
    return [view for view in views_of(baselines[0]) if all(view in views for views in others)]


def front_end_facts(front_end: FrontEnd) -> dict[str, Any]:
    """What a baseline keeps of the front-end: all that an embedding depends on, which its views are not."""
    return replace(front_end, views=()).to_dict()


def same_front_end(baseline: Baseline, front_end: FrontEnd) -> bool:
    """Whether embeddings of a front-end can be compared with a baseline of the same model.

    A baseline that does not say comes from a version that knew `FIRST_FIELDS` only and did not overlap bands.
    """
    known = _front_end(baseline)
    if known is None:
        facts = front_end.to_dict()
        known = FrontEnd.from_dict({name: facts[name] for name in FIRST_FIELDS})
        return known == replace(front_end, views=()) and front_end.top_band != "overlap"
    return known == replace(front_end, views=())


def bank_of(baselines: Sequence[Baseline]) -> MemoryBank:
    """Put the windows of some baselines into one bank, labelled."""
    bands = int(baselines[0].facts["bands"])
    vectors = np.concatenate([baseline.vectors for baseline in baselines])
    return MemoryBank.of(vectors.reshape(len(vectors), bands, -1), _labels(baselines))


def view_bank(baselines: Sequence[Baseline], view: View) -> MemoryBank:
    """Put one view of the windows of some baselines, which all have it, into one bank, labelled."""
    vectors = np.concatenate([_view_vectors(baseline, view) for baseline in baselines])
    return MemoryBank.of(vectors[:, None, :], _labels(baselines))


def _labels(baselines: Sequence[Baseline]) -> list[str]:
    """Label of each window."""
    return [baseline.label or NORMAL for baseline in baselines for _ in baseline.vectors]


def _view_vectors(baseline: Baseline, view: View) -> FloatArray:
    """Vectors (windows, bins) of one view."""
    assert baseline.views is not None
    views = views_of(baseline)
    index = views.index(view)
    first = sum(each.bins for each in views[:index])
    return baseline.views[:, first : first + view.bins]


def _learn(store: Store, asset: str, channel: str) -> Fusion | None:
    """Learn the weights from all active baselines of a channel and keep them; None without examples of faults."""
    enrolled = store.baselines(asset, channel, active_only=True)
    normal = active_of(enrolled, None)
    faults = comparable(enrolled, normal) if normal else []
    fusion = _weigh([normal, *faults]) if normal and faults else None
    store.set_fusion(asset, channel, fusion.to_dict() if fusion else None)
    return fusion


def _weigh(baselines: Sequence[Baseline]) -> Fusion:
    """Learn the weights of the views that all these baselines have."""
    vectors = {SIGNAL: np.concatenate([baseline.vectors for baseline in baselines])}
    for view in shared_views(baselines):
        vectors[view.name] = np.concatenate([_view_vectors(baseline, view) for baseline in baselines])
    return weigh(vectors, _labels(baselines), list(chain.from_iterable(map(_units, baselines))))


def _pooled_level(first: Baseline, second: Baseline) -> dict[str, Any]:
    """Level of the windows of both: mean and standard deviation of all, deviations as they were measured."""
    levels = [baseline.facts["level"] for baseline in (first, second)]
    counts = [len(baseline.vectors) for baseline in (first, second)]
    mean = float(np.average([level["mean"] for level in levels], weights=counts))
    squares = [level["std"] ** 2 + (level["mean"] - mean) ** 2 for level in levels]
    held_out = [deviation for level in levels for deviation in level["held_out"]]
    return {"mean": mean, "std": float(np.sqrt(np.average(squares, weights=counts))), "held_out": held_out}


def _units(baseline: Baseline) -> list[str]:
    """What each window was recorded from: its specimen, or its recording where none was named."""
    facts = baseline.facts
    names = [
        f"specimen {specimen}" if specimen else f"recording {number} of {baseline.label or NORMAL}"
        for number, specimen in enumerate(specimens_of(baseline))
    ]
    return [names[number] for number in facts["source_of_window"]]


def _made_alike(left: Baseline, right: Baseline) -> bool:
    """Whether the embeddings of two baselines can be compared; older ones do not say what their front-end was."""
    same_model = left.facts["model"]["sha256"] == right.facts["model"]["sha256"]
    front_ends = (_front_end(left), _front_end(right))
    same_front_end = None in front_ends or front_ends[0] == front_ends[1]
    return same_model and same_front_end and bool(left.facts["rate_hz"] == right.facts["rate_hz"])


def _front_end(baseline: Baseline) -> FrontEnd | None:
    """Front-end a baseline was made with, its views left out; None when it does not say."""
    facts = baseline.facts.get("front_end")
    return FrontEnd.from_dict(facts) if facts else None
