"""The one definition of the front-end: log-STFT at a fixed 25 ms / 10 ms, normalised and cut into sub-bands.

Start at `FrontEnd.sub_bands`. Training, export and the runtime all use this file; the numbers travel in the
checkpoint and in the bundle. Source: FISHER (arXiv 2507.16696), section II and the released code.
"""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np

from fisher_edge.dsp.blocks import FloatArray, Rate, rate_text
from fisher_edge.dsp.spectra import short_time_spectra
from fisher_edge.dsp.views import View
from fisher_edge.errors import BadArtifactError, BadInputError

__all__ = ["MAX_RATE_HZ", "MIN_RATE_HZ", "FrontEnd"]

MIN_RATE_HZ = 100
MAX_RATE_HZ = 1_000_000
LOG_FLOOR = 1e-10
STANDARD_DEVIATION = 0.1
"""Standard deviation a window is brought to when the amplitude is standardised."""
MIN_TOP_BINS = 8
"""Bins (half a patch) an incomplete top band must hold to be worth a pass through the encoder."""
SPARE_FRAMES = 15
"""Frames (one short of a patch) by which a window may exceed a piece and still be one."""
# Of the normalisation: beyond it single precision overflows.
LARGEST_SHIFT = 1000.0
LARGEST_COUNT = 4096
"""Upper limit of bins, frames and milliseconds, so that no artifact makes a window take all memory."""
MAX_VIEWS = 8


@dataclass(frozen=True)
class FrontEnd:
    """Parameters of the front-end; the defaults are those of the official FISHER-tiny checkpoint."""

    band_width: int = 100
    """Bins of a sub-band (40 Hz each)."""
    win_ms: int = 25
    hop_ms: int = 10
    max_frames: int = 1024
    mean: float = -3.017344307886898
    std: float = 2.1531635155379805
    top_band: Literal["drop", "pad", "overlap"] = "drop"
    """What becomes of an incomplete top band: official checkpoints drop it, `pad` fills it with zeros, `overlap`
    with bins of the band below, so that it is the last `band_width` bins there are."""
    amplitude: Literal["raw", "standardise"] = "raw"
    """`standardise` brings every window to one standard deviation; its level is then a number of its own."""
    piece_frames: int = 0
    """Frames the encoder sees at a time: a longer window is embedded in pieces and averaged; 0: always whole."""
    piece_rule: Literal["spread", "grid"] = "spread"
    """How windows become pieces. `grid`: pieces lie on one fixed grid in the stream, each standardised by itself and
    embedded once (see grid.py). `spread`: a window is standardised whole, its pieces are spread evenly over it."""
    views: tuple[View, ...] = ()
    """Further views of a window; official checkpoints have none."""

    def __post_init__(self) -> None:
        """Refuse values that no front-end can have."""
        for name in ("band_width", "win_ms", "hop_ms", "max_frames"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= LARGEST_COUNT:
                raise BadArtifactError(
                    f"front-end has {name}={value!r}, not a whole number from 1 to {LARGEST_COUNT}; use a bundle from "
                    "this project"
                )
        if type(self.piece_frames) is not int or not 0 <= self.piece_frames <= LARGEST_COUNT:
            raise BadArtifactError(
                f"front-end has piece_frames={self.piece_frames!r}, not a whole number from 0 to {LARGEST_COUNT}; use "
                "a bundle from this project"
            )
        if not (abs(self.mean) <= LARGEST_SHIFT and 1 / LARGEST_SHIFT <= self.std <= LARGEST_SHIFT):
            raise BadArtifactError(
                f"front-end has mean={self.mean}, std={self.std}, which normalise nothing; use another bundle"
            )
        if self.piece_frames > self.max_frames:
            raise BadArtifactError(
                f"front-end has piece_frames={self.piece_frames} above max_frames={self.max_frames}; use a bundle from "
                "this project"
            )
        for name, known in (
            ("top_band", ("drop", "pad", "overlap")),
            ("amplitude", ("raw", "standardise")),
            ("piece_rule", ("spread", "grid")),
        ):
            if getattr(self, name) not in known:
                raise BadArtifactError(
                    f"front-end asks for {name}={getattr(self, name)!r}, which this version does not know; update "
                    "fisher-edge"
                )
        names = [view.name for view in self.views]
        if len(names) > MAX_VIEWS or len(set(names)) < len(names):
            raise BadArtifactError(
                f"front-end lists the views {', '.join(names)}: more than {MAX_VIEWS} or one twice; use another bundle"
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FrontEnd":
        """Rebuild a front-end from what `to_dict` wrote into an artifact; no field may be unknown or missing.

        Only `views`, `piece_frames` and `piece_rule` may be missing: an artifact without them was made before they
        existed, and their defaults are what it was made for.
        """
        if not isinstance(values, dict):
            raise BadArtifactError(f"front-end is {values!r:.40}, not an object; use a bundle from this project")
        known = {field.name for field in fields(cls)}
        if not values.keys() <= known:
            unknown = ", ".join(sorted(values.keys() - known))
            raise BadArtifactError(f"front-end has fields this version does not know: {unknown}; update fisher-edge")
        lacking = ", ".join(sorted(known - values.keys() - {"views", "piece_frames", "piece_rule"}))
        if lacking:
            raise BadArtifactError(f"front-end lacks the fields {lacking}; use a bundle from this project")
        views = values.get("views", [])
        if not isinstance(views, list):
            raise BadArtifactError(f"front-end has views={views!r:.40}, not a list; use a bundle from this project")
        return cls(**{**values, "views": tuple(View.from_dict(view) for view in views)})

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as plain JSON values."""
        return asdict(self) | {"views": [view.to_dict() for view in self.views]}

    @property
    def on_grid(self) -> bool:
        """Whether windows are runs of pieces on one fixed grid, each standardised by itself."""
        return self.piece_rule == "grid" and self.piece_frames > 0

    def check_rate(self, rate_hz: Rate) -> None:
        """Refuse a rate (Hz) that this front-end cannot hear."""
        lowest = max(MIN_RATE_HZ, math.ceil(1000 / self.hop_ms), math.ceil(2000 / self.win_ms))
        if rate_hz < lowest:
            raise BadInputError(
                f"rate_hz={rate_text(rate_hz)} is below {lowest} Hz, the lowest rate this front-end supports; slow "
                "process values (temperature, pressure) cannot go through a spectral encoder"
            )
        if rate_hz > MAX_RATE_HZ:
            raise BadInputError(
                f"rate_hz={rate_text(rate_hz)} is above {MAX_RATE_HZ} Hz; resample the signal to a lower rate"
            )

    def n_fft(self, rate_hz: Rate) -> int:
        """Samples of one frame: 25 ms, rounded down."""
        return self.win_ms * rate_hz // 1000

    def hop(self, rate_hz: Rate) -> int:
        """Samples from one frame to the next: 10 ms, rounded down."""
        return self.hop_ms * rate_hz // 1000

    def n_frames(self, samples: int, rate_hz: Rate) -> int:
        """Whole frames in so many samples."""
        return max(0, 1 + (samples - self.n_fft(rate_hz)) // self.hop(rate_hz))

    def n_samples(self, frames: int, rate_hz: Rate) -> int:
        """Samples that so many frames span: the hops between them and one whole frame."""
        return (frames - 1) * self.hop(rate_hz) + self.n_fft(rate_hz)

    def frames_of(self, seconds: float, rate_hz: Rate) -> int:
        """Frames of a window that is named by its length: 10.24 s are 1024 frames at 48 kHz (and span 15 ms more).

        Real hops are counted: where 10 ms are no whole number of samples, a hop is shorter and there are more of them.
        """
        return max(1, round(seconds * float(rate_hz) / self.hop(rate_hz)))

    def seconds_of(self, frames: int, rate_hz: Rate) -> float:
        """Length (s) of a window of so many frames: the inverse of `frames_of`."""
        return float(frames * self.hop(rate_hz) / rate_hz)

    def n_bands(self, rate_hz: Rate) -> int:
        """Sub-bands at this rate; a signal with fewer bins than one band has one, padded."""
        return len(self.first_bins(rate_hz))

    def first_bins(self, rate_hz: Rate) -> list[int]:
        """Lowest bin of every sub-band, which reaches `band_width` bins up from there."""
        bins = self.n_fft(rate_hz) // 2 + 1
        whole, rest = divmod(bins, self.band_width)
        first = [band * self.band_width for band in range(max(1, whole))]
        if whole and rest >= MIN_TOP_BINS and self.top_band != "drop":
            first.append(bins - self.band_width if self.top_band == "overlap" else whole * self.band_width)
        return first

    def band_edges_hz(self, rate_hz: Rate) -> list[tuple[float, float]]:
        """Lowest and highest frequency (Hz) of every band; the top one ends at half the rate at most.

        With `overlap` it may begin below the end of the one before.
        """
        bin_hz, top_hz = float(rate_hz) / self.n_fft(rate_hz), float(rate_hz) / 2
        edges = ((low, low + self.band_width) for low in self.first_bins(rate_hz))
        return [(low * bin_hz, min(high * bin_hz, top_hz)) for low, high in edges]

    def sub_bands(self, wave: FloatArray, rate_hz: Rate, *, pad_frames: bool = False) -> FloatArray:
        """Turn a window of signal (n,) into sub-bands (bands, frames, band_width), float32.

        Frames past `max_frames` are left out. `pad_frames` fills up to it, or up to a piece on the grid, with zeros
        after normalisation, as the RMIS protocol does.
        """
        self.check_rate(rate_hz)
        if wave.ndim != 1 or self.n_frames(len(wave), rate_hz) < 1:
            raise BadInputError(
                f"signal of shape {wave.shape} at {rate_text(rate_hz)} Hz is shorter than one frame of "
                f"{self.n_fft(rate_hz)} samples ({self.win_ms} ms); record longer"
            )
        kept = self.n_samples(min(self.max_frames, self.n_frames(len(wave), rate_hz)), rate_hz)
        centre, gain = self.centre_and_gain(wave)
        spectra = short_time_spectra(wave[:kept] - np.float64(centre), self.n_fft(rate_hz), self.hop(rate_hz))
        return self.bands_of(spectra.magnitude, gain, rate_hz, pad_frames=pad_frames)

    def centre_and_gain(self, wave: FloatArray) -> tuple[float, float]:
        """Return the mean of a window and the factor that brings it to the amplitude the encoder expects."""
        centre = float(np.mean(wave, dtype=np.float64))
        if self.amplitude == "raw":
            return centre, 1.0
        deviations = np.subtract(wave, centre, dtype=np.float64)
        deviation = math.sqrt(np.dot(deviations, deviations) / len(wave))
        return centre, STANDARD_DEVIATION / deviation if deviation > 0 else 1.0

    def bands_of(self, magnitude: FloatArray, gain: float, rate_hz: Rate, *, pad_frames: bool = False) -> FloatArray:
        """Turn centred amplitude spectra (frames, bins) into normalised sub-bands (bands, frames, band_width)."""
        frames, first = len(magnitude), self.first_bins(rate_hz)
        full = self.piece_frames if self.on_grid else self.max_frames
        bands = np.zeros((len(first), max(frames, full) if pad_frames else frames, self.band_width), np.float32)
        log = magnitude[:, : first[-1] + self.band_width] * np.float32(gain)
        log += np.float32(LOG_FLOOR)
        np.log(log, out=log)
        log -= np.float32(self.mean)
        log *= np.float32(0.5 / self.std)
        for band, low in zip(bands, first, strict=True):
            part = log[:, low : low + self.band_width]
            band[:frames, : part.shape[1]] = part
        return bands

    def pieces(self, bands: FloatArray) -> FloatArray:
        """Cut the sub-bands of a window by the rule `spread`: (bands, pieces, frames, band_width).

        As few pieces of `piece_frames` as cover the window (but for a rest shorter than a patch), evenly spread, so
        that neighbours may overlap.
        """
        frames, length = bands.shape[1], self.piece_frames
        count = math.ceil((frames - SPARE_FRAMES) / length) if length else 1
        if count <= 1:
            return bands[:, None]
        starts = np.linspace(0, frames - length, count).astype(int)
        return np.stack([bands[:, start : start + length] for start in starts], axis=1)
