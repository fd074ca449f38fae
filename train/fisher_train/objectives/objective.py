"""What is trained: one encoder under the contrastive objective, self-distillation or both.

Start at `Objective.forward`. The objectives themselves are in contrastive.py and distillation.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fisher_train.encoder import Encoder, EncoderConfig
from fisher_train.objectives.contrastive import Contrastive
from fisher_train.objectives.distillation import Distillation

__all__ = ["Batch", "MaskedBands", "Objective"]

DISTILLATION_WEIGHT = 0.5
"""Weight of self-distillation relative to the contrastive loss."""


class MaskedBands(NamedTuple):
    """Sub-bands for self-distillation."""

    bands: Tensor
    """(n, frames, band_width)"""
    kept: Tensor
    """(n, clones, n_kept), int64: the patches each clone keeps (masking.py)"""
    seeds: Tensor
    """(n,), int64: of the noise of each band"""
    band_index: Tensor | None = None
    """(n,), int64: place of each band in its signal"""

    def part(self, index: int, parts: int) -> "MaskedBands":
        """Return part `index` of `parts`, as equal as can be."""
        n = len(self.bands)
        chosen = slice(n * index // parts, n * (index + 1) // parts)
        return self._each(lambda tensor: tensor[chosen])

    def to(self, device: torch.device) -> "MaskedBands":
        """Return the bands on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "MaskedBands":
        index = None if self.band_index is None else change(self.band_index)
        return MaskedBands(change(self.bands), change(self.kept), change(self.seeds), index)


class Batch(NamedTuple):
    """This process's share of a batch; what the objective does not use is None."""

    views: Tensor | None = None
    """(2, pairs, frames, band_width): `[0, i]` and `[1, i]` are a pair"""
    masked: MaskedBands | None = None

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        views = None if self.views is None else self.views.to(device, non_blocking=True)
        return Batch(views, self.masked and self.masked.to(device))

    @property
    def n_bands(self) -> int:
        """Sub-bands that are encoded; clones are not counted."""
        views = 0 if self.views is None else self.views.shape[0] * self.views.shape[1]
        return views + (0 if self.masked is None else len(self.masked.bands))


class Objective(nn.Module):
    """One encoder under one or both objectives; `accumulate`: parts into which a batch is divided to save memory."""

    def __init__(self, name: str, config: EncoderConfig, accumulate: int = 1) -> None:
        super().__init__()
        self.accumulate = accumulate
        self.distillation = None if name == "contrastive" else Distillation(config)
        self.contrastive = None if name == "distillation" else Contrastive(config, parts=accumulate)
        if self.contrastive is not None and self.distillation is not None:
            self.contrastive.encoder = self.distillation.encoder

    @property
    def encoder(self) -> Encoder:
        """The encoder that is trained."""
        chosen = self.distillation if self.contrastive is None else self.contrastive
        assert chosen is not None
        return chosen.encoder

    def start_from(self, state: dict[str, Tensor]) -> None:
        """Take an encoder's weights, for the teacher too."""
        self.encoder.load_state_dict(state)
        if self.distillation is not None:
            self.distillation.teacher.load_state_dict(state)

    def parts(self, batch: Batch) -> int:
        """Parts in which `forward` wants a batch: one where all pairs are compared with each other."""
        return 1 if batch.masked is None else min(self.accumulate, len(batch.masked.bands))

    def forward(self, batch: Batch, part: int = 0, parts: int = 1) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of one part of a batch and facts to log; the losses of all parts add up to the batch's.

        Self-distillation is a mean over bands and is simply divided. The contrastive loss compares all pairs of
        the batch with each other: it comes whole with the last part.
        """
        losses: list[Tensor] = []
        facts: dict[str, Tensor] = {}
        if self.distillation is not None and batch.masked is not None:
            masked = batch.masked.part(part, parts)
            loss, facts = self.distillation(*masked)
            weight = 1.0 if self.contrastive is None else DISTILLATION_WEIGHT
            losses.append(loss * (weight * len(masked.bands) / len(batch.masked.bands)))
        if self.contrastive is not None and batch.views is not None and part == parts - 1:
            loss, more = self.contrastive(batch.views)
            losses.append(loss)
            facts = {**facts, **more}
            if self.distillation is not None:
                facts["contrastive_loss"] = loss.detach()
        return torch.stack(losses).sum(), facts

    def after_step(self, step: int, total_steps: int) -> None:
        """Do what follows optimiser step number `step` (from 0) of `total_steps`: move the teacher."""
        for part in (self.distillation, self.contrastive):
            if part is not None:
                part.after_step(step, total_steps)
