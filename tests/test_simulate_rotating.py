"""Bearings, gears, planetary stages and rotors: each fault has its lines where theory puts them, a sound one not."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from simulated import (
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

from fisher_train.simulate.bearing import Bearing, bearing_force, fault_orders
from fisher_train.simulate.gear import Gear, gear_force
from fisher_train.simulate.planetary import Planetary, draw_planetary, planetary_force, stage_orders
from fisher_train.simulate.rotor import HALF_ORDERS, Rotor, rotor_force

# SKF 6205, 9 balls of 7.94 mm on a pitch circle of 39.04 mm: the drive-end bearing of the CWRU rig.
SKF_6205 = Bearing(balls=9, ratio=0.2034, contact_rad=0.0, slip=0.005, zone=0.3, hiss=0.05)
ROTOR = Rotor(
    SPEED_HZ, 1e-4, (0j, 0.1 + 0j, *([0j] * (HALF_ORDERS - 2))), (0.0,) * HALF_ORDERS, friction=0.5, clearance=0.7
)
GEAR = Gear(23, 61, (1 + 0j, 0.3 + 0j, 0j, 0j, 0j, 0j), 0.02, 0.02, 0.0, impact=0.5)
STAGE = Planetary(20, 70, 3, (1 + 0j, 0j, 0j), nearness=2.0, impact=1.0)


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
    """Races are struck unevenly in turn, so BSF appears besides 2 BSF, and the cage carries the ball around."""
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


FORCES: list[tuple[Callable[[str, int], np.ndarray], tuple[str, ...]]] = [
    (lambda fault, n: bearing(fault, specimen=n), ("outer", "inner", "ball", "cage")),
    (lambda fault, n: rotor(fault, specimen=n), ("misalignment", "looseness", "rub")),
    (lambda fault, n: gear_force(GEAR, turning(), damage(fault, specimen=n)), ("tooth", "wear")),
    (lambda fault, n: stage(fault, specimen=n), ("sun", "planet", "ring", "carrier")),
]


@pytest.mark.parametrize(
    ("force", "fault"), [(force, fault) for force, faults in FORCES for fault in faults], ids=lambda x: str(x)[:12]
)
def test_another_specimen_of_a_fault_looks_different(force: Callable[[str, int], np.ndarray], fault: str) -> None:
    """With the same draws of the machine, specimens differ from each other; the same specimen does not."""
    first, again, other = (force(fault, n) for n in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert rms(first - other) > 0.02 * rms(first)
