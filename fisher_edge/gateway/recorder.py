"""Recording of takes from a running sensor: block by block, on the thread of its reader. Start at `Recorder.push`."""

import threading
from dataclasses import dataclass, replace

from fisher_edge.decision.calibrate import BLOCKS
from fisher_edge.dsp.blocks import Block, Rate
from fisher_edge.errors import StateError
from fisher_edge.gateway.context import NOT_KNOWN, Situation
from fisher_edge.store.takes import PendingTakes, TakeFacts, TakeWriter

__all__ = ["Progress", "Recorder"]

# A take is a part of the recording, but no longer than this, and no shorter than so many windows of signal.
LONGEST_TAKE_S = 300.0
SHORTEST_TAKE_WINDOWS = 4
# Between two bursts, or while samples are missing, no more than this passes.
LONGEST_SILENCE_S = 3600.0
ROUNDING_S = 1e-6


@dataclass(frozen=True)
class Progress:
    """How far a recording is: seconds of `of_s` and complete takes; `problem`: why it cannot go on."""

    seconds: float
    of_s: float
    takes: int
    ended: bool
    problem: str | None = None


class Recorder:
    """Records one channel for `length_s` of signal and of silence between, a new take at every gap and change of state.

    `facts` says how the takes are to be cut; rate, time and, unless it names one, operating state are filled in.
    """

    def __init__(self, takes: PendingTakes, facts: TakeFacts, length_s: float) -> None:
        self._takes, self._facts, self._length_s = takes, facts, length_s
        self._take_s = min(length_s / BLOCKS, LONGEST_TAKE_S)
        self._lock = threading.Lock()
        self._writer: TakeWriter | None = None
        self._state: str | None = None
        self._next_index = 0
        self._rate_hz: Rate = 0
        self._end_s: float | None = None
        self._take_begun_s = 0.0
        self._seconds = 0.0
        self._count = 0
        self._ended = False
        self._problem: str | None = None

    def push(self, block: Block, situation: Situation = NOT_KNOWN) -> None:
        """Take the next block; while the machine idles nothing is recorded."""
        with self._lock:
            if self._ended:
                return
            try:
                self._push(block, situation)
            except (OSError, RuntimeError, StateError) as error:  # soundfile raises RuntimeErrors
                self._ended, self._problem = True, f"a take cannot be written: {error}; make room on the disk"

    def stop(self, problem: str | None = None) -> None:
        """End the recording, for a reason where there is one; what was recorded stays."""
        with self._lock:
            if not self._ended:
                self._end_take()
                self._ended, self._problem = True, problem

    def progress(self) -> Progress:
        """Return how far it is."""
        with self._lock:
            return Progress(self._seconds, self._length_s, self._count, self._ended, self._problem)

    def _push(self, block: Block, situation: Situation) -> None:
        """Write a block, into a new take where the signal or the state does not go on."""
        state = self._facts.state or situation.state
        broken = block.index != self._next_index or block.rate_hz != self._rate_hz
        if broken and self._end_s is not None:  # a clock that is set must not end the recording, or prolong it
            self._seconds += min(max(0.0, block.time_s - self._end_s), LONGEST_SILENCE_S)
        ends = broken and not self._facts.bursts
        if ends or situation.idle or state != self._state or self._is_long():
            self._end_take()
        if not situation.idle:
            self._write(block, state)
        length_s = float(len(block.samples) / block.rate_hz)
        self._next_index, self._rate_hz = block.index + len(block.samples), block.rate_hz
        self._end_s = block.time_s + length_s
        self._seconds += length_s
        if self._seconds >= self._length_s - ROUNDING_S:
            self._end_take()
            self._ended = True

    def _write(self, block: Block, state: str | None) -> None:
        """Write a block into the take under way, or into the next one."""
        if self._writer is None:
            facts = replace(self._facts, rate=str(block.rate_hz), recorded_s=block.time_s, state=state)
            self._writer, self._state, self._take_begun_s = self._takes.begin(facts), state, self._seconds
        self._writer.write(block.samples, block.time_s)

    def _is_long(self) -> bool:
        """Whether the take under way is a part of the recording by now, and holds enough windows."""
        if self._writer is None:
            return False
        signal_s = self._writer.samples / self._rate_hz
        enough = signal_s >= SHORTEST_TAKE_WINDOWS * self._facts.window_s
        return enough and self._seconds - self._take_begun_s >= self._take_s - ROUNDING_S

    def _end_take(self) -> None:
        """Complete the take under way."""
        if self._writer is not None:
            self._writer.close()
            self._writer, self._count = None, self._count + 1
