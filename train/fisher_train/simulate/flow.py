"""Pumps and fans: blade pass, turbulence, cavitation and a damaged blade.

Source: Brennen, Hydrodynamics of Pumps (1994), chapters 6 and 9.
"""

from dataclasses import dataclass

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_train.simulate.damage import Damage
from fisher_train.simulate.motion import Drive
from fisher_train.simulate.shaft import cosine, orders, phase_of, pulse_rms, pulses

__all__ = ["FAULTS", "Flow", "draw_flow", "flow_force"]

FAULTS = ("cavitation", "blade", "blockage")
HARMONICS = 4
COLLAPSE = 0.8
"""Scatter of the strength of collapsing bubbles (standard deviation of the logarithm)."""


@dataclass(frozen=True)
class Flow:
    """An impeller in a fluid."""

    blades: int
    amplitudes: tuple[complex, ...]
    """Complex amplitude of the blade-pass harmonics 1, 2, ..."""
    turbulence: float
    blade_depth: float
    """Depth to which blades modulate the turbulence."""
    bubbles_hz: float
    """Collapsing bubbles per second at full cavitation."""


def draw_flow(rng: np.random.Generator) -> Flow:
    """Draw an impeller of 3 to 12 blades."""
    size = np.arange(1, HARMONICS + 1) ** -rng.uniform(0.5, 2.0) * rng.lognormal(0, 0.4, HARMONICS)
    amplitudes = size / size.max() * np.exp(2j * np.pi * rng.uniform(size=HARMONICS))
    return Flow(
        blades=int(rng.integers(3, 13)),
        amplitudes=tuple(amplitudes.tolist()),
        turbulence=float(10 ** rng.uniform(-1.2, 0.3)),
        blade_depth=float(rng.uniform(0.05, 0.6)),
        bubbles_hz=float(10 ** rng.uniform(2.0, 3.5)),
    )


def flow_force(flow: Flow, drive: Drive, damage: Damage) -> FloatArray:
    """Force of the fluid (samples,), 1 at the largest blade-pass harmonic at rated speed.

    `cavitation`: random collapses, denser when a blade passes. `blade`: one blade differs, so that the shaft's
    orders modulate the blade pass. `blockage`: turbulence rises and blade pass falls. Pressure goes with the
    square of speed.
    """
    size = damage.size
    top = drive.top_order(drive.speed_hz * flow.blades)
    blade_pass = orders(drive.turns * flow.blades, np.asarray(flow.amplitudes), top)
    turbulence = flow.turbulence * (0.6 + 0.8 * abs(drive.load - 0.6))  # least near the best efficiency point
    if damage.fault == "blade":
        shaft = cosine(phase_of(drive.turns + damage.specimen.phase))
        blade_pass *= 1 + np.float32(min(1.5, size)) * shaft
        blade_pass += np.float32(0.5 * size) * shaft
    elif damage.fault == "blockage":
        blade_pass /= np.float32(1 + 0.3 * size)
        turbulence *= 1 + size
    force = 1 + np.float32(flow.blade_depth) * blade_pass
    force *= np.float32(turbulence) * drive.white()
    force += blade_pass
    if damage.fault == "cavitation":
        force += np.float32(size) * _collapses(flow, drive, damage)
    return force * np.float32(drive.speed**2)


def _collapses(flow: Flow, drive: Drive, damage: Damage) -> FloatArray:
    """Train of collapses (samples,) of RMS 1 at random moments, none between two blades."""
    bubbles_hz, draws = flow.bubbles_hz * (0.5 + damage.specimen.place), drive.of_fault.rng
    count = draws.poisson(bubbles_hz * drive.samples / drive.rate_hz)
    place = draws.uniform(-0.5, drive.samples - 0.5, count)
    turns = np.interp(place, np.arange(-1.0, drive.samples + 1), drive.edge_turns)
    dense = 0.5 + 0.5 * np.cos(2 * np.pi * ((turns * flow.blades) % 1.0))
    weights = dense * draws.lognormal(0, COLLAPSE, count)
    rms = pulse_rms(bubbles_hz, drive.rate_hz, 3 / 8 * np.exp(2 * COLLAPSE**2))
    return pulses(place, weights, drive.samples) / np.float32(rms)
