"""Batches for self-distillation on recordings: one rate per batch, sub-bands stacked, each with its masks.

Start at `loader`. Batch number s depends on the seed and on s alone, and its signal i on the seed, s and i alone: a
resumed run sees the batches it would have seen, with any number of workers, and processes that divide a batch see
together what one would have seen. Source: FISHER (arXiv 2507.16696), section II.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.errors import FisherEdgeError, UsageError
from fisher_train.encoder import EncoderConfig
from fisher_train.objectives.masking import clones_per_band, kept_patches
from fisher_train.recordings.find import Corpus
from fisher_train.recordings.resample import random_window
from fisher_train.recordings.sampling import HIGHEST_HZ, RateGroups
from fisher_train.workers import in_workers

__all__ = ["Batch", "BatchPlan", "RecordingBatches", "loader"]

RATE_STREAM, SIGNAL_STREAM = 10, 11
"""Streams of random numbers, none shared with the batches of simulated machines."""
PREFETCH = 4


@dataclass(frozen=True)
class BatchPlan:
    """What batches are made of."""

    seed: int
    front_end: FrontEnd
    config: EncoderConfig
    signals: int
    """Signals of a batch, over all processes."""
    frames: int
    """Frames of a window: shorter recordings are padded with zeros after normalisation."""
    max_cloned_bands: int
    highest_hz: int = HIGHEST_HZ


class Batch(NamedTuple):
    """The sub-bands of some signals at one rate: n = signals x bands, the bands of a signal side by side."""

    bands: Tensor
    """(n, frames, band_width), float32."""
    kept: Tensor
    """(n, clones, n_kept), int64: the patches each clone keeps."""
    seeds: Tensor
    """(n,), int64: of the noise in place of masked patches."""
    band_index: Tensor
    """(n,), int64: the place of each band in its signal."""
    filled: Tensor
    """(n,), int64: frames of the signal itself, before those padded with zeros."""
    rate_hz: int
    step: int


class RecordingBatches(IterableDataset[Batch | FisherEdgeError]):
    """Endless batches from a step on, the part of one of `world` processes; an error is yielded as the last item."""

    def __init__(self, plan: BatchPlan, groups: RateGroups, first_step: int = 0, rank: int = 0, world: int = 1) -> None:
        super().__init__()
        if not 0 <= rank < world or plan.signals % world or plan.signals < 1:
            raise UsageError(
                f"{plan.signals} signals of a batch cannot be divided among {world} processes (this is {rank}); choose "
                "a multiple"
            )
        self.plan, self.groups, self.first_step, self.rank, self.world = plan, groups, first_step, rank, world
        self._front_end = replace(plan.front_end, max_frames=plan.frames)

    def __iter__(self) -> Iterator[Batch | FisherEdgeError]:
        """Yield every batch, or in one of n workers every n-th: the loader takes from its workers in turn."""
        worker = get_worker_info()
        step = self.first_step + (worker.id if worker else 0)
        while True:
            try:
                yield self.batch(step)
            except FisherEdgeError as error:
                yield error
                return
            step += worker.num_workers if worker else 1

    def batch(self, step: int) -> Batch:
        """Return this process's part of the batch of one step."""
        plan = self.plan
        rate_hz = self.groups.draw_rate(np.random.default_rng([plan.seed, RATE_STREAM, step]))
        share = plan.signals // self.world
        parts = [self._signal(step, i, rate_hz) for i in range(self.rank * share, (self.rank + 1) * share)]
        bands, kept, seeds, filled = (torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True))
        band_index = torch.arange(self._front_end.n_bands(rate_hz)).repeat(share)
        return Batch(bands, kept, seeds, band_index, filled, rate_hz, step)

    def _signal(self, step: int, place: int, rate_hz: int) -> tuple[np.ndarray, ...]:
        """Return bands, kept patches, seeds and filled frames of one signal of a batch."""
        plan, front_end = self.plan, self._front_end
        rng = np.random.default_rng([plan.seed, SIGNAL_STREAM, step, place])
        recording = self.groups.draw_recording(rng, rate_hz)
        wave = random_window(recording, rate_hz, front_end.n_samples(plan.frames, rate_hz), rng)
        bands = front_end.sub_bands(wave, rate_hz, pad_frames=True)
        n_time, n_freq = plan.config.patch_grid(plan.frames)
        clones = clones_per_band(plan.max_cloned_bands, len(bands))
        kept = kept_patches(rng, n_time, n_freq, clones * len(bands), flatten=plan.config.flatten)
        seeds = rng.integers(1 << 62, size=len(bands))
        filled = np.full(len(bands), min(plan.frames, front_end.n_frames(len(wave), rate_hz)))
        return bands, kept.reshape(len(bands), clones, -1), seeds, filled


def loader(
    corpus: Corpus, plan: BatchPlan, *, first_step: int = 0, workers: int = 1, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """Iterate over batches from a step on, made in this process (0) or in workers of low priority.

    Raises UsageError when the signals of a batch cannot be divided among the processes, BadInputError when there is
    nothing to draw from or a recording can no longer be read.
    """
    groups = RateGroups(corpus.recordings, plan.front_end, plan.highest_hz)
    batches = RecordingBatches(plan, groups, first_step, rank, world)
    return _raising(batches if workers == 0 else in_workers(batches, workers, prefetch=PREFETCH))


def _raising(items: "RecordingBatches | DataLoader[Batch | FisherEdgeError]") -> Iterator[Batch]:
    """Yield batches; an error that a worker sent as its last item is raised here, without the worker's traceback."""
    for item in items:
        if isinstance(item, FisherEdgeError):
            raise item
        yield item
