"""A reciprocating compressor: crank, gas pressure, and valves that open and close once per revolution.

The ideal cycle decides when: with pressure ratio R, clearance volume c (share of the swept volume) and polytropic
exponent n, the discharge valve opens where `(V1/V)^n = R` and the suction valve where `V = c R^(1/n)`; both close
near the dead centres. Sources: Bloch and Hoefner, Reciprocating Compressors (1996); Elhaj et al., Numerical simulation
and experimental study of a two-stage reciprocating compressor for condition monitoring, MSSP 22 (2008).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray
from fisher_train.simulate.damage import Damage
from fisher_train.simulate.motion import Drive
from fisher_train.simulate.shaft import DoubleArray, events, orders, periodic, pulse_rms, pulses, turn_grid, unit_gate

__all__ = ["FAULTS", "Compressor", "compressor_force", "draw_compressor", "valve_angles"]

ComplexArray = npt.NDArray[np.complex128]
FAULTS = ("suction", "discharge", "flutter", "knock")
ADIABATIC = 1.3
GAS_ORDERS = 24
FLUTTER = ((0.025, 0.8), (0.05, 0.6), (0.075, 0.4))
"""Revolutions after the opening at which a plate with a weak spring strikes again, and how hard."""


@dataclass(frozen=True)
class Compressor:
    """Cylinders on one crank, evenly spaced; angle 0 is the top dead centre of the first."""

    cylinders: int
    rod: float
    """Crank radius over length of the connecting rod."""
    clearance: float
    """Dead volume as a share of the swept volume."""
    ratio: float
    """Discharge over suction pressure at full load."""
    strength: tuple[float, float, float, float]
    """Angles of the impacts: suction opens, suction closes, discharge opens, discharge closes."""
    gas: float
    """Level of the pressure's orders relative to the crank's."""
    valve: float
    """Level of the valves' blows relative to the crank's orders."""
    rush: float
    """Level of the noise of gas through open valves."""


def draw_compressor(rng: np.random.Generator) -> Compressor:
    """Draw a compressor of 1 to 4 cylinders."""
    return Compressor(
        cylinders=int(rng.integers(1, 5)),
        rod=float(rng.uniform(0.18, 0.35)),
        clearance=float(rng.uniform(0.05, 0.15)),
        ratio=float(rng.uniform(2.5, 8.0)),
        strength=tuple(rng.uniform(0.4, 1.2, 4).tolist()),
        gas=float(10 ** rng.uniform(-1, 0.2)),
        valve=float(10 ** rng.uniform(-1, 0.2)),
        rush=float(10 ** rng.uniform(-1.5, -0.3)),
    )


def valve_angles(compressor: Compressor, load: float, damage: Damage | None = None) -> dict[str, float]:
    """Revolutions after the top dead centre of a cylinder at which its valves open and close.

    A leaking discharge valve lets gas back: the pressure is there earlier and the clearance expands longer. A
    leaking suction valve lets gas out: the discharge valve opens later and the clearance is empty earlier.
    """
    ratio, rising, falling = _cycle(compressor, load, damage)
    squeezed = (1 + compressor.clearance) * ratio ** (-1 / rising)
    expanded = compressor.clearance * ratio ** (1 / falling)
    return {
        "suction opens": _angle(expanded - compressor.clearance),
        "suction closes": 0.51,
        "discharge opens": 1 - _angle(squeezed - compressor.clearance),
        "discharge closes": 1.005,
    }


def _cycle(compressor: Compressor, load: float, damage: Damage | None) -> tuple[float, float, float]:
    """Pressure ratio at this load, and the polytropic exponents while gas is squeezed and while it expands."""
    leak = min(1.0, 0.5 * damage.size) if damage else 0.0
    change = {"discharge": 1 + 0.5 * leak, "suction": 1 - 0.3 * leak}.get(damage.fault if damage else "", 1.0)
    return 1 + (compressor.ratio - 1) * (0.4 + 0.6 * load), ADIABATIC * change, ADIABATIC / change


def _angle(swept: float) -> float:
    """Revolutions after top dead centre at which the piston has freed this share of the swept volume, at most half.

    A valve that leaks so much that the pressure never opens it moves at the dead centre.
    """
    return float(np.arccos(np.clip(1 - 2 * swept, -1, 1)) / (2 * np.pi))


def compressor_force(compressor: Compressor, drive: Drive, damage: Damage) -> FloatArray:
    """Force on the frame (samples,), 1 at the first order of a single cylinder's crank at rated speed.

    `suction`, `discharge`: a valve of one cylinder leaks: a jet hisses while it should be shut, and the valves open
    at other angles. `flutter`: a weak spring lets a plate strike again after it has opened. `knock`: the worn pin
    of one cylinder strikes at both dead centres. `size` is the RMS of the jet or of the blows.
    """
    steady = orders(drive.turns, _crank(compressor, drive.load, drive.speed, damage), drive.top_order(drive.speed_hz))
    steady += np.float32(compressor.valve) * _valves(compressor, drive, damage)
    gate = np.zeros_like(turn_grid())
    for cylinder in range(compressor.cylinders):
        gate += _open(compressor, drive.load, turn_grid() - cylinder / compressor.cylinders)
    rush = periodic(np.float32(compressor.rush) * unit_gate(gate), drive.phase)
    if damage.fault in {"suction", "discharge"}:
        jet = unit_gate(_leaking(damage.fault, turn_grid() - _cylinder(compressor, damage)))
        rush += np.float32(damage.size) * periodic(jet, drive.phase)
    rush *= drive.white()
    if damage.fault in {"flutter", "knock"}:
        steady += np.float32(damage.size) * _blows(compressor, drive, damage)
    steady += rush
    return steady


def _cylinder(compressor: Compressor, damage: Damage) -> float:
    """Angle of the top dead centre of the damaged cylinder."""
    return int(damage.specimen.place * compressor.cylinders) / compressor.cylinders


@lru_cache(maxsize=32)
def _crank(compressor: Compressor, load: float, speed: float, damage: Damage) -> ComplexArray:
    """Amplitudes of the crank's orders: inertia of the pistons (1 and 2) and pressure of the gas."""
    turn = turn_grid()
    total = np.zeros(len(turn))
    for cylinder in range(compressor.cylinders):
        angle = turn - cylinder / compressor.cylinders
        inertia = np.cos(2 * np.pi * angle) + compressor.rod * np.cos(4 * np.pi * angle)
        damaged = damage if _cylinder(compressor, damage) == cylinder / compressor.cylinders else None
        total += inertia * speed**2 - compressor.gas * _pressure(compressor, load, angle % 1.0, damaged)
    series = np.fft.rfft(total)[1 : GAS_ORDERS + 1] * 2 / len(turn)
    return np.asarray(series)


def _pressure(compressor: Compressor, load: float, angle: DoubleArray, damage: Damage | None) -> DoubleArray:
    """Pressure in one cylinder relative to that of the discharge."""
    ratio, rising, falling = _cycle(compressor, load, damage)
    volume = compressor.clearance + (1 - np.cos(2 * np.pi * angle)) / 2
    expanding = np.maximum((volume / compressor.clearance) ** -falling, 1 / ratio)
    squeezing = np.minimum(((1 + compressor.clearance) / volume) ** rising / ratio, 1)
    return np.asarray(np.where(angle < 0.5, expanding, squeezing))


def _open(compressor: Compressor, load: float, turn: DoubleArray) -> DoubleArray:
    """Speed of the gas through the open valves of one cylinder: that of the piston."""
    at, angle = valve_angles(compressor, load), turn % 1.0
    suction = (angle > at["suction opens"]) & (angle < at["suction closes"])
    discharge = angle > at["discharge opens"]
    return np.asarray(np.abs(np.sin(2 * np.pi * angle)) * (suction | discharge))


def _leaking(fault: str, turn: DoubleArray) -> DoubleArray:
    """Speed of a jet through a valve that should be shut: discharge leaks during suction, suction while squeezed."""
    angle = turn % 1.0
    centre, wide = (0.3, 0.2) if fault == "discharge" else (0.88, 0.12)
    return np.asarray(np.exp(-np.square((angle - centre) / wide)))


def _valves(compressor: Compressor, drive: Drive, damage: Damage) -> FloatArray:
    """Blows (samples,) of RMS 1 of all valves, four for each cylinder and revolution."""
    total = np.zeros(drive.samples, np.float32)
    for cylinder in range(compressor.cylinders):
        angle = cylinder / compressor.cylinders
        damaged = damage if _cylinder(compressor, damage) == angle else None
        for valve, at in enumerate(valve_angles(compressor, drive.load, damaged).values()):
            number, place = events(drive.edge_turns - angle - at)
            weights = compressor.strength[valve] * np.exp(0.1 * drive.run.scatter("valve", number))
            total += pulses(place, weights, drive.samples)
    square = float(np.mean(np.square(compressor.strength)))
    return total / np.float32(pulse_rms(4 * compressor.cylinders * drive.speed_hz, drive.rate_hz, square))


def _blows(compressor: Compressor, drive: Drive, damage: Damage) -> FloatArray:
    """Blows (samples,) of RMS 1 of a fluttering plate or a worn pin of one cylinder."""
    specimen = damage.specimen
    if damage.fault == "knock":
        blows: tuple[tuple[float, float], ...] = ((0.02, 1.0), (0.52, specimen.exit))
    else:
        opens = valve_angles(compressor, drive.load)["suction opens"]
        spread = 0.7 + 3 * specimen.width
        blows = tuple((opens + late * spread, hard) for late, hard in FLUTTER)
    total = np.zeros(drive.samples, np.float32)
    for at, hard in blows:
        number, place = events(drive.edge_turns - _cylinder(compressor, damage) - at)
        weights = hard * np.exp(specimen.roughness * drive.run.of_fault.scatter("blow", number))
        total += pulses(place, weights, drive.samples)
    square = np.mean([hard**2 for _, hard in blows]) * np.exp(2 * specimen.roughness**2)
    return total / np.float32(pulse_rms(len(blows) * drive.speed_hz, drive.rate_hz, float(square)))
