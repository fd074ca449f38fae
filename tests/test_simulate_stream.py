"""Machines that run without end: the stream is one wave, however it is cut, and a fault begins when it should."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy import signal
from simulated import damage, rms, rng
from test_simulate_rotating import SKF_6205

from fisher_train.simulate import stream as streams
from fisher_train.simulate.bearing import bearing_force, fault_orders
from fisher_train.simulate.catalogue import KINDS, machine_of, state_of
from fisher_train.simulate.lines import lines_of
from fisher_train.simulate.machine import FAULTS_OF, OperatingPoint, State, render
from fisher_train.simulate.motion import Run
from fisher_train.simulate.sensor import sensor_response
from fisher_train.simulate.stream import MachineStream
from fisher_train.simulate.structure import PATHS

RATE_HZ = 8000


def recorded(
    kind: str, fault: str = "", *, seconds: int = 6, severity: float = 1.0, modality: str | None = None, **more: Any
) -> np.ndarray:
    """Record a stream of one kind of machine."""
    machine = machine_of(kind, RATE_HZ, 0, modality=modality, speed_hz=30.0)
    stream = MachineStream(machine, state_of(kind, fault, severity), OperatingPoint(), RATE_HZ, 0, **more)
    return np.concatenate([stream.read() for _ in range(seconds)])


def test_paths_are_one_convolution_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the forces, the stream is their linear convolution with the response of the path, wherever blocks end."""
    machine = machine_of("bearing", RATE_HZ, 0)
    machine = replace(machine, sensor=replace(machine.sensor, hum_db=-300.0, full_scale=np.inf, gain_db=0.0))
    force = rng().standard_normal(7 * RATE_HZ).astype(np.float32)

    def known(_machine: Any, _state: Any, drive: Any) -> dict[str, np.ndarray]:
        return {"bearing": force[drive.first : drive.first + drive.samples]}

    monkeypatch.setattr(streams, "forces", known)
    monkeypatch.setattr(streams, "background", lambda *_: np.zeros(RATE_HZ + 1, np.float32))
    stream = MachineStream(machine, State(), OperatingPoint(), RATE_HZ, 0)
    found = np.concatenate([stream.read() for _ in range(5)])
    taps = stream._response("bearing")
    expected = signal.fftconvolve(force.astype(float), taps.astype(float))[2 * RATE_HZ : 7 * RATE_HZ]
    np.testing.assert_allclose(found, expected, atol=1e-4 * rms(expected))


EVERY_FAULT = [(kind, fault) for kind, faults in FAULTS_OF.items() for fault in faults]


@pytest.mark.parametrize(("kind", "fault"), EVERY_FAULT)
def test_fault_of_severity_0_is_the_healthy_machine(kind: str, fault: str) -> None:
    """Whatever the sensor measures, a fault without size changes no sample, and one of size 1 does."""
    for modality in KINDS[kind][1]:
        healthy, none, plain = (
            recorded(kind, name, seconds=2, severity=severity, modality=modality)
            for name, severity in (("", 1.0), (fault, 0.0), (fault, 1.0))
        )
        np.testing.assert_array_equal(none, healthy)
        assert rms(plain - healthy) > 0.005 * rms(healthy)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        *(("rotor", fault) for fault in FAULTS_OF["rotor"]),
        *(("bearing", fault) for fault in FAULTS_OF["bearing"]),
        ("gear", "wear"),
        ("planetary", "sun"),
        ("flow", "cavitation"),
        ("compressor", "knock"),
        ("leak", "air"),
        ("leak", "steam"),
        ("leak", "chatter"),
    ],
)
def test_severities_scale_one_and_the_same_fault(kind: str, fault: str) -> None:
    """Where theory adds the fault's force, three times the severity adds three times the same wave."""
    healthy, plain, severe = (recorded(kind, fault, seconds=2, severity=severity) for severity in (0.0, 1.0, 3.0))
    assert rms(severe - healthy - 3 * (plain - healthy)) < 1e-3 * rms(plain - healthy)


@pytest.mark.parametrize(("kind", "fault"), [("bearing", "inner"), ("leak", "steam"), ("supply", "sag")])
def test_machine_is_the_healthy_one_until_its_fault_begins(kind: str, fault: str) -> None:
    """Until the filters see the onset, half a second ahead, no sample differs."""
    before = recorded(kind, fault, seconds=2, onset_s=2.5, growth_s=1.0)
    np.testing.assert_array_equal(before, recorded(kind, seconds=2))


@pytest.mark.parametrize("kind", list(KINDS))
def test_stream_does_not_click_where_its_blocks_end(kind: str) -> None:
    """The curvature of the wave at the borders of its blocks, and of those of its forces, is that of elsewhere."""
    machine = machine_of(kind, RATE_HZ, 0, speed_hz=30.0)
    quiet = replace(machine.sensor, noise_db=-120.0, hum_db=-120.0, full_scale=np.inf)
    alone = tuple(level if path == kind else 0.0 for path, level in zip(PATHS, machine.levels, strict=True))
    stream = MachineStream(replace(machine, sensor=quiet, levels=alone), State(), OperatingPoint(), RATE_HZ, 0)
    wave = np.concatenate([stream.read() for _ in range(30)])
    curvature = np.square(np.diff(wave.astype(float), 3))
    borders = np.arange(1, 29)[:, None] * RATE_HZ + np.arange(-4, 4)
    usual = [curvature[borders + shift].mean() for shift in rng().integers(100, RATE_HZ // 2 - 100, 200)]
    for border in (borders, borders + stream._delay):
        assert 0.5 * min(usual) < curvature[border].mean() < 1.5 * max(usual)


def test_shaft_and_impacts_go_on_across_blocks() -> None:
    """Over ten blocks a slipping outer race strikes at even intervals, none of them lost or doubled at a border."""
    run = Run(RATE_HZ, rng())
    quiet = replace(SKF_6205, hiss=0.0, slip=1e-3)
    steady = replace(damage("outer").specimen, exit=0.0, roughness=0.0)
    blow = replace(damage("outer"), specimen=steady)
    blocks = []
    for _ in range(10):
        drive = run.advance(RATE_HZ, speed_hz=30.0, fluctuation=1e-4, line_hz=0.0)
        blocks.append(bearing_force(quiet, drive, blow))
    wave = np.concatenate(blocks)
    above = np.flatnonzero(wave > 0.2 * wave.max())
    at = [group.mean() for group in np.split(above, np.flatnonzero(np.diff(above) > 5) + 1)]
    interval = RATE_HZ / (fault_orders(SKF_6205)["outer"] * 30.0)
    np.testing.assert_allclose(np.diff(at), interval, atol=0.02 * interval)
    assert len(at) == pytest.approx(10 * RATE_HZ / interval, abs=2)


def test_blocks_are_of_one_recording_whatever_their_length() -> None:
    """The angle of a shaft is one smooth curve: its steps at borders of blocks are its steps elsewhere."""
    run = Run(RATE_HZ, rng())
    drives = [run.advance(n, speed_hz=30.0, fluctuation=5e-3, line_hz=50.0) for n in (4000, 1, 7000, 250, 4000)]
    for name in ("turns", "cycles"):
        angle = np.concatenate([getattr(drive, name) for drive in drives])
        nominal = (30.0 if name == "turns" else 50.0) / RATE_HZ
        np.testing.assert_allclose(np.diff(angle), nominal, rtol=0.016)
    for before, after in pairwise(drives):
        assert before.edge_turns[-1] == pytest.approx(after.turns[0], abs=1e-12)
        assert before.turns[-1] == pytest.approx(after.edge_turns[0], abs=1e-12)


@pytest.mark.parametrize(("kind", "fault"), [("bearing", "outer"), ("gear", "tooth"), ("leak", "steam")])
def test_stream_sounds_like_the_render(kind: str, fault: str) -> None:
    """Both ways to record a machine give the same level and the same spectrum in third octaves."""
    machine = machine_of(kind, RATE_HZ, 0, speed_hz=30.0)
    state = state_of(kind, fault, 1.0)
    streamed = recorded(kind, fault)
    rendered = render(machine, state, OperatingPoint(), RATE_HZ, 6 * RATE_HZ, rng(7))
    assert rms(streamed) == pytest.approx(rms(rendered), rel=0.2)
    f, densities = signal.welch(np.stack([streamed, rendered]), RATE_HZ, nperseg=4000)
    edges = 100 * 2 ** (np.arange(15) / 3)
    levels = [[10 * np.log10(density[(f >= low) & (f < 1.26 * low)].mean()) for low in edges] for density in densities]
    np.testing.assert_allclose(levels[0], levels[1], atol=3.5)


@pytest.mark.parametrize("onset_s", [0.0, 1.5, 3.25])
def test_fault_begins_at_its_onset(onset_s: float) -> None:
    """A sudden fault is not there before its time and is there at once after it."""
    healthy, faulty = recorded("bearing"), recorded("bearing", "outer", severity=3.0, onset_s=onset_s)
    level = np.asarray([rms(piece) for piece in faulty.reshape(-1, RATE_HZ // 20)])
    usual = rms(healthy)
    begins = round(onset_s * 20)
    assert level[begins + 1 :].min() > 1.8 * usual
    if begins:
        assert level[: begins - 1].max() < 1.6 * usual


def test_fault_grows_evenly() -> None:
    """Half way through its growth an added line has half of its height."""
    wave = recorded("rotor", "unbalance", severity=5.0, seconds=7, onset_s=1.0, growth_s=4.0)
    spectra = np.abs(np.fft.rfft(wave.reshape(-1, RATE_HZ // 2) * np.hanning(RATE_HZ // 2)))[:, 15]
    middle, end = spectra[[5, 6]].mean(), spectra[11:].mean()
    start = spectra[:2].mean()
    assert (middle - start) / (end - start) == pytest.approx(0.5, abs=0.12)
    assert end > 2 * start


def test_stream_repeats_with_its_seed() -> None:
    """The same seed is the same recording, another is another machine or another recording."""
    np.testing.assert_array_equal(recorded("gear", "wear", seconds=2), recorded("gear", "wear", seconds=2))
    machine = machine_of("gear", RATE_HZ, 0)
    first, other = (MachineStream(machine, State(), OperatingPoint(), RATE_HZ, seed).read() for seed in (0, 1))
    assert rms(first - other) > 0.1 * rms(first)


def test_response_of_the_sensor_is_in_the_stream() -> None:
    """An electrical quantity passes the sensor alone: the line keeps its amplitude times the response there."""
    machine = machine_of("supply", RATE_HZ, 0)
    clean = replace(machine.sensor, noise_db=-120.0, hum_db=-120.0, full_scale=np.inf, gain_db=0.0)
    assert machine.supply is not None
    pure = replace(machine.supply, line_hz=50.0, harmonics=(1, *([0] * 16)), carrier=0.0)
    stream = MachineStream(replace(machine, sensor=clean, supply=pure), State(), OperatingPoint(), RATE_HZ, 0)
    response = abs(sensor_response(clean, RATE_HZ, RATE_HZ)[50])
    assert rms(stream.read()) * 2**0.5 == pytest.approx(response, rel=0.01)


@pytest.mark.parametrize(("kind", "fault"), [(kind, fault) for kind in KINDS for fault in FAULTS_OF[kind]])
def test_every_fault_can_be_asked_for_and_has_lines(kind: str, fault: str) -> None:
    """Each fault of the list makes a machine of that kind, whose lines are named and within reason."""
    machine = machine_of(kind, 20_000, 0)
    lines = lines_of(machine, state_of(kind, fault, 1.0), OperatingPoint())
    assert machine.parts().count(kind) == 1
    assert lines
    assert all(0 < line.hz < 200_000 and line.name for line in lines)
