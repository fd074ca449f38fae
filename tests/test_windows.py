"""From pieces to windows: what a reading holds, and windows of any stream against those of the whole recording."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fisher_edge.dsp.blocks import Block, FloatArray, Rate
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import Grid, grid_of, pieces_of
from fisher_edge.dsp.measures import Measures
from fisher_edge.dsp.segment import Segment
from fisher_edge.dsp.stream import Piece, PieceStream
from fisher_edge.dsp.views import ENVELOPE, MODULATION, View, view_vector
from fisher_edge.encoder.bundle import Bundle, load_bundle
from fisher_edge.encoder.ort import OrtEncoder
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.windows import EmbeddedWindow, Reading, WindowJoiner, embed_window, read
from fisher_edge.health.signal import hum_share

RATE_HZ = 1000
SLOW = View("slow", 200, 400)
FRONT_END = FrontEnd(
    band_width=5, top_band="pad", amplitude="standardise", piece_frames=16, piece_rule="grid", views=(SLOW,)
)
DIM = 4


@dataclass
class Plain:
    """An encoder quick enough for properties: the means of four quarters of the frames of every band, squared."""

    bundle: Bundle
    provider: str = "plain"
    name: str = "plain"
    sha256: str = "0" * 64
    call_tokens: int = 288
    shares_calls: bool = True
    min_frames: int = 16
    seen: list[FloatArray] = field(default_factory=list)

    def embed(self, pieces: Sequence[FloatArray]) -> list[FloatArray]:
        """Embed every piece."""
        self.seen += pieces
        return [
            np.stack([part.mean(axis=(1, 2)) ** 2 for part in np.array_split(bands, DIM, axis=1)], axis=1)
            for bands in pieces
        ]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Return a bundle with the front-end of these tests."""
    return replace(load_bundle(), dim=DIM, front_end=FRONT_END)


@pytest.fixture
def plain(bundle: Bundle) -> Plain:
    """Return the quick encoder."""
    return Plain(bundle)


def noise(samples: int, seed: int = 0, offset: float = 2.0) -> FloatArray:
    """Noise whose colour and level wander, so that no two pieces are alike."""
    generator = np.random.default_rng(seed)
    wander = 1 + np.abs(np.cumsum(generator.standard_normal(samples))) / 20
    return (generator.standard_normal(samples) * wander + offset).astype(np.float32)


def cut(front_end: FrontEnd, wave: FloatArray, grid: Grid, rate_hz: Rate = RATE_HZ) -> list[Piece]:
    """Cut a signal in one go."""
    return PieceStream(front_end, rate_hz, grid).push(Block(wave, rate_hz, 0, 100.0))


def piece_of(wave: FloatArray, number: int = 0, front_end: FrontEnd = FRONT_END) -> Piece:
    """Make a piece by hand."""
    with np.errstate(all="ignore"):
        bands = front_end.sub_bands(wave, RATE_HZ)
    return Piece(bands, Segment(wave, RATE_HZ).amplitude, wave, RATE_HZ, number, 160 * number, 100.0 + number, 0.16)


def reading_of(number: int, **changes: Any) -> Reading:
    """Make a reading by hand, whose numbers tell which it is."""
    embedding = np.full((1, DIM), number, np.float32)
    views = (np.full(3, -number, np.float32),)
    reading = Reading(
        embedding, views, Measures(), None, number / 100, RATE_HZ, number, 160 * number, 0.16 * number, 0.16
    )
    return replace(reading, **changes)


def joined(grid: Grid, readings: Sequence[Reading]) -> list[EmbeddedWindow]:
    """Join readings to windows."""
    joiner = WindowJoiner(grid)
    return [window for window in map(joiner.push, readings) if window is not None]


def test_reading_holds_all_that_is_known_of_a_piece(plain: Plain) -> None:
    """Embedding, views, measures and hum are those of the piece's samples; its place and time go along."""
    pieces = cut(FRONT_END, noise(2000), grid_of(FRONT_END, 0.48, 0.16, RATE_HZ))
    found = read(plain, FRONT_END, pieces)
    assert len(found) == len(pieces) == 12
    for reading, piece in zip(found, pieces, strict=True):
        np.testing.assert_array_equal(reading.embedding, plain.embed([piece.bands])[0])
        (view,) = reading.views
        np.testing.assert_array_equal(view, view_vector(SLOW, piece.samples, RATE_HZ))
        assert reading.measures == Measures.of(piece.samples)
        assert reading.fault is None
        assert reading.hum_share == hum_share(Segment(piece.samples, RATE_HZ)) > 0
        for name in ("rate_hz", "number", "start", "end_time_s", "seconds"):
            assert getattr(reading, name) == getattr(piece, name)


@pytest.mark.parametrize("views", [(), (ENVELOPE,), (MODULATION, SLOW)])
def test_only_the_views_asked_for_are_computed(plain: Plain, views: tuple[View, ...]) -> None:
    """A channel that uses no view pays for none; several come in the order asked for."""
    piece = piece_of(noise(200))
    (found,) = read(plain, FRONT_END, [piece], views=views)
    assert len(found.views) == len(views)
    for vector, view in zip(found.views, views, strict=True):
        np.testing.assert_array_equal(vector, view_vector(view, piece.samples, RATE_HZ))


def test_faulty_piece_is_not_embedded(plain: Plain) -> None:
    """Zeros stand in for what cannot be computed, in its place between its healthy neighbours."""
    healthy = [piece_of(noise(200, seed)) for seed in range(2)]
    bad = noise(200)
    bad[7] = np.nan
    huge = noise(200)
    huge[7] = 5e37
    faulty = [piece_of(np.zeros(200, np.float32)), piece_of(bad), piece_of(huge)]
    found = read(plain, FRONT_END, [healthy[0], *faulty, healthy[1]])
    assert [len(plain.seen), len(found)] == [2, 5]
    for reading, piece in ((found[0], healthy[0]), (found[4], healthy[1])):
        assert reading.fault is None
        np.testing.assert_array_equal(reading.embedding, plain.embed([piece.bands])[0])
    for reading in found[1:4]:
        assert reading.fault is not None
        assert reading.embedding.shape == found[0].embedding.shape
        assert not reading.embedding.any()
        assert [view.shape for view in reading.views] == [view.shape for view in found[0].views]
        assert not any(view.any() for view in reading.views)
        assert reading.hum_share == 0
    assert [reading.measures.count for reading in found] == [200, 200, 0, 200, 200]
    assert found[1].measures.rms == 0
    assert found[3].measures.high == np.float32(5e37)


def test_nothing_to_read(plain: Plain) -> None:
    """No pieces make no readings."""
    assert read(plain, FRONT_END, []) == []


def test_whole_window_goes_in_band_by_band(plain: Plain) -> None:
    """Bundles of the release before see all pieces of one band in a call, evenly spread, and their mean."""
    front_end = replace(FRONT_END, piece_rule="spread")
    piece = piece_of(noise(front_end.n_samples(60, RATE_HZ)), front_end=front_end)
    (found,) = read(plain, front_end, [piece], views=())
    stacks = front_end.pieces(piece.bands)
    assert stacks.shape == (2, 3, 16, 5)
    for seen, expected in zip(plain.seen, stacks, strict=True):
        np.testing.assert_array_equal(seen, expected)
    by_hand = np.stack([np.mean([plain.embed([part[None]])[0][0] for part in stack], axis=0) for stack in stacks])
    np.testing.assert_allclose(found.embedding, by_hand, rtol=1e-5)


def test_shipped_encoder_reads_as_the_release_before(encoder: Encoder) -> None:
    """With the rule of the release before, the int8 model gives the very numbers that baselines were enrolled with."""
    assert isinstance(encoder, OrtEncoder)
    front_end = replace(encoder.bundle.front_end, piece_rule="spread")
    wave = noise(48_000)
    (piece,) = cut(front_end, wave, grid_of(front_end, 2.56, 2.56, 16_000), 16_000)
    (found,) = read(encoder, front_end, [piece], views=())
    stacks = front_end.pieces(piece.bands)
    before = np.stack(
        [encoder._session.run(None, {"bands": np.ascontiguousarray(stack)})[0].mean(axis=0) for stack in stacks]
    )
    np.testing.assert_array_equal(found.embedding, before)


def test_window_is_the_mean_of_its_pieces(plain: Plain) -> None:
    """Given as pieces of sub-bands, as recordings are embedded."""
    pieces = pieces_of(FRONT_END, noise(1000), RATE_HZ)
    assert len(pieces) == 6
    found = embed_window(plain, FRONT_END, pieces)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.mean(plain.embed(pieces), axis=0), rtol=1e-5)
    np.testing.assert_array_equal(embed_window(plain, FRONT_END, pieces[:1]), plain.embed(pieces[:1])[0])


def test_joined_window_says_what_its_pieces_are() -> None:
    """Means of embeddings, views and hum; the first fault; the first sample, the last time and number."""
    grid = Grid(16, 16, 3, 1, 0.48, 0.16)
    waves = [noise(160, seed) for seed in range(3)]
    readings = [
        reading_of(5, measures=Measures.of(waves[0])),
        reading_of(6, measures=Measures.of(waves[1]), fault="flat line"),
        reading_of(7, measures=Measures.of(waves[2]), fault="clipped"),
    ]
    (found,) = joined(grid, readings)
    np.testing.assert_array_equal(found.embedding, np.full((1, DIM), 6, np.float32))
    np.testing.assert_array_equal(found.views[0], np.full(3, -6, np.float32))
    assert found.embedding.dtype == found.views[0].dtype == np.float32
    assert found.fault == "flat line"
    assert found.hum_share == pytest.approx(0.06)
    assert (found.rate_hz, found.start, found.number, found.window_s) == (RATE_HZ, 800, 7, 0.48)
    assert found.end_time_s == pytest.approx(1.12)
    assert found.measures.kurtosis == pytest.approx(Measures.of(np.concatenate(waves)).kurtosis)
    (healthy,) = joined(grid, [reading_of(number) for number in (1, 2, 3)])
    assert healthy.fault is None


def test_mean_of_many_pieces_is_exact_to_float32() -> None:
    """Large numbers that cancel leave no error in the mean."""
    grid = Grid(16, 16, 3, 1, 0.48, 0.16)
    values = (1e8, 1.0, -1e8)
    readings = [reading_of(n, embedding=np.full((1, 1), v, np.float32), views=()) for n, v in enumerate(values)]
    assert joined(grid, readings)[0].embedding[0, 0] == np.float32(1 / 3)


@pytest.mark.parametrize(
    ("window_pieces", "hop_pieces", "last"),
    [
        (1, 1, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        (3, 1, [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        (4, 2, [3, 5, 7, 9, 11]),
        (3, 3, [2, 5, 8, 11]),
        (2, 5, [1, 6, 11]),
        (13, 2, []),
    ],
)
def test_windows_end_every_hop(window_pieces: int, hop_pieces: int, last: list[int]) -> None:
    """The first window ends with its last piece, the next ones a hop later; hops may be longer than windows."""
    grid = Grid(16, 16, window_pieces, hop_pieces, 1.0, 1.0)
    windows = joined(grid, [reading_of(number) for number in range(12)])
    assert [window.number for window in windows] == last
    for window in windows:
        assert window.start == 160 * (window.number - window_pieces + 1)
        assert window.embedding[0, 0] == pytest.approx(window.number - (window_pieces - 1) / 2)


def test_hole_in_the_numbers_begins_a_window_anew() -> None:
    """No window spans a gap, whichever way the numbers jump, and none comes early after it."""
    grid = Grid(16, 16, 3, 2, 0.48, 0.32)
    numbers = [0, 1, 2, 3, 5, 6, 7, 8, 9, 20, 21, 5, 6, 7]
    windows = joined(grid, [reading_of(number) for number in numbers])
    assert [window.number for window in windows] == [2, 7, 9, 7]
    assert [window.start for window in windows] == [0, 800, 1120, 800]


def test_missing_counts_down_to_the_next_window() -> None:
    """All pieces of a window at first and after a hole, else what is left of the hop."""
    joiner = WindowJoiner(Grid(16, 16, 3, 2, 0.48, 0.32))
    missing = [joiner.missing]
    for number in (0, 1, 2, 3, 4, 5, 8, 9, 10, 11):
        joiner.push(reading_of(number))
        missing.append(joiner.missing)
    assert missing == [3, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1]


def windows_by_hand(encoder: Plain, wave: FloatArray, grid: Grid, rate_hz: Rate, index: int) -> list[dict[str, Any]]:
    """Compute the windows of one unbroken run from its samples, each by itself."""
    front_end, hop = encoder.bundle.front_end, encoder.bundle.front_end.hop(rate_hz)
    span = front_end.n_samples(grid.piece_frames, rate_hz)
    step = grid.piece_hop_frames * hop
    starts = range(0, len(wave) - span + 1, step)
    found = []
    for first in range(0, len(starts) - grid.window_pieces + 1, grid.hop_pieces):
        parts = [wave[start : start + span] for start in starts[first : first + grid.window_pieces]]
        embeddings = encoder.embed([front_end.sub_bands(part, rate_hz) for part in parts])
        views = [[view_vector(view, part, rate_hz) for view in front_end.views] for part in parts]
        found.append(
            {
                "start": index + starts[first],
                "end_s": 100.0 + float((index + starts[first + grid.window_pieces - 1] + span) / rate_hz),
                "embedding": np.mean(embeddings, axis=0),
                "view": np.mean([each[0] for each in views], axis=0),
                "measures": Measures.of(np.concatenate(parts)),
            }
        )
    return found


@settings(max_examples=60, deadline=None)
@given(
    rate_hz=st.sampled_from([150, 1000, Fraction(15_625, 4)]),
    window_s=st.sampled_from([0.16, 0.2, 0.3, 0.5, 1.0]),
    hop_s=st.sampled_from([0.05, 0.16, 0.4, 1.3]),
    runs_s=st.lists(st.floats(0.05, 2.5), min_size=1, max_size=3),
    holes=st.lists(st.integers(-40, 300).filter(bool), min_size=3, max_size=3),
    data=st.data(),
)
def test_windows_of_any_stream_are_those_of_the_whole_recording(
    bundle: Bundle,
    rate_hz: Rate,
    window_s: float,
    hop_s: float,
    runs_s: list[float],
    holes: list[int],
    data: st.DataObject,
) -> None:
    """Any chunking, gaps anywhere: as many windows as each unbroken run holds, with the same numbers in them."""
    encoder = Plain(bundle)
    grid = grid_of(FRONT_END, window_s, hop_s, rate_hz)
    stream, joiner = PieceStream(FRONT_END, rate_hz, grid), WindowJoiner(grid)
    found: list[EmbeddedWindow] = []
    expected: list[dict[str, Any]] = []
    index = 500
    for seed, (seconds, hole) in enumerate(zip(runs_s, holes, strict=False)):
        wave = noise(round(seconds * rate_hz), seed)
        expected += windows_by_hand(encoder, wave, grid, rate_hz, index)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(wave)), max_size=12)))
        for start, end in zip([0, *cuts], [*cuts, len(wave)], strict=True):
            block = Block(wave[start:end], rate_hz, index + start, 100.0 + float((index + start) / rate_hz))
            found += [window for window in map(joiner.push, read(encoder, FRONT_END, stream.push(block))) if window]
        index += len(wave) + hole
    assert [window.start for window in found] == [window["start"] for window in expected]
    assert stream.gaps == len(runs_s) - 1
    for window, by_hand in zip(found, expected, strict=True):
        np.testing.assert_allclose(window.embedding, by_hand["embedding"], atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(window.views[0], by_hand["view"], atol=1e-6)
        assert window.end_time_s == pytest.approx(by_hand["end_s"], abs=1e-6)
        assert window.measures.count == by_hand["measures"].count
        assert window.measures.rms == pytest.approx(by_hand["measures"].rms, rel=1e-9)
        assert window.measures.kurtosis == pytest.approx(by_hand["measures"].kurtosis, rel=1e-9)
        assert window.window_s == grid.window_s


def test_shipped_encoder_streams_as_it_embeds_a_recording(encoder: Encoder) -> None:
    """Blocks of a tenth of a second give the windows that the whole recording has, up to the steps of int8."""
    front_end, rate_hz = encoder.bundle.front_end, 16_000
    grid = grid_of(front_end, 3.84, 0.96, rate_hz)
    assert (grid.window_pieces, grid.hop_pieces) == (4, 1)
    wave = noise(6 * rate_hz)
    stream, joiner = PieceStream(front_end, rate_hz, grid), WindowJoiner(grid)
    found = []
    for start in range(0, len(wave), 1600):
        block = Block(wave[start : start + 1600], rate_hz, start, 0.0)
        found += [window for window in map(joiner.push, read(encoder, front_end, stream.push(block))) if window]
    assert len(found) == 3
    for window in found:
        whole = wave[window.start : window.start + front_end.n_samples(4 * 96, rate_hz)]
        expected = embed_window(encoder, front_end, pieces_of(front_end, whole, rate_hz))
        cosine = (window.embedding * expected).sum() / np.linalg.norm(window.embedding) / np.linalg.norm(expected)
        assert cosine > 0.9999
        assert len(window.views) == 2
