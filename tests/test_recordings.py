"""Recordings for training: found with their rates and amplitudes, cut into pairs of crops."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.errors import BadInputError
from fisher_train.recordings.find import Corpus, find
from fisher_train.recordings.pairs import KEPT_BYTES, crop_pairs, eligible
from fisher_train.recordings.recording import Recording

FRONT_END = FrontEnd(band_width=50, top_band="pad", amplitude="standardise")
FRAMES = 32


def noise(seed: int, samples: int, channels: int = 1) -> np.ndarray:
    """Return noise (samples, channels) as int16."""
    return np.random.default_rng(seed).normal(0, 3000, (samples, channels)).astype(np.int16)


def write_arrays(folder: Path, rows: str, **arrays: np.ndarray) -> Path:
    """Write arrays and the table that describes them."""
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "meta.csv").write_text("file,sample_rate_hz,scale,split_unit,dataset,channel\n" + rows)
    return folder


@pytest.mark.parametrize(
    ("subtype", "dtype", "full_scale"),
    [("PCM_16", "int16", 2**15), ("PCM_24", "int32", 2**31), ("FLOAT", "float32", 1)],
)
def test_sound_file_gives_every_channel_with_its_amplitude(
    tmp_path: Path, subtype: str, dtype: str, full_scale: int
) -> None:
    """Each channel of a sound file is a signal whose numbers are exactly those of the file."""
    written = noise(1, 5000, 3).astype(dtype)
    written = written if subtype == "FLOAT" else written << (np.iinfo(dtype).bits - 16)
    soundfile.write(tmp_path / "three.wav", written, 48_828, subtype=subtype)
    corpus = find([tmp_path])
    assert [(found.channel, found.rate_hz, found.samples) for found in corpus.recordings] == [
        (channel, 48_828, 5000) for channel in range(3)
    ]
    for recording in corpus.recordings:
        expected = (written[:, recording.channel] / np.float64(full_scale)).astype(np.float32)
        assert np.array_equal(recording.read(), expected)
        assert np.array_equal(recording.read(1234, 777), expected[1234:2011])


def test_table_of_arrays_gives_rate_scale_and_names(tmp_path: Path) -> None:
    """A `meta.csv` gives arrays their rate, scale, unit, dataset and channel; columns are signals."""
    one, two = noise(2, 3000)[:, 0], noise(3, 2000, 2)
    rows = "one.npy,97656,0.5,machine-7,rig,acc\ntwo.npy,1000,,,,\n"
    folder = write_arrays(tmp_path / "lab", rows, one=one, two=two)
    first, second, third = find([folder]).recordings
    assert (first.rate_hz, first.unit, first.dataset, first.label, first.name) == (
        (97_656, "machine-7", "rig", "acc", "lab/one.npy")
    )
    assert np.array_equal(first.read(10, 5), one[10:15].astype(np.float32) * np.float32(0.5))
    assert (second.rate_hz, second.dataset, second.unit) == (1000, "lab", "lab/two.npy")
    assert np.array_equal(third.read(), two[:, 1].astype(np.float32))


def test_find_names_every_file_it_cannot_use(tmp_path: Path) -> None:
    """A file with a damaged header, no rate, a wrong rate or no samples is listed with its reason; the rest serves."""
    rows = "good.npy,8000,1,,,\nslow.npy,50,1,,,\nabsent.npy,8000,1,,,\nempty.npy,8000,1,,,\n"
    arrays = {"good": noise(4, 100)[:, 0], "slow": noise(5, 100)[:, 0], "empty": noise(6, 0)[:, 0]}
    folder = write_arrays(tmp_path / "mixed", rows, unlisted=noise(7, 100), **arrays)
    (folder / "damaged.wav").write_bytes(b"RIFF" + bytes(100))
    corpus = find([folder])
    assert [recording.name for recording in corpus.recordings] == ["mixed/good.npy"]
    reasons = {bad.path.name: bad.reason for bad in corpus.bad}
    expected = {
        "slow.npy": "rate of 50 Hz",
        "absent.npy": "no file",
        "empty.npy": "no samples",
        "unlisted.npy": "no sampling rate",
        "damaged.wav": "cannot be read",
    }
    assert reasons.keys() == expected.keys()
    for name, words in expected.items():
        assert words in reasons[name]
        assert "\n" not in reasons[name]


def test_find_refuses_what_holds_nothing(tmp_path: Path) -> None:
    """A folder without recordings and a path that is not there are one line each."""
    with pytest.raises(BadInputError, match=r"no usable recording .* give folders"):
        find([tmp_path])
    with pytest.raises(BadInputError, match=r"no file or folder at .*nowhere"):
        find([tmp_path / "nowhere"])


def test_read_of_a_file_cut_short_since_is_refused(tmp_path: Path) -> None:
    """A recording that lost samples after it was found is an error, never a shorter signal."""
    path = tmp_path / "short.wav"
    soundfile.write(path, noise(8, 4000), 8000)
    recording = find([tmp_path]).recordings[0]
    os.truncate(path, 2000)
    with pytest.raises(BadInputError, match="changed or cut short"):
        recording.read()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_read_of_what_is_no_number_is_refused(tmp_path: Path, value: float) -> None:
    """NaN and Inf end training with the name of the file, and only where they are."""
    wave = np.zeros(4000, np.float32)
    wave[1500] = value
    soundfile.write(tmp_path / "hole.wav", wave, 8000, subtype="FLOAT")
    recording = find([tmp_path]).recordings[0]
    assert len(recording.read(0, 1500)) == 1500
    with pytest.raises(BadInputError, match=r"hole\.wav holds NaN or Inf between samples 1000 and 2000"):
        recording.read(1000, 1000)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Return recordings of two datasets, several units, odd rates; one is too short for two crops."""
    rows = "a.npy,8000,0.01,1,rig,acc\nb.npy,8000,0.01,1,rig,acc\n"
    rows += "c.npy,8000,0.01,2,rig,acc\nd.npy,97656,0.01,3,rig,acc\nshort.npy,8000,0.01,4,rig,acc\n"
    names = {name: noise(place, 16_000)[:, 0] for place, name in enumerate("abc")}
    arrays = names | {"d": noise(8, 100_000)[:, 0] + np.int16(2000), "short": noise(9, 4000)[:, 0]}
    write_arrays(tmp_path / "rig", rows, **arrays)
    (tmp_path / "plant").mkdir()
    soundfile.write(tmp_path / "plant" / "pump.wav", noise(10, 30_000, 2), 16_000)
    return find([tmp_path / "rig", tmp_path / "plant"])


def test_crop_pairs_are_two_crops_of_one_band_of_one_recording(corpus: Corpus) -> None:
    """Every crop is found, by the front-end alone, at a frame of a recording; the two of a pair share no sample."""
    crops = crop_pairs(corpus, FRONT_END, np.random.default_rng(0), 10, FRAMES)
    assert crops.shape == (2, 10, FRAMES, 50)
    assert crops.dtype == np.float32
    for pair in range(10):
        (one, first, band), (other, second, same_band) = (_place_of(corpus, crops[i, pair]) for i in (0, 1))
        assert one == other
        assert band == same_band
        assert abs(first - second) >= FRONT_END.n_samples(FRAMES, one.rate_hz)


def test_crop_pairs_depend_on_the_generator_alone(corpus: Corpus) -> None:
    """The same seed gives the same crops whatever was drawn before; another seed gives others."""
    first = crop_pairs(corpus, FRONT_END, np.random.default_rng([1, 5]), 7, FRAMES)
    other = crop_pairs(corpus, FRONT_END, np.random.default_rng([1, 6]), 7, FRAMES)
    again = crop_pairs(corpus, FRONT_END, np.random.default_rng([1, 5]), 7, FRAMES)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_crop_pairs_of_a_corpus_beyond_memory_are_the_same(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether spectra are kept changes no crop."""
    kept = crop_pairs(corpus, FRONT_END, np.random.default_rng(3), 12, FRAMES)
    monkeypatch.setattr("fisher_train.recordings.pairs.KEPT_BYTES", 1000)
    large = Corpus(corpus.recordings)
    fresh = crop_pairs(large, FRONT_END, np.random.default_rng(3), 12, FRAMES)
    assert eligible(corpus, FRONT_END, FRAMES).keep
    assert not eligible(large, FRONT_END, FRAMES).keep
    assert KEPT_BYTES > 1000
    np.testing.assert_allclose(fresh, kept, atol=2e-5)


def test_crop_pairs_avoid_silence(tmp_path: Path) -> None:
    """Stretches of digital silence, the same in every recording, are not taken for a machine."""
    wave = noise(11, 60_000)[:, 0]
    wave[10_000:30_000] = 0
    folder = write_arrays(tmp_path / "padded", "wave.npy,8000,1,,,\n", wave=wave)
    quiet = find([folder])
    for seed in range(20):
        crops = crop_pairs(quiet, FRONT_END, np.random.default_rng(seed), 2, FRAMES)
        assert crops.std(axis=(2, 3)).min() > 0.01


def test_crop_pairs_says_when_recordings_are_too_short(corpus: Corpus) -> None:
    """One line with the longest recording and what to do."""
    with pytest.raises(BadInputError, match=r"two crops of 400 frames .* shorter crops"):
        crop_pairs(corpus, FRONT_END, np.random.default_rng(0), 2, 400)


def _place_of(corpus: Corpus, crop: np.ndarray) -> tuple[Recording, int, int]:
    """Return the recording, the first sample and the band of a crop."""
    for recording in corpus.recordings:
        for start, bands in _all_crops(recording):
            for band in np.flatnonzero(np.abs(bands - crop).max((1, 2)) < 1e-4):
                return recording, start, int(band)
    raise AssertionError("the crop is of no recording")


@cache
def _all_crops(recording: Recording) -> list[tuple[int, np.ndarray]]:
    """Return (first sample, sub-bands) of every crop that starts with a frame."""
    rate_hz, wave = recording.rate_hz, recording.read()
    length = FRONT_END.n_samples(FRAMES, rate_hz)
    starts = range(0, len(wave) - length + 1, FRONT_END.hop(rate_hz))
    return [(start, FRONT_END.sub_bands(wave[start : start + length], rate_hz)) for start in starts]
