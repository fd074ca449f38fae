"""A pair of gears: mesh harmonics, sidebands of both shafts, wear and a damaged tooth."""

from dataclasses import dataclass

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_train.simulate.shaft import DoubleArray, impact_train, orders, unit_rms

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


def gear_force(
    gear: Gear, revolutions: DoubleArray, *, fault: str, size: float, load: float, rng: np.random.Generator
) -> FloatArray:
    """Force of the mesh (samples,), 1 at its largest harmonic in a sound pair at full load.

    `size`: `wear` adds to the higher harmonics, `eccentricity` deepens the sidebands of the pinion, `tooth`
    softens the mesh and strikes once per revolution.
    """
    pinion = np.cos(2 * np.pi * (revolutions % 1.0)).astype(np.float32)
    wheel = np.cos(2 * np.pi * ((revolutions * gear.teeth / gear.wheel_teeth) % 1.0)).astype(np.float32)
    amplitudes = np.asarray(gear.amplitudes)
    pinion_depth = gear.pinion_depth
    if fault == "wear":
        amplitudes = amplitudes + size * np.linspace(0.1, 0.6, HARMONICS) * np.exp(1j * np.arange(HARMONICS))
    if fault == "eccentricity":
        pinion_depth += min(1.5, size)
    envelope = 1 + pinion_depth * pinion + gear.wheel_depth * wheel
    mesh = revolutions * gear.teeth + gear.phase_depth * pinion
    if fault == "tooth":
        near = _near_tooth(revolutions, gear.teeth)
        envelope -= np.float32(min(0.9, size)) * near
        mesh = mesh - 0.1 * min(1.0, size) * near
    force = envelope * orders(mesh, amplitudes) * np.float32(0.3 + 0.7 * load)
    if fault == "tooth":
        force += np.float32(gear.impact * size) * unit_rms(_strikes(revolutions, rng))
    return force


def _near_tooth(revolutions: DoubleArray, teeth: int) -> FloatArray:
    """Bell (samples,) that is 1 where the damaged tooth is in mesh, about one pitch wide."""
    pitches = ((revolutions % 1.0) - 0.5).astype(np.float32) * teeth
    return np.exp(-np.square(pitches))


def _strikes(revolutions: DoubleArray, rng: np.random.Generator) -> FloatArray:
    at = np.arange(np.floor(revolutions[0]), revolutions[-1] + 1) + 0.5
    return impact_train(revolutions, at, rng.lognormal(0, 0.2, len(at)))
