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

    def alarms(self, reaction: Reaction, span: int) -> bool:
        """Whether a change raises an alarm by the evidence of a span."""
        return _score(reaction, span) > self.shape[span].alarm and not self.is_unfamiliar(reaction)

    def smallest(self, tested: Tested, time_s: float) -> float | None:
        """Smallest size that raises an alarm within a time; None: not even the largest that was tried."""
        found = [size for span in self.within(time_s) if (size := self._crossing(tested, span)) is not None]
        return min(found, default=None)

    def level_db(self, time_s: float) -> float | None:
        """Smallest change of the overall level, up or down, that raises an alarm within a time."""
        loudest = LOUDEST * self.level[0].warning
        found = [
            DB * self.level[span].alarm for span in self.within(time_s) if not span or self.level[span].alarm < loudest
        ]
        return min(found, default=None)

    def _crossing(self, tested: Tested, span: int) -> float | None:
        """Size at which a span begins to raise an alarm, between the two sizes around it on a logarithmic axis."""
        before: tuple[float, Reaction] | None = None
        for size, reaction in reversed(tested):
            if self.alarms(reaction, span):
                break
            before = size, reaction
        else:
            return None
        limit = self.shape[span].alarm
        if before is None or _score(before[1], span) >= limit:
            return size
        low, high = _score(before[1], span), _score(reaction, span)
        return float(before[0] * (size / before[0]) ** ((limit - low) / (high - low)))


def _score(reaction: Reaction, span: int) -> float:
    """Score over a span; beyond the longest that was calibrated, that of the longest."""
    return float(reaction.scores[min(span, len(reaction.scores) - 1)])


def rounded(size: float | None) -> float | None:
    """A size in three digits."""
    return None if size is None else float(f"{size:.3g}")
