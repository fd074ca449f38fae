"""Rolling bearings: impacts of a damaged race or ball with slip, load zone and modulation.

Sources: Randall and Antoni, Rolling element bearing diagnostics - a tutorial, MSSP 25 (2011); Sawalhi and Randall,
Vibration response of spalled rolling element bearings, MSSP 25 (2011), for the blows at both edges of a spall.
"""

from dataclasses import dataclass

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_train.simulate.damage import Damage, Specimen
from fisher_train.simulate.motion import KNOT_S, Drive
from fisher_train.simulate.shaft import DoubleArray, events, periodic, phase_of, pulse_rms, pulses, turn_grid, unit_gate

__all__ = ["FAULTS", "Bearing", "bearing_force", "draw_bearing", "fault_orders"]

FAULTS = ("outer", "inner", "ball", "cage")
UNLOADED = 0.05
"""Strength of a blow outside the load zone."""
WEAKER_RACE = 0.6


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
        hiss=float(rng.uniform(0.05, 0.6)),
    )


def fault_orders(bearing: Bearing, slip: float = 0.0) -> dict[str, float]:
    """Impacts per shaft revolution: BPFO (outer), BPFI (inner), 2 BSF (ball), FTF (cage).

    With `r = d/D cos(contact)`: FTF = (1 - r)/2, BPFO = n FTF, BPFI = n (1 - FTF), 2 BSF = (1 - r^2) D/d. A cage
    that slips turns slower by `slip`: BPFO falls, BPFI and BSF rise.
    """
    tilt = bearing.ratio * np.cos(bearing.contact_rad)
    cage = (1 - tilt) / 2 * (1 - slip)
    return {
        "outer": bearing.balls * cage,
        "inner": bearing.balls * (1 - cage),
        "ball": 2 * (1 - tilt) / bearing.ratio * (1 - cage),
        "cage": cage,
    }


def bearing_force(bearing: Bearing, drive: Drive, damage: Damage) -> FloatArray:
    """Force on the housing (samples,): even rolling noise, and the impacts of a fault of RMS `size`."""
    force = drive.white()
    force *= np.float32(bearing.hiss * (0.7 + 0.3 * drive.load))
    if damage.fault == "cage":
        turn = phase_of(_edge_cage(bearing, drive, damage)[1:-1] + damage.specimen.phase)
        gate = unit_gate((1 + np.cos(2 * np.pi * turn_grid())) ** 2)
        force += np.float32(damage.size) * periodic(gate, turn) * drive.of_fault.white()
    elif damage.fault in FAULTS:
        force += np.float32(damage.size * (0.6 + 0.4 * drive.load)) * _impacts(bearing, drive, damage)
    return force


def _edge_cage(bearing: Bearing, drive: Drive, damage: Damage) -> DoubleArray:
    """Revolutions of the cage (samples + 2,): it follows the shaft, slips and drifts.

    The drift is that of a random walk of the bearing's slip from impact to impact, as far as it is slower than
    the knots of a drift.
    """
    order = fault_orders(bearing, damage.specimen.slip)["cage"]
    impacts = max(1.0, bearing.balls * order * drive.speed_hz * KNOT_S)
    drift = drive.of_fault.edge_drift("cage", bearing.slip / impacts**0.5)
    drift *= drive.speed_hz
    drift += drive.edge_turns
    drift *= order
    return drift


def _impacts(bearing: Bearing, drive: Drive, damage: Damage) -> FloatArray:
    """Train of blows (samples,) of RMS 1: one when a contact runs onto the damage, one when it leaves it."""
    fault, specimen = damage.fault, damage.specimen
    order = fault_orders(bearing, specimen.slip)[fault]
    cage = _edge_cage(bearing, drive, damage)
    contacts = bearing.balls * cage
    if fault != "outer":
        per_turn = order / (1 - fault_orders(bearing, specimen.slip)["cage"])
        contacts = per_turn * (drive.edge_turns - cage)
    train, scatter = np.zeros(drive.samples, np.float32), drive.run.of_fault.scatter
    interval = drive.rate_hz / (order * drive.speed_hz)
    carrier = drive.edge_turns if fault == "inner" else cage
    for offset, strength in ((0.0, 1.0), (specimen.width, specimen.exit)):
        number, place = events(contacts - specimen.phase - offset)
        place += interval * 0.5 * bearing.slip * np.clip(scatter("impact", number), -3, 3)
        weights = strength * np.exp(specimen.roughness * scatter("strength", number))
        if fault != "outer":
            at = np.interp(place, np.arange(-1.0, drive.samples + 1), carrier)
            weights *= _load(bearing, at + specimen.phase)
        if fault == "ball":  # it strikes the inner and the outer race in turn, not equally hard
            weights[number % 2 == 0] *= WEAKER_RACE
        train += pulses(place, weights, drive.samples)
    return train / np.float32(pulse_rms(order * drive.speed_hz, drive.rate_hz, _mean_square(bearing, fault, specimen)))


def _load(bearing: Bearing, turns: DoubleArray) -> DoubleArray:
    """Load where the damage is: it passes the load zone with the shaft (inner race) or with the cage (ball)."""
    distance = np.abs(turns % 1.0 - 0.5)
    return np.maximum(1 - (distance / bearing.zone) ** 2, UNLOADED)


def _mean_square(bearing: Bearing, fault: str, specimen: Specimen) -> float:
    """Mean square of the weights of a blow and of the one that follows it at the far edge."""
    square = (1 + specimen.exit**2) * np.exp(2 * specimen.roughness**2)
    if fault != "outer":
        square *= np.mean(_load(bearing, turn_grid()) ** 2)
    if fault == "ball":
        square *= (1 + WEAKER_RACE**2) / 2
    return float(square)
