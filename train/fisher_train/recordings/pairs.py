"""Pairs of crops for contrastive pre-training on recordings without labels: one machine at two moments.

Start at `crop_pairs`. Crops begin on the grid of frames, so that the spectra of a recording are computed once and
kept; cut and centred afterwards they are those of `FrontEnd.sub_bands` on the crop, up to float32 round-off.
"""

from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.spectra import Spectra, short_time_spectra
from fisher_edge.errors import BadInputError
from fisher_train.recordings.find import Corpus
from fisher_train.recordings.recording import Recording

__all__ = ["crop_pairs", "eligible"]

KEPT_BYTES = 1 << 30
"""Memory for recordings; those of a corpus that does not fit are read and transformed again for every crop."""
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
    """Whether all fit into memory."""


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
    """Draw at most `count` different recordings, evenly from as many units as possible."""
    chosen = rng.choice(len(units), min(count, len(units)), replace=False)
    each, more = divmod(count, len(chosen))
    drawn: list[Recording] = []
    for place, unit in enumerate(units[int(index)] for index in chosen):
        wanted = min(len(unit), each + (place < more))
        drawn += [unit[int(index)] for index in rng.choice(len(unit), wanted, replace=False)]
    return drawn


def _pair(
    recording: Recording, front_end: FrontEnd, rng: np.random.Generator, frames: int, band: int, *, keep: bool
) -> tuple[FloatArray, FloatArray]:
    """Cut one band of two crops; where a recording is silent, which is the same in all, other crops are tried."""
    held = _kept.of(recording, front_end) if keep else None
    for _ in range(TRIES):
        starts = _two_starts(recording, front_end, rng, frames)
        waves = [_crop_wave(recording, held, front_end, start, frames) for start in starts]
        if all(np.ptp(wave) > 0 for wave in waves):
            break
    bins = _bins(front_end, recording.rate_hz, band)
    first, second = (
        _kept_crop(held.spectra, wave, recording.rate_hz, front_end, start, bins)
        if held
        else _fresh_crop(wave, recording.rate_hz, front_end, bins)
        for wave, start in zip(waves, starts, strict=True)
    )
    return first, second


def _apart(front_end: FrontEnd, recording: Recording, frames: int) -> int:
    """Frames from the start of one crop to the next that shares no sample with it."""
    return -(-front_end.n_samples(frames, recording.rate_hz) // front_end.hop(recording.rate_hz))


def _two_starts(recording: Recording, front_end: FrontEnd, rng: np.random.Generator, frames: int) -> tuple[int, int]:
    """Draw the first frames of two crops that do not overlap, in either order, evenly over all ways to place them."""
    apart = _apart(front_end, recording, frames)
    free = front_end.n_frames(recording.samples, recording.rate_hz) - frames - apart
    early, late = sorted(rng.integers(free + 1, size=2).tolist())
    return (early, late + apart) if rng.random() < 0.5 else (late + apart, early)


def _crop_wave(recording: Recording, held: "_Held | None", front_end: FrontEnd, start: int, frames: int) -> FloatArray:
    first, count = start * front_end.hop(recording.rate_hz), front_end.n_samples(frames, recording.rate_hz)
    if held is None or held.wave is None:
        return recording.read(first, count)
    return held.wave[first : first + count]


def _fresh_crop(wave: FloatArray, rate_hz: int, front_end: FrontEnd, bins: slice) -> FloatArray:
    """Compute one band (frames, band_width) of a crop."""
    centre, gain = front_end.centre_and_gain(wave)
    spectra = short_time_spectra(wave - np.float64(centre), front_end.n_fft(rate_hz), front_end.hop(rate_hz))
    return _normalised(spectra.magnitude[:, bins], gain, front_end, rate_hz)


def _kept_crop(
    spectra: Spectra, wave: FloatArray, rate_hz: int, front_end: FrontEnd, start: int, bins: slice
) -> FloatArray:
    """Cut one band (frames, band_width) of a crop that begins at frame `start` from the spectra of its recording."""
    part = slice(start, start + front_end.n_frames(len(wave), rate_hz))
    centre, gain = front_end.centre_and_gain(wave)
    magnitude = spectra.magnitude[part, bins]
    if bins.start == 0:
        magnitude = Spectra(magnitude, spectra.low[part]).centred(centre, front_end.n_fft(rate_hz))
    return _normalised(magnitude, gain, front_end, rate_hz)


def _bins(front_end: FrontEnd, rate_hz: int, band: int) -> slice:
    first = round(front_end.band_edges_hz(rate_hz)[band][0] * front_end.n_fft(rate_hz) / rate_hz)
    return slice(first, first + front_end.band_width)


def _normalised(magnitude: FloatArray, gain: float, front_end: FrontEnd, rate_hz: int) -> FloatArray:
    """Normalise the amplitude spectra of one band, as if it were the lowest."""
    band: FloatArray = front_end.bands_of(magnitude, gain, rate_hz)[0]
    return band


def _kept_bytes(recording: Recording, front_end: FrontEnd) -> int:
    """Bytes of the spectra of a recording, and of its samples where they would have to be decoded again."""
    bins = front_end.n_fft(recording.rate_hz) // 2 + 1
    spectra = front_end.n_frames(recording.samples, recording.rate_hz) * (4 * bins + 32)
    return spectra + (4 * recording.samples if recording.encoding == "sound" else 0)


@dataclass(frozen=True, eq=False)
class _Held:
    """A recording in memory: its spectra, not centred, and its samples unless they are mapped anyway."""

    spectra: Spectra
    wave: FloatArray | None


class _Kept:
    """Recordings in memory, the least recently used forgotten first."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[Recording, FrontEnd], _Held] = OrderedDict()
        self._bytes = 0

    def of(self, recording: Recording, front_end: FrontEnd) -> _Held:
        """Return a whole recording."""
        key = (recording, front_end)
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        rate_hz, wave = recording.rate_hz, recording.read()
        spectra = short_time_spectra(wave, front_end.n_fft(rate_hz), front_end.hop(rate_hz))
        self._held[key] = held = _Held(spectra, wave if recording.encoding == "sound" else None)
        self._bytes += _kept_bytes(recording, front_end)
        while self._bytes > KEPT_BYTES and len(self._held) > 1:
            (forgotten, its_front_end), _ = self._held.popitem(last=False)
            self._bytes -= _kept_bytes(forgotten, its_front_end)
        return held


_kept = _Kept()
