"""The stream against the batch form: any chunking, offsets, rates, gaps, and its memory."""

import tracemalloc
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fisher_edge.dsp.blocks import Block, FloatArray
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.stream import Window, WindowStream
from fisher_edge.dsp.views import View
from fisher_edge.errors import BadInputError

RATES_HZ = [100, 1000, 8000, 16_000, 26_667, 44_100, 97_656]
START_S = 1_790_000_000.125
FRONT_END = FrontEnd(band_width=50, top_band="pad", amplitude="standardise")


def noise(samples: int, *, offset: float = 0.0, seed: int = 0) -> FloatArray:
    """White noise on an offset."""
    return (np.random.default_rng(seed).standard_normal(samples) + offset).astype(np.float32)


def blocks(wave: FloatArray, rate_hz: int, cuts: Iterable[int], index: int = 0) -> Iterator[Block]:
    """Cut a signal at the given samples."""
    bounds = [0, *sorted(cuts), len(wave)]
    for start, end in pairwise(bounds):
        yield Block(wave[start:end], rate_hz, index + start, START_S + (index + start) / rate_hz)


def stream_windows(stream: WindowStream, parts: Iterable[Block]) -> list[Window]:
    """Push all blocks and collect the windows."""
    return [window for block in parts for window in stream.push(block)]


def batch_starts(front_end: FrontEnd, samples: int, rate_hz: int, window_frames: int, hop_frames: int) -> list[int]:
    """First samples of the windows that fit into a signal."""
    length, step = front_end.n_samples(window_frames, rate_hz), hop_frames * front_end.hop(rate_hz)
    return list(range(0, samples - length + 1, step))


def assert_equal_to_batch(
    front_end: FrontEnd, wave: FloatArray, windows: list[Window], window_frames: int, hop_frames: int
) -> None:
    """Compare windows, their number, their times and their spectra with the batch form."""
    rate_hz = windows[0].rate_hz
    length = front_end.n_samples(window_frames, rate_hz)
    starts = batch_starts(front_end, len(wave), rate_hz, window_frames, hop_frames)
    assert [window.start for window in windows] == starts
    for window in windows:
        samples = wave[window.start : window.start + length]
        np.testing.assert_array_equal(window.samples, samples)
        np.testing.assert_allclose(window.bands, front_end.sub_bands(samples, rate_hz), atol=1e-5, rtol=0)
        assert abs(window.end_time_s - (START_S + (window.start + length) / rate_hz)) <= 1e-6
        assert window.seconds == pytest.approx(length / rate_hz)


def test_500_random_chunkings_give_the_same_windows() -> None:
    """Blocks from one sample to many windows: the count, the starts and the spectra never change."""
    rate_hz, window_frames, hop_frames = 1000, 20, 7
    wave = noise(3000, offset=5.0)
    whole = stream_windows(WindowStream(FRONT_END, rate_hz, window_frames, hop_frames), blocks(wave, rate_hz, []))
    assert_equal_to_batch(FRONT_END, wave, whole, window_frames, hop_frames)
    assert len(whole) == 40
    generator = np.random.default_rng(1)
    for _ in range(500):
        largest = int(np.exp(generator.uniform(0, np.log(len(wave)))))
        cuts = np.cumsum(generator.integers(0, largest + 1, 60 + 2 * len(wave) // (largest + 1)))
        cuts = cuts[cuts < len(wave)]
        stream = WindowStream(FRONT_END, rate_hz, window_frames, hop_frames)
        windows = stream_windows(stream, blocks(wave, rate_hz, cuts.tolist()))
        assert [window.start for window in windows] == [window.start for window in whole]
        assert stream.gaps == 0
        for found, expected in zip(windows, whole, strict=True):
            np.testing.assert_array_equal(found.samples, expected.samples)
            np.testing.assert_allclose(found.bands, expected.bands, atol=1e-5, rtol=0)
            assert abs(found.end_time_s - expected.end_time_s) <= 1e-6


@pytest.mark.parametrize("rate_hz", [1000, 16_000, 44_100])
def test_views_of_a_streamed_window_equal_batch(rate_hz: int) -> None:
    """The views of a window that came in pieces are bit by bit those of its segment of the signal."""
    front_end = replace(FRONT_END, views=(View("envelope"), View("slow", 200, 400)))
    wave = noise(3 * rate_hz, offset=2.0)
    stream = WindowStream(front_end, rate_hz, 128, 70)
    windows = stream_windows(stream, blocks(wave, rate_hz, range(0, len(wave), 1237)))
    assert len(windows) == 3
    for window in windows:
        segment = wave[window.start : window.start + front_end.n_samples(128, rate_hz)]
        views = (front_end.view_vectors(each, rate_hz) for each in (window.samples, segment))
        for streamed, batch in zip(*views, strict=True):
            np.testing.assert_array_equal(streamed, batch)
            assert np.linalg.norm(streamed) == pytest.approx(1.0, abs=1e-5)


def test_single_samples_give_the_same_windows() -> None:
    """A stream of single samples is the batch form too."""
    wave = noise(700)
    stream = WindowStream(FRONT_END, 1000, 16, 5)
    windows = stream_windows(stream, blocks(wave, 1000, range(1, len(wave))))
    assert len(windows) == 11
    assert_equal_to_batch(FRONT_END, wave, windows, 16, 5)


@settings(max_examples=120, deadline=None)
@given(
    rate_hz=st.sampled_from(RATES_HZ),
    window_frames=st.integers(1, 24),
    hop_frames=st.integers(1, 60),
    top_band=st.sampled_from(["drop", "pad", "overlap"]),
    amplitude=st.sampled_from(["raw", "standardise"]),
    offset=st.sampled_from([0.0, -0.5, 1e3, -1e5]),
    seconds=st.floats(0.3, 1.2),
    data=st.data(),
)
def test_any_chunking_equals_batch(
    rate_hz: int,
    window_frames: int,
    hop_frames: int,
    top_band: str,
    amplitude: str,
    offset: float,
    seconds: float,
    data: st.DataObject,
) -> None:
    """Any rate, window, hop (longer than the window too), offset and chunking: the batch form's windows."""
    front_end = FrontEnd(band_width=50, top_band=top_band, amplitude=amplitude)  # type: ignore[arg-type]
    wave = noise(round(seconds * rate_hz), offset=offset, seed=data.draw(st.integers(0, 99)))
    cuts = data.draw(st.lists(st.integers(0, len(wave)), max_size=40))
    stream = WindowStream(front_end, rate_hz, window_frames, hop_frames)
    windows = stream_windows(stream, blocks(wave, rate_hz, cuts))
    assert len(windows) == len(batch_starts(front_end, len(wave), rate_hz, window_frames, hop_frames)) > 0
    assert_equal_to_batch(front_end, wave, windows, window_frames, hop_frames)
    assert stream.gaps == 0


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 900), min_size=1, max_size=5),
    holes=st.lists(st.integers(-300, 300).filter(bool), min_size=5, max_size=5),
    hop_frames=st.sampled_from([3, 8, 40]),
    data=st.data(),
)
def test_gap_ends_the_window(lengths: list[int], holes: list[int], hop_frames: int, data: st.DataObject) -> None:
    """Windows of a broken stream are those of each run alone: none holds samples of two runs, every gap is counted."""
    rate_hz, window_frames, index = 1000, 8, 1000
    stream = WindowStream(FRONT_END, rate_hz, window_frames, hop_frames)
    length = FRONT_END.n_samples(window_frames, rate_hz)
    for number, (samples, hole) in enumerate(zip(lengths, holes, strict=False)):
        wave = noise(samples, seed=number)
        cuts = data.draw(st.lists(st.integers(0, samples), max_size=5))
        windows = stream_windows(stream, blocks(wave, rate_hz, cuts, index))
        expected = batch_starts(FRONT_END, samples, rate_hz, window_frames, hop_frames)
        assert [window.start - index for window in windows] == expected
        for window, start in zip(windows, expected, strict=True):
            np.testing.assert_array_equal(window.samples, wave[start : start + length])
            np.testing.assert_allclose(
                window.bands, FRONT_END.sub_bands(wave[start : start + length], rate_hz), atol=1e-5, rtol=0
            )
            assert abs(window.end_time_s - (START_S + (window.start + length) / rate_hz)) <= 1e-6
        assert stream.gaps == number
        index += samples + hole


def test_gap_of_one_sample_between_long_runs() -> None:
    """One lost sample costs the window under way, not the ones before or after it."""
    stream = WindowStream(FRONT_END, 1000, 8, 8)
    wave = noise(1000)
    kept = [*blocks(wave[:450], 1000, []), *blocks(wave[451:], 1000, [], 451)]
    starts = [window.start for window in stream_windows(stream, kept)]
    assert starts == [0, 80, 160, 240, 320, 451, 531, 611, 691, 771, 851]
    assert stream.gaps == 1


def test_stream_may_begin_anywhere() -> None:
    """The first block's index is no gap, whatever it is."""
    stream = WindowStream(FRONT_END, 1000, 8, 8)
    windows = stream_windows(stream, blocks(noise(200), 1000, [], 7_000_000_000))
    assert [window.start for window in windows] == [7_000_000_000, 7_000_000_080]
    assert stream.gaps == 0


def test_end_time_follows_the_clock_of_the_blocks() -> None:
    """A window's end is told by the block that completes it: a clock that is set does not spoil later windows."""
    stream = WindowStream(FRONT_END, 1000, 8, 8)
    wave = noise(300)
    first = stream.push(Block(wave[:150], 1000, 0, START_S))
    second = stream.push(Block(wave[150:], 1000, 150, START_S + 60))
    assert [window.end_time_s - START_S for window in first] == pytest.approx([0.095], abs=1e-6)
    assert [window.end_time_s - START_S for window in second] == pytest.approx([60.025, 60.105], abs=1e-6)


def test_damaged_samples_spoil_only_their_windows() -> None:
    """NaN in the stream is gone as soon as no window holds it."""
    wave = noise(1000)
    wave[300] = np.nan
    windows = stream_windows(WindowStream(FRONT_END, 1000, 8, 4), blocks(wave, 1000, [250, 290, 500]))
    damaged = [not np.isfinite(window.bands).all() for window in windows]
    assert damaged == [not np.isfinite(window.samples).all() for window in windows]
    assert 0 < sum(damaged) < len(damaged)


def test_windows_do_not_share_memory() -> None:
    """What a window holds is its own: later blocks do not change it."""
    stream = WindowStream(FRONT_END, 1000, 8, 4)
    wave = noise(2000)
    windows = stream_windows(stream, blocks(wave, 1000, range(100, 2000, 100)))
    assert len(windows) > 10
    for window in windows:
        np.testing.assert_array_equal(window.samples, wave[window.start : window.start + 95])


def test_other_rate_is_refused() -> None:
    """A block of another rate is refused with both rates and changes nothing."""
    stream = WindowStream(FRONT_END, 1000, 8, 8)
    wave = noise(200)
    stream.push(Block(wave[:50], 1000, 0, START_S))
    with pytest.raises(BadInputError, match="block at 2000 Hz in a stream of 1000 Hz"):
        stream.push(Block(wave[50:], 2000, 50, START_S))
    assert [window.start for window in stream.push(Block(wave[50:], 1000, 50, START_S + 0.05))] == [0, 80]


@pytest.mark.parametrize(("rate_hz", "text"), [(99, "below 100 Hz"), (1_000_001, "above 1000000 Hz")])
def test_rate_out_of_range_is_refused(rate_hz: int, text: str) -> None:
    """A stream at a rate the front-end cannot hear is refused before any block comes."""
    with pytest.raises(BadInputError, match=text):
        WindowStream(FRONT_END, rate_hz, 8, 8)


@pytest.mark.parametrize(
    ("window_frames", "hop_frames", "text"),
    [(0, 1, "window of 0 frames"), (1025, 1, "window of 1025 frames"), (16, 0, "hop of 0 frames")],
)
def test_impossible_window_is_refused(window_frames: int, hop_frames: int, text: str) -> None:
    """Windows of no frame or more than the encoder sees, and hops of none, are refused with the number."""
    with pytest.raises(BadInputError, match=text):
        WindowStream(FRONT_END, 1000, window_frames, hop_frames)


@pytest.mark.parametrize("hop_frames", [4, 64, 300])
def test_memory_is_bounded(hop_frames: int) -> None:
    """A stream a hundred windows long needs no more memory than one of ten."""
    stream = WindowStream(FRONT_END, 8000, 64, hop_frames)
    wave = noise(1000)
    peaks = []
    tracemalloc.start()
    index = 0
    for seconds in (6.4, 64):
        tracemalloc.reset_peak()
        windows = 0
        for _ in range(round(seconds * 8)):
            windows += len(stream.push(Block(wave, 8000, index, START_S)))
            index += len(wave)
        peaks.append(tracemalloc.get_traced_memory()[1])
        assert windows > 0
    tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
    assert stream.gaps == 0
