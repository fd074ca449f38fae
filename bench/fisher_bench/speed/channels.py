"""How many channels one core carries, found by running them: a real gateway, a real broker. Start at `run_channels`.

The gateway is the command `fisher-edge run` in a process of its own, held to one core. Each channel replays a recording
of noise in real time, is judged against a baseline of ten takes, and publishes over MQTT to a broker beside it.
"""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt
import psutil
import soundfile
from paho.mqtt.enums import CallbackAPIVersion

from fisher_edge.dsp.blocks import Rate
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.select import open_encoder
from fisher_edge.errors import BrokerError
from fisher_edge.gateway.recordings import enroll_recordings
from fisher_edge.gateway.wiring import cache_of
from fisher_edge.names import ChannelKey
from fisher_edge.publish.broker import EmbeddedBroker
from fisher_edge.publish.message import seconds as seconds_of
from fisher_edge.sources.recording import read_recording
from fisher_edge.store.baselines import Baselines
from fisher_edge.store.database import Database, make_private

__all__ = ["ChannelRun", "run_channels"]

TAKES = 10
# Windows of the baseline: the figures of the log are for a thousand.
WINDOWS = 1000
START_S = 120.0
# Share of the expected results that must arrive: the first and the last one may lie outside the time that is counted.
ENOUGH = 0.95
MOSQUITTO_PATHS = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin"
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class ChannelRun:
    """A run of `channels` channels on one core.

    `cpu_ms_per_s` is the CPU time of the whole process for a second of one channel's signal, `core_share` its share of
    the core. `skipped_windows` were lost; `late_s` are percentiles of the time from the end of a window's signal to
    the arrival of its result at a subscriber.
    """

    bundle: str
    provider: str
    channels: int
    rate_hz: float
    window_s: float
    hop_s: float
    minutes: float
    broker: str
    results: int
    expected_results: int
    skipped_windows: int
    cpu_ms_per_s: float
    core_share: float
    memory_mb: float
    late_s: dict[str, float | None]
    start_s: float
    """From the start of the process until every channel is read."""
    start_cpu_s: float

    @property
    def carried(self) -> bool:
        """Whether the core carried them: no window lost, and results no later than a hop after their signal."""
        latest_s, enough = self.late_s["p99"], self.results >= ENOUGH * self.expected_results
        return self.skipped_windows == 0 and enough and latest_s is not None and latest_s <= self.hop_s

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**asdict(self), "carried": self.carried}


def run_channels(
    bundle: str,
    channels: int,
    rate_hz: Rate,
    *,
    window_s: float,
    hop_s: float,
    minutes: float,
    provider: str = "auto",
    core: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> ChannelRun:
    """Run so many channels for some minutes and count what arrives; `core` None: the last one there is.

    `tell` is called with what is being done.
    """
    with tempfile.TemporaryDirectory(prefix="fisher-edge-bench-") as name, _broker(Path(name)) as (url, broker):
        folder = Path(name)
        tell(f"the enrollment of {TAKES} takes")
        hop_s = _enroll(folder, bundle, channels, rate_hz, window_s, hop_s, provider)
        _write_noise(folder / "played.wav", 60 * minutes + START_S + window_s + 2 * hop_s, rate_hz, TAKES)
        _configure(folder, bundle, channels, rate_hz, window_s, hop_s, provider, url)
        with _Heard(url) as heard, _gateway(folder, _last_core() if core is None else core) as process:
            started_s = time.monotonic()
            heard.wait_until_online(process, folder / "log")
            start_s, start_cpu_s = time.monotonic() - started_s, _cpu_s(process)
            tell("the first windows")
            time.sleep(window_s + 2 * hop_s)
            tell(f"{channels} channels for {minutes:g} minutes")
            cpu_s, passed_s = _counted(heard, process, minutes)
            return ChannelRun(
                bundle=heard.info["model"]["name"],
                provider=heard.info["provider"],
                channels=channels,
                rate_hz=float(rate_hz),
                window_s=window_s,
                hop_s=hop_s,
                minutes=minutes,
                broker=broker,
                results=heard.results,
                expected_results=int(channels * passed_s / hop_s),
                skipped_windows=heard.skipped,
                cpu_ms_per_s=1000 * cpu_s / passed_s / channels,
                core_share=cpu_s / passed_s,
                memory_mb=process.memory_info().rss / 1e6,
                late_s=heard.percentiles(),
                start_s=start_s,
                start_cpu_s=start_cpu_s,
            )


def _counted(heard: "_Heard", process: psutil.Popen, minutes: float) -> tuple[float, float]:
    """Count what arrives for some minutes; return the CPU seconds of the gateway and the seconds that passed."""
    heard.clear()
    before_s, from_s = _cpu_s(process), time.monotonic()
    time.sleep(60 * minutes)
    return _cpu_s(process) - before_s, time.monotonic() - from_s


def _enroll(
    folder: Path, bundle: str, channels: int, rate_hz: Rate, window_s: float, hop_s: float, provider: str
) -> float:
    """Enroll takes of noise for the first channel and copy its baseline to the others; return the hop of its grid."""
    make_private(folder / "state")
    encoder = open_encoder(load_bundle(bundle), provider, cache_dir=cache_of(folder / "state"))
    take_s = window_s + hop_s * (WINDOWS / TAKES - 1)
    recordings = []
    for number in range(TAKES):
        path = folder / f"take-{number}.wav"
        _write_noise(path, take_s + 1, rate_hz, number)
        recordings.append(read_recording(path, rate_hz=rate_hz))
    with Database(folder / "state") as database:
        facts = enroll_recordings(database, encoder, recordings, _key(0), window_s=window_s, hop_s=hop_s, audio_bytes=0)
        baselines = Baselines(database)
        (baseline,) = baselines.active(_key(0))
        for number in range(1, channels):
            baselines.add(replace(baseline, key=_key(number)))
    return float(facts.hop_s)


def _write_noise(path: Path, seconds: float, rate_hz: Rate, seed: int) -> None:
    """Write white noise as 16 bit, as a sensor's converter gives it."""
    rng = np.random.default_rng(seed)
    with soundfile.SoundFile(path, "w", round(rate_hz), 1, "PCM_16") as file:
        for _ in range(math.ceil(seconds)):
            file.write(0.1 * rng.standard_normal(round(rate_hz), np.float32))


def _key(number: int) -> ChannelKey:
    return ChannelKey(f"machine-{number}", "noise")


def _configure(
    folder: Path, bundle: str, channels: int, rate_hz: Rate, window_s: float, hop_s: float, provider: str, url: str
) -> None:
    """Write the configuration of the gateway."""
    lines = [
        "[gateway]",
        'name = "bench"',
        'state_dir = "state"',
        "[model]",
        f"bundle = {json.dumps(bundle if bundle == 'default' else str(Path(bundle).absolute()))}",
        f"provider = {json.dumps(provider)}",
        f"window_s = {window_s}",
        f"hop_s = {hop_s}",
        "[mqtt]",
        f"url = {json.dumps(url)}",
    ]
    for number in range(channels):
        key = _key(number)
        lines += [
            "[[channel]]",
            f"asset = {json.dumps(key.asset)}",
            f"name = {json.dumps(key.channel)}",
            f'source = {{ type = "recording", files = ["played.wav"], rate_hz = {float(rate_hz)!r} }}',
        ]
    (folder / "gateway.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextmanager
def _gateway(folder: Path, core: int) -> Iterator[psutil.Popen]:
    """Run the gateway on one core for as long as the block lasts."""
    command = [sys.executable, "-m", "fisher_edge.cli", "run", "gateway.toml"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with (folder / "log").open("wb") as log:
        process = psutil.Popen(command, cwd=folder, env=environment, stderr=log)
    try:
        process.cpu_affinity([core])
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except psutil.TimeoutExpired:
            process.kill()


def _last_core() -> int:
    return max(os.sched_getaffinity(0))


def _cpu_s(process: psutil.Popen) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def _broker(folder: Path) -> Iterator[tuple[str, str]]:
    """Run mosquitto where there is one, else the embedded broker in this process: (address, name)."""
    executable = shutil.which("mosquitto", path=MOSQUITTO_PATHS)
    if executable is None:
        with EmbeddedBroker() as broker:
            yield broker.url, "embedded"
        return
    with EmbeddedBroker() as probe:
        port = probe.port  # free a moment later
    settings = folder / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n", encoding="utf-8")
    process = subprocess.Popen([executable, "-c", settings], stderr=subprocess.DEVNULL)
    try:
        yield f"mqtt://127.0.0.1:{port}", "mosquitto"
    finally:
        process.terminate()
        process.wait(10)


def _last_line(log: Path) -> str:
    """The last that a gateway has written into its log."""
    return (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["it has said nothing"])[-1]


class _Heard:
    """A subscriber that counts results and how late they are."""

    def __init__(self, url: str) -> None:
        self._port = int(url.rsplit(":", 1)[1])
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._lock = threading.Lock()
        self._online = threading.Event()
        self.info: dict[str, Any] = {}
        self.clear()

    def clear(self) -> None:
        """Count from now on."""
        with self._lock:
            self.late_s: list[float] = []
            self.skipped = 0

    @property
    def results(self) -> int:
        """Results so far."""
        return len(self.late_s)

    def percentiles(self) -> dict[str, float | None]:
        """How late results were, in seconds; None while there is none."""
        with self._lock:
            late_s = list(self.late_s)
        return {f"p{share}": float(np.percentile(late_s, share)) if late_s else None for share in PERCENTILES}

    def wait_until_online(self, process: psutil.Popen, log: Path) -> None:
        """Wait for the gateway; raises BrokerError when it does not come."""
        until_s = time.monotonic() + START_S
        while not (self._online.wait(0.2) and self.info):
            if process.poll() is not None or time.monotonic() > until_s:
                raise BrokerError(f"the gateway of the benchmark did not come online: {_last_line(log)}")

    def __enter__(self) -> "_Heard":
        def subscribe(*_: object) -> None:
            self._client.subscribe("fisher-edge/bench/#", qos=1)

        self._client.on_connect = subscribe
        self._client.on_message = lambda _client, _data, message: self._take(message.topic, bytes(message.payload))
        until_s = time.monotonic() + 10
        while True:
            try:
                self._client.connect("127.0.0.1", self._port)
                break
            except OSError as error:
                if time.monotonic() > until_s:
                    raise BrokerError(f"the broker of the benchmark does not answer: {error}") from error
                time.sleep(0.1)
        self._client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _take(self, topic: str, payload: bytes) -> None:
        now_s, kind = time.time(), topic.rsplit("/", 1)[1]
        if kind == "status" and payload == b"online":
            self._online.set()
        elif kind == "info":
            self.info = json.loads(payload)
        elif kind == "result":
            result = json.loads(payload)
            with self._lock:
                self.late_s.append(now_s - seconds_of(result["time"]))
                self.skipped += result["skipped"]
