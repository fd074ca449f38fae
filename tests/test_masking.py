"""Inverse block masks: number of clones, share kept, blocks, token order."""

import numpy as np
import pytest

from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.errors import BadInputError
from fisher_train.encoder import PRESETS
from fisher_train.objectives.masking import MAX_CLONED_BANDS, clones_per_band, kept_patches


@pytest.mark.parametrize(
    ("preset", "rate_hz", "clones"),
    [
        ("tiny", 4_000, 64),
        ("tiny", 16_000, 32),
        ("tiny", 24_000, 21),
        ("mini", 32_000, 16),
        ("small", 2_000, 128),
        ("small", 8_000, 64),
        ("small", 32_000, 16),
        ("nano", 16_000, 32),
    ],
)
def test_clones_share_the_cloned_bands_of_a_sample(preset: str, rate_hz: int, clones: int) -> None:
    """The more bands a rate has, the fewer clones each gets: 64 or 128 cloned bands at most."""
    n_bands = FrontEnd(band_width=PRESETS[preset].band_width).n_bands(rate_hz)
    assert clones_per_band(MAX_CLONED_BANDS[preset], n_bands) == clones


def test_every_band_has_a_clone() -> None:
    """A signal with more bands than cloned bands are allowed still has each of them masked once."""
    assert clones_per_band(64, 100) == 1


@pytest.mark.parametrize(("grid", "n_kept"), [((64, 6), 76), ((64, 3), 38), ((6, 3), 3), ((2, 3), 1), ((1, 3), 1)])
def test_every_clone_keeps_the_same_number(grid: tuple[int, int], n_kept: int) -> None:
    """A fifth of the patches is kept, each once and in token order, whatever the length of the band."""
    kept = kept_patches(np.random.default_rng(0), *grid, clones=64)
    assert kept.shape == (64, n_kept)
    assert kept.dtype == np.int64
    assert kept.min() >= 0
    assert kept.max() < grid[0] * grid[1]
    assert (np.diff(kept, axis=1) > 0).all()


@pytest.mark.parametrize(("grid", "blocks"), [((64, 6), 4), ((64, 3), 2), ((6, 3), 1)])
def test_kept_patches_are_blocks(grid: tuple[int, int], blocks: int) -> None:
    """Patches are kept in 5 x 5 blocks cut at the border, drawn singly only where these are too few or too many."""
    n_time, n_freq = grid
    kept = kept_patches(np.random.default_rng(3), n_time, n_freq, clones=50)
    centres = np.random.default_rng(3).integers(n_time * n_freq, size=(50, blocks))
    for clone in range(50):
        inside = {
            (centre // n_freq + down) * n_freq + centre % n_freq + right
            for centre in centres[clone]
            for down in range(-2, 3)
            for right in range(-2, 3)
            if 0 <= centre // n_freq + down < n_time and 0 <= centre % n_freq + right < n_freq
        }
        found = set(kept[clone].tolist())
        assert found <= inside if len(inside) >= len(found) else found > inside


def test_every_patch_is_kept_by_some_clone() -> None:
    """No patch is always masked, and none is kept by more than half of the clones."""
    counts = np.bincount(kept_patches(np.random.default_rng(0), 64, 6, clones=2000).ravel(), minlength=384)
    assert counts.min() > 100
    assert counts.max() < 1000


def test_token_order_renumbers_the_same_patches() -> None:
    """In the order `time` the same patches are kept under their other numbers."""
    freq = kept_patches(np.random.default_rng(0), 64, 6, clones=8)
    time = kept_patches(np.random.default_rng(0), 64, 6, clones=8, flatten="time")
    numbers = np.arange(384).reshape(64, 6).T.ravel()  # of the patches in the order `freq`, listed in that of `time`
    np.testing.assert_array_equal(np.sort(numbers[time], axis=1), freq)
    assert not np.array_equal(time, freq)


def test_masks_depend_on_the_generator_alone() -> None:
    """The same seed gives the same masks, another gives others, and clones differ from one another."""
    first, again, other = (kept_patches(np.random.default_rng(seed), 64, 3, clones=16) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(np.unique(first, axis=0)) == 16


@pytest.mark.parametrize("grid", [(1, 1), (0, 3)])
def test_band_that_cannot_be_masked_is_refused(grid: tuple[int, int]) -> None:
    """A band of a single patch has nothing to predict: one line that says so."""
    with pytest.raises(BadInputError, match=f"of {grid[0]} x {grid[1]} patches mask nothing"):
        kept_patches(np.random.default_rng(0), *grid, clones=4)


def test_impossible_numbers_of_clones_are_refused() -> None:
    """No bands, no clones."""
    with pytest.raises(BadInputError, match="64 cloned bands for 0 bands"):
        clones_per_band(64, 0)
    with pytest.raises(BadInputError, match="0 masks"):
        kept_patches(np.random.default_rng(0), 6, 3, clones=0)
