"""Checks of a sensor's samples: what a healthy sensor gives is none, and each fault has one clear line."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.segment import Segment
from fisher_edge.health.signal import hum_share, signal_fault

EXAMPLES = Path(__file__).parents[1] / "examples"
RATE_HZ = 16_000
PIECE = 15_600


def sine(frequency_hz: float, amplitude: float = 1.0, samples: int = PIECE, rate_hz: float = RATE_HZ) -> FloatArray:
    """Sine tone, not in step with the rate unless the frequency is."""
    return np.asarray(amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(samples) / rate_hz), np.float32)


def noise(samples: int = PIECE, seed: int = 0) -> FloatArray:
    """White noise of deviation 1."""
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


def coarse(wave: FloatArray, steps: int) -> FloatArray:
    """Quantise to so many steps from zero to one."""
    return (np.round(wave * steps) / steps).astype(np.float32)


def dither(steps: int, samples: int = PIECE, seed: int = 0) -> FloatArray:
    """Converter noise of a sensor that is not there: up to so many steps to either side of an offset."""
    drawn = np.random.default_rng(seed).integers(-steps, steps + 1, samples)
    return ((drawn + 1234) * np.float32(2.0**-15)).astype(np.float32)


@pytest.mark.parametrize(
    "wave",
    [
        noise(),
        noise() + np.float32(1e3),
        noise() * np.float32(1e15),
        noise() * np.float32(1e-30),
        coarse(noise(), 4),
        np.abs(noise()),
        noise(50),
        noise(17),
        coarse(noise(17), 2),
        sine(440),
        sine(50),
        sine(1000),
        sine(RATE_HZ / 3, samples=32_000),
        sine(RATE_HZ / 4, samples=32_000),
        sine(RATE_HZ / 6, samples=32_000),
        sine(RATE_HZ / 16),
        sine(1.0),
        coarse(sine(17.3), 8),
    ],
)
def test_healthy_signals_have_no_fault(wave: FloatArray) -> None:
    """Noise and tones, of any unit, of few samples or few bits, come from healthy sensors."""
    assert signal_fault(wave, RATE_HZ) is None


def test_examples_have_no_fault() -> None:
    """No piece of a real recording that ships, healthy or not, is a fault of its sensor."""
    files = sorted(EXAMPLES.glob("*/*.flac"))
    pieces = 0
    for file in files:
        wave, rate_hz = soundfile.read(file, dtype="float32", always_2d=True)
        edges = [*range(0, len(wave), max(rate_hz, len(wave) // 20)), len(wave)]
        for start, end in pairwise(edges):
            assert signal_fault(wave[start:end, 0], rate_hz) is None, file
            pieces += end - start > rate_hz // 2
    assert len(files) >= 39
    assert pieces > 100


@pytest.mark.parametrize("steps", [5, 20, 127, 2048])
@pytest.mark.parametrize("frequency_hz", [17.3, 440.0, 1001.7])
def test_coarse_sine_is_not_clipped(frequency_hz: float, steps: int) -> None:
    """Few bits make a sine dwell at its peaks, which is not clipping."""
    for amplitude in (1.0, 0.9, 0.77):
        assert signal_fault(coarse(sine(frequency_hz, amplitude, 32_000), steps), RATE_HZ) is None


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("steps", [100, 32_767])
@pytest.mark.parametrize("sides", [(-1, 1), (-9, 1), (-1, 9)])
def test_clipped_signals_are_found(share: float, steps: int, sides: tuple[int, int]) -> None:
    """A sine or noise cut at its top, its bottom or both is clipped, and the text gives share and value."""
    for wave in (sine(440), noise() / np.float32(2)):
        cut = np.clip(coarse(wave, steps), np.float32(sides[0] * share), np.float32(sides[1] * share))
        fault = signal_fault(cut, RATE_HZ)
        assert fault is not None
        assert fault.startswith("clipped: ")
        assert f"at the extreme {-share if sides[0] == -1 else share:g}" in fault


@pytest.mark.parametrize(("clipped", "faulty"), [(160, True), (100, False)])
def test_few_samples_at_an_extreme_are_not_clipping(clipped: int, faulty: bool) -> None:
    """From one in a hundred samples at the extreme on a signal is clipped."""
    wave = noise(10_000)
    wave[np.argsort(wave)[-clipped:]] = np.float32(9)
    wave = wave[np.random.default_rng(0).permutation(len(wave))]
    found = signal_fault(wave, RATE_HZ)
    assert found == ("clipped: 1.6% of the samples are at the extreme 9" if faulty else None)


@pytest.mark.parametrize("value", [0.0, -3.25, 1e6])
def test_flat_line_is_a_fault(value: float) -> None:
    """One value names it."""
    assert signal_fault(np.full(1000, value, np.float32), RATE_HZ) == f"flat line: every sample is {value:g}"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_a_fault(bad: float) -> None:
    """NaN and Inf are counted, in a flat line too."""
    for wave in (noise(1000), np.zeros(1000, np.float32)):
        wave[[3, 500]] = bad
        assert signal_fault(wave, RATE_HZ) == "2 samples are not finite (NaN or Inf)"


@pytest.mark.parametrize("value", [5e37, -5e37, 3.4e38, 2e20])
def test_numbers_no_sensor_measures_are_a_fault(value: float) -> None:
    """A protocol of floats can carry what overflows everything computed from it."""
    wave = noise(1000)
    wave[500] = value
    found = signal_fault(wave, RATE_HZ)
    assert found == f"a sample of {abs(np.float32(value)):g} is beyond 1e+20, which no sensor measures"
    wave[500] = 9e19
    assert signal_fault(wave, RATE_HZ) is None


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("samples", [160, 975, 46_800])
@given(seed=st.integers(0, 9))
def test_converter_noise_of_a_dead_sensor_is_a_fault(steps: int, samples: int, seed: int) -> None:
    """One to three steps of dither to either side take a handful of values, at any rate."""
    found = signal_fault(dither(steps, samples, seed), RATE_HZ)
    assert found == (
        f"dead sensor: {samples} samples take only {2 * steps + 1} values, the noise of a converter without a signal"
    )


def test_eight_values_are_few_and_nine_are_not() -> None:
    """The bound, where the first samples show fewer values than the piece as well."""
    values = np.arange(8, dtype=np.float32)
    eight = np.tile(values, 500)
    assert signal_fault(eight, RATE_HZ) is not None
    assert signal_fault(np.append(eight, np.float32(2.5)), RATE_HZ) is None


@pytest.mark.parametrize(
    ("samples", "values", "faulty"), [(16, 2, True), (16, 3, False), (63, 7, True), (63, 8, False)]
)
def test_few_samples_cannot_take_many_values(samples: int, values: int, faulty: bool) -> None:
    """In a short piece a value must hold eight samples on average before it says anything."""
    wave = (np.arange(samples) % values).astype(np.float32)
    assert (signal_fault(wave, 100) is not None) == faulty


@pytest.mark.parametrize("place", [0, 4000, 7800])
@pytest.mark.parametrize("value", [0.0, 1.5])
def test_signal_that_is_lost_for_a_while_is_a_fault(place: int, value: float) -> None:
    """Half a piece of zeros, or of another value, is no vibration, wherever it lies."""
    wave = noise()
    wave[place : place + 7800] = value
    found = signal_fault(wave, RATE_HZ)
    assert found == f"signal lost: 7800 samples in a row (0.487 s) are {value:g}"


@pytest.mark.parametrize(("held", "faulty"), [(3121, True), (3119, False)])
def test_a_fifth_of_a_piece_is_the_bound(held: int, faulty: bool) -> None:
    """A pause shorter than a fifth of the piece is one that machines make."""
    wave = noise()
    wave[5000 : 5000 + held] = 0.25
    assert (signal_fault(wave, RATE_HZ) is not None) == faulty


def test_fault_is_one_line_at_a_rate_that_is_not_whole() -> None:
    """The duration is in seconds at any rate."""
    wave = noise(3809)
    wave[:2000] = 0
    assert signal_fault(wave, Fraction(15_625, 4)) == "signal lost: 2000 samples in a row (0.512 s) are 0"


@pytest.mark.parametrize("mains_hz", [50, 60])
@pytest.mark.parametrize("rate_hz", [1000, 16_000, 48_000, Fraction(15_625, 4)])
def test_hum_is_all_of_a_hum(mains_hz: int, rate_hz: int | Fraction) -> None:
    """The mains with its harmonics, at any phase and slightly off, has a share of almost one."""
    samples = round(0.975 * rate_hz)
    wave = np.zeros(samples)
    for order, amplitude in ((1, 1.0), (2, 0.2), (3, 0.5), (5, 0.3)):
        off_hz = mains_hz * 1.0005
        wave += amplitude * np.sin(2 * np.pi * order * off_hz * np.arange(samples) / float(rate_hz) + order)
    share = hum_share(Segment((4 + 1e3 * wave).astype(np.float32), rate_hz))
    assert 0.97 < share <= 1


@pytest.mark.parametrize(("rate_hz", "most"), [(1000, 0.08), (48_000, 0.08)])
def test_noise_has_the_share_of_its_lines(rate_hz: int, most: float) -> None:
    """Three bins in fifty of white noise are on a line."""
    pieces = [Segment(noise(round(0.975 * rate_hz), seed), rate_hz) for seed in range(8)]
    share = float(np.mean([hum_share(piece) for piece in pieces]))
    assert 0.04 < share < most


@pytest.mark.parametrize("frequency_hz", [25.0, 75.0, 87.0, 470.0])
def test_tone_between_the_lines_is_no_hum(frequency_hz: float) -> None:
    """A tone off every line of both mains has almost no share, and none of it comes from an offset."""
    assert hum_share(Segment(sine(frequency_hz) + np.float32(50), RATE_HZ)) < 0.01


def test_share_is_that_of_the_power() -> None:
    """Hum of twice the amplitude of a tone has four fifths of the power, less what leaks, at either mains."""
    for mains_hz in (50, 60):
        assert hum_share(Segment(sine(mains_hz, 2.0) + sine(77.0), RATE_HZ)) == pytest.approx(0.79, abs=0.01)


def test_drift_is_no_hum() -> None:
    """What moves slower than a tenth of the mains is not near a line: zero is none."""
    for frequency_hz in (0.4, 1.0, 2.0):
        assert hum_share(Segment(sine(frequency_hz), RATE_HZ)) < 0.01


@pytest.mark.parametrize("wave", [np.zeros(1000, np.float32), np.full(1001, 7.25, np.float32), np.zeros(2, np.float32)])
def test_flat_line_has_no_hum(wave: FloatArray) -> None:
    """Nothing is divided by zero."""
    assert hum_share(Segment(wave, 1000)) == 0


@pytest.mark.parametrize("scale", [1e-30, 1e19])
def test_hum_does_not_depend_on_the_unit(scale: float) -> None:
    """Large and small numbers overflow nothing."""
    wave = sine(50) + noise() * np.float32(0.5)
    found = hum_share(Segment(wave * np.float32(scale), RATE_HZ))
    assert found == pytest.approx(hum_share(Segment(wave, RATE_HZ)), rel=1e-3)
