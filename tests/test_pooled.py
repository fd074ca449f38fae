"""The target of the preserved part of the embedding: what a band was like over time."""

import math

import numpy as np
import pytest
import torch

from fisher_train.encoder import PRESETS
from fisher_train.pooled import CONTRASTIVE_SHARE, KNEE, MEAN_WEIGHT, coefficients, pooled_target, varied


def test_target_is_its_definition() -> None:
    """Cosine coefficients of the loudest and of half the average frame, saturated, completed to one length."""
    bands = np.random.default_rng(0).standard_normal((3, 40, 50)).astype(np.float32)
    found = pooled_target(torch.from_numpy(bands), 128).numpy()
    count = coefficients(128, 50)
    for band, row in zip(bands, found, strict=True):
        numbers = []
        for spectrum, weight in ((band.max(axis=0), 1.0), (band.mean(axis=0), MEAN_WEIGHT)):
            for order in range(1, count + 1):
                cosine = [math.cos(math.pi / 50 * (bin_ + 0.5) * order) * math.sqrt(2 / 50) for bin_ in range(50)]
                numbers.append(weight * float(np.dot(spectrum, cosine)))
        knee = KNEE * math.sqrt(50)
        length = math.sqrt(sum(number**2 for number in numbers) + knee**2)
        expected = np.asarray([*numbers, knee]) / length * math.sqrt(128 * (1 - CONTRASTIVE_SHARE))
        np.testing.assert_allclose(row, expected, atol=1e-4)


def test_target_ignores_the_level_and_is_equally_long() -> None:
    """A constant added to a band in the logarithm (another gain) changes nothing; all targets have one length."""
    bands = torch.randn(5, 96, 50, generator=torch.Generator().manual_seed(0))
    target = pooled_target(bands, 128)
    torch.testing.assert_close(pooled_target(bands + 1.7, 128), target, atol=1e-4, rtol=0)
    torch.testing.assert_close(target.square().sum(1), torch.full((5,), 128 * (1 - CONTRASTIVE_SHARE)))


def test_bands_without_structure_are_alike() -> None:
    """Two nearly flat bands are far more similar than two with peaks in different places."""
    noise = 0.01 * torch.randn(4, 96, 50, generator=torch.Generator().manual_seed(1))
    noise[2, :, 10:15] += 2
    noise[3, :, 30:35] += 2
    rows = torch.nn.functional.normalize(pooled_target(noise, 128), dim=1)
    assert float(rows[0] @ rows[1]) > 0.99
    assert float(rows[2] @ rows[3]) < 0.5


@pytest.mark.parametrize(("preset", "count"), [("nano", 47), ("tiny", 71), ("mini", 95), ("small", 49)])
def test_coefficients_fit_the_embedding(preset: str, count: int) -> None:
    """Three quarters of the dimensions at most, and no more coefficients than a spectrum has."""
    config = PRESETS[preset]
    assert coefficients(config.embed_dim, config.band_width) == count
    assert 2 * count + 1 <= 0.75 * config.embed_dim


def test_varied_band_depends_on_itself_alone() -> None:
    """A band varies the same way wherever it stands in a batch, two bands in different ways, and the target moves."""
    bands = torch.randn(6, 96, 50, generator=torch.Generator().manual_seed(2))
    found = varied(bands)
    torch.testing.assert_close(varied(bands[[4, 1]]), found[[4, 1]])
    changes = found - bands
    assert float((changes[0] - changes[1]).abs().mean()) > 0.1
    moved = (pooled_target(found, 128) - pooled_target(bands, 128)).square().sum(1)
    assert float(moved.min()) > 1
