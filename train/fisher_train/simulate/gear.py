"""A pair of gears: mesh harmonics, sidebands of both shafts, wear and a damaged tooth.

Source: McFadden, Detecting fatigue cracks in gears by amplitude and phase demodulation, J. Vib. Acoust. 108 (1986).
"""

from dataclasses import dataclass

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_train.simulate.damage import Damage
from fisher_train.simulate.motion import Drive
from fisher_train.simulate.shaft import cosine, events, orders, phase_of, pulse_rms, pulses

__all__ = ["FAULTS", "Gear", "draw_gear", "gear_force"]

FAULTS = ("tooth", "wear", "eccentricity")
HARMONICS = 6


@dataclass(frozen=True)
class Gear:
    """A pinion on the shaft and its wheel."""

    teeth: int
    wheel_teeth: int
    amplitudes: tuple[complex, ...]
    """Complex amplitude of the mesh harmonics 1, 2, ..."""
    pinion_depth: float
    wheel_depth: float
    phase_depth: float
    """Phase modulation once per revolution of the pinion, in tooth pitches."""
    impact: float
    """Share of a damaged tooth's force that is impact rather than a change of stiffness."""


def draw_gear(rng: np.random.Generator) -> Gear:
    """Draw a pair of 12 to 60 and 15 to 150 teeth."""
    teeth = int(rng.integers(12, 61))
    size = np.arange(1, HARMONICS + 1) ** -rng.uniform(0.3, 1.8) * rng.lognormal(0, 0.5, HARMONICS)
    amplitudes = size / size.max() * np.exp(2j * np.pi * rng.uniform(size=HARMONICS))
    return Gear(
        teeth=teeth,
        wheel_teeth=round(teeth * rng.uniform(1.2, 5.0)),
        amplitudes=tuple(amplitudes.tolist()),
        pinion_depth=float(rng.uniform(0.02, 0.3)),
        wheel_depth=float(rng.uniform(0.02, 0.3)),
        phase_depth=float(rng.uniform(0, 0.05)),
        impact=float(rng.uniform(0.2, 1.0)),
    )


def gear_force(gear: Gear, drive: Drive, damage: Damage) -> FloatArray:
    """Force of the mesh (samples,), 1 at its largest harmonic in a sound pair at full load.

    `size`: `wear` adds to the higher harmonics, `eccentricity` deepens the sidebands of the pinion, `tooth`
    softens the mesh and strikes once per revolution.
    """
    size = damage.size
    amplitudes = np.asarray(gear.amplitudes)
    pinion_depth = gear.pinion_depth
    if damage.fault == "wear":
        added = np.linspace(0.1, 0.6, HARMONICS) * np.exp(1j * np.arange(HARMONICS))
        amplitudes = amplitudes + size * damage.specimen.shape(added)
    if damage.fault == "eccentricity":
        pinion_depth += min(1.5, size)
    wheel = cosine(phase_of(drive.turns * (gear.teeth / gear.wheel_teeth)))
    envelope = 1 + np.float32(pinion_depth) * drive.shaft + np.float32(gear.wheel_depth) * wheel
    mesh = drive.turns * gear.teeth + gear.phase_depth * drive.shaft
    if damage.fault == "tooth":
        near = _near_tooth(gear, drive, damage)
        envelope -= np.float32(min(0.9, size)) * near
        mesh -= 0.1 * min(1.0, size) * near
    force = orders(mesh, amplitudes, drive.top_order(drive.speed_hz * gear.teeth)) * envelope
    force *= np.float32(0.3 + 0.7 * drive.load)
    if damage.fault == "tooth":
        force += np.float32(gear.impact * size) * _strikes(drive, damage)
    return force


def _near_tooth(gear: Gear, drive: Drive, damage: Damage) -> FloatArray:
    """Bell (samples,) that is 1 where the damaged tooth is in mesh, about one pitch wide."""
    turn = phase_of(drive.turns - damage.specimen.phase + 0.5)
    wide = 0.7 + 3 * damage.specimen.width
    return np.asarray(np.exp(-np.square((turn - np.float32(0.5)) * np.float32(gear.teeth / wide))))


def _strikes(drive: Drive, damage: Damage) -> FloatArray:
    """Train of strikes (samples,) of RMS 1, one each time the damaged tooth comes into mesh."""
    number, place = events(drive.edge_turns - damage.specimen.phase)
    roughness = damage.specimen.roughness
    weights = np.exp(roughness * drive.run.of_fault.scatter("tooth", number))
    rms = pulse_rms(drive.speed_hz, drive.rate_hz, np.exp(2 * roughness**2))
    return pulses(place, weights, drive.samples) / np.float32(rms)
