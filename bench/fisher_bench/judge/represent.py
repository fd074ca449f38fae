"""Representations: one vector a window, from an encoder or from a plain spectrum. Start at `encoded`.

All of them see the same amplitude, standardised by the standard deviation that simultaneous channels share, or raw.
An encoder that sees pieces on a grid gets each standardised by itself, as in the runtime.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from fisher_bench.judge.corpus import Window
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.frontend import STANDARD_DEVIATION, FrontEnd
from fisher_edge.dsp.grid import stretches
from fisher_edge.dsp.spectra import short_time_spectra
from fisher_edge.dsp.views import ENVELOPE, View, view_vector
from fisher_export.verify import embed_with_torch
from fisher_train.encoder import Encoder, EncoderConfig
from fisher_train.objectives.pooled import pooled_target

__all__ = [
    "CHEAP",
    "Embed",
    "Represent",
    "concatenated",
    "embedder",
    "encoded",
    "exact_target",
    "random_encoder",
    "viewed",
]

Represent = Callable[[Sequence[Window]], FloatArray]
"""Windows of one dataset to vectors (n, length), float32."""
Embed = Callable[[Sequence[FloatArray]], FloatArray]
"""Sub-bands (bands, frames, band_width) of the pieces of a window to its embedding (bands, dim)."""
MEL_BANDS = 128
EPSILON = 1e-12


def encoded(embed: Embed, front_end: FrontEnd) -> Represent:
    """[CLS] of the sub-bands, concatenated."""

    def represent(windows: Sequence[Window]) -> FloatArray:
        bins = _common_bins(front_end, windows)
        return np.stack([embed(_sub_bands(front_end, window, bins)).ravel() for window in windows])

    return represent


def embedder(encoder: Encoder, front_end: FrontEnd) -> Embed:
    """Run an encoder of PyTorch on every piece and average."""

    def embed(pieces: Sequence[FloatArray]) -> FloatArray:
        split = [piece for bands in pieces for piece in np.moveaxis(front_end.pieces(bands), 1, 0)]
        return _mean_of([embed_with_torch(encoder, bands) for bands in split])

    return embed


def random_encoder(config: EncoderConfig, seed: int) -> Encoder:
    """An encoder with the weights it starts training from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(config).eval()


def exact_target(config: EncoderConfig) -> Embed:
    """Compute the training target of the preserved part of a [CLS]: the bound of what predicting it can reach."""

    def target(pieces: Sequence[FloatArray]) -> FloatArray:
        return _mean_of([pooled_target(torch.from_numpy(bands), config).numpy() for bands in pieces])

    return target


def viewed(view: View, front_end: FrontEnd) -> Represent:
    """A derived view as the runtime computes it: the mean over the pieces of the front-end."""

    def vector(window: Window) -> FloatArray:
        parts = stretches(front_end, len(window.wave), window.rate_hz)
        return _mean_of([view_vector(view, window.wave[part], window.rate_hz) for part in parts])

    def represent(windows: Sequence[Window]) -> FloatArray:
        return np.stack([vector(window) for window in windows])

    return represent


def concatenated(first: Represent, second: Represent) -> Represent:
    """Two representations side by side, each of unit length."""

    def represent(windows: Sequence[Window]) -> FloatArray:
        parts = [part(windows) for part in (first, second)]
        return np.concatenate([part / (np.linalg.norm(part, axis=1, keepdims=True) + EPSILON) for part in parts], 1)

    return represent


def _of_spectra(summary: Callable[[FloatArray], FloatArray]) -> Callable[[FrontEnd], Represent]:
    """Summarise the normalised log spectra (frames, bins) of every window."""

    def build(front_end: FrontEnd) -> Represent:
        def represent(windows: Sequence[Window]) -> FloatArray:
            bins = min(_bins(front_end, window) for window in windows)
            spectra = (_log_spectra(front_end, window)[:, :bins] for window in windows)
            return np.stack([summary(spectrum) for spectrum in spectra]).astype(np.float32)

        return represent

    return build


def _mean(spectra: FloatArray) -> FloatArray:
    average: FloatArray = spectra.mean(0)
    return average


def _centred_mean(spectra: FloatArray) -> FloatArray:
    average = _mean(spectra)
    centred: FloatArray = average - average.mean()
    return centred


def _mean_and_deviation(spectra: FloatArray) -> FloatArray:
    return np.concatenate([spectra.mean(0), spectra.std(0)])


def _log_mel(front_end: FrontEnd) -> Represent:
    """Mean and deviation of 128 log-mel bands over 25 ms frames."""

    def represent(windows: Sequence[Window]) -> FloatArray:
        top_hz = min(window.rate_hz for window in windows) / 2
        summaries = [_mean_and_deviation(_mel(front_end, window, top_hz)) for window in windows]
        return np.stack(summaries)

    return represent


def _envelope_spectrum(front_end: FrontEnd) -> Represent:
    """The demodulated view by itself."""
    return viewed(ENVELOPE, front_end)


CHEAP: dict[str, Callable[[FrontEnd], Represent]] = {
    "mean log-STFT": _of_spectra(_mean),
    "mean log-STFT, centred": _of_spectra(_centred_mean),
    "mean + std": _of_spectra(_mean_and_deviation),
    "log-mel": _log_mel,
    "envelope spectrum": _envelope_spectrum,
}
"""What an encoder has to beat."""


def _bins(front_end: FrontEnd, window: Window) -> int:
    return front_end.n_fft(window.rate_hz) // 2 + 1


def _common_bins(front_end: FrontEnd, windows: Sequence[Window]) -> int:
    """Bins that all windows have, when their rates differ (0 when they do not)."""
    rates = {window.rate_hz for window in windows}
    return min(front_end.n_fft(rate) // 2 + 1 for rate in rates) if len(rates) > 1 else 0


def _sub_bands(front_end: FrontEnd, window: Window, common_bins: int) -> list[FloatArray]:
    """Sub-bands of the pieces of a window; only those which all rates fill when rates differ."""
    pieces = []
    for piece in _pieces(front_end, window):
        bands = front_end.bands_of(_magnitude(front_end, piece), _gain(front_end, piece), piece.rate_hz)
        pieces.append(bands[: common_bins // front_end.band_width] if common_bins else bands)
    return pieces


def _pieces(front_end: FrontEnd, window: Window) -> list[Window]:
    """Cut a window into the pieces of its encoder, each with its own deviation; simultaneous channels stay related."""
    if not front_end.on_grid:
        return [window]
    own = float(np.std(window.wave, dtype=np.float64))
    shared = window.deviation / own if own > 0 else 1.0
    pieces = []
    for part in stretches(front_end, len(window.wave), window.rate_hz):
        wave = window.wave[part] - np.mean(window.wave[part], dtype=np.float64)
        pieces.append(replace(window, wave=wave.astype(np.float32), deviation=float(np.std(wave)) * shared))
    return pieces


def _mean_of(vectors: Sequence[FloatArray]) -> FloatArray:
    """Mean over pieces, float32."""
    return np.asarray(np.mean(vectors, axis=0, dtype=np.float64), np.float32)


def _log_spectra(front_end: FrontEnd, window: Window) -> FloatArray:
    log = np.log(_magnitude(front_end, window) * _gain(front_end, window) + 1e-10)
    normalised: FloatArray = (log - front_end.mean) / (2 * front_end.std)
    return normalised


def _mel(front_end: FrontEnd, window: Window, top_hz: float) -> FloatArray:
    magnitude = _magnitude(front_end, window) * _gain(front_end, window)
    filters = _mel_filters(magnitude.shape[1], window.rate_hz, top_hz)
    return np.log(magnitude**2 @ filters + 1e-10).astype(np.float32)


def _mel_filters(bins: int, rate_hz: int, top_hz: float) -> npt.NDArray[np.float64]:
    """Triangular filters (bins, 128), evenly spaced in mel (HTK: 2595 log10(1 + f / 700))."""
    edges = 700 * (10 ** (np.linspace(0, np.log10(1 + top_hz / 700), MEL_BANDS + 2)) - 1)
    f = np.linspace(0, rate_hz / 2, bins)[:, None]
    rise = (f - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - f) / (edges[2:] - edges[1:-1])
    filters: npt.NDArray[np.float64] = np.clip(np.minimum(rise, fall), 0, None)
    return filters


def _magnitude(front_end: FrontEnd, window: Window) -> FloatArray:
    spectra = short_time_spectra(window.wave, front_end.n_fft(window.rate_hz), front_end.hop(window.rate_hz))
    return spectra.magnitude[: front_end.max_frames]


def _gain(front_end: FrontEnd, window: Window) -> float:
    """Factor that brings the amplitude to what the front-end expects."""
    if front_end.amplitude == "raw" or window.deviation == 0:
        return 1.0
    return STANDARD_DEVIATION / window.deviation
