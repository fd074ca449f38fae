"""What a normal baseline would notice: the smallest changes that raise an alarm. Start at `sensitivity`.

Changes are injected into a few short stretches of the enrolled signal. The mean shift of their embeddings is applied to
enrolled windows, each judged as if its take had not been enrolled, and the evidence of the median take is compared with
the limits of an alarm, span by span, and so is the level. The overall level needs no injection: its limits say what is
noticed.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from fisher_edge.decision.evidence import DAY_S, Rates
from fisher_edge.decision.held_back import HeldBack, held_back
from fisher_edge.decision.noticing import Policy, Tested, rounded
from fisher_edge.decision.reactions import Normal, Reactions, Shifts, Signal
from fisher_edge.dsp.changes import Change, Kind, Unit, tried

__all__ = ["Noticed", "Sensitivity", "sensitivity"]

MINUTE_S, HOUR_S = 60.0, 3600.0


@dataclass(frozen=True)
class Noticed:
    """Smallest size of one change that raises an alarm within a minute, an hour and a day; None: not even `largest`.

    Sizes are in dB, or shares of the energy. `unfamiliar` says that the largest is taken for an operating state that
    was not enrolled, which is a warning. The frequencies of the overall level are None.
    """

    change: Kind
    unit: Unit
    low_hz: float | None
    high_hz: float | None
    largest: float | None
    minute: float | None
    hour: float | None
    day: float | None
    unfamiliar: bool = False

    @property
    def weakness(self) -> tuple[float, ...]:
        """How little is noticed, for comparison: sizes within a day, an hour and a minute; the larger the less.

        What raises a warning of an unfamiliar operating state is not missed.
        """
        none = self.largest if self.unfamiliar and self.largest else math.inf
        return tuple(none if size is None else size for size in (self.day, self.hour, self.minute))

    @property
    def missed(self) -> bool:
        """Whether the largest size would not be noticed within a day."""
        return self.day is None and not self.unfamiliar


@dataclass(frozen=True)
class Sensitivity:
    """What would be noticed, the overall level first, and what holds it back; `spots` stretches were changed."""

    alarm_per_day: float
    spots: int
    noticed: tuple[Noticed, ...]
    held_back: tuple[HeldBack, ...]

    @property
    def bands(self) -> tuple[Noticed, ...]:
        """What would be noticed of each sub-band, lowest first."""
        return tuple(each for each in self.noticed if each.change == "band")

    @property
    def weakest(self) -> Noticed:
        """The band of which the least is noticed."""
        return max(self.bands, key=lambda band: band.weakness)

    @property
    def missed(self) -> tuple[Noticed, ...]:
        """Bands of which not even the largest change would be noticed within a day."""
        return tuple(band for band in self.bands if band.missed)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Sensitivity":
        """Rebuild what `to_dict` gave."""
        return cls(
            alarm_per_day=values["alarm_per_day"],
            spots=values["spots"],
            noticed=tuple(Noticed(**each) for each in values["noticed"]),
            held_back=tuple(HeldBack.from_dict(each) for each in values["held_back"]),
        )


def sensitivity(normal: Normal, signal: Signal, rates: Rates | None = None) -> Sensitivity:
    """Say which changes a normal baseline would notice at a policy, and what holds it back."""
    rates = rates or Rates()
    policy, reactions, shifts = Policy.of(normal.calibration, rates), Reactions(normal), Shifts(signal, normal)
    changes = tried(signal.edges_hz, signal.rate_hz)
    tests = {change: _tested(change, shifts, reactions, policy) for change in changes}
    noticed = {change: _noticed(change, tested, policy) for change, tested in tests.items()}
    bands = [change for change in changes if change.kind == "band"]
    # A gain is a figure where something is noticed already.
    known = [change for change in bands if noticed[change].hour is not None] or bands
    weakest = max(known, key=lambda change: noticed[change].weakness)
    return Sensitivity(
        alarm_per_day=rates.alarm_per_day,
        spots=len(signal.spots),
        noticed=(_level(policy), *noticed.values()),
        held_back=tuple(held_back(normal, rates, reactions, shifts, weakest, tests[weakest])),
    )


def _tested(change: Change, shifts: Shifts, reactions: Reactions, policy: Policy) -> Tested:
    """Try the sizes of a change, the largest first, until one is not noticed within a day."""
    tested: Tested = []
    for size in change.sizes:
        reaction = reactions.to(shifts.of(change, size))
        tested.append((size, reaction))
        if not policy.is_unfamiliar(reaction) and policy.smallest([tested[-1]], DAY_S) is None:
            break
    return tested


def _noticed(change: Change, tested: Tested, policy: Policy) -> Noticed:
    """Say what would be noticed of one change."""
    return Noticed(
        change=change.kind,
        unit=change.unit,
        low_hz=change.low_hz,
        high_hz=change.high_hz,
        largest=change.sizes[0],
        minute=rounded(policy.smallest(tested, MINUTE_S)),
        hour=rounded(policy.smallest(tested, HOUR_S)),
        day=rounded(policy.smallest(tested, DAY_S)),
        unfamiliar=policy.is_unfamiliar(tested[0][1]),
    )


def _level(policy: Policy) -> Noticed:
    """Say what would be noticed of the overall level."""
    return Noticed(
        change="level",
        unit="dB",
        low_hz=None,
        high_hz=None,
        largest=None,
        minute=rounded(policy.level_db(MINUTE_S)),
        hour=rounded(policy.level_db(HOUR_S)),
        day=rounded(policy.level_db(DAY_S)),
    )
