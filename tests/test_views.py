"""Views of a window: what they show, what they do not depend on, and segments that have none."""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.views import ENVELOPE, MODULATION, View, view_vector
from fisher_edge.errors import BadArtifactError, BadInputError

EVEN = View("envelope")
SLOW = View("slow", top_hz=200, window_ms=400)
RATES_HZ = [100, 1000, 8000, 12_000, 26_667, 44_100, 97_656]


def strikes(rate_hz: int, seconds: float, per_second: float, *, ring_hz: float, seed: int = 0) -> FloatArray:
    """Return a resonance that is struck so many times a second, in noise: a damaged bearing."""
    time_s = np.arange(round(rate_hz * seconds)) / rate_hz
    since_s = time_s % (1 / per_second)
    noise = np.random.default_rng(seed).standard_normal(len(time_s))
    return (np.exp(-since_s * 500) * np.sin(2 * np.pi * ring_hz * since_s) + 0.05 * noise).astype(np.float32)


def by_the_book(wave: FloatArray, rate_hz: int, step: int = 2) -> npt.NDArray[np.float64]:
    """Return the envelope's view with SciPy's band-pass, Hilbert transform and resampling, frame by frame."""
    spectrum = np.fft.rfft(wave - wave.mean(dtype=np.float64))
    spectrum[np.fft.rfftfreq(len(wave), 1 / rate_hz) < rate_hz / 8] = 0
    envelope = np.abs(scipy.signal.hilbert(np.fft.irfft(spectrum, len(wave))))[::step]
    slow = scipy.signal.resample(envelope - envelope.mean(), round(len(wave) * 2000 / rate_hz))
    slow *= 0.05 / slow.std()
    frames = np.stack([slow[start : start + 1000] for start in range(0, len(slow) - 999, 80)])
    log = np.log(np.abs(np.fft.rfft(frames * scipy.signal.get_window("hann", 1000))) + 1e-10).mean(axis=0)[:300]
    log -= log.mean()
    return np.asarray(log / np.linalg.norm(log))


@pytest.mark.parametrize(("rate_hz", "step"), [(3000, 1), (4704, 1), (4800, 2), (12_000, 2), (16_000, 2), (48_000, 2)])
def test_envelope_equals_the_textbook(rate_hz: int, step: int) -> None:
    """The vector is that of a plain implementation with SciPy in double precision.

    At half the rate only where beats within the band, up to 3/8 of the rate, do not fold below 600 Hz.
    """
    wave = strikes(rate_hz, 2.0, 87.0, ring_hz=rate_hz / 4) + np.float32(3)
    np.testing.assert_allclose(view_vector(EVEN, wave, rate_hz), by_the_book(wave, rate_hz, step), atol=1e-5)


@pytest.mark.parametrize("rate_hz", [12_000, 25_600, 44_100, 97_656])
@pytest.mark.parametrize("per_second", [36.0, 108.0, 162.0])
def test_envelope_shows_how_often_a_resonance_is_struck(rate_hz: int, per_second: float) -> None:
    """The largest bins are the rate of the strikes and its multiples, at any rate and for any resonance."""
    for ring_hz in (rate_hz / 5, rate_hz / 3):
        vector = view_vector(EVEN, strikes(rate_hz, 2.5, per_second, ring_hz=ring_hz), rate_hz)
        for multiple in (1, 2, 3):
            at = round(multiple * per_second / 2)
            assert vector[at] > 3 * np.median(np.abs(vector))
            assert vector[at] == vector[at - 8 : at + 9].max()


def test_envelope_does_not_hear_the_lowest_quarter_of_the_band() -> None:
    """A strong slow tone that is not modulated changes nothing; for the other view it is the largest bin."""
    time_s = np.arange(32_000) / 16_000
    wave = strikes(16_000, 2.0, 87.0, ring_hz=4000)
    with_tone = wave + np.sin(2 * np.pi * 50 * time_s).astype(np.float32)
    np.testing.assert_allclose(view_vector(EVEN, with_tone, 16_000), view_vector(EVEN, wave, 16_000), atol=1e-3)
    assert 2.5 * int(view_vector(SLOW, with_tone, 16_000).argmax()) == 50


@pytest.mark.parametrize("rate_hz", [1000, 16_000, 44_100])
def test_slow_view_resolves_what_a_frame_of_25_ms_does_not(rate_hz: int) -> None:
    """Tones 20 Hz apart are two peaks."""
    time_s = np.arange(3 * rate_hz) / rate_hz
    wave = sum(np.sin(2 * np.pi * hz * time_s) for hz in (40, 60)) + np.random.default_rng(0).normal(
        0, 0.01, 3 * rate_hz
    )
    vector = view_vector(SLOW, wave.astype(np.float32), rate_hz)
    assert {int(bin_) * 2.5 for bin_ in np.argsort(vector)[-2:]} == {40, 60}
    assert vector[20] < vector[16] - 0.1


def test_logarithmic_axis_moves_with_the_speed() -> None:
    """A bearing that is struck 12 % more often has the same spectrum, moved by four points, at any speed."""
    slow, fast = (
        view_vector(ENVELOPE, strikes(16_000, 4.0, hz, ring_hz=4000), 16_000) for hz in (80.0, 80 * 2 ** (1 / 6))
    )
    assert float(slow[:-4] @ fast[4:]) > 0.9
    assert float(slow @ fast) < 0.5
    axis_hz = np.geomspace(10, 1000, 160)
    assert axis_hz[40:100][int(slow[40:100].argmax())] == pytest.approx(80, rel=0.03)


def test_logarithmic_axis_is_the_even_one_read_elsewhere() -> None:
    """Every point is the log spectrum between its two neighbouring bins."""
    wave = strikes(16_000, 3.0, 70.0, ring_hz=4000)
    even = view_vector(View("envelope", top_hz=602), wave, 16_000).astype(np.float64)
    found = view_vector(View("envelope", top_hz=600, lowest_hz=20), wave, 16_000)
    expected = np.interp(np.geomspace(20, 600, 119), np.arange(301) * 2.0, even)
    assert float(np.corrcoef(expected, found)[0, 1]) > 0.998  # the two are decimated to rates that differ by 0.3 %


def modulated(rate_hz: int, seconds: float, rates_hz: dict[int, float]) -> FloatArray:
    """Return noise whose half-octave bands, counted from the top, swell and fade at rates of their own."""
    samples = round(rate_hz * seconds)
    noise = np.random.default_rng(0).standard_normal(samples)
    spectrum, frequency = np.fft.rfft(noise), np.fft.rfftfreq(samples, 1 / rate_hz)
    time_s, wave = np.arange(samples) / rate_hz, 0.3 * noise
    for band, rate in rates_hz.items():
        inside = (frequency < rate_hz / 2 ** (1 + band / 2)) & (frequency >= rate_hz / 2 ** (1.5 + band / 2))
        wave += (1 + 0.8 * np.sin(2 * np.pi * rate * time_s)) * np.fft.irfft(spectrum * inside, samples)
    found: FloatArray = wave.astype(np.float32)
    return found


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 44_100])
@pytest.mark.parametrize("seconds", [1.0, 4.0])
def test_modulation_shows_the_rate_in_the_band_that_swells(rate_hz: int, seconds: float) -> None:
    """Two bands swell at 6 and 17 Hz: each line stands in its own half octave."""
    vector = view_vector(MODULATION, modulated(rate_hz, seconds, {0: 6.0, 4: 17.0}), rate_hz).reshape(12, 40)
    assert [int(vector[band].argmax()) + 1 for band in (0, 4)] == [6, 17]
    assert [int(column.argmax()) for column in (vector[:, 5], vector[:, 16])] == [0, 4]


@pytest.mark.parametrize(
    ("rate_hz", "edges"),
    [
        (8000, [101, 72, 51, 36, 26, 19, 13, 10, 7, 5, 4, 3, 1]),  # 1 + 100 / 2 ** (band / 2), and bin 1
        (2000, [26, 19, 13, 10, 7, 5, 4, 3, 3, 2, 2, 2, 1]),  # bands without a bin among the others
    ],
)
@pytest.mark.parametrize("pauses", [False, True])
def test_modulation_equals_the_definition(rate_hz: int, edges: list[int], pauses: bool) -> None:
    """Frame by frame, bin by bin, against a slow version in double precision; silence is bounded from below."""
    wave = modulated(rate_hz, 2.2, {0: 6.0, 3: 11.0}).astype(np.float64)
    if pauses:
        wave *= np.where(np.arange(len(wave)) // (rate_hz // 5) % 2, 1e-5, 1)
    wave -= wave.mean()
    n_fft, hop = rate_hz // 40, rate_hz // 100
    frames = np.stack([wave[start : start + n_fft] for start in range(0, len(wave) - n_fft + 1, hop)])
    amplitude = np.abs(np.fft.rfft(frames * scipy.signal.get_window("hann", n_fft)))
    amplitude = np.maximum(amplitude, 1e-4 * np.sqrt((amplitude**2).mean()))
    rows = []
    for high, low in itertools.pairwise(edges):
        if high == low:
            rows.append(np.zeros(40))
            continue
        level = np.log(amplitude[:, low:high]).mean(axis=1)
        stretches = [level[start : start + 100] for start in range(0, len(level) - 99, 50)]
        tapered = [(part - part.mean()) * scipy.signal.get_window("hann", 100) for part in stretches]
        rows.append(np.abs(np.fft.rfft(tapered)).mean(axis=0)[1:41])
    expected = np.concatenate(rows)
    found = view_vector(MODULATION, wave.astype(np.float32), rate_hz)
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=2e-4)


def test_modulation_of_a_signal_too_short_or_slow_for_a_frame_is_nothing() -> None:
    """Shorter than 25 ms, or fewer than 100 samples a second: zeros, as of a constant."""
    noise = np.random.default_rng(0).standard_normal(300).astype(np.float32)
    assert not view_vector(MODULATION, noise, 16_000).any()
    assert not view_vector(MODULATION, noise, 50).any()


@settings(max_examples=40, deadline=None)
@given(
    rate_hz=st.sampled_from(RATES_HZ),
    seconds=st.floats(0.05, 3.0),
    gain=st.floats(1e-6, 1e6),
    offset=st.floats(-100, 100),
    view=st.sampled_from([EVEN, SLOW, ENVELOPE, MODULATION]),
)
def test_vector_has_unit_length_and_knows_no_level(
    rate_hz: int, seconds: float, gain: float, offset: float, view: View
) -> None:
    """At any length and rate: unit length, mean 0 over the bins there are, zeros above, the same for any gain."""
    wave = np.random.default_rng(0).standard_normal(max(4, round(rate_hz * seconds)))
    vector = view_vector(view, wave.astype(np.float32), rate_hz)
    assert vector.shape == (view.bins,)
    assert vector.dtype == np.float32
    assert float(np.linalg.norm(vector)) == pytest.approx(1.0, abs=1e-5)
    if view.kind == "modulation":
        assert float(vector.min()) >= 0
    else:
        assert float(vector.sum()) == pytest.approx(0.0, abs=1e-3)
        bins_hz = np.arange(view.bins) * 1000 / view.window_ms
        if view.lowest_hz:
            bins_hz = np.geomspace(view.lowest_hz, view.top_hz, view.bins)
        assert not vector[bins_hz > rate_hz / 2 + 1000 / view.window_ms].any()
    moved = ((wave + offset) * gain).astype(np.float32)
    np.testing.assert_allclose(view_vector(view, moved, rate_hz), vector, atol=5e-3)


def test_low_rate_keeps_the_number_of_bins() -> None:
    """At 1 kHz there is an envelope up to 500 Hz; the bins above are 0."""
    vector = view_vector(EVEN, np.random.default_rng(0).standard_normal(1000).astype(np.float32), 1000)
    assert np.count_nonzero(vector[:251]) == 251
    assert not vector[251:].any()


def test_segment_shorter_than_a_frame_has_a_view_of_its_own_resolution() -> None:
    """Strikes 100 times a second show in 0.3 s as in 3 s."""
    short, long = (view_vector(EVEN, strikes(12_000, s, 100.0, ring_hz=3000), 12_000) for s in (0.3, 3.0))
    for vector in (short, long):
        assert abs(int(vector[20:80].argmax()) + 20 - 50) <= 1
    assert float(short @ long) > 0.5


@pytest.mark.parametrize("view", [EVEN, SLOW, ENVELOPE, MODULATION])
def test_constant_has_no_view(view: View) -> None:
    """A dead sensor, and rounding on a large offset, give zeros, not amplified rounding."""
    assert not view_vector(view, np.full(16_000, 5.0, np.float32), 16_000).any()
    assert not view_vector(view, np.zeros(16_000, np.float32), 16_000).any()
    rounding = np.full(16_000, 1e6, np.float32)
    rounding[::2] = np.nextafter(np.float32(1e6), np.float32(2e6))
    assert not view_vector(view, rounding, 16_000).any()


def test_carrier_without_modulation_has_no_envelope() -> None:
    """A steady tone has a constant envelope: zeros; modulated by a thousandth it has the modulation."""
    time_s = np.arange(16_000) / 16_000
    tone = np.sin(2 * np.pi * 4001 * time_s + 1)
    assert not view_vector(EVEN, tone.astype(np.float32), 16_000).any()
    modulated = tone * (1 + 1e-3 * np.sin(2 * np.pi * 100 * time_s))
    assert int(view_vector(EVEN, modulated.astype(np.float32), 16_000).argmax()) == 50


@pytest.mark.parametrize(
    ("wave", "rate_hz"),
    [
        (np.zeros((2, 100)), 1000),
        (np.zeros(0), 1000),
        (np.zeros(1), 1000),
        (np.arange(100.0), 1),
        (np.array([1.0, np.nan, 2.0]), 1000),
        (np.array([1.0, np.inf, 2.0]), 1000),
    ],
)
def test_signal_that_can_have_no_view_is_refused(wave: Any, rate_hz: int) -> None:
    """Several channels, nothing, and NaN or Inf are one line."""
    with pytest.raises(BadInputError, match=r"has no view; (give|check)") as caught:
        view_vector(EVEN, wave.astype(np.float32), rate_hz)
    assert "\n" not in str(caught.value)


def test_view_round_trip() -> None:
    """What `to_dict` writes rebuilds the same view."""
    for view in (EVEN, SLOW, ENVELOPE, MODULATION):
        assert View.from_dict(view.to_dict()) == view
    old = {name: value for name, value in EVEN.to_dict().items() if name != "lowest_hz"}
    assert View.from_dict(old) == EVEN, "written before there was a logarithmic axis"
    assert (EVEN.name, EVEN.bins, SLOW.name, SLOW.bins) == ("envelope-600hz", 300, "slow-200hz", 80)
    assert (ENVELOPE.name, ENVELOPE.bins) == ("envelope-1000hz", 160)
    assert (MODULATION.name, MODULATION.bins) == ("modulation-40hz", 480)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "wavelet"},
        {"top_hz": 0},
        {"top_hz": 600.0},
        {"window_ms": True},
        {"window_ms": 10**6},
        {"hop_ms": 0},
        {"top_hz": 10},
        {"top_hz": 90_000},
        {"lowest_hz": -1},
        {"lowest_hz": 600},
        {"lowest_hz": 599},
        {"kind": "modulation"},
        {"kind": "modulation", "top_hz": 40, "lowest_hz": 1},
    ],
)
def test_impossible_view_is_refused(change: dict[str, Any]) -> None:
    """Values no view can have are refused when it is made."""
    with pytest.raises(BadArtifactError, match="view"):
        View.from_dict(EVEN.to_dict() | change)


@pytest.mark.parametrize("values", [None, [], "envelope", {"kind": "envelope"}, EVEN.to_dict() | {"more": 1}])
def test_other_things_than_a_view_are_refused(values: Any) -> None:
    """Nothing may be missing or unknown."""
    with pytest.raises(BadArtifactError, match="does not have the fields hop_ms, kind, lowest_hz, top_hz, window_ms"):
        View.from_dict(values)
