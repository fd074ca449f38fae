"""Simulated machines: the lines are where theory puts them, and the same seed gives the same waves."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import signal

from fisher_train.simulate import (
    Machine,
    OperatingPoint,
    State,
    draw_machine,
    draw_operating_points,
    draw_states,
    family,
    render,
)
from fisher_train.simulate import motor as motors
from fisher_train.simulate.bearing import Bearing, bearing_force, fault_orders
from fisher_train.simulate.flow import Flow, flow_force
from fisher_train.simulate.gear import Gear, gear_force
from fisher_train.simulate.machine import FAULTS_OF
from fisher_train.simulate.motor import Motor, slip_of, stator_current
from fisher_train.simulate.rotor import HALF_ORDERS, Rotor, rotor_force
from fisher_train.simulate.shaft import impact_train, orders, shaft_revolutions
from fisher_train.simulate.structure import PATHS, draw_structure, path_response

RATE_HZ = 20_000
SAMPLES = 5 * RATE_HZ
SPEED_HZ = 30.0
# SKF 6205, 9 balls of 7.94 mm on a pitch circle of 39.04 mm: the drive-end bearing of the CWRU rig.
SKF_6205 = Bearing(balls=9, ratio=0.2034, contact_rad=0.0, slip=0.005, zone=0.3, phase=0.2, hiss=0.05)
ROTOR = Rotor(SPEED_HZ, 1e-4, (0j, 0.1 + 0j, *([0j] * (HALF_ORDERS - 2))), (0.0,) * HALF_ORDERS, rub=0.5)
GEAR = Gear(23, 61, (1 + 0j, 0.3 + 0j, 0j, 0j, 0j, 0j), 0.02, 0.02, 0.0, impact=0.5)
MOTOR = Motor(50.0, 2, 0.04, (1 + 0j, *([0j] * 16)), torque_ripple=0.0, carrier_hz=0.0, carrier=0.0)
FLOW = Flow(7, (1 + 0j, 0j, 0j, 0j), turbulence=0.1, blade_depth=0.2, bubbles_hz=500.0)


def rng(seed: int = 0) -> np.random.Generator:
    """Return a generator of its own for each use."""
    return np.random.default_rng(seed)


def turning(speed_hz: float = SPEED_HZ, fluctuation: float = 1e-5) -> np.ndarray:
    """Return the revolutions of a nearly steady shaft."""
    return shaft_revolutions(speed_hz, fluctuation, SAMPLES, RATE_HZ, rng())


def amplitude_at(wave: np.ndarray, hz: float, *, within_hz: float = 0.4) -> float:
    """Return the largest amplitude of a spectral line near a frequency."""
    spectrum = np.abs(np.fft.rfft(wave * signal.windows.hann(len(wave), sym=False))) * 4 / len(wave)
    f = np.fft.rfftfreq(len(wave), 1 / RATE_HZ)
    return float(spectrum[np.abs(f - hz) <= within_hz].max())


def strongest_hz(wave: np.ndarray, low_hz: float, high_hz: float) -> float:
    """Return the frequency of the strongest line between two frequencies."""
    spectrum = np.abs(np.fft.rfft(wave * signal.windows.hann(len(wave), sym=False)))
    f = np.fft.rfftfreq(len(wave), 1 / RATE_HZ)
    spectrum[(f < low_hz) | (f > high_hz)] = 0
    return float(f[spectrum.argmax()])


def envelope(wave: np.ndarray) -> np.ndarray:
    """Return the envelope without its mean."""
    found = np.abs(signal.hilbert(wave))
    return np.asarray(found - found.mean())


def test_fault_orders_are_those_of_the_maker() -> None:
    """The SKF 6205 has the published orders (Smith and Randall, MSSP 64-65, table 2)."""
    expected = {"outer": 3.585, "inner": 5.415, "ball": 2 * 2.357, "cage": 0.3983}
    found = fault_orders(SKF_6205)
    assert found.keys() == expected.keys()
    for name, order in expected.items():
        assert found[name] == pytest.approx(order, rel=2e-3)


@pytest.mark.parametrize("fault", ["outer", "inner", "ball"])
def test_bearing_envelope_peaks_at_the_fault_rate(fault: str) -> None:
    """After a resonance, the envelope spectrum has its strongest line at BPFO, BPFI or twice BSF."""
    force = bearing_force(SKF_6205, turning(), fault=fault, size=1.0, load=1.0, rng=rng())
    ringing = signal.sosfilt(signal.butter(2, (3000, 5000), "bandpass", fs=RATE_HZ, output="sos"), force)
    expected_hz = fault_orders(SKF_6205)[fault] * SPEED_HZ
    if fault == "ball":  # races are struck unevenly in turn: once per turn of the ball dominates or follows closely
        assert amplitude_at(envelope(ringing), expected_hz / 2) > 10 * amplitude_at(envelope(ringing), 97.0)
    else:
        assert strongest_hz(envelope(ringing), 60, 250) == pytest.approx(expected_hz, abs=1.0)


def test_inner_race_fault_has_sidebands_of_the_shaft() -> None:
    """The damage passes the load zone once per revolution; on the outer race it stays where it is."""
    side_hz = (fault_orders(SKF_6205)["inner"] - 1) * SPEED_HZ
    inner = envelope(bearing_force(SKF_6205, turning(), fault="inner", size=1.0, load=1.0, rng=rng()))
    outer_side_hz = (fault_orders(SKF_6205)["outer"] - 1) * SPEED_HZ
    outer = envelope(bearing_force(SKF_6205, turning(), fault="outer", size=1.0, load=1.0, rng=rng()))
    assert amplitude_at(inner, side_hz) > 4 * amplitude_at(outer, outer_side_hz)


def test_cage_fault_modulates_at_the_cage_rate() -> None:
    """A damaged cage lets the rolling noise swell at FTF."""
    power = np.square(bearing_force(SKF_6205, turning(), fault="cage", size=1.0, load=1.0, rng=rng()))
    expected_hz = fault_orders(SKF_6205)["cage"] * SPEED_HZ
    assert strongest_hz(power - power.mean(), 5, 100) == pytest.approx(expected_hz, abs=0.5)


def test_bearing_fault_has_the_rms_asked_for() -> None:
    """`size` is the root mean square of the impacts at full load."""
    quiet = replace(SKF_6205, hiss=0.0)
    force = bearing_force(quiet, turning(), fault="outer", size=2.5, load=1.0, rng=rng())
    assert np.sqrt(np.mean(np.square(force))) == pytest.approx(2.5, rel=1e-3)


def test_gear_mesh_line_is_teeth_times_speed() -> None:
    """A sound pair has its strongest line at the mesh frequency."""
    force = gear_force(GEAR, turning(), fault="", size=0.0, load=1.0, rng=rng())
    assert strongest_hz(force, 10, 5000) == pytest.approx(23 * SPEED_HZ, abs=0.3)
    assert amplitude_at(force, 23 * SPEED_HZ) == pytest.approx(1.0, rel=0.05)


def test_eccentric_gear_has_sidebands_of_its_shaft() -> None:
    """Modulation of depth m puts lines of m/2 one shaft frequency from the mesh line, on either side."""
    force = gear_force(GEAR, turning(), fault="eccentricity", size=0.4, load=1.0, rng=rng())
    for side in (-1, 1):
        assert amplitude_at(force, (23 + side) * SPEED_HZ) == pytest.approx(0.21, rel=0.1)


def test_damaged_tooth_strikes_once_per_revolution() -> None:
    """The residual after removing mesh lines repeats with the shaft."""
    sound = gear_force(GEAR, turning(), fault="", size=0.0, load=1.0, rng=rng())
    damaged = gear_force(GEAR, turning(), fault="tooth", size=1.0, load=1.0, rng=rng())
    energy = np.square(damaged - sound)
    assert strongest_hz(energy - energy.mean(), 10, 45) == pytest.approx(SPEED_HZ, abs=0.3)


def test_worn_gear_has_stronger_higher_harmonics() -> None:
    """Wear raises the second and third mesh harmonics more than the first."""
    sound, worn = (gear_force(GEAR, turning(), fault=fault, size=1.0, load=1.0, rng=rng()) for fault in ("", "wear"))
    gain = [amplitude_at(worn, k * 23 * SPEED_HZ) / (amplitude_at(sound, k * 23 * SPEED_HZ) + 1e-3) for k in (1, 3)]
    assert gain[1] > 3 * gain[0]


@pytest.mark.parametrize(("fault", "order"), [("unbalance", 1.0), ("misalignment", 2.0), ("looseness", 0.5)])
def test_rotor_fault_raises_its_order(fault: str, order: float) -> None:
    """Unbalance shows at once, misalignment at twice, looseness at half the speed."""
    sound, faulty = (rotor_force(ROTOR, turning(), fault=name, size=1.0, speed=1.0, rng=rng()) for name in ("", fault))
    assert amplitude_at(faulty, order * SPEED_HZ) > 5 * amplitude_at(sound, order * SPEED_HZ) + 0.1


def test_unbalance_grows_with_the_square_of_speed() -> None:
    """At half of rated speed a quarter of the force is left."""
    force = [
        amplitude_at(rotor_force(ROTOR, turning(), fault="unbalance", size=1.0, speed=speed, rng=rng()), SPEED_HZ)
        for speed in (0.5, 1.0)
    ]
    assert force[1] / force[0] == pytest.approx(4.0, rel=0.02)


@pytest.mark.parametrize("load", [0.3, 1.0])
def test_broken_bars_show_at_twice_the_slip(load: float) -> None:
    """Sidebands stand at (1 - 2s) and (1 + 2s) times the line frequency, further apart under load."""
    cycles = turning(50.0, 1e-7)
    current = stator_current(MOTOR, cycles, fault="bars", size=1.0, load=load, rng=rng())
    shift_hz = 2 * slip_of(MOTOR, load) * 50.0
    healthy = stator_current(MOTOR, cycles, fault="", size=0.0, load=load, rng=rng())
    for side in (-1, 1):
        found = strongest_hz(current - healthy, 50 + side * shift_hz - 0.5, 50 + side * shift_hz + 0.5)
        assert found == pytest.approx(50 + side * shift_hz, abs=0.25)
        assert amplitude_at(current - healthy, found) > 0.01


def test_interturn_short_raises_the_third_harmonic() -> None:
    """A shorted turn makes the phases unequal: 150 Hz on a 50 Hz line."""
    current = stator_current(MOTOR, turning(50.0, 1e-7), fault="interturn", size=1.0, load=1.0, rng=rng())
    assert strongest_hz(current, 100, 1000) == pytest.approx(150.0, abs=0.3)


def test_airgap_fault_shows_at_the_shaft_frequency_beside_the_line() -> None:
    """Eccentricity puts lines at the line plus and minus the shaft frequency (1 - s) f / p."""
    current = stator_current(MOTOR, turning(50.0, 1e-7), fault="airgap", size=1.0, load=1.0, rng=rng())
    shaft_hz = 50.0 * (1 - 0.04) / 2
    assert strongest_hz(current, 60, 90) == pytest.approx(50 + shaft_hz, abs=0.3)
    assert strongest_hz(current, 10, 40) == pytest.approx(50 - shaft_hz, abs=0.3)


def test_motor_hums_at_twice_the_line() -> None:
    """The magnetic force has twice the frequency of the field."""
    hum = motors.magnetic_hum(MOTOR, turning(50.0, 1e-7), fault="", size=0.0, load=1.0)
    assert strongest_hz(hum, 10, 1000) == pytest.approx(100.0, abs=0.3)


def test_converter_has_lines_beside_its_carrier() -> None:
    """Switching shows at the carrier plus and minus twice the line frequency."""
    driven = replace(MOTOR, carrier_hz=4000.0, carrier=1.0)
    time_s = np.arange(SAMPLES) / RATE_HZ
    ripple = motors.switching(driven, turning(50.0, 1e-7), time_s)
    assert amplitude_at(ripple, 4100.0) == pytest.approx(0.5, rel=0.1)
    assert amplitude_at(ripple, 3900.0) == pytest.approx(0.5, rel=0.1)


def flow(fault: str, size: float = 1.0) -> np.ndarray:
    """Return the force of the fluid on a seven-bladed impeller."""
    return flow_force(FLOW, turning(), rate_hz=RATE_HZ, fault=fault, size=size, load=0.6, speed=1.0, rng=rng())


def test_blade_pass_is_blades_times_speed() -> None:
    """A fan has its strongest line at blades times shaft frequency."""
    assert strongest_hz(flow(""), 10, 5000) == pytest.approx(7 * SPEED_HZ, abs=0.3)


def test_damaged_blade_has_sidebands_of_the_shaft() -> None:
    """One blade unlike the others modulates the blade pass once per revolution."""
    assert amplitude_at(flow("blade"), 6 * SPEED_HZ) > 10 * amplitude_at(flow(""), 6 * SPEED_HZ)


def test_cavitation_is_broadband_and_impulsive() -> None:
    """Collapsing bubbles raise the high frequencies and the kurtosis."""
    high_pass = signal.butter(4, 3000, "highpass", fs=RATE_HZ, output="sos")
    quiet, cavitating = (signal.sosfilt(high_pass, flow(fault)) for fault in ("", "cavitation"))
    kurtosis = np.mean(cavitating**4) / np.mean(cavitating**2) ** 2
    assert np.std(cavitating) > 3 * np.std(quiet)
    assert kurtosis > 5


def test_orders_are_the_sum_of_cosines() -> None:
    """Horner's rule gives what the definition gives."""
    amplitudes = np.array([0.3 + 0.1j, 0, -0.5j, 1.0])
    turns = turning()
    expected = sum((a * np.exp(2j * np.pi * (k + 1) * turns)).real for k, a in enumerate(amplitudes))
    np.testing.assert_allclose(orders(turns, amplitudes), expected, atol=2e-5)


def test_impacts_keep_their_weight_between_samples() -> None:
    """A pulse between two samples is split, not rounded: its weight and its centre stay."""
    turns = np.linspace(0, 1, 101)
    train = impact_train(turns, np.array([0.253]), np.array([2.0]))
    assert train.sum() == pytest.approx(2.0)
    assert np.average(np.arange(101), weights=train) == pytest.approx(25.3, abs=1e-4)


def test_paths_pass_white_noise_at_its_level() -> None:
    """Each path has an average gain of 1, so levels mean the same on every structure."""
    structure = draw_structure(rng())
    gains = [np.sqrt(np.mean(np.abs(path_response(structure, path, 8192, RATE_HZ)) ** 2)) for path in PATHS]
    np.testing.assert_allclose(gains, 1.0, rtol=1e-3)


def machine_with(part: str) -> Machine:
    """Return the first drawn machine that has a part and whose sensor records it."""
    machines = (draw_machine(rng(seed), 8000) for seed in range(1000))
    return next(machine for machine in machines if part in machine.parts())


@pytest.mark.parametrize(("part", "fault"), [(part, fault) for part, faults in FAULTS_OF.items() for fault in faults])
def test_every_fault_changes_the_recording(part: str, fault: str) -> None:
    """With the same draws, a plain fault makes another wave than the healthy machine; all values are finite."""
    machine = replace(machine_with(part), levels=(1.0,) * len(PATHS))
    healthy, faulty = (
        render(machine, state, OperatingPoint(), 8000, 8000, rng(1)) for state in (State(), State(part, fault, 2.0))
    )
    assert faulty.dtype == np.float32
    assert faulty.shape == (8000,)
    assert np.isfinite(faulty).all()
    assert np.std(faulty - healthy) > 0.02 * np.std(healthy)


def test_family_repeats_with_its_seed() -> None:
    """The same generator state gives the same machine, states and waves; another gives others."""
    first, same, other = (family(rng(seed), 12_000, 11_700) for seed in (3, 3, 4))
    assert first.machine == same.machine
    assert first.states == same.states
    np.testing.assert_array_equal(first.waves, same.waves)
    assert first.machine != other.machine


@pytest.mark.parametrize("rate_hz", [1000, 8000, 51_200])
def test_family_has_four_states_at_two_points(rate_hz: int) -> None:
    """Waves have shape (4, 2, samples), float32, finite, not silent; the first state is healthy."""
    found = family(rng(rate_hz), rate_hz, rate_hz)
    assert found.waves.shape == (4, 2, rate_hz)
    assert found.waves.dtype == np.float32
    assert np.isfinite(found.waves).all()
    assert found.waves.std(axis=2).min() > 0
    assert found.states[0] == State()


def test_states_hold_one_fault_twice() -> None:
    """Two states are severities of one fault, the worse at least 1.8 times the other; no two states are equal."""
    for seed in range(50):
        states = draw_states(draw_machine(rng(seed), 8000), rng(seed))
        assert len(set(states)) == 4
        assert (states[1].part, states[1].fault) == (states[2].part, states[2].fault)
        assert states[2].size >= 1.79 * states[1].size > 0


def test_machines_of_every_modality_are_drawn() -> None:
    """Vibration, sound and current are drawn; current only at rates at which it is sampled."""
    slow = {draw_machine(rng(seed), 8000).modality for seed in range(60)}
    fast = {draw_machine(rng(seed), 48_000).modality for seed in range(60)}
    assert slow == {"vibration", "sound", "current"}
    assert fast == {"vibration", "sound"}


def test_operating_points_differ_within_their_limits() -> None:
    """Speeds differ by 30 % at most, gains by 2 dB, loads stay between 0 and 1."""
    for seed in range(50):
        first, second = draw_operating_points(rng(seed))
        assert first != second
        assert 0.7 < first.speed / second.speed < 1.4
        assert abs(first.gain_db - second.gain_db) <= 2
        assert 0 <= first.load <= 1
