"""Random machines: what they are made of, how they fail, and the wave a sensor on them records.

Start at `render` (one wave). Everything is drawn from the generator that is passed in, so the same seed gives the
same waves.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import fft

from fisher_edge.dsp.blocks import FloatArray
from fisher_train.simulate import bearing as bearings
from fisher_train.simulate import flow as flows
from fisher_train.simulate import gear as gears
from fisher_train.simulate import motor as motors
from fisher_train.simulate import rotor as rotors
from fisher_train.simulate.bearing import Bearing
from fisher_train.simulate.flow import Flow
from fisher_train.simulate.gear import Gear
from fisher_train.simulate.motor import Motor
from fisher_train.simulate.rotor import Rotor
from fisher_train.simulate.shaft import shaft_revolutions
from fisher_train.simulate.structure import (
    PATHS,
    Sensor,
    Structure,
    background,
    draw_sensor,
    draw_structure,
    path_response,
    sensor_response,
)

__all__ = [
    "Machine",
    "OperatingPoint",
    "State",
    "draw_machine",
    "render",
]

MAX_CURRENT_RATE_HZ = 12_000
FAULTS_OF = {
    "rotor": rotors.FAULTS,
    "bearing": bearings.FAULTS,
    "gear": gears.FAULTS,
    "motor": motors.FAULTS,
    "flow": flows.FAULTS,
}


@dataclass(frozen=True)
class State:
    """Condition of a machine: healthy (no part), or one fault of one part."""

    part: str = ""
    fault: str = ""
    size: float = 0.0
    """Size of the fault's force relative to the nominal force of its part (1 is plain to see)."""


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

    modality: Literal["vibration", "sound", "current"]
    rotor: Rotor
    bearing: Bearing | None
    gear: Gear | None
    motor: Motor | None
    flow: Flow | None
    structure: Structure
    sensor: Sensor
    levels: tuple[float, ...]
    """Nominal force of each of PATHS."""

    def parts(self) -> tuple[str, ...]:
        """Names of the parts whose faults this machine's sensor can record."""
        if self.modality == "current":
            return ("motor",)
        return tuple(name for name in FAULTS_OF if getattr(self, name) is not None)


def draw_machine(rng: np.random.Generator, rate_hz: int) -> Machine:
    """Draw a machine whose sensor is sampled at this rate: vibration, sound or (not at high rates) motor current."""
    shares = (0.5, 0.33, 0.17) if rate_hz <= MAX_CURRENT_RATE_HZ else (0.6, 0.4, 0.0)
    modality = rng.choice(["vibration", "sound", "current"], p=shares)
    has = rng.uniform(size=4) < (0.8, 0.4, 0.5, 0.4)
    levels = 10 ** (rng.uniform(-25, 3, len(PATHS)) / 20)
    structure, sensor = draw_structure(rng), draw_sensor(rng)
    if modality == "sound":  # other machines and the room are always heard
        sensor = replace(sensor, noise_db=float(rng.uniform(-35, -5)), high_pass_hz=float(rng.uniform(10, 60)))
    motor = motors.draw_motor(rng)
    return Machine(
        modality=modality,
        rotor=rotors.draw_rotor(rng),
        bearing=bearings.draw_bearing(rng) if has[0] else None,
        gear=gears.draw_gear(rng) if has[1] else None,
        motor=motor if has[2] or modality == "current" else None,
        flow=flows.draw_flow(rng) if has[3] else None,
        structure=structure,
        sensor=sensor,
        levels=tuple(levels.tolist()),
    )


def render(
    machine: Machine, state: State, point: OperatingPoint, rate_hz: int, samples: int, rng: np.random.Generator
) -> FloatArray:
    """Record a machine: (samples,) float32 in arbitrary units."""
    n = fft.next_fast_len(samples, real=True)
    if machine.modality == "current":
        spectrum = fft.rfft(_current(machine, state, point, rate_hz, n, rng))
    else:
        spectrum = sum(
            path_response(machine.structure, path, n, rate_hz) * fft.rfft(force)
            for path, force in _forces(machine, state, point, rate_hz, n, rng).items()
        )
    spectrum = spectrum * sensor_response(machine.sensor, n, rate_hz)
    spectrum += _noise(machine, rate_hz, n, rng)
    wave = fft.irfft(spectrum, n)[:samples]
    return np.asarray(wave * 10 ** (point.gain_db / 20), np.float32)


def _current(
    machine: Machine, state: State, point: OperatingPoint, rate_hz: int, samples: int, rng: np.random.Generator
) -> FloatArray:
    assert machine.motor is not None
    motor = machine.motor
    cycles = shaft_revolutions(motor.line_hz * point.line, 2e-4, samples, rate_hz, rng)
    time_s = np.arange(samples) / rate_hz
    current = motors.stator_current(motor, cycles, fault=state.fault, size=state.size, load=point.load, rng=rng)
    return current + motors.switching(motor, cycles, time_s)


def _forces(
    machine: Machine, state: State, point: OperatingPoint, rate_hz: int, samples: int, rng: np.random.Generator
) -> dict[str, FloatArray]:
    """Force of every part (samples,) on its path, times its level."""
    rotor, load = machine.rotor, point.load
    turns = shaft_revolutions(rotor.speed_hz * point.speed, rotor.fluctuation, samples, rate_hz, rng)

    def fault_of(part: str) -> tuple[str, float]:
        return (state.fault, state.size) if state.part == part else ("", 0.0)

    fault, size = fault_of("rotor")
    forces = {"rotor": rotors.rotor_force(rotor, turns, fault=fault, size=size, speed=point.speed, rng=rng)}
    if machine.bearing is not None:
        fault, size = fault_of("bearing")
        forces["bearing"] = bearings.bearing_force(machine.bearing, turns, fault=fault, size=size, load=load, rng=rng)
    if machine.gear is not None:
        fault, size = fault_of("gear")
        forces["gear"] = gears.gear_force(machine.gear, turns, fault=fault, size=size, load=load, rng=rng)
    if machine.motor is not None:
        fault, size = fault_of("motor")
        cycles = shaft_revolutions(machine.motor.line_hz * point.line, 2e-4, samples, rate_hz, rng)
        forces["motor"] = motors.magnetic_hum(machine.motor, cycles, fault=fault, size=size, load=load)
    if machine.flow is not None:
        fault, size = fault_of("flow")
        forces["flow"] = flows.flow_force(
            machine.flow, turns, rate_hz=rate_hz, fault=fault, size=size, load=load, speed=point.speed, rng=rng
        )
    forces["background"] = rng.standard_normal(samples, np.float32)
    return {path: np.float32(machine.levels[PATHS.index(path)]) * force for path, force in forces.items()}


def _noise(machine: Machine, rate_hz: int, samples: int, rng: np.random.Generator) -> npt.NDArray[np.complex64]:
    """Spectrum of what is recorded besides the machine: coloured noise and mains hum."""
    sensor = machine.sensor
    level = 10 ** (sensor.noise_db / 20)
    shape = background(sensor, samples, rate_hz)
    pair = rng.standard_normal((2, len(shape)), np.float32)
    noise = (pair[0] + 1j * pair[1]) * shape * np.float32(level * np.sqrt(samples / 2))
    line = round(sensor.hum_hz * samples / rate_hz)
    if line < len(noise):
        noise[line] += 10 ** (sensor.hum_db / 20) * samples / 2
    return np.asarray(noise, np.complex64)
