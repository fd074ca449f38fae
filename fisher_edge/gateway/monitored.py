"""One channel as the worker has it: how it is judged, its alarm, and what it remembers. Start at `Monitored`."""

import logging
import time
from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np

from fisher_edge.decision.alarm import AlarmMachine
from fisher_edge.decision.judge import Judge, WindowJudge, distrusted, measured
from fisher_edge.decision.judgement import Change, Judgement, Realised, Standing, State
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.grid import Grid
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.windows import EmbeddedWindow, Reading, WindowJoiner
from fisher_edge.gateway.context import Situation
from fisher_edge.gateway.reader import Cutting
from fisher_edge.gateway.status import Counters
from fisher_edge.gateway.work import JudgePiece
from fisher_edge.names import ChannelKey

__all__ = ["Monitored", "Plan"]

# Windows that are remembered since the state of a channel rose.
MOST_UNUSUAL = 64
# Parts of a piece that are looked at for a machine that stands: a stop or start within it is seen.
PARTS = 4
# A machine that stood in parts of so many of the latest pieces, and in no whole one, has pauses: it was not stopped.
LATELY, PAUSES = 16, 6

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

    @property
    def judged_by(self) -> tuple[int, float] | None:
        """Version of the normal state and when it was enrolled; None: there is none."""
        return self.judge.baseline if isinstance(self.judge, Judge) else None


def _standing_parts(samples: FloatArray, idle_below: float | None) -> int:
    """In how many parts of a piece (n,) the machine stands: their RMS is below a level (None: it never does)."""
    if idle_below is None:
        return 0
    return sum(float(part.std(dtype=np.float64)) < idle_below for part in np.array_split(samples, PARTS))


@dataclass(frozen=True, eq=False)
class Unusual:
    """A window since the state rose, and its score."""

    score: float
    window: EmbeddedWindow


@dataclass
class Monitored:
    """One channel as the worker has it.

    `idle_below` is the RMS below which the machine stands. `unusual` are the latest windows since its state rose,
    `labelled` says as examples of which cause, in which version, they were enrolled, and
    `kept` is what was known of its alarm while there was a baseline to judge by, and
    `heard` the latest since a recording began (None: none is under way).
    """

    key: ChannelKey
    unit: str
    plan: Plan
    machine: AlarmMachine
    counters: Counters
    idle_below: float | None = None
    last: Judgement | None = None
    grid: Grid | None = None
    realised: Realised | None = None
    unusual: list[Unusual] = field(default_factory=list)
    labelled: tuple[str | None, int] | None = None
    kept: Standing | None = None
    heard: deque[EmbeddedWindow] | None = None
    _situations: deque[Situation] = field(default_factory=deque)
    _standing: deque[int] = field(default_factory=deque)
    _lately: deque[int] = field(default_factory=lambda: deque(maxlen=LATELY))
    _joiner: WindowJoiner | None = None
    _last_number: int | None = None
    _dropped: int = 0
    _failed: bool = False

    def reload(self, plan: Plan) -> None:
        """Judge by another plan from the next window on; an alarm against another normal state is over."""
        if self.plan.judged_by is not None and plan.judged_by is None:
            self.kept = self.standing(self.machine.since_s, 0)
        before, self.plan = self.plan, plan
        if plan.judged_by != before.judged_by:
            self.machine.forget()
            self.unusual.clear()
            self.realised = None
            self.take_up()
        elif isinstance(plan.judge, Judge) and isinstance(before.judge, Judge):
            plan.judge.take_over(before.judge)
        self._joiner = None
        if self.heard is not None:
            self.heard.clear()  # windows of two plans are not compared

    def take_up(self) -> None:
        """Take up the alarm of before, if it was raised against the baseline that judges now."""
        kept = self.kept
        if kept is None or self.plan.judged_by is None:
            return
        self.kept = None
        if kept.judged_by == self.plan.judged_by and kept.alarm is not None:
            self.realised = kept.realised
            self.machine.resume(kept.alarm, kept.since_s)

    def join(self, work: JudgePiece, reading: Reading) -> EmbeddedWindow | None:
        """Put a reading into the window under way; return the window when it is complete."""
        if self._joiner is None or work.grid is not self.grid:
            self._joiner, self.grid, self._last_number = WindowJoiner(work.grid), work.grid, None
            # One more than the window has pieces: that of the piece before is the situation in which it begins.
            self._situations = deque(maxlen=work.grid.window_pieces + 1)
            self._standing = deque(maxlen=work.grid.window_pieces + 1)
        self._situations.append(work.situation)
        parts = _standing_parts(work.piece.samples, self.idle_below) if reading.fault is None else 0
        self._standing.append(parts)
        self._lately.append(parts)
        return self._joiner.push(reading)

    def judge(self, window: EmbeddedWindow) -> Judgement:
        """Judge a window; whatever goes wrong stays with its channel, which then says check_function."""
        started = time.perf_counter()
        try:
            judgement = self._judge(window)
        except Exception as error:
            if not self._failed:
                log.exception("channel %s: a window could not be judged", self.key)
            self._failed = True
            return distrusted(window, self.plan.judge.model, f"internal error, {type(error).__name__}: {error}")
        self._failed = False
        return replace(judgement, latency_ms=1000 * (time.perf_counter() - started))

    def _judge(self, window: EmbeddedWindow) -> Judgement:
        """Judge a window of a machine that runs in one operating state."""
        judge, situation = self.plan.judge, self._situations[-1]
        only_measured = measured(window, judge.model, situation.state)
        if window.fault is None and (idle := self._why_idle(window)):
            return replace(only_measured, idle=idle)
        if window.fault is None and (passing := self._why_passing()):
            return replace(only_measured, passing=passing)
        return judge.judge(window, situation.state)

    def _why_idle(self, window: EmbeddedWindow) -> str | None:
        """Say why there is nothing to judge in a window."""
        if self._standing and all(parts == PARTS for parts in list(self._standing)[-self._window_pieces :]):
            return f"the machine stands: RMS {window.measures.rms:.3g} is below {self.idle_below:g}"
        return self._situations[-1].idle

    def _why_passing(self) -> str | None:
        """Say why a window is of a machine that changes: it begins in the piece before its first one."""
        if self._situations[-1].awaited:
            return "the operating state has not been sent yet"
        if any(self._standing) and not self._has_pauses():
            return "the machine was started or stopped within this window"
        if len({each.state for each in self._situations}) > 1:
            return "the operating state changed within this window"
        return None

    def _has_pauses(self) -> bool:
        """Whether the machine stands for moments again and again while it runs."""
        mixed = sum(0 < parts < PARTS for parts in self._lately)
        return mixed >= PAUSES and PARTS not in self._lately

    @property
    def _window_pieces(self) -> int:
        """Pieces of a window."""
        return self.grid.window_pieces if self.grid else 1

    def decide(self, window: EmbeddedWindow, judgement: Judgement) -> Change | None:
        """Let the alarm machine take a judgement, and count what came of the promise."""
        before = self.machine.memory
        change = self.machine.judge(judgement)
        now = self.machine.memory
        judge = self.plan.judge
        if isinstance(judge, Judge) and judgement.evidence is not None:
            if self.realised is None or (self.realised.baseline, self.realised.created_s) != judge.baseline:
                self.realised = Realised(*judge.baseline, judge.promise)
            self.realised = replace(self.realised, promise=judge.promise).after(judge.hop_s, before.worst, now.worst)
        if before.severity is State.NORMAL and now.severity is not State.NORMAL:
            self.unusual.clear()
            self.labelled = None
        if now.severity is not State.NORMAL and judgement.evidence is not None and judgement.evidence.warning > 1:
            self.unusual = [*self.unusual, Unusual(judgement.score or 0.0, window)][-MOST_UNUSUAL:]
        if self.heard is not None:
            self.heard.append(window)
        return change

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
        kept = self.kept if self.plan.judged_by is None else None
        alarm = machine.memory
        if kept is not None and kept.alarm is not None:
            alarm = replace(kept.alarm, shelved_until_s=alarm.shelved_until_s)
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
            alarm=alarm,
            judged_by=kept.judged_by if kept else self.plan.judged_by,
            realised=kept.realised if kept else self.realised,
        )
