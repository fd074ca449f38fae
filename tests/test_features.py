"""Plain measures of a window and the checks of its sensor."""

import math

import numpy as np
import pytest
from fisher_edge.dsp.features import features, level_log_rms, sensor_fault

from fisher_edge.dsp.blocks import FloatArray

RATE_HZ = 16_000


def sine(frequency_hz: float, amplitude: float = 1.0, seconds: float = 2.0) -> FloatArray:
    """Sine tone, not in step with the rate unless the frequency is."""
    return (amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)).astype(
        np.float32
    )


def noise(samples: int = 100_000) -> FloatArray:
    """White noise of deviation 1."""
    return np.random.default_rng(0).standard_normal(samples).astype(np.float32)


def coarse(wave: FloatArray, steps: int) -> FloatArray:
    """Quantise to so many steps from zero to one."""
    return (np.round(wave * steps) / steps).astype(np.float32)


def test_sine_has_its_known_features() -> None:
    """A sine of amplitude a has RMS a / sqrt 2, crest factor sqrt 2 and kurtosis 1.5."""
    found = features(sine(100, 3.0))
    expected = {"rms": 3 / math.sqrt(2), "peak": 3.0, "crest": math.sqrt(2), "kurtosis": 1.5}
    assert found == pytest.approx(expected, rel=1e-4)


def test_square_wave_has_its_known_features() -> None:
    """A square wave has crest factor and kurtosis 1."""
    found = features(np.tile(np.array([-2, 2], np.float32), 500))
    assert found == pytest.approx({"rms": 2, "peak": 2, "crest": 1, "kurtosis": 1})


def test_noise_has_kurtosis_three() -> None:
    """Kurtosis is not excess kurtosis: Gaussian noise has 3."""
    assert features(noise())["kurtosis"] == pytest.approx(3, abs=0.1)


def test_impulses_raise_crest_factor_and_kurtosis() -> None:
    """One impulse of height h in n samples has crest factor and kurtosis known in closed form."""
    wave = np.zeros(1000, np.float32)
    wave[17] = 5
    found = features(wave)
    assert found["crest"] == pytest.approx(math.sqrt(999), rel=1e-4)
    assert found["kurtosis"] == pytest.approx((999**3 + 1) / (1000 * 999), rel=1e-3)


@pytest.mark.parametrize("offset", [-7.0, 1e4])
def test_offset_changes_no_feature(offset: float) -> None:
    """The mean is removed, exactly enough for an offset far above the signal."""
    wave = coarse(noise(), 64)
    moved = (wave + np.float32(offset)).astype(np.float32)
    assert features(moved) == pytest.approx(features(moved - np.float32(offset)), rel=1e-6)
    assert features(moved)["rms"] == pytest.approx(1, rel=0.01)


def test_constant_window_has_features_of_zero() -> None:
    """A flat line divides nothing by zero."""
    assert features(np.full(1000, 0.1, np.float32)) == pytest.approx(
        {"rms": 0, "peak": 0, "crest": 0, "kurtosis": 0}, abs=1e-12
    )


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e30])
def test_extreme_units_overflow_nothing(scale: float) -> None:
    """Crest factor and kurtosis do not depend on the unit."""
    wave = noise(1000)
    found = features((wave * np.float32(scale)).astype(np.float32))
    assert found["crest"] == pytest.approx(features(wave)["crest"], rel=1e-4)
    assert found["kurtosis"] == pytest.approx(features(wave)["kurtosis"], rel=1e-4)


def test_level_is_the_log_of_the_deviation() -> None:
    """A tenfold signal is log 10 higher; a flat line has the floor."""
    wave = noise() + np.float32(3)
    assert level_log_rms(wave) == pytest.approx(0, abs=0.01)
    assert level_log_rms(wave * np.float32(10)) - level_log_rms(wave) == pytest.approx(math.log(10), abs=1e-5)
    assert level_log_rms(np.ones(100, np.float32)) == pytest.approx(math.log(1e-12))


@pytest.mark.parametrize(
    "wave",
    [
        noise(),
        noise() + np.float32(1e3),
        coarse(noise(), 4),
        np.abs(noise()),
        noise(50),
        sine(440),
        sine(50),
        sine(1000),
        sine(RATE_HZ / 3),
        sine(RATE_HZ / 4),
        sine(RATE_HZ / 6),
        sine(RATE_HZ / 16),
    ],
)
def test_healthy_signals_have_no_fault(wave: FloatArray) -> None:
    """Noise and tones, in step with the rate too, come from healthy sensors."""
    assert sensor_fault(wave) is None


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 20, 127, 2048])
@pytest.mark.parametrize("frequency_hz", [17.3, 440.0, 1000.0])
def test_coarse_sine_is_not_clipped(frequency_hz: float, steps: int) -> None:
    """Few bits make a sine dwell at its peaks, which is not clipping."""
    for amplitude in (1.0, 0.9, 0.77):
        assert sensor_fault(coarse(sine(frequency_hz, amplitude), steps)) is None


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("steps", [100, 32_767])
@pytest.mark.parametrize("sides", [(-1, 1), (-9, 1), (-1, 9)])
def test_clipped_signals_are_found(share: float, steps: int, sides: tuple[int, int]) -> None:
    """A sine or noise cut at its top, its bottom or both is clipped, and the text gives share and value."""
    for wave in (sine(440), noise() / np.float32(2)):
        cut = np.clip(coarse(wave, steps), np.float32(sides[0] * share), np.float32(sides[1] * share))
        fault = sensor_fault(cut)
        assert fault is not None
        assert fault.startswith("clipped: ")
        assert f"at the extreme {-share if sides[0] == -1 else share:g}" in fault


@pytest.mark.parametrize("value", [0.0, -3.25, 1e6])
def test_flat_line_is_a_fault(value: float) -> None:
    """A window of one value names it."""
    assert sensor_fault(np.full(1000, value, np.float32)) == f"flat line: every sample is {value:g}"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_a_fault(bad: float) -> None:
    """NaN and Inf are counted, in a flat line too."""
    for wave in (noise(1000), np.zeros(1000, np.float32)):
        wave[[3, 500]] = bad
        assert sensor_fault(wave) == "2 samples are not finite (NaN or Inf)"
