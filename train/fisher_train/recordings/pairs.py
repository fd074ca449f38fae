"""Pairs of crops for contrastive pre-training on recordings without labels: one machine at two moments.

Start at `crop_pairs`. Crops begin on the grid of frames, so that the spectra of a recording are computed once and
kept; cut and centred afterwards they are those of `FrontEnd.sub_bands` on the crop, up to float32 round-off.
"""

from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.frontend import FrontEnd, Spectra, short_time_spectra
from fisher_edge.errors import BadInputError
from fisher_train.recordings.find import Corpus
from fisher_train.recordings.recording import Recording

__all__ = ["crop_pairs", "eligible"]

KEPT_BYTES = 1 << 29
"""Memory for spectra; a corpus whose spectra do not fit is computed anew for every crop."""
SIBLINGS = 4
"""Recordings of one dataset that share the band in a batch: negatives that the rig does not give away."""


TRIES = 64
"""Draws of two crops before silence is accepted."""

_Dataset = tuple[tuple[Recording, ...], ...]
"""Recordings by unit."""


@dataclass(frozen=True, eq=False)
class _Eligible:
    """Recordings long enough for two crops, by dataset and then by unit."""

    datasets: tuple[_Dataset, ...]
    keep: bool
    """Whether the spectra of all fit into memory."""


def crop_pairs(
    corpus: Corpus,
    front_end: FrontEnd,
    rng: np.random.Generator,
    pairs: int,
    frames: int,
    *,
    siblings: int = SIBLINGS,
) -> FloatArray:
    """Return crops (2, pairs, frames, band_width), float32: `[0, i]` and `[1, i]` do not overlap in time.

    Both are of one band of one recording at its own rate. Up to `siblings` neighbours in the batch are of one dataset
    and one band, from different units as long as there are any; a dataset comes again when all had their turn. Raises
    BadInputError when no recording is long enough.
    """
    groups = eligible(corpus, front_end, frames)
    crops: list[tuple[FloatArray, FloatArray]] = []
    while len(crops) < pairs:
        for dataset in _turns(groups, rng):
            drawn = _siblings(dataset, rng, min(siblings, pairs - len(crops)))
            band = int(rng.integers(min(front_end.n_bands(recording.rate_hz) for recording in drawn)))
            crops += [_pair(recording, front_end, rng, frames, band, keep=groups.keep) for recording in drawn]
            if len(crops) == pairs:
                break
    return np.stack([np.stack(moment) for moment in zip(*crops, strict=True)])


@lru_cache(maxsize=8)
def eligible(corpus: Corpus, front_end: FrontEnd, frames: int) -> _Eligible:
    """Group the recordings that are long enough for two crops of so many frames."""
    tree: dict[str, dict[str, list[Recording]]] = defaultdict(lambda: defaultdict(list))
    total_bytes = 0
    for recording in corpus.recordings:
        if front_end.n_frames(recording.samples, recording.rate_hz) >= frames + _apart(front_end, recording, frames):
            tree[recording.dataset][recording.unit].append(recording)
            total_bytes += _kept_bytes(recording, front_end)
    if not tree:
        longest = max(corpus.recordings, key=lambda recording: recording.seconds)
        raise BadInputError(
            f"no recording holds two crops of {frames} frames that do not overlap (the longest, {longest.path}, is "
            f"{longest.seconds:g} s); record longer or ask for shorter crops"
        )
    datasets = tuple(tuple(map(tuple, units.values())) for units in tree.values())
    return _Eligible(datasets, total_bytes <= KEPT_BYTES)


def _turns(groups: _Eligible, rng: np.random.Generator) -> list[_Dataset]:
    """Return all datasets once; one comes early in proportion to the square root of its recordings."""
    weights = np.sqrt([sum(map(len, units)) for units in groups.datasets])
    order = rng.choice(len(weights), len(weights), replace=False, p=weights / weights.sum())
    return [groups.datasets[place] for place in order]


def _siblings(units: _Dataset, rng: np.random.Generator, count: int) -> list[Recording]:
    """Draw at most `count` different recordings, from as many units as possible."""
    drawn: list[Recording] = []
    order = [list(rng.permutation(len(unit))) for unit in units]
    places = [int(place) for place in rng.permutation(len(units))]
    while places and len(drawn) < count:
        place = places.pop(0)
        drawn.append(units[place][order[place].pop()])
        if order[place]:
            places.append(place)
    return drawn


def _pair(
    recording: Recording, front_end: FrontEnd, rng: np.random.Generator, frames: int, band: int, *, keep: bool
) -> tuple[FloatArray, FloatArray]:
    """Cut one band of two crops; where a recording is silent, which is the same in all, other crops are tried."""
    for _ in range(TRIES):
        starts = _two_starts(recording, front_end, rng, frames)
        waves = [_crop_wave(recording, front_end, start, frames) for start in starts]
        if all(np.ptp(wave) > 0 for wave in waves):
            break
    cut = _kept_crop if keep else _fresh_crop
    first, second = (cut(recording, front_end, wave, start, band) for wave, start in zip(waves, starts, strict=True))
    return first, second


def _apart(front_end: FrontEnd, recording: Recording, frames: int) -> int:
    """Frames from the start of one crop to the next that shares no sample with it."""
    return -(-front_end.n_samples(frames, recording.rate_hz) // front_end.hop(recording.rate_hz))


def _two_starts(recording: Recording, front_end: FrontEnd, rng: np.random.Generator, frames: int) -> tuple[int, int]:
    """Draw the first frames of two crops that do not overlap, in either order, evenly over all ways to place them."""
    apart = _apart(front_end, recording, frames)
    free = front_end.n_frames(recording.samples, recording.rate_hz) - frames - apart
    early, late = (int(frame) for frame in np.sort(rng.integers(free + 1, size=2)))
    return (early, late + apart) if rng.random() < 0.5 else (late + apart, early)


def _crop_wave(recording: Recording, front_end: FrontEnd, start: int, frames: int) -> FloatArray:
    """Read the samples of a crop."""
    rate_hz = recording.rate_hz
    return recording.read(start * front_end.hop(rate_hz), front_end.n_samples(frames, rate_hz))


def _fresh_crop(recording: Recording, front_end: FrontEnd, wave: FloatArray, _start: int, band: int) -> FloatArray:
    """Compute one band (frames, band_width) of a crop."""
    centre, gain = front_end.centre_and_gain(wave)
    rate_hz = recording.rate_hz
    spectra = short_time_spectra(wave - np.float64(centre), front_end.n_fft(rate_hz), front_end.hop(rate_hz))
    return _normalised(spectra.magnitude[:, _bins(front_end, rate_hz, band)], gain, front_end, rate_hz)


def _kept_crop(recording: Recording, front_end: FrontEnd, wave: FloatArray, start: int, band: int) -> FloatArray:
    """Cut one band (frames, band_width) of a crop that begins at frame `start` from the spectra of its recording."""
    spectra, rate_hz = _kept.of(recording, front_end), recording.rate_hz
    part = slice(start, start + front_end.n_frames(len(wave), rate_hz))
    centre, gain = front_end.centre_and_gain(wave)
    bins = _bins(front_end, rate_hz, band)
    magnitude = spectra.magnitude[part, bins]
    if bins.start == 0:
        magnitude = Spectra(magnitude, spectra.low[part]).centred(centre, front_end.n_fft(rate_hz))
    return _normalised(magnitude, gain, front_end, rate_hz)


def _bins(front_end: FrontEnd, rate_hz: int, band: int) -> slice:
    """Return the bins of one band."""
    first = round(front_end.band_edges_hz(rate_hz)[band][0] * front_end.n_fft(rate_hz) / rate_hz)
    return slice(first, first + front_end.band_width)


def _normalised(magnitude: FloatArray, gain: float, front_end: FrontEnd, rate_hz: int) -> FloatArray:
    """Normalise the amplitude spectra of one band, as if it were the lowest."""
    band: FloatArray = front_end.bands_of(magnitude, gain, rate_hz)[0]
    return band


def _kept_bytes(recording: Recording, front_end: FrontEnd) -> int:
    """Bytes of the spectra of a recording."""
    bins = front_end.n_fft(recording.rate_hz) // 2 + 1
    return front_end.n_frames(recording.samples, recording.rate_hz) * (4 * bins + 32)


class _Kept:
    """Spectra of recordings, the least recently used forgotten first."""

    def __init__(self) -> None:
        self._spectra: OrderedDict[tuple[Recording, FrontEnd], Spectra] = OrderedDict()
        self._bytes = 0

    def of(self, recording: Recording, front_end: FrontEnd) -> Spectra:
        """Return the spectra of a whole recording, not centred."""
        key = (recording, front_end)
        if key in self._spectra:
            self._spectra.move_to_end(key)
            return self._spectra[key]
        rate_hz = recording.rate_hz
        spectra = short_time_spectra(recording.read(), front_end.n_fft(rate_hz), front_end.hop(rate_hz))
        self._spectra[key] = spectra
        self._bytes += _kept_bytes(recording, front_end)
        while self._bytes > KEPT_BYTES:
            (forgotten, its_front_end), _ = self._spectra.popitem(last=False)
            self._bytes -= _kept_bytes(forgotten, its_front_end)
        return spectra


_kept = _Kept()
