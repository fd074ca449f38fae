"""Views of a window: what they show, what they do not depend on, and segments that have none."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.views import View, view_vector
from fisher_edge.errors import BadArtifactError, BadInputError

ENVELOPE = View("envelope")
SLOW = View("slow", top_hz=200, window_ms=400)
RATES_HZ = [100, 1000, 8000, 12_000, 26_667, 44_100, 97_656]


def strikes(rate_hz: int, seconds: float, per_second: float, *, ring_hz: float, seed: int = 0) -> FloatArray:
    """Return a resonance that is struck so many times a second, in noise: a damaged bearing."""
    time_s = np.arange(round(rate_hz * seconds)) / rate_hz
    since_s = time_s % (1 / per_second)
    noise = np.random.default_rng(seed).standard_normal(len(time_s))
    return (np.exp(-since_s * 500) * np.sin(2 * np.pi * ring_hz * since_s) + 0.05 * noise).astype(np.float32)


def by_the_book(wave: FloatArray, rate_hz: int) -> npt.NDArray[np.float64]:
    """Return the envelope's view with SciPy's band-pass, Hilbert transform and resampling, frame by frame."""
    spectrum = np.fft.rfft(wave - wave.mean(dtype=np.float64))
    spectrum[np.fft.rfftfreq(len(wave), 1 / rate_hz) < rate_hz / 8] = 0
    envelope = np.abs(scipy.signal.hilbert(np.fft.irfft(spectrum, len(wave))))
    slow = scipy.signal.resample(envelope - envelope.mean(), round(len(wave) * 2000 / rate_hz))
    slow *= 0.05 / slow.std()
    frames = np.stack([slow[start : start + 1000] for start in range(0, len(slow) - 999, 80)])
    log = np.log(np.abs(np.fft.rfft(frames * scipy.signal.get_window("hann", 1000))) + 1e-10).mean(axis=0)[:300]
    log -= log.mean()
    return np.asarray(log / np.linalg.norm(log))


@pytest.mark.parametrize("rate_hz", [12_000, 16_000, 48_000])
def test_envelope_equals_the_textbook(rate_hz: int) -> None:
    """The vector is that of a plain implementation with SciPy in double precision."""
    wave = strikes(rate_hz, 2.0, 87.0, ring_hz=rate_hz / 4) + np.float32(3)
    np.testing.assert_allclose(view_vector(ENVELOPE, wave, rate_hz), by_the_book(wave, rate_hz), atol=1e-5)


@pytest.mark.parametrize("rate_hz", [12_000, 25_600, 44_100, 97_656])
@pytest.mark.parametrize("per_second", [36.0, 108.0, 162.0])
def test_envelope_shows_how_often_a_resonance_is_struck(rate_hz: int, per_second: float) -> None:
    """The largest bins are the rate of the strikes and its multiples, at any rate and for any resonance."""
    for ring_hz in (rate_hz / 5, rate_hz / 3):
        vector = view_vector(ENVELOPE, strikes(rate_hz, 2.5, per_second, ring_hz=ring_hz), rate_hz)
        for multiple in (1, 2, 3):
            at = round(multiple * per_second / 2)
            assert vector[at] > 3 * np.median(np.abs(vector))
            assert vector[at] == vector[at - 8 : at + 9].max()


def test_envelope_does_not_hear_the_lowest_quarter_of_the_band() -> None:
    """A strong slow tone that is not modulated changes nothing; for the other view it is the largest bin."""
    time_s = np.arange(32_000) / 16_000
    wave = strikes(16_000, 2.0, 87.0, ring_hz=4000)
    with_tone = wave + np.sin(2 * np.pi * 50 * time_s).astype(np.float32)
    np.testing.assert_allclose(view_vector(ENVELOPE, with_tone, 16_000), view_vector(ENVELOPE, wave, 16_000), atol=1e-3)
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


@settings(max_examples=40, deadline=None)
@given(
    rate_hz=st.sampled_from(RATES_HZ),
    seconds=st.floats(0.05, 3.0),
    gain=st.floats(1e-6, 1e6),
    offset=st.floats(-100, 100),
    view=st.sampled_from([ENVELOPE, SLOW]),
)
def test_vector_has_unit_length_and_knows_no_level(
    rate_hz: int, seconds: float, gain: float, offset: float, view: View
) -> None:
    """Of any length and rate: unit length, mean 0 over the bins there are, zeros above, the same for any gain."""
    wave = np.random.default_rng(0).standard_normal(max(4, round(rate_hz * seconds)))
    vector = view_vector(view, wave.astype(np.float32), rate_hz)
    assert vector.shape == (view.bins,)
    assert vector.dtype == np.float32
    assert float(np.linalg.norm(vector)) == pytest.approx(1.0, abs=1e-5)
    assert float(vector.sum()) == pytest.approx(0.0, abs=1e-3)
    above = np.arange(view.bins) * 1000 / view.window_ms > rate_hz / 2 + 1000 / view.window_ms
    assert not vector[above].any()
    moved = ((wave + offset) * gain).astype(np.float32)
    np.testing.assert_allclose(view_vector(view, moved, rate_hz), vector, atol=5e-3)


def test_low_rate_keeps_the_number_of_bins() -> None:
    """At 1 kHz there is an envelope up to 500 Hz; the bins above are 0."""
    vector = view_vector(ENVELOPE, np.random.default_rng(0).standard_normal(1000).astype(np.float32), 1000)
    assert np.count_nonzero(vector[:251]) == 251
    assert not vector[251:].any()


def test_segment_shorter_than_a_frame_has_a_view_of_its_own_resolution() -> None:
    """Strikes 100 times a second show in 0.3 s as in 3 s."""
    short, long = (view_vector(ENVELOPE, strikes(12_000, s, 100.0, ring_hz=3000), 12_000) for s in (0.3, 3.0))
    for vector in (short, long):
        assert abs(int(vector[20:80].argmax()) + 20 - 50) <= 1
    assert float(short @ long) > 0.5


@pytest.mark.parametrize("view", [ENVELOPE, SLOW])
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
    assert not view_vector(ENVELOPE, tone.astype(np.float32), 16_000).any()
    modulated = tone * (1 + 1e-3 * np.sin(2 * np.pi * 100 * time_s))
    assert int(view_vector(ENVELOPE, modulated.astype(np.float32), 16_000).argmax()) == 50


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
        view_vector(ENVELOPE, wave.astype(np.float32), rate_hz)
    assert "\n" not in str(caught.value)


def test_view_round_trip() -> None:
    """What `to_dict` writes rebuilds the same view."""
    for view in (ENVELOPE, SLOW):
        assert View.from_dict(view.to_dict()) == view
    assert (ENVELOPE.name, ENVELOPE.bins, SLOW.name, SLOW.bins) == ("envelope-600hz", 300, "slow-200hz", 80)


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
    ],
)
def test_impossible_view_is_refused(change: dict[str, Any]) -> None:
    """Values no view can have are refused when it is made."""
    with pytest.raises(BadArtifactError, match="view"):
        View.from_dict(ENVELOPE.to_dict() | change)


@pytest.mark.parametrize("values", [None, [], "envelope", {"kind": "envelope"}, ENVELOPE.to_dict() | {"more": 1}])
def test_other_things_than_a_view_are_refused(values: Any) -> None:
    """Nothing may be missing or unknown."""
    with pytest.raises(BadArtifactError, match="does not have the fields hop_ms, kind, top_hz, window_ms"):
        View.from_dict(values)
