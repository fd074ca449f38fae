"""What a band was like over time, as a target: the part of the [CLS] that keeps what the contrastive loss throws away.

Contrastive training on simulated machines leaves a dozen directions in the embedding; real faults also differ in
others. The first dimensions of the [CLS] therefore learn what the peaks of the band look like and how loud it is
relative to the whole signal, on a scale on which bands without structure hardly count. Start at `pooled_target`.
Source: LOG.md.
"""

import math

import numpy as np
import torch
from torch import Tensor

from fisher_train.encoder import EncoderConfig

__all__ = ["CONTRASTIVE_SHARE", "coefficients", "lost_of", "pooled_target", "varied"]

CONTRASTIVE_SHARE = 0.03
"""Share of the squared length of a [CLS] that the contrastive part has."""
PRESERVED = 0.75
"""Largest share of the dimensions of a [CLS] that preserve spectra."""
ORDER = 17.0
"""Exponent of the power mean over time, in logarithmic units of the front-end: fourth power of the amplitude."""
LEVEL_WEIGHT = 2.0
"""Weight of the mean of the whole band relative to the shape of its peaks."""
KNEE = 0.33
"""Deviation of a bin (in units of the front-end) up to which the target grows with it; beyond, it saturates."""
DIFFERENCE_WEIGHT = 0.1
"""Weight of what is lost of the differences between neighbouring bands, as a share of these differences."""
SMALLEST_DIFFERENCE = 1e-3
"""Share of the mean square of a target: smaller differences may be lost."""
NEIGHBOURS = 4
"""Consecutive bands whose differences count: the four states of one machine, where a batch holds families."""
CURVES, BURSTS = 5, 4
"""Cosines of a random colouring, and frames that may be struck, in a varied band."""


def coefficients(config: EncoderConfig) -> int:
    """Number of cosine coefficients of a spectrum that fit into the preserved part besides level and constant."""
    return min(config.used_bins - 1, int(PRESERVED * config.embed_dim) - 2)


def pooled_target(bands: Tensor, config: EncoderConfig) -> Tensor:
    """Return what the first `K + 2` dimensions of the [CLS] of bands (n, frames, band_width) should be.

    K cosine coefficients, without the mean, of the power mean over time of every bin that the encoder sees, which
    the loudest frames make, and the mean of all bins and frames; their length grows with the structure of the
    spectrum up to saturation, and one more dimension completes it, so that all targets are equally long and bands
    without structure are alike.
    """
    seen = bands[:, :, : config.used_bins]
    basis = _cosines(config.used_bins, coefficients(config)).to(bands)
    peaks = torch.logsumexp(ORDER * seen, dim=1) / ORDER  # but for a constant, which the basis leaves out
    pooled = torch.cat([peaks @ basis, LEVEL_WEIGHT * seen.mean((1, 2))[:, None]], dim=1)
    knee = KNEE * math.sqrt(config.used_bins)
    length = torch.sqrt(pooled.square().sum(1, keepdim=True) + knee**2)
    unit = torch.cat([pooled / length, knee / length], dim=1)
    return unit * math.sqrt(config.embed_dim * (1 - CONTRASTIVE_SHARE))


def lost_of(preserved: Tensor, target: Tensor, embed_dim: int) -> tuple[Tensor, Tensor]:
    """Return what is lost of targets (n, length), and of the differences between neighbouring ones as a share of these.

    Faults of one machine differ by less than machines do: the second number is what keeps them apart. Rows past the
    last whole group of neighbours count in the first number only.
    """
    error = preserved - target
    lost = error.square().sum(1).mean() / embed_dim
    whole = len(target) - len(target) % NEIGHBOURS
    if not whole:
        return lost, torch.zeros_like(lost)
    wrong, apart = (_spread(rows[:whole]) / embed_dim for rows in (error, target))
    return lost, (wrong / (apart + SMALLEST_DIFFERENCE)).mean()


def _spread(rows: Tensor) -> Tensor:
    """Mean squared distance of neighbouring rows from their mean, one number a group."""
    groups = rows.view(-1, NEIGHBOURS, rows.shape[1])
    return (groups - groups.mean(1, keepdim=True)).square().sum(2).mean(1)


def varied(bands: Tensor) -> Tensor:
    """Return bands (n, frames, band_width) as no simulator makes them: mirrored, louder, coloured, struck.

    The shape of a spectrum must be preserved for the bands of any sensor, not only for simulated ones. The numbers
    are drawn from a seed made of the band itself: it varies alike whichever process and place in the batch it has.
    """
    n, frames, width = bands.shape
    seeds = bands.double().sum((1, 2)).abs().mul(1e6).long().tolist()
    drawn = torch.stack([_numbers(seed) for seed in seeds]).to(bands)
    ends = np.cumsum([1, 1, CURVES, BURSTS, BURSTS]).tolist()
    mix, louder, colours, strengths, places, shapes = drawn.tensor_split(ends, dim=1)
    basis = _cosines(width, CURVES).to(bands) * math.sqrt(width / 2)
    mixed = bands + torch.sigmoid(2 * mix)[:, :, None] * (bands.flip(2) - bands)
    struck = torch.zeros(n, frames, device=bands.device, dtype=bands.dtype)
    at = (torch.special.ndtr(places) * frames).long().clamp(0, frames - 1)
    struck.scatter_(1, at, strengths.abs())
    shape = 1 + torch.tanh(shapes @ basis.T)
    coloured = mixed + 0.2 * (louder + colours @ basis.T)[:, None]
    varied_bands: Tensor = coloured + 0.3 * struck[:, :, None] * shape[:, None]
    return varied_bands


def _numbers(seed: int) -> Tensor:
    """Standard normal numbers of one band."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2 + 2 * CURVES + 2 * BURSTS, generator=generator)


def _cosines(width: int, count: int) -> Tensor:
    """Orthonormal cosine basis (width, count) of order 1 to `count` (DCT-II)."""
    position = torch.arange(width, dtype=torch.float64)[:, None] + 0.5
    order = torch.arange(1, count + 1, dtype=torch.float64)
    return torch.cos(math.pi / width * position * order) * math.sqrt(2 / width)
