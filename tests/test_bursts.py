"""Streams of bursts: frames are joined, samples never; any chunking gives the pieces of the arithmetic below."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fisher_edge.dsp.blocks import Block, FloatArray
from fisher_edge.dsp.bursts import SHORT_BURSTS, BurstStream
from fisher_edge.dsp.grid import Grid, grid_of, over_bursts
from fisher_edge.dsp.spectra import hann
from fisher_edge.dsp.stream import Piece
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.windows import WindowJoiner, read
from fisher_edge.errors import BadInputError, SensorError

RATE_HZ = 25_600
SAMPLES = 2560
FRAMES = 8
START_S = 1.79e9
FRONT_END = replace(load_bundle().front_end, views=())
REAL = Path(__file__).parents[2] / "shared" / "data" / "femto_life_c1" / "run_to_failure" / "Bearing1_2__horiz.npy"


def bursts_of(count: int, samples: int = SAMPLES, offset: float = 3.0) -> FloatArray:
    """Return bursts (count, samples) of a bearing, or of noise that wanders where that is not there."""
    if REAL.exists() and samples == SAMPLES:
        return np.asarray(np.load(REAL)[:count] * 1e-3 + offset, np.float32)
    random = np.random.default_rng(count)
    waves = random.standard_normal((count, samples)) * random.uniform(0.5, 2, (count, 1))
    return (waves + np.cumsum(waves, axis=1) / 50 + offset).astype(np.float32)


def blocks(waves: Iterable[FloatArray], interval_s: float = 10.0, cuts: Sequence[int] = ()) -> Iterator[Block]:
    """Yield bursts as a sensor delivers them, each cut at the given samples."""
    for number, wave in enumerate(waves):
        index, time_s = 1_000_000 * number, START_S + interval_s * number
        bounds = [0, *sorted(cut for cut in cuts if cut < len(wave)), len(wave)]
        for start, end in pairwise(bounds):
            yield Block(wave[start:end], RATE_HZ, index + start, time_s + start / RATE_HZ)


def pieces_of(stream: BurstStream, parts: Iterator[Block]) -> list[Piece]:
    """Push all blocks and end the last burst."""
    return [piece for block in parts for piece in stream.push(block)] + stream.end()


def expected_bands(waves: FloatArray, frames: int = 96) -> FloatArray:
    """Compute the sub-bands of a piece of bursts, frame by frame, without the code under test."""
    n_fft, hop = 640, 256
    centred = waves - waves.mean(axis=1, dtype=np.float64, keepdims=True)
    found = [
        np.abs(np.fft.rfft(burst[start : start + n_fft] * hann(n_fft)))
        for burst in centred
        for start in range(0, len(burst) - n_fft + 1, hop)
    ]
    log = np.log(np.array(found[:frames]) * 0.1 / centred.std() + 1e-10)
    log = (log - FRONT_END.mean) / (2 * FRONT_END.std)
    return np.stack([log[:, 50 * band : 50 * band + 50] for band in range(6)]).astype(np.float32)


def grid(hop_frames: int = 32, pieces: int = 1) -> Grid:
    """Pieces of 96 frames."""
    return over_bursts(Grid(96, hop_frames, pieces, 1, 0.96 * pieces, hop_frames / 100))


def test_pieces_are_the_frames_of_twelve_bursts() -> None:
    """Twelve bursts of eight frames are a piece, the next begins four bursts later; means go burst by burst."""
    waves = bursts_of(40)
    pieces = pieces_of(BurstStream(FRONT_END, RATE_HZ, grid()), blocks(waves))
    assert [piece.number for piece in pieces] == list(range(8))
    for number, piece in enumerate(pieces):
        own = waves[4 * number : 4 * number + 12]
        bands = expected_bands(own)
        np.testing.assert_allclose(piece.bands[:6], bands, atol=2e-4, rtol=0)
        assert piece.bands.shape == (7, 96, 50)
        assert piece.start == 4_000_000 * number
        assert piece.end_time_s == pytest.approx(START_S + 10 * (4 * number + 11) + 0.1, abs=1e-5)
        assert piece.raw is not None
        np.testing.assert_array_equal(piece.raw, own.ravel())
        np.testing.assert_allclose(piece.samples, (own - own.mean(axis=1, keepdims=True)).ravel(), atol=1e-5)


def test_no_frame_spans_a_gap() -> None:
    """The frames of a burst in a piece differ from those of the burst alone by the scale of the piece only."""
    waves = bursts_of(12)
    (piece,) = pieces_of(BurstStream(FRONT_END, RATE_HZ, grid()), blocks(waves))
    gain = 0.1 / piece.samples.std(dtype=np.float64)
    for number, wave in enumerate(waves):
        own_gain = 0.1 / wave.std(dtype=np.float64)
        shift = np.log(gain / own_gain) / (2 * FRONT_END.std)
        alone = FRONT_END.sub_bands(wave, RATE_HZ)
        joined = piece.bands[:, FRAMES * number : FRAMES * number + FRAMES]
        np.testing.assert_allclose(joined[:6], alone[:6] + shift, atol=2e-4, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6000), min_size=1, max_size=40),
    hop_frames=st.sampled_from([1, 24, 32, 96, 200]),
    cuts=st.lists(st.integers(0, 6000), max_size=8),
)
def test_any_chunking_gives_the_same_pieces(lengths: list[int], hop_frames: int, cuts: list[int]) -> None:
    """Bursts of any lengths: the same pieces from whole bursts as from any part of them; no gap is counted."""
    lengths = [max(samples, 640 if number % 2 else 1) for number, samples in enumerate(lengths)]
    waves = [np.random.default_rng(n).standard_normal(samples).astype(np.float32) for n, samples in enumerate(lengths)]
    stream = BurstStream(FRONT_END, RATE_HZ, grid(hop_frames))
    whole = pieces_of(stream, blocks(waves))
    cut = pieces_of(BurstStream(FRONT_END, RATE_HZ, grid(hop_frames)), blocks(waves, cuts=cuts))
    frames = sum(FRONT_END.n_frames(samples, RATE_HZ) for samples in lengths)
    assert len(whole) == len(cut)
    assert bool(whole) == (frames >= 96)
    assert stream.gaps == 0
    for left, right in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(left.bands, right.bands)
        np.testing.assert_array_equal(left.samples, right.samples)
        assert (left.number, left.start) == (right.number, right.start)
        assert left.end_time_s == pytest.approx(right.end_time_s, abs=1e-5)


@pytest.mark.parametrize(
    ("samples", "count", "starts"),
    [
        (2 * RATE_HZ, 2, [0, 0, 1, 1]),  # 198 frames: a piece at 0 and at 96, then the next burst
        (RATE_HZ, 3, [0, 1, 2]),  # 98 frames: the rest of two is left out
        (3072, 20, [0, 10]),  # 10 frames: a piece takes ten bursts, four frames of the last are left out
    ],
)
def test_next_piece_begins_with_a_burst_or_within_a_long_one(samples: int, count: int, starts: list[int]) -> None:
    """Bursts of every length are used, and no piece begins with the rest of a burst."""
    pieces = pieces_of(BurstStream(FRONT_END, RATE_HZ, grid(96)), blocks(bursts_of(count, samples)))
    assert [piece.start // 1_000_000 for piece in pieces] == starts


def test_silence_that_is_too_long_separates() -> None:
    """With a limit, bursts before and after a longer silence are not joined, and numbers skip; it counts as a gap."""
    waves = bursts_of(32)
    parts = [*blocks(waves[:20]), *(replace(block, time_s=block.time_s + 60) for block in [*blocks(waves)][20:])]
    stream = BurstStream(FRONT_END, RATE_HZ, grid(), max_gap_s=30)
    pieces = pieces_of(stream, iter(parts))
    assert [piece.start // 1_000_000 for piece in pieces] == [0, 4, 8, 20]
    assert [piece.number for piece in pieces] == [0, 1, 2, 4]
    assert stream.gaps == 1
    patient = BurstStream(FRONT_END, RATE_HZ, grid())
    assert [piece.number for piece in pieces_of(patient, iter(parts))] == list(range(6))


def test_windows_join_consecutive_pieces(encoder: Encoder) -> None:
    """Pieces of bursts without a limit have no hole between them: windows of three follow each other."""
    waves = bursts_of(72)
    three = over_bursts(grid_of(FRONT_END, 2.88, 0.96, RATE_HZ), 125.0)
    joiner = WindowJoiner(three)
    pieces = pieces_of(BurstStream(FRONT_END, RATE_HZ, three), blocks(waves))
    windows = [window for reading in read(encoder, FRONT_END, pieces) if (window := joiner.push(reading))]
    assert [window.end_time_s - START_S for window in windows] == pytest.approx([350.1, 470.1, 590.1, 710.1], abs=1e-5)
    assert {window.fault for window in windows} == {None}
    assert windows[0].window_s == pytest.approx(360)
    centred = waves[:36] - waves[:36].mean(axis=1, keepdims=True)
    assert windows[0].measures.rms == pytest.approx(float(centred.std()), rel=1e-4)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda waves: np.full_like(waves, 0.1), "flat line: every sample is 0.1"),
        (lambda waves: np.where(waves > 3.5, np.float32(3.5), waves), "clipped"),
        (lambda waves: np.where(np.arange(SAMPLES) == 5, np.float32(np.nan), waves), "not finite"),
    ],
)
def test_dead_sensor_is_found_in_samples_as_they_came(encoder: Encoder, damage: object, text: str) -> None:
    """Checks of the sensor see the samples before means are removed; the measures of the piece see those after."""
    random = np.random.default_rng(0)
    waves = (0.5 * random.standard_normal((12, SAMPLES)) + 3 + 0.01 * random.random((12, 1))).astype(np.float32)
    assert callable(damage)
    (piece,) = pieces_of(BurstStream(FRONT_END, RATE_HZ, grid()), blocks(damage(waves)))
    (reading,) = read(encoder, FRONT_END, [piece])
    assert reading.fault is not None
    assert text in reading.fault


def test_stream_that_is_none_of_bursts_is_refused() -> None:
    """A sensor that never pauses, and one whose bursts hold no frame, are told; other rates are refused."""
    stream = BurstStream(FRONT_END, 1000, grid())
    for number in range(6):
        stream.push(Block(np.ones(10_000, np.float32), 1000, 10_000 * number, START_S))
    with pytest.raises(SensorError, match="without a gap for 60 s"):
        stream.push(Block(np.ones(10_000, np.float32), 1000, 60_000, START_S))
    stream = BurstStream(FRONT_END, RATE_HZ, grid())
    short = [*blocks([np.ones(600, np.float32)] * (SHORT_BURSTS + 1))]
    assert [piece for block in short[:-1] for piece in stream.push(block)] == []
    with pytest.raises(SensorError, match="bursts of 600 samples at 25600 Hz are shorter than one frame of 640"):
        stream.push(short[-1])
    with pytest.raises(BadInputError, match="block at 1000 Hz in a stream of 25600 Hz"):
        stream.push(Block(np.ones(5, np.float32), 1000, 0, START_S))
