"""Cost of the outbox and rate of delivery, each against the bare thing measured beside it.

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

from fisher_edge.dsp.blocks import rfc3339
from fisher_edge.publish import BrokerAddress, Outbox, Publisher, Topics
from fisher_edge.publish.message import encode
from fisher_edge.store import Store

TOPICS = Topics("fisher-edge", "line-3")
ROWS = 2000
ROUNDS = 5
RESULT = {
    "time": rfc3339(1769851800.25),
    "window_s": 10.24,
    "rate_hz": 48000,
    "state": "normal",
    "distance": 0.0123,
    "threshold": 0.0456,
    "ratio": 0.27,
    "p_value": 0.41,
    "bands": [{"low_hz": 500 * band, "high_hz": 500 * band + 1000, "share": 0.02083} for band in range(48)],
    "nearest": {"baseline": 3, "time": rfc3339(1769000000.0)},
    "fault": None,
    "features": {"rms": 0.51, "peak": 2.2, "crest_factor": 4.3, "kurtosis": 3.1},
    "latency_ms": 12.5,
}
"""A result of a channel at 48 kHz, as large as they come: 48 bands."""

STATE = {"time": RESULT["time"], "state": "normal", "distance": 0.0123}


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
    """Return the median time of a few runs."""
    seconds = []
    for _ in range(ROUNDS):
        started_s = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started_s)
    return statistics.median(seconds)


def test_put_costs_little_more_than_a_bare_transaction(benchmark: Any, tmp_path: Path) -> None:
    """Writing one window (result and state, numbered, counted, bounded) against one bare insert of the same bytes."""
    bare = sqlite3.connect(tmp_path / "bare.sqlite3", isolation_level=None)
    bare.execute("PRAGMA journal_mode = WAL")
    bare.execute("PRAGMA synchronous = NORMAL")
    bare.execute("CREATE TABLE row (id INTEGER PRIMARY KEY AUTOINCREMENT, payload BLOB)")
    with Store(tmp_path) as store:
        outbox = Outbox(store, TOPICS, store.new_boot())

        def insert() -> None:
            for _ in range(200):
                bare.execute("INSERT INTO row (payload) VALUES (?)", (encode(RESULT),))

        def put() -> None:
            for _ in range(200):
                outbox.put("pump-1", "vib-de", result=RESULT, state=STATE)

        ratio = median_seconds(put) / median_seconds(insert)
        benchmark(outbox.put, "pump-1", "vib-de", result=RESULT, state=STATE)
    bare.close()
    benchmark.extra_info["against a bare insert"] = round(ratio, 1)
    print(f"\none put costs {ratio:.1f} bare inserts")
    assert ratio < 12


def test_delivery_against_bare_paho(benchmark: Any, mosquitto: Mosquitto, tmp_path: Path) -> None:
    """Rows from the outbox to a real mosquitto, deleted on PUBACK, against paho alone with as many in flight."""
    payload = encode(RESULT)

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
                client.publish("bare", payload, qos=1)
                sent += 1
            client.loop(0.05)
        client.disconnect()

    with Store(tmp_path) as store:
        outbox = Outbox(store, TOPICS, store.new_boot())

        def fill() -> None:
            for _ in range(ROWS):
                outbox.put("pump-1", "vib-de", result=RESULT)

        def deliver() -> None:
            address = BrokerAddress.parse(mosquitto.url)
            with Publisher(tmp_path, address, TOPICS, outbox.boot, info={}):
                wait_until(lambda: outbox.depth() == 0, "an empty outbox", 60.0)

        bare_s = median_seconds(bare)
        benchmark.pedantic(deliver, setup=fill, rounds=ROUNDS)
    rate = ROWS / benchmark.stats.stats.median
    ratio = bare_s / benchmark.stats.stats.median
    benchmark.extra_info["rows per second"] = round(rate)
    print(f"\n{rate:.0f} rows/s from the outbox, {ROWS / bare_s:.0f} rows/s from paho alone: {ratio:.2f} of it")
    assert ratio > 0.1


def test_latency_from_put_to_acknowledgement(benchmark: Any, mosquitto: Mosquitto, tmp_path: Path) -> None:
    """Time from the call of put on an idle gateway until the broker's acknowledgement has emptied the outbox."""
    with Store(tmp_path) as store:
        outbox = Outbox(store, TOPICS, store.new_boot())
        with Publisher(tmp_path, BrokerAddress.parse(mosquitto.url), TOPICS, outbox.boot, info={}) as publisher:
            wait_until(lambda: publisher.condition().connected, "a connection")

            def put_and_wait() -> None:
                outbox.put("pump-1", "vib-de", result=RESULT)
                while outbox.depth():
                    time.sleep(0.0005)

            benchmark.pedantic(put_and_wait, rounds=100)
