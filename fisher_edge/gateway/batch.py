"""Pieces of several channels that are read together, so that they share calls of their encoder. See `read_together`."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.views import View
from fisher_edge.encoder.base import tokens_of
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.windows import Reading, read
from fisher_edge.gateway.monitored import Plan
from fisher_edge.gateway.work import JudgePiece

__all__ = ["read_together", "tokens_in"]


def tokens_in(work: JudgePiece) -> int:
    """Tokens that a piece costs its encoder."""
    bands, frames, width = work.piece.bands.shape
    return int(bands) * tokens_of(frames, width)


def read_together(works: Sequence[tuple[Plan, JudgePiece]]) -> list[Reading | Exception]:
    """Read pieces, each by the plan of its channel: a reading each, in order, or what went wrong with it.

    Those of the same encoder, front-end and views go to the encoder at once. What goes wrong stays with its piece.
    """
    alike: dict[tuple[int, FrontEnd, tuple[View, ...]], list[int]] = defaultdict(list)
    for place, (plan, _) in enumerate(works):
        alike[id(plan.encoder), plan.cutting.front_end, tuple(plan.judge.views)].append(place)
    found: dict[int, Reading | Exception] = {}
    for places in alike.values():
        plan = works[places[0]][0]
        pieces = [works[place][1] for place in places]
        found |= zip(places, _read(plan.encoder, plan, pieces), strict=True)
    return [found[place] for place in range(len(works))]


def _read(encoder: Encoder, plan: Plan, works: Sequence[JudgePiece]) -> Sequence[Reading | Exception]:
    """Read pieces of one plan's kind; when that fails, one by one."""
    try:
        readings = read(encoder, plan.cutting.front_end, [work.piece for work in works], views=plan.judge.views)
    except Exception as error:  # noqa: BLE001 -- returned, for the worker to report with its channel
        if len(works) == 1:
            return [error]
        return [found for work in works for found in _read(encoder, plan, [work])]
    return [
        reading if work.distrust is None else replace(reading, fault=work.distrust)
        for work, reading in zip(works, readings, strict=True)
    ]
