"""Reads one sensor on a thread of its own: source -> blocks -> pieces -> the queue of the worker. See `Reader`."""

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from fisher_edge.decision.alarm import Interruption
from fisher_edge.decision.common import Common
from fisher_edge.decision.judgement import State
from fisher_edge.dsp.blocks import Block, Rate, rate_text
from fisher_edge.dsp.bursts import BurstStream
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import Grid, at_rate, grid_of, over_bursts
from fisher_edge.dsp.resample import LoweredStream, stream_at
from fisher_edge.dsp.stream import Piece, PieceStream
from fisher_edge.errors import FisherEdgeError, SensorError
from fisher_edge.gateway.context import Context
from fisher_edge.gateway.recorder import Recorder
from fisher_edge.gateway.status import Counters
from fisher_edge.gateway.work import Interrupt, JudgePiece, WorkQueue
from fisher_edge.health.rate import RateMeter
from fisher_edge.names import ChannelKey
from fisher_edge.sources.source import Source

__all__ = ["Cutting", "Reader"]

LONGEST_PAUSE_S = 60.0
# A source that has worked for this long since it was opened has recovered: the next failure is a new one.
STABLE_S = 30.0
YEAR_10000_S = 253_402_300_800.0

Stream = PieceStream | LoweredStream | BurstStream

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cutting:
    """How the stream of a channel is cut: by which front-end, into which windows, and at which rate it must come.

    `rate_hz` None: any rate. `refused` says why the channel cannot be read at all as it is configured. With `bursts`
    frames of bursts are joined, across a silence of `max_gap_s` at most; `time_factor` is that of the baseline's grid.
    `common` says what the stream has in common with a baseline of another rate: its windows have as many frames.
    """

    front_end: FrontEnd
    window_s: float
    hop_s: float | None
    rate_hz: Rate | None = None
    refused: str | None = None
    bursts: bool = False
    time_factor: float = 1.0
    max_gap_s: float | None = None
    common: Common | None = None

    def grid(self, rate_hz: Rate) -> Grid:
        """Return the grid at a rate; raises SensorError at another rate than the expected one."""
        if self.rate_hz is not None and rate_hz != self.rate_hz:
            raise SensorError(self._other_rate(rate_hz))
        if self.common is not None:
            enrolled = grid_of(self.front_end, self.window_s, self.hop_s, self.common.enrolled_hz)
            return at_rate(self.front_end, enrolled, self.common.rate_hz)
        grid = grid_of(self.front_end, self.window_s, self.hop_s, rate_hz)
        return over_bursts(grid, self.time_factor) if self.bursts else grid

    def _other_rate(self, rate_hz: Rate) -> str:
        """Say that samples come at another rate than expected, and what to do."""
        assert self.rate_hz is not None
        came, expected = rate_text(rate_hz), rate_text(self.rate_hz)
        if self.common is not None:
            return f"samples come at {came} Hz, the configuration says other_rate_hz = {expected}; correct one of them"
        return (
            f"samples come at {came} Hz, the baseline was enrolled at {expected} Hz; correct the rate, enroll again, "
            f"or set other_rate_hz = {came} in its [[channel]] to judge by the bands that both rates have"
        )

    def begin(self, rate_hz: Rate) -> Stream:
        """Begin a stream; raises SensorError when the channel is refused, or comes at another rate than enrolled."""
        if self.refused is not None:
            raise SensorError(self.refused)
        return self.stream(rate_hz, self.grid(rate_hz))

    def stream(self, rate_hz: Rate, grid: Grid) -> Stream:
        """Begin a stream."""
        if self.bursts:
            return BurstStream(self.front_end, rate_hz, grid, self.max_gap_s)
        return stream_at(self.front_end, rate_hz, self.common.rate_hz if self.common else rate_hz, grid)


class Reader:
    """The reader of one channel. `cutting` may be replaced while it runs: the stream then starts again.

    `recorder` gets every block while it is there.
    """

    def __init__(
        self,
        key: ChannelKey,
        source: Source,
        cutting: Cutting,
        queue: WorkQueue,
        counters: Counters,
        *,
        context: Context | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.key = key
        self.cutting = cutting
        self.counters = counters
        self.recorder: Recorder | None = None
        self.finite = source.finite
        self._context = context or Context(None)
        self._source = source
        self._queue = queue
        self._monotonic = monotonic
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.run, name=f"reader {key}", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the reader to finish."""
        self._stop.set()

    def join(self, timeout_s: float) -> bool:
        """Wait until the source is closed; tell whether it is."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def run(self) -> None:
        """Read until stopped or until a finite source has ended; what fails is opened again after a growing pause."""
        failures = 0
        while not self._stop.is_set():
            opened_s = self._monotonic()
            try:
                self._read()
                if self.finite or self._stop.is_set():
                    break
                self._fail(State.NO_DATA, "the source has ended, which a live one must not; it is opened again", None)
            except Exception as error:  # noqa: BLE001 -- reported; a thread that ends is a silent loss
                expected = isinstance(error, FisherEdgeError | OSError)
                text = str(error) if expected else f"internal error, {type(error).__name__}: {error}"
                state: Interruption = State.CHECK_FUNCTION if isinstance(error, SensorError) else State.NO_DATA
                self._fail(state, text, None if expected else error)
            failures = 1 if self._monotonic() - opened_s > STABLE_S else failures + 1
            self._stop.wait(random.uniform(0.5, 1) * min(LONGEST_PAUSE_S, 2.0**failures))  # noqa: S311 -- jitter
        self.counters.ended = True

    def _read(self) -> None:
        """Open the source, and put the pieces of its blocks into the queue."""
        stream: Stream | None = None
        cutting: Cutting | None = None
        meter = RateMeter(0.0)
        gaps = 0
        with self._source:
            for block in self._source.blocks(self._stop):
                _check(block)
                if (recorder := self.recorder) is not None:
                    recorder.push(block, self._context.now())
                if stream is None or cutting is not self.cutting or block.rate_hz != stream.rate_hz:
                    cutting = self.cutting
                    try:
                        stream = cutting.begin(block.rate_hz)
                    except SensorError as error:
                        if recorder is None:
                            raise
                        stream = None  # what cannot be judged can be recorded, to be enrolled
                        self._fail(State.CHECK_FUNCTION, str(error), None)
                        continue
                    meter, gaps = RateMeter(float(block.rate_hz)), 0
                if not cutting.bursts:  # between bursts no samples come, by design
                    meter.push(block)
                pieces = stream.push(block)
                gaps = self._count(meter, stream.gaps - gaps, stream.gaps)
                self._put(pieces, stream.grid, meter.fault)
                if self._stop.is_set():
                    return
            if isinstance(stream, BurstStream):
                self._put(stream.end(), stream.grid, meter.fault)

    def _put(self, pieces: list[Piece], grid: Grid, distrust: str | None) -> None:
        """Put pieces into the queue."""
        situation = self._context.now()
        for piece in pieces:
            work = JudgePiece(self.key, piece, grid, distrust, situation)
            self._queue.put(work, self._stop, patient=self._source.patient)

    def _count(self, meter: RateMeter, new_gaps: int, gaps: int) -> int:
        """Note that a block has come; return the gaps of the stream so far."""
        now_s, counters = self._monotonic(), self.counters
        counters.last_block_s = now_s
        counters.real_rate_hz = meter.real_hz
        counters.gaps += new_gaps
        counters.gap_times_s.extend([now_s] * new_gaps)
        if counters.problem is not None:
            counters.problem, counters.recovered_s, counters.told = None, now_s, False
        return gaps

    def _fail(self, state: Interruption, reason: str, trace: BaseException | None) -> None:
        """Report why there are no samples, once for each reason."""
        if reason == self.counters.problem:
            return
        self.counters.problem = reason
        log.error("channel %s: %s", self.key, reason, exc_info=trace)
        self._queue.put(Interrupt(self.key, state, reason), self._stop)


def _check(block: Block) -> None:
    """Refuse a block whose time cannot be one."""
    if not (math.isfinite(block.time_s) and 0 <= block.time_s < YEAR_10000_S):
        raise SensorError(
            f"a block has the time {block.time_s:g}, which is not in seconds since 1970-01-01 UTC; correct the source"
        )
