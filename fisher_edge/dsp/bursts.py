"""The stream of a sensor that sends bursts: frames of consecutive bursts become pieces. Start at `BurstStream`.

A burst is an unbroken run of samples, a jump of the index ends it. Frames are joined, samples never: no frame spans two
bursts. Each burst loses its own mean; one standard deviation, over all samples of the bursts of a piece, scales it.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from fisher_edge.dsp.blocks import Block, FloatArray, Rate, rate_text
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import Grid
from fisher_edge.dsp.spectra import short_time_spectra
from fisher_edge.dsp.stream import Piece, check_block
from fisher_edge.errors import SensorError

__all__ = ["LONGEST_BURST_S", "BurstStream"]


# A burst is kept until it ends: a longer one is a continuous stream.
LONGEST_BURST_S = 60.0
# Bursts without a whole frame in a row after which they are no accident: losses inside a burst leave short rests.
SHORT_BURSTS = 10


@dataclass(frozen=True, eq=False)
class _Burst:
    """One burst: samples (n,) as they came and without their mean, amplitude of its whole frames (frames, bins)."""

    start: int
    end_time_s: float
    raw: FloatArray
    samples: FloatArray
    magnitude: FloatArray


class BurstStream:
    """Makes pieces of the bursts of one channel: a `PieceStream` in which a gap ends a burst, not the piece.

    A piece is complete when the burst with its last frame has ended, which the next burst says, or `end`. The next
    piece begins with the first burst that is at least `piece_hop_frames` frames later; a burst longer than a piece
    holds several. With `max_gap_s`, bursts that a longer silence separates are not joined; `gaps` counts those.
    """

    def __init__(self, front_end: FrontEnd, rate_hz: Rate, grid: Grid, max_gap_s: float | None = None) -> None:
        front_end.check_rate(rate_hz)
        self.front_end = front_end
        self.rate_hz = rate_hz
        self.grid = grid
        self.gaps = 0
        self._n_fft = front_end.n_fft(rate_hz)
        self._hop = front_end.hop(rate_hz)
        self._seconds = grid.time_factor * front_end.seconds_of(grid.piece_hop_frames, rate_hz)
        self._max_gap_s = max_gap_s
        self._longest = round(LONGEST_BURST_S * rate_hz)
        self._expected: int | None = None
        self._number = 0
        self._short = 0
        # Blocks of the burst under way; bursts from the one on in which the next piece begins, after `_skip` frames.
        self._blocks: list[Block] = []
        self._bursts: deque[_Burst] = deque()
        self._skip = 0

    def push(self, block: Block) -> list[Piece]:
        """Take the next block and return the pieces that are complete because it begins a burst, oldest first.

        Raises SensorError for a burst that does not end, and for bursts that are all shorter than a frame.
        """
        check_block(block, self.rate_hz)
        pieces = self.end() if block.index != self._expected else []
        self._expected = block.index + len(block.samples)
        if len(block.samples):
            self._check_silence(block)
            self._blocks.append(block)
        if self._blocks and self._expected - self._blocks[0].index > self._longest:
            self._blocks = []
            raise SensorError(
                f"samples have come without a gap for {LONGEST_BURST_S:g} s: this sensor does not send bursts; leave "
                "bursts out and enroll again"
            )
        return pieces

    def end(self) -> list[Piece]:
        """End the burst under way, as at the end of a recording, and return the pieces that are complete then."""
        burst = self._ended()
        if burst is None:
            return []
        self._bursts.append(burst)
        self._settle()
        pieces = []
        while sum(len(each.magnitude) for each in self._bursts) - self._skip >= self.grid.piece_frames:
            pieces.append(self._piece())
            self._skip += self.grid.piece_hop_frames
            self._settle()
        return pieces

    def _check_silence(self, block: Block) -> None:
        """Forget the bursts so far when the silence before the block that begins a burst was too long."""
        if self._blocks or self._max_gap_s is None or not self._bursts:
            return
        if block.time_s - self._bursts[-1].end_time_s > self._max_gap_s:
            self.gaps += 1
            self._number += 1
            self._bursts.clear()
            self._skip = 0

    def _ended(self) -> _Burst | None:
        """Transform the burst under way; None when there is none, or no whole frame in it."""
        blocks, self._blocks = self._blocks, []
        if not blocks:
            return None
        raw = np.concatenate([block.samples for block in blocks])
        if len(raw) < self._n_fft:
            self._count_short(len(raw))
            return None
        self._short = 0
        with np.errstate(over="ignore", invalid="ignore"):  # a damaged sensor's samples: the health check reports them
            centred = raw - np.mean(raw, dtype=np.float64)
            magnitude = short_time_spectra(centred, self._n_fft, self._hop).magnitude
            samples = centred.astype(np.float32)
        end_time_s = blocks[-1].time_s + float(len(blocks[-1].samples) / self.rate_hz)
        return _Burst(blocks[0].index, end_time_s, raw, samples, magnitude)

    def _count_short(self, samples: int) -> None:
        """Leave a burst without a whole frame out; refuse a sensor that sends no others."""
        self._short += 1
        if self._short >= SHORT_BURSTS:
            self._short = 0
            raise SensorError(
                f"bursts of {samples} samples at {rate_text(self.rate_hz)} Hz are shorter than one frame of "
                f"{self._n_fft} samples ({self.front_end.win_ms} ms); let the sensor send longer bursts"
            )

    def _piece(self) -> Piece:
        """Build the piece that begins after `_skip` frames of the first burst."""
        frames, used, held = self.grid.piece_frames, [], -self._skip
        for burst in self._bursts:
            used.append(burst)
            held += len(burst.magnitude)
            if held >= frames:
                break
        magnitude = np.concatenate([burst.magnitude for burst in used])[self._skip : self._skip + frames]
        samples = np.concatenate([burst.samples for burst in used])
        with np.errstate(over="ignore", invalid="ignore"):
            _, gain = self.front_end.centre_and_gain(samples)
            bands = self.front_end.bands_of(magnitude, gain, self.rate_hz)
        self._number += 1
        return Piece(
            bands=bands,
            amplitude=magnitude,
            samples=samples,
            rate_hz=self.rate_hz,
            number=self._number - 1,
            start=used[0].start,
            end_time_s=used[-1].end_time_s,
            seconds=self._seconds,
            raw=np.concatenate([burst.raw for burst in used]),
        )

    def _settle(self) -> None:
        """Drop the bursts before the one in which the next piece begins: within a burst only when a whole one fits."""
        while self._bursts and self._skip:
            left = len(self._bursts[0].magnitude) - self._skip
            if left >= self.grid.piece_frames:
                return
            self._skip = max(0, -left)
            self._bursts.popleft()
