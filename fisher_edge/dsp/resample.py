"""A stream at a lower rate: band-limited, the same samples however the blocks are cut. Start at `stream_at`.

The filter is a windowed sinc (Kaiser, 100 dB) in polyphase form. It passes 0.9 of half the lower rate and stops at half
of it. Source of the design: Oppenheim, Schafer, Discrete-Time Signal Processing, 7.5.3 (Kaiser window).
"""

import math
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fisher_edge.dsp.blocks import Block, FloatArray, Rate, rate_text
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import Grid
from fisher_edge.dsp.stream import Piece, PieceStream, check_block
from fisher_edge.errors import BadInputError

__all__ = ["HALF_LENGTH", "PASSED", "Downsampler", "LoweredStream", "stream_at"]

# Share of half the lower rate up to which a signal passes unchanged.
PASSED = 0.9
# Samples at the lower rate on either side of the middle of the filter, and the Kaiser parameter for 100 dB.
HALF_LENGTH = 64
KAISER = 0.1102 * (100 - 8.7)
# Most coefficients of all phases together: 16 MiB.
LARGEST_TABLE = 1 << 22
# Samples that are computed together: a bound of the memory.
CHUNK = 4096


def stream_at(front_end: FrontEnd, from_hz: Rate, to_hz: Rate, grid: Grid) -> "PieceStream | LoweredStream":
    """Begin a stream of samples that come at `from_hz` and are heard at `to_hz`, the same rate or a lower one."""
    return PieceStream(front_end, to_hz, grid) if from_hz == to_hz else LoweredStream(front_end, from_hz, to_hz, grid)


class LoweredStream:
    """A `PieceStream` at the lower rate `to_hz` of blocks that come at `from_hz`.

    Its pieces also hold the samples as they came, of which the checks of the sensor are made: a filter turns a flat
    line or a clipped wave into something else.
    """

    def __init__(self, front_end: FrontEnd, from_hz: Rate, to_hz: Rate, grid: Grid) -> None:
        self.rate_hz = from_hz
        self.grid = grid
        self._lower = Downsampler(from_hz, to_hz)
        self._stream = PieceStream(front_end, to_hz, grid)
        self._step = grid.piece_hop_frames * front_end.hop(to_hz)
        self._raw = np.zeros(0, np.float32)
        self._expected: int | None = None
        self._first = 0

    @property
    def gaps(self) -> int:
        """Gaps so far."""
        return self._stream.gaps

    def push(self, block: Block) -> list[Piece]:
        """Take the next block and return the pieces that it completes, oldest first."""
        check_block(block, self.rate_hz)
        if block.index != self._expected:
            self._raw, self._first = np.zeros(0, np.float32), block.index
        self._expected = block.index + len(block.samples)
        self._raw = np.concatenate([self._raw, block.samples])
        return [self._with_raw(piece) for piece in self._stream.push(self._lower.push(block))]

    def _with_raw(self, piece: Piece) -> Piece:
        """Add the samples that a piece was made of, and forget those before the next piece."""
        first, _ = self._lower.span(piece.start)
        _, last = self._lower.span(piece.start + len(piece.samples) - 1)
        raw = self._raw[first - self._first : last - self._first].copy()
        done = max(0, self._lower.span(piece.start + self._step)[0] - self._first)
        self._raw, self._first = self._raw[done:], self._first + min(done, len(self._raw))
        return replace(piece, raw=raw, raw_hz=self.rate_hz)


class Downsampler:
    """Brings one channel from `from_hz` to `to_hz`; sample m of the output lies at m / `to_hz` after input sample 0.

    A gap in the blocks is a gap in the output: the filter never spans it, so that its own length is missing as well.
    Raises BadInputError for rates that are no simple ratio.
    """

    def __init__(self, from_hz: Rate, to_hz: Rate) -> None:
        self.from_hz, self.to_hz = from_hz, to_hz
        ratio = Fraction(to_hz) / Fraction(from_hz)
        if ratio > 1:
            raise BadInputError(f"{rate_text(to_hz)} Hz is above {rate_text(from_hz)} Hz; resample to a lower rate")
        self._up, self._down = ratio.numerator, ratio.denominator
        self.half = math.ceil(HALF_LENGTH / ratio)
        """Samples of the input on either side that a sample of the output is made of."""
        if self._up * 2 * self.half > LARGEST_TABLE:
            raise BadInputError(
                f"{rate_text(from_hz)} Hz and {rate_text(to_hz)} Hz have no simple ratio ({ratio}); enroll recordings "
                "of the sensor's rate"
            )
        self._phases = _phases(self._up, self._down, self.half)
        self._expected: int | None = None
        self._kept = np.zeros(0, np.float32)
        self._first = 0
        self._next = 0

    def push(self, block: Block) -> Block:
        """Take the next block and return the samples that are complete with it, which may be none."""
        if block.index != self._expected:
            self._kept, self._first = np.zeros(0, np.float32), block.index
            self._next = -(-(block.index + self.half - 1) * self._up // self._down)
        self._expected = block.index + len(block.samples)
        self._kept = np.concatenate([self._kept, block.samples])
        start = self._next
        # The last one with `half` samples of the input after it.
        self._next = max(start, (self._expected - self.half - 1) * self._up // self._down + 1)
        samples = self._outputs(np.arange(start, self._next))
        self._drop()
        time_s = block.time_s + float((Fraction(start * self._down, self._up) - block.index) / Fraction(self.from_hz))
        return Block(samples, self.to_hz, start, time_s)

    def span(self, number: int) -> tuple[int, int]:
        """First sample of the input, and the one after the last, that an output is made of."""
        middle = number * self._down // self._up
        return middle - self.half + 1, middle + self.half + 1

    def _outputs(self, numbers: np.ndarray) -> FloatArray:
        """Samples of the output with these numbers (n,)."""
        output = np.empty(len(numbers), np.float32)
        places = numbers * self._down
        first = places // self._up - self.half + 1 - self._first
        phase = places % self._up
        for start in range(0, len(numbers), CHUNK):
            part = slice(start, start + CHUNK)
            around = sliding_window_view(self._kept, 2 * self.half)[first[part]]
            output[part] = np.einsum("ij,ij->i", around, self._phases[phase[part]])
        return output

    def _drop(self) -> None:
        """Forget the samples that no output needs any more."""
        done = min(len(self._kept), max(0, self.span(self._next)[0] - self._first))
        self._kept = self._kept[done:]
        self._first += done


@lru_cache(maxsize=8)
def _phases(up: int, down: int, half: int) -> FloatArray:
    """Coefficients (phases, 2 * half) for an output that lies 0, 1, ... `up` - 1 parts of `up` after an input sample.

    Each phase adds up to 1, so that a constant stays what it is.
    """
    ahead = np.arange(up)[:, None] / up
    offset = np.arange(1 - half, half + 1)[None] - ahead
    cutoff = (1 + PASSED) / 2 * up / down
    position = np.clip(offset / half, -1.0, 1.0)
    taps = np.sinc(cutoff * offset) * np.i0(KAISER * np.sqrt(1 - position**2))
    return np.asarray(taps / taps.sum(axis=1, keepdims=True), np.float32)
