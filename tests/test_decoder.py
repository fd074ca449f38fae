"""The decoder's arithmetic, written out once more by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from fisher_train.encoder import PRESETS
from fisher_train.objectives.decoder import Decoder


def test_decoder_is_its_definition() -> None:
    """Grouped 3 x 3 convolution, LayerNorm without affine, GELU, residual, twice; then the linear layer."""
    torch.manual_seed(0)
    decoder = Decoder(8, layers=2, groups=4).double()
    tokens = torch.randn(1, 5 * 3, 8, dtype=torch.float64)
    grid = tokens[0].view(5, 3, 8)
    for layer in decoder.convolutions:
        assert isinstance(layer, nn.Conv2d)
        padded = nn.functional.pad(grid, (0, 0, 1, 1, 1, 1))
        new = torch.empty_like(grid)
        for row, column, channel in np.ndindex(5, 3, 8):
            group = slice(channel // 2 * 2, channel // 2 * 2 + 2)  # 4 groups of 2 channels
            seen = padded[row : row + 3, column : column + 3, group].permute(2, 0, 1)
            assert layer.bias is not None
            new[row, column, channel] = (seen * layer.weight[channel]).sum() + layer.bias[channel]
        normed = (new - new.mean(-1, keepdim=True)) / (new.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        grid = grid + normed * 0.5 * (1 + torch.erf(normed / 2**0.5))
    expected = grid.reshape(15, 8) @ decoder.proj.weight.T + decoder.proj.bias
    torch.testing.assert_close(decoder(tokens, 5, 3)[0], expected)


def test_six_layers_reach_six_patches_far() -> None:
    """A patch influences those within 6 rows and columns of it, and no others."""
    decoder = Decoder(32)
    tokens = torch.randn(1, 20 * 3, 32)
    changed = tokens.clone()
    changed[0, 10 * 3] += 1
    difference = (decoder(changed, 20, 3) - decoder(tokens, 20, 3)).detach()[0].view(20, 3, 32).abs().amax((1, 2))
    assert difference[4:17].min() > 0
    assert difference[[*range(4), *range(17, 20)]].max() == 0


@pytest.mark.parametrize("preset", list(PRESETS))
def test_decoder_fits_every_preset(preset: str) -> None:
    """Sixteen groups divide the width of every preset; the decoder is a small part of the whole."""
    dim = PRESETS[preset].embed_dim
    with torch.device("meta"):
        decoder = Decoder(dim)
    assert sum(value.numel() for value in decoder.parameters()) == 6 * (9 * dim * dim // 16 + dim) + dim * dim + dim
