"""When an export is faithful: what it changes must not matter for the distances that a gateway measures.

A gateway compares windows of one rate, band by band, and all of them were embedded by the same model. So embeddings
are grouped by (rate, band), each group is centred by its own mean before and after, and what is left of the
difference is noise: it counts against the distance to the nearest window of another take. Start at `groups_of`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray, Rate

__all__ = ["GATES", "Group", "Parity", "cosines", "groups_of", "neighbour_agreement"]

Doubles = npt.NDArray[np.float64]

# A group is faithful when its mean centred cosine turns by no more than this from 1 ...
LARGEST_TURN = 0.005
# ... and the median noise is at most this share of the nearest distance. Noise of both windows adds to a squared
# distance, so that scores rise by a tenth; between takes of a healthy machine they vary by 35 % (calibrate.py).
LARGEST_NOISE = 0.05
# Distances below it are round-off in float64.
SMALLEST_DISTANCE = 1e-12
FEWEST_WINDOWS = 3
"""Windows of a group from which centring leaves something to compare."""
FLOAT32_RESOLUTION = 1e-6
"""Differences of cosine distance that are lost when unit vectors of some hundred float32 numbers are multiplied."""

GATES = {
    "fp32": {"cosine": 0.99999},
    "fp16": {"faithful_share": 0.5},
    "int8": {"faithful_share": 0.5, "neighbour_agreement": 0.9},
}
"""The figures below which an export is refused, by precision."""


@dataclass(frozen=True)
class Group:
    """What an export changes in one sub-band of one rate.

    `centred_cosine` is the mean over windows, `least_cosine` the smallest; `noise` is the median share of the distance
    to the nearest window of another take, None where no other take has this rate.
    """

    rate_hz: float
    low_hz: float
    high_hz: float
    windows: int
    centred_cosine: float
    least_cosine: float
    noise: float | None

    @property
    def load(self) -> float:
        """The larger of both changes as a share of what is allowed."""
        turn = (1 - self.centred_cosine) / LARGEST_TURN
        return turn if self.noise is None else max(turn, self.noise / LARGEST_NOISE)

    @property
    def faithful(self) -> bool:
        """Whether the change does not matter for distances."""
        return self.load <= 1


@dataclass(frozen=True)
class Parity:
    """An export compared with its checkpoint on windows of real recordings."""

    windows: int
    cosine: float
    """Smallest cosine between a sub-band's embedding before and after."""
    centred_cosine: float
    """Median over the groups of (rate, band)."""
    neighbour_agreement: float
    """Share of windows whose nearest other window of the same rate is still the same, over the faithful groups."""
    faithful_share: float
    """Share of the groups that are faithful."""
    worst: Group
    """The group that is changed most."""
    unfaithful: tuple[Group, ...]
    """Groups in which the change matters for distances: the gateway warns of such channels."""
    float_products: tuple[str, ...] = ()
    """Weights of the products whose activations stay in float."""
    float_bins: int = 0
    """Where a sub-band is padding from this bin on, all activations stay in float; 0: nowhere."""
    latency_ratio: float | None = None
    """CPU time of the checkpoint in PyTorch, divided by that of the bundle: 10 s at 16 kHz, signal to embedding."""

    def failures(self, precision: str) -> list[str]:
        """Name every figure below the gate of this precision."""
        return [
            f"{name} {getattr(self, name):.6f} < {least}"
            for name, least in GATES[precision].items()
            if not getattr(self, name) >= least
        ]


def groups_of(
    rates: Sequence[Rate],
    takes: Sequence[int],
    before: Sequence[Doubles],
    after: Sequence[Doubles],
    edges: dict[Rate, list[tuple[float, float]]],
) -> list[Group]:
    """Compare windows (bands, dim) before and after by rate and band.

    `takes` are the recordings they are from, `edges` (Hz) those of the bands of each rate. A rate of fewer than three
    windows has no groups.
    """
    found = []
    for rate in dict.fromkeys(rates):
        chosen = [index for index, other in enumerate(rates) if other == rate]
        if len(chosen) >= FEWEST_WINDOWS:
            take = np.array([takes[index] for index in chosen])
            left, right = (np.stack([rows[index] for index in chosen]) for rows in (before, after))
            found += [
                _group(float(rate), edge, take, left[:, band], right[:, band]) for band, edge in enumerate(edges[rate])
            ]
    return found


def _group(
    rate_hz: float, edge: tuple[float, float], take: npt.NDArray[np.int64], left: Doubles, right: Doubles
) -> Group:
    """Compare the windows (n, dim) of one band."""
    cosine = cosines(left - left.mean(axis=0), right - right.mean(axis=0))
    left, right = _unit(left), _unit(right)
    shift = right - left
    noise = 0.5 * ((shift - shift.mean(axis=0)) ** 2).sum(axis=1)
    distances = 1 - left @ left.T
    distances[take[:, None] == take] = np.inf
    nearest = distances.min(axis=1)
    known = np.isfinite(nearest)
    share = np.median(noise[known] / np.maximum(nearest[known], SMALLEST_DISTANCE)) if known.any() else None
    return Group(
        rate_hz=rate_hz,
        low_hz=edge[0],
        high_hz=edge[1],
        windows=len(take),
        centred_cosine=float(cosine.mean()),
        least_cosine=float(cosine.min()),
        noise=None if share is None else float(share),
    )


def neighbour_agreement(rates: Sequence[Rate], before: Sequence[FloatArray], after: Sequence[FloatArray]) -> float:
    """Share of windows whose nearest other window of the same rate is the same before and after.

    Two candidates whose distances differ by less than the runtime's float32 search resolves are the same.
    """
    kept: list[bool] = []
    for rate in set(rates):
        chosen = [index for index, other in enumerate(rates) if other == rate]
        if len(chosen) >= FEWEST_WINDOWS:
            distance = _distances([before[index] for index in chosen])
            nearest_after = _distances([after[index] for index in chosen]).argmin(axis=1)
            excess = distance[np.arange(len(chosen)), nearest_after] - distance.min(axis=1)
            kept += (excess < FLOAT32_RESOLUTION).tolist()
    return float(np.mean(kept)) if kept else 1.0


def _distances(embeddings: Sequence[FloatArray]) -> Doubles:
    """Cosine distance of every pair of windows over all bands, infinite to itself."""
    rows = _unit(np.stack([embedding.ravel() for embedding in embeddings]).astype(np.float64))
    distances = 1 - rows @ rows.T
    np.fill_diagonal(distances, np.inf)
    return np.asarray(distances)


def cosines(left: Doubles, right: Doubles) -> Doubles:
    """Cosine of each row pair; 0 where a row is zero, as centred rows of equal windows are."""
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.asarray((left * right).sum(axis=1) / np.maximum(norms, 1e-12))


def _unit(rows: Doubles) -> Doubles:
    """Rows of unit length; zeros stay zeros."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float64).tiny))
