"""Views: further representations of a window that need no encoder. Start at `view_of`.

A frame of 25 ms cannot resolve the rate at which a bearing fault strikes, nor what goes on slower than 40 Hz. A view
is the time mean of an amplitude spectrum with longer frames: of the signal's envelope, of its lowest frequencies, or
of how its sub-bands swell and fade (modulation.py). Filters are zero-phase on the segment they are given, so that
the same segment has the same view whether it comes from a stream or from a file.
"""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray, Rate, rate_text
from fisher_edge.dsp.modulation import BANDS, modulation_spectrum
from fisher_edge.dsp.segment import FAINTEST, FRAMES_PER_S, Segment, fast_length
from fisher_edge.dsp.spectra import hann
from fisher_edge.errors import BadArtifactError, BadInputError

__all__ = ["ENVELOPE", "MODULATION", "View", "view_of", "view_vector"]

OVERSAMPLING = 10 / 3
"""Rate that a view is decimated to, over its top frequency, before a frame is brought to a fast length."""
HALVED_FROM = 8
"""Rate over the top frequency from which an envelope may be sampled at half the rate: beats within its band, up to 3/8
of the rate, then fold to frequencies above the top."""
LOWEST_CARRIER = 1 / 8
"""Lowest frequency of the envelope as a share of the rate: it covers the upper three quarters of the band."""
UNIT_DEVIATION = 0.05
"""Standard deviation a view's signal is brought to before the logarithm."""
LOG_FLOOR = 1e-10
LARGEST_MS, LARGEST_HZ = 20_000, 100_000
MIN_BINS, MAX_BINS = 8, 4096
POINTS_PER_OCTAVE = 24
"""Points per octave of the logarithmic frequency axis: 3 % apart."""

Spectrum = npt.NDArray[np.complexfloating[Any, Any]]


@dataclass(frozen=True)
class View:
    """Description of one view; `kind` says what is transformed.

    `envelope`: Hilbert envelope of the upper three quarters of the band. `slow`: the signal itself, low-passed.
    `modulation`: the level of each of twelve half-octave bands, frame by frame.
    """

    kind: Literal["envelope", "slow", "modulation"]
    top_hz: int = 600
    """Bins go up to this frequency; for `modulation` half the rate of the frames (50 Hz) at most."""
    window_ms: int = 500
    """Length of a frame: bins are 1000 / window_ms Hz wide."""
    hop_ms: int = 40
    lowest_hz: int = 0
    """0: bins evenly spaced from 0. Else a logarithmic axis from here, 24 points an octave, on which a machine that
    runs a little faster has the same spectrum, moved; not for `modulation`."""

    def __post_init__(self) -> None:
        """Refuse values that no view can have."""
        if self.kind not in {"envelope", "slow", "modulation"}:
            raise BadArtifactError(f"view of kind {self.kind!r} is not known to this version; update fisher-edge")
        for name, lowest, largest in (
            ("top_hz", 1, LARGEST_HZ),
            ("window_ms", 1, LARGEST_MS),
            ("hop_ms", 1, LARGEST_MS),
            ("lowest_hz", 0, LARGEST_HZ),
        ):
            value = getattr(self, name)
            if type(value) is not int or not lowest <= value <= largest:
                raise BadArtifactError(
                    f"view {self.kind} has {name}={value!r}, not a whole number from {lowest} to {largest}; use a "
                    "bundle from this project"
                )
        if self.kind == "modulation" and (self.lowest_hz or self.top_hz > FRAMES_PER_S // 2):
            raise BadArtifactError(
                f"view modulation has top_hz={self.top_hz}, lowest_hz={self.lowest_hz}, not up to {FRAMES_PER_S // 2} "
                "and 0; use a bundle from this project"
            )
        if not MIN_BINS <= self.bins <= MAX_BINS:
            raise BadArtifactError(
                f"view {self.kind} from {self.lowest_hz} to {self.top_hz} Hz with window_ms={self.window_ms} has "
                f"{self.bins} bins, not {MIN_BINS} to {MAX_BINS}; use a bundle from this project"
            )

    @property
    def name(self) -> str:
        """What the view is called in results: envelope-1000hz."""
        return f"{self.kind}-{self.top_hz}hz"

    @property
    def bins(self) -> int:
        """Numbers in the vector of this view."""
        if self.lowest_hz:
            return round(POINTS_PER_OCTAVE * math.log2(self.top_hz / self.lowest_hz)) + 1
        return (BANDS if self.kind == "modulation" else 1) * (self.top_hz * self.window_ms // 1000)

    @property
    def frame_hz(self) -> float:
        """Rate (Hz) that the signal is decimated to: 2000 Hz for 600 Hz in frames of 500 ms, 3240 Hz for 1000 Hz."""
        return fast_length(round(OVERSAMPLING * self.top_hz * self.window_ms / 1000)) * 1000 / self.window_ms

    @classmethod
    def from_dict(cls, values: Any) -> "View":
        """Rebuild a view from what `to_dict` wrote; no field but `lowest_hz` may be missing, none unknown."""
        known = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or values.keys() | {"lowest_hz"} != known:
            raise BadArtifactError(
                f"view {values!r:.80} does not have the fields {', '.join(sorted(known))} and no others; update "
                "fisher-edge or export the bundle again"
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the description as plain JSON values."""
        return asdict(self)


ENVELOPE = View("envelope", top_hz=1000, lowest_hz=10)
MODULATION = View("modulation", top_hz=40, window_ms=1000, hop_ms=500)


def view_vector(view: View, wave: FloatArray, rate_hz: Rate) -> FloatArray:
    """Return the view of a signal (n,) by itself: see `view_of`."""
    return view_of(view, Segment(wave, rate_hz))


def view_of(view: View, segment: Segment) -> FloatArray:
    """Return the view of a segment of signal (n,), at any level, as a vector (bins,) of unit length.

    Its mean is 0, but for `modulation`, which has no negative numbers. A few samples are left out at its end, so that
    its length has small factors. At a rate below twice `top_hz` the bins above half the rate are 0. A
    segment shorter than one frame makes one frame, padded with zeros: its resolution is that of its length. A segment
    without a view (constant, or a carrier without modulation) has a vector of zeros, which is similar to nothing.
    Raises BadInputError for other shapes, fewer than two samples, a rate below 2 Hz, NaN and Inf.
    """
    wave, rate_hz = segment.samples, segment.rate_hz
    if wave.ndim != 1 or len(wave) < 2 or rate_hz < 2:
        raise BadInputError(
            f"signal of shape {wave.shape} at {rate_text(rate_hz)} Hz has no view; give samples of one channel"
        )
    if not np.isfinite(wave).all():
        raise BadInputError("signal holds NaN or Inf and has no view; check the sensor")
    if segment.scaled is None or segment.spectrum is None:
        return np.zeros(view.bins, np.float32)
    if view.kind == "modulation":
        return _unit(modulation_spectrum(segment.amplitude, view.top_hz, view.window_ms, view.hop_ms).ravel())
    source: FloatArray = segment.scaled
    spectrum: Spectrum = segment.spectrum
    seconds = len(source) / float(rate_hz)
    if view.kind == "envelope":
        source = _demodulated(spectrum, len(source), halved=float(rate_hz) >= HALVED_FROM * view.top_hz)
        spectrum = np.fft.rfft(source - np.float32(np.mean(source, dtype=np.float64)))
    slow = _decimated(spectrum, len(source), max(2, round(seconds * min(float(rate_hz), view.frame_hz))))
    deviation = float(np.std(slow, dtype=np.float64))
    if deviation <= FAINTEST * float(np.max(source)):
        return np.zeros(view.bins, np.float32)
    return _log_spectrum(view, slow * np.float32(UNIT_DEVIATION / deviation), len(slow) / seconds)


def _demodulated(spectrum: Spectrum, samples: int, *, halved: bool) -> FloatArray:
    """Magnitude of the analytic signal of the upper three quarters of the band, from the spectrum of so many samples.

    `halved` leaves out every second sample of an even number: moved down to begin at 0, which changes no magnitude, the
    analytic signal fits half the rate. Memory is used again where it can be: fetching new pages costs as much as the
    transforms.
    """
    bins, lowest = len(spectrum), math.ceil(LOWEST_CARRIER * samples)
    analytic = np.zeros(samples // 2 if halved and samples % 2 == 0 else samples, np.complex64)
    np.multiply(spectrum[lowest:], 2 * len(analytic) / samples, out=analytic[: bins - lowest], casting="same_kind")
    if samples % 2 == 0:
        analytic[bins - lowest - 1] /= 2  # half the rate has no negative twin
    magnitude: FloatArray = np.abs(np.fft.ifft(analytic, out=analytic))  # type: ignore[arg-type]  # NumPy's annotation
    return magnitude


def _decimated(spectrum: Spectrum, samples: int, fewer: int) -> FloatArray:
    """Return a signal, given as the spectrum of its `samples`, as `fewer` samples over the same time, band-limited."""
    decimated = np.fft.irfft(spectrum[: fewer // 2 + 1], fewer) * np.float32(fewer / samples)
    return decimated.astype(np.float32)


def _log_spectrum(view: View, wave: FloatArray, rate_hz: float) -> FloatArray:
    """Time mean of the log amplitude spectrum (bins,), its own mean removed, of unit length."""
    length = max(2, round(view.window_ms * rate_hz / 1000))
    frame = min(length, len(wave))
    hop = max(1, round(view.hop_ms * rate_hz / 1000))
    frames = np.lib.stride_tricks.sliding_window_view(wave, frame)[::hop]
    window = hann(frame).astype(np.float32)
    bins = math.ceil(view.top_hz * view.window_ms / 1000) + (1 if view.lowest_hz else 0)
    magnitude = np.abs(np.fft.rfft(frames * window, length)[:, :bins])
    log = np.log(magnitude + LOG_FLOOR).mean(axis=0, dtype=np.float64)
    if view.lowest_hz:
        log = _on_log_axis(view, log, np.arange(len(log)) * rate_hz / length)
    vector = np.zeros(view.bins, np.float32)
    vector[: len(log)] = log - log.mean()
    return _unit(vector)


def _on_log_axis(
    view: View, log: npt.NDArray[np.float64], frequencies_hz: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Values of a spectrum on the view's logarithmic axis, as far as the spectrum goes."""
    axis = np.geomspace(view.lowest_hz, view.top_hz, view.bins)
    reached = axis[axis <= max(frequencies_hz[-1], view.lowest_hz)]
    return np.asarray(np.interp(reached, frequencies_hz, log))


def _unit(vector: FloatArray) -> FloatArray:
    """Scale a vector to unit length; zeros stay zeros."""
    return (vector / max(float(np.linalg.norm(vector.astype(np.float64))), 1e-12)).astype(np.float32)
