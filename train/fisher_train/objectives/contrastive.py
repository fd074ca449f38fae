"""Contrastive pre-training: one machine state at two operating points is a pair, all else is different.

Start at `Contrastive.forward`. The last dimensions of the [CLS] learn by comparison, the first ones preserve what
the spectra of the band look like (pooled.py). Source of the comparison: SimCLR (arXiv 2002.05709), NT-Xent.
"""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from fisher_train.encoder import Encoder, EncoderConfig
from fisher_train.objectives.pooled import DIFFERENCE_WEIGHT, coefficients, lost_of, pooled_target, varied

__all__ = ["Contrastive", "Projector", "nt_xent"]

PRESERVED_WEIGHT = 40.0
"""Weight of the preservation loss, and of the common offset of the compared part, relative to NT-Xent."""


class Contrastive(nn.Module):
    """The `encoder` and its `projector`, trained on pairs of views.

    With more than one of `parts`, views are encoded part by part and again in the backward pass: the memory is that
    of one part, the result that of the whole batch, whose pairs are all compared with each other.
    """

    def __init__(self, config: EncoderConfig, temperature: float = 0.1, *, parts: int = 1) -> None:
        super().__init__()
        self.parts = parts
        self.encoder = Encoder(config)
        self.preserved = coefficients(config) + 2
        self.projector = Projector(config.embed_dim - self.preserved)
        self.temperature = temperature

    def forward(self, views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of pairs (2, pairs, frames, band_width) and facts to log.

        Among several processes, each with the same number of pairs, the embeddings of all are gathered, and
        every process applies the projector (whose batch norm needs the whole batch) and NT-Xent to all of them;
        what is lost of the spectra is a mean over each process's own bands (every second pair has a varied one, and
        groups of neighbours are cut from these, so each process should have a multiple of 8 pairs).
        Averaging the gradients of the processes (DistributedDataParallel) then gives those of one process
        with the whole batch: the projector's are the same everywhere; the encoder's are, on each process, `world`
        times the share of its own pairs (see `gather_pairs`), and the mean of these is the sum of the shares.
        """
        bands = torch.cat([views.flatten(0, 1), varied(views[0, ::2])])
        embeddings = self._embed(bands)
        preserved, compared = embeddings.tensor_split([self.preserved], dim=1)
        config = self.encoder.config
        lost, differences_lost = lost_of(preserved, pooled_target(bands, config), config.embed_dim)
        pairs = compared[: 2 * views.shape[1]].view(*views.shape[:2], -1)
        compared = gather_pairs(pairs).flatten(0, 1)
        first, second = self.projector(compared).float().chunk(2)
        loss, ranked_first = nt_xent(first, second, self.temperature)
        offset = compared.mean(0).square().sum() / config.embed_dim  # a direction that all have in common says nothing
        facts = {
            "ranked_first": ranked_first,
            "nt_xent": loss.detach(),
            "lost": lost.detach(),
            "differences_lost": differences_lost.detach(),
        }
        return loss + PRESERVED_WEIGHT * (lost + DIFFERENCE_WEIGHT * differences_lost + offset), facts

    def _embed(self, bands: Tensor) -> Tensor:
        if self.parts == 1:
            embeddings: Tensor = self.encoder(bands)
            return embeddings
        return torch.cat([checkpoint(self.encoder, part, use_reentrant=False) for part in bands.chunk(self.parts)])

    def after_step(self, step: int, total_steps: int) -> None:
        """Nothing follows a step; objectives have this method in common."""


class Projector(nn.Sequential):
    """Two layers between the embedding and the loss, discarded after training: (n, dim) to (n, out_dim)."""

    def __init__(self, dim: int, hidden_dim: int = 256, out_dim: int = 128) -> None:
        super().__init__(
            nn.Linear(dim, hidden_dim, bias=False),
            nn.BatchNorm1d(hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, out_dim),
        )


def nt_xent(first: Tensor, second: Tensor, temperature: float = 0.1) -> tuple[Tensor, Tensor]:
    """Loss of pairs (n, dim) against all other rows of both views, and the share of pairs ranked first.

    Row i of `first` and row i of `second` belong together; the other 2n - 2 rows are negatives, hard ones among
    them when the batch holds other states of the same machine.
    """
    rows = functional.normalize(torch.cat([first, second]), dim=1)
    similarity = rows @ rows.T / temperature
    similarity.fill_diagonal_(-torch.inf)
    n = len(first)
    partner = torch.arange(2 * n, device=rows.device).roll(n)
    loss = functional.cross_entropy(similarity, partner)
    ranked_first = (similarity.argmax(1) == partner).float().mean()
    return loss, ranked_first.detach()


def gather_pairs(embeddings: Tensor) -> Tensor:
    """Join the embeddings (2, pairs, dim) of all processes along the pairs, with gradients; alone, return them."""
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return embeddings
    gathered: Tensor = _Gather.apply(embeddings)  # type: ignore[no-untyped-call]
    return gathered


class _Gather(torch.autograd.Function):
    """All-gather along dimension 1, and its adjoint.

    The losses of all processes depend on what one of them puts in, so its gradient is the sum over processes of
    the gradients of its part: `world` times that of the loss, since all compute the same one. Own code because
    torch.distributed.nn is deprecated and its successor is not in the oldest torch supported.
    """

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        """Return (2, world * pairs, dim) from (2, pairs, dim)."""
        ctx.pairs = part.shape[1]
        parts = [torch.empty_like(part) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, part.contiguous())
        return torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Sum the gradient over processes and return the part that belongs to this one."""
        summed = gradients[0].clone()
        distributed.all_reduce(summed)
        start = distributed.get_rank() * ctx.pairs
        return summed[:, start : start + ctx.pairs]
