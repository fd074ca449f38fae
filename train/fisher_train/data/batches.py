"""The batches of a run: each process's share of what the objective asks for.

Start at `batches`. Everything about batch number s depends on the seed and on s alone, and row i of it on i too:
neither the number of processes nor an interruption changes what is trained on.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fisher_edge.dsp.frontend import FrontEnd
from fisher_train.data.simulated import Plan, loader
from fisher_train.encoder import EncoderConfig
from fisher_train.objectives.masking import MAX_CLONED_BANDS, clones_per_band, kept_patches
from fisher_train.objectives.objective import Batch, MaskedBands
from fisher_train.recordings import batches as recordings
from fisher_train.recordings.find import Corpus
from fisher_train.recordings.pairs import SIBLINGS, crop_pairs
from fisher_train.run.distributed import World
from fisher_train.run.settings import Settings

__all__ = ["batches", "plan_for"]

MASK_STREAM, CROP_STREAM = 3, 4
CROP_SHARE = 4
"""Every fourth contrastive pair comes from recordings where there are any."""
STATES = 4
"""States of a simulated machine, each of which is a pair."""
PAIRS_A_SIGNAL = 6
"""With both objectives: pairs of simulated machines for each recording."""
SIMULATED_BANDS = 16
"""A band of a simulated machine is cloned as often as one of a signal of so many bands."""


def batches(
    settings: Settings,
    config: EncoderConfig,
    plan: Plan,
    corpus: Corpus | None,
    world: World,
    *,
    first_step: int,
    workers: int,
) -> Iterator[Batch]:
    """Yield this process's share of the batches from a step on, of simulated machines and of recordings.

    Raises UsageError when a batch cannot be divided equally among the processes, BadInputError when no recording can
    be trained on.
    """
    recorded = None if corpus is None else _recorded(settings, config, plan, corpus, world, first_step, workers)
    if settings.objective == "distillation" and recorded is not None:
        yield from (Batch(masked=masked) for masked in recorded)
        return
    for step, views in enumerate(loader(plan, first_step, workers=min(1, workers)), first_step):
        if corpus is not None:
            views = _with_crops(views, settings, plan, corpus, step)  # noqa: PLW2901 -- the same batch, enlarged
        share = world.share(views.shape[1], "pairs")
        own = views[:, share]
        if settings.objective == "contrastive":
            yield Batch(own)
            continue
        masked = _masked(own, config, settings, step, share.start) if recorded is None else next(recorded)
        yield Batch(own if settings.objective == "both" else None, masked)


def plan_for(settings: Settings, front_end: FrontEnd) -> Plan:
    """Return the plan of simulated machines whose batches have the pairs of the settings.

    Everything is in proportion to the plan's own 96 pairs: families in a batch, held at once and new at each step.
    With recordings, a quarter of the pairs are left to them.
    """
    plan = Plan(settings.seed, front_end)
    usual = STATES * plan.families + plan.singles
    pairs = settings.recipe.batch
    if settings.data:
        pairs -= pairs // (CROP_SHARE * SIBLINGS) * SIBLINGS
    if pairs == usual:
        return plan

    def scaled(number: int) -> int:
        return max(1, round(number * pairs / usual))

    families = min(scaled(plan.families), pairs // STATES)
    singles = pairs - STATES * families
    return replace(
        plan,
        families=families,
        singles=singles,
        held=max(families + singles, scaled(plan.held)),
        first=max(families + singles, scaled(plan.first)),
        new_per_step=scaled(plan.new_per_step),
    )


def _with_crops(views: Tensor, settings: Settings, plan: Plan, corpus: Corpus, step: int) -> Tensor:
    """Fill a batch of simulated machines with pairs of crops of recordings: a quarter of all pairs."""
    missing = settings.recipe.batch - views.shape[1]
    if missing < 1:
        return views
    rng = np.random.default_rng([settings.seed, CROP_STREAM, step])
    return torch.cat([views, torch.from_numpy(crop_pairs(corpus, plan.front_end, rng, missing, plan.frames))], dim=1)


def _recorded(
    settings: Settings, config: EncoderConfig, plan: Plan, corpus: Corpus, world: World, first_step: int, workers: int
) -> Iterator[MaskedBands]:
    """Yield this process's share of the masked bands of recordings."""
    batch = settings.recipe.batch
    signals = batch if settings.objective == "distillation" else max(1, batch // PAIRS_A_SIGNAL)
    recorded = recordings.BatchPlan(
        settings.seed, plan.front_end, config, signals, settings.frames, MAX_CLONED_BANDS[settings.preset]
    )
    for made in recordings.loader(
        corpus, recorded, first_step=first_step, workers=workers, rank=world.rank, world=world.size
    ):
        yield MaskedBands(made.bands, made.kept, made.seeds, made.band_index)


def _masked(views: Tensor, config: EncoderConfig, settings: Settings, step: int, first_row: int) -> MaskedBands:
    """Mask the bands of simulated machines; `first_row` is the place of the first pair in the whole batch."""
    bands = views.transpose(0, 1).flatten(0, 1)  # the two of a pair side by side, so that a share is a slice
    n_time, n_freq = config.patch_grid(bands.shape[1])
    clones = clones_per_band(MAX_CLONED_BANDS[settings.preset], SIMULATED_BANDS)
    seeds, kept = [], []
    for row in range(2 * first_row, 2 * first_row + len(bands)):
        rng = np.random.default_rng([settings.seed, MASK_STREAM, step, row])
        seeds.append(rng.integers(1 << 62))
        kept.append(kept_patches(rng, n_time, n_freq, clones, flatten=config.flatten))
    return MaskedBands(bands, torch.from_numpy(np.stack(kept)), torch.from_numpy(np.array(seeds)))
