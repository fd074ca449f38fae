"""The daemon: channels read sensors, one worker judges their windows, one publisher tells the broker.

Start at `Daemon.run`. Each channel reads on its own thread and puts its windows into one bounded queue; the
worker takes them in order, judges them and writes the results into the outbox, where the publisher finds them.
"""

import logging
import queue
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from fisher_edge import __version__
from fisher_edge.config import ChannelConfig, Config
from fisher_edge.decision.alarm import AlarmRule, Interruption, Transition
from fisher_edge.decision.enrol import default_hop_s
from fisher_edge.decision.monitor import Monitor, Policy, Unenrolled, Verdict, load_monitor
from fisher_edge.dsp.blocks import rfc3339
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.stream import Window, WindowStream
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.ort import EncoderSession
from fisher_edge.errors import FisherEdgeError, UsageError
from fisher_edge.publish.address import BrokerAddress
from fisher_edge.publish.broker import EmbeddedBroker
from fisher_edge.publish.message import Topics
from fisher_edge.publish.mqtt import Publisher
from fisher_edge.publish.outbox import Outbox
from fisher_edge.sources.open import Source, open_source
from fisher_edge.store import Store

__all__ = ["Daemon"]

QUEUE_WINDOWS = 64
FLUSH_S = 3.0
TICK_S = 0.2
LONGEST_PAUSE_S = 60.0
MEGABYTE = 1 << 20
DAY_S = 86_400

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Work:
    """One thing for the worker: a window to judge, or why a channel has none."""

    channel: "_Channel"
    window: Window | None = None
    interruption: Interruption = "no_data"
    reason: str = ""


class WorkQueue:
    """Windows that wait for the worker: bounded, the oldest is dropped and counted when it is full."""

    def __init__(self, capacity: int = QUEUE_WINDOWS) -> None:
        self.dropped = 0
        self._queue: queue.Queue[_Work] = queue.Queue(capacity)

    def put(self, work: _Work, stop: threading.Event, *, patient: bool) -> None:
        """Add work; a patient producer waits for room, a live one pushes the oldest out."""
        while not stop.is_set():
            try:
                self._queue.put(work, timeout=TICK_S if patient else 0)
            except queue.Full:
                if not patient:
                    self._drop_oldest()
            else:
                return

    def get(self) -> _Work | None:
        """Take the oldest work; None when there is none for a moment."""
        try:
            return self._queue.get(timeout=TICK_S)
        except queue.Empty:
            return None

    def done(self) -> None:
        """Note that the work taken last is finished."""
        self._queue.task_done()

    def idle(self) -> bool:
        """Tell whether nothing waits and nothing is being worked on."""
        return self._queue.unfinished_tasks == 0

    def _drop_oldest(self) -> None:
        """Make room for one."""
        try:
            self._queue.get_nowait()
        except queue.Empty:
            return  # the worker was faster
        self._queue.task_done()
        self.dropped += 1
        if self.dropped & (self.dropped - 1) == 0:  # 1, 2, 4, 8, ...: said, not shouted
            log.warning("inference falls behind: %d windows dropped so far; choose a longer hop_s", self.dropped)


class _Channel:
    """Reads one sensor on its own thread and cuts its blocks into windows."""

    def __init__(
        self, config: ChannelConfig, source: Source, monitor: Monitor | Unenrolled, front_end: FrontEnd, work: WorkQueue
    ) -> None:
        self.config = config
        self.monitor = monitor
        self.name = f"{config.asset}/{config.name}"
        self.ended = threading.Event()
        self._source = source
        self._front_end = front_end
        self._work = work
        self._last_block_s = time.monotonic()
        self._silent = False

    def start(self, stop: threading.Event) -> None:
        """Begin reading."""
        threading.Thread(target=self._read, args=(stop,), name=f"channel {self.name}", daemon=True).start()

    def check_silence(self, stop: threading.Event) -> None:
        """Report once when no block has come for `no_data_s`."""
        silent_s = time.monotonic() - self._last_block_s
        if silent_s > self.config.no_data_s and not self._silent and not self.ended.is_set():
            self._silent = True
            self._interrupt("no_data", f"no samples for {silent_s:.0f} s", stop)

    def _read(self, stop: threading.Event) -> None:
        """Read until the source ends; one that fails is started again after a growing pause."""
        failures = 0
        while not stop.is_set():
            try:
                for count in self._windows(stop):
                    failures = 0 if count else failures
                break
            except (FisherEdgeError, OSError) as error:
                if failures == 0:
                    log.error("channel %s: %s", self.name, error)  # noqa: TRY400 -- one line, no traceback
                    self._interrupt("no_data", str(error), stop)
                failures += 1
                stop.wait(random.uniform(0.5, 1) * min(LONGEST_PAUSE_S, 2.0**failures))  # noqa: S311 -- jitter
        self.ended.set()

    def _windows(self, stop: threading.Event) -> Iterator[int]:
        """Pass every window on; yield how many a block gave."""
        stream: WindowStream | None = None
        for block in self._source.blocks(stop):
            self._last_block_s, self._silent = time.monotonic(), False
            if stream is None or stream.rate_hz != block.rate_hz:
                stream = self._stream(block.rate_hz, stop)
            windows = stream.push(block) if stream else []
            for window in windows:
                self._work.put(_Work(self, window), stop, patient=self._source.patient)
            yield len(windows)

    def _stream(self, rate_hz: int, stop: threading.Event) -> WindowStream | None:
        """Begin a stream at the rate that arrives, unless the baseline was enrolled at another."""
        enrolled = self.monitor.rate_hz
        if enrolled is not None and enrolled != rate_hz:
            reason = f"samples come at {rate_hz} Hz, the baseline was enrolled at {enrolled} Hz"
            self._interrupt("check_function", reason, stop)
            return None
        return WindowStream(self._front_end, rate_hz, self.monitor.window_frames, self.monitor.hop_frames)

    def _interrupt(self, state: Interruption, reason: str, stop: threading.Event) -> None:
        """Tell the worker that there is nothing to judge."""
        self._work.put(_Work(self, None, state, reason), stop, patient=self._source.patient)


class Daemon:
    """Everything a gateway runs, from one configuration."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.topics = Topics(config.mqtt.root, config.gateway.name)
        self.work = WorkQueue()
        self._stop = threading.Event()
        self._failure: BaseException | None = None

    def stop(self) -> None:
        """Ask the daemon to finish: safe from a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Run until `stop`, or until every source has ended and everything is delivered."""
        with ExitStack() as stack:
            session = EncoderSession(load_bundle(self.config.model.bundle))
            store = stack.enter_context(Store(self.config.gateway.state_dir))
            boot = store.new_boot()
            channels = [self._channel(store, session, channel) for channel in self.config.channel]
            stack.enter_context(self._publisher(boot, session))
            worker = threading.Thread(target=self._judge_all, args=(boot,), name="worker", daemon=True)
            worker.start()
            for channel in channels:
                channel.start(self._stop)
            log.info("monitoring %s with %s", ", ".join(channel.name for channel in channels), session.bundle.name)
            self._supervise(channels, worker, Outbox(store, self.topics, boot))
            self._stop.set()
            worker.join(FLUSH_S)
        if self._failure is not None:
            raise self._failure

    def _supervise(self, channels: list[_Channel], worker: threading.Thread, outbox: Outbox) -> None:
        """Watch over the threads until there is a reason to stop."""
        while not self._stop.wait(TICK_S):
            for channel in channels:
                channel.check_silence(self._stop)
            if not worker.is_alive():
                log.error("the worker has ended; stopping")
                return
            ended = all(channel.ended.is_set() for channel in channels) and self.work.idle()
            if ended and outbox.depth() == 0:
                log.info("every source has ended and everything is delivered")
                return

    def _channel(self, store: Store, session: EncoderSession, config: ChannelConfig) -> _Channel:
        """Prepare one channel with its baseline, or without one."""
        front_end = session.bundle.front_end
        window_s = config.window_s or self.config.model.window_s
        hop_s = config.hop_s or self.config.model.hop_s or default_hop_s(window_s)
        window_frames, hop_frames = front_end.frames_of(window_s), front_end.frames_of(hop_s)
        monitor: Monitor | Unenrolled
        if store.baselines(config.asset, config.name, active_only=True):
            monitor = load_monitor(store, session, config.asset, config.name, self._policy())
            if monitor.window_frames != window_frames:
                enrolled_s = monitor.window_frames * front_end.hop_ms / 1000
                raise UsageError(
                    f"channel {config.asset}/{config.name} is enrolled with windows of {enrolled_s:g} s, the "
                    f"configuration says {window_s:g} s; set window_s = {enrolled_s:g} or enrol again"
                )
            monitor.hop_frames = hop_frames
        else:
            log.warning("channel %s/%s has no baseline: only plain measures", config.asset, config.name)
            monitor = Unenrolled(session, window_frames, hop_frames)
        return _Channel(config, open_source(config), monitor, front_end, self.work)

    def _policy(self) -> Policy:
        """Alarm policy of the configuration."""
        alarm = self.config.alarm
        rule = AlarmRule(needed=alarm.needed, of=alarm.of, hold=alarm.hold)
        return Policy(alarm.warning_per_day, alarm.alarm_per_day, rule)

    @contextmanager
    def _publisher(self, boot: int, session: EncoderSession) -> Iterator[Publisher]:
        """Run the publisher, and a broker of our own when the configuration names none."""
        mqtt = self.config.mqtt
        with ExitStack() as stack:
            url = mqtt.url
            if url == "embedded":
                url = stack.enter_context(EmbeddedBroker(mqtt.embedded_port)).url
                log.info("embedded MQTT broker at %s", url)
            address = BrokerAddress.parse(url, password_file=mqtt.password_file, ca_file=mqtt.ca_file)
            state_dir = self.config.gateway.state_dir
            publisher = Publisher(state_dir, address, self.topics, boot, info=self._info(session))
            publisher.start()
            try:
                yield publisher
            finally:
                publisher.stop(FLUSH_S)

    def _info(self, session: EncoderSession) -> dict[str, Any]:
        """Facts of this gateway for the retained `info` message."""
        return {
            "version": __version__,
            "model": {"name": session.bundle.name, "sha256": session.bundle.sha256},
            "provider": session.provider,
            "channels": [
                {"asset": channel.asset, "channel": channel.name, "unit": channel.unit}
                for channel in self.config.channel
            ],
        }

    def _judge_all(self, boot: int) -> None:
        """Judge windows and write the results, until stopped: the worker's thread."""
        try:
            with Store(self.config.gateway.state_dir) as store:
                mqtt = self.config.mqtt
                outbox = Outbox(
                    store,
                    self.topics,
                    boot,
                    max_bytes=int(mqtt.outbox_mb * MEGABYTE),
                    max_age_s=mqtt.outbox_days * DAY_S,
                )
                while not self._stop.is_set():
                    work = self.work.get()
                    if work is not None:
                        _handle(work, outbox)
                        self.work.done()
        except BaseException as error:  # noqa: BLE001 -- handed to `run`, which raises it
            self._failure = error


def _handle(work: _Work, outbox: Outbox) -> None:
    """Judge one window, or note why there is none, and put what follows into the outbox."""
    config, monitor = work.channel.config, work.channel.monitor
    if work.window is None:
        transition = monitor.interrupt(work.interruption, work.reason)
        if transition:
            now = rfc3339(time.time())
            state = {"state": monitor.state, "time": now, "reason": work.reason}
            outbox.put(config.asset, config.name, event=_event(transition, now, {}), state=state)
        return
    verdict = monitor.judge(work.window)
    outbox.put(
        config.asset,
        config.name,
        result=verdict.fields | {"unit": config.unit},
        event=_event(verdict.transition, verdict.fields["time"], verdict.fields) if verdict.transition else None,
        state=_state(verdict),
    )


def _state(verdict: Verdict) -> dict[str, Any]:
    """The latest state of a channel, for the retained topic."""
    kept = ("state", "time", "distance", "threshold", "ratio", "p_value", "level", "reason")
    return {key: verdict.fields[key] for key in kept if key in verdict.fields}


def _event(transition: Transition, stamp: str, fields: dict[str, Any]) -> dict[str, Any]:
    """A change of state with what led to it."""
    kept = ("distance", "threshold", "ratio", "p_value", "bands", "nearest", "fault", "level")
    return {
        "time": stamp,
        "before": transition.before,
        "after": transition.after,
        "reason": transition.reason,
        **{key: fields[key] for key in kept if key in fields},
    }
