"""Contrastive pre-training: one machine state at two operating points is a pair, all else is different.

Source of the loss: SimCLR (arXiv 2002.05709), NT-Xent.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Projector", "nt_xent"]


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
