"""Pumps and fans: blade pass, turbulence, cavitation and a damaged blade."""

from dataclasses import dataclass

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_train.simulate.shaft import DoubleArray, impact_train, orders, unit_rms

__all__ = ["FAULTS", "Flow", "draw_flow", "flow_force"]

FAULTS = ("cavitation", "blade", "blockage")
HARMONICS = 4


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


def flow_force(
    flow: Flow,
    revolutions: DoubleArray,
    *,
    rate_hz: int,
    fault: str,
    size: float,
    load: float,
    speed: float,
    rng: np.random.Generator,
) -> FloatArray:
    """Force of the fluid (samples,), 1 at the largest blade-pass harmonic at rated speed.

    `cavitation`: random collapses, denser when a blade passes. `blade`: one blade differs, so that the shaft's
    orders modulate the blade pass. `blockage`: turbulence rises and blade pass falls. Pressure goes with the
    square of speed.
    """
    blade_pass = orders(revolutions * flow.blades, np.asarray(flow.amplitudes))
    shaft = np.cos(2 * np.pi * (revolutions % 1.0)).astype(np.float32)
    turbulence = flow.turbulence * (0.6 + 0.8 * abs(load - 0.6))  # least near the best efficiency point
    if fault == "blade":
        blade_pass *= 1 + np.float32(min(1.5, size)) * shaft
        blade_pass += np.float32(0.5 * size) * shaft
    elif fault == "blockage":
        blade_pass /= np.float32(1 + 0.3 * size)
        turbulence *= 1 + size
    gate = 1 + np.float32(flow.blade_depth) * blade_pass
    force = blade_pass + np.float32(turbulence) * gate * rng.standard_normal(len(shaft), np.float32)
    if fault == "cavitation":
        force += np.float32(size) * unit_rms(_collapses(flow, revolutions, rate_hz, rng))
    return force * np.float32(speed**2)


def _collapses(flow: Flow, revolutions: DoubleArray, rate_hz: int, rng: np.random.Generator) -> FloatArray:
    samples = len(revolutions)
    count = 1 + rng.poisson(flow.bubbles_hz * samples / rate_hz)
    at = np.sort(rng.uniform(revolutions[0], revolutions[-1], count))
    dense = 0.5 + 0.5 * np.cos(2 * np.pi * ((at * flow.blades) % 1.0))
    return impact_train(revolutions, at, dense * rng.lognormal(0, 0.8, count))
