"""The gateway: channels read sensors, one worker judges their windows, one publisher tells the broker.

Start at `Daemon.run`. Each channel reads on its own thread and puts its windows into one bounded queue; the
worker takes them in order, judges them and writes the results into the outbox, where the publisher finds them.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from fisher_edge import __version__
from fisher_edge.config import ChannelConfig, Config
from fisher_edge.daemon.channel import Channel
from fisher_edge.daemon.work import WorkQueue
from fisher_edge.daemon.worker import judge_all
from fisher_edge.database import only_daemon
from fisher_edge.decision.alarm import AlarmRule
from fisher_edge.decision.enrol import default_hop_s
from fisher_edge.decision.monitor import Monitor, Policy, Unenrolled, load_monitor
from fisher_edge.dsp.blocks import rfc3339
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.ort import MIN_FRAMES, EncoderSession
from fisher_edge.errors import BadInputError, DamagedStateError, UsageError
from fisher_edge.publish.address import BrokerAddress
from fisher_edge.publish.broker import EmbeddedBroker
from fisher_edge.publish.message import Topics
from fisher_edge.publish.mqtt import Publisher
from fisher_edge.publish.outbox import Outbox
from fisher_edge.sources.open import open_source
from fisher_edge.store import Store

__all__ = ["Daemon", "window_and_hop"]

TICK_S = 0.2
FINISH_S = 1.0
"""How long the window under way may take when the daemon stops."""
FLUSH_S = 2.5
"""How long the publisher may then take to deliver what waits."""
MEGABYTE = 1 << 20
DAY_S = 86_400

log = logging.getLogger(__name__)


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
            stack.enter_context(only_daemon(self.config.gateway.state_dir))
            store = stack.enter_context(Store(self.config.gateway.state_dir))
            boot = store.new_boot()
            channels = [self._channel(store, session, channel) for channel in self.config.channel]
            publisher = stack.enter_context(self._publisher(boot, session))
            worker = threading.Thread(target=self._work, args=(boot,), name="worker", daemon=True)
            worker.start()
            for channel in channels:
                channel.start(self._stop)
            log.info("listen with: mosquitto_sub -t '%s/#' -v", self.topics.base)
            log.info("monitoring %s with %s", ", ".join(channel.name for channel in channels), session.bundle.name)
            try:
                self._supervise(channels, worker, publisher, Outbox(store, self.topics, boot))
            finally:
                self._stop.set()
                worker.join(FINISH_S)
        if self._failure is not None:
            raise self._failure

    def _supervise(
        self, channels: list[Channel], worker: threading.Thread, publisher: Publisher, outbox: Outbox
    ) -> None:
        """Watch over the threads until there is a reason to stop."""
        while not self._stop.wait(TICK_S):
            for channel in channels:
                channel.check_silence(self._stop)
            if not worker.is_alive():
                log.error("the worker has ended; stopping")
                return
            if not publisher.is_alive():
                raise DamagedStateError(publisher.condition().last_error)
            ended = all(channel.ended.is_set() for channel in channels) and self.work.idle()
            if ended and outbox.depth() == 0:
                log.info("every source has ended and everything is delivered")
                return

    def _channel(self, store: Store, session: EncoderSession, config: ChannelConfig) -> Channel:
        """Prepare one channel with its baseline, or without one."""
        front_end = session.bundle.front_end
        window_frames, hop_frames = window_and_hop(self.config, config, front_end)
        monitor: Monitor | Unenrolled
        try:
            monitor = load_monitor(store, session, config.asset, config.name, self._policy(), hop_frames)
            _resume(monitor, store.last_judgement(config.asset, config.name))
        except BadInputError as error:
            log.warning("%s; until then only plain measures", error)
            monitor = Unenrolled(session, window_frames, hop_frames)
        if monitor.window_frames != window_frames:
            enrolled_s, window_s = (n * front_end.hop_ms / 1000 for n in (monitor.window_frames, window_frames))
            raise UsageError(
                f"channel {config.asset}/{config.name} is enrolled with windows of {enrolled_s:g} s, the configuration "
                f"says {window_s:g} s; set window_s = {enrolled_s:g} in its [[channel]] or enrol again"
            )
        return Channel(config, open_source(config), monitor, front_end, self.work)

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

    def _work(self, boot: int) -> None:
        """Run the worker with a store of its own; what it raises is handed to `run`."""
        mqtt = self.config.mqtt
        try:
            with Store(self.config.gateway.state_dir, set_aside=False) as store:
                outbox = Outbox(
                    store,
                    self.topics,
                    boot,
                    max_bytes=int(mqtt.outbox_mb * MEGABYTE),
                    max_age_s=mqtt.outbox_days * DAY_S,
                )
                judge_all(self.work, outbox, self._stop)
        except BaseException as error:  # noqa: BLE001 -- handed on
            self._failure = error


def window_and_hop(config: Config, channel: ChannelConfig, front_end: FrontEnd) -> tuple[int, int]:
    """Frames of a channel's windows and from one to the next; UsageError when the model cannot see so many."""
    window_s = channel.window_s or config.model.window_s
    hop_s = channel.hop_s or config.model.hop_s or default_hop_s(window_s)
    frames = front_end.frames_of(window_s)
    if not MIN_FRAMES <= frames <= front_end.max_frames:
        shortest_s, longest_s = (n * front_end.hop_ms / 1000 for n in (MIN_FRAMES, front_end.max_frames))
        raise UsageError(
            f"channel {channel.asset}/{channel.name}: window_s = {window_s:g} is not within the {shortest_s:g} to "
            f"{longest_s:g} s this model can see; choose another"
        )
    return frames, front_end.frames_of(hop_s)


def _resume(monitor: Monitor, event: dict[str, Any] | None) -> None:
    """Carry an alarm on over a restart, unless the channel was enrolled anew since."""
    if event and event["after"] != "normal" and event["time"] > rfc3339(monitor.normal.created_s):
        monitor.resume(event)
