"""The target of the preserved part of the embedding: what a band was like over time."""

import math

import numpy as np
import pytest
import torch

from fisher_train.encoder import PRESETS
from fisher_train.objectives.pooled import CONTRASTIVE_SHARE, coefficients, lost_of, pooled_target, varied

NANO = PRESETS["nano"]


def test_target_is_its_definition() -> None:
    """Cosine coefficients of the power mean and twice the level, saturated, completed to one length."""
    bands = np.random.default_rng(0).standard_normal((3, 40, 50)).astype(np.float32)
    found = pooled_target(torch.from_numpy(bands), NANO).numpy()
    for band, row in zip(bands[:, :, :48], found, strict=True):
        peaks = [math.log(sum(math.exp(17 * value) for value in bin_) / 40) / 17 for bin_ in band.T.tolist()]
        numbers = []
        for order in range(1, 48):
            cosine = [math.cos(math.pi / 48 * (bin_ + 0.5) * order) * math.sqrt(2 / 48) for bin_ in range(48)]
            numbers.append(float(np.dot(peaks, cosine)))
        numbers.append(2 * float(band.mean()))
        knee = 0.33 * math.sqrt(48)
        length = math.sqrt(sum(number**2 for number in numbers) + knee**2)
        expected = np.asarray([*numbers, knee]) / length * math.sqrt(128 * (1 - CONTRASTIVE_SHARE))
        np.testing.assert_allclose(row, expected, atol=1e-4)


def test_target_knows_what_the_encoder_sees() -> None:
    """Bins past the last whole patch are not in the target, for no encoder could learn them."""
    bands = torch.randn(2, 96, 50, generator=torch.Generator().manual_seed(3))
    target = pooled_target(bands, NANO)
    bands[:, :, 48:] += 5
    torch.testing.assert_close(pooled_target(bands, NANO), target, atol=0, rtol=0)


def test_lost_differences_are_a_share_of_the_differences() -> None:
    """An offset that neighbours share loses no difference; halved differences lose a quarter of their square."""
    target = torch.randn(8, 95, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 3
    lost, differences_lost = lost_of(target + 1, target, 128)
    assert float(lost) == pytest.approx(95 / 128)
    assert float(differences_lost) == pytest.approx(0, abs=1e-12)
    middle = target.view(2, 4, 95).mean(1, keepdim=True)
    halved = (middle + (target.view(2, 4, 95) - middle) / 2).view(8, 95)
    _, differences_lost = lost_of(halved, target, 128)
    assert float(differences_lost) == pytest.approx(0.25, rel=1e-3)
    far_apart = target.clone()
    far_apart[4:] += 100
    error = 0.1 * torch.ones(8, 95, dtype=torch.float64)
    error[::2] = 0
    assert float(lost_of(far_apart + error, far_apart, 128)[1]) == pytest.approx(
        float(lost_of(target + error, target, 128)[1])
    ), "bands of other groups do not count"
    assert float(lost_of(target[:3], 0 * target[:3], 128)[1]) == 0, "fewer bands than a group"


def test_target_knows_the_level_apart_and_is_equally_long() -> None:
    """A constant added to a band in the logarithm moves one number besides the common scale; all have one length."""
    bands = torch.randn(5, 96, 50, generator=torch.Generator().manual_seed(0))
    target, louder = pooled_target(bands, NANO), pooled_target(bands + 1.7, NANO)
    target, louder = target / target[:, -1:], louder / louder[:, -1:]
    torch.testing.assert_close(louder[:, :47], target[:, :47], atol=1e-4, rtol=0)
    moved = torch.full((5,), 2 * 1.7 / (0.33 * math.sqrt(48)))
    torch.testing.assert_close(louder[:, 47] - target[:, 47], moved, atol=1e-4, rtol=0)
    lengths = pooled_target(bands, NANO).square().sum(1)
    torch.testing.assert_close(lengths, torch.full((5,), 128 * (1 - CONTRASTIVE_SHARE)))


def test_bands_without_structure_are_alike() -> None:
    """Two nearly flat bands are far more similar than two with peaks in different places."""
    noise = 0.01 * torch.randn(4, 96, 50, generator=torch.Generator().manual_seed(1))
    noise[2, :, 10:15] += 2
    noise[3, :, 30:35] += 2
    rows = torch.nn.functional.normalize(pooled_target(noise, NANO), dim=1)
    assert float(rows[0] @ rows[1]) > 0.99
    assert float(rows[2] @ rows[3]) < 0.5


@pytest.mark.parametrize(("preset", "count"), [("nano", 47), ("tiny", 95), ("mini", 95), ("small", 47)])
def test_coefficients_fit_the_embedding(preset: str, count: int) -> None:
    """Three quarters of the dimensions at most, and no more coefficients than a spectrum has."""
    config = PRESETS[preset]
    assert coefficients(config) == count
    assert count + 2 <= 0.75 * config.embed_dim


def test_varied_band_depends_on_itself_alone() -> None:
    """A band varies the same way wherever it stands in a batch, two bands in different ways, and the target moves."""
    bands = torch.randn(6, 96, 50, generator=torch.Generator().manual_seed(2))
    found = varied(bands)
    torch.testing.assert_close(varied(bands[[4, 1]]), found[[4, 1]])
    changes = found - bands
    assert float((changes[0] - changes[1]).abs().mean()) > 0.1
    moved = (pooled_target(found, NANO) - pooled_target(bands, NANO)).square().sum(1)
    assert float(moved.min()) > 1
