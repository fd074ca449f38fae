"""From pieces to windows: what is read off a piece once, and how windows are put together from that.

Start at `read`; `WindowJoiner` makes windows of the readings of one channel.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fisher_edge.dsp.blocks import FloatArray, Rate
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import Grid
from fisher_edge.dsp.measures import Measures
from fisher_edge.dsp.segment import FRAME_MS, FRAMES_PER_S, Segment
from fisher_edge.dsp.stream import Piece
from fisher_edge.dsp.views import View, view_of
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.health.signal import hum_share, signal_fault

__all__ = ["EmbeddedWindow", "Reading", "WindowJoiner", "embed_window", "read"]


@dataclass(frozen=True, eq=False)
class Reading:
    """All that is known of a piece: `embedding` (bands, dim), `views` (bins,) each, measures and sensor health.

    A piece with a `fault` is not embedded: embedding and views are zeros, and where samples are not finite it has no
    measures. Bursts are too short to resolve hum, which is then 0. `number`, `start`, `end_time_s` and `seconds` are
    those of the piece, `rate_hz` is the rate of the sensor.
    """

    embedding: FloatArray
    views: tuple[FloatArray, ...]
    measures: Measures
    fault: str | None
    hum_share: float
    rate_hz: Rate
    number: int
    start: int
    end_time_s: float
    seconds: float


@dataclass(frozen=True, eq=False)
class EmbeddedWindow:
    """A window: `embedding` and `views` are the means of those of its pieces, `measures` are of all its samples.

    `fault` is the first of its pieces', `start` its first sample, `number` that of its last piece.
    """

    embedding: FloatArray
    views: tuple[FloatArray, ...]
    measures: Measures
    fault: str | None
    hum_share: float
    rate_hz: Rate
    start: int
    end_time_s: float
    window_s: float
    number: int


def read(
    encoder: Encoder, front_end: FrontEnd, pieces: Sequence[Piece], *, views: Sequence[View] | None = None
) -> list[Reading]:
    """Embed pieces, compute their views (None: those of the front-end) and measures, and check their sensor.

    `front_end` is that of the bundle, or that of an older baseline of the same encoder. Pieces may be of different
    channels and rates.
    """
    views = front_end.views if views is None else views
    faults = [
        signal_fault(piece.samples if piece.raw is None else piece.raw, piece.raw_hz or piece.rate_hz)
        for piece in pieces
    ]
    healthy = [piece.bands for piece, fault in zip(pieces, faults, strict=True) if fault is None]
    embeddings = iter(_embeddings(encoder, front_end, healthy))
    return [
        _reading(
            piece,
            fault,
            next(embeddings) if fault is None else np.zeros((len(piece.bands), encoder.bundle.dim), np.float32),
            views,
            front_end,
        )
        for piece, fault in zip(pieces, faults, strict=True)
    ]


def embed_window(encoder: Encoder, front_end: FrontEnd, pieces: Sequence[FloatArray]) -> FloatArray:
    """Embed a window that is given as the sub-bands of its pieces: (bands, dim)."""
    return _mean(_embeddings(encoder, front_end, pieces))


class WindowJoiner:
    """Puts the readings of one channel together into windows; a hole in their numbers begins a new run."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._readings: deque[Reading] = deque(maxlen=grid.window_pieces)
        self.missing = grid.window_pieces
        """Pieces still needed for the next window."""

    def push(self, reading: Reading) -> EmbeddedWindow | None:
        """Take the next reading and return the window that it completes, if it does."""
        if self._readings and reading.number != self._readings[-1].number + 1:
            self.missing = self._grid.window_pieces
        self._readings.append(reading)
        self.missing -= 1
        if self.missing:
            return None
        self.missing = self._grid.hop_pieces
        return _joined(self._readings, self._grid.window_s)


def _reading(
    piece: Piece, fault: str | None, embedding: FloatArray, views: Sequence[View], front_end: FrontEnd
) -> Reading:
    """Measure a piece. On a faulty one at most the plain measures can be computed."""
    samples, rate_hz = piece.samples, piece.rate_hz
    has_its_frames = (front_end.win_ms, front_end.hop_ms) == (FRAME_MS, 1000 // FRAMES_PER_S)
    segment = Segment(samples, rate_hz, piece.amplitude if has_its_frames else None)
    return Reading(
        embedding=embedding,
        views=tuple(np.zeros(view.bins, np.float32) if fault else view_of(view, segment) for view in views),
        measures=Measures() if fault and not np.isfinite(samples).all() else Measures.of(samples),
        fault=fault,
        hum_share=0.0 if fault or piece.of_bursts else hum_share(segment),
        rate_hz=piece.raw_hz or rate_hz,
        number=piece.number,
        start=piece.start,
        end_time_s=piece.end_time_s,
        seconds=piece.seconds,
    )


def _embeddings(encoder: Encoder, front_end: FrontEnd, pieces: Sequence[FloatArray]) -> list[FloatArray]:
    """Embed pieces (bands, frames, band_width) by the rule of the front-end: (bands, dim) each."""
    if front_end.on_grid:
        return encoder.embed(pieces)
    # A whole window goes in band by band, each with all its pieces: int8 models scale their activations by the largest
    # of a call, and baselines of the release before were enrolled with this scale.
    stacks = [front_end.pieces(bands) for bands in pieces]
    rows = iter(encoder.embed([stack for window in stacks for stack in window]))
    return [np.stack([next(rows).mean(axis=0) for _ in window]) for window in stacks]


def _joined(readings: Sequence[Reading], window_s: float) -> EmbeddedWindow:
    """Average consecutive readings."""
    first, last = readings[0], readings[-1]
    return EmbeddedWindow(
        embedding=_mean([reading.embedding for reading in readings]),
        views=tuple(_mean(vectors) for vectors in zip(*(reading.views for reading in readings), strict=True)),
        measures=Measures.combined([reading.measures for reading in readings]),
        fault=next((reading.fault for reading in readings if reading.fault), None),
        hum_share=float(np.mean([reading.hum_share for reading in readings])),
        rate_hz=last.rate_hz,
        start=first.start,
        end_time_s=last.end_time_s,
        window_s=window_s,
        number=last.number,
    )


def _mean(arrays: Sequence[FloatArray]) -> FloatArray:
    """Mean of arrays of one shape; a single one comes back bit by bit."""
    return np.asarray(np.mean(arrays, axis=0, dtype=np.float64), np.float32)
