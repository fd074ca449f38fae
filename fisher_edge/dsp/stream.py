"""The streaming form of the front-end: blocks in any chunking, out come the pieces of the batch form.

Each frame is transformed once, when the first piece that holds it is complete; a piece centres and scales its own copy.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import Block, FloatArray, Rate, rate_text
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import Grid
from fisher_edge.dsp.spectra import Spectra, short_time_spectra
from fisher_edge.errors import BadInputError

__all__ = ["Piece", "PieceStream", "check_block"]


@dataclass(frozen=True, eq=False)
class Piece:
    """The unit of embedding: its sub-bands, its samples and where it lies in the stream.

    `bands` has shape (bands, frames, band_width), `samples` (n,). `amplitude` (frames, bins) is that of the same frames
    without the mean of the piece, before scaling and logarithm. `number` counts the pieces of an unbroken run; a gap
    skips one at least. `start` is the index of the first sample, `end_time_s` the time just after the last, in
    seconds since 1970-01-01 UTC, and `seconds` the nominal time from the start of a piece to that of the next.

    A piece of bursts (see bursts.py) has the samples of its bursts one after the other: in `samples` each without its
    mean, in `raw` as they came. A piece of a stream at a lower rate (see resample.py) has in `raw` the samples as they
    came, at `raw_hz`. Of any other piece `raw` is None.
    """

    bands: FloatArray
    amplitude: FloatArray
    samples: FloatArray
    rate_hz: Rate
    number: int
    start: int
    end_time_s: float
    seconds: float
    raw: FloatArray | None = None
    raw_hz: Rate | None = None

    @property
    def of_bursts(self) -> bool:
        """Whether its samples are those of several bursts."""
        return self.raw is not None and self.raw_hz is None


def check_block(block: Block, rate_hz: Rate) -> None:
    """Refuse a block of another rate than that of its stream."""
    if block.rate_hz != rate_hz:
        raise BadInputError(
            f"block at {rate_text(block.rate_hz)} Hz in a stream of {rate_text(rate_hz)} Hz; start a new stream"
        )


class PieceStream:
    """Cuts one channel's blocks into the pieces of a grid.

    A gap in the blocks ends the piece under way, and the grid begins again after it: what lies before and after is
    never spliced.
    """

    def __init__(self, front_end: FrontEnd, rate_hz: Rate, grid: Grid) -> None:
        front_end.check_rate(rate_hz)
        self.front_end = front_end
        self.rate_hz = rate_hz
        self.grid = grid
        self.gaps = 0
        self._n_fft = front_end.n_fft(rate_hz)
        self._hop = front_end.hop(rate_hz)
        self._samples_per_piece = front_end.n_samples(grid.piece_frames, rate_hz)
        self._seconds = front_end.seconds_of(grid.piece_hop_frames, rate_hz)
        self._expected: int | None = None
        self._number = 0
        self._restart(0)

    def push(self, block: Block) -> list[Piece]:
        """Take the next block and return the pieces that it completes, oldest first."""
        check_block(block, self.rate_hz)
        if block.index != self._expected:
            if self._expected is not None:
                self.gaps += 1
                self._number += 1
            self._restart(block.index)
        self._expected = block.index + len(block.samples)
        skipped = min(self._skip, len(block.samples))
        self._skip -= skipped
        self._samples.append(block.samples[skipped:])
        pieces = []
        while len(self._samples) >= self._samples_per_piece:
            pieces.append(self._piece(block))
            self._advance()
        return pieces

    def _restart(self, index: int) -> None:
        """Forget everything and begin a piece at sample `index`."""
        self._start = index
        self._skip = 0
        self._samples = _RowBuffer((), np.float32)
        self._magnitude = _RowBuffer((self._n_fft // 2 + 1,), np.float32)
        self._low = _RowBuffer((2,), np.complex128)

    def _piece(self, block: Block) -> Piece:
        """Build the piece at the front of the buffers; its end lies in `block`."""
        samples = self._samples.rows[: self._samples_per_piece].copy()
        done = len(self._magnitude)
        end = self._start + self._samples_per_piece
        self._number += 1
        with np.errstate(over="ignore", invalid="ignore"):  # a damaged sensor's samples: the health check reports them
            new = short_time_spectra(samples[done * self._hop :], self._n_fft, self._hop)
            self._magnitude.append(new.magnitude)
            self._low.append(new.low)
            centre, gain = self.front_end.centre_and_gain(samples)
            amplitude = Spectra(self._magnitude.rows, self._low.rows).centred(centre, self._n_fft)
            bands = self.front_end.bands_of(amplitude, gain, self.rate_hz)
        return Piece(
            bands=bands,
            amplitude=amplitude,
            samples=samples,
            rate_hz=self.rate_hz,
            number=self._number - 1,
            start=self._start,
            end_time_s=block.time_s + float((end - block.index) / self.rate_hz),
            seconds=self._seconds,
        )

    def _advance(self) -> None:
        """Move the front of the buffers to where the next piece starts."""
        step = self.grid.piece_hop_frames * self._hop
        self._start += step
        self._skip = max(0, step - len(self._samples))
        self._samples.drop(step)
        self._magnitude.drop(self.grid.piece_hop_frames)
        self._low.drop(self.grid.piece_hop_frames)


class _RowBuffer:
    """A queue of array rows in one growing allocation: appending and dropping cost no copy of the whole."""

    def __init__(self, row_shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._store = np.empty((0, *row_shape), dtype)
        self._first = 0
        self._last = 0

    def __len__(self) -> int:
        return self._last - self._first

    @property
    def rows(self) -> npt.NDArray[Any]:
        """The rows in the queue, oldest first: a view, valid until the next change."""
        return self._store[self._first : self._last]

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Add rows at the end; the store moves to twice its size when they do not fit."""
        if self._last + len(rows) > len(self._store):
            moved = np.empty((2 * (len(self) + len(rows)), *self._store.shape[1:]), self._store.dtype)
            moved[: len(self)] = self.rows
            self._store, self._first, self._last = moved, 0, len(self)
        self._store[self._last : self._last + len(rows)] = rows
        self._last += len(rows)

    def drop(self, count: int) -> None:
        """Remove so many rows from the front, or all there are."""
        self._first += min(count, len(self))
