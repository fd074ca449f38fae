"""The induction motor: current of its three wires with its faults, and the magnetic hum it makes.

Sources: Nandi, Toliyat and Li, Condition monitoring and fault diagnosis of electrical motors - a review, IEEE TEC 20
(2005); Cruz and Cardoso, Multiple reference frames theory, IEEE TIA 41 (2005), for the third harmonic of a short.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray
from fisher_train.simulate.damage import Damage
from fisher_train.simulate.inverter import draw_carrier, ripple
from fisher_train.simulate.motion import Drive
from fisher_train.simulate.shaft import cosine, orders, phase_of

__all__ = ["FAULTS", "HARMONICS", "Motor", "draw_harmonics", "draw_motor", "magnetic_hum", "slip_of", "stator_current"]

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
    slots: int
    """Bars of the rotor, whose slots modulate the field as they pass."""
    slotting: float
    """Depth of that modulation."""
    carrier_hz: float
    """Switching frequency of a converter; 0 on the mains."""
    carrier: float


def draw_motor(rng: np.random.Generator) -> Motor:
    """Draw a motor of 1 to 4 pole pairs; half of them run on a converter."""
    converter = rng.uniform() < 0.5
    return Motor(
        line_hz=float(np.exp(rng.uniform(np.log(15), np.log(120)))) if converter else float(rng.choice([50.0, 60.0])),
        pole_pairs=int(rng.integers(1, 5)),
        rated_slip=float(rng.uniform(0.01, 0.06)),
        harmonics=draw_harmonics(rng),
        torque_ripple=float(10 ** rng.uniform(-3.5, -1.5)),
        slots=int(rng.integers(22, 61)),
        slotting=float(10 ** rng.uniform(-3.5, -1.7)),
        carrier_hz=draw_carrier(rng) if converter else 0.0,
        carrier=float(10 ** rng.uniform(-3, -1)),
    )


def draw_harmonics(rng: np.random.Generator) -> tuple[complex, ...]:
    """Draw harmonics of a line: odd ones, of which three wires carry few multiples of the third, and weak even ones."""
    harmonics = np.zeros(HARMONICS, np.complex128)
    odd = np.arange(2, HARMONICS, 2)
    harmonics[odd] = 10 ** rng.uniform(-3.5, -1.3, len(odd)) * np.exp(2j * np.pi * rng.uniform(size=len(odd)))
    harmonics[[2, 8, 14]] *= 0.3
    harmonics[1::2] = 10 ** rng.uniform(-4.5, -3, HARMONICS // 2)
    harmonics[0] = 1
    return tuple(harmonics.tolist())


def slip_of(motor: Motor, load: float) -> float:
    """Slip at a load (0 to 1): a little when idling, the rated slip at full load."""
    return motor.rated_slip * (0.05 + 0.95 * load)


def stator_current(motor: Motor, drive: Drive, damage: Damage, wire: int = 0) -> FloatArray:
    """Current of one of three wires (samples,), 1 at its fundamental at full load; `wire` 1 and 2 lag by thirds.

    Slots of the rotor put lines at `slots` times the shaft frequency plus and minus the line. `bars`: sidebands at
    (1 - 2ks) and (1 + 2ks) times the line frequency, weaker at low load. `interturn`: a negative sequence, so that
    the wires differ, third harmonic that does not cancel among the wires, and sidebands of the shaft. `airgap`:
    sidebands at the line plus and minus k times the shaft frequency.
    """
    size, slip = damage.size, slip_of(motor, drive.load)
    top = drive.top_order(drive.line_hz)
    shaft = drive.cycles * ((1 - slip) / motor.pole_pairs) + drive.run.uniform("rotor")
    sides = np.zeros(3, np.complex128)
    if damage.fault == "bars":
        sway = drive.cycles * (2 * slip) + damage.specimen.phase
        bars = damage.specimen.shape([1, 0.3, 0.1]) * 0.15 * size * (0.3 + 0.7 * drive.load)
        modulation = orders(sway, bars)
    else:
        modulation = np.zeros(drive.samples, np.float32)
        depth = {"interturn": (0.02, 0.03, 0.01), "airgap": (0.08, 0.03, 0.02)}.get(damage.fault, (0.0,) * 3)
        sides += damage.specimen.shape(depth) * size
    sides[:2] += (motor.torque_ripple, motor.torque_ripple / 3)
    modulation += orders(shaft, sides)
    if motor.slots * drive.line_hz / motor.pole_pairs + drive.line_hz < drive.rate_hz / 2:
        modulation += np.float32(motor.slotting) * cosine(phase_of(shaft * motor.slots))
    current = orders(drive.cycles - wire / 3, np.asarray(motor.harmonics), top)
    if damage.fault == "interturn":
        current += orders(drive.cycles, _of_short(damage, wire), top)
    modulation += 1
    current *= modulation
    current *= np.float32(0.35 + 0.65 * drive.load)
    return current + ripple(drive, motor.carrier_hz, motor.carrier, wire)


def _of_short(damage: Damage, wire: int) -> npt.NDArray[np.complex128]:
    """Harmonics (5,) a short in one winding adds to one wire: fundamental of negative sequence, third, fifth.

    Their sum over the wires is zero. The winding decides which wire has the largest change.
    """
    winding = int(damage.specimen.place * 3)
    added = np.zeros(5, np.complex128)
    added[[0, 2, 4]] = damage.specimen.shape(np.asarray([0.10, 0.12, 0.03]) * np.exp(1j * np.arange(3)) * damage.size)
    added[0] *= np.exp(2j * np.pi * (wire - winding - winding) / 3)
    added[[2, 4]] *= np.exp(-2j * np.pi * (wire - winding) / 3)
    return added


def magnetic_hum(motor: Motor, drive: Drive, damage: Damage) -> FloatArray:
    """Force of the field on the frame (samples,): twice the line frequency and its multiples, slip in its sidebands."""
    amplitudes = np.zeros(8, np.complex128)
    amplitudes[[1, 3, 5, 7]] = (1.0, 0.4, 0.2, 0.1)
    if damage.fault == "interturn":
        amplitudes[[1, 3]] += 0.5 * damage.size * damage.specimen.shape([1, 1])
    hum = orders(drive.cycles, amplitudes, drive.top_order(drive.line_hz)) * np.float32(0.5 + 0.5 * drive.load)
    if damage.fault in {"bars", "airgap"}:
        slip = slip_of(motor, drive.load)
        order = 2 * slip if damage.fault == "bars" else (1 - slip) / motor.pole_pairs
        sway = cosine(phase_of(drive.cycles * order + damage.specimen.phase))
        hum *= 1 + np.float32(min(1.0, 0.5 * damage.size)) * sway
    return hum
