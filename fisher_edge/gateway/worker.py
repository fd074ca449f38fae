"""The worker of a gateway: takes work in turn, judges windows, writes what follows. Start at `Worker.run`."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from fisher_edge.decision.alarm import AlarmMachine
from fisher_edge.decision.judge import WindowJudge, distrusted
from fisher_edge.decision.judgement import Change, Judgement, Result, Standing, State
from fisher_edge.dsp.grid import Grid
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.windows import EmbeddedWindow, Reading, WindowJoiner, read
from fisher_edge.errors import BadInputError, DamagedStateError, StateError
from fisher_edge.gateway.reader import Cutting
from fisher_edge.gateway.status import Counters
from fisher_edge.gateway.work import Interrupt, JudgePiece, Reload, Work, WorkQueue
from fisher_edge.names import ChannelKey
from fisher_edge.store.records import Records

__all__ = ["Monitored", "Plan", "Worker"]

RETRY_S = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a channel is judged by: an encoder, how its stream is cut for it, and the judge.

    `reason` says why the channel cannot be read or judged as it is configured; None when it can.
    """

    encoder: Encoder
    cutting: Cutting
    judge: WindowJudge
    reason: str | None = None
    baseline_version: int | None = None


@dataclass
class Monitored:
    """One channel as the worker has it."""

    key: ChannelKey
    unit: str
    plan: Plan
    machine: AlarmMachine
    counters: Counters
    last: Judgement | None = None
    grid: Grid | None = None
    _joiner: WindowJoiner | None = None
    _last_number: int | None = None
    _dropped: int = 0
    _failed: bool = False

    def reload(self, plan: Plan) -> None:
        """Judge by another plan from the next window on; an alarm against the baseline before is over."""
        self.plan = plan
        self.machine.forget()
        self._joiner = None

    def read(self, work: JudgePiece) -> Reading:
        """Embed a piece."""
        (reading,) = read(self.plan.encoder, self.plan.cutting.front_end, [work.piece], views=self.plan.judge.views)
        return reading if work.distrust is None else replace(reading, fault=work.distrust)

    def join(self, work: JudgePiece, reading: Reading) -> EmbeddedWindow | None:
        """Put a reading into the window under way; return the window when it is complete."""
        if self._joiner is None or work.grid is not self.grid:
            self._joiner, self.grid, self._last_number = WindowJoiner(work.grid), work.grid, None
        return self._joiner.push(reading)

    def judge(self, window: EmbeddedWindow) -> Judgement:
        """Judge a window; whatever goes wrong stays with its channel, which then says check_function."""
        started = time.perf_counter()
        try:
            judgement = self.plan.judge.judge(window)
        except Exception as error:
            if not self._failed:
                log.exception("channel %s: a window could not be judged", self.key)
            self._failed = True
            return distrusted(window, self.plan.judge.model, f"internal error, {type(error).__name__}: {error}")
        self._failed = False
        return replace(judgement, latency_ms=1000 * (time.perf_counter() - started))

    def skipped(self, work: JudgePiece, dropped: int) -> int:
        """Windows since the last one that were lost because pieces were dropped."""
        number, last = work.piece.number, self._last_number
        lost = dropped - self._dropped
        self._last_number, self._dropped = number, dropped
        if not lost:
            return 0
        return max(1, (number - last) // work.grid.hop_pieces - 1) if last is not None else 1

    def standing(self, time_s: float, dropped: int) -> Standing:
        """The latest state of the channel."""
        machine, counters = self.machine, self.counters
        return Standing(
            time_s=time_s,
            state=machine.state,
            since_s=machine.since_s,
            reason=machine.reason,
            judgement=self.last,
            unit=self.unit,
            gaps=counters.gaps,
            dropped=dropped,
            real_rate_hz=counters.real_rate_hz,
        )


class Worker:
    """Judges what waits in the queue and writes the outcome into the records."""

    def __init__(
        self,
        queue: WorkQueue,
        channels: Mapping[ChannelKey, Monitored],
        records: Records,
        reload: Callable[[ChannelKey], None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._channels = channels
        self._records = records
        self._reload = reload
        self._monotonic = monotonic
        self._clock = clock

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set."""
        while not stop.is_set():
            work = self._queue.get()
            if work is not None:
                try:
                    self.handle(work, stop)
                finally:
                    self._queue.done()

    def handle(self, work: Work, stop: threading.Event) -> None:
        """Do one piece of work; a fault of one channel never reaches another."""
        channel = self._channels[work.key]
        match work:
            case JudgePiece():
                self._judge(channel, work, stop)
            case Interrupt():
                channel.last = None
                change = channel.machine.interrupt(work.state, work.reason)
                self._put(channel, None, change, self._clock(), stop)
            case Reload():
                self._reload(work.key)

    def _judge(self, channel: Monitored, work: JudgePiece, stop: threading.Event) -> None:
        """Take the next piece of a channel; when a window is complete, judge it."""
        if work.piece.bands.shape[1] != work.grid.piece_frames:
            return  # cut for the plan before the last reload
        try:
            reading = channel.read(work)
            window = channel.join(work, reading)
        except Exception as error:
            log.exception("channel %s: a piece of the signal could not be read", channel.key)
            reason = f"internal error, {type(error).__name__}: {error}"
            change = channel.machine.interrupt(State.CHECK_FUNCTION, reason)
            self._put(channel, None, change, self._clock(), stop)
            return
        if window is None:
            return
        judgement = channel.judge(window)
        change = channel.machine.judge(judgement)
        skipped = channel.skipped(work, self._queue.dropped(channel.key))
        counters = channel.counters
        counters.results += 1
        counters.last_result_s, counters.latency_ms, counters.told = self._monotonic(), judgement.latency_ms, False
        channel.last = judgement
        result = Result(judgement, channel.machine.state, channel.unit, channel.machine.reason, skipped)
        try:
            self._put(channel, result, change, judgement.time_s, stop)
        except BadInputError as error:  # a number that cannot be written
            channel.last = distrusted(window, channel.plan.judge.model, f"a result cannot be written: {error}")
            change = channel.machine.judge(channel.last)
            result = Result(channel.last, channel.machine.state, channel.unit, channel.machine.reason, skipped)
            self._put(channel, result, change, judgement.time_s, stop)

    def _put(
        self, channel: Monitored, result: Result | None, change: Change | None, time_s: float, stop: threading.Event
    ) -> None:
        """Write to the records; while the database is locked or the disk full, say so once and try again.

        A damaged database ends the daemon: only its next start sets it aside.
        """
        if change:
            log.info("%s: %s -> %s (%s)", channel.key, change.before.value, change.after.value, change.reason)
        if result is None and change is None:
            return
        standing = channel.standing(time_s, self._queue.dropped(channel.key))
        failed = False
        while True:
            try:
                self._records.put(channel.key, result=result, change=change, standing=standing)
            except DamagedStateError:
                raise
            except StateError as error:
                if not failed:
                    log.error("%s; trying again every %g s", error, RETRY_S)  # noqa: TRY400 -- one line, no traceback
                failed = True
                if stop.wait(RETRY_S):
                    raise
            else:
                if failed:
                    log.info("the database can be written again")
                return
