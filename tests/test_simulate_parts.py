"""Parts of simulated machines: each fault has its lines where theory puts them, and a sound part has not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import signal
from simulated import (
    RATE_HZ,
    SAMPLES,
    SPEED_HZ,
    amplitude_at,
    damage,
    envelope,
    ringing,
    rms,
    rng,
    strongest_hz,
    turning,
)

from fisher_train.simulate import motor as motors
from fisher_train.simulate.bearing import Bearing, bearing_force, fault_orders
from fisher_train.simulate.compressor import Compressor, compressor_force, valve_angles
from fisher_train.simulate.damage import SOUND
from fisher_train.simulate.flow import Flow, flow_force
from fisher_train.simulate.gear import Gear, gear_force
from fisher_train.simulate.inverter import ripple
from fisher_train.simulate.leak import Leak, leak_force, peak_hz
from fisher_train.simulate.motor import HARMONICS, Motor, slip_of, stator_current
from fisher_train.simulate.planetary import Planetary, draw_planetary, planetary_force, stage_orders
from fisher_train.simulate.rotor import HALF_ORDERS, Rotor, rotor_force
from fisher_train.simulate.supply import FLICKER_HZ, Supply, supply_voltage

# SKF 6205, 9 balls of 7.94 mm on a pitch circle of 39.04 mm: the drive-end bearing of the CWRU rig.
SKF_6205 = Bearing(balls=9, ratio=0.2034, contact_rad=0.0, slip=0.005, zone=0.3, hiss=0.05)
ROTOR = Rotor(
    SPEED_HZ, 1e-4, (0j, 0.1 + 0j, *([0j] * (HALF_ORDERS - 2))), (0.0,) * HALF_ORDERS, friction=0.5, clearance=0.7
)
GEAR = Gear(23, 61, (1 + 0j, 0.3 + 0j, 0j, 0j, 0j, 0j), 0.02, 0.02, 0.0, impact=0.5)
PURE = (1 + 0j, *([0j] * (HARMONICS - 1)))
MOTOR = Motor(50.0, 2, 0.04, PURE, torque_ripple=0.0, slots=28, slotting=0.0, carrier_hz=0.0, carrier=0.0)
FLOW = Flow(7, (1 + 0j, 0j, 0j, 0j), turbulence=0.1, blade_depth=0.2, bubbles_hz=500.0)
STAGE = Planetary(20, 70, 3, (1 + 0j, 0j, 0j), nearness=2.0, impact=1.0)
PISTON = Compressor(1, 0.25, 0.08, 4.0, (1.0, 1.0, 1.0, 1.0), gas=0.3, valve=0.5, rush=0.05)
VALVE = Leak(flow=0.1, flow_hz=800.0, chatter_hz=31.0)
MAINS = Supply(50.0, PURE, sags_hz=2.0, carrier_hz=4000.0, carrier=0.0)


def bearing(fault: str, *, specimen: int | None = None, size: float = 1.0) -> np.ndarray:
    """Return the force of a bearing."""
    return bearing_force(SKF_6205, turning(), damage(fault, size, specimen=specimen))


def test_fault_orders_are_those_of_the_maker() -> None:
    """The SKF 6205 has the published orders (Smith and Randall, MSSP 64-65, table 2)."""
    expected = {"outer": 3.585, "inner": 5.415, "ball": 2 * 2.357, "cage": 0.3983}
    found = fault_orders(SKF_6205)
    assert found.keys() == expected.keys()
    for name, order in expected.items():
        assert found[name] == pytest.approx(order, rel=2e-3)


@pytest.mark.parametrize("specimen", [None, 0, 1, 2])
@pytest.mark.parametrize("fault", ["outer", "inner"])
def test_bearing_envelope_peaks_at_the_fault_rate(fault: str, specimen: int | None) -> None:
    """After a resonance, the envelope spectrum has its strongest line at BPFO or BPFI, moved by the slip."""
    force = bearing(fault, specimen=specimen)
    slip = damage(fault, specimen=specimen).specimen.slip
    expected_hz = fault_orders(SKF_6205, slip)[fault] * SPEED_HZ
    found_hz = strongest_hz(envelope(ringing(force)), 0.6 * expected_hz, 1.6 * expected_hz)
    assert found_hz == pytest.approx(expected_hz, abs=1.0)
    assert found_hz == pytest.approx(fault_orders(SKF_6205)[fault] * SPEED_HZ, rel=0.017)
    sound = amplitude_at(envelope(ringing(bearing(""))), expected_hz)
    assert amplitude_at(envelope(ringing(force)), expected_hz, within_hz=1) > 5 * sound


@pytest.mark.parametrize("specimen", [None, 0, 1, 2])
def test_ball_fault_has_lines_at_the_spin_and_twice_the_spin(specimen: int | None) -> None:
    """Races are struck unevenly in turn, so BSF appears beside 2 BSF, and the cage carries the ball about."""
    found = envelope(ringing(bearing("ball", specimen=specimen)))
    slip = damage("ball", specimen=specimen).specimen.slip
    spin_hz, cage_hz = (fault_orders(SKF_6205, slip)[name] * SPEED_HZ for name in ("ball", "cage"))
    floor = np.median([amplitude_at(found, hz) for hz in np.arange(40.3, 200, 5.7)])
    assert amplitude_at(found, spin_hz, within_hz=1) > 4 * floor
    assert amplitude_at(found, cage_hz, within_hz=1) > 4 * floor


def test_inner_race_fault_has_sidebands_of_the_shaft() -> None:
    """The damage passes the load zone once per revolution; on the outer race it stays where it is."""
    side_hz = (fault_orders(SKF_6205)["inner"] - 1) * SPEED_HZ
    outer_side_hz = (fault_orders(SKF_6205)["outer"] - 1) * SPEED_HZ
    assert amplitude_at(envelope(bearing("inner")), side_hz) > 4 * amplitude_at(
        envelope(bearing("outer")), outer_side_hz
    )


def test_cage_fault_modulates_at_the_cage_rate() -> None:
    """A damaged cage lets the rolling noise swell at FTF."""
    power = np.square(bearing("cage"))
    expected_hz = fault_orders(SKF_6205)["cage"] * SPEED_HZ
    assert strongest_hz(power - power.mean(), 5, 100) == pytest.approx(expected_hz, abs=0.5)


@pytest.mark.parametrize("fault", ["outer", "inner", "ball", "cage"])
@pytest.mark.parametrize("specimen", [None, 3])
def test_bearing_fault_has_the_rms_asked_for(fault: str, specimen: int | None) -> None:
    """`size` is the root mean square of what the fault adds at full load, whatever the specimen."""
    quiet = replace(SKF_6205, hiss=0.0)
    force = bearing_force(quiet, turning(), damage(fault, 2.5, specimen=specimen))
    assert rms(force) == pytest.approx(2.5, rel=0.1)


def test_slip_blurs_the_higher_harmonics() -> None:
    """Impacts that are not strictly periodic lose their high harmonics first (Randall and Antoni, figure 8)."""
    steady, slipping = (
        bearing_force(replace(SKF_6205, slip=slip), turning(), damage("outer")) for slip in (1e-4, 2e-2)
    )
    hz = fault_orders(SKF_6205)["outer"] * SPEED_HZ
    kept = [amplitude_at(slipping, k * hz, within_hz=2) / amplitude_at(steady, k * hz, within_hz=2) for k in (1, 20)]
    assert kept[1] < 0.6 * kept[0]


def gear(fault: str, size: float = 1.0) -> np.ndarray:
    """Return the force of a pair of gears."""
    return gear_force(GEAR, turning(), damage(fault, size))


def test_gear_mesh_line_is_teeth_times_speed() -> None:
    """A sound pair has its strongest line at the mesh frequency."""
    assert strongest_hz(gear(""), 10, 5000) == pytest.approx(23 * SPEED_HZ, abs=0.3)
    assert amplitude_at(gear(""), 23 * SPEED_HZ) == pytest.approx(1.0, rel=0.05)


def test_eccentric_gear_has_sidebands_of_its_shaft() -> None:
    """Modulation of depth m puts lines of m/2 one shaft frequency from the mesh line, on either side."""
    for side in (-1, 1):
        assert amplitude_at(gear("eccentricity", 0.4), (23 + side) * SPEED_HZ) == pytest.approx(0.21, rel=0.1)
        assert amplitude_at(gear(""), (23 + side) * SPEED_HZ) < 0.02


def test_damaged_tooth_strikes_once_per_revolution() -> None:
    """The residual after removing mesh lines repeats with the shaft."""
    energy = np.square(gear("tooth") - gear(""))
    assert strongest_hz(energy - energy.mean(), 10, 45) == pytest.approx(SPEED_HZ, abs=0.3)


def test_worn_gear_has_stronger_higher_harmonics() -> None:
    """Wear raises the third mesh harmonic more than the first."""
    gain = [amplitude_at(gear("wear"), k * 690.0) / (amplitude_at(gear(""), k * 690.0) + 1e-3) for k in (1, 3)]
    assert gain[1] > 3 * gain[0]


def stage(fault: str, size: float = 1.0, *, specimen: int | None = None) -> np.ndarray:
    """Return the force of a planetary stage."""
    return planetary_force(STAGE, turning(), damage(fault, size, specimen=specimen))


def test_planetary_orders_are_those_of_feng_and_zuo() -> None:
    """20, 25 and 70 teeth, three planets: carrier 2/9, mesh 140/9, sun 7/3, planet 2 * 140/225, ring 2/3 of the sun."""
    found = stage_orders(STAGE)
    expected = {"carrier": 2 / 9, "mesh": 140 / 9, "sun": 7 / 3, "planet": 280 / 225, "ring": 2 / 3}
    assert STAGE.planet_teeth == 25
    assert found == pytest.approx(expected)


def test_planets_that_pass_leave_only_orders_of_the_carrier_that_they_divide() -> None:
    """With three equal planets and 70 teeth the mesh line itself is gone, orders 69 and 72 of the carrier remain."""
    carrier_hz = SPEED_HZ * 2 / 9
    found = {order: amplitude_at(stage(""), order * carrier_hz) for order in range(67, 75)}
    assert found[69] > 0.3
    assert found[69] > found[72] > 0.1
    for order in (67, 68, 70, 71, 73, 74):
        assert found[order] < 0.02 * found[69]


def test_uneven_planets_show_the_missing_orders_of_the_carrier() -> None:
    """When one planet carries more than the others, the mesh line and its neighbours appear."""
    carrier_hz = SPEED_HZ * 2 / 9
    for order in (70, 71):
        assert amplitude_at(stage("carrier"), order * carrier_hz) > 10 * amplitude_at(stage(""), order * carrier_hz)


@pytest.mark.parametrize("specimen", [None, 1])
@pytest.mark.parametrize("fault", ["sun", "planet", "ring"])
def test_damaged_tooth_of_a_planetary_stage_strikes_at_its_rate(fault: str, specimen: int | None) -> None:
    """Blows come at n (1 - c), 2 mesh/Zp and n c per turn of the sun; all but the ring's are modulated on their way."""
    found = envelope(ringing(stage(fault, 2.0, specimen=specimen)))
    sound = envelope(ringing(stage("")))
    rate_hz = stage_orders(STAGE)[fault] * SPEED_HZ
    assert amplitude_at(found, rate_hz) > 20 * amplitude_at(sound, rate_hz)
    if fault != "ring":
        assert amplitude_at(found, SPEED_HZ * 2 / 9) + amplitude_at(found, SPEED_HZ) > 0.2 * amplitude_at(
            found, rate_hz
        )


def test_drawn_planetary_stages_can_be_assembled() -> None:
    """Sun and ring divide evenly among the planets, and a planet fills the gap between them."""
    for seed in range(100):
        drawn = draw_planetary(rng(seed))
        assert (drawn.sun_teeth + drawn.ring_teeth) % drawn.planets == 0
        assert drawn.sun_teeth + 2 * drawn.planet_teeth == drawn.ring_teeth
        assert drawn.planet_teeth >= 5


def rotor(fault: str, *, speed: float = 1.0, specimen: int | None = None) -> np.ndarray:
    """Return the force of a rotor."""
    return rotor_force(ROTOR, turning(speed=speed), damage(fault, specimen=specimen))


@pytest.mark.parametrize(
    ("fault", "order"), [("unbalance", 1.0), ("misalignment", 2.0), ("looseness", 0.5), ("rub", 0.5), ("rub", 1.5)]
)
def test_rotor_fault_raises_its_order(fault: str, order: float) -> None:
    """Unbalance shows at once, misalignment at twice, looseness and rub at half the speed."""
    assert amplitude_at(rotor(fault), order * SPEED_HZ) > 5 * amplitude_at(rotor(""), order * SPEED_HZ) + 0.1


def test_rub_is_a_burst_once_per_revolution() -> None:
    """Friction is heard at the contact only: its power pulses with the shaft, every second time harder."""
    power = np.square(ringing(rotor("rub")))
    assert strongest_hz(power - power.mean(), 10, 100) == pytest.approx(SPEED_HZ, abs=0.3)
    assert amplitude_at(power, SPEED_HZ / 2) > 0.1 * amplitude_at(power, SPEED_HZ)
    assert rms(ringing(rotor("rub"))) > 20 * rms(ringing(rotor("unbalance")))


def test_unbalance_grows_with_the_square_of_speed() -> None:
    """At half of rated speed a quarter of the force is left."""
    force = [amplitude_at(rotor("unbalance", speed=speed), SPEED_HZ) for speed in (0.5, 1.0)]
    assert force[1] / force[0] == pytest.approx(4.0, rel=0.02)


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
    """A sensor filters before it samples: of a carrier at 16 kHz nothing is left at 20 kHz."""
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
    """A modulation of depth m puts lines of m/2 beside the fundamental."""
    for side in (-1, 1):
        assert amplitude_at(voltage("flicker"), 50 + side * FLICKER_HZ) == pytest.approx(0.03, rel=0.1)
        assert amplitude_at(voltage(""), 50 + side * FLICKER_HZ) < 1e-3


def flow(fault: str, size: float = 1.0) -> np.ndarray:
    """Return the force of the fluid on a seven-bladed impeller."""
    return flow_force(FLOW, turning(load=0.6), damage(fault, size))


def test_blade_pass_is_blades_times_speed() -> None:
    """A fan has its strongest line at blades times shaft frequency."""
    assert strongest_hz(flow(""), 10, 5000) == pytest.approx(7 * SPEED_HZ, abs=0.3)


def test_damaged_blade_has_sidebands_of_the_shaft() -> None:
    """One blade unlike the others modulates the blade pass once per revolution."""
    for order in (1, 6, 8):
        assert amplitude_at(flow("blade"), order * SPEED_HZ) > 10 * amplitude_at(flow(""), order * SPEED_HZ)


def test_blockage_trades_blade_pass_for_turbulence() -> None:
    """A throttled pump pulses less and roars more."""
    assert amplitude_at(flow("blockage"), 210.0) < 0.85 * amplitude_at(flow(""), 210.0)
    assert rms(ringing(flow("blockage"))) > 1.8 * rms(ringing(flow("")))


def test_cavitation_is_broadband_and_impulsive() -> None:
    """Collapsing bubbles raise the high frequencies and the kurtosis, in time with the blades."""
    high_pass = signal.butter(4, 3000, "highpass", fs=RATE_HZ, output="sos")
    quiet, cavitating = (signal.sosfilt(high_pass, flow(fault)) for fault in ("", "cavitation"))
    assert np.std(cavitating) > 3 * np.std(quiet)
    assert np.mean(cavitating**4) / np.mean(cavitating**2) ** 2 > 5
    power = np.square(cavitating)
    assert strongest_hz(power - power.mean(), 150, 400) == pytest.approx(7 * SPEED_HZ, abs=0.3)


def piston(fault: str, size: float = 1.0) -> np.ndarray:
    """Return the force of a compressor of one cylinder."""
    return compressor_force(PISTON, turning(12.0), damage(fault, size))


def folded(wave: np.ndarray, speed_hz: float = 12.0, bins: int = 100) -> np.ndarray:
    """Return the mean power over one revolution (bins,), by the drive's own angle."""
    place = (turning(speed_hz).turns % 1.0 * bins).astype(int)
    return np.asarray(np.bincount(place, np.square(wave), bins) / np.bincount(place, minlength=bins))


def test_valves_open_where_the_ideal_cycle_says() -> None:
    """At full load R = 4: discharge opens at V = V1 R^(-1/1.3), suction at V = c R^(1/1.3); known closed forms."""
    at = valve_angles(PISTON, 1.0)
    volume = {name: 0.08 + (1 - np.cos(2 * np.pi * angle)) / 2 for name, angle in at.items()}
    assert (1.08 / volume["discharge opens"]) ** 1.3 == pytest.approx(4.0)
    assert (volume["suction opens"] / 0.08) ** 1.3 == pytest.approx(4.0)
    assert 0 < at["suction opens"] < 0.25 < at["suction closes"] < at["discharge opens"] < 1


def test_valves_strike_four_times_per_revolution() -> None:
    """Folded over the revolution, the power of the high band stands at the four angles and nowhere else."""
    found = folded(ringing(piston("")))
    place = [round(angle * 100) % 100 for angle in valve_angles(PISTON, 1.0).values()]
    near = np.zeros(100, bool)
    for at in place:
        near[[at - 1, at, (at + 1) % 100, (at + 2) % 100]] = True
        assert found[[at, (at + 1) % 100]].max() > 20 * np.median(found)
    assert found[~near].max() < 0.2 * found.max()


@pytest.mark.parametrize(("fault", "hisses", "quiet"), [("suction", 0.88, 0.25), ("discharge", 0.3, 0.7)])
def test_leaking_valve_hisses_while_it_should_be_shut(fault: str, hisses: float, quiet: float) -> None:
    """A suction valve leaks while gas is squeezed, a discharge valve while gas is drawn in."""
    added = folded(ringing(piston(fault))) / folded(ringing(piston("")))
    assert np.median(added[int(hisses * 100) - 4 : int(hisses * 100) + 4]) > 10
    assert np.median(added[int(quiet * 100) - 4 : int(quiet * 100) + 4]) < 2 + 0.2 * added.max()


def test_leaking_valve_moves_the_opening_of_the_discharge() -> None:
    """Gas that leaks out of the cylinder delays the opening, gas that leaks in hastens it."""
    sound, suction, discharge = (
        valve_angles(PISTON, 1.0, damage(fault))["discharge opens"] for fault in ("", "suction", "discharge")
    )
    assert discharge < sound - 0.01
    assert suction > sound + 0.01


def test_weak_spring_strikes_again_after_the_opening() -> None:
    """Flutter adds blows within a tenth of a revolution of the opening of the suction valve."""
    opens = valve_angles(PISTON, 1.0)["suction opens"]
    added = folded(ringing(piston("flutter") - piston("")))
    within = int((opens + 0.02) * 100), int((opens + 0.1) * 100)
    assert added[within[0] : within[1]].sum() > 0.9 * added.sum()


def test_worn_pin_knocks_at_both_dead_centres() -> None:
    """Two blows per revolution: the envelope has its line at twice the speed besides once."""
    added = folded(ringing(piston("knock") - piston("")))
    assert added[[2, 3]].sum() + added[[52, 53]].sum() > 0.8 * added.sum()
    assert added[[52, 53]].sum() > 0.1 * added[[2, 3]].sum()


def valve(fault: str, *, specimen: int | None = None) -> np.ndarray:
    """Return the force at a valve."""
    return leak_force(VALVE, turning(), damage(fault, specimen=specimen))


def octave_levels(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the centres of third octaves from 200 Hz to 8 kHz and the power per Hz in each."""
    f, density = signal.welch(wave, RATE_HZ, nperseg=2000)
    centre = 200 * 2 ** (np.arange(17) / 3)
    return centre, np.asarray([density[(f > low * 0.89) & (f < low * 1.12)].mean() for low in centre])


@pytest.mark.parametrize("fault", ["air", "steam"])
@pytest.mark.parametrize("specimen", [0, 1, 2, 3])
def test_jet_is_loudest_at_its_strouhal_number(fault: str, specimen: int) -> None:
    """The spectrum of what a leak adds has its maximum within an octave of 0.2 U/D."""
    centre, added = octave_levels(valve(fault, specimen=specimen) - valve("", specimen=specimen))
    expected = min(peak_hz(damage(fault, specimen=specimen)), 8000.0)
    assert expected / 2 < centre[added.argmax()] < 2 * expected
    assert added.max() > 3 * added[0]


def test_steam_spits() -> None:
    """The power of wet steam swells several times a second; that of air is even."""
    spread = {}
    for fault in ("air", "steam"):
        power = np.square(valve(fault)).reshape(-1, 500).mean(axis=1)
        spread[fault] = np.std(power) / np.mean(power)
    assert spread["steam"] > 3 * spread["air"]


def test_chattering_valve_strikes_at_its_own_pace() -> None:
    """The envelope has its strongest line at the rate of the blows, whatever the machine's speed."""
    assert strongest_hz(envelope(ringing(valve("chatter"))), 10, 100) == pytest.approx(31.0, rel=0.03)


FORCES = [
    (lambda fault, n: bearing(fault, specimen=n), ("outer", "inner", "ball", "cage")),
    (lambda fault, n: rotor(fault, specimen=n), ("misalignment", "looseness", "rub")),
    (lambda fault, n: gear_force(GEAR, turning(), damage(fault, specimen=n)), ("tooth", "wear")),
    (lambda fault, n: stage(fault, specimen=n), ("sun", "planet", "ring", "carrier")),
    (lambda fault, n: flow_force(FLOW, turning(), damage(fault, specimen=n)), ("cavitation", "blade")),
    (lambda fault, n: compressor_force(PISTON, turning(), damage(fault, specimen=n)), ("flutter", "knock")),
    (lambda fault, n: valve(fault, specimen=n), ("air", "steam", "chatter")),
    (lambda fault, n: stator_current(MOTOR, turning(), damage(fault, specimen=n)), ("bars", "interturn", "airgap")),
    (lambda fault, n: supply_voltage(MAINS, turning(), damage(fault, specimen=n)), ("harmonics", "sag", "flicker")),
]


@pytest.mark.parametrize(
    ("force", "fault"), [(force, fault) for force, faults in FORCES for fault in faults], ids=lambda x: str(x)[:12]
)
def test_another_specimen_of_a_fault_looks_different(force: Any, fault: str) -> None:
    """With the same draws of the machine, specimens differ from each other; the same specimen does not."""
    first, again, other = (force(fault, n) for n in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert rms(first - other) > 0.02 * rms(first)
