"""The streaming form of the front-end: blocks in any chunking, out come the windows of the batch form.

Frames are transformed once, as their samples arrive; a window centres and scales its own copy.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import Block, FloatArray
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.spectra import Spectra, short_time_spectra
from fisher_edge.errors import BadInputError

__all__ = ["Window", "WindowStream"]


@dataclass(frozen=True, eq=False)
class Window:
    """One analysis window: its sub-bands, its samples and where it lies in the stream.

    `bands` has shape (bands, frames, band_width), `samples` (n,); `start` is the index of its first sample,
    `end_time_s` the time just after its last, in seconds since 1970-01-01 UTC.
    """

    bands: FloatArray
    samples: FloatArray
    rate_hz: int
    start: int
    end_time_s: float

    @property
    def seconds(self) -> float:
        """Length of the window in seconds."""
        return len(self.samples) / self.rate_hz


class WindowStream:
    """Cuts one channel's blocks into windows of `window_frames`, a new one every `hop_frames`.

    A gap in the blocks ends the window under way: what lies before and after it is never spliced.
    """

    def __init__(self, front_end: FrontEnd, rate_hz: int, window_frames: int, hop_frames: int) -> None:
        front_end.check_rate(rate_hz)
        if not 1 <= window_frames <= front_end.max_frames:
            raise BadInputError(
                f"a window of {window_frames} frames is not within 1 and {front_end.max_frames}; choose window_s "
                f"between {front_end.hop_ms / 1000:g} and {front_end.max_frames * front_end.hop_ms / 1000:g}"
            )
        if hop_frames < 1:
            raise BadInputError(f"hop of {hop_frames} frames is below 1; choose hop_s of at least 0.01")
        self.front_end = front_end
        self.rate_hz = rate_hz
        self.window_frames = window_frames
        self.hop_frames = hop_frames
        self.gaps = 0
        self._n_fft = front_end.n_fft(rate_hz)
        self._hop = front_end.hop(rate_hz)
        self._samples_per_window = front_end.n_samples(window_frames, rate_hz)
        self._expected: int | None = None
        self._restart(0)

    def push(self, block: Block) -> list[Window]:
        """Take the next block and return the windows that it completes, oldest first."""
        if block.rate_hz != self.rate_hz:
            raise BadInputError(f"block at {block.rate_hz} Hz in a stream of {self.rate_hz} Hz; start a new stream")
        if block.index != self._expected:
            self.gaps += self._expected is not None
            self._restart(block.index)
        self._expected = block.index + len(block.samples)
        self._take(block.samples)
        windows = []
        while len(self._magnitude) >= self.window_frames:
            windows.append(self._window(block))
            self._advance()
        return windows

    def _restart(self, index: int) -> None:
        """Forget everything and begin a window at sample `index`."""
        self._start = index
        self._skip = 0
        self._samples = _RowBuffer((), np.float32)
        self._magnitude = _RowBuffer((self._n_fft // 2 + 1,), np.float32)
        self._low = _RowBuffer((2,), np.complex128)

    def _take(self, samples: FloatArray) -> None:
        """Keep what a window will use and transform the frames that have become complete."""
        skipped = min(self._skip, len(samples))
        self._skip -= skipped
        self._samples.append(samples[skipped:])
        done = len(self._magnitude) * self._hop
        if len(self._samples) - done >= self._n_fft:
            new = short_time_spectra(self._samples.rows[done:], self._n_fft, self._hop)
            self._magnitude.append(new.magnitude)
            self._low.append(new.low)

    def _window(self, block: Block) -> Window:
        """Build the window at the front of the buffers; its end lies in `block`."""
        samples = self._samples.rows[: self._samples_per_window].copy()
        centre, gain = self.front_end.centre_and_gain(samples)
        spectra = Spectra(self._magnitude.rows[: self.window_frames], self._low.rows[: self.window_frames])
        magnitude = spectra.centred(centre, self._n_fft)
        end = self._start + self._samples_per_window
        return Window(
            bands=self.front_end.bands_of(magnitude, gain, self.rate_hz),
            samples=samples,
            rate_hz=self.rate_hz,
            start=self._start,
            end_time_s=block.time_s + (end - block.index) / self.rate_hz,
        )

    def _advance(self) -> None:
        """Move the front of the buffers to where the next window starts."""
        step = self.hop_frames * self._hop
        self._start += step
        self._skip = max(0, step - len(self._samples))
        self._samples.drop(step)
        self._magnitude.drop(self.hop_frames)
        self._low.drop(self.hop_frames)


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
