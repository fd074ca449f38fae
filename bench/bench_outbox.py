"""Cost of a record and rate of delivery, each against the bare thing measured next to it.

    pytest bench/bench_outbox.py

Seconds depend on the machine and are only shown; what is asserted are ratios.
"""

import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mosquitto import EXECUTABLE, HOST, Mosquitto, wait_until
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from fisher_edge.decision.judgement import (
    BandShare,
    BaselineName,
    Evidence,
    Judgement,
    ModelName,
    Nearest,
    PlainMeasures,
    Result,
    Standing,
    State,
)
from fisher_edge.names import ChannelKey
from fisher_edge.publish import BrokerAddress, Publisher, Topics
from fisher_edge.publish.message import Info, result_message
from fisher_edge.store.body import to_text
from fisher_edge.store.database import Database
from fisher_edge.store.records import Limits, Records

TOPICS = Topics("fisher-edge", "line-3")
ROWS = 2000
ROUNDS = 5
KEY = ChannelKey("pump-1", "vib-de")
LIMITS = Limits(waiting_bytes=64 << 20, waiting_s=7 * 86400.0, history_bytes=64 << 20, history_s=7 * 86400.0)
# A window of a channel at 48 kHz, as large as they come: 48 bands.
JUDGEMENT = Judgement(
    time_s=1769851800.25,
    window_s=10.24,
    rate_hz=48000,
    model=ModelName("fisher-mini", "ab" * 32),
    baseline=BaselineName(3, 420),
    distance=0.0123,
    score=0.7,
    evidence=Evidence(0.2, 0.1, None, 0.3, 60.0, 600.0),
    bands=tuple(BandShare(500.0 * band, 500.0 * band + 1000, 0.02083 + 1e-5 * band) for band in range(48)),
    nearest=Nearest(3, "normal-01.wav", 20.48, 1769000000.0),
    measures=PlainMeasures(0.51, 2.2, 4.3, 3.1),
    latency_ms=12.5,
)
RESULT = Result(JUDGEMENT, State.NORMAL, "g")
STANDING = Standing(JUDGEMENT.time_s, State.NORMAL, JUDGEMENT.time_s - 3600, None, JUDGEMENT, "g")
PAYLOAD = to_text(result_message(RESULT, gateway="line-3", key=KEY, boot=1, seq=1, replay=False))


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """Return a running broker."""
    if EXECUTABLE is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    broker = Mosquitto(folder).start()
    yield broker
    broker.close()


def median_seconds(work: Callable[[], object]) -> float:
    """Return the median time of a few runs, in seconds."""
    seconds = []
    for _ in range(ROUNDS):
        started_s = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started_s)
    return statistics.median(seconds)


def publisher(state_dir: Path, url: str, records: Records) -> Publisher:
    """Return a publisher of the records."""
    address, info = BrokerAddress.parse(url), Info("1.0", "nano", "0" * 64, "cpu")
    return Publisher(state_dir, address, TOPICS, records.boot, limits=LIMITS, channels={KEY}, info=info)


def test_put_against_a_bare_transaction(benchmark: Any, tmp_path: Path) -> None:
    """Writing one window (result and state, numbered, counted, bounded) against one bare insert of the same message."""
    bare = sqlite3.connect(tmp_path / "bare.sqlite3", isolation_level=None)
    bare.execute("PRAGMA journal_mode = WAL")
    bare.execute("PRAGMA synchronous = NORMAL")
    bare.execute("CREATE TABLE row (id INTEGER PRIMARY KEY AUTOINCREMENT, payload BLOB)")
    with Database(tmp_path) as database:
        records = Records(database, database.new_boot(), limits=LIMITS)

        def insert() -> None:
            for _ in range(200):
                bare.execute("INSERT INTO row (payload) VALUES (?)", (PAYLOAD,))

        def put() -> None:
            for _ in range(200):
                records.put(KEY, result=RESULT, standing=STANDING)

        ratio = median_seconds(put) / median_seconds(insert)
        benchmark(records.put, KEY, result=RESULT, standing=STANDING)
    bare.close()
    benchmark.extra_info["against a bare insert"] = round(ratio, 1)
    print(f"\none put costs {ratio:.1f} bare inserts")
    assert ratio < 16


def test_delivery_against_bare_paho(benchmark: Any, mosquitto: Mosquitto, tmp_path: Path) -> None:
    """Rows to a real mosquitto, noted as delivered on PUBACK, against paho alone with as many in flight."""

    def bare() -> None:
        acknowledged: list[int] = []
        client = Client(CallbackAPIVersion.VERSION2)
        client.on_publish = lambda _client, _data, mid, _reason, _properties: acknowledged.append(mid)
        client.connect(HOST, mosquitto.port)
        while not client.is_connected():
            client.loop(0.05)
        sent = 0
        while len(acknowledged) < ROWS:
            while sent < ROWS and sent - len(acknowledged) < 20:
                client.publish("bare", PAYLOAD, qos=1)
                sent += 1
            client.loop(0.05)
        client.disconnect()

    with Database(tmp_path) as database:
        records = Records(database, database.new_boot(), limits=LIMITS)

        def fill() -> None:
            for _ in range(ROWS):
                records.put(KEY, result=RESULT)

        def deliver() -> None:
            with publisher(tmp_path, mosquitto.url, records):
                wait_until(lambda: records.totals().waiting == 0, "an empty outbox", 60.0)

        bare_s = median_seconds(bare)
        benchmark.pedantic(deliver, setup=fill, rounds=ROUNDS)
    rate = ROWS / benchmark.stats.stats.median
    ratio = bare_s / benchmark.stats.stats.median
    benchmark.extra_info["rows per second"] = round(rate)
    print(f"\n{rate:.0f} rows/s from the database, {ROWS / bare_s:.0f} rows/s from paho alone: {ratio:.2f} of it")
    assert ratio > 0.1


def test_latency_from_put_to_acknowledgement(benchmark: Any, mosquitto: Mosquitto, tmp_path: Path) -> None:
    """Time from the call of put on an idle gateway until the broker's acknowledgement is noted."""
    with Database(tmp_path) as database:
        records = Records(database, database.new_boot(), limits=LIMITS)
        with publisher(tmp_path, mosquitto.url, records) as running:
            wait_until(lambda: running.condition().connected, "a connection")

            def put_and_wait() -> None:
                records.put(KEY, result=RESULT)
                while records.totals().waiting:
                    time.sleep(0.0005)

            benchmark.pedantic(put_and_wait, rounds=100)
