"""What a band was like over time, as a target: the part of the [CLS] that keeps what the contrastive loss throws away.

Contrastive training on simulated machines leaves a dozen directions in the embedding; real faults also differ in
others. Three quarters of the [CLS] therefore learn to say what the loudest and the average frame of the band look
like, on a scale on which bands without structure hardly count. Start at `pooled_target`. Source: LOG.md.
"""

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["CONTRASTIVE_SHARE", "coefficients", "pooled_target", "varied"]

CONTRASTIVE_SHARE = 0.1
"""Of the squared length of a [CLS], what is left to the contrastive part."""
PRESERVED = 0.75
"""Of the dimensions of a [CLS], those that preserve spectra, at most."""
MEAN_WEIGHT = 0.5
"""Weight of the average frame beside the loudest."""
KNEE = 0.33
"""Deviation of a bin (in units of the front-end) up to which the target grows with it; beyond, it saturates."""
CURVES, BURSTS = 5, 4
"""Cosines of a random colouring, and frames that may be struck, in a varied band."""


def coefficients(embed_dim: int, band_width: int) -> int:
    """Number of cosine coefficients of a spectrum that fit, twice, into the preserved part beside one constant."""
    return min(band_width - 1, (int(PRESERVED * embed_dim) - 1) // 2)


def pooled_target(bands: Tensor, embed_dim: int) -> Tensor:
    """Return what the first `2 K + 1` dimensions of the [CLS] of bands (n, frames, band_width) should be.

    K cosine coefficients, without the mean, of the loudest frame of every bin and K of the average frame; their
    length grows with the structure of the spectrum up to saturation, and one more dimension completes it, so that
    all targets are equally long and bands without structure are alike.
    """
    width = bands.shape[2]
    basis = _cosines(width, coefficients(embed_dim, width)).to(bands)
    pooled = torch.cat([bands.amax(1) @ basis, MEAN_WEIGHT * bands.mean(1) @ basis], dim=1)
    knee = KNEE * math.sqrt(width)
    length = torch.sqrt(pooled.square().sum(1, keepdim=True) + knee**2)
    unit = torch.cat([pooled / length, knee / length], dim=1)
    return unit * math.sqrt(embed_dim * (1 - CONTRASTIVE_SHARE))


def varied(bands: Tensor) -> Tensor:
    """Return bands (n, frames, band_width) as no simulator makes them: mirrored in part, coloured, some frames struck.

    What a spectrum looks like has to be told of any sensor's bands, not only of those that were simulated. The numbers
    are drawn from a seed made of the band itself: it varies alike whichever process and place in the batch it has.
    """
    n, frames, width = bands.shape
    seeds = bands.double().sum((1, 2)).abs().mul(1e6).long().tolist()
    drawn = torch.stack([_numbers(seed) for seed in seeds]).to(bands)
    ends = np.cumsum([1, CURVES, BURSTS, BURSTS]).tolist()
    mix, colours, strengths, places, shapes = drawn.tensor_split(ends, dim=1)
    basis = _cosines(width, CURVES).to(bands) * math.sqrt(width / 2)
    mixed = bands + torch.sigmoid(2 * mix)[:, :, None] * (bands.flip(2) - bands)
    struck = torch.zeros(n, frames, device=bands.device, dtype=bands.dtype)
    at = (torch.special.ndtr(places) * frames).long().clamp(0, frames - 1)
    struck.scatter_(1, at, strengths.abs())
    shape = 1 + torch.tanh(shapes @ basis.T)
    varied_bands: Tensor = mixed + (0.2 * colours @ basis.T)[:, None] + 0.3 * struck[:, :, None] * shape[:, None]
    return varied_bands


def _numbers(seed: int) -> Tensor:
    """Standard normal numbers of one band."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1 + 2 * CURVES + 2 * BURSTS, generator=generator)


def _cosines(width: int, count: int) -> Tensor:
    """Orthonormal cosine basis (width, count) of order 1 to `count` (DCT-II)."""
    position = torch.arange(width, dtype=torch.float64)[:, None] + 0.5
    order = torch.arange(1, count + 1, dtype=torch.float64)
    return torch.cos(math.pi / width * position * order) * math.sqrt(2 / width)
