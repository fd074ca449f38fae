"""Views: further representations of a window that need no encoder. Start at `view_vector`.

A frame of 25 ms cannot resolve the rate at which a bearing fault strikes, nor what goes on slower than 40 Hz. A view
is the time mean of a log amplitude spectrum with longer frames, of the signal's envelope or of its lowest
frequencies. Filters are zero-phase on the segment they are given, so that the same segment has the same view whether
it comes from a stream or from a file.
"""

import math
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.errors import BadArtifactError, BadInputError

__all__ = ["View", "view_vector"]

OVERSAMPLING = 10 / 3
"""Rate that a view is decimated to, over its top frequency: 2 kHz for 600 Hz."""
LOWEST_CARRIER = 1 / 8
"""Of the rate: the envelope is that of the upper three quarters of the band."""
UNIT_DEVIATION = 0.05
"""Standard deviation a view's signal is brought to before the logarithm."""
LOG_FLOOR = 1e-10
FAINTEST = 1e-6
"""A modulation this small beside its carrier, or a signal beside its offset, is rounding and has no view."""
LARGEST_MS, LARGEST_HZ = 20_000, 100_000
MIN_BINS, MAX_BINS = 8, 4096


@dataclass(frozen=True)
class View:
    """Description of one view; `kind` says what is transformed.

    `envelope`: Hilbert envelope of the upper three quarters of the band. `slow`: the signal itself, low-passed.
    """

    kind: Literal["envelope", "slow"]
    top_hz: int = 600
    """Bins go from 0 up to this frequency."""
    window_ms: int = 500
    """Length of a frame: bins are 1000 / window_ms Hz wide."""
    hop_ms: int = 40

    def __post_init__(self) -> None:
        """Refuse values that no view can have."""
        if self.kind not in {"envelope", "slow"}:
            raise BadArtifactError(f"view of kind {self.kind!r} is not known to this version; update fisher-edge")
        for name, largest in (("top_hz", LARGEST_HZ), ("window_ms", LARGEST_MS), ("hop_ms", LARGEST_MS)):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= largest:
                raise BadArtifactError(
                    f"view {self.kind} has {name}={value!r}, not a whole number from 1 to {largest}; use a bundle from "
                    "this project"
                )
        if not MIN_BINS <= self.bins <= MAX_BINS:
            raise BadArtifactError(
                f"view {self.kind} with top_hz={self.top_hz} and window_ms={self.window_ms} has {self.bins} bins, not "
                f"{MIN_BINS} to {MAX_BINS}; use a bundle from this project"
            )

    @property
    def name(self) -> str:
        """What the view is called in results: envelope-600hz."""
        return f"{self.kind}-{self.top_hz}hz"

    @property
    def bins(self) -> int:
        """Numbers in the vector of this view."""
        return self.top_hz * self.window_ms // 1000

    @classmethod
    def from_dict(cls, values: Any) -> "View":
        """Rebuild a view from what `to_dict` wrote; no field may be missing or unknown."""
        known = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or values.keys() != known:
            raise BadArtifactError(
                f"view {values!r:.80} does not have the fields {', '.join(sorted(known))} and no others; update "
                "fisher-edge or export the bundle again"
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the description as plain JSON values."""
        return asdict(self)


def view_vector(view: View, wave: FloatArray, rate_hz: int) -> FloatArray:
    """Return the view of a segment of signal (n,), at any level, as a vector (bins,) of unit length and mean 0.

    Up to 3 % of the segment are left out at its end, so that its length has small factors. At a rate below twice
    `top_hz` the bins above half the rate are 0. A segment shorter than one frame makes one frame, padded with zeros:
    its resolution is that of its length. A segment without a view (constant, or for `envelope` a carrier without
    modulation) has a vector of zeros, which is similar to nothing.
    Raises BadInputError for other shapes, fewer than two samples, a rate below 2 Hz, NaN and Inf.
    """
    if wave.ndim != 1 or len(wave) < 2 or rate_hz < 2:
        raise BadInputError(f"signal of shape {wave.shape} at {rate_hz} Hz has no view; give samples of one channel")
    if not np.isfinite(wave).all():
        raise BadInputError("signal holds NaN or Inf and has no view; check the sensor")
    source = _scaled(wave[: _fast_length(len(wave))])
    if source is None:
        return np.zeros(view.bins, np.float32)
    if view.kind == "envelope":
        _demodulate(source)
    largest = float(np.max(source))
    frame_hz = min(float(rate_hz), OVERSAMPLING * view.top_hz)
    slow = _decimated(source, max(2, round(len(source) * frame_hz / rate_hz)))
    deviation = float(np.std(slow, dtype=np.float64))
    if deviation <= FAINTEST * largest:
        return np.zeros(view.bins, np.float32)
    return _unit_spectrum(view, slow * np.float32(UNIT_DEVIATION / deviation), len(slow) * rate_hz / len(source))


@lru_cache(maxsize=64)
def _fast_length(samples: int) -> int:
    """Largest product of 2, 3, 5 and 7 up to `samples`: a prime length costs a transform several times as much."""
    for length in range(samples, 1, -1):
        rest = length
        for factor in (2, 3, 5, 7):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
    return samples


def _scaled(wave: FloatArray) -> FloatArray | None:
    """Return a copy of the signal (n,) without its mean and with a peak of 1; None when it is constant."""
    mean = np.mean(wave, dtype=np.float64)
    scaled = np.empty(len(wave), np.float32)
    np.subtract(wave, mean, out=scaled, dtype=np.float64, casting="same_kind")
    largest = max(float(scaled.max()), -float(scaled.min()))
    if largest <= FAINTEST * (largest + abs(float(mean))):
        return None
    scaled /= np.float32(largest)
    return scaled


def _demodulate(wave: FloatArray) -> None:
    """Put the magnitude of the analytic signal of the upper three quarters of the band in the place of a signal (n,).

    Memory is used again where it can be: fetching new pages costs as much as the transforms.
    """
    samples, bins = len(wave), len(wave) // 2 + 1
    analytic = np.empty(samples, np.complex64)
    np.fft.rfft(wave, out=analytic[:bins])  # type: ignore[arg-type]  # NumPy's annotation knows no single precision
    analytic[: math.ceil(LOWEST_CARRIER * samples)] = 0
    analytic[:bins] *= 2
    analytic[bins:] = 0
    if samples % 2 == 0:
        analytic[bins - 1] /= 2  # half the rate has no negative twin
    np.abs(np.fft.ifft(analytic, out=analytic), out=wave)  # type: ignore[arg-type]


def _decimated(wave: FloatArray, samples: int) -> FloatArray:
    """Return a signal (n,) without its mean as so many samples (at most n) over the same time, band-limited.

    The mean is taken off in place.
    """
    wave -= np.float32(np.mean(wave, dtype=np.float64))
    spectrum = np.fft.rfft(wave)
    decimated = np.fft.irfft(spectrum[: samples // 2 + 1], samples) * np.float32(samples / len(wave))
    return decimated.astype(np.float32)


def _unit_spectrum(view: View, wave: FloatArray, rate_hz: float) -> FloatArray:
    """Time mean of the log amplitude spectrum (bins,), its own mean removed, of unit length."""
    length = max(2, round(view.window_ms * rate_hz / 1000))
    frame = min(length, len(wave))
    hop = max(1, round(view.hop_ms * rate_hz / 1000))
    frames = np.lib.stride_tricks.sliding_window_view(wave, frame)[::hop]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)).astype(np.float32)
    magnitude = np.abs(np.fft.rfft(frames * hann, length)[:, : view.bins])
    log = np.log(magnitude + LOG_FLOOR).mean(axis=0, dtype=np.float64)
    vector = np.zeros(view.bins, np.float32)
    vector[: len(log)] = (log - log.mean()) / max(float(np.linalg.norm(log - log.mean())), 1e-12)
    return vector
