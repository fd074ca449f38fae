"""What holds the sensitivity of a normal baseline back, and what would be gained without it. Start at `held_back`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fisher_edge.decision.calibrate import USUAL_LEVEL, USUAL_SCORE, Allowed, Calibration
from fisher_edge.decision.evidence import Rates
from fisher_edge.decision.noticing import Policy, Tested, rounded
from fisher_edge.decision.predict import with_more
from fisher_edge.decision.reactions import Normal, Reactions, Shifts
from fisher_edge.dsp.changes import Change

__all__ = ["HeldBack", "held_back"]

Hourly = tuple[float | None, float | None]
"""Sizes (dB) noticed within an hour: of one band, and of the overall level."""
HOUR_S = 3600.0
# A take can be left out, to see what the others would say, where its operating state has so many.
FEWEST_TO_LEAVE_OUT = 3
SMALLEST_GAIN = 0.05
"""Share by which a size must come down for a cause to be worth a word."""
MORE_ALARMS = 10.0
WINDOWS_TO_COMPARE = 8
"""Windows of each take that say which take is unlike the others."""


@dataclass(frozen=True)
class HeldBack:
    """One choice of the enrollment that makes it less sensitive, and what would be gained without it.

    `cause` is `few takes` (twice as many would help), `blocks` (the same, where every state was recorded once),
    `recorded once` (a second recording of a state would help), `one take` (leaving out the recording `name` would help)
    or `alarm_per_day` (ten times as many false alarms would help). `band_db` and `level_db` are the sizes that are
    noticed within an hour, before and after: in the band of `band_hz`, and of the level as a whole.
    """

    cause: str
    name: str | None
    band_hz: tuple[float, float]
    band_db: tuple[float | None, float | None]
    level_db: tuple[float | None, float | None]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "HeldBack":
        """Rebuild what JSON made of it: lists become tuples."""
        return cls(
            values["cause"],
            values["name"],
            tuple(values["band_hz"]),
            tuple(values["band_db"]),
            tuple(values["level_db"]),
        )

    @property
    def is_gain(self) -> bool:
        """Whether a size comes down by so much that it is worth a word, and the other does not go up."""
        sizes = (self.band_db, self.level_db)
        return any(_is_less(before, after) for before, after in sizes) and not any(
            _is_less(after, before) for before, after in sizes
        )


def held_back(
    normal: Normal, rates: Rates, reactions: Reactions, shifts: Shifts, change: Change, tested: Tested
) -> Iterator[HeldBack]:
    """Yield what makes a baseline less sensitive, the recordings first, where the gain is worth a word.

    The gain is that in one band: `change` is its change, and `tested` what was tried of it.
    """
    calibration = normal.calibration
    before = _hourly(Policy.of(calibration, rates), tested)
    cut = Allowed(normal.windows, normal.state_of_take).cut
    doubled = _hourly(Policy.of(_doubled(calibration), rates), tested)
    found: list[HeldBack | None] = [_compared("blocks" if cut else "few takes", None, change, before, doubled)]
    once = [take for take, state in enumerate(normal.state_of_take) if normal.state_of_take.count(state) == 1]
    if once and not cut:
        names = ", ".join(normal.names[take] for take in once)
        again = _hourly(Policy.of(_recorded_again(calibration), rates), tested)
        found.append(_compared("recorded once", names, change, before, again))
    found += [_left_out(normal, rates, reactions, shifts, change, take) for take in _unlike(normal)]
    more = Rates(max(rates.warning_per_day, MORE_ALARMS * rates.alarm_per_day), MORE_ALARMS * rates.alarm_per_day)
    found.append(_compared("alarm_per_day", None, change, before, _hourly(Policy.of(calibration, more), tested)))
    return (each for each in found if each is not None and each.is_gain)


def _compared(cause: str, name: str | None, change: Change, before: Hourly, after: Hourly) -> HeldBack:
    """Put what is noticed before and after side by side."""
    band_db, level_db = zip(map(rounded, before), map(rounded, after), strict=True)
    return HeldBack(cause, name, (change.low_hz, change.high_hz), band_db, level_db)


def _left_out(
    normal: Normal, rates: Rates, reactions: Reactions, shifts: Shifts, change: Change, take: int
) -> HeldBack | None:
    """Say what leaving one take out would gain, by the takes that both baselines have; None where it cannot be."""
    rest = normal.without(take)
    if rest is None:
        return None
    kept = [other for other in reactions.takes if other != take]
    renumbered = [other - (other > take) for other in kept]
    hourly = []
    for each, takes in ((normal, kept), (rest, renumbered)):
        of_each = Reactions(each, takes)
        tested = [(size, of_each.to(shifts.of(change, size))) for size in change.sizes]
        hourly.append(_hourly(Policy.of(each.calibration, rates), tested))
    return _compared("one take", normal.names[take], change, *hourly)


def _hourly(policy: Policy, tested: Tested) -> Hourly:
    """Say what would be noticed within an hour."""
    return policy.smallest(tested, HOUR_S), policy.level_db(HOUR_S)


def _doubled(calibration: Calibration) -> Calibration:
    """The same calibration from twice as many takes that spread as these do."""
    levels, takes = calibration.levels, sum(level.takes for level in calibration.levels)
    return replace(
        calibration,
        spans=tuple(
            replace(span, score=with_more(span.score, span.score.takes, span.score.takes, USUAL_SCORE))
            for span in calibration.spans
        ),
        levels=tuple(with_more(level, level.takes, takes, USUAL_LEVEL) for level in levels),
    )


def _recorded_again(calibration: Calibration) -> Calibration:
    """The same calibration with a second recording of each operating state that was recorded once."""
    more = sum(level.takes == 1 for level in calibration.levels)
    return replace(
        calibration,
        spans=tuple(
            replace(span, score=with_more(span.score, 2 * more, 2 * more, USUAL_SCORE)) for span in calibration.spans
        ),
        levels=tuple(with_more(level, int(level.takes == 1), more, USUAL_LEVEL) for level in calibration.levels),
    )


def _unlike(normal: Normal) -> list[int]:
    """Takes that differ most from the others of their operating state in shape and in level and can be left out."""
    states = normal.state_of_take
    spare = [take for take, state in enumerate(states) if states.count(state) >= FEWEST_TO_LEAVE_OUT]
    reactions = Reactions(normal, range(len(states)), WINDOWS_TO_COMPARE)
    scores = dict(zip(reactions.takes, reactions.unshifted()[:, 0].tolist(), strict=True))
    levels = {take: float(normal.windows.level[normal.windows.take == take].mean()) for take in spare}
    known = {take: scores[take] for take in spare if take in scores and take not in normal.calibration.odd}
    return sorted({_farthest(values, states) for values in (known, levels) if values})


def _farthest(values: dict[int, float], states: Sequence[int]) -> int:
    """The take whose value is farthest from the mean of the others of its state."""

    def off(take: int) -> float:
        others = [value for other, value in values.items() if states[other] == states[take] and other != take]
        return abs(values[take] - float(np.mean(others))) if others else 0.0

    return max(values, key=off)


def _is_less(before: float | None, after: float | None) -> bool:
    """Whether a size is clearly smaller than before; None: not noticed at any size."""
    return after is not None and (before is None or after < (1 - SMALLEST_GAIN) * before)
