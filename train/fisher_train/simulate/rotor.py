"""The rotor: unbalance, misalignment, looseness and rub as orders of the shaft speed.

Sources: ISO 13373-3 (tables of causes); Muszynska, Rotordynamics (2005), chapter 5, for the rub.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray
from fisher_train.simulate.damage import Damage
from fisher_train.simulate.motion import Drive
from fisher_train.simulate.shaft import DoubleArray, orders, periodic, phase_of, turn_grid, unit_gate

__all__ = ["FAULTS", "HALF_ORDERS", "Rotor", "draw_rotor", "rotor_force"]

ComplexArray = npt.NDArray[np.complex128]
FAULTS = ("unbalance", "misalignment", "looseness", "rub")
HALF_ORDERS = 32
"""Orders are kept at half steps: a loose or rubbing rotor has sub-harmonics."""


@dataclass(frozen=True)
class Rotor:
    """A shaft with its residual orders; `amplitudes[k]` belongs to half order k + 1."""

    speed_hz: float
    fluctuation: float
    amplitudes: tuple[complex, ...]
    fault_phases: tuple[float, ...]
    friction: float
    """Level of the noise of friction in a loose or rubbing rotor relative to the fault's orders."""
    clearance: float
    """Share of its orbit that a rubbing rotor runs free, 0 to 1."""


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
        friction=float(rng.uniform(0.2, 0.9)),
        clearance=float(rng.uniform(0.6, 0.9)),
    )


def rotor_force(rotor: Rotor, drive: Drive, damage: Damage) -> FloatArray:
    """Force of the rotor (samples,), 1 at its largest residual order at rated speed.

    `size` is the amplitude of the fault's orders relative to that. Unbalance grows with the square of speed;
    misalignment is strongest at twice the speed; looseness has many orders, half orders among them, and
    modulates friction noise. A rub touches once per revolution, every second time harder: a truncated orbit with
    many orders and half orders, and a burst of friction noise.
    """
    amplitudes = np.array(rotor.amplitudes, np.complex128)
    if damage.fault in FAULTS:
        turns = np.exp(2j * np.pi * np.asarray(rotor.fault_phases))
        amplitudes += damage.size * _added(rotor, damage) * turns
    amplitudes *= drive.speed**2
    force = orders(drive.turns / 2, amplitudes, 2 * drive.top_order(drive.speed_hz))
    if damage.fault == "looseness":
        gate = unit_gate(np.maximum(np.cos(2 * np.pi * turn_grid()), 0) ** 4)
        force += np.float32(damage.size * rotor.friction) * periodic(gate, drive.phase) * drive.of_fault.white()
    elif damage.fault == "rub":
        turn = phase_of(drive.turns / 2 + damage.specimen.phase)
        gate = unit_gate(_contact(rotor))
        force += np.float32(damage.size * rotor.friction) * periodic(gate, turn) * drive.of_fault.white()
    return force


def _added(rotor: Rotor, damage: Damage) -> ComplexArray:
    """Amplitudes of the half orders a fault of size 1 adds; the specimen shapes whole and half orders alike."""
    added = np.zeros(HALF_ORDERS, np.complex128)
    k = np.arange(1, HALF_ORDERS + 1)
    if damage.fault == "unbalance":
        added[1] = 1
    elif damage.fault == "misalignment":
        added[[1, 3, 5, 7]] = damage.specimen.shape((0.4, 1.0, 0.4, 0.15))
    elif damage.fault == "looseness":
        added[:] = damage.specimen.shape(np.where(k % 2, 0.35, 0.7) * k**-0.5)
    elif damage.fault == "rub":
        series = np.fft.rfft(_contact(rotor))[1 : HALF_ORDERS + 1]
        added[:] = series / np.abs(series).max() * np.exp(2j * np.pi * k * damage.specimen.phase)
        added *= np.exp(-2j * np.pi * np.asarray(rotor.fault_phases))  # a contact is short: its orders are in phase
    return added


def _contact(rotor: Rotor) -> DoubleArray:
    """Contact force of a rub over two revolutions: the stator cuts the orbit, every second time harder."""
    turn = 2 * turn_grid()
    reach = np.maximum(np.cos(2 * np.pi * turn) - rotor.clearance, 0)
    return reach * (1 + 0.4 * np.cos(np.pi * turn))
