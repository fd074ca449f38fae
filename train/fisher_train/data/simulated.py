"""Training batches: simulated families, rendered while training runs and cut into sub-bands.

Start at `loader`. Batch number s depends on the seed and on s alone, so a resumed run sees the batches it would
have seen. A family is drawn from several times while it is in the pool, because rendering costs more than reuse.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from fisher_edge.dsp.frontend import FrontEnd
from fisher_train.run.settings import PAIR_FRAMES
from fisher_train.simulate.family import family
from fisher_train.workers import in_workers

__all__ = ["Batches", "Plan", "loader"]

HalfArray = npt.NDArray[np.float16]
FAMILY_STREAM, BATCH_STREAM = 0, 2
PREFETCH = 8


@dataclass(frozen=True)
class Plan:
    """What batches are made of: families in a sliding window over an endless sequence of them."""

    seed: int
    front_end: FrontEnd
    frames: int = PAIR_FRAMES
    rates_hz: tuple[int, int] = (1_000, 64_000)
    """Sampling rates are drawn evenly in the logarithm between these two."""
    families: int = 12
    """Whole families in a batch: all states of a machine, as hard negatives of each other."""
    singles: int = 48
    """Single states of further machines."""
    held: int = 384
    """Families held at once."""
    first: int = 96
    """Families there at the first step."""
    new_per_step: int = 4


@dataclass(frozen=True, eq=False)
class FamilyBands:
    """A rendered family: `bands` (states, 2, bands, frames, band_width), float16."""

    bands: HalfArray
    weights: npt.NDArray[np.float64]
    """Chance of each band to be drawn: larger where the states differ, for elsewhere nothing can be learnt."""


class Batches(IterableDataset[Tensor]):
    """Endless batches from a step on: (2, pairs, frames, band_width), float32; `[0, i]` and `[1, i]` are a pair.

    A pair is one band of one machine in one state at two operating points. The first pairs come from whole
    families (all states of a machine in one band), the rest are single states.
    """

    def __init__(self, plan: Plan, first_step: int = 0) -> None:
        super().__init__()
        self.plan = plan
        self.first_step = first_step
        self._held: OrderedDict[int, FamilyBands] = OrderedDict()

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the batches of `first_step`, `first_step + 1`, ..."""
        step = self.first_step
        while True:
            yield self.batch(step)
            step += 1

    def batch(self, step: int) -> Tensor:
        """Return the batch of one step."""
        self._advance(step)
        rng = np.random.default_rng([self.plan.seed, BATCH_STREAM, step])
        return _draw(list(self._held.values()), self.plan, rng)

    def _advance(self, step: int) -> None:
        """Forget the oldest families and render the new ones."""
        plan, held = self.plan, self._held
        end = plan.first + step * plan.new_per_step
        start = max(0, end - plan.held)
        for index in [index for index in held if not start <= index < end]:
            del held[index]
        for index in range(max(start, next(reversed(held), -1) + 1), end):
            held[index] = _family_bands(plan, index)


def loader(plan: Plan, first_step: int, *, workers: int) -> Iterator[Tensor]:
    """Iterate over batches from a step on, made in this process (0) or in one worker (1) of low priority."""
    batches = Batches(plan, first_step)
    if workers == 0:
        return iter(batches)
    return iter(in_workers(batches, 1, prefetch=PREFETCH))


def _family_bands(plan: Plan, index: int) -> FamilyBands:
    rng = np.random.default_rng([plan.seed, FAMILY_STREAM, index])
    front_end = plan.front_end
    rate_hz = int(np.exp(rng.uniform(*np.log(plan.rates_hz))))
    waves = family(rng, rate_hz, front_end.n_samples(plan.frames, rate_hz)).waves
    bands = np.asarray([[front_end.sub_bands(wave, rate_hz) for wave in points] for points in waves])
    return FamilyBands(bands.astype(np.float16), _band_weights(bands))


def _band_weights(bands: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Chance of each band: how far faults are from healthy, in units of the distance of two halves of a window."""
    early, late = np.array_split(bands, 2, axis=3)
    noise = np.linalg.norm(early.mean(3) - late.mean(3), axis=-1).mean((0, 1)) / 2
    means = bands.mean(3)
    distance = np.linalg.norm(means[1:] - means[:1], axis=-1).mean((0, 1))
    weights = np.clip(distance / (noise + 1e-3) - 1.4, 0.1, 3.0).astype(np.float64)
    return np.asarray(weights / weights.sum())


def _draw(held: list[FamilyBands], plan: Plan, rng: np.random.Generator) -> Tensor:
    """Draw whole families and single states, each in one band: (2, pairs, frames, band_width)."""
    pairs = []
    for place, index in enumerate(rng.permutation(len(held))[: plan.families + plan.singles]):
        bands, weights = held[index].bands, held[index].weights
        states = bands[:, :, rng.choice(len(weights), p=weights)]
        if place >= plan.families:
            state = rng.integers(len(states))
            states = states[state : state + 1]
        pairs.append(states)
    drawn = np.concatenate(pairs).swapaxes(0, 1)
    return torch.from_numpy(drawn.astype(np.float32))
