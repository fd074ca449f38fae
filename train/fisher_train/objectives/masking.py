"""Inverse block masks: which patches of each clone of a sub-band the student sees.

Start at `kept_patches`. NumPy only, so that loader workers make the masks with the bands. Source: EAT (arXiv
2401.03497) and data2vec 2 (arXiv 2212.07525), inverse block masking with multi-mask training.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from fisher_edge.errors import BadInputError

__all__ = ["MAX_CLONED_BANDS", "clones_per_band", "kept_patches"]

MAX_CLONED_BANDS = {"nano": 128, "tiny": 64, "mini": 64, "small": 128}
"""Most cloned sub-bands of one sample. `nano` is ours: it has the bands of `small`."""
KEPT_SHARE = 0.2
BLOCK = 5
"""Patches along the side of a kept block."""
PROB_ADJUST = 0.07
"""Added to the share of kept patches when blocks are counted, because blocks overlap and are cut at the border."""

IntArray = npt.NDArray[np.int64]


def clones_per_band(max_cloned_bands: int, n_bands: int) -> int:
    """Times each band of a sample is masked: the student's work for a sample is then the same at any rate."""
    if max_cloned_bands < 1 or n_bands < 1:
        raise BadInputError(f"{max_cloned_bands} cloned bands for {n_bands} bands cannot be divided; give at least 1")
    return max(1, max_cloned_bands // n_bands)


def n_kept_patches(n_patches: int, share: float = KEPT_SHARE) -> int:
    """Patches each clone keeps, at least one."""
    return max(1, int(n_patches * share + 1e-9))


def kept_patches(
    rng: np.random.Generator,
    n_time: int,
    n_freq: int,
    clones: int,
    *,
    share: float = KEPT_SHARE,
    block: int = BLOCK,
    adjust: float = PROB_ADJUST,
    flatten: Literal["freq", "time"] = "freq",
) -> IntArray:
    """Return the patches that `clones` independent masks keep: (clones, n_kept), sorted indices in token order.

    Square blocks around random patches are kept, cut at the border of the grid; then single patches are added
    or removed at random until every clone keeps `share` of the patches. `flatten` is the token order of the
    encoder. Raises BadInputError for a grid in which nothing would be masked.
    """
    n_patches = n_time * n_freq
    n_kept = n_kept_patches(n_patches, share)
    if n_kept >= n_patches or clones < 1:
        raise BadInputError(
            f"{clones} masks that keep {n_kept} of {n_time} x {n_freq} patches mask nothing; give bands of more frames"
        )
    n_blocks = max(1, int(n_patches * (share + adjust) / block**2))
    centres = rng.integers(n_patches, size=(clones, n_blocks, 1))
    time, freq = np.divmod(np.arange(n_patches), n_freq)
    first = -(block // 2)
    above = time - centres // n_freq
    beside = freq - centres % n_freq
    inside = (above >= first) & (above < first + block) & (beside >= first) & (beside < first + block)
    # Patches in a block come first, those of equal standing in random order: the first n_kept are what adding
    # or removing single patches at random would leave.
    order = inside.any(axis=1) + rng.random((clones, n_patches))
    kept = np.argpartition(-order, n_kept - 1, axis=1)[:, :n_kept]
    if flatten == "time":
        kept = kept % n_freq * n_time + kept // n_freq
    return np.sort(kept, axis=1).astype(np.int64, copy=False)
