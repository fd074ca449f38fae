"""From forces to what a sensor feels: modal paths of the structure.

Source: Ewins, Modal Testing (2000), chapter 2.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["PATHS", "Structure", "draw_structure", "path_response"]

PATHS = ("rotor", "bearing", "gear", "motor", "flow", "planetary", "compressor", "leak", "background")
BLOWS = ("bearing", "gear", "planetary", "compressor", "leak")
LOWEST_MODE_HZ, HIGHEST_MODE_HZ = 30.0, 30_000.0
Response = npt.NDArray[np.complex64]


@dataclass(frozen=True)
class Structure:
    """Modes that all paths share, and how strongly each path drives them."""

    mode_hz: tuple[float, ...]
    damping: tuple[float, ...]
    participation: tuple[tuple[float, ...], ...]
    """One row for each of PATHS, signed."""
    direct: tuple[float, ...]
    """What reaches the sensor without resonance, per path: of blows, which are short, less than what resonates."""
    contact_hz: tuple[float, ...]
    """Frequency above which a path's force falls off, because contacts are not infinitely short."""


def draw_structure(rng: np.random.Generator, highest_hz: float = HIGHEST_MODE_HZ) -> Structure:
    """Draw 6 to 24 modes between 30 Hz and 30 kHz, or higher for fast sensors."""
    count = int(rng.integers(6, 25))
    mode_hz = np.sort(np.exp(rng.uniform(np.log(LOWEST_MODE_HZ), np.log(highest_hz), count)))
    participation = rng.standard_normal((len(PATHS), count)) * rng.lognormal(0, 0.5, count)
    blows = np.isin(PATHS, BLOWS)
    return Structure(
        mode_hz=tuple(mode_hz.tolist()),
        damping=tuple(np.exp(rng.uniform(np.log(0.005), np.log(0.12), count)).tolist()),
        participation=tuple(tuple(row) for row in participation.tolist()),
        direct=tuple((10 ** (rng.uniform(-1.5, 0.3, len(PATHS)) - 0.5 * blows)).tolist()),
        contact_hz=tuple(np.exp(rng.uniform(np.log(1500), np.log(25_000), len(PATHS))).tolist()),
    )


@lru_cache(maxsize=12)
def path_response(structure: Structure, path: str, samples: int, rate_hz: int) -> Response:
    """Frequency response (samples // 2 + 1,) of a path: direct share plus modes, 1 on average over the band.

    Modes are those of acceleration over force: `f^2 / (f_m^2 - f^2 + 2 i damping f f_m)`.
    """
    row = PATHS.index(path)
    f = np.fft.rfftfreq(samples, 1 / rate_hz).astype(np.float32)
    squared = f * f
    response = np.full(len(f), structure.direct[row], np.complex64)
    for mode_hz, damping, weight in zip(
        structure.mode_hz, structure.damping, structure.participation[row], strict=True
    ):
        if mode_hz > rate_hz:
            continue
        below = np.empty(len(f), np.complex64)
        below.real = np.float32(mode_hz**2) - squared
        below.imag = np.float32(2 * damping * mode_hz) * f + np.float32(1e-3)
        response += np.float32(weight * 2 * damping**0.5) * squared / below
    if path not in {"rotor", "leak"}:  # these forces are smooth already, or no contact makes them
        response /= 1 + squared / np.float32(structure.contact_hz[row] ** 2)
    return response / np.float32(np.sqrt(np.mean(np.abs(response) ** 2)))
