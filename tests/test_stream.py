"""The stream against the batch form: any chunking, offsets, rates, gaps, and its memory."""

import tracemalloc
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fisher_edge.dsp.blocks import Block, FloatArray, Rate
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import Grid, grid_of
from fisher_edge.dsp.stream import Piece, PieceStream
from fisher_edge.errors import BadInputError

RATES_HZ: list[Rate] = [100, 150, 1000, Fraction(15_625, 4), 8000, 16_000, 26_667, 44_100, 97_656]
START_S = 1_790_000_000.125
FRONT_END = FrontEnd(band_width=50, top_band="pad", amplitude="standardise")


def noise(samples: int, *, offset: float = 0.0, seed: int = 0) -> FloatArray:
    """White noise on an offset."""
    return (np.random.default_rng(seed).standard_normal(samples) + offset).astype(np.float32)


def grid(piece_frames: int, hop_frames: int) -> Grid:
    """Pieces of any length and hop, each a window."""
    return Grid(piece_frames, hop_frames, 1, 1, piece_frames / 100, hop_frames / 100)


def blocks(wave: FloatArray, rate_hz: Rate, cuts: Iterable[int], index: int = 0) -> Iterator[Block]:
    """Cut a signal at the given samples."""
    bounds = [0, *sorted(cuts), len(wave)]
    for start, end in pairwise(bounds):
        yield Block(wave[start:end], rate_hz, index + start, START_S + float((index + start) / rate_hz))


def stream_pieces(stream: PieceStream, parts: Iterable[Block]) -> list[Piece]:
    """Push all blocks and collect the pieces."""
    return [piece for block in parts for piece in stream.push(block)]


def batch_starts(front_end: FrontEnd, samples: int, rate_hz: Rate, piece_frames: int, hop_frames: int) -> list[int]:
    """First samples of the pieces that fit into a signal."""
    length, step = front_end.n_samples(piece_frames, rate_hz), hop_frames * front_end.hop(rate_hz)
    return list(range(0, samples - length + 1, step))


def assert_equal_to_batch(
    front_end: FrontEnd, wave: FloatArray, pieces: list[Piece], piece_frames: int, hop_frames: int
) -> None:
    """Compare pieces, their number, their times and their spectra with the batch form."""
    rate_hz = pieces[0].rate_hz
    length = front_end.n_samples(piece_frames, rate_hz)
    starts = batch_starts(front_end, len(wave), rate_hz, piece_frames, hop_frames)
    assert [piece.start for piece in pieces] == starts
    assert [piece.number for piece in pieces] == list(range(len(starts)))
    for piece in pieces:
        samples = wave[piece.start : piece.start + length]
        np.testing.assert_array_equal(piece.samples, samples)
        np.testing.assert_allclose(piece.bands, front_end.sub_bands(samples, rate_hz), atol=1e-5, rtol=0)
        assert abs(piece.end_time_s - (START_S + float((piece.start + length) / rate_hz))) <= 1e-6
        assert piece.seconds == pytest.approx(hop_frames * front_end.hop(rate_hz) / float(rate_hz))


def test_500_random_chunkings_give_the_same_pieces() -> None:
    """Blocks from one sample to many pieces: the count, the starts and the spectra never change."""
    rate_hz, piece_frames, hop_frames = 1000, 20, 7
    wave = noise(3000, offset=5.0)
    whole = stream_pieces(PieceStream(FRONT_END, rate_hz, grid(piece_frames, hop_frames)), blocks(wave, rate_hz, []))
    assert_equal_to_batch(FRONT_END, wave, whole, piece_frames, hop_frames)
    assert len(whole) == 40
    generator = np.random.default_rng(1)
    for _ in range(500):
        largest = int(np.exp(generator.uniform(0, np.log(len(wave)))))
        cuts = np.cumsum(generator.integers(0, largest + 1, 60 + 2 * len(wave) // (largest + 1)))
        cuts = cuts[cuts < len(wave)]
        stream = PieceStream(FRONT_END, rate_hz, grid(piece_frames, hop_frames))
        pieces = stream_pieces(stream, blocks(wave, rate_hz, cuts.tolist()))
        assert [piece.start for piece in pieces] == [piece.start for piece in whole]
        assert stream.gaps == 0
        for found, expected in zip(pieces, whole, strict=True):
            np.testing.assert_array_equal(found.samples, expected.samples)
            np.testing.assert_allclose(found.bands, expected.bands, atol=1e-5, rtol=0)
            assert abs(found.end_time_s - expected.end_time_s) <= 1e-6


def test_single_samples_give_the_same_pieces() -> None:
    """A stream of single samples is the batch form too."""
    wave = noise(700)
    stream = PieceStream(FRONT_END, 1000, grid(16, 5))
    pieces = stream_pieces(stream, blocks(wave, 1000, range(1, len(wave))))
    assert len(pieces) == 11
    assert_equal_to_batch(FRONT_END, wave, pieces, 16, 5)


@settings(max_examples=120, deadline=None)
@given(
    rate_hz=st.sampled_from(RATES_HZ),
    piece_frames=st.integers(1, 24),
    hop_frames=st.integers(1, 60),
    top_band=st.sampled_from(["drop", "pad", "overlap"]),
    amplitude=st.sampled_from(["raw", "standardise"]),
    offset=st.sampled_from([0.0, -0.5, 1e3, -1e5]),
    seconds=st.floats(0.3, 1.2),
    data=st.data(),
)
def test_any_chunking_equals_batch(
    rate_hz: Rate,
    piece_frames: int,
    hop_frames: int,
    top_band: str,
    amplitude: str,
    offset: float,
    seconds: float,
    data: st.DataObject,
) -> None:
    """Any rate, piece, hop (longer than the piece too), offset and chunking: the batch form's pieces."""
    front_end = FrontEnd(band_width=50, top_band=top_band, amplitude=amplitude)  # type: ignore[arg-type]
    wave = noise(round(seconds * rate_hz), offset=offset, seed=data.draw(st.integers(0, 99)))
    cuts = data.draw(st.lists(st.integers(0, len(wave)), max_size=40))
    stream = PieceStream(front_end, rate_hz, grid(piece_frames, hop_frames))
    pieces = stream_pieces(stream, blocks(wave, rate_hz, cuts))
    assert len(pieces) == len(batch_starts(front_end, len(wave), rate_hz, piece_frames, hop_frames)) > 0
    assert_equal_to_batch(front_end, wave, pieces, piece_frames, hop_frames)
    assert stream.gaps == 0


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 900), min_size=1, max_size=5),
    holes=st.lists(st.integers(-300, 300).filter(bool), min_size=5, max_size=5),
    hop_frames=st.sampled_from([3, 8, 40]),
    data=st.data(),
)
def test_gap_ends_the_piece(lengths: list[int], holes: list[int], hop_frames: int, data: st.DataObject) -> None:
    """Pieces of a broken stream are those of each run alone: none holds samples of two runs, every gap is counted."""
    rate_hz, piece_frames, index, numbers = 1000, 8, 1000, [-2]
    stream = PieceStream(FRONT_END, rate_hz, grid(piece_frames, hop_frames))
    length = FRONT_END.n_samples(piece_frames, rate_hz)
    for number, (samples, hole) in enumerate(zip(lengths, holes, strict=False)):
        wave = noise(samples, seed=number)
        cuts = data.draw(st.lists(st.integers(0, samples), max_size=5))
        pieces = stream_pieces(stream, blocks(wave, rate_hz, cuts, index))
        expected = batch_starts(FRONT_END, samples, rate_hz, piece_frames, hop_frames)
        assert [piece.start - index for piece in pieces] == expected
        assert all(piece.number > numbers[-1] + 1 for piece in pieces[:1])
        assert [piece.number - pieces[0].number for piece in pieces] == list(range(len(pieces)))
        numbers += [piece.number for piece in pieces]
        for piece, start in zip(pieces, expected, strict=True):
            np.testing.assert_array_equal(piece.samples, wave[start : start + length])
            np.testing.assert_allclose(
                piece.bands, FRONT_END.sub_bands(wave[start : start + length], rate_hz), atol=1e-5, rtol=0
            )
            assert abs(piece.end_time_s - (START_S + float((piece.start + length) / rate_hz))) <= 1e-6
        assert stream.gaps == number
        index += samples + hole


def test_gap_of_one_sample_between_long_runs() -> None:
    """One lost sample costs the piece under way, not the ones before or after it."""
    stream = PieceStream(FRONT_END, 1000, grid(8, 8))
    wave = noise(1000)
    kept = [*blocks(wave[:450], 1000, []), *blocks(wave[451:], 1000, [], 451)]
    starts = [piece.start for piece in stream_pieces(stream, kept)]
    assert starts == [0, 80, 160, 240, 320, 451, 531, 611, 691, 771, 851]
    assert stream.gaps == 1


def test_stream_may_begin_anywhere() -> None:
    """The first block's index is no gap, whatever it is."""
    stream = PieceStream(FRONT_END, 1000, grid(8, 8))
    pieces = stream_pieces(stream, blocks(noise(200), 1000, [], 7_000_000_000))
    assert [piece.start for piece in pieces] == [7_000_000_000, 7_000_000_080]
    assert stream.gaps == 0


def test_end_time_follows_the_clock_of_the_blocks() -> None:
    """The block that completes a piece gives its end time: a clock that is set does not spoil later pieces."""
    stream = PieceStream(FRONT_END, 1000, grid(8, 8))
    wave = noise(300)
    first = stream.push(Block(wave[:150], 1000, 0, START_S))
    second = stream.push(Block(wave[150:], 1000, 150, START_S + 60))
    assert [piece.end_time_s - START_S for piece in first] == pytest.approx([0.095], abs=1e-6)
    assert [piece.end_time_s - START_S for piece in second] == pytest.approx([60.025, 60.105], abs=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
def test_damaged_samples_spoil_only_their_pieces(bad: float) -> None:
    """What cannot be computed with is gone as soon as no piece holds it, and warns of nothing."""
    wave = noise(1000)
    wave[300:303] = bad
    pieces = stream_pieces(PieceStream(FRONT_END, 1000, grid(8, 4)), blocks(wave, 1000, [250, 290, 500]))
    damaged = [not np.isfinite(piece.bands).all() for piece in pieces]
    assert damaged == [not (np.abs(piece.samples) < 1e20).all() for piece in pieces]
    assert 0 < sum(damaged) < len(damaged)


def test_pieces_do_not_share_memory() -> None:
    """What a piece holds is its own: later blocks do not change it, and it keeps no buffer of the stream alive."""
    stream = PieceStream(FRONT_END, 1000, grid(8, 4))
    wave = noise(2000)
    pieces = stream_pieces(stream, blocks(wave, 1000, range(100, 2000, 100)))
    assert len(pieces) > 10
    for piece in pieces:
        np.testing.assert_array_equal(piece.samples, wave[piece.start : piece.start + 95])
        assert piece.samples.base is None
        assert piece.bands.base is None


def test_other_rate_is_refused() -> None:
    """A block of another rate is refused with both rates and changes nothing."""
    stream = PieceStream(FRONT_END, 1000, grid(8, 8))
    wave = noise(200)
    stream.push(Block(wave[:50], 1000, 0, START_S))
    with pytest.raises(BadInputError, match="block at 2000 Hz in a stream of 1000 Hz"):
        stream.push(Block(wave[50:], 2000, 50, START_S))
    assert [piece.start for piece in stream.push(Block(wave[50:], 1000, 50, START_S + 0.05))] == [0, 80]


@pytest.mark.parametrize(("rate_hz", "text"), [(99, "below 100 Hz"), (1_000_001, "above 1000000 Hz")])
def test_rate_out_of_range_is_refused(rate_hz: Rate, text: str) -> None:
    """A stream at a rate the front-end cannot hear is refused before any block comes."""
    with pytest.raises(BadInputError, match=text):
        PieceStream(FRONT_END, rate_hz, grid(8, 8))


def test_block_at_a_rate_that_is_not_whole_is_named_as_people_do() -> None:
    """15625/4 Hz is shown as 3906.25 Hz, and is another rate than 3906 Hz."""
    stream = PieceStream(FRONT_END, Fraction(15_625, 4), grid(8, 8))
    with pytest.raises(BadInputError, match=r"block at 3906 Hz in a stream of 3906\.25 Hz"):
        stream.push(Block(noise(10), 3906, 0, START_S))


@pytest.mark.parametrize("gap", [1, -1, 400])
def test_number_skips_at_a_gap(gap: int) -> None:
    """Pieces on either side of a gap never have consecutive numbers, even when the gap falls between two pieces."""
    stream = PieceStream(FRONT_END, 1000, grid(8, 8))
    wave = noise(2000)
    first = stream.push(Block(wave[:175], 1000, 0, START_S))
    second = stream.push(Block(wave[175:500], 1000, 175 + gap, START_S))
    assert [piece.number for piece in first] == [0, 1]
    assert [piece.number for piece in second] == [3, 4, 5]
    assert stream.gaps == 1


def test_pieces_on_the_grid_follow_each_other() -> None:
    """A stream with the grid of the front-end cuts whole pieces without overlap, as long as they are."""
    front_end = replace(FRONT_END, piece_frames=32, piece_rule="grid")
    wave = noise(3000, offset=1.0)
    stream = PieceStream(front_end, 1000, grid_of(front_end, 1.0, 0.5, 1000))
    pieces = stream_pieces(stream, blocks(wave, 1000, range(7, 3000, 71)))
    assert [piece.start for piece in pieces] == list(range(0, 9 * 320, 320))
    assert [piece.seconds for piece in pieces] == [pytest.approx(0.32)] * 9
    assert_equal_to_batch(front_end, wave, pieces, 32, 32)


@pytest.mark.parametrize("hop_frames", [4, 64, 300])
def test_memory_is_bounded(hop_frames: int) -> None:
    """A stream a hundred pieces long needs no more memory than one of ten."""
    stream = PieceStream(FRONT_END, 8000, grid(64, hop_frames))
    wave = noise(1000)
    peaks = []
    tracemalloc.start()
    index = 0
    for seconds in (6.4, 64):
        tracemalloc.reset_peak()
        pieces = 0
        for _ in range(round(seconds * 8)):
            pieces += len(stream.push(Block(wave, 8000, index, START_S)))
            index += len(wave)
        peaks.append(tracemalloc.get_traced_memory()[1])
        assert pieces > 0
    tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
    assert stream.gaps == 0
