"""The gateway: readers, one worker, one publisher, and the supervision of all of them. Start at `Gateway.run`.

Each channel reads on a thread of its own and puts its pieces into one bounded queue; the worker takes them in turn,
judges windows and writes the results into the records, where the publisher finds them.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fisher_edge import __version__
from fisher_edge.config import ChannelConfig, Config
from fisher_edge.decision.alarm import AlarmMachine, Interruption, remembered
from fisher_edge.decision.judge import Judge
from fisher_edge.decision.judgement import State
from fisher_edge.encoder.forms import forms_of
from fisher_edge.errors import DamagedStateError, StateError
from fisher_edge.gateway.context import Context
from fisher_edge.gateway.desk import Desk
from fisher_edge.gateway.monitored import Monitored, Plan
from fisher_edge.gateway.reader import Reader
from fisher_edge.gateway.status import ChannelStatus, Counters, GatewayStatus, clock_is_synchronised
from fisher_edge.gateway.wiring import Encoders, Planner, doubt_of, rule_of
from fisher_edge.gateway.work import Interrupt, Reload, WorkQueue
from fisher_edge.gateway.worker import Worker
from fisher_edge.names import ChannelKey
from fisher_edge.publish.address import BrokerAddress
from fisher_edge.publish.broker import EmbeddedBroker
from fisher_edge.publish.message import Info, InfoChannel, Topics
from fisher_edge.publish.mqtt import Publisher
from fisher_edge.sources.open import open_source
from fisher_edge.sources.source import Source
from fisher_edge.store import bundles
from fisher_edge.store.audio import AudioArchive
from fisher_edge.store.baselines import Baselines
from fisher_edge.store.commands import Commands
from fisher_edge.store.database import Database, free_bytes, make_private, only_daemon
from fisher_edge.store.records import Limits, Records

__all__ = ["Gateway"]

TICK_S = 0.2
# How often a snapshot is taken, and the store is looked at for new baselines.
LOOK_S = 1.0
# How long the window under way may take when the gateway stops, and the sources to close.
FINISH_S = 1.5
# How long the publisher may then take to deliver what waits.
FLUSH_S = 2.5
SHORTEST_SILENCE_S = 30.0
# How long a live channel waits for the first message about its operating state: a retained one comes at once.
AWAITED_S = 10.0
MEGABYTE = 1 << 20
DAY_S = 86_400

log = logging.getLogger(__name__)


class Gateway:
    """Everything a gateway runs, from one configuration.

    `clock` returns seconds since 1970-01-01 UTC, `monotonic` those of a clock that nobody sets; `open_source` turns a
    channel of the configuration into its source.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        open_source: Callable[..., Source] = open_source,
    ) -> None:
        self.config = config
        self.topics = Topics(config.mqtt.root, config.gateway.name)
        self._clock = clock
        self._monotonic = monotonic
        self._open_source = open_source
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._status: GatewayStatus | None = None
        self._started_s = clock()
        self._configs = {channel.key: channel for channel in config.channel}
        self.queue = WorkQueue(list(self._configs))
        self.channels: dict[ChannelKey, Monitored] = {}
        self.readers: dict[ChannelKey, Reader] = {}
        self.contexts: dict[ChannelKey, Context] = {}

    def stop(self) -> None:
        """Ask the gateway to finish: safe from a signal handler."""
        self._stop.set()

    def status(self) -> GatewayStatus | None:
        """Return the newest snapshot; callable from any thread, None before the first."""
        return self._status

    def run(self) -> None:
        """Run until `stop`, or until every source has ended and everything is delivered.

        When it returns, every source is closed and every thread but those of hung drivers has ended.
        """
        state_dir = self.config.gateway.state_dir
        with ExitStack() as stack:
            make_private(state_dir)
            model = self.config.model
            unclean = stack.enter_context(only_daemon(state_dir))
            encoders = Encoders(state_dir, model.bundle, model.provider, model.require)
            database = stack.enter_context(Database(state_dir, check=unclean))
            boot = database.new_boot()
            Commands(database).abandon("the gateway was started again before it was done; ask again")
            records = Records(database, boot, limits=self._limits(), clock=self._clock)
            planner = Planner(self.config, Baselines(database), encoders)
            self._keep_bundle(planner)
            AudioArchive(state_dir, int(self.config.audio.enrollment_mb * MEGABYTE)).trim()
            for channel in self.config.channel:
                self._add(channel, planner.plan(channel), records)
            publisher = stack.enter_context(self._publisher(boot, encoders))
            worker = threading.Thread(target=self._work, args=(boot, encoders), name="worker", daemon=True)
            worker.start()
            for reader in self.readers.values():
                reader.start()
            log.info("listen with: mosquitto_sub -t '%s/#' -v", self.topics.base)
            default = encoders.default
            log.info("monitoring %s with %s on %s", ", ".join(map(str, self.channels)), default.name, default.provider)
            try:
                self._supervise(worker, publisher, records, encoders, boot)
            finally:
                self._finish(worker)
        if self._failure is not None:
            raise self._failure

    def _add(self, config: ChannelConfig, plan: Plan, records: Records) -> None:
        """Prepare one channel; an alarm that was raised against the same baseline goes on."""
        counters = Counters(started_s=self._monotonic())
        machine = AlarmMachine(rule_of(self.config, config), self._clock)
        source = self._open_source(config, self.config.base_dir, clock=self._clock)
        awaited_s = 0.0 if source.patient else min(AWAITED_S, self.no_data_s(config.key) / 2)
        context = Context(config.operating_state, self._monotonic, awaited_s)
        self.contexts[config.key] = context
        channel = Monitored(config.key, config.unit, plan, machine, counters, config.idle_below)
        self.channels[config.key] = channel
        self.readers[config.key] = Reader(
            config.key, source, plan.cutting, self.queue, counters, context=context, monotonic=self._monotonic
        )
        self._resume(channel, records)
        if plan.reason is not None:
            log.error("channel %s: %s", config.key, plan.reason)
            state: Interruption = State.CHECK_FUNCTION if plan.cutting.refused else State.NO_BASELINE
            self.queue.put(Interrupt(config.key, state, plan.reason), self._stop)
        elif plan.baseline_version is None:
            log.warning("channel %s: nothing is enrolled; until then only plain measures", config.key)
        if (doubt := doubt_of(plan)) is not None:
            log.warning("channel %s: %s", config.key, doubt)

    def _resume(self, channel: Monitored, records: Records) -> None:
        """Carry an alarm on over a restart, unless it was raised against another baseline."""
        machine, judge = channel.machine, channel.plan.judge
        standing = next((each for _, each in records.standings(channel.key)), None)
        last, judged = records.last_change(channel.key), records.last_change(channel.key, judged=True)
        memory = standing.alarm if standing else None
        if last is not None:
            machine.follow(last.value.after, memory.shelved_until_s if memory else None)
        if standing is not None and memory is not None:
            channel.kept = standing
            channel.take_up()
        elif judged is not None and isinstance(judge, Judge) and judged.id > judge.normal.after_record:
            machine.resume(remembered(judged.value), judged.value.time_s)

    def _keep_bundle(self, planner: Planner) -> None:
        """Keep the model with the baselines made with it, so that the next release can judge by it."""
        encoder, state_dir = planner.encoders.default, self.config.gateway.state_dir
        needed = planner.baselines.models()
        for form in forms_of(encoder.bundle).values():
            if form.sha256 in needed:
                bundles.keep(state_dir, encoder.bundle.path, form.sha256)
        bundles.forget_unused(state_dir, needed)

    def _supervise(
        self, worker: threading.Thread, publisher: Publisher, records: Records, encoders: Encoders, boot: int
    ) -> None:
        """Watch over the threads until there is a reason to stop."""
        baselines = Baselines(records.database)
        known, announced, looked_s = baselines.generation(), self._info(encoders), -math.inf
        while True:
            if self._monotonic() - looked_s >= LOOK_S:
                looked_s = self._monotonic()
                _check_there(records.database.path)
                self._status = self._snapshot(publisher, encoders, boot, records)
                known = self._reload_changed(known, baselines.generation())
                info = self._info(encoders)
                if info != announced:
                    publisher.set_info(info)
                    announced = info
            if self._stop.wait(TICK_S):
                return
            for key in self.channels:
                self.check_silence(key)
            if not worker.is_alive():
                log.error("the worker has ended; stopping")
                return
            if not publisher.is_alive():
                raise DamagedStateError(publisher.condition().last_error)
            if self._all_ended() and records.totals().waiting == 0:
                log.info("every source has ended and everything is delivered")
                return

    def _all_ended(self) -> bool:
        """Whether every source has ended and the worker has done everything; what gave no window is reported first."""
        readers = self.readers.values()
        if any(reader.recorder or not reader.counters.ended for reader in readers) or not self.queue.idle():
            return False
        unheard = [
            key
            for key, channel in self.channels.items()
            if not channel.counters.results and not channel.counters.told and channel.plan.cutting.refused is None
        ]
        for key in unheard:
            self._interrupt_silent(key)
        return not unheard

    def check_silence(self, key: ChannelKey) -> None:
        """Report once when a channel has delivered no judgement for `no_data_s`, whatever the cause."""
        counters = self.channels[key].counters
        last_s = max(counters.started_s, counters.last_result_s or 0.0, counters.recovered_s)
        quiet_s = self._monotonic() - last_s
        if quiet_s > self.no_data_s(key) and not counters.told and counters.problem is None:
            self._interrupt_silent(key)

    def no_data_s(self, key: ChannelKey) -> float:
        """Seconds without a judgement after which a channel says no_data: a few windows, unless configured."""
        config = self._configs[key]
        if config.no_data_s is not None:
            return config.no_data_s
        window_s, hop_s = self.config.lengths_of(config)
        return max(SHORTEST_SILENCE_S, 3 * window_s + (hop_s or window_s / 4))

    def _interrupt_silent(self, key: ChannelKey) -> None:
        """Tell the worker that a channel is silent, and why."""
        self.channels[key].counters.told = True
        reason = self._why_silent(key)
        log.error("channel %s: %s", key, reason)
        self.queue.put(Interrupt(key, State.NO_DATA, reason), self._stop)

    def _why_silent(self, key: ChannelKey) -> str:
        """Say why there is no judgement of a channel."""
        channel, now_s = self.channels[key], self._monotonic()
        counters, window_s = channel.counters, self._window_s(key)
        gaps = counters.gaps_in_last_minute(now_s)
        if counters.ended:
            if counters.results:
                return "the recordings have ended"
            return f"the recordings ended before a window of {window_s:g} s was complete; choose a shorter window_s"
        if counters.last_block_s is None or now_s - counters.last_block_s > self.no_data_s(key):
            since_s = counters.started_s if counters.last_block_s is None else counters.last_block_s
            return f"no samples for {now_s - since_s:.0f} s"
        if gaps:
            return f"{gaps} gaps in the last minute; a window needs {window_s:g} s without one"
        if self.queue.dropped(key):
            return f"inference falls behind: {self.queue.dropped(key)} pieces of the signal dropped so far"
        last_s = counters.started_s if counters.last_result_s is None else counters.last_result_s
        passing = channel.last.passing if channel.last else None
        what = "was complete" if passing is None else "could be judged"
        why = "" if passing is None else f": {passing}"
        return f"no window of {window_s:g} s {what} for {now_s - last_s:.0f} s{why}"

    def _window_s(self, key: ChannelKey) -> float:
        """Length of the windows of a channel as they are cut, or as configured before anything has come."""
        grid = self.channels[key].grid
        return grid.window_s if grid else self.config.lengths_of(self._configs[key])[0]

    def _reload_changed(
        self, known: tuple[tuple[str, str, int], ...], now: tuple[tuple[str, str, int], ...]
    ) -> tuple[tuple[str, str, int], ...]:
        """Tell the worker which channels have other baselines than before."""
        changed = {ChannelKey(asset, channel) for asset, channel, _ in set(known) ^ set(now)}
        for key in changed & self.channels.keys():
            self.queue.put(Reload(key), self._stop)
        return now

    def _work(self, boot: int, encoders: Encoders) -> None:
        """Run the worker with a database of its own; what it raises is handed to `run`."""
        try:
            with Database(self.config.gateway.state_dir, set_aside=False) as database:
                records = Records(database, boot, limits=self._limits(), clock=self._clock)
                planner = Planner(self.config, Baselines(database), encoders)
                desk = Desk(
                    self.config,
                    Commands(database),
                    self.channels,
                    self.readers,
                    clock=self._clock,
                    monotonic=self._monotonic,
                )
                self.worker(records, planner, desk).run(self._stop)
        except BaseException as error:  # noqa: BLE001 -- handed on
            self._failure = error

    def worker(self, records: Records, planner: Planner, desk: Desk) -> Worker:
        """Build the worker of this gateway."""

        def reload(key: ChannelKey) -> None:
            plan = planner.plan(self._configs[key])
            self.channels[key].reload(plan)
            self.readers[key].cutting = plan.cutting
            log.info("channel %s: judged by version %s of its baseline now", key, plan.baseline_version)

        return Worker(self.queue, self.channels, records, reload, desk, monotonic=self._monotonic, clock=self._clock)

    def _finish(self, worker: threading.Thread) -> None:
        """Stop reading first, then judging; sources are closed when this returns."""
        for reader in self.readers.values():
            reader.stop()
        self._stop.set()
        until_s = time.monotonic() + FINISH_S
        for key, reader in self.readers.items():
            if not reader.join(max(0.05, until_s - time.monotonic())):
                log.warning("channel %s: its source does not close; it is left behind", key)
        worker.join(max(0.1, until_s - time.monotonic()))

    @contextmanager
    def _publisher(self, boot: int, encoders: Encoders) -> Iterator[Publisher]:
        """Run the publisher, and a broker of our own when the configuration names none."""
        mqtt = self.config.mqtt
        with ExitStack() as stack:
            url = mqtt.url
            if url == "embedded":
                url = stack.enter_context(EmbeddedBroker(mqtt.embedded_port)).url
                log.info("embedded MQTT broker at %s", url)
            address = BrokerAddress.parse(url, password_file=mqtt.password_file, ca_file=mqtt.ca_file)
            state_dir = self.config.gateway.state_dir
            publisher = Publisher(
                state_dir,
                address,
                self.topics,
                boot,
                limits=self._limits(),
                channels=list(self._configs),
                listeners=self._listeners(),
                info=self._info(encoders),
            )
            publisher.start()
            try:
                yield publisher
            finally:
                publisher.stop(FLUSH_S)

    def _info(self, encoders: Encoders) -> Info:
        """What this gateway is and runs, for its retained message."""
        encoder = encoders.default
        return Info(
            version=__version__,
            model_name=encoder.name,
            model_sha256=encoder.sha256,
            provider=encoder.provider,
            channels=tuple(
                InfoChannel(key, channel.unit, self._window_s(key), channel.plan.baseline_version)
                for key, channel in self.channels.items()
            ),
        )

    def _listeners(self) -> dict[str, Callable[[bytes], None]]:
        """Who takes what is sent to the topics of operating states."""

        def listener(contexts: Sequence[Context]) -> Callable[[bytes], None]:
            def take(payload: bytes) -> None:
                for context in contexts:
                    context.take(payload)

            return take

        topics = {context.topic for context in self.contexts.values() if context.topic}
        return {
            topic: listener([context for context in self.contexts.values() if context.topic == topic])
            for topic in topics
        }

    def _limits(self) -> Limits:
        """How much may wait and how much is kept."""
        mqtt, history = self.config.mqtt, self.config.history
        return Limits(
            waiting_bytes=int(mqtt.outbox_mb * MEGABYTE),
            waiting_s=mqtt.outbox_days * DAY_S,
            history_bytes=int(history.mb * MEGABYTE),
            history_s=history.days * DAY_S,
        )

    def _snapshot(self, publisher: Publisher, encoders: Encoders, boot: int, records: Records) -> GatewayStatus:
        """Collect the state of everything."""
        encoder, path = encoders.default, records.database.path
        return GatewayStatus(
            name=self.config.gateway.name,
            version=__version__,
            boot=boot,
            started_s=self._started_s,
            time_s=self._clock(),
            model_name=encoder.name,
            model_sha256=encoder.sha256,
            provider=encoder.provider,
            queue_bytes=self.queue.waiting_bytes(),
            delivery=publisher.condition(),
            disk_free_bytes=free_bytes(path.parent),
            database_bytes=path.stat().st_size if path.exists() else 0,
            clock_synchronised=clock_is_synchronised(),
            channels=tuple(self._channel_status(channel) for channel in self.channels.values()),
        )

    def _channel_status(self, channel: Monitored) -> ChannelStatus:
        """Collect the state of one channel."""
        counters, machine = channel.counters, channel.machine
        return ChannelStatus(
            key=channel.key,
            unit=channel.unit,
            state=machine.state,
            since_s=machine.since_s,
            reason=machine.reason,
            last=channel.last,
            alarm=machine.memory,
            realised=channel.realised,
            results=counters.results,
            gaps=counters.gaps,
            dropped=self.queue.dropped(channel.key),
            real_rate_hz=counters.real_rate_hz,
            latency_ms=counters.latency_ms,
            window_s=self._window_s(channel.key),
            hop_s=channel.grid.hop_s if channel.grid else None,
            baseline_version=channel.plan.baseline_version,
            model_sha256=channel.plan.judge.model.sha256,
        )


def _check_there(database: Path) -> None:
    """Raise StateError when the database was deleted: what is written into it would be lost."""
    if not database.exists():
        raise StateError(f"the database {database} was deleted while the gateway ran; start it again and enroll")
