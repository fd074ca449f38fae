"""The front-end against the authors' vectors and against torch.stft, and what it refuses."""

import json
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.spectra import hann, short_time_spectra
from fisher_edge.dsp.views import View
from fisher_edge.errors import BadArtifactError, BadInputError

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).parents[2] / "shared" / "reference" / "model"
RATES_HZ = [100, 101, 117, 999, 1000, 3999, 4000, 5120, 8000, 12_000, 26_667, 44_100, 97_656, 1_000_000]
OFFICIAL_MEAN, OFFICIAL_STD = -3.017344307886898, 2.1531635155379805
ATOL = 2e-5
"""Of normalised log amplitudes, against float64: near-empty bins of float32 input included."""


def noise(samples: int, *, offset: float = 0.0, seed: int = 0) -> FloatArray:
    """White noise on an offset."""
    return (np.random.default_rng(seed).standard_normal(samples) + offset).astype(np.float32)


def reference_spectrum(wave: FloatArray, rate_hz: int) -> FloatArray:
    """Normalised log-STFT (frames, bins) of the specification, by torch.stft in float64."""
    signal = torch.from_numpy(wave).double()
    n_fft = 25 * rate_hz // 1000
    spectrum = torch.stft(
        signal - signal.mean(),
        n_fft,
        10 * rate_hz // 1000,
        window=torch.hann_window(n_fft, periodic=True, dtype=torch.float64),
        center=False,
        return_complex=True,
    )
    log = torch.log(spectrum.abs() + 1e-10).T
    found: FloatArray = ((log - OFFICIAL_MEAN) / (2 * OFFICIAL_STD)).float().numpy()
    return found


def flat(bands: FloatArray) -> FloatArray:
    """Undo the cut into bands: (frames, bands * band_width)."""
    return bands.transpose(1, 0, 2).reshape(bands.shape[1], -1)


@pytest.mark.parametrize("band_width", [50, 100])
@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_sub_bands_equal_torch_stft(rate_hz: int, band_width: int) -> None:
    """At every rate the bands are the rows of torch.stft, normalised, cut from the bottom, the rest dropped."""
    front_end = FrontEnd(band_width=band_width)
    wave = noise(front_end.n_samples(22, rate_hz) - 1, offset=0.3)
    expected = reference_spectrum(wave, rate_hz)
    found = front_end.sub_bands(wave, rate_hz)
    bins = 25 * rate_hz // 1000 // 2 + 1
    assert found.shape == (max(1, bins // band_width), 21, band_width)
    assert found.dtype == np.float32
    used = min(bins, found.shape[0] * band_width)
    np.testing.assert_allclose(flat(found)[:, :used], expected[:, :used], atol=ATOL, rtol=0)
    assert not flat(found)[:, used:].any()


@pytest.mark.parametrize("case", range(6))
def test_spectra_centred_late_equal_the_reference(case: int) -> None:
    """The first frames, centred by the mean of the whole signal, are those of the authors' code."""
    vectors = np.load(DATA / "official_frontend.npz")
    rate_hz, mean = int(vectors[f"case{case:02}_rate_hz"]), float(vectors[f"case{case:02}_mean"])
    expected = vectors[f"case{case:02}_spec_first_frames"]
    front_end = FrontEnd(top_band="pad")
    n_fft = front_end.n_fft(rate_hz)
    spectra = short_time_spectra(vectors[f"case{case:02}_head"], n_fft, front_end.hop(rate_hz))
    found = flat(front_end.bands_of(spectra.centred(mean, n_fft), 1.0, rate_hz))
    used = min(found.shape[1], expected.shape[1])
    assert found.shape[0] == 8
    np.testing.assert_allclose(found[:, :used], expected[:, :used], atol=ATOL, rtol=0)


def test_whole_signal_equals_the_reference() -> None:
    """The batch form centres by the mean of the whole signal, as the authors' code does."""
    wave = np.load(DATA / "official_micro_case01.npz")["wave"]
    expected = np.load(DATA / "official_frontend.npz")["case01_spec_first_frames"]
    found = flat(FrontEnd().sub_bands(wave, 12_000))
    np.testing.assert_allclose(found[:8], expected[:, :100], atol=ATOL, rtol=0)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the full reference vectors are not on this machine")
@pytest.mark.parametrize("case", range(6))
def test_whole_signal_equals_all_reference_cases(case: int) -> None:
    """Whole signals from 5 to 64 kHz give the authors' first frames."""
    vectors = np.load(SHARED / "official_micro_band100.npz")
    expected = vectors[f"case{case:02}_spec_first_frames"]
    found = flat(FrontEnd().sub_bands(vectors[f"case{case:02}_wave"], int(vectors[f"case{case:02}_rate_hz"])))
    used = min(found.shape[1], expected.shape[1])
    np.testing.assert_allclose(found[:8, :used], expected[:, :used], atol=ATOL, rtol=0)


@pytest.mark.parametrize(
    ("rate_hz", "n_fft", "hop"),
    [
        (100, 2, 1),
        (199, 4, 1),
        (20_480, 512, 204),
        (26_667, 666, 266),
        (44_100, 1102, 441),
        (97_656, 2441, 976),
        (1_000_000, 25_000, 10_000),
    ],
)
def test_frame_and_hop_are_rounded_down(rate_hz: int, n_fft: int, hop: int) -> None:
    """25 ms and 10 ms in samples are floors, as in the official code."""
    front_end = FrontEnd()
    assert (front_end.n_fft(rate_hz), front_end.hop(rate_hz)) == (n_fft, hop)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_frames_and_samples_are_inverse(rate_hz: int) -> None:
    """The samples of n frames hold exactly n frames, and one sample less holds one frame less."""
    front_end = FrontEnd()
    for frames in (1, 2, 17, 1024):
        samples = front_end.n_samples(frames, rate_hz)
        assert front_end.n_frames(samples, rate_hz) == frames
        assert front_end.n_frames(samples - 1, rate_hz) == frames - 1
    assert front_end.n_frames(0, rate_hz) == 0


@pytest.mark.parametrize(
    ("seconds", "rate_hz", "frames"),
    [
        (10.24, 16_000, 1024),
        (2.56, 1000, 256),
        (0.16, 100, 16),
        (1e-9, 8000, 1),
        (10.24, 150, 1536),
        (10.24, 250, 1280),
        (10.24, 22_050, 1026),
        (10.24, Fraction(15_625, 4), 1026),
    ],
)
def test_window_is_named_by_its_length(seconds: float, rate_hz: int | Fraction, frames: int) -> None:
    """10.24 s are 1024 hops of 10 ms, or more where a hop is rounded down to whole samples."""
    front_end = FrontEnd()
    assert front_end.frames_of(seconds, rate_hz) == frames
    if frames > 1:
        hop_s = front_end.hop(rate_hz) / float(rate_hz)
        assert abs(front_end.seconds_of(frames, rate_hz) - seconds) <= hop_s / 2 + 1e-12


@pytest.mark.parametrize("rate_hz", [Fraction(15_625, 4), Fraction(26_667, 2), Fraction(200_000, 3)])
def test_rate_need_not_be_whole(rate_hz: Fraction) -> None:
    """At a fraction of hertz frames, hops, bins and edges follow the rate itself, and the spectra are those of them."""
    front_end = FrontEnd(band_width=50, top_band="pad")
    assert front_end.n_fft(rate_hz) == int(rate_hz / 40)
    assert front_end.hop(rate_hz) == int(rate_hz / 100)
    wave = noise(front_end.n_samples(20, rate_hz))
    assert front_end.n_frames(len(wave), rate_hz) == 20
    found = front_end.sub_bands(wave, rate_hz)
    spectra = short_time_spectra(wave - wave.mean(dtype=np.float64), int(rate_hz / 40), int(rate_hz / 100))
    np.testing.assert_array_equal(found, front_end.bands_of(spectra.magnitude, 1.0, rate_hz))
    edges = front_end.band_edges_hz(rate_hz)
    assert len(edges) == len(found) == front_end.n_bands(rate_hz)
    assert {type(value) for edge in edges for value in edge} == {float}
    assert edges[0][1] == pytest.approx(min(50 * float(rate_hz) / int(rate_hz / 40), float(rate_hz) / 2))


def test_rate_that_is_too_low_is_named_as_people_do() -> None:
    """The error shows a fractional rate with its decimals."""
    with pytest.raises(BadInputError, match=r"rate_hz=62\.5 is below 100 Hz"):
        FrontEnd().check_rate(Fraction(125, 2))


@pytest.mark.parametrize("frames", [1023, 1024, 1025, 1100])
def test_frames_past_the_longest_window_are_left_out(frames: int) -> None:
    """At most 1024 frames are kept: those of the whole signal, centred by its whole mean."""
    front_end, rate_hz = FrontEnd(), 1000
    wave = noise(front_end.n_samples(frames, rate_hz))
    wave[-500:] += 9
    found = front_end.sub_bands(wave, rate_hz)
    assert found.shape == (1, min(frames, 1024), 100)
    np.testing.assert_allclose(found[0, :, :13], reference_spectrum(wave, rate_hz)[:1024], atol=ATOL, rtol=0)


@pytest.mark.parametrize("top_band", ["drop", "pad", "overlap"])
def test_pad_frames_fills_with_zeros_after_normalisation(top_band: Any) -> None:
    """`pad_frames` appends frames of zero and changes none of the real ones."""
    front_end = FrontEnd(top_band=top_band)
    wave = noise(12_000)
    bare, padded = (front_end.sub_bands(wave, 12_000, pad_frames=pad) for pad in (False, True))
    assert padded.shape == (len(bare), 1024, 100)
    np.testing.assert_array_equal(padded[:, : bare.shape[1]], bare)
    assert bare.shape[1] == 98
    assert not padded[:, 98:].any()
    assert padded[:, :98, :30].all()


@pytest.mark.parametrize(
    ("rate_hz", "band_width", "dropped", "padded"),
    [
        (12_000, 100, 1, 2),  # 151 bins: 51 over
        (8000, 100, 1, 1),  # 101 bins: 1 over, not worth a band
        (16_000, 100, 2, 2),  # 201
        (8520, 100, 1, 1),  # 107: 7 over
        (8640, 100, 1, 2),  # 109: 9 over
        (8560, 100, 1, 2),  # 108: 8 over
        (44_100, 50, 11, 11),  # 552: 2 over
        (100, 100, 1, 1),  # 2 bins: one padded band in both
        (7900, 100, 1, 1),  # 99
    ],
)
def test_incomplete_top_band(rate_hz: int, band_width: int, dropped: int, padded: int) -> None:
    """An incomplete top band is dropped, or padded with zeros when it holds half a patch at least."""
    wave = noise(rate_hz // 2)
    drop, pad = (FrontEnd(band_width=band_width, top_band=kind) for kind in ("drop", "pad"))
    found = [front_end.sub_bands(wave, rate_hz) for front_end in (drop, pad)]
    assert [len(bands) for bands in found] == [dropped, padded]
    assert (drop.n_bands(rate_hz), pad.n_bands(rate_hz)) == (dropped, padded)
    np.testing.assert_array_equal(found[0], found[1][:dropped])
    bins = drop.n_fft(rate_hz) // 2 + 1
    if bins < padded * band_width:
        assert flat(found[1])[:, :bins].all()
        assert not flat(found[1])[:, bins:].any()


@pytest.mark.parametrize(("rate_hz", "bands"), [(12_000, 2), (8560, 2), (8520, 1), (8000, 1), (16_000, 2), (26_667, 4)])
def test_incomplete_top_band_is_filled_from_the_one_below(rate_hz: int, bands: int) -> None:
    """With `overlap` the top band is the last whole band of bins; with less than half a patch over there is none."""
    front_end = FrontEnd(top_band="overlap")
    wave = noise(rate_hz // 2)
    found = front_end.sub_bands(wave, rate_hz)
    assert len(found) == front_end.n_bands(rate_hz) == bands
    whole = FrontEnd(top_band="pad").sub_bands(wave, rate_hz)
    bins = front_end.n_fft(rate_hz) // 2 + 1
    spectrum = flat(whole)[:, :bins]
    complete = bins // 100
    np.testing.assert_array_equal(flat(found[:complete]), spectrum[:, : complete * 100])
    if bands > complete:
        np.testing.assert_array_equal(found[-1], spectrum[:, -100:])
        edges = front_end.band_edges_hz(rate_hz)
        assert edges[-1][0] == pytest.approx((bins - 100) * rate_hz / front_end.n_fft(rate_hz))
        assert edges[-1][0] < edges[-2][1] < edges[-1][1] <= rate_hz / 2


@pytest.mark.parametrize("top_band", ["drop", "pad", "overlap"])
@pytest.mark.parametrize("rate_hz", [120, 1000, 3900])
def test_fewer_bins_than_a_band_are_padded_on_the_right(rate_hz: int, top_band: Any) -> None:
    """Below the width of a band there is one band: its bins, then zeros."""
    front_end = FrontEnd(top_band=top_band)
    found = front_end.sub_bands(noise(rate_hz), rate_hz)
    bins = front_end.n_fft(rate_hz) // 2 + 1
    assert found.shape == (1, front_end.n_frames(rate_hz, rate_hz), 100)
    assert found[0, :, :bins].all()
    assert not found[0, :, bins:].any()


@pytest.mark.parametrize("factor", [1e-3, 1.0, 250.0])
def test_standardised_bands_do_not_know_the_level(factor: float) -> None:
    """`standardise` gives a louder copy of a window the same bands, those of the raw window at deviation 0.1."""
    wave = noise(16_000, offset=0.2)
    found = FrontEnd(amplitude="standardise").sub_bands((wave * factor).astype(np.float32), 16_000)
    scaled = (wave * (0.1 / np.std(wave, dtype=np.float64))).astype(np.float32)
    np.testing.assert_allclose(found, FrontEnd().sub_bands(scaled, 16_000), atol=1e-4, rtol=0)


def test_raw_bands_know_the_level() -> None:
    """`raw` shifts every bin by the log of the gain."""
    wave = noise(16_000)
    shift = FrontEnd().sub_bands(wave * np.float32(np.e), 16_000) - FrontEnd().sub_bands(wave, 16_000)
    np.testing.assert_allclose(shift, 1 / (2 * OFFICIAL_STD), atol=1e-4, rtol=0)


@pytest.mark.parametrize("amplitude", ["raw", "standardise"])
def test_constant_signal_gives_finite_bands(amplitude: Any) -> None:
    """A flat line is the floor of the logarithm everywhere, never NaN."""
    found = FrontEnd(amplitude=amplitude).sub_bands(np.full(16_000, 0.1, np.float32), 16_000)
    np.testing.assert_allclose(found, (np.log(1e-10) - OFFICIAL_MEAN) / (2 * OFFICIAL_STD), rtol=1e-4)


@pytest.mark.parametrize("offset", [1e3, 1e6])
def test_large_offset_costs_no_accuracy(offset: float) -> None:
    """A signal far from zero gives the bands of the same samples without their mean."""
    wave = noise(16_000, offset=offset)
    centred = wave.astype(np.float64) - np.mean(wave, dtype=np.float64)
    found = FrontEnd().sub_bands(wave, 16_000)
    np.testing.assert_allclose(
        flat(found), reference_spectrum(centred.astype(np.float32), 16_000)[:, :200], atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("n", [2, 3, 4, 25, 666, 1102])
def test_hann_touches_bins_0_and_1_only(n: int) -> None:
    """The identity that late centring rests on holds for every length of frame."""
    spectrum = np.fft.rfft(hann(n))
    np.testing.assert_allclose(hann(n), np.asarray(torch.hann_window(n, dtype=torch.float64)), atol=1e-15)
    assert spectrum[0].real == pytest.approx(n / 2)
    assert np.abs(spectrum[2:]).max(initial=0) < 1e-12 * n
    assert not hann(n).flags.writeable


@pytest.mark.parametrize("n_fft", [100, 700, 40_000])
def test_frames_are_transformed_a_few_at_a_time(n_fft: int) -> None:
    """However long a frame is and however many there are, each is transformed by itself."""
    wave = noise(80 * 10 + n_fft)
    found = short_time_spectra(wave, n_fft, 10)
    assert found.magnitude.shape == (81, n_fft // 2 + 1)
    for number in (0, 47, 64, 80):
        spectrum = np.fft.rfft(wave[10 * number :][:n_fft] * hann(n_fft))
        np.testing.assert_allclose(found.magnitude[number], np.abs(spectrum), rtol=1e-5)
        np.testing.assert_allclose(found.low[number], spectrum[:2])


@pytest.mark.parametrize("frequency_hz", [120.0, 760.0, 1400.0, 2360.0])
def test_tone_lands_in_the_same_bin_at_any_rate(frequency_hz: float) -> None:
    """Bins are 40 Hz apart whatever the rate: the peak of a tone does not move."""
    peaks = {}
    for rate_hz in (5120, 8000, 12_000, 25_600, 44_100, 97_656, 1_000_000):
        tone = np.sin(2 * np.pi * frequency_hz * np.arange(rate_hz // 2) / rate_hz).astype(np.float32)
        bands = FrontEnd(band_width=50, top_band="pad").sub_bands(tone, rate_hz)
        peaks[rate_hz] = int(flat(bands).mean(axis=0)[: 25 * rate_hz // 2000].argmax())
    assert set(peaks.values()) == {round(frequency_hz / 40)}


@pytest.mark.parametrize("frequency_hz", [500.0, 3000.0, 5000.0, 9000.0])
def test_tone_lands_in_the_same_band_at_any_rate(frequency_hz: float) -> None:
    """The loudest band of a tone is the one whose edges hold it, at rates of any kind."""
    front_end = FrontEnd(band_width=50, top_band="pad")
    for rate_hz in (20_480, 26_667, 44_100, 97_656, 192_000):
        tone = np.sin(2 * np.pi * frequency_hz * np.arange(rate_hz // 4) / rate_hz).astype(np.float32)
        bands = front_end.sub_bands(tone, rate_hz)
        loudest = int(bands.max(axis=(1, 2)).argmax())
        low, high = front_end.band_edges_hz(rate_hz)[loudest]
        assert loudest == frequency_hz // 2000
        assert low <= frequency_hz <= high


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_band_edges_follow_each_other_up_to_half_the_rate(rate_hz: int) -> None:
    """Every band begins where the last one ends, and none ends above half the rate."""
    front_end = FrontEnd(top_band="pad")
    edges = front_end.band_edges_hz(rate_hz)
    assert len(edges) == front_end.n_bands(rate_hz)
    assert edges[0][0] == 0
    assert [low for low, _ in edges[1:]] == [high for _, high in edges[:-1]]
    assert edges[-1][0] < edges[-1][1] <= rate_hz / 2


@pytest.mark.parametrize(
    ("rate_hz", "text"),
    [
        (99, "rate_hz=99 is below 100 Hz"),
        (1, "temperature"),
        (0, "is below"),
        (-8000, "is below"),
        (1_000_001, "rate_hz=1000001 is above 1000000 Hz"),
    ],
)
def test_rate_out_of_range_is_refused(rate_hz: int, text: str) -> None:
    """Rates the front-end cannot hear are refused with the rate and the bound."""
    with pytest.raises(BadInputError, match=text):
        FrontEnd().sub_bands(np.zeros(1000, np.float32), rate_hz)


def test_lowest_rate_follows_the_hop() -> None:
    """A front-end of shorter frames refuses rates at which a hop is less than a sample or a frame less than two."""
    FrontEnd(hop_ms=5).check_rate(200)
    for front_end, rate_hz, lowest in ((FrontEnd(hop_ms=5), 199, 200), (FrontEnd(win_ms=1), 1999, 2000)):
        with pytest.raises(BadInputError, match=f"below {lowest} Hz"):
            front_end.sub_bands(np.zeros(1000, np.float32), rate_hz)


@pytest.mark.parametrize("shape", [(0,), (399,), (2, 16_000)])
def test_signal_without_a_frame_is_refused(shape: tuple[int, ...]) -> None:
    """A signal shorter than one frame, or of several channels, is refused with its shape."""
    with pytest.raises(BadInputError, match="shorter than one frame of 400 samples") as caught:
        FrontEnd().sub_bands(np.zeros(shape, np.float32), 16_000)
    assert str(shape) in str(caught.value)


def test_dict_round_trip() -> None:
    """What `to_dict` writes rebuilds the same front-end."""
    front_end = FrontEnd(band_width=50, max_frames=512, top_band="pad", amplitude="standardise")
    assert front_end.to_dict() == asdict(front_end) | {"views": []}
    assert FrontEnd.from_dict(front_end.to_dict()) == front_end
    assert FrontEnd.from_dict(front_end.to_dict()) != FrontEnd()


def test_dict_with_views_round_trip() -> None:
    """Views survive JSON, in their order."""
    front_end = FrontEnd(top_band="overlap", views=(View("slow", 200, 400), View("envelope")))
    assert FrontEnd.from_dict(json.loads(json.dumps(front_end.to_dict()))) == front_end


def test_front_end_without_the_field_views_has_none() -> None:
    """An artifact that does not name its views was made for none."""
    values = FrontEnd().to_dict()
    del values["views"]
    assert FrontEnd.from_dict(values) == FrontEnd()


@pytest.mark.parametrize(
    "views",
    [
        None,
        "envelope",
        {},
        ["envelope"],
        [{"kind": "wavelet", "top_hz": 600, "window_ms": 500, "hop_ms": 40}],
        [View("envelope").to_dict()] * 2,
        [View("slow", top_hz=hz).to_dict() for hz in range(100, 109)],
    ],
)
def test_views_that_cannot_be_are_refused(views: Any) -> None:
    """Other things than a list of views, unknown kinds, one twice and too many are refused in one line."""
    with pytest.raises(BadArtifactError, match="view") as caught:
        FrontEnd.from_dict(FrontEnd().to_dict() | {"views": views})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("piece_frames", "rule", "on_grid"), [(96, "grid", True), (96, "spread", False), (0, "grid", False)]
)
def test_grid_needs_pieces(piece_frames: int, rule: Any, on_grid: bool) -> None:
    """Whole windows have no grid, whatever the rule says, and padding knows the difference."""
    front_end = FrontEnd(piece_frames=piece_frames, piece_rule=rule)
    assert front_end.on_grid == on_grid
    assert FrontEnd.from_dict(json.loads(json.dumps(front_end.to_dict()))) == front_end
    padded = front_end.sub_bands(noise(4000), 8000, pad_frames=True)
    assert padded.shape[1] == (96 if on_grid else 1024)


def test_unknown_field_is_refused() -> None:
    """A field of a later version is an error that names it, not ignored."""
    with pytest.raises(BadArtifactError, match="does not know: wavelets"):
        FrontEnd.from_dict(FrontEnd().to_dict() | {"wavelets": 3})


@pytest.mark.parametrize("name", sorted(FrontEnd().to_dict().keys() - {"views", "piece_frames", "piece_rule"}))
def test_missing_field_is_refused(name: str) -> None:
    """A field that is lost is an error that names it, never a silent default."""
    values = FrontEnd().to_dict()
    del values[name]
    with pytest.raises(BadArtifactError, match=f"lacks the fields {name}"):
        FrontEnd.from_dict(values)


@pytest.mark.parametrize(
    "values",
    [
        {"band_width": 0},
        {"band_width": 50.0},
        {"band_width": True},
        {"band_width": 10**9},
        {"win_ms": -25},
        {"hop_ms": 0},
        {"max_frames": 10**9},
        {"max_frames": "1024"},
        {"std": 0.0},
        {"std": float("nan")},
        {"mean": float("inf")},
        {"top_band": "keep"},
        {"top_band": ["drop"]},
        {"amplitude": "log"},
        {"piece_rule": "mosaic"},
        {"piece_rule": None},
        {"piece_frames": 1025},
        {"piece_frames": -1},
    ],
)
def test_impossible_values_are_refused(values: dict[str, Any]) -> None:
    """Values that no front-end can have are refused when it is made, not when a window comes."""
    with pytest.raises(BadArtifactError, match="front-end"):
        replace(FrontEnd(), **values)


@pytest.mark.parametrize("values", [None, [], "official"])
def test_other_things_than_an_object_are_refused(values: Any) -> None:
    """A front-end that is not a mapping is refused."""
    with pytest.raises(BadArtifactError, match="not an object"):
        FrontEnd.from_dict(values)


def test_pieces_cover_the_window_evenly() -> None:
    """Pieces are as few as cover all frames, of one length, the first at the start and the last at the end."""
    bands = np.arange(2 * 250 * 50, dtype=np.float32).reshape(2, 250, 50)
    front_end = FrontEnd(band_width=50, piece_frames=96)
    pieces = front_end.pieces(bands)
    assert pieces.shape == (2, 3, 96, 50)
    np.testing.assert_array_equal(pieces[:, 0], bands[:, :96])
    np.testing.assert_array_equal(pieces[:, 1], bands[:, 77 : 77 + 96])
    np.testing.assert_array_equal(pieces[:, 2], bands[:, -96:])
    for length in (40, 96, 98, 111):
        np.testing.assert_array_equal(front_end.pieces(bands[:, :length]), bands[:, None, :length])
    assert front_end.pieces(bands[:, :112]).shape == (2, 2, 96, 50)
    np.testing.assert_array_equal(replace(front_end, piece_frames=0).pieces(bands), bands[:, None])


def test_artifact_without_pieces_or_views_is_read_as_whole_windows() -> None:
    """A manifest written before these fields existed means none of them; a nonsense value is refused."""
    values = FrontEnd().to_dict()
    old = {name: value for name, value in values.items() if name not in {"piece_frames", "piece_rule", "views"}}
    assert FrontEnd.from_dict(old) == FrontEnd()
    older = FrontEnd.from_dict(old | {"piece_frames": 96})
    assert (older.piece_rule, older.on_grid) == ("spread", False)
    for nonsense in (-1, 1.5, 10**6, True):
        with pytest.raises(BadArtifactError, match="piece_frames"):
            FrontEnd.from_dict(values | {"piece_frames": nonsense})
