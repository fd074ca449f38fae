"""How enrolled windows react when their embeddings are shifted: what a lasting change does to the evidence.

Start at `Reactions.to`. Each window is judged as if its take had not been enrolled, and residuals are averaged over
spans as `evidence.Tracker` does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fisher_edge.decision.bank import MemoryBank
from fisher_edge.decision.calibrate import Allowed, Calibration, Enrollment, calibrate, run_means, score_of
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.changes import Change, Spot, changed

__all__ = ["Embed", "Normal", "Reaction", "Reactions", "Shift", "Shifts", "Signal"]

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Embed = Callable[[Sequence[Spot]], FloatArray]
"""Embeds spots: (n, bands, dim)."""
# Takes, and windows in a row of each, that are shifted: more of the takes that are short.
FEWEST_TAKES, MOST_TAKES = 6, 16
MOST_WINDOWS = 64
MOST_SHIFTED = 384


@dataclass(frozen=True, eq=False)
class Normal:
    """A normal state as it was calibrated; the operating state and the name of each take."""

    windows: Enrollment
    state_of_take: Sequence[int]
    names: Sequence[str]
    calibration: Calibration

    def without(self, take: int) -> "Normal | None":
        """The same without one take; None where nothing could be held out any more."""
        kept = self.windows.take != take
        number = self.windows.take[kept]
        windows = replace(
            self.windows,
            bank=MemoryBank(self.windows.bank.vectors[kept]),
            take=np.where(number > take, number - 1, number),
            end_s=self.windows.end_s[kept],
            level=self.windows.level[kept],
        )
        states = [*self.state_of_take[:take], *self.state_of_take[take + 1 :]]
        names = [*self.names[:take], *self.names[take + 1 :]]
        calibration = calibrate(windows, states)
        return None if calibration is None else Normal(windows, states, names, calibration)


@dataclass(frozen=True, eq=False)
class Signal:
    """Stretches of the enrolled signal, the take of each, and how they are embedded; edges of the sub-bands in Hz."""

    spots: Sequence[Spot]
    take: Sequence[int]
    embed: Embed
    edges_hz: Sequence[tuple[float, float]]
    rate_hz: float


@dataclass(frozen=True, eq=False)
class Shift:
    """What a change does: to the unit vectors of each operating state (states, bands, dim), and to the log RMS."""

    vectors: Doubles
    level: float = 0.0


class Shifts:
    """What changes do to the spots of a signal; each is embedded once."""

    def __init__(self, signal: Signal, normal: Normal) -> None:
        self._signal = signal
        self._state = np.array([normal.state_of_take[take] for take in signal.take])
        self._states = max(normal.state_of_take) + 1
        self._before = np.asarray(signal.embed(signal.spots), np.float64)
        self._known: dict[tuple[Change, float], Shift] = {}

    def of(self, change: Change, size: float) -> Shift:
        """Mean shift of the spots of each state; a state without any shifts as all of them do."""
        if (change, size) not in self._known:
            self._known[change, size] = self._shift(change, size)
        return self._known[change, size]

    def _shift(self, change: Change, size: float) -> Shift:
        signal = self._signal
        spots = [changed(spot, change, size, signal.rate_hz) for spot in signal.spots]
        moved = (signal.embed(spots) - self._before) / np.sqrt((self._before**2).sum(axis=(1, 2)))[:, None, None]
        own = [self._state == state for state in range(self._states)]
        vectors = np.stack([(moved[which] if which.any() else moved).mean(axis=0) for which in own])
        levels = [_log_rms(after) - _log_rms(before) for before, after in zip(signal.spots, spots, strict=True)]
        return Shift(vectors, float(np.median(levels)))


@dataclass(frozen=True, eq=False)
class Reaction:
    """The median take after a shift: its score (spans,) over each calibrated span, and how far its windows are.

    `log_ratio` is the mean log ratio of squared distances to normal ones, as in `evidence.Unusual`; `level` is by how
    much the log RMS differs.
    """

    scores: Doubles
    log_ratio: float
    level: float = 0.0


class Reactions:
    """Windows of some takes of a normal state, ready to be shifted.

    `takes` are those that are shifted, at most so many `windows` of each: by default a few, spread evenly over the
    operating states.
    """

    def __init__(self, normal: Normal, takes: Sequence[int] | None = None, windows: int = MOST_WINDOWS) -> None:
        enrolled, states = normal.windows, np.asarray(normal.state_of_take, np.int64)
        allowed = Allowed(enrolled, normal.state_of_take)
        core = normal.calibration.core
        held = np.flatnonzero(allowed.held(core) & allowed.use)
        there = np.unique(enrolled.take[held])
        count = int(np.clip(MOST_SHIFTED * len(there) // len(held), FEWEST_TAKES, MOST_TAKES))
        self.takes = _spread(there, states, count) if takes is None else [take for take in takes if take in there]
        self._bank, self._calibration = enrolled.bank, normal.calibration
        self._chosen = np.concatenate([held[enrolled.take[held] == take][:windows] for take in self.takes])
        self._core, self._among = enrolled.bank.only(core), allowed.of(self._chosen, core)
        self._take = enrolled.take[self._chosen]
        self._state = states[self._take]

    def to(self, shift: Shift) -> Reaction:
        """React to a shift."""
        residuals = self._residuals(shift.vectors)
        first = self._calibration.spans[0]
        log_ratio = (first.unusual(residuals) * first.spread).mean(axis=1)
        medians: list[float] = []
        for scores in self._scores(residuals).T:
            known = scores[~np.isnan(scores)]
            # Where no take is as long as a span, the one before says what is known.
            medians.append(float(np.median(known)) if len(known) else medians[-1])
        return Reaction(np.array(medians), float(np.median(log_ratio)), abs(shift.level))

    def unshifted(self) -> Doubles:
        """Median score (takes, spans) of each take as it was enrolled; NaN where it is shorter than a span."""
        return self._scores(self._residuals(np.zeros((int(self._state.max()) + 1, *self._bank.vectors.shape[1:]))))

    def _residuals(self, vectors: Doubles) -> Doubles:
        """Residuals (windows, bands, dim) of windows shifted by vectors (states, bands, dim)."""
        shifted = self._bank.vectors[self._chosen] + vectors[self._state]
        return self._core.residuals(MemoryBank.of(shifted.astype(np.float32)).vectors, self._among)

    def _scores(self, residuals: Doubles) -> Doubles:
        """Median score (takes, spans) of the runs of each take."""
        spans = self._calibration.spans
        tamed = spans[0].tamed(residuals)
        scores = np.full((len(self.takes), len(spans)), np.nan)
        for row, take in enumerate(self.takes):
            own = self._take == take
            for column, span in enumerate(spans):
                if own.sum() >= span.windows:
                    runs = run_means((residuals if span.windows == 1 else tamed)[own], span.windows)
                    scores[row, column] = np.median(score_of(span.unusual(runs)))
        return scores


def _spread(takes: Integers, states: Integers, count: int) -> list[int]:
    """So many of these takes, spread evenly over the operating states (of each take)."""
    in_order = sorted(takes.tolist(), key=lambda take: (int(states[take]), take))
    places = np.linspace(0, len(in_order) - 1, min(count, len(in_order))).round().astype(int)
    return sorted({in_order[place] for place in places})


def _log_rms(spot: Spot) -> float:
    """Natural log of the RMS of a spot without its mean, with the smallest number that has one."""
    power = sum(float(np.var(part, dtype=np.float64)) * len(part) for part in spot) / sum(map(len, spot))
    return float(np.log(max(power, np.finfo(np.float64).tiny)) / 2)
