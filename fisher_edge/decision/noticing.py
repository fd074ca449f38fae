"""Which size of a change raises an alarm, and how soon: reactions against the limits of each span. See `Policy`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fisher_edge.decision.calibrate import Calibration
from fisher_edge.decision.evidence import LOUDEST, Limits, Rates, level_limits, limits
from fisher_edge.decision.reactions import Reaction

__all__ = ["Policy", "Tested", "rounded"]

Tested = list[tuple[float, Reaction]]
"""Sizes of one change that were tried, the largest first, and the reaction to each."""
DB = 20 / math.log(10)
"""Decibel of a factor e."""


@dataclass(frozen=True, eq=False)
class Policy:
    """Limits of shape and level over each span, and the time (s) it takes until a span is full of a change."""

    needed_s: Sequence[float]
    shape: Sequence[Limits]
    level: Sequence[Limits]
    zone: float | None

    @classmethod
    def of(cls, calibration: Calibration, rates: Rates) -> "Policy":
        """Limits of a calibration at the step between windows that it was enrolled with."""
        step_s = calibration.step_s
        spans = limits(calibration, rates, step_s)
        # One window proves nothing: the shortest span needs two.
        needed_s = [calibration.window_s + max(span_s - step_s, step_s) for span_s, _ in spans]
        level = [limit for _, limit in level_limits(calibration, rates, step_s)]
        return cls(needed_s, [limit for _, limit in spans], level, calibration.zone)

    def within(self, time_s: float) -> list[int]:
        """Spans that are full within a time."""
        return [index for index, needed_s in enumerate(self.needed_s) if needed_s <= time_s]

    def is_unfamiliar(self, reaction: Reaction) -> bool:
        """Whether the change is taken for an operating state that was not enrolled, which is no alarm."""
        return self.zone is not None and reaction.log_ratio <= self.zone and _score(reaction, 0) > self.shape[0].warning

    def evidence(self, reaction: Reaction, span: int) -> float:
        """Evidence of a span, of shape or of level, in multiples of its limit of an alarm."""
        if self.is_unfamiliar(reaction):
            return 0.0
        level = self.level[span].over(reaction.level)[1] if self._counts(span) else 0.0
        return max(self.shape[span].over(_score(reaction, span))[1], level)

    def smallest(self, tested: Tested, time_s: float) -> float | None:
        """Smallest size that raises an alarm within a time; None: not even the largest that was tried."""
        found = [size for span in self.within(time_s) if (size := self._crossing(tested, span)) is not None]
        return min(found, default=None)

    def level_db(self, time_s: float) -> float | None:
        """Smallest change of the overall level, up or down, that raises an alarm within a time."""
        found = [DB * self.level[span].alarm for span in self.within(time_s) if self._counts(span)]
        return min(found, default=None)

    def _counts(self, span: int) -> bool:
        """Whether the level can reach the limit of a span: beyond the shortest, single windows are cut off."""
        return span == 0 or self.level[span].alarm < LOUDEST * self.level[0].warning

    def _crossing(self, tested: Tested, span: int) -> float | None:
        """Size at which a span begins to raise an alarm, between the two sizes around it on a logarithmic axis."""
        before: tuple[float, float] | None = None
        for size, reaction in reversed(tested):
            evidence = self.evidence(reaction, span)
            if evidence > 1:
                if before is None:
                    return size
                below, low = before
                return float(below * (size / below) ** ((1 - low) / (evidence - low)))
            before = None if self.is_unfamiliar(reaction) else (size, evidence)
        return None


def _score(reaction: Reaction, span: int) -> float:
    """Score over a span; beyond the longest that was calibrated, that of the longest."""
    return float(reaction.scores[min(span, len(reaction.scores) - 1)])


def rounded(size: float | None) -> float | None:
    """A size in three digits."""
    return None if size is None else float(f"{size:.3g}")
