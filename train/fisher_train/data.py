"""Training batches: simulated families, rendered while training runs and cut into sub-bands.

Start at `loader`. Batch number s depends on the seed and on s alone, so a resumed run sees the batches it would
have seen. A family is drawn from several times while it is in the pool, because rendering costs more than reuse.
"""

import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from fisher_edge.dsp.frontend import FrontEnd
from fisher_train.simulate import family

__all__ = ["Batches", "Plan", "Pool", "loader"]

HalfArray = npt.NDArray[np.float16]
SHORT_STREAM, LONG_STREAM, BATCH_STREAM = 0, 1, 2
WORKER_NICE = 10


@dataclass(frozen=True)
class Pool:
    """A sliding window over the endless sequence of families of one length."""

    stream: int
    frames: int
    rates_hz: tuple[int, int]
    """Sampling rates are drawn evenly in the logarithm between these two."""
    families: int
    """Families held at once."""
    first: int
    """Families there at the first step."""
    new_per_step: int


@dataclass(frozen=True)
class Plan:
    """What batches are made of."""

    seed: int
    front_end: FrontEnd
    short: Pool = Pool(SHORT_STREAM, frames=96, rates_hz=(1_000, 64_000), families=384, first=96, new_per_step=4)
    long: Pool = Pool(LONG_STREAM, frames=1024, rates_hz=(1_000, 16_000), families=64, first=16, new_per_step=2)
    long_every: int = 4
    """Every so many steps a batch of long windows, so that later positions are seen too."""
    short_families: int = 12
    short_singles: int = 48
    long_families: tuple[tuple[int, int], ...] = ((384, 6), (1024, 3))
    """(frames, families) of long batches, in turn."""


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
        self._held: dict[int, OrderedDict[int, FamilyBands]] = {SHORT_STREAM: OrderedDict(), LONG_STREAM: OrderedDict()}

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the batches of `first_step`, `first_step + 1`, ..."""
        step = self.first_step
        while True:
            yield self.batch(step)
            step += 1

    def batch(self, step: int) -> Tensor:
        """Return the batch of one step."""
        plan = self.plan
        rng = np.random.default_rng([plan.seed, BATCH_STREAM, step])
        turn, rest = divmod(step, plan.long_every)
        if rest != plan.long_every - 1:
            held = self._advance(plan.short, step)
            return _draw(held, plan.short_families, plan.short_singles, plan.short.frames, rng)
        frames, families = plan.long_families[turn % len(plan.long_families)]
        return _draw(self._advance(plan.long, turn), families, 0, frames, rng)

    def _advance(self, pool: Pool, step: int) -> list[FamilyBands]:
        """Bring a pool to a step: forget the oldest families, render the new ones."""
        held = self._held[pool.stream]
        end = pool.first + step * pool.new_per_step
        start = max(0, end - pool.families)
        for index in [index for index in held if not start <= index < end]:
            del held[index]
        for index in range(max(start, next(reversed(held), -1) + 1), end):
            held[index] = _family_bands(self.plan.front_end, pool, self.plan.seed, index)
        return list(held.values())


def loader(plan: Plan, first_step: int, *, workers: int) -> Iterator[Tensor]:
    """Iterate over batches from a step on, made in this process (0) or in one worker (1) of low priority."""
    batches = Batches(plan, first_step)
    if workers == 0:
        return iter(batches)
    return iter(
        DataLoader(
            batches,
            batch_size=None,
            num_workers=1,
            prefetch_factor=8,
            multiprocessing_context="forkserver",  # a spawned worker may abort in torch's threads when it exits
            worker_init_fn=partial(_start_worker, WORKER_NICE),
        )
    )


def _start_worker(nice: int, _worker: int) -> None:
    os.nice(nice)
    torch.set_num_threads(1)


def _family_bands(front_end: FrontEnd, pool: Pool, seed: int, index: int) -> FamilyBands:
    """Render family number `index` of a pool."""
    rng = np.random.default_rng([seed, pool.stream, index])
    rate_hz = int(np.exp(rng.uniform(*np.log(pool.rates_hz))))
    waves = family(rng, rate_hz, front_end.n_samples(pool.frames, rate_hz)).waves
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


def _draw(held: list[FamilyBands], families: int, singles: int, frames: int, rng: np.random.Generator) -> Tensor:
    """Draw whole families and single states, each in one band, and one crop of `frames` for each family."""
    chosen = rng.permutation(len(held))[: families + singles]
    pairs = []
    for place, index in enumerate(chosen):
        bands, weights = held[index].bands, held[index].weights
        states, _, n_bands, length, _ = bands.shape
        band, start = rng.choice(n_bands, p=weights), rng.integers(length - frames + 1)
        crop = bands[:, :, band, start : start + frames]
        if place >= families:
            state = rng.integers(states)
            crop = crop[state : state + 1]
        pairs.append(crop)
    drawn = np.concatenate(pairs).swapaxes(0, 1)
    return torch.from_numpy(drawn.astype(np.float32))
