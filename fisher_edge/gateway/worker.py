"""The worker of a gateway: takes work in turn, judges windows, writes what follows. Start at `Worker.run`."""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from fisher_edge.decision.judge import distrusted
from fisher_edge.decision.judgement import Change, Result, State
from fisher_edge.encoder.windows import Reading
from fisher_edge.errors import BadInputError, DamagedStateError, StateError
from fisher_edge.gateway.batch import read_together, tokens_in
from fisher_edge.gateway.desk import Desk
from fisher_edge.gateway.monitored import Monitored
from fisher_edge.gateway.work import Interrupt, JudgePiece, Reload, Work, WorkQueue
from fisher_edge.names import ChannelKey
from fisher_edge.store.records import Records

__all__ = ["Worker"]

RETRY_S = 1.0
# How often commands are looked for.
LOOK_S = 0.2

log = logging.getLogger(__name__)


class Worker:
    """Judges what waits in the queue and writes the outcome into the records."""

    def __init__(
        self,
        queue: WorkQueue,
        channels: Mapping[ChannelKey, Monitored],
        records: Records,
        reload: Callable[[ChannelKey], None],
        desk: Desk,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._channels = channels
        self._records = records
        self._reload = reload
        self._desk = desk
        self._looked_s = -math.inf
        self._monotonic = monotonic
        self._clock = clock

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set."""
        try:
            while not stop.is_set():
                self.obey(stop)
                works = self._gather()
                try:
                    self.handle(works, stop)
                finally:
                    for _ in works:
                        self._queue.done()
        finally:
            self._desk.close()

    def obey(self, stop: threading.Event) -> None:
        """Carry out what users ask for, a few times a second; while the database is locked, later."""
        if self._monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = self._monotonic()
        try:
            for command in self._desk.waiting():
                self._desk.take(command)
                outcome = self._desk.carry_out(command)
                if outcome.change is not None:
                    self._put(self._channels[command.key], None, outcome.change, self._clock(), stop)
                self._desk.answer(command, outcome)
            self._desk.look()
            for channel in self._channels.values():
                self._put(channel, None, channel.machine.expire(), self._clock(), stop)
        except DamagedStateError:
            raise
        except StateError as error:
            log.warning("%s; commands wait", error)

    def _gather(self) -> list[Work]:
        """Take what waits, up to the tokens of one call of the encoder; nothing is waited for to fill it."""
        works: list[Work] = []
        tokens, work = 0, self._queue.get()
        while work is not None:
            works.append(work)
            if not isinstance(work, JudgePiece):
                break
            encoder = self._channels[work.key].plan.encoder
            tokens += tokens_in(work)
            if not encoder.shares_calls or tokens + tokens_in(work) > encoder.call_tokens:
                break  # the next one, if it is like this one, would not fit
            work = self._queue.get(wait=False)
        return works

    def handle(self, works: Sequence[Work], stop: threading.Event) -> None:
        """Do some work in order, its pieces read together; a fault of one channel never reaches another."""
        pieces = [work for work in works if isinstance(work, JudgePiece) and work.fits]
        plans = [self._channels[work.key].plan for work in pieces]
        readings = iter(read_together(list(zip(plans, pieces, strict=True))))
        for work in works:
            channel = self._channels[work.key]
            match work:
                case JudgePiece() if work.fits:
                    self._judge(channel, work, next(readings), stop)
                case Interrupt():
                    channel.last = None
                    change = channel.machine.interrupt(work.state, work.reason)
                    self._put(channel, None, change, self._clock(), stop)
                case Reload():
                    self._try_reload(work, stop)

    def _try_reload(self, work: Reload, stop: threading.Event) -> None:
        """Judge a channel by its new baselines; while the database is locked, a little later."""
        try:
            self._reload(work.key)
        except DamagedStateError:
            raise
        except StateError as error:
            log.warning("channel %s: %s; its new baseline is read again", work.key, error)
            stop.wait(RETRY_S)
            self._queue.put(work, stop)

    def _judge(self, channel: Monitored, work: JudgePiece, reading: Reading | Exception, stop: threading.Event) -> None:
        """Take the next piece of a channel as it was read; when a window is complete, judge it."""
        if isinstance(reading, Exception):
            log.error("channel %s: a piece of the signal could not be read", channel.key, exc_info=reading)
            reason = f"internal error, {type(reading).__name__}: {reading}"
            change = channel.machine.interrupt(State.CHECK_FUNCTION, reason)
            self._put(channel, None, change, self._clock(), stop)
            return
        window = channel.join(work, reading)
        if window is None:
            return
        judgement = channel.judge(window)
        change = channel.decide(window, judgement)
        skipped = channel.skipped(work, self._queue.dropped(channel.key))
        counters = channel.counters
        counters.results += 1
        counters.latency_ms = judgement.latency_ms
        if judgement.passing is None:
            counters.last_result_s, counters.told = self._monotonic(), False
        channel.last = judgement
        result = Result(
            judgement, channel.machine.state, channel.unit, channel.machine.reason, skipped, channel.realised
        )
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
            if change.handling is None:
                log.info("%s: %s -> %s (%s)", channel.key, change.before.value, change.after.value, change.reason)
            else:
                log.info("%s: %s, by %s", channel.key, change.reason, change.handling.by or "nobody named")
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
