"""Runs the demonstration: enroll, start broker and gateway, listen to what arrives. Start at `Demonstration.play`."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import soundfile
from paho.mqtt.enums import CallbackAPIVersion

from fisher_edge.config import Config
from fisher_edge.decision.assess import Enrolled
from fisher_edge.demo.examples import SENSORS, Sensor
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.select import open_encoder
from fisher_edge.errors import FisherEdgeError
from fisher_edge.example_files import find_examples
from fisher_edge.gateway import Gateway
from fisher_edge.gateway.recordings import enroll_recordings
from fisher_edge.names import ChannelKey
from fisher_edge.publish.broker import EmbeddedBroker
from fisher_edge.publish.message import seconds
from fisher_edge.sources.recording import read_recording
from fisher_edge.store.database import Database

__all__ = ["Demonstration", "Track"]

ROOT = "fisher-edge"
GATEWAY = "demo"
REFRESH_S = 0.25
SLACK_S = 20.0
"""How much longer than planned the replay may take on a slow machine before it is given up."""


@dataclass
class Track:
    """What has arrived from one sensor so far."""

    sensor: Sensor
    enrolled: Enrolled
    speed: float
    healthy_s: float
    """Seconds of healthy signal before the faulty recordings begin."""
    results: list[dict[str, Any]] = field(default_factory=list)

    @property
    def healthy(self) -> list[dict[str, Any]]:
        """Results of windows that lie in the healthy recordings."""
        return [result for result in self.results if self._played_s(result) <= self.healthy_s + 1e-3]

    @property
    def faulty(self) -> list[dict[str, Any]]:
        """Results of windows that lie in the faulty recordings."""
        return self.results[len(self.healthy) :]

    @property
    def false_alarms(self) -> int:
        """Healthy windows that did not stay normal."""
        return sum(result["state"] != "normal" for result in self.healthy)

    @property
    def caught(self) -> bool:
        """Whether the faulty recordings have reached the alarm."""
        return any(result["state"] == "alarm" for result in self.faulty)

    @property
    def as_expected(self) -> bool:
        """Whether the healthy recordings stayed normal and the faulty ones were caught."""
        return bool(self.healthy) and self.false_alarms == 0 and self.caught

    def _played_s(self, result: dict[str, Any]) -> float:
        """Signal time at the end of a window, counted from the start of the replay."""
        first = self.results[0]
        return seconds(result["time"]) - seconds(first["time"]) + float(first["window_s"])


class Demonstration:
    """One run of the demonstration in a state directory of its own."""

    def __init__(self, state_dir: Path, seconds: float, window_s: float | None = None) -> None:
        self.state_dir = state_dir
        self.seconds = seconds
        self.window_s = window_s
        self.tracks: dict[tuple[str, str], Track] = {}
        self.messages = 0
        self.elapsed_s = 0.0
        self._folder = find_examples()

    def enroll(self, begin: Callable[[Sensor], None]) -> None:
        """Enroll the healthy recordings of every sensor; `begin` is called before each."""
        encoder = open_encoder(load_bundle())
        with Database(self.state_dir) as database:
            for sensor in SENSORS:
                begin(sensor)
                enrolled = enroll_recordings(
                    database,
                    encoder,
                    [read_recording(path) for path in self._files(sensor, sensor.enrolled)],
                    ChannelKey(sensor.asset, sensor.channel),
                    window_s=self.window_s or sensor.window_s,
                )
                healthy_s = self._length_s(sensor, sensor.kept_out)
                total_s = healthy_s + self._length_s(sensor, sensor.faulty)
                self.tracks[sensor.asset, sensor.channel] = Track(sensor, enrolled, total_s / self.seconds, healthy_s)

    def play(self, refresh: Callable[[], None]) -> None:
        """Replay everything through gateway and broker, calling `refresh` now and then until it has ended."""
        started = time.monotonic()
        with ExitStack() as stack:
            broker = stack.enter_context(EmbeddedBroker())
            stack.callback(self._listen(broker.port))
            gateway = Gateway(self._config(broker.url))
            failures: list[BaseException] = []
            thread = threading.Thread(target=_guarded, args=(gateway.run, failures), name="gateway")
            thread.start()
            stack.callback(thread.join)
            stack.callback(gateway.stop)
            while thread.is_alive() and self.elapsed_s < self.seconds + SLACK_S:
                thread.join(REFRESH_S)
                self.elapsed_s = time.monotonic() - started
                refresh()
        if failures:
            raise failures[0]

    def _files(self, sensor: Sensor, names: tuple[str, ...]) -> list[Path]:
        """Paths of some recordings of a sensor."""
        return [self._folder / sensor.folder / name for name in names]

    def _length_s(self, sensor: Sensor, names: tuple[str, ...]) -> float:
        """Total length of some recordings of a sensor."""
        return sum(float(soundfile.info(path).duration) for path in self._files(sensor, names))

    def _config(self, url: str) -> Config:
        """Write the configuration that an integrator would have written."""
        channels = [
            {
                "asset": track.sensor.asset,
                "name": track.sensor.channel,
                "unit": track.sensor.unit,
                "window_s": track.enrolled.window_s,
                "hop_s": track.enrolled.hop_s,
                "source": {
                    "type": "recording",
                    "files": [
                        str(path) for path in self._files(track.sensor, track.sensor.kept_out + track.sensor.faulty)
                    ],
                    "speed": track.speed,
                },
            }
            for track in self.tracks.values()
        ]
        return Config.model_validate(
            {
                "gateway": {"name": GATEWAY, "state_dir": self.state_dir},
                "mqtt": {"url": url, "root": ROOT},
                "channel": channels,
            }
        )

    def _listen(self, port: int) -> Callable[[], None]:
        """Subscribe to the gateway's results like any other client; return how to stop."""
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="demonstration-screen")
        client.on_message = lambda _client, _data, message: self._heard(message.topic, message.payload)

        def subscribe(*_: object) -> None:
            client.subscribe(f"{ROOT}/{GATEWAY}/#", qos=1)

        client.on_connect = subscribe
        client.connect("127.0.0.1", port)
        client.loop_start()

        def stop() -> None:
            client.disconnect()
            client.loop_stop()

        return stop

    def _heard(self, topic: str, payload: bytes | bytearray) -> None:
        """Take one message from the broker."""
        self.messages += 1
        if topic.endswith("/result"):
            _, _, asset, channel, _ = topic.split("/")
            self.tracks[asset, channel].results.append(json.loads(payload))


def _guarded(run: Callable[[], None], failures: list[BaseException]) -> None:
    """Run the gateway in its thread and keep what it raises for the main thread."""
    try:
        run()
    except FisherEdgeError as error:
        failures.append(error)
