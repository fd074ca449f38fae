"""Simulated machines: the lines are where theory puts them, and the same seed gives the same waves."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import signal
from simulated import RATE_HZ, amplitude_at, rms, rng, turning

from fisher_train.simulate.family import draw_operating_points, draw_states, family
from fisher_train.simulate.machine import FAULTS_OF, Machine, OperatingPoint, State, draw_machine, render
from fisher_train.simulate.sensor import digitise, sensor_response
from fisher_train.simulate.shaft import events, orders, periodic, phase_of, pulse_rms, pulses, unit_gate
from fisher_train.simulate.structure import PATHS, draw_structure, path_response


def test_orders_are_the_sum_of_cosines() -> None:
    """Horner's rule gives what the definition gives."""
    amplitudes = np.array([0.3 + 0.1j, 0, -0.5j, 1.0])
    turns = turning().turns
    expected = sum((a * np.exp(2j * np.pi * (k + 1) * turns)).real for k, a in enumerate(amplitudes))
    np.testing.assert_allclose(orders(turns, amplitudes), expected, atol=2e-5)


def test_orders_above_half_the_rate_are_left_out() -> None:
    """A line that would fold back is not there; those below are."""
    found = orders(turning().turns, np.array([1, 0, 0, 1], complex), top_order=3.5)
    assert amplitude_at(found, 30.0) == pytest.approx(1, rel=0.02)
    assert amplitude_at(found, 120.0) < 1e-3


def test_pulses_keep_their_weight_between_samples() -> None:
    """A pulse between two samples is split, not rounded: its weight and its centre stay."""
    train = pulses(np.array([25.3]), np.array([2.0]), 100)
    assert train.sum() == pytest.approx(2.0)
    assert np.average(np.arange(100), weights=train) == pytest.approx(25.3, abs=1e-4)


def test_pulse_on_a_border_is_shared_by_two_blocks() -> None:
    """What one block leaves out, the next one adds: nothing is lost or counted twice."""
    place, weight = np.array([99.4]), np.array([1.0])
    first, second = pulses(place, weight, 100), pulses(place - 100, weight, 100)
    assert first[-1] == pytest.approx(0.6)
    assert second[0] == pytest.approx(0.4)
    assert first.sum() + second.sum() == pytest.approx(1.0)


def test_pulses_have_the_rms_that_is_expected() -> None:
    """Random pulses, split between samples, have the level that faults are scaled by."""
    place = np.sort(rng().uniform(0, 100_000, 2000))
    train = pulses(place, np.full(2000, 3.0), 100_000)
    assert rms(train) == pytest.approx(pulse_rms(2000, 100_000, 9.0), rel=0.03)


def test_events_are_where_the_angle_is_whole() -> None:
    """Every whole number within the block is there, with one more on either side, at its place."""
    angle: np.ndarray = 0.25 * np.arange(-1.0, 41.0) + 0.1
    number, place = events(angle)
    assert number.tolist() == list(range(-1, 12))
    np.testing.assert_allclose(angle[0] + 0.25 * (place + 1), number, atol=1e-9)


def test_gate_keeps_the_power_of_noise() -> None:
    """Noise that passes a gate keeps its root mean square, and the gate its shape between its points."""
    gate = unit_gate(np.maximum(np.cos(2 * np.pi * np.arange(512) / 512), 0))
    turn = phase_of(turning().turns)
    assert rms(periodic(gate, turn) * rng().standard_normal(len(turn))) == pytest.approx(1, rel=0.03)
    np.testing.assert_allclose(periodic(gate, turn), gate.max() * np.maximum(np.cos(2 * np.pi * turn), 0), atol=0.02)


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
    """With the same draws, a plain fault makes another wave than the healthy machine, one of size 0 the same."""
    drawn = machine_with(part)
    machine = replace(drawn, levels=(1.0,) * len(PATHS), sensor=replace(drawn.sensor, full_scale=np.inf))
    healthy, none, faulty = (
        render(machine, state, OperatingPoint(), 8000, 8000, rng(1))
        for state in (State(), State(part, fault, 0.0), State(part, fault, 2.0))
    )
    np.testing.assert_array_equal(none, healthy)
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


@pytest.mark.parametrize("rate_hz", [1000, 8000, 51_200, 200_000])
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
    """All four are drawn; current and voltage only at rates at which they are sampled."""
    slow = {draw_machine(rng(seed), 8000).modality for seed in range(150)}
    fast = {draw_machine(rng(seed), 48_000).modality for seed in range(60)}
    assert slow == {"vibration", "sound", "current", "voltage"}
    assert fast == {"vibration", "sound"}


def test_operating_points_differ_within_their_limits() -> None:
    """Speeds differ by a factor of 3 at most, gains by 2 dB, loads stay between 0 and 1."""
    for seed in range(50):
        first, second = draw_operating_points(rng(seed))
        assert first != second
        assert 1 / 3 < first.speed / second.speed < 3
        assert abs(first.gain_db - second.gain_db) <= 2
        assert 0 <= first.load <= 1


CLEAN = replace(machine_with("bearing").sensor, full_scale=np.inf, gain_db=0.0)


def test_converter_clips_at_full_scale() -> None:
    """What is larger than the range stays at its end, and is not wrapped."""
    wave = np.linspace(-3, 3, 1001)
    found = digitise(replace(CLEAN, full_scale=2.0, bits=16), wave)
    assert found.max() == pytest.approx(2.0, abs=1e-4)
    assert found.min() == -2.0
    inside = np.abs(wave) < 1.99
    np.testing.assert_allclose(found[inside], wave[inside], atol=2 / 2**15)


def test_converter_rounds_to_its_steps() -> None:
    """An 8-bit converter of +-2 has steps of 1/64, and its error that of rounding: a step over the root of 12."""
    wave = rng().uniform(-1.9, 1.9, 20_000)
    sensor = replace(CLEAN, full_scale=2.0, bits=8)
    found = digitise(sensor, wave)
    assert sensor.step == 1 / 64
    np.testing.assert_array_equal(found * 64, np.round(found * 64))
    assert rms(found - wave) == pytest.approx(sensor.step / 12**0.5, rel=0.03)


def test_gain_brings_a_machine_into_the_range() -> None:
    """20 dB are a factor of ten before the converter, so that a hot setting clips."""
    wave = np.sin(np.linspace(0, 100, 5000))
    assert rms(digitise(replace(CLEAN, gain_db=20.0), wave)) == pytest.approx(10 * rms(wave), rel=1e-5)
    assert digitise(replace(CLEAN, gain_db=20.0, full_scale=5.0, bits=16), wave).max() < 5.0


def test_recordings_show_quantisation_and_clipping() -> None:
    """A rendered wave lies on the converter's steps, and a poor range cuts its peaks."""
    machine = machine_with("bearing")
    machine = replace(machine, sensor=replace(machine.sensor, full_scale=1.0, bits=10, gain_db=20.0))
    wave = render(machine, State(), OperatingPoint(), 8000, 8000, rng())
    np.testing.assert_array_equal(wave * 512, np.round(wave * 512))
    assert np.mean(np.abs(wave) >= 1 - 1 / 512) > 0.01


def test_mounting_resonates() -> None:
    """At its resonance an accelerometer of damping 0.05 shows ten times what is there, and less above."""
    loose = replace(CLEAN, mount_hz=3000.0, mount_damping=0.05, high_pass_hz=0.1)
    response = np.abs(sensor_response(loose, RATE_HZ, RATE_HZ))
    assert response[3000] == pytest.approx(10, rel=0.05)
    assert response[300] == pytest.approx(1, rel=0.03)
    assert response[6500] < 0.5


def test_noise_floor_is_where_the_sensor_has_it() -> None:
    """With a silent machine what is left is the noise of the sensor."""
    machine = machine_with("bearing")
    sensor = replace(CLEAN, noise_db=-40.0, tilt_db=0.0, hum_db=-200.0)
    silent = replace(machine, levels=(1e-9,) * len(PATHS), sensor=sensor)
    assert rms(render(silent, State(), OperatingPoint(), 8000, 8000, rng())) == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("rate_hz", [1000, 3200, 25_600, 97_656, 200_000])
def test_every_part_sounds_at_every_rate(rate_hz: int) -> None:
    """From 1 to 200 kHz all waves are finite and not silent, whatever the machine is made of."""
    for seed in range(12):
        machine = draw_machine(rng(seed), rate_hz)
        part = machine.parts()[seed % len(machine.parts())]
        state = State(part, FAULTS_OF[part][seed % len(FAULTS_OF[part])], 1.0)
        wave = render(machine, state, OperatingPoint(), rate_hz, rate_hz // 4, rng(seed))
        assert np.isfinite(wave).all()
        assert wave.std() > 0


def test_three_wires_can_be_recorded_at_once() -> None:
    """The same draws on another wire are the other wires of the same motor: together they have no zero sequence."""
    machine = next(m for m in (draw_machine(rng(seed), 8000) for seed in range(100)) if m.modality == "current")
    motor = replace(machine.motor, harmonics=(1, *([0] * 16)), carrier=0.0) if machine.motor else None
    quiet = replace(CLEAN, noise_db=-120.0, hum_db=-120.0, high_pass_hz=0.1)
    waves = [
        render(
            replace(machine, motor=motor, sensor=replace(quiet, wire=wire)),
            State(),
            OperatingPoint(),
            8000,
            8000,
            rng(),
        )
        for wire in range(3)
    ]
    assert rms(waves[0]) > 0.3
    assert rms(sum(waves)) < 0.01 * rms(waves[0])
    lag = signal.correlate(waves[1], waves[0])[7999 : 7999 + 8000].argmax()
    assert lag > 0


def test_specimen_belongs_to_the_fault_not_to_the_machine() -> None:
    """Healthy recordings do not depend on it, faulty ones do, and the same number is the same specimen."""
    machine = replace(machine_with("bearing"), levels=(1.0,) * len(PATHS))

    def recorded(state: State) -> np.ndarray:
        return render(machine, state, OperatingPoint(), 8000, 8000, rng(1))

    np.testing.assert_array_equal(recorded(State()), recorded(State(specimen=5)))
    first, again, other = (recorded(State("bearing", "outer", 2.0, specimen)) for specimen in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert rms(first - other) > 0.1 * rms(first)
