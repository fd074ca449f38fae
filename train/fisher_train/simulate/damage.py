"""A fault: its kind, its size, and the specimen, which differs from every other of the same kind."""

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["SOUND", "Damage", "Specimen", "draw_specimen"]

HARMONICS = 8


@dataclass(frozen=True)
class Specimen:
    """What differs between two faults of the same kind and size on the same machine."""

    phase: float
    """Where on the circumference the damage is, in revolutions."""
    place: float
    """Which of several equal parts (planet, cylinder, winding) is damaged, 0 to 1."""
    slip: float
    """Mean relative slip of a bearing's cage."""
    width: float
    """Length of the damage as a share of the distance of two contacts."""
    exit: float
    """Strength of the blow at the far edge of the damage relative to that at the near one."""
    roughness: float
    """Scatter of the strength from blow to blow (standard deviation of the logarithm)."""
    harmonics: tuple[complex, ...]
    """Factors of the orders 1, 2, ... that the fault adds."""

    def shape(self, amplitudes: npt.ArrayLike) -> npt.NDArray[np.complex128]:
        """Amplitudes of added orders as they are on this specimen; orders beyond those listed stay."""
        shaped = np.array(amplitudes, np.complex128)
        count = min(len(shaped), HARMONICS)
        shaped[:count] *= self.harmonics[:count]
        return shaped


@dataclass(frozen=True)
class Damage:
    """A fault of one part; `fault` is empty on a sound one."""

    fault: str
    size: float
    specimen: Specimen


def draw_specimen(machine_seed: int, part: str, fault: str, number: int) -> Specimen:
    """Draw specimen `number` of a fault of one machine: the same for every size, recording and operating point."""
    rng = np.random.default_rng([machine_seed, zlib.crc32(f"{part}/{fault}".encode()), number])
    harmonics = rng.lognormal(0, 0.3, HARMONICS) * np.exp(1j * rng.normal(0, 0.5, HARMONICS))
    return Specimen(
        phase=float(rng.uniform()),
        place=float(rng.uniform()),
        slip=float(np.clip(rng.normal(0.004, 0.004), -0.002, 0.015)),
        width=float(rng.uniform(0.02, 0.2)),
        exit=float(rng.uniform(0.2, 0.9)),
        roughness=float(rng.uniform(0.05, 0.3)),
        harmonics=tuple(harmonics.tolist()),
    )


SOUND = Damage("", 0.0, Specimen(0.0, 0.0, 0.0, 0.1, 0.5, 0.1, (1 + 0j,) * HARMONICS))
"""No damage at all."""
