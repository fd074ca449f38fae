"""Windows at another rate: no content is invented, none is lost below half the rate, ends make no step."""

from pathlib import Path

import numpy as np
import pytest

from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.errors import BadInputError
from fisher_train.recordings.recording import Recording
from fisher_train.recordings.resample import random_window, resample


def record(folder: Path, wave: np.ndarray, rate_hz: int) -> Recording:
    """Write a recording."""
    np.save(folder / "wave.npy", wave)
    return Recording("wave", "d", "u", 0, rate_hz, len(wave), 1.0, folder / "wave.npy", "array")


@pytest.mark.parametrize(("rate_hz", "target_hz"), [(97_656, 32_000), (48_828, 12_000), (20_480, 20_000), (8000, 2000)])
def test_tone_keeps_its_frequency_amplitude_and_offset(rate_hz: int, target_hz: int) -> None:
    """A tone on an offset comes out as the same tone on the same offset."""
    tone_hz = target_hz / 5
    wave = (40 + 3 * np.sin(2 * np.pi * tone_hz * np.arange(2 * rate_hz) / rate_hz)).astype(np.float32)
    out = resample(wave, rate_hz, target_hz)[1000:-1000]
    expected = 40 + 3 * np.sin(2 * np.pi * tone_hz * (1000 + np.arange(len(out))) / target_hz)
    assert np.abs(out - expected).max() < 0.003


@pytest.mark.parametrize("rate_hz", [97_656, 48_828, 25_600])
def test_band_above_the_target_does_not_fold_back(rate_hz: int) -> None:
    """A tone above half the target rate is gone, by 90 dB at least."""
    tone = np.sin(2 * np.pi * 9000 * np.arange(rate_hz) / rate_hz).astype(np.float32)
    assert resample(tone, rate_hz, 16_000)[500:-500].std() < tone.std() * 10 ** (-90 / 20)


@pytest.mark.parametrize(("rate_hz", "target_hz"), [(97_656, 32_000), (48_828, 48_828), (20_480, 12_000)])
def test_random_window_is_a_piece_of_the_resampled_whole(tmp_path: Path, rate_hz: int, target_hz: int) -> None:
    """Cutting and resampling is resampling and cutting: the ends of a window have no transient."""
    wave = np.random.default_rng(1).normal(size=rate_hz).cumsum().astype(np.float32)  # far from zero at its ends
    whole = resample(wave, rate_hz, target_hz)
    recording = record(tmp_path, wave, rate_hz)
    for seed in range(5):
        window = random_window(recording, target_hz, 4000, np.random.default_rng(seed))
        first = int(np.random.default_rng(seed).integers(rate_hz - -(-4000 * rate_hz // target_hz) + 1))
        assert len(window) == 4000
        start = first * target_hz / rate_hz
        expected = np.interp(start + np.arange(4000), np.arange(len(whole)), whole)
        assert np.abs(window - expected).max() < 0.02 * wave.std()


def test_random_window_of_a_short_recording_is_all_of_it(tmp_path: Path) -> None:
    """A recording shorter than the window is given whole, no zeros added."""
    wave = np.random.default_rng(2).normal(size=1000).astype(np.float32)
    window = random_window(record(tmp_path, wave, 1000), 1000, 4000, np.random.default_rng(0))
    assert np.array_equal(window, wave)
    assert len(random_window(record(tmp_path, wave, 1000), 500, 4000, np.random.default_rng(0))) == 500


def test_random_window_refuses_a_rate_above_the_recording(tmp_path: Path) -> None:
    """Up-sampling would make empty bands: it is one line."""
    with pytest.raises(BadInputError, match="1000 Hz; at 2000 Hz its upper bands would be empty"):
        random_window(record(tmp_path, np.ones(9000), 1000), 2000, 4000, np.random.default_rng(0))


def test_random_window_avoids_silence(tmp_path: Path) -> None:
    """A window of digital silence is drawn again."""
    wave = np.zeros(100_000, np.float32)
    wave[60_000:] = np.random.default_rng(3).normal(size=40_000)
    recording = record(tmp_path, wave, 8000)
    for seed in range(20):
        assert np.ptp(random_window(recording, 8000, 4000, np.random.default_rng(seed))) > 0


@pytest.mark.parametrize("source_hz", [48_828, 97_656])
def test_top_band_holds_the_signal(tmp_path: Path, source_hz: int) -> None:
    """White noise is as strong in the top band as in the lowest at every harmonic; up-sampled it would not be."""
    front_end = FrontEnd(band_width=50, top_band="pad")
    noise = np.random.default_rng(4).normal(size=source_hz).astype(np.float32)
    recording = record(tmp_path, noise, source_hz)
    for rate_hz in (8000, 20_000, 32_000):
        levels = _band_levels(
            front_end, random_window(recording, rate_hz, rate_hz // 2, np.random.default_rng(0)), rate_hz
        )
        assert abs(levels[-1] - levels[0]) < 0.15
    up = _band_levels(front_end, resample(noise, source_hz, 2 * source_hz), 2 * source_hz)
    assert up[0] - up[-1] > 1


def _band_levels(front_end: FrontEnd, wave: np.ndarray, rate_hz: int) -> np.ndarray:
    """Return the mean level of every band over its lower 40 bins: above 0.91 of half the rate is the filter's slope."""
    levels: np.ndarray = front_end.sub_bands(wave, rate_hz)[:, :, 2:30].mean((1, 2))
    return levels
