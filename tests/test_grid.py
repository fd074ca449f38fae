"""How streams are cut: pieces and windows for any length, rate and rule, and what is refused."""

import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import Grid, grid_of, pieces_of, stretches
from fisher_edge.errors import BadInputError

GRID = FrontEnd(band_width=50, top_band="pad", amplitude="standardise", piece_frames=96, piece_rule="grid")
SPREAD = replace(GRID, piece_rule="spread")
WHOLE = FrontEnd()
ODD_HZ = Fraction(15_625, 4)
RATES_HZ = [100, 150, 999, 1000, ODD_HZ, 22_050, 26_667, 48_000, 97_656, 1_000_000]


def shape(grid: Grid) -> tuple[int, int, int, int]:
    """Frames and pieces of a grid."""
    return (grid.piece_frames, grid.piece_hop_frames, grid.window_pieces, grid.hop_pieces)


def lengths(grid: Grid) -> tuple[float, float]:
    """Seconds of a grid."""
    return (grid.window_s, grid.hop_s)


def noise(samples: int, seed: int = 0) -> FloatArray:
    """White noise on an offset."""
    return (np.random.default_rng(seed).standard_normal(samples) + 3).astype(np.float32)


@pytest.mark.parametrize(
    ("window_s", "hop_s", "rate_hz", "pieces", "hop_pieces", "seconds"),
    [
        (10.24, 2.0, 48_000, 11, 2, (10.56, 1.92)),
        (10.24, None, 48_000, 11, 2, (10.56, 1.92)),
        (4.0, None, 48_000, 4, 1, (3.84, 0.96)),
        (4.0, 0.01, 48_000, 4, 1, (3.84, 0.96)),
        (1.44, 1.0, 48_000, 2, 1, (1.92, 0.96)),
        (60.0, 6.0, 48_000, 62, 6, (59.52, 5.76)),
        (4.0, 30.0, 48_000, 4, 31, (3.84, 29.76)),
        (4.0, 2.8, 48_000, 4, 3, (3.84, 2.88)),
        (10.24, 2.0, 150, 16, 3, (10.24, 1.92)),
        (10.24, 2.0, ODD_HZ, 11, 2, (11 * 96 * 39 / 3906.25, 2 * 96 * 39 / 3906.25)),
    ],
)
def test_window_of_several_pieces_is_a_run_of_whole_ones(
    window_s: float,
    hop_s: float | None,
    rate_hz: int | Fraction,
    pieces: int,
    hop_pieces: int,
    seconds: tuple[float, float],
) -> None:
    """From one and a half pieces on a window is the nearest number of whole pieces, which follow each other."""
    found = grid_of(GRID, window_s, hop_s, rate_hz)
    assert (found.piece_frames, found.piece_hop_frames) == (96, 96)
    assert (found.window_pieces, found.hop_pieces) == (pieces, hop_pieces)
    assert lengths(found) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("window_s", "hop_s", "frames", "hop_frames"),
    [(1.43, 0.5, 96, 50), (1.0, None, 96, 25), (0.96, 0.004, 96, 1), (0.5, 0.5, 50, 50), (0.16, 3.0, 16, 300)],
)
def test_shorter_window_is_one_piece(window_s: float, hop_s: float | None, frames: int, hop_frames: int) -> None:
    """Below one and a half pieces a window is one piece of its own length, and such windows may overlap."""
    found = grid_of(GRID, window_s, hop_s, 16_000)
    assert shape(found) == (frames, hop_frames, 1, 1)
    assert lengths(found) == pytest.approx((frames / 100, hop_frames / 100))


@pytest.mark.parametrize("front_end", [WHOLE, SPREAD, replace(WHOLE, piece_rule="grid")])
def test_window_that_is_seen_whole_is_one_piece(front_end: FrontEnd) -> None:
    """Official checkpoints, and bundles of the release before, have whole windows."""
    for window_s, hop_s, frames, hop_frames in ((10.24, 2.0, 1024, 200), (0.16, None, 16, 4)):
        found = grid_of(front_end, window_s, hop_s, 48_000)
        assert shape(found) == (frames, hop_frames, 1, 1)
        assert lengths(found) == pytest.approx((frames / 100, hop_frames / 100))


def test_window_below_1_khz_has_the_length_it_says() -> None:
    """Real hops are counted: at 150 Hz a hop is one sample, and 5 s are 750 of them."""
    found = grid_of(WHOLE, 5.0, 1.0, 150)
    assert shape(found) == (750, 150, 1, 1)
    assert lengths(found) == pytest.approx((5.0, 1.0))


@pytest.mark.parametrize("rate_hz", [22_050, 11_025, ODD_HZ])
def test_longest_window_may_be_named_at_any_rate(rate_hz: int | Fraction) -> None:
    """10.24 s are 1026 frames where a hop is rounded down from 220.5 samples: the longest window, not an error."""
    assert WHOLE.frames_of(10.24, rate_hz) == 1026
    found = grid_of(WHOLE, 10.24, 2.0, rate_hz)
    assert found.piece_frames == 1024
    assert found.window_s == pytest.approx(1024 * WHOLE.hop(rate_hz) / float(rate_hz))


def test_longer_window_than_the_longest_is_no_rounding() -> None:
    """Two per cent more are an error, not a window that is shorter than it says."""
    with pytest.raises(BadInputError, match=r"window_s=10\.45 at 16000 Hz is 1045 frames"):
        grid_of(WHOLE, 10.45, 2.0, 16_000)


@given(
    front_end=st.sampled_from([GRID, SPREAD, WHOLE]),
    rate_hz=st.sampled_from(RATES_HZ),
    window_s=st.floats(0.2, 5.0),
    hop_s=st.floats(0.001, 8.0),
)
def test_lengths_are_those_of_the_samples(
    front_end: FrontEnd, rate_hz: int | Fraction, window_s: float, hop_s: float
) -> None:
    """The grid's seconds are samples over the rate, half a piece from what was asked for at most."""
    found = grid_of(front_end, window_s, hop_s, rate_hz)
    step_s = front_end.hop(rate_hz) / float(rate_hz)
    assert found.window_s == pytest.approx(found.window_pieces * found.piece_frames * step_s)
    assert found.hop_s == pytest.approx(found.hop_pieces * found.piece_hop_frames * step_s)
    if found.window_pieces > 1:
        assert abs(found.window_s - window_s) <= 48.5 * step_s
        assert found.piece_hop_frames == found.piece_frames
    elif not front_end.on_grid:
        assert abs(found.window_s - window_s) <= step_s / 2 + 1e-9


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("front_end", [GRID, WHOLE])
def test_length_that_is_none_is_refused(front_end: FrontEnd, value: float) -> None:
    """Windows and hops are times above 0."""
    with pytest.raises(BadInputError, match=rf"window_s={value:g} is not a time above 0"):
        grid_of(front_end, value, 1.0, 8000)
    with pytest.raises(BadInputError, match=rf"hop_s={value:g} is not a time above 0"):
        grid_of(front_end, 1.0, value, 8000)
    with pytest.raises(BadInputError, match=rf"window_s={value:g} is not a time above 0"):
        grid_of(front_end, value, None, 8000)


@given(front_end=st.sampled_from([GRID, SPREAD, WHOLE]), rate_hz=st.sampled_from(RATES_HZ))
def test_window_shorter_than_a_patch_is_refused_with_one_that_is_not(
    front_end: FrontEnd, rate_hz: int | Fraction
) -> None:
    """The error says how many frames there are, and the length it advises is accepted."""
    with pytest.raises(BadInputError, match=r"window_s=0\.05 at .* Hz is \d+ frames, the encoder needs 16") as caught:
        grid_of(front_end, 0.05, None, rate_hz)
    advised = float(re.findall(r"at least ([\d.]+)$", str(caught.value))[0])
    assert grid_of(front_end, advised, None, rate_hz).piece_frames == 16


@given(front_end=st.sampled_from([SPREAD, WHOLE]), rate_hz=st.sampled_from(RATES_HZ))
def test_window_longer_than_the_encoder_sees_is_refused_with_one_that_is_not(
    front_end: FrontEnd, rate_hz: int | Fraction
) -> None:
    """The error names both numbers of frames, and the length it advises is accepted."""
    with pytest.raises(BadInputError, match=r"more than the 1024 that this model sees at a time") as caught:
        grid_of(front_end, 20.48, 2.0, rate_hz)
    advised = float(re.findall(r"at most ([\d.]+)$", str(caught.value))[0])
    assert grid_of(front_end, advised, 2.0, rate_hz).piece_frames in {1023, 1024}


def test_rate_out_of_range_is_refused() -> None:
    """An unsupported rate is reported before an unsupported length."""
    with pytest.raises(BadInputError, match=r"rate_hz=62\.5 is below 100 Hz"):
        grid_of(GRID, float("nan"), None, Fraction(125, 2))


@pytest.mark.parametrize("rate_hz", [100, ODD_HZ, 16_000])
@pytest.mark.parametrize("frames", [1, 95, 96, 97, 191, 192, 300])
def test_pieces_of_a_stretch_are_its_whole_ones(rate_hz: int | Fraction, frames: int) -> None:
    """Each is standardised by itself; what holds no whole piece is one short piece."""
    wave = noise(GRID.n_samples(frames, rate_hz))
    wave[: len(wave) // 2] *= 5
    found = pieces_of(GRID, wave, rate_hz)
    whole = frames // 96
    assert [piece.shape[1] for piece in found] == [96] * whole or [frames]
    step, span = 96 * GRID.hop(rate_hz), GRID.n_samples(96, rate_hz)
    for number, piece in enumerate(found):
        part = wave[number * step : number * step + span] if whole else wave
        np.testing.assert_array_equal(piece, GRID.sub_bands(part, rate_hz))


def test_last_frames_of_a_piece_count() -> None:
    """One sample less than two pieces need is one piece."""
    samples = GRID.n_samples(192, 1000)
    assert [len(pieces_of(GRID, noise(count), 1000)) for count in (samples - 1, samples)] == [1, 2]
    assert stretches(GRID, samples, 1000) == [slice(0, 975), slice(960, 1935)]


def test_samples_after_a_whole_piece_do_not_change_it() -> None:
    """What does not fill another frame is left out, even where there is one piece only."""
    wave = noise(GRID.n_samples(96, 1000) + GRID.hop(1000) - 1)
    wave[-1] = 1e6
    (found,) = pieces_of(GRID, wave, 1000)
    np.testing.assert_array_equal(found, GRID.sub_bands(wave[: GRID.n_samples(96, 1000)], 1000))


def test_stretch_longer_than_the_longest_window_ends_there() -> None:
    """Frames past `max_frames` make no piece."""
    assert len(pieces_of(GRID, noise(GRID.n_samples(3000, 100)), 100)) == 1024 // 96


@pytest.mark.parametrize("front_end", [SPREAD, WHOLE])
def test_stretch_of_another_rule_is_one_piece(front_end: FrontEnd) -> None:
    """Whole windows stay whole, padded up to 1024 frames where that is asked for."""
    wave = noise(16_000)
    assert stretches(front_end, len(wave), 8000) == [slice(0, 16_000)]
    for pad_frames in (False, True):
        (found,) = pieces_of(front_end, wave, 8000, pad_frames=pad_frames)
        np.testing.assert_array_equal(found, front_end.sub_bands(wave, 8000, pad_frames=pad_frames))
        assert found.shape[1] == (1024 if pad_frames else 198)


def test_padding_fills_a_short_piece_only() -> None:
    """On the grid there is nothing to fill but a single piece that is too short."""
    short, whole = noise(8000), noise(16_000)
    (padded,) = pieces_of(GRID, short[:4000], 8000, pad_frames=True)
    (bare,) = pieces_of(GRID, short[:4000], 8000)
    assert padded.shape[1] == 96
    np.testing.assert_array_equal(padded[:, : bare.shape[1]], bare)
    assert not padded[:, bare.shape[1] :].any()
    for found, expected in zip(
        pieces_of(GRID, whole, 8000, pad_frames=True), pieces_of(GRID, whole, 8000), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
