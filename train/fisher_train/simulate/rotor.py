"""The rotor: unbalance, misalignment and looseness as orders of the shaft speed."""

from dataclasses import dataclass

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_train.simulate.shaft import DoubleArray, orders, unit_rms

__all__ = ["FAULTS", "Rotor", "draw_rotor", "rotor_force"]

FAULTS = ("unbalance", "misalignment", "looseness")
HALF_ORDERS = 32
"""Orders are kept at half steps: a loose or rubbing rotor has sub-harmonics."""


@dataclass(frozen=True)
class Rotor:
    """A shaft with its residual orders; `amplitudes[k]` belongs to half order k + 1."""

    speed_hz: float
    fluctuation: float
    amplitudes: tuple[complex, ...]
    fault_phases: tuple[float, ...]
    rub: float
    """Depth (0 to 1) to which a loose rotor modulates friction noise once per revolution."""


def draw_rotor(rng: np.random.Generator) -> Rotor:
    """Draw a shaft of 300 to 6000 rpm whose residual orders fall off at a random rate."""
    whole = np.zeros(HALF_ORDERS, np.complex128)
    count = HALF_ORDERS // 2
    fall = rng.uniform(0.5, 2.5)
    size = np.arange(1, count + 1) ** -fall * rng.lognormal(0, 0.6, count)
    whole[1::2] = size * np.exp(2j * np.pi * rng.uniform(size=count))
    return Rotor(
        speed_hz=float(np.exp(rng.uniform(np.log(5), np.log(100)))),
        fluctuation=float(np.exp(rng.uniform(np.log(2e-4), np.log(8e-3)))),
        amplitudes=tuple((whole / np.abs(whole).max()).tolist()),
        fault_phases=tuple(rng.uniform(size=HALF_ORDERS).tolist()),
        rub=float(rng.uniform(0.2, 0.9)),
    )


def rotor_force(
    rotor: Rotor, revolutions: DoubleArray, *, fault: str, size: float, speed: float, rng: np.random.Generator
) -> FloatArray:
    """Force of the rotor (samples,), 1 at its largest residual order at rated speed.

    `size` is the amplitude of the fault's orders relative to that, `speed` the fraction of rated speed.
    Unbalance grows with the square of speed; misalignment is strongest at twice the speed; looseness has
    many orders, half orders among them, and modulates friction noise (ISO 13373-3, tables of causes).
    """
    turns = np.exp(2j * np.pi * np.asarray(rotor.fault_phases))
    added = np.zeros(HALF_ORDERS, np.complex128)
    k = np.arange(1, HALF_ORDERS + 1)
    if fault == "unbalance":
        added[1] = 1
    elif fault == "misalignment":
        added[[1, 3, 5, 7]] = (0.4, 1.0, 0.4, 0.15)
    elif fault == "looseness":
        added[:] = np.where(k % 2, 0.35, 0.7) * k**-0.5
    amplitudes = (np.asarray(rotor.amplitudes) + size * added * turns) * speed**2
    force = orders(revolutions / 2, amplitudes)
    if fault == "looseness":
        gate = np.maximum(np.cos(2 * np.pi * (revolutions % 1.0)).astype(np.float32), 0) ** 4
        force += np.float32(size * rotor.rub) * unit_rms(gate * rng.standard_normal(len(force), np.float32))
    return force
