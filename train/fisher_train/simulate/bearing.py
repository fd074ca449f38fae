"""Rolling bearings: impacts of a damaged race or ball with slip, load zone and modulation.

Source: Randall and Antoni, Rolling element bearing diagnostics - a tutorial, MSSP 25 (2011).
"""

from dataclasses import dataclass

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_train.simulate.shaft import DoubleArray, impact_train, unit_rms

__all__ = ["FAULTS", "Bearing", "bearing_force", "draw_bearing", "fault_orders"]

FAULTS = ("outer", "inner", "ball", "cage")


@dataclass(frozen=True)
class Bearing:
    """Geometry and habits of a bearing."""

    balls: int
    ratio: float
    """Ball diameter over pitch diameter."""
    contact_rad: float
    slip: float
    """Relative standard deviation of the time from one impact to the next."""
    zone: float
    """Half width of the load zone in revolutions."""
    phase: float
    hiss: float
    """Level of the even rolling noise of a sound bearing."""


def draw_bearing(rng: np.random.Generator) -> Bearing:
    """Draw a bearing of 6 to 20 rolling elements."""
    balls = int(rng.integers(6, 21))
    return Bearing(
        balls=balls,
        ratio=float(min(0.35, rng.uniform(0.6, 0.9) * np.pi / balls)),
        contact_rad=float(np.deg2rad(rng.choice([0.0, 0.0, 15.0, 25.0, 40.0]))),
        slip=float(np.exp(rng.uniform(np.log(2e-3), np.log(2e-2)))),
        zone=float(rng.uniform(0.15, 0.4)),
        phase=float(rng.uniform()),
        hiss=float(rng.uniform(0.05, 0.6)),
    )


def fault_orders(bearing: Bearing) -> dict[str, float]:
    """Impacts per shaft revolution: BPFO (outer), BPFI (inner), 2 BSF (ball), FTF (cage)."""
    tilt = bearing.ratio * np.cos(bearing.contact_rad)
    return {
        "outer": bearing.balls / 2 * (1 - tilt),
        "inner": bearing.balls / 2 * (1 + tilt),
        "ball": (1 - tilt**2) / bearing.ratio,
        "cage": (1 - tilt) / 2,
    }


def bearing_force(
    bearing: Bearing, revolutions: DoubleArray, *, fault: str, size: float, load: float, rng: np.random.Generator
) -> FloatArray:
    """Force on the housing (samples,): even rolling noise, and the impacts of a fault of RMS `size`."""
    hiss = bearing.hiss * (0.7 + 0.3 * load)
    force = np.float32(hiss) * rng.standard_normal(len(revolutions), np.float32)
    if fault == "cage":
        turn = fault_orders(bearing)["cage"] * revolutions + bearing.phase
        gate = (1 + np.cos(2 * np.pi * (turn % 1.0))).astype(np.float32) ** 2
        force += np.float32(size) * unit_rms(gate * rng.standard_normal(len(force), np.float32))
    elif fault in FAULTS:
        force += np.float32(size * (0.6 + 0.4 * load)) * unit_rms(_impacts(bearing, revolutions, fault, rng))
    return force


def _impacts(bearing: Bearing, revolutions: DoubleArray, fault: str, rng: np.random.Generator) -> FloatArray:
    order = fault_orders(bearing)[fault]
    count = int((revolutions[-1] - revolutions[0]) * order * 1.1) + 3
    steps = 1 + bearing.slip * rng.standard_normal(count)
    at = revolutions[0] + (np.cumsum(steps) - rng.uniform(0, 2)) / order
    weights = _load_on_fault(bearing, at, fault) * rng.lognormal(0, 0.15, count)
    if fault == "ball":  # it strikes the inner and the outer race in turn, not equally hard
        weights[::2] *= 0.6
    return impact_train(revolutions, at, weights)


def _load_on_fault(bearing: Bearing, at: DoubleArray, fault: str) -> DoubleArray:
    """Load where the damage is at each impact: it passes the load zone with the shaft or with the cage."""
    if fault == "outer":
        return np.ones(len(at))
    turns = at if fault == "inner" else at * fault_orders(bearing)["cage"]
    distance = np.abs((turns + bearing.phase) % 1.0 - 0.5)
    return np.maximum(1 - (distance / bearing.zone) ** 2, 0.05)
