"""A planetary stage: planets that pass the sensor, and local damage of the sun, a planet or the ring.

The sun is driven, the ring with the sensor stands still, the carrier is the output. Sources: McFadden and Smith,
An explanation for the asymmetry of the modulation sidebands about the tooth meshing frequency in epicyclic gear
vibration, Proc. IMechE C 199 (1985); Feng and Zuo, Vibration signal models for fault diagnosis of planetary
gearboxes, JSV 331 (2012).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray
from fisher_train.simulate.damage import Damage
from fisher_train.simulate.motion import Drive
from fisher_train.simulate.shaft import DoubleArray, events, orders, periodic, phase_of, pulse_rms, pulses, turn_grid

ComplexArray = npt.NDArray[np.complex128]

__all__ = ["FAULTS", "Planetary", "draw_planetary", "planetary_force", "stage_orders"]

FAULTS = ("sun", "planet", "ring", "carrier")
HARMONICS = 3
SUN_SIDE = 0.6
"""Strength of a planet tooth's blow on the sun relative to that on the ring, which is nearer to the sensor."""


@dataclass(frozen=True)
class Planetary:
    """Numbers of teeth and planets, and how the ring passes them on."""

    sun_teeth: int
    ring_teeth: int
    planets: int
    amplitudes: tuple[complex, ...]
    """Complex amplitude of the mesh harmonics 1, 2, ... of one planet."""
    nearness: float
    """Sharpness of a planet's passage by the sensor (von Mises concentration)."""
    impact: float
    """Strength of the blows of a damaged tooth."""

    @property
    def planet_teeth(self) -> int:
        """Teeth of a planet: it fills the gap between sun and ring."""
        return (self.ring_teeth - self.sun_teeth) // 2


def draw_planetary(rng: np.random.Generator) -> Planetary:
    """Draw a stage of 3 to 5 planets that can be assembled: teeth of sun and ring divide evenly among them."""
    planets = int(rng.integers(3, 6))
    sun_teeth = int(rng.integers(15, 41))
    wanted = round(sun_teeth * rng.uniform(1.8, 4.0))
    fitting = [
        z for z in range(wanted, wanted + 2 * planets) if not (z + sun_teeth) % planets and not (z - sun_teeth) % 2
    ]
    size = np.arange(1, HARMONICS + 1) ** -rng.uniform(0.5, 1.8) * rng.lognormal(0, 0.4, HARMONICS)
    amplitudes = size / size.max() * np.exp(2j * np.pi * rng.uniform(size=HARMONICS))
    return Planetary(
        sun_teeth=sun_teeth,
        ring_teeth=fitting[0],
        planets=planets,
        amplitudes=tuple(amplitudes.tolist()),
        nearness=float(rng.uniform(0.5, 3.0)),
        impact=float(rng.uniform(0.4, 1.0)),
    )


def stage_orders(stage: Planetary) -> dict[str, float]:
    """Orders of the driven sun: carrier, mesh, and blows per revolution of a damaged sun, planet and ring.

    carrier = Zs/(Zs + Zr), mesh = Zr carrier, sun = n (1 - carrier), planet = 2 mesh/Zp (sun and ring in turn),
    ring = n carrier.
    """
    carrier = stage.sun_teeth / (stage.sun_teeth + stage.ring_teeth)
    mesh = stage.ring_teeth * carrier
    return {
        "carrier": carrier,
        "mesh": mesh,
        "sun": stage.planets * (1 - carrier),
        "planet": 2 * mesh / stage.planet_teeth,
        "ring": stage.planets * carrier,
    }


def planetary_force(stage: Planetary, drive: Drive, damage: Damage) -> FloatArray:
    """Force at the sensor (samples,): about 1 at the largest mesh line at full load.

    Planets mesh with the ring out of phase with each other, so that of the lines `h mesh + m carrier` only those
    remain whose order of the carrier is a multiple of the number of planets. `carrier`: planets share the load
    unevenly by `size`, and the others appear. `sun`, `planet`, `ring`: blows of RMS `size`.
    """
    carrier = drive.turns * stage_orders(stage)["carrier"]
    phase = phase_of(carrier)
    mesh = np.zeros(drive.samples, np.float32)
    top = drive.top_order(drive.speed_hz * stage_orders(stage)["mesh"])
    for harmonic, passing in enumerate(_passing(stage, damage), start=1):
        line = np.zeros(harmonic, np.complex128)
        line[-1] = 1
        if harmonic < top:
            cos_part = orders(carrier * stage.ring_teeth, line)
            sin_part = orders(carrier * stage.ring_teeth + 0.25 / harmonic, line)
            mesh += periodic(passing.real.astype(np.float32), phase) * cos_part
            mesh += periodic(passing.imag.astype(np.float32), phase) * sin_part
    mesh *= np.float32(0.3 + 0.7 * drive.load)
    if damage.fault in {"sun", "planet", "ring"}:
        mesh += np.float32(stage.impact * damage.size) * _blows(stage, drive, damage)
    return mesh


def _near(stage: Planetary, turn: DoubleArray) -> DoubleArray:
    """What reaches the sensor from a planet so many revolutions away from it, 1 at most."""
    return np.asarray(np.exp(stage.nearness * (np.cos(2 * np.pi * turn) - 1)))


def _passing(stage: Planetary, damage: Damage) -> list[ComplexArray]:
    """Complex envelope of each mesh harmonic over one revolution of the carrier (points,).

    Scaled so that a sound stage has amplitude 1 on average, or a single planet does where all of them together
    nearly cancel.
    """
    share = np.ones(stage.planets)
    sound = _envelopes(stage, share)
    rms = np.sqrt(sum(np.mean(np.abs(envelope) ** 2) for envelope in sound))
    alone = np.sqrt(np.mean(_near(stage, turn_grid()) ** 2))
    if damage.fault == "carrier":
        share[int(damage.specimen.place * stage.planets)] += damage.size
    return [envelope / max(rms, alone) for envelope in _envelopes(stage, share)]


def _envelopes(stage: Planetary, share: DoubleArray) -> list[ComplexArray]:
    """Sum over the planets for each mesh harmonic: how near each is, times its share and its phase of mesh."""
    angles = np.arange(stage.planets) / stage.planets
    near = _near(stage, turn_grid() + angles[:, None])
    return [
        amplitude * ((share * np.exp(2j * np.pi * harmonic * stage.ring_teeth * angles)) @ near)
        for harmonic, amplitude in enumerate(stage.amplitudes, start=1)
    ]


def _blows(stage: Planetary, drive: Drive, damage: Damage) -> FloatArray:
    """Train of blows (samples,) of RMS 1, each as near as the planet that makes it; a ring's damage stays put."""
    order, specimen = stage_orders(stage)[damage.fault], damage.specimen
    number, place = events(drive.edge_turns * order - specimen.phase)
    turn = np.interp(place, np.arange(-1.0, drive.samples + 1), drive.edge_turns) * stage_orders(stage)["carrier"]
    weights = np.exp(specimen.roughness * drive.run.of_fault.scatter("blow", number))
    square = np.exp(2 * specimen.roughness**2)
    if damage.fault == "planet":
        weights *= _near(stage, turn + specimen.place) * np.where(number % 2, 1, SUN_SIDE)
        square *= np.mean(_near(stage, turn_grid()) ** 2) * (1 + SUN_SIDE**2) / 2
    elif damage.fault == "sun":  # the next planet it meets is the next one round the carrier
        weights *= _near(stage, turn + number / stage.planets)
        square *= np.mean(_near(stage, turn_grid()) ** 2)
    rms = pulse_rms(order * drive.speed_hz, drive.rate_hz, float(square))
    return pulses(place, weights, drive.samples) / np.float32(rms)
