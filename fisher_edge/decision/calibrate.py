"""What the enrolled windows say about normal: operating states, held-out distances, levels. Start at `calibrate`.

Every enrolled window is judged as if its recording had not been enrolled. Recordings are grouped into operating states;
each state has its own held-out distances and its own level.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from fisher_edge.decision.bank import MemoryBank
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.store.baselines import OperatingState

__all__ = ["Calibration", "HeldOut", "calibrate", "held_out_distances"]

FOLDS = 4
CHUNK_WINDOWS = 256
ALONE_RATIO = 5.0
# Two recordings belong to one operating state when the distance between them is at most this many times the distance
# within them ...
SAME_STATE_RATIO = 5.0
# ... and their levels (log RMS) differ by no more than this: a factor of 2.
SAME_STATE_LEVEL = 0.7
SMALLEST_DISTANCE = 1e-6

Integers = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Distances (n,) of the enrolled windows that could be held out, whose window each is, recordings like no other."""

    distances: Doubles
    windows: Integers
    alone: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Operating states, state of each recording, and recordings unlike all others."""

    states: tuple[OperatingState, ...]
    state_of_take: tuple[int, ...]
    alone: tuple[int, ...]

    @property
    def held_out(self) -> Doubles:
        """Held-out distances of all states together (n,)."""
        return np.concatenate([state.held_out for state in self.states])


def calibrate(
    bank: MemoryBank, take: Integers, end_s: Doubles, window_s: float, level: Doubles, hum_share: Doubles
) -> Calibration:
    """Calibrate a normal state; of each window: recording `take` (n,), `end_s` (n,) in it, log RMS, share of hum."""
    held_out = held_out_distances(bank, take, end_s, window_s)
    state_of_take = _operating_states(bank, take, end_s, window_s, level)
    of_window = np.array(state_of_take, np.int64)[take]
    states = []
    for number in range(max(state_of_take) + 1):
        own = of_window == number
        deviations = _level_deviations(level[own], take[own])
        states.append(
            OperatingState(
                name=str(number + 1),
                held_out=held_out.distances[own[held_out.windows]],
                level_mean=float(level[own].mean()),
                level_std=float(level[own].std()),
                level_held_out=deviations,
                hum_share=float(hum_share[own].max()),
            )
        )
    return Calibration(tuple(states), state_of_take, held_out.alone)


def held_out_distances(bank: MemoryBank, take: Integers, end_s: Doubles, window_s: float) -> HeldOut:
    """Hold out each recording in turn; `take` (n,) is whose window it is, `end_s` (n,) where in it the window ends.

    A recording far from all others (an operating state recorded once) says nothing about the spread of the others: its
    windows are judged against the rest of itself, in contiguous quarters. That holds for a minority only: where most
    recordings are far from each other, how far they are *is* the spread of the normal state. All that stand alone are
    reported.
    """
    rows = bank.vectors.reshape(len(bank), -1)
    takes = np.unique(take)
    own_of = {int(number): np.flatnonzero(take == number) for number in takes}
    outside = {n: _nearest(rows, own, partial(_elsewhere, others=take != n)) for n, own in own_of.items()}
    inside = {n: _inside(rows, own, end_s, window_s) for n, own in own_of.items()}
    alone = [n for n in own_of if _stands_alone(outside[n][0], inside[n][0])]
    by_itself = alone if len(alone) <= len(takes) / 2 else []
    chosen = [inside[n] if n in by_itself or not len(outside[n][0]) else outside[n] for n in own_of]
    return HeldOut(
        np.concatenate([distances for distances, _ in chosen]),
        np.concatenate([windows for _, windows in chosen]),
        tuple(alone),
    )


def _stands_alone(outside: Doubles, inside: Doubles) -> bool:
    """Whether a recording is much farther from the others than from itself."""
    if not len(outside) or not len(inside):
        return False
    return bool(np.median(outside) > ALONE_RATIO * max(float(np.median(inside)), SMALLEST_DISTANCE))


def _operating_states(
    bank: MemoryBank, take: Integers, end_s: Doubles, window_s: float, level: Doubles
) -> tuple[int, ...]:
    """Number of the operating state of each recording: those near each other in shape and level are linked."""
    rows = bank.vectors.reshape(len(bank), -1)
    own_of = [np.flatnonzero(take == number) for number in np.unique(take)]
    levels = [float(np.median(level[own])) for own in own_of]
    between = np.array([[_between(rows[first], rows[second]) for second in own_of] for first in own_of])
    between = np.minimum(between, between.T)
    within = _within([_inside(rows, own, end_s, window_s)[0] for own in own_of], between)
    typical = np.maximum(within[:, None], within[None, :])
    near = between <= SAME_STATE_RATIO * np.maximum(typical, np.median(within))
    near &= np.abs(np.subtract.outer(levels, levels)) <= SAME_STATE_LEVEL
    return _linked(near)


def _between(first: FloatArray, second: FloatArray) -> float:
    """Median distance of the windows of one recording to the nearest of another."""
    return float(np.median(1.0 - (first @ second.T).max(axis=1)))


def _within(inside: Sequence[Doubles], between: Doubles) -> Doubles:
    """Median distance within each recording (takes,); where one is too short to tell, that which is usual."""
    within = np.array([np.median(distances) if len(distances) else np.nan for distances in inside])
    if np.isnan(within).all():
        others = between + np.diag(np.full(len(between), np.inf))
        within = others.min(axis=1) if len(others) > 1 else np.zeros(1)
    return np.maximum(np.where(np.isnan(within), np.nanmedian(within), within), SMALLEST_DISTANCE)


def _linked(near: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    """Connected groups of a symmetric relation, numbered in the order of their first members."""
    group = [-1] * len(near)
    for first in range(len(near)):
        if group[first] >= 0:
            continue
        number, waiting = max(group) + 1, [first]
        while waiting:
            member = waiting.pop()
            if group[member] < 0:
                group[member] = number
                waiting.extend(int(other) for other in np.flatnonzero(near[member]))
    return tuple(group)


def _level_deviations(level: Doubles, take: Integers) -> Doubles:
    """Deviation of each window's level from that of the other recordings of its state; alone, from its own mean."""
    return np.array(
        [
            abs(value - (level[take != own].mean() if (take != own).any() else level.mean()))
            for value, own in zip(level, take, strict=True)
        ]
    )


def _nearest(
    rows: FloatArray, own: Integers, allowed: Callable[[Integers], npt.NDArray[np.bool_]]
) -> tuple[Doubles, Integers]:
    """Distance of each own window to the nearest allowed one, a few at a time; windows with none are left out."""
    nearest = []
    for first in range(0, len(own), CHUNK_WINDOWS):
        chunk = own[first : first + CHUNK_WINDOWS]
        distances = np.maximum(1.0 - (rows[chunk] @ rows.T).astype(np.float64), 0.0)
        nearest.append(np.where(allowed(chunk), distances, np.inf).min(axis=1))
    found = np.concatenate(nearest)
    there = np.isfinite(found)
    return found[there], own[there]


def _inside(rows: FloatArray, own: Integers, end_s: Doubles, window_s: float) -> tuple[Doubles, Integers]:
    """Distance of each window of a recording to the nearest in another quarter of it, and whose window it is."""
    return _nearest(rows, own, partial(_apart, own=own, end_s=end_s, window_s=window_s))


def _elsewhere(chunk: Integers, others: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Windows of other recordings (chunk, all)."""
    return np.broadcast_to(others, (len(chunk), len(others)))


def _apart(chunk: Integers, own: Integers, end_s: Doubles, window_s: float) -> npt.NDArray[np.bool_]:
    """Windows of the same recording outside a window's own quarter and not overlapping with it (chunk, all)."""
    first, last = float(end_s[own].min()), float(end_s[own].max())
    quarter = np.floor((end_s - first) / (last - first + 1e-9) * FOLDS)
    apart = np.zeros((len(chunk), len(end_s)), np.bool_)
    apart[:, own] = (quarter[chunk, None] != quarter[None, own]) & (
        np.abs(end_s[chunk, None] - end_s[None, own]) >= window_s - 1e-6
    )
    return apart
