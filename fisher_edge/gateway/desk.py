"""What users ask of the gateway, carried out on the thread of the worker. Start at `Desk.carry_out`."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fisher_edge.config import ChannelConfig, Config
from fisher_edge.decision.alarm import UNFAMILIAR
from fisher_edge.decision.assess import EnrolledTake, Made, slack_of
from fisher_edge.decision.enroll import enroll, remove, undo
from fisher_edge.decision.judge import Judge
from fisher_edge.decision.judgement import FALSE_ALARM, Change, Handling
from fisher_edge.decision.naming import NORMAL
from fisher_edge.errors import BadInputError, DamagedStateError, FisherEdgeError, StateError
from fisher_edge.gateway.monitored import Monitored
from fisher_edge.gateway.reader import Reader
from fisher_edge.gateway.recorder import Progress, Recorder
from fisher_edge.names import ChannelKey
from fisher_edge.publish.message import rfc3339
from fisher_edge.store.baselines import Baselines
from fisher_edge.store.commands import Command, Commands, Status
from fisher_edge.store.takes import PendingTakes, TakeFacts

__all__ = ["Desk", "Outcome"]

# Windows that an acknowledged alarm gives as examples of its cause: the most unusual ones.
EXAMPLES = 16
# Windows of a recording under way that tell whether it is enough: the latest.
MOST_HEARD = 1000
# A recording is told anew after so many seconds of signal, and ends after so many without any.
TOLD_S = 1.0
SILENCE_S = 60.0
LONGEST_MINUTES = 7 * 24 * 60
LONGEST_SHELF_MINUTES = 366 * 24 * 60
MINUTE_S = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What came of a command, and the event that tells of it, if there is one."""

    status: Status
    answer: dict[str, Any]
    change: Change | None = None


@dataclass
class _Recording:
    """A recording under way: the command that asked for it, and how far it was when it was last told.

    `moved_s` is when (monotonic) it was last seen to go on.
    """

    command: Command
    recorder: Recorder
    moved_s: float
    told: Progress | None = None
    slack: float | None = None


class Desk:
    """Carries out commands; it belongs to the thread of its database."""

    def __init__(
        self,
        config: Config,
        commands: Commands,
        channels: Mapping[ChannelKey, Monitored],
        readers: Mapping[ChannelKey, Reader],
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._clock = clock
        self._monotonic = monotonic
        self._commands = commands
        self._baselines = Baselines(commands.database)
        self._channels = channels
        self._readers = readers
        self._recordings: dict[ChannelKey, _Recording] = {}
        self._late: deque[tuple[Command, Outcome]] = deque()
        self._verbs: dict[str, Callable[[Monitored, Command], Outcome]] = {
            "acknowledge": self._acknowledge,
            "shelve": self._shelve,
            "unshelve": self._unshelve,
            "record": self._record,
            "stop": self._stop,
        }

    def waiting(self) -> list[Command]:
        """Return the commands that nobody has carried out yet."""
        return self._commands.waiting()

    def carry_out(self, command: Command) -> Outcome:
        """Do what is asked; what cannot be done fails with the reason, and changes nothing."""
        try:
            channel = self._channels.get(command.key)
            if channel is None:
                have = ", ".join(map(str, self._channels))
                raise BadInputError(f"this gateway has no channel {command.key}; it has: {have}")
            verb = self._verbs.get(command.verb)
            if verb is None:
                raise BadInputError(f"there is no command {command.verb!r}; known are: {', '.join(self._verbs)}")
            return verb(channel, command)
        except DamagedStateError:
            raise
        except FisherEdgeError as error:
            return Outcome("failed", {"error": str(error)})
        except (KeyError, TypeError, ValueError) as error:
            return Outcome("failed", {"error": f"{command.verb}: its arguments cannot be used ({error!r})"})

    def take(self, command: Command) -> None:
        """Note that a command is being carried out: it is never carried out twice."""
        self._commands.answer(command.id, "running", {})

    def answer(self, command: Command, outcome: Outcome) -> None:
        """Tell whoever asked; while the database is locked, later."""
        self._late.append((command, outcome))
        self._answer_late()

    def _answer_late(self) -> None:
        """Give the answers that have not been given yet."""
        while self._late:
            command, outcome = self._late[0]
            self._commands.answer(command.id, outcome.status, outcome.answer)
            self._late.popleft()

    def look(self) -> None:
        """Tell how far recordings are, and end those that are complete."""
        self._answer_late()
        for key, recording in list(self._recordings.items()):
            try:
                self._look(key, recording)
            except StateError:
                raise
            except Exception as error:
                log.exception("channel %s: its recording could not be looked at", key)
                recording.recorder.stop()
                self._detach(key)
                answer = {**vars(recording.recorder.progress()), "error": f"internal error: {error}"}
                self._commands.answer(recording.command.id, "failed", answer)

    def close(self) -> None:
        """End every recording: the gateway stops."""
        for key, recording in list(self._recordings.items()):
            recording.recorder.stop()
            self._detach(key)
            progress = recording.recorder.progress()
            answer = {**vars(progress), "error": f"the gateway was stopped; {progress.takes} takes are kept"}
            try:
                self._commands.answer(recording.command.id, "failed", answer)
            except StateError as error:
                log.warning("%s: the end of the recording cannot be noted: %s", key, error)

    def _acknowledge(self, channel: Monitored, command: Command) -> Outcome:
        """Acknowledge the alarm of a channel; with a cause, its windows become examples of it."""
        asked, cause = command.arguments, _cause(command.arguments.get("cause"))
        handling = Handling(asked.get("by", ""), cause, asked.get("note", ""))
        before = channel.machine.memory.cause
        change = channel.machine.acknowledge(handling)
        if channel.realised is not None:
            channel.realised = channel.realised.settled(before, cause or before)
        try:
            if cause is not None and cause != before:
                self._withdraw(channel)
            examples, why = self._examples(channel, cause)
        except DamagedStateError:
            raise
        except (BadInputError, StateError) as error:
            examples, why = 0, str(error)
        answer = {"state": channel.machine.state.value, "cause": cause, "examples": examples, "no_examples": why}
        return Outcome("done", answer, change)

    def _examples(self, channel: Monitored, cause: str | None) -> tuple[int, str | None]:
        """Store the windows of an alarm as examples of its cause; return how many, and why there are none."""
        if cause in {None, FALSE_ALARM}:
            return 0, "no fault was named"
        judge, grid = channel.plan.judge, channel.grid
        windows = sorted(channel.unusual, key=lambda each: each.score)[-EXAMPLES:]
        if not isinstance(judge, Judge) or grid is None or not windows:
            return 0, "no window has differed in shape since the gateway was started or the state rose"
        found = sorted((each.window for each in windows), key=lambda window: window.end_time_s)
        start_s = found[0].end_time_s - found[0].window_s
        take = EnrolledTake(
            f"alarm of {rfc3339(start_s)}",
            [replace(window, end_time_s=window.end_time_s - start_s) for window in found],
            recorded_s=start_s,
        )
        front_end = replace(channel.plan.cutting.front_end, views=judge.views)
        made = Made(judge.model, front_end, grid, found[0].rate_hz)
        enrolled = enroll(
            self._baselines, channel.key, [take], made, label=cause, extend=True, reason="acknowledged alarm"
        )
        channel.labelled = (enrolled.label, enrolled.version)
        return enrolled.windows, None

    def _withdraw(self, channel: Monitored) -> None:
        """Take back the examples of a cause that turned out to be another."""
        if channel.labelled is None:
            return
        (label, version), channel.labelled = channel.labelled, None
        active = self._baselines.get(channel.key, label)
        if active is None or active.version != version:
            return  # somebody has enrolled others since
        if version > 1:
            undo(self._baselines, channel.key, label)
        else:
            remove(self._baselines, channel.key, label)

    def _shelve(self, channel: Monitored, command: Command) -> Outcome:
        """Shelve a channel until a time."""
        asked, minutes = command.arguments, float(command.arguments["minutes"])
        if not 0 < minutes <= LONGEST_SHELF_MINUTES:
            raise BadInputError(f"a channel is not shelved for {minutes:g} minutes; give up to {LONGEST_SHELF_MINUTES}")
        until_s = self._clock() + MINUTE_S * minutes
        handling = Handling(asked.get("by", ""), note=asked.get("note", ""), until_s=until_s)
        change = channel.machine.shelve(handling)
        return Outcome("done", {"state": channel.machine.state.value, "until_s": handling.until_s}, change)

    def _unshelve(self, channel: Monitored, command: Command) -> Outcome:
        """Shelve a channel no longer."""
        change = channel.machine.unshelve(Handling(command.arguments.get("by", "")))
        return Outcome("done", {"state": channel.machine.state.value}, change)

    def _record(self, channel: Monitored, command: Command) -> Outcome:
        """Begin to record a channel."""
        minutes, state = float(command.arguments["minutes"]), command.arguments.get("state")
        if not 0 < minutes <= LONGEST_MINUTES:
            raise BadInputError(f"{minutes:g} minutes cannot be recorded; give up to {LONGEST_MINUTES}")
        if state is not None and not (state.strip() and state.isprintable()):
            raise BadInputError(f"operating state {state!r} names nothing; give a number or name")
        if channel.key in self._recordings:
            raise BadInputError(f"{channel.key} is being recorded already; wait, or stop that recording")
        config = self._config_of(channel.key)
        window_s, hop_s = self._config.lengths_of(config)
        model = self._config.model
        facts = TakeFacts(window_s, hop_s, model.bundle, "1", 0.0, state, config.bursts, provider=model.provider)
        takes = PendingTakes(self._baselines.database.state_dir, channel.key)
        recorder = Recorder(takes, facts, MINUTE_S * minutes)
        self._recordings[channel.key] = _Recording(command, recorder, self._monotonic())
        channel.heard = deque(maxlen=MOST_HEARD)
        self._readers[channel.key].recorder = recorder
        log.info("channel %s: recording %g minutes", channel.key, minutes)
        return Outcome("running", {**vars(recorder.progress()), "slack": None})

    def _stop(self, channel: Monitored, _command: Command) -> Outcome:
        """End the recording of a channel early; what was recorded stays."""
        recording = self._recordings.get(channel.key)
        if recording is None:
            raise BadInputError(f"{channel.key} is not being recorded")
        recording.recorder.stop()
        return Outcome("done", vars(recording.recorder.progress()))

    def _look(self, key: ChannelKey, recording: _Recording) -> None:
        """Tell how far a recording is; when it has ended, let go of it."""
        recorder, counters = recording.recorder, self._readers[key].counters
        quiet_s = self._monotonic() - recording.moved_s
        if counters.ended or quiet_s > max(SILENCE_S, self._config_of(key).no_data_s or 0.0):
            recorder.stop()
        if self._commands.database.is_disk_short():
            recorder.stop("the disk is nearly full: make room on it")
        progress, told = recorder.progress(), recording.told
        if told is not None and not progress.ended and progress.seconds < told.seconds + TOLD_S:
            return
        recording.moved_s, recording.told = self._monotonic(), progress
        if told is None or progress.takes != told.takes:  # it takes a while, so that it is not done every time
            recording.slack = self._slack(self._channels[key])
        severity = self._channels[key].machine.memory.severity.value
        answer = {**vars(progress), "slack": recording.slack, "severity": severity}
        if not progress.ended:
            self._commands.answer(recording.command.id, "running", answer)
            return
        self._detach(key)
        problem = progress.problem or (None if progress.takes else counters.problem or "no signal came")
        answer |= {"error": problem} if problem else {}
        self._commands.answer(recording.command.id, "failed" if problem else "done", answer)

    def _config_of(self, key: ChannelKey) -> ChannelConfig:
        """Return the configuration of a channel."""
        return next(each for each in self._config.channel if each.key == key)

    def _slack(self, channel: Monitored) -> float | None:
        """How much wider limits would be now than further recording can make them."""
        judge, grid, windows = (
            channel.plan.judge,
            channel.grid,
            [each for each in channel.heard or () if each.fault is None],
        )
        if grid is None or not windows:
            return None
        front_end = replace(channel.plan.cutting.front_end, views=judge.views)
        return slack_of(windows, Made(judge.model, front_end, grid, windows[0].rate_hz))

    def _detach(self, key: ChannelKey) -> None:
        """Let go of a recording."""
        self._readers[key].recorder = None
        self._channels[key].heard = None
        del self._recordings[key]


def _cause(cause: str | None) -> str | None:
    """Return the cause of an alarm as it is stored; BadInputError for what is none."""
    cause = (cause or "").strip()
    if cause.casefold() == FALSE_ALARM:
        return FALSE_ALARM
    if cause.casefold() in {NORMAL, UNFAMILIAR}:
        raise BadInputError(
            f"{cause!r} is no cause of an alarm; say {FALSE_ALARM!r}, and enroll the state of the machine if it is "
            "normal"
        )
    if not cause.isprintable():
        raise BadInputError(f"cause {cause!r} names no fault; give its name")
    return cause or None
