"""Plain measures of a signal, and that those of parts add up to those of the whole."""

import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.measures import CHUNK, Measures

RATE_HZ = 16_000


def sine(frequency_hz: float, amplitude: float = 1.0, seconds: float = 2.0) -> FloatArray:
    """Sine tone."""
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (amplitude * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)


def noise(samples: int = 100_000, seed: int = 0) -> FloatArray:
    """White noise of deviation 1."""
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


def by_definition(samples: FloatArray) -> tuple[float, ...]:
    """Count, mean, sums of powers of the deviations, lowest and highest, in extended precision."""
    exact = samples.astype(np.longdouble)
    deviation = exact - exact.mean()
    powers = [float((deviation**power).sum()) for power in (2, 3, 4)]
    return (len(samples), float(exact.mean()), *powers, float(samples.min()), float(samples.max()))


def assert_close(found: Measures, samples: FloatArray, rel: float = 1e-9) -> None:
    """Compare with the definition; the odd moment against the size of its terms."""
    count, mean, m2, m3, m4, low, high = by_definition(samples)
    spread = math.sqrt(m2 / count)
    assert (found.count, found.low, found.high) == (count, low, high)
    assert found.mean == pytest.approx(mean, rel=rel, abs=rel * spread)
    assert found.m2 == pytest.approx(m2, rel=rel)
    assert found.m3 == pytest.approx(m3, rel=rel, abs=rel * count * spread**3)
    assert found.m4 == pytest.approx(m4, rel=rel)


@pytest.mark.parametrize("samples", [1, 2, 1000, CHUNK, CHUNK + 1, 3 * CHUNK - 5])
@pytest.mark.parametrize("offset", [0.0, -7.0, 1e4])
def test_sums_are_those_of_the_definition(samples: int, offset: float) -> None:
    """Lengths around the chunks that are measured at a time, and offsets far above the signal."""
    wave = (np.abs(noise(samples)) + np.float32(offset)).astype(np.float32)
    assert_close(Measures.of(wave), wave)


@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=6),
    offset=st.sampled_from([0.0, 3.0, -1e3]),
    drift=st.sampled_from([0.0, 1.0, 50.0]),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 99),
)
def test_combined_equals_those_of_the_concatenation(
    lengths: list[int], offset: float, drift: float, scale: float, seed: int
) -> None:
    """Parts of any length and level, none at all and constant ones too, add up to the whole."""
    parts = [
        ((np.abs(noise(length, seed + place)) * (place != 1) + offset + drift * place) * scale).astype(np.float32)
        for place, length in enumerate(lengths)
    ]
    whole = np.concatenate(parts)
    found = Measures.combined([Measures.of(part) for part in parts])
    if not len(whole):
        assert found == Measures()
    elif whole.min() == whole.max():
        assert found == Measures(len(whole), found.mean, low=found.mean, high=found.mean)
    else:
        assert_close(found, whole, rel=1e-8)
        assert found.kurtosis == pytest.approx(Measures.of(whole).kurtosis, rel=1e-8)


def test_grouping_does_not_matter() -> None:
    """Pieces joined to windows, and windows to days, give what the pieces give at once."""
    parts = [Measures.of(noise(500 + seed, seed) + np.float32(seed)) for seed in range(4)]
    once = Measures.combined(parts)
    grouped = Measures.combined([Measures.combined(parts[:1]), Measures.combined(parts[1:])])
    assert astuple(grouped) == pytest.approx(astuple(once), rel=1e-12)


def test_nothing_is_the_neutral_element() -> None:
    """No samples, or no parts, measure nothing and change nothing."""
    assert Measures.of(np.zeros(0, np.float32)) == Measures.combined([]) == Measures()
    some = Measures.of(noise(100))
    assert Measures.combined([Measures(), some, Measures()]) == some
    assert (Measures().rms, Measures().peak, Measures().crest, Measures().kurtosis) == (0, 0, 0, 0)


def test_sine_has_its_known_measures() -> None:
    """A sine of amplitude a has RMS a / sqrt 2, crest factor sqrt 2 and kurtosis 1.5."""
    found = Measures.of(sine(100, 3.0))
    assert found.rms == pytest.approx(3 / math.sqrt(2), rel=1e-4)
    assert found.peak == pytest.approx(3.0, rel=1e-4)
    assert found.crest == pytest.approx(math.sqrt(2), rel=1e-4)
    assert found.kurtosis == pytest.approx(1.5, rel=1e-4)


def test_noise_has_kurtosis_three() -> None:
    """Kurtosis is not excess kurtosis: Gaussian noise has 3."""
    assert Measures.of(noise()).kurtosis == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("sign", [1, -1])
def test_impulses_raise_crest_factor_and_kurtosis(sign: int) -> None:
    """One impulse in n samples, up or down, has crest factor and kurtosis known in closed form."""
    wave = np.zeros(1000, np.float32)
    wave[17] = 5 * sign
    found = Measures.of(wave)
    assert found.peak == pytest.approx(5 * 999 / 1000)
    assert found.crest == pytest.approx(math.sqrt(999), rel=1e-4)
    assert found.kurtosis == pytest.approx((999**3 + 1) / (1000 * 999), rel=1e-3)


def test_flat_line_divides_nothing_by_zero() -> None:
    """A constant, exactly representable or not, over several chunks too, has no spread at all."""
    for value in (0.1, -3.25, 1e6):
        found = Measures.of(np.full(3 * CHUNK, value, np.float32))
        assert (found.rms, found.peak, found.crest, found.kurtosis) == (0, 0, 0, 0)
        assert found.mean == np.float32(value)


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-6, 1e30, 1e37])
def test_extreme_units_overflow_nothing(scale: float) -> None:
    """Crest factor and kurtosis do not depend on the unit, down to numbers that float32 holds with few digits."""
    wave = (np.round(noise(1000) * 8) / 8).astype(np.float32)
    found = Measures.of((wave.astype(np.float64) * scale).astype(np.float32))
    assert found.crest == pytest.approx(Measures.of(wave).crest, rel=1e-3)
    assert found.kurtosis == pytest.approx(Measures.of(wave).kurtosis, rel=1e-3)


def test_level_is_the_log_of_the_deviation() -> None:
    """A tenfold signal is log 10 higher; a flat line has the floor."""
    wave = noise() + np.float32(3)
    level = Measures.of(wave).log_rms
    assert level == pytest.approx(0, abs=0.01)
    assert Measures.of(wave * np.float32(10)).log_rms - level == pytest.approx(math.log(10), abs=1e-5)
    assert Measures.of(np.ones(100, np.float32)).log_rms == pytest.approx(math.log(1e-12))
