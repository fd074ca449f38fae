"""Currents, voltages and hum: each fault has its lines and sequences where theory puts them, a sound one not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import signal
from simulated import (
    RATE_HZ,
    SAMPLES,
    amplitude_at,
    damage,
    rms,
    strongest_hz,
    turning,
)

from fisher_train.simulate import motor as motors
from fisher_train.simulate.damage import SOUND
from fisher_train.simulate.inverter import ripple
from fisher_train.simulate.motor import HARMONICS, Motor, slip_of, stator_current
from fisher_train.simulate.supply import FLICKER_HZ, Supply, supply_voltage

PURE = (1 + 0j, *([0j] * (HARMONICS - 1)))
MOTOR = Motor(50.0, 2, 0.04, PURE, torque_ripple=0.0, slots=28, slotting=0.0, carrier_hz=0.0, carrier=0.0)
MAINS = Supply(50.0, PURE, sags_hz=2.0, carrier_hz=4000.0, carrier=0.0)


def current(fault: str, *, wire: int = 0, load: float = 1.0, motor: Motor = MOTOR, size: float = 1.0) -> np.ndarray:
    """Return the current of one wire of a motor."""
    return stator_current(motor, turning(load=load), damage(fault, size), wire)


@pytest.mark.parametrize("load", [0.3, 1.0])
def test_broken_bars_show_at_twice_the_slip(load: float) -> None:
    """Sidebands stand at (1 - 2s) and (1 + 2s) times the line frequency, further apart under load."""
    added = current("bars", load=load) - current("", load=load)
    shift_hz = 2 * slip_of(MOTOR, load) * 50.0
    for side in (-1, 1):
        found = strongest_hz(added, 50 + side * shift_hz - 0.5, 50 + side * shift_hz + 0.5)
        assert found == pytest.approx(50 + side * shift_hz, abs=0.25)
        assert amplitude_at(added, found) > 0.01


def sequences(quantity: Any, hz: float) -> dict[str, float]:
    """Return the symmetrical components (Fortescue) of three wires at a frequency, by a plain Fourier sum."""
    time_s = np.arange(SAMPLES) / RATE_HZ
    turn = np.exp(-2j * np.pi * hz * time_s) * signal.windows.hann(SAMPLES, sym=False) * 4 / SAMPLES
    a, b, c = (complex(np.sum(quantity(wire) * turn)) for wire in range(3))
    step = np.exp(2j * np.pi / 3)
    found = {"zero": a + b + c, "positive": a + step * b + step**2 * c, "negative": a + step**2 * b + step * c}
    return {name: abs(value) / 3 for name, value in found.items()}


def test_sound_motor_has_a_positive_sequence_only() -> None:
    """Wires lag by a third of a cycle; nothing turns backwards."""
    found = sequences(lambda wire: current("", wire=wire), 50.0)
    assert found["positive"] == pytest.approx(1.0, rel=0.01)
    assert found["negative"] + found["zero"] < 0.01


def test_interturn_short_makes_the_wires_unequal() -> None:
    """A short in one winding adds a negative sequence and no zero sequence; one wire carries the most."""
    found = sequences(lambda wire: current("interturn", wire=wire), 50.0)
    assert found["negative"] == pytest.approx(0.10, rel=0.1)
    assert found["zero"] < 0.01
    amplitudes = [amplitude_at(current("interturn", wire=wire), 50.0) for wire in range(3)]
    assert np.argmax(amplitudes) == 0  # the winding of the specimen of the text book
    assert max(amplitudes) > 1.1 * min(amplitudes)


def test_interturn_short_raises_a_third_harmonic_that_does_not_cancel() -> None:
    """150 Hz on a 50 Hz line in every wire, with a sum over the wires of zero."""
    assert strongest_hz(current("interturn"), 100, 1000) == pytest.approx(150.0, abs=0.3)
    found = sequences(lambda wire: current("interturn", wire=wire), 150.0)
    assert found["positive"] > 0.1
    assert found["zero"] < 0.01


def test_airgap_fault_shows_at_the_shaft_frequency_beside_the_line() -> None:
    """Eccentricity puts lines at the line plus and minus the shaft frequency (1 - s) f / p."""
    shaft_hz = 50.0 * (1 - 0.04) / 2
    for low, high, side in ((60, 90, 1), (10, 40, -1)):
        assert strongest_hz(current("airgap"), low, high) == pytest.approx(50 + side * shaft_hz, abs=0.3)
        assert amplitude_at(current("airgap"), 50 + side * shaft_hz) > 20 * amplitude_at(
            current(""), 50 + side * shaft_hz
        )


def test_rotor_slots_show_beside_the_line() -> None:
    """28 bars at 4 % slip and two pole pairs: lines at 28 * 24 Hz plus and minus 50 Hz, which tell the speed."""
    slotted = current("", motor=replace(MOTOR, slotting=0.02))
    for side in (-1, 1):
        assert amplitude_at(slotted, 28 * 24 + side * 50) == pytest.approx(0.01, rel=0.05)
        assert amplitude_at(current(""), 28 * 24 + side * 50) < 1e-4


@pytest.mark.parametrize(("fault", "gain"), [("", 1.0), ("interturn", 1.4)])
def test_motor_hums_at_twice_the_line(fault: str, gain: float) -> None:
    """The magnetic force has twice the frequency of the field, more of it with a short."""
    hum = motors.magnetic_hum(MOTOR, turning(), damage(fault))
    assert strongest_hz(hum, 10, 1000) == pytest.approx(100.0, abs=0.3)
    assert amplitude_at(hum, 100.0) > 0.95 * gain


@pytest.mark.parametrize(("fault", "side_hz"), [("bars", 4.0), ("airgap", 24.0)])
def test_rotor_faults_modulate_the_hum(fault: str, side_hz: float) -> None:
    """Broken bars sway the hum at twice the slip times the line, eccentricity at the shaft frequency."""
    hum = motors.magnetic_hum(MOTOR, turning(), damage(fault))
    sound = motors.magnetic_hum(MOTOR, turning(), SOUND)
    for side in (-1, 1):
        assert amplitude_at(hum, 100 + side * side_hz) > 0.2
        assert amplitude_at(sound, 100 + side * side_hz) < 0.01


def test_converter_has_the_lines_of_sine_triangle_modulation() -> None:
    """Carrier +- 2 line and twice the carrier +- 1 line, none at the carrier itself (Holmes and Lipo, chapter 4)."""
    found = ripple(turning(), 4000.0, 1.0)
    lines = {hz: amplitude_at(found, hz) for hz in (3900.0, 4000.0, 4100.0, 7950.0, 8000.0, 8050.0)}
    assert lines[3900.0] == pytest.approx(lines[4100.0], rel=0.02)
    assert lines[7950.0] == pytest.approx(1.0, rel=0.05)
    assert 0.3 < lines[4100.0] < 1.0
    assert lines[4000.0] + lines[8000.0] < 0.01


def test_converter_lines_above_half_the_rate_do_not_fold_back() -> None:
    """A sensor filters before it samples: a carrier at 16 kHz leaves nothing at a rate of 20 kHz."""
    assert rms(ripple(turning(), 16_000.0, 1.0)) == 0


def voltage(fault: str, *, wire: int = 0, size: float = 1.0) -> np.ndarray:
    """Return the voltage of one wire of the mains."""
    return supply_voltage(MAINS, turning(), damage(fault, size), wire)


def test_unbalanced_supply_has_a_negative_sequence() -> None:
    """Six percent of negative sequence, and a third harmonic; the sound supply has neither."""
    assert sequences(lambda wire: voltage("unbalance", wire=wire), 50.0)["negative"] == pytest.approx(0.06, rel=0.1)
    assert sequences(lambda wire: voltage("", wire=wire), 50.0)["negative"] < 0.005
    assert amplitude_at(voltage("unbalance"), 150.0) == pytest.approx(0.04, rel=0.1)


def test_harmonics_of_rectifiers_are_6k_plus_minus_1() -> None:
    """The 5th, 7th, 11th and 13th rise, their neighbours do not."""
    for order, size in ((5, 0.10), (7, 0.07), (11, 0.04), (13, 0.03)):
        assert amplitude_at(voltage("harmonics"), order * 50.0) == pytest.approx(size, rel=0.05)
    for order in (3, 9, 15):
        assert amplitude_at(voltage("harmonics"), order * 50.0) < 1e-3


def test_sag_lowers_the_voltage_for_a_while() -> None:
    """RMS over a cycle falls to 70 % for a tenth of the time at a size of 1, and is whole otherwise."""
    cycles = voltage("sag").reshape(-1, 400)
    found = np.sqrt(2 * np.mean(np.square(cycles), axis=1))
    assert found.min() == pytest.approx(0.7, abs=0.01)
    assert found.max() == pytest.approx(1.0, abs=0.01)
    assert 0.05 < np.mean(found < 0.8) < 0.2


def test_flicker_has_sidebands_of_8_8_hz() -> None:
    """A modulation of depth m puts lines of m/2 on either side of the fundamental."""
    for side in (-1, 1):
        assert amplitude_at(voltage("flicker"), 50 + side * FLICKER_HZ) == pytest.approx(0.03, rel=0.1)
        assert amplitude_at(voltage(""), 50 + side * FLICKER_HZ) < 1e-3


FORCES: list[tuple[Callable[[str, int], np.ndarray], tuple[str, ...]]] = [
    (lambda fault, n: stator_current(MOTOR, turning(), damage(fault, specimen=n)), ("bars", "interturn", "airgap")),
    (lambda fault, n: supply_voltage(MAINS, turning(), damage(fault, specimen=n)), ("harmonics", "sag", "flicker")),
]


@pytest.mark.parametrize(
    ("force", "fault"), [(force, fault) for force, faults in FORCES for fault in faults], ids=lambda x: str(x)[:12]
)
def test_another_specimen_of_a_fault_looks_different(force: Callable[[str, int], np.ndarray], fault: str) -> None:
    """With the same draws of the machine, specimens differ from each other; the same specimen does not."""
    first, again, other = (force(fault, n) for n in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert rms(first - other) > 0.02 * rms(first)
