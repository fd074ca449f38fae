"""Random machines: what they are made of, how they fail, and the wave a sensor on them records.

Start at `render` (one wave); `stream.MachineStream` records the same machine without end. Everything is drawn from
the generator that is passed in, so the same seed gives the same waves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

from fisher_edge.dsp.blocks import FloatArray
from fisher_train.simulate import bearing as bearings
from fisher_train.simulate import compressor as compressors
from fisher_train.simulate import flow as flows
from fisher_train.simulate import gear as gears
from fisher_train.simulate import leak as leaks
from fisher_train.simulate import motor as motors
from fisher_train.simulate import planetary as stages
from fisher_train.simulate import rotor as rotors
from fisher_train.simulate import supply as supplies
from fisher_train.simulate.damage import SOUND, Damage, draw_specimen
from fisher_train.simulate.motion import Drive, Run
from fisher_train.simulate.sensor import Modality, Sensor, background, digitise, draw_sensor, sensor_response
from fisher_train.simulate.structure import HIGHEST_MODE_HZ, PATHS, Structure, draw_structure, path_response

__all__ = [
    "ELECTRICAL",
    "FAULTS_OF",
    "Machine",
    "OperatingPoint",
    "State",
    "begin",
    "draw_machine",
    "forces",
    "level_of",
    "measured",
    "render",
]

UNMOVED = ("rotor", "motor", "leak", "background")
"""Paths whose force does not grow with speed like the rest: none, or (rotor) by a law of its own."""
MAX_CURRENT_RATE_HZ = 12_000
ELECTRICAL = ("current", "voltage")
FAULTS_OF = {
    "rotor": rotors.FAULTS,
    "bearing": bearings.FAULTS,
    "gear": gears.FAULTS,
    "motor": motors.FAULTS,
    "flow": flows.FAULTS,
    "planetary": stages.FAULTS,
    "compressor": compressors.FAULTS,
    "leak": leaks.FAULTS,
    "supply": supplies.FAULTS,
}
DRAWS: dict[str, tuple[Callable[[np.random.Generator], Any], float]] = {
    "bearing": (bearings.draw_bearing, 0.8),
    "gear": (gears.draw_gear, 0.4),
    "motor": (motors.draw_motor, 0.5),
    "flow": (flows.draw_flow, 0.4),
    "planetary": (stages.draw_planetary, 0.12),
    "compressor": (compressors.draw_compressor, 0.12),
    "leak": (leaks.draw_leak, 0.12),
}
"""Parts other than the rotor, and the share of machines that have each."""
FORCES: dict[str, Callable[[Any, Drive, Damage], FloatArray]] = {
    "rotor": rotors.rotor_force,
    "bearing": bearings.bearing_force,
    "gear": gears.gear_force,
    "motor": motors.magnetic_hum,
    "flow": flows.flow_force,
    "planetary": stages.planetary_force,
    "compressor": compressors.compressor_force,
    "leak": leaks.leak_force,
}


@dataclass(frozen=True)
class State:
    """Condition of a machine: healthy (no part), or one fault of one part."""

    part: str = ""
    fault: str = ""
    size: float = 0.0
    """Size of the fault's force relative to the nominal force of its part (1 is plain to see)."""
    specimen: int = 0
    """Individual: the same fault of the same size as another specimen has it, on the same machine."""


@dataclass(frozen=True)
class OperatingPoint:
    """How a machine is run while it is recorded."""

    speed: float = 1.0
    """Fraction of rated speed."""
    load: float = 0.7
    """Fraction of rated load."""
    line: float = 1.0
    """Fraction of the rated line frequency."""
    gain_db: float = 0.0


@dataclass(frozen=True)
class Machine:
    """Geometry of one machine and the sensor on it; parts that it does not have are None."""

    modality: Modality
    seed: int
    """What its specimens of faults are drawn from."""
    rotor: rotors.Rotor
    structure: Structure
    sensor: Sensor
    levels: tuple[float, ...]
    """Nominal force of each of PATHS."""
    growth: float = 1.0
    """Exponent with which the forces of moving parts grow with speed."""
    bearing: bearings.Bearing | None = None
    gear: gears.Gear | None = None
    motor: motors.Motor | None = None
    flow: flows.Flow | None = None
    planetary: stages.Planetary | None = None
    compressor: compressors.Compressor | None = None
    leak: leaks.Leak | None = None
    supply: supplies.Supply | None = None

    def parts(self) -> tuple[str, ...]:
        """Names of the parts whose faults this machine's sensor can record."""
        if self.modality in ELECTRICAL:
            return ("motor",) if self.modality == "current" else ("supply",)
        return tuple(name for name in FORCES if getattr(self, name) is not None)


def draw_machine(rng: np.random.Generator, rate_hz: int) -> Machine:
    """Draw a machine whose sensor is sampled at this rate: vibration, sound or (at low rates) current or voltage."""
    shares = (0.49, 0.32, 0.15, 0.04) if rate_hz <= MAX_CURRENT_RATE_HZ else (0.6, 0.4, 0.0, 0.0)
    modality: Modality = rng.choice(["vibration", "sound", "current", "voltage"], p=shares).item()
    levels = 10 ** (rng.uniform(-25, 3, len(PATHS)) / 20)
    structure = draw_structure(rng, max(HIGHEST_MODE_HZ, 0.45 * rate_hz))
    parts = {name: draw(rng) for name, (draw, share) in DRAWS.items() if rng.uniform() < share}
    if modality == "current":
        parts.setdefault("motor", motors.draw_motor(rng))
    if modality == "voltage":
        parts["supply"] = supplies.draw_supply(rng)
    present = [level for name, level in zip(PATHS, levels, strict=True) if name in {*parts, "rotor", "background"}]
    healthy_rms = float(np.sqrt(np.sum(np.square(present)))) if modality not in ELECTRICAL else 0.7
    return Machine(
        modality=modality,
        seed=int(rng.integers(2**32)),
        rotor=rotors.draw_rotor(rng),
        structure=structure,
        sensor=draw_sensor(rng, modality, healthy_rms),
        levels=tuple(levels.tolist()),
        growth=float(rng.uniform(0.5, 2.0)),
        **parts,
    )


def render(
    machine: Machine, state: State, point: OperatingPoint, rate_hz: int, samples: int, rng: np.random.Generator
) -> FloatArray:
    """Record a machine: (samples,) float32 in arbitrary units."""
    n = fft.next_fast_len(samples, real=True)
    drive = begin(machine, point, n, Run(rate_hz, rng))
    spectrum = sum(
        path_response(machine.structure, path, n, rate_hz) * fft.rfft(force) if path else fft.rfft(force)
        for path, force in forces(machine, state, drive).items()
    )
    spectrum *= sensor_response(machine.sensor, n, rate_hz)
    spectrum += _noise(machine, rate_hz, n, rng)
    return measured(machine, point, fft.irfft(spectrum, n)[:samples])


def begin(machine: Machine, point: OperatingPoint, samples: int, run: Run) -> Drive:
    """Let a machine run at an operating point for the next samples of a recording."""
    line = machine.supply or machine.motor
    return run.advance(
        samples,
        speed_hz=machine.rotor.speed_hz * point.speed,
        fluctuation=machine.rotor.fluctuation,
        line_hz=(line.line_hz if line else 0.0) * point.line,
        speed=point.speed,
        load=point.load,
    )


def forces(machine: Machine, state: State, drive: Drive) -> dict[str, FloatArray]:
    """Force of every part (samples,) times its level by path; of an electrical sensor its quantity, without a path."""

    def damage_of(part: str) -> Damage:
        if state.part != part:
            return SOUND
        return Damage(state.fault, state.size, draw_specimen(machine.seed, part, state.fault, state.specimen))

    if machine.modality == "current":
        assert machine.motor is not None
        return {"": motors.stator_current(machine.motor, drive, damage_of("motor"), machine.sensor.wire)}
    if machine.modality == "voltage":
        assert machine.supply is not None
        return {"": supplies.supply_voltage(machine.supply, drive, damage_of("supply"), machine.sensor.wire)}
    found = {part: FORCES[part](getattr(machine, part), drive, damage_of(part)) for part in machine.parts()}
    found["background"] = drive.white()
    growth = drive.speed**machine.growth
    return {
        path: np.float32(level_of(machine, path) * (1.0 if path in UNMOVED else growth)) * force
        for path, force in found.items()
    }


def level_of(machine: Machine, path: str) -> float:
    """Nominal force on a path."""
    return machine.levels[PATHS.index(path)]


def measured(machine: Machine, point: OperatingPoint, wave: npt.NDArray[np.floating]) -> FloatArray:
    """Samples (n,) float32 of a wave at the sensor."""
    return digitise(machine.sensor, wave * 10 ** (point.gain_db / 20))


def _noise(machine: Machine, rate_hz: int, samples: int, rng: np.random.Generator) -> npt.NDArray[np.complex64]:
    """Spectrum of the background of a recording: colored noise and mains hum."""
    sensor = machine.sensor
    level = 10 ** (sensor.noise_db / 20)
    shape = background(sensor, samples, rate_hz)
    pair = rng.standard_normal((2, len(shape)), np.float32)
    noise = (pair[0] + 1j * pair[1]) * shape * np.float32(level * np.sqrt(samples / 2))
    line = round(sensor.hum_hz * samples / rate_hz)
    if line < len(noise):
        noise[line] += 10 ** (sensor.hum_db / 20) * samples / 2
    return np.asarray(noise, np.complex64)
