"""Pumps, compressors and leaks: each fault is heard where and when theory says, a sound machine is not."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import signal
from simulated import (
    RATE_HZ,
    SPEED_HZ,
    amplitude_at,
    damage,
    envelope,
    ringing,
    rms,
    strongest_hz,
    turning,
)

from fisher_train.simulate.compressor import Compressor, compressor_force, valve_angles
from fisher_train.simulate.flow import Flow, flow_force
from fisher_train.simulate.leak import Leak, leak_force, peak_hz

FLOW = Flow(7, (1 + 0j, 0j, 0j, 0j), turbulence=0.1, blade_depth=0.2, bubbles_hz=500.0)
PISTON = Compressor(1, 0.25, 0.08, 4.0, (1.0, 1.0, 1.0, 1.0), gas=0.3, valve=0.5, rush=0.05)
VALVE = Leak(flow=0.1, flow_hz=800.0, chatter_hz=31.0)


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
    """Below its harmonics the envelope is strongest at the rate of the blows, whatever the machine's speed."""
    assert strongest_hz(envelope(ringing(valve("chatter"))), 10, 50) == pytest.approx(31.0, rel=0.03)


FORCES: list[tuple[Callable[[str, int], np.ndarray], tuple[str, ...]]] = [
    (lambda fault, n: flow_force(FLOW, turning(), damage(fault, specimen=n)), ("cavitation", "blade")),
    (lambda fault, n: compressor_force(PISTON, turning(), damage(fault, specimen=n)), ("flutter", "knock")),
    (lambda fault, n: valve(fault, specimen=n), ("air", "steam", "chatter")),
]


@pytest.mark.parametrize(
    ("force", "fault"), [(force, fault) for force, faults in FORCES for fault in faults], ids=lambda x: str(x)[:12]
)
def test_another_specimen_of_a_fault_looks_different(force: Callable[[str, int], np.ndarray], fault: str) -> None:
    """With the same draws of the machine, specimens differ from each other; the same specimen does not."""
    first, again, other = (force(fault, n) for n in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert rms(first - other) > 0.02 * rms(first)
