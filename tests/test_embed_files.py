"""Embeddings of whole recordings: how they are cut, and how they are kept."""

from dataclasses import replace
from pathlib import Path

import micro
import numpy as np
import pytest

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.files import embed_recording, save_embeddings, segment_samples
from fisher_edge.encoder.ort import OrtEncoder
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.errors import BadInputError
from fisher_export.pipeline import export

RATE_HZ = 1000
LENGTH = micro.FRONT_END.n_samples(1024, RATE_HZ)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """Return an encoder of a micro bundle."""
    folder = tmp_path_factory.mktemp("bundle")
    exported = export(micro.save_micro(folder / "micro"), folder / "out", "fp32", micro.signals())
    return OrtEncoder(load_bundle(exported.path))


def noise(samples: int) -> FloatArray:
    """White noise."""
    return np.random.default_rng(0).standard_normal(samples).astype(np.float32)


def embed(encoder: Encoder, wave: FloatArray, rate_hz: int, *, pad_frames: bool = False) -> FloatArray:
    """Embed a signal as the command does: cut into segments by its recording."""
    length = segment_samples(encoder.bundle.front_end, rate_hz)
    segments = (wave[start : start + length] for start in range(0, len(wave), length))
    return embed_recording(encoder, segments, rate_hz, pad_frames=pad_frames)


@pytest.mark.parametrize(
    ("samples", "segments"),
    [
        (LENGTH // 4, 1),
        (LENGTH, 1),
        (LENGTH + LENGTH // 2, 1),
        (LENGTH + LENGTH // 2 + 1, 2),
        (2 * LENGTH, 2),
        (3 * LENGTH - 1, 3),
        (3 * LENGTH + 100, 3),
    ],
)
def test_recording_is_cut_into_segments_of_1024_frames(encoder: Encoder, samples: int, segments: int) -> None:
    """The rest makes a segment of its own when it is the only one or at least half as long."""
    assert LENGTH % 2 == 1
    wave = noise(samples)
    found = embed(encoder, wave, RATE_HZ)
    assert found.shape == (segments, 32)
    for number, row in enumerate(found):
        segment = wave[number * LENGTH : (number + 1) * LENGTH]
        expected = encoder.embed([micro.FRONT_END.sub_bands(segment, RATE_HZ)])[0].ravel()
        np.testing.assert_array_equal(row, expected)


def test_bands_are_concatenated_from_low_to_high(encoder: Encoder) -> None:
    """The row of a segment is its bands' embeddings in order."""
    wave = noise(16_000)
    found = embed(encoder, wave, 16_000)
    bands = encoder.embed([micro.FRONT_END.sub_bands(wave, 16_000)])[0]
    assert found.shape == (1, 4 * 32)
    np.testing.assert_array_equal(found[0].reshape(4, 32), bands)


def test_pad_frames_fills_every_segment(encoder: Encoder) -> None:
    """`pad_frames` embeds short segments as 1024 frames, which is another embedding; full ones do not change."""
    wave = noise(LENGTH + 6000)
    bare, padded = (embed(encoder, wave, RATE_HZ, pad_frames=pad) for pad in (False, True))
    expected = encoder.embed([micro.FRONT_END.sub_bands(wave[LENGTH:], RATE_HZ, pad_frames=True)])[0].ravel()
    np.testing.assert_array_equal(padded[0], bare[0])
    np.testing.assert_array_equal(padded[1], expected)
    assert np.abs(padded[1] - bare[1]).max() > 1e-3


@pytest.fixture(scope="module")
def on_grid(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """Return an encoder of a bundle whose windows are runs of pieces."""
    folder = tmp_path_factory.mktemp("grid")
    checkpoint = micro.micro_checkpoint(front_end=replace(micro.FRONT_END, piece_frames=96))
    exported = export(micro.save_micro(folder / "micro", checkpoint), folder / "out", "fp32", micro.signals())
    return OrtEncoder(load_bundle(exported.path))


@pytest.mark.parametrize(("frames", "pieces"), [(1024, 10), (960, 10), (959, 9), (96, 1), (95, 0), (16, 0)], ids=str)
def test_segment_is_the_mean_of_its_whole_pieces(on_grid: Encoder, frames: int, pieces: int) -> None:
    """10.24 s hold ten pieces; a segment shorter than a piece is one short piece."""
    wave = noise(micro.FRONT_END.n_samples(frames, RATE_HZ)) * np.float32(2) + np.float32(1)
    wave[: len(wave) // 2] *= 5
    span = micro.FRONT_END.n_samples(96, RATE_HZ)
    parts = [wave[960 * number : 960 * number + span] for number in range(pieces)] or [wave]
    expected = np.mean(on_grid.embed([micro.FRONT_END.sub_bands(part, RATE_HZ) for part in parts]), axis=0)
    np.testing.assert_allclose(embed(on_grid, wave, RATE_HZ), expected, atol=1e-5, rtol=0)


def test_segments_of_pieces_are_cut_as_those_of_whole_windows(on_grid: Encoder) -> None:
    """The rest makes a segment of its own by the same rule."""
    wave = noise(3 * LENGTH)
    for samples, segments in ((LENGTH + LENGTH // 2, 1), (LENGTH + LENGTH // 2 + 1, 2), (3 * LENGTH - 1, 3)):
        found = embed(on_grid, wave[:samples], RATE_HZ)
        assert len(found) == segments
        np.testing.assert_array_equal(found[0], embed(on_grid, wave[:LENGTH], RATE_HZ)[0])


def test_short_piece_may_be_filled_up(on_grid: Encoder) -> None:
    """`pad_frames` makes a whole piece of a recording shorter than one patch."""
    samples = micro.FRONT_END.n_samples(15, RATE_HZ)
    with pytest.raises(BadInputError, match="make 15 frames, the encoder needs 16"):
        embed(on_grid, noise(samples), RATE_HZ)
    bands = np.zeros((1, 96, 50), np.float32)
    bands[:, :15] = micro.FRONT_END.sub_bands(noise(samples), RATE_HZ)
    (expected,) = on_grid.embed([bands])
    np.testing.assert_array_equal(embed(on_grid, noise(samples), RATE_HZ, pad_frames=True), expected)


def test_shortest_recording_is_one_patch(encoder: Encoder) -> None:
    """16 frames can be embedded, 15 say how many there are, and `pad_frames` needs one."""
    samples = [micro.FRONT_END.n_samples(frames, RATE_HZ) for frames in (16, 15, 1)]
    assert embed(encoder, noise(samples[0]), RATE_HZ).shape == (1, 32)
    with pytest.raises(BadInputError, match=f"{samples[1]} samples at 1000 Hz make 15 frames, the encoder needs 16"):
        embed(encoder, noise(samples[1]), RATE_HZ)
    for count in samples:
        assert embed(encoder, noise(count), RATE_HZ, pad_frames=True).shape == (1, 32)


@pytest.mark.parametrize("pad_frames", [False, True])
def test_recording_without_a_frame_is_refused(encoder: Encoder, pad_frames: bool) -> None:
    """Less than a frame, and nothing at all, are refused as what they are."""
    with pytest.raises(BadInputError, match="shorter than one frame of 25 samples"):
        embed(encoder, noise(24), RATE_HZ, pad_frames=pad_frames)
    with pytest.raises(BadInputError, match="signal of 0 samples is empty"):
        embed(encoder, noise(0), RATE_HZ, pad_frames=pad_frames)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_recording_with_damaged_samples_is_refused(encoder: Encoder, bad: float) -> None:
    """One NaN would spoil a whole row silently."""
    wave = noise(2000)
    wave[1000] = bad
    with pytest.raises(BadInputError, match="NaN or Inf"):
        embed(encoder, wave, RATE_HZ)


def test_rate_out_of_range_is_refused(encoder: Encoder) -> None:
    """Slow process values are refused as such."""
    with pytest.raises(BadInputError, match="rate_hz=1 is below 100 Hz"):
        embed(encoder, noise(2000), 1)


def test_one_recording_is_kept_as_npy(tmp_path: Path) -> None:
    """A .npy holds the rows of one recording."""
    rows = noise(12).reshape(3, 4)
    save_embeddings(tmp_path / "out.npy", {"a.wav": rows})
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy", allow_pickle=False), rows)


def test_several_recordings_are_kept_as_npz(tmp_path: Path) -> None:
    """A .npz holds the rows of each recording under its name, whatever is in the name."""
    rows = {"a.wav": noise(12).reshape(3, 4), "file": noise(4).reshape(1, 4), "folder/b c.flac": noise(8).reshape(2, 4)}
    save_embeddings(tmp_path / "out.npz", rows)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        assert set(found) == set(rows)
        for name, expected in rows.items():
            np.testing.assert_array_equal(found[name], expected)


@pytest.mark.parametrize("name", ["nowhere/out.npy", "nowhere/out.npz"])
def test_folder_that_is_not_there_is_an_error_of_ours(tmp_path: Path, name: str) -> None:
    """A place that cannot be written is named."""
    with pytest.raises(BadInputError, match=r"cannot write .*nowhere/out\.np. *.*No such file"):
        save_embeddings(tmp_path / name, {"a.wav": noise(4).reshape(1, 4)})
