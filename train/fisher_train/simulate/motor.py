"""The induction motor: stator current with its faults, and the magnetic hum it makes.

Source: Nandi, Toliyat and Li, Condition monitoring and fault diagnosis of electrical motors, IEEE TEC 20 (2005).
"""

from dataclasses import dataclass

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_train.simulate.shaft import DoubleArray, orders

__all__ = ["FAULTS", "Motor", "draw_motor", "magnetic_hum", "slip_of", "stator_current"]

FAULTS = ("bars", "interturn", "airgap")
HARMONICS = 17


@dataclass(frozen=True)
class Motor:
    """An induction motor on the mains or on a converter."""

    line_hz: float
    pole_pairs: int
    rated_slip: float
    harmonics: tuple[complex, ...]
    """Complex amplitude of the current's harmonics 1, 2, ... (the first is 1)."""
    torque_ripple: float
    """Depth of the modulation by the load, once per revolution."""
    carrier_hz: float
    """Switching frequency of a converter; 0 on the mains."""
    carrier: float


def draw_motor(rng: np.random.Generator) -> Motor:
    """Draw a motor of 1 to 4 pole pairs; half of them run on a converter."""
    converter = rng.uniform() < 0.5
    harmonics = np.zeros(HARMONICS, np.complex128)
    odd = np.arange(2, HARMONICS, 2)
    harmonics[odd] = 10 ** rng.uniform(-3.5, -1.3, len(odd)) * np.exp(2j * np.pi * rng.uniform(size=len(odd)))
    harmonics[[2, 8, 14]] *= 0.3  # three wires carry little of the third harmonic and its multiples
    harmonics[1::2] = 10 ** rng.uniform(-4.5, -3, HARMONICS // 2)
    harmonics[0] = 1
    return Motor(
        line_hz=float(np.exp(rng.uniform(np.log(15), np.log(120)))) if converter else float(rng.choice([50.0, 60.0])),
        pole_pairs=int(rng.integers(1, 5)),
        rated_slip=float(rng.uniform(0.01, 0.06)),
        harmonics=tuple(harmonics.tolist()),
        torque_ripple=float(10 ** rng.uniform(-3.5, -1.5)),
        carrier_hz=float(rng.choice([2000.0, 4000.0, 5000.0, 8000.0, 16000.0])) if converter else 0.0,
        carrier=float(10 ** rng.uniform(-3, -1)),
    )


def slip_of(motor: Motor, load: float) -> float:
    """Slip at a load (0 to 1): a little when idling, the rated slip at full load."""
    return motor.rated_slip * (0.05 + 0.95 * load)


def stator_current(
    motor: Motor, cycles: DoubleArray, *, fault: str, size: float, load: float, rng: np.random.Generator
) -> FloatArray:
    """Current of one phase (samples,), 1 at its fundamental at full load; `cycles` of the line at every sample.

    `bars`: sidebands at (1 - 2ks) and (1 + 2ks) times the line frequency, weaker at low load. `interturn`:
    third harmonic, and rotor slot-like components at (k(1 - s)/p + 1) times the line. `airgap`: sidebands at
    the line plus and minus k times the shaft frequency.
    """
    slip = slip_of(motor, load)
    shaft = cycles * (1 - slip) / motor.pole_pairs + rng.uniform()
    ripple = motor.torque_ripple
    harmonics = np.asarray(motor.harmonics)
    modulation = np.zeros(len(cycles), np.float32)
    if fault == "bars":
        sway = cycles * 2 * slip + rng.uniform()
        modulation += orders(sway, np.asarray([1, 0.3, 0.1]) * 0.15 * size * (0.3 + 0.7 * load) + 0j)
    elif fault == "interturn":
        harmonics = harmonics.copy()
        harmonics[[2, 4, 6]] += np.asarray([0.12, 0.04, 0.03]) * size * np.exp(1j)
        modulation += orders(shaft, np.asarray([0.02, 0.03, 0.01]) * size + 0j)
    elif fault == "airgap":
        modulation += orders(shaft, np.asarray([0.08, 0.03, 0.02]) * size + 0j)
    modulation += orders(shaft, np.asarray([ripple, ripple / 3], np.complex128))
    return (1 + modulation) * orders(cycles, harmonics) * np.float32(0.35 + 0.65 * load)


def switching(motor: Motor, cycles: DoubleArray, time_s: DoubleArray) -> FloatArray:
    """Converter's ripple (samples,): the carrier with sidebands at even multiples of the line frequency."""
    if not motor.carrier_hz:
        return np.zeros(len(cycles), np.float32)
    side = np.cos(4 * np.pi * (cycles % 1.0)).astype(np.float32)
    return (
        np.float32(motor.carrier)
        * (0.3 + side)
        * np.cos(2 * np.pi * ((motor.carrier_hz * time_s) % 1.0)).astype(np.float32)
    )


def magnetic_hum(motor: Motor, cycles: DoubleArray, *, fault: str, size: float, load: float) -> FloatArray:
    """Force of the field on the frame (samples,): twice the line frequency and its multiples, slip in its sidebands."""
    amplitudes = np.zeros(8, np.complex128)
    amplitudes[[1, 3, 5, 7]] = (1.0, 0.4, 0.2, 0.1)
    if fault == "interturn":
        amplitudes[[1, 3]] += 0.5 * size
    hum = orders(cycles, amplitudes) * np.float32(0.5 + 0.5 * load)
    if fault in {"bars", "airgap"}:
        order = 2 * slip_of(motor, load) if fault == "bars" else (1 - slip_of(motor, load)) / motor.pole_pairs
        hum *= 1 + np.float32(min(1.0, 0.5 * size)) * np.cos(2 * np.pi * ((cycles * order) % 1.0)).astype(np.float32)
    return hum
