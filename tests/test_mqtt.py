"""Delivery to a real mosquitto: complete, in order, once per key, whatever happens to broker, network or process."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from judgements import AMPLE, change, noise, result, standing
from mosquitto import HOST, Mosquitto, Proxy, Subscriber, free_port, wait_until
from small_disk import fill, small_disk

from fisher_edge.decision.judgement import State
from fisher_edge.errors import BrokerError, DiskFullError, StateError
from fisher_edge.names import ChannelKey
from fisher_edge.publish import BrokerAddress, Publisher, Timing, Topics
from fisher_edge.publish.broker import CONFIG, EmbeddedBroker
from fisher_edge.publish.delivery import WINDOW
from fisher_edge.publish.message import Info
from fisher_edge.publish.session import CredentialsRefusedError, Session
from fisher_edge.store.database import Database
from fisher_edge.store.records import Limits, Records

TOPICS = Topics("fisher-edge", "line-3")
KEY = ChannelKey("pump-1", "vib-de")
QUICK = Timing(first_retry_s=0.05, longest_retry_s=0.2, refused_retry_s=0.1, stable_s=5.0, acknowledge_s=30.0)
# For brokers that do not answer.
IMPATIENT = replace(QUICK, acknowledge_s=1.0)


@dataclass
class Gateway:
    """A database with records to write into, and publishers on it."""

    folder: Path
    database: Database
    records: Records
    publishers: list[Publisher]

    def publisher(
        self,
        url: str,
        timing: Timing = QUICK,
        *,
        channels: Collection[ChannelKey] = (KEY,),
        limits: Limits = AMPLE,
        listeners: Mapping[str, Callable[[bytes], None]] | None = None,
        **login: Any,
    ) -> Publisher:
        """Start a publisher."""
        publisher = Publisher(
            self.folder,
            BrokerAddress.parse(url, **login),
            TOPICS,
            self.records.boot,
            limits=limits,
            channels=channels,
            info=Info("1.2.3", "nano", "0" * 64, "cpu"),
            listeners=listeners,
            timing=timing,
        )
        self.publishers.append(publisher)
        publisher.start()
        return publisher

    def write(self, count: int, reason: str | None = None) -> None:
        """Write a number of windows."""
        for _ in range(count):
            self.records.put(KEY, result=result(reason), standing=standing())

    def restart(self) -> "Gateway":
        """Return the gateway as the next start of the daemon finds it."""
        records = Records(self.database, self.database.new_boot(), limits=AMPLE)
        return Gateway(self.folder, self.database, records, self.publishers)

    @property
    def waiting(self) -> int:
        """How many messages wait."""
        return self.records.totals().waiting


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """Return a gateway on an empty state directory."""
    folder = tmp_path / "state"
    with Database(folder) as database:
        gateway = Gateway(folder, database, Records(database, database.new_boot(), limits=AMPLE), [])
        yield gateway
        for publisher in gateway.publishers:
            publisher.stop(0.5)


def first_seen(seqs: list[int]) -> list[int]:
    """Return numbers in the order of their first arrival."""
    return list(dict.fromkeys(seqs))


def drained(gateway: Gateway) -> Callable[[], bool]:
    """Return a condition that holds when the broker has acknowledged everything."""
    return lambda: gateway.waiting == 0


def test_stream_arrives_complete_in_order_and_once(mosquitto: Mosquitto, gateway: Gateway) -> None:
    """Every result arrives once, in order, with its identity and without the mark of a replay."""
    with Subscriber(mosquitto.port) as subscriber:
        gateway.publisher(mosquitto.url)
        gateway.write(300)
        subscriber.wait_for("result", 300)
        wait_until(drained(gateway), "an empty outbox")
    assert subscriber.seqs("result") == list(range(1, 301))
    message = subscriber.of("result")[0]
    assert message.topic == "fisher-edge/line-3/pump-1/vib-de/result"
    assert message.fields["schema"] == "fisher-edge/result/2"
    assert (message.fields["gateway"], message.fields["boot"]) == ("line-3", 1)
    assert {message.fields["replay"] for message in subscriber.of("result")} == {False}
    assert subscriber.seqs("state")[-1] == 300


def test_status_info_and_state_are_retained(mosquitto: Mosquitto, gateway: Gateway) -> None:
    """Who subscribes late gets status, info and the latest state, but no results."""
    publisher = gateway.publisher(mosquitto.url)
    gateway.write(3)
    wait_until(drained(gateway), "an empty outbox")
    with Subscriber(mosquitto.port) as subscriber:
        wait_until(lambda: len(subscriber.messages) == 3, "three retained messages")
        assert [m.payload for m in subscriber.of("status")] == [b"online"]
        assert subscriber.of("info")[0].fields == {
            "schema": "fisher-edge/info/1",
            "gateway": "line-3",
            "version": "1.2.3",
            "model": {"name": "nano", "sha256": "0" * 64},
            "provider": "cpu",
            "channels": [],
        }
        assert subscriber.seqs("state") == [3]
        assert all(message.retain for message in subscriber.messages)
        publisher.set_info(Info("1.2.4", "nano", "0" * 64, "cpu"))
        wait_until(lambda: len(subscriber.of("info")) == 2, "the new info")
        assert subscriber.of("info")[1].fields["version"] == "1.2.4"


def test_broker_restart_in_the_stream_loses_nothing(new_mosquitto: Callable[..., Mosquitto], gateway: Gateway) -> None:
    """Windows written before, while and after the broker is away all arrive, in order."""
    mosquitto = new_mosquitto().start()
    with Subscriber(mosquitto.port, name="lasting") as subscriber:
        publisher = gateway.publisher(mosquitto.url)
        gateway.write(100)
        mosquitto.stop()
        gateway.write(100)
        wait_until(lambda: not publisher.condition().connected, "the loss to be noticed")
        assert gateway.waiting > 100
        mosquitto.start()
        gateway.write(100)
        subscriber.wait_for("result", 300)
        wait_until(drained(gateway), "an empty outbox")
        assert first_seen(subscriber.seqs("result")) == list(range(1, 301))
        assert publisher.condition().connected


def test_cut_connections_lose_nothing(mosquitto: Mosquitto, gateway: Gateway) -> None:
    """With the connection cut again and again all results arrive; what comes twice has the same key and content."""
    chance = random.Random(3)
    with Subscriber(mosquitto.port) as subscriber, Proxy(mosquitto.port) as proxy:
        gateway.publisher(proxy.url)
        for number in range(12):
            gateway.write(40)
            subscriber.wait_for("result", 40 * number + chance.randint(1, 40))
            proxy.cut()
        subscriber.wait_for("result", 480)
        wait_until(drained(gateway), "an empty outbox")
        assert proxy.connections > 3
    assert first_seen(subscriber.seqs("result")) == list(range(1, 481))
    contents: dict[int, set[str]] = {}
    for message in subscriber.of("result"):
        own = {name: value for name, value in message.fields.items() if name != "replay"}
        contents.setdefault(message.fields["seq"], set()).add(json.dumps(own, sort_keys=True))
    assert [len(versions) for versions in contents.values()] == [1] * 480


def test_lost_acknowledgements_cause_duplicates_of_the_same_key_only(mosquitto: Mosquitto, gateway: Gateway) -> None:
    """Without acknowledgements no more than a window is sent, then the connection is given up and all comes again."""
    with Subscriber(mosquitto.port) as subscriber, Proxy(mosquitto.port) as proxy:
        publisher = gateway.publisher(proxy.url, IMPATIENT)
        gateway.write(20)
        wait_until(drained(gateway), "a connection that has proved itself")
        subscriber.wait_for("result", 20)
        proxy.swallow_replies = True
        gateway.write(50)
        subscriber.wait_for("result", 30)
        assert gateway.waiting > 50
        wait_until(lambda: "acknowledged nothing for 1 s" in (publisher.condition().last_error or ""), "the stall")
        assert len(subscriber.of("result")) + len(subscriber.of("state")) <= 40 + WINDOW
        proxy.swallow_replies = False
        subscriber.wait_for("result", 70)
        wait_until(drained(gateway), "an empty outbox")
    seqs = subscriber.seqs("result")
    assert len(seqs) > 70
    assert first_seen(seqs) == list(range(1, 71))


def test_frozen_broker_is_noticed_and_gets_everything_later(mosquitto: Mosquitto, gateway: Gateway) -> None:
    """A broker that stops answering (half-open connection) shows in the condition; nothing is lost."""
    with Subscriber(mosquitto.port) as subscriber:
        publisher = gateway.publisher(mosquitto.url, IMPATIENT)
        gateway.write(10)
        subscriber.wait_for("result", 10)
        mosquitto.signal(signal.SIGSTOP)
        gateway.write(40)
        wait_until(lambda: not publisher.condition().connected, "the silence to be noticed")
        assert "acknowledged nothing" in (publisher.condition().last_error or "")
        mosquitto.signal(signal.SIGCONT)
        subscriber.wait_for("result", 50)
        wait_until(drained(gateway), "an empty outbox")
    assert first_seen(subscriber.seqs("result")) == list(range(1, 51))


def test_unreachable_broker_keeps_rows_and_says_so_once(
    new_mosquitto: Callable[..., Mosquitto], gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a broker rows wait, the condition says why, the log says it once; they arrive when it is there."""
    caplog.set_level(logging.INFO)
    mosquitto = new_mosquitto()
    publisher = gateway.publisher(mosquitto.url)
    gateway.write(20)
    wait_until(lambda: publisher.condition().attempts >= 4, "four attempts")
    condition = publisher.condition()
    assert not condition.connected
    assert condition.last_error == f"connection refused by {mosquitto.url}: is the broker running?"
    assert caplog.text.count("connection refused") == 1
    assert gateway.waiting == 21
    wait_until(lambda: publisher.condition().waiting == 21, "the number of waiting rows")
    mosquitto.start()
    wait_until(drained(gateway), "an empty outbox")
    wait_until(lambda: publisher.condition().published == 21, "the count of published rows")
    assert publisher.condition().connected
    assert publisher.condition().last_error is None
    assert publisher.condition().address == mosquitto.url
    assert caplog.text.count("connected to") == 1


def test_rows_that_waited_are_marked_as_replay(mosquitto: Mosquitto, gateway: Gateway) -> None:
    """A row older than a few seconds when it is sent is a replay and keeps its own time; a fresh one is not."""
    running_s = 0.0
    records = Records(gateway.database, gateway.records.boot, limits=AMPLE, running=lambda: running_s)
    records.put(KEY, result=result(time_s=0.0))
    running_s = 60.0
    records.put(KEY, result=result())
    with Subscriber(mosquitto.port) as subscriber:
        gateway.publisher(mosquitto.url)
        subscriber.wait_for("result", 2)
    results = [message.fields for message in subscriber.of("result")]
    assert [(result["seq"], result["replay"]) for result in results] == [(1, True), (2, False)]
    assert results[0]["time"] == "1970-01-01T00:00:00.000Z"


def test_rows_of_an_earlier_boot_come_first_as_replay(mosquitto: Mosquitto, gateway: Gateway) -> None:
    """What the last start left over is sent first, with its own boot number, marked as a replay."""
    gateway.write(30)
    restarted = gateway.restart()
    restarted.write(30)
    with Subscriber(mosquitto.port) as subscriber:
        restarted.publisher(mosquitto.url)
        wait_until(drained(restarted), "an empty outbox")
        wait_until(lambda: len(subscriber.of("result")) == 60, "60 results")
    keys = [(m.fields["boot"], m.fields["seq"], m.fields["replay"]) for m in subscriber.of("result")]
    assert keys == [(1, seq, True) for seq in range(1, 31)] + [(2, seq, False) for seq in range(1, 31)]


def test_clean_stop_delivers_and_says_offline(mosquitto: Mosquitto, gateway: Gateway) -> None:
    """A stop sends what waits, publishes `offline` last and leaves nothing behind."""
    with Subscriber(mosquitto.port) as subscriber:
        publisher = gateway.publisher(mosquitto.url)
        subscriber.wait_for_status(b"online")
        gateway.write(200)
        assert publisher.stop(10.0)
        subscriber.wait_for_status(b"offline")
        assert not publisher.is_alive()
        with closing(Session(BrokerAddress.parse(mosquitto.url), "after")) as session:  # a last will would come before
            session.open()
            session.publish("after/the/end", b"", retain=False)
            wait_until(lambda: session.run(0.1), "the acknowledgement")
            wait_until(lambda: subscriber.of("end"), "the message after the end")
    assert subscriber.seqs("result") == list(range(1, 201))
    assert [m.payload for m in subscriber.of("status")] == [b"online", b"offline"]
    assert subscriber.messages[-2].payload == b"offline"
    assert not publisher.condition().connected


def test_stop_without_a_broker_is_quick_and_keeps_rows(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """A stop does not wait for a broker that is not there, and says that rows are left."""
    publisher = gateway.publisher(f"mqtt://{HOST}:{free_port()}", Timing(first_retry_s=60.0))
    gateway.write(5)
    wait_until(lambda: publisher.condition().waiting == 6, "the first attempt and its count")
    started_s = time.monotonic()
    assert not publisher.stop(60.0)
    assert time.monotonic() - started_s < 30.0
    assert not publisher.is_alive()
    assert gateway.waiting == 6
    assert "stopped with 6 messages" in caplog.text


PUBLISHER = """
    import sys
    from pathlib import Path
    from judgements import AMPLE, change, result, standing
    from fisher_edge.names import ChannelKey
    from fisher_edge.publish import BrokerAddress, Publisher, Topics
    from fisher_edge.publish.message import Info
    from fisher_edge.store.database import Database
    from fisher_edge.store.records import Records

    key = ChannelKey("pump-1", "vib-de")
    with Database(Path(sys.argv[1])) as database:
        topics = Topics("fisher-edge", "line-3")
        records = Records(database, database.new_boot(), limits=AMPLE)
        address, info = BrokerAddress.parse(sys.argv[2]), Info("1.2.3", "nano", "0" * 64, "cpu")
        with Publisher(database.state_dir, address, topics, records.boot, limits=AMPLE, channels={key}, info=info):
            number = 0
            while True:
                number += 1
                records.put(key, result=result(), change=None if number % 10 else change(), standing=standing())
"""


def test_killed_gateway_is_offline_and_its_rows_arrive_after_the_restart(
    mosquitto: Mosquitto, gateway: Gateway
) -> None:
    """SIGKILL leaves whole windows, the last will says `offline`, every number of each boot arrives in the end."""
    python = [sys.executable, "-c", textwrap.dedent(PUBLISHER), str(gateway.folder), mosquitto.url]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with Subscriber(mosquitto.port) as subscriber:
        for boot in (2, 3, 4):
            with subprocess.Popen(python, env=environment) as process:
                try:
                    wait_until(partial(reached, subscriber, "result", boot, 20), "results of the process", 60.0)
                finally:
                    process.send_signal(signal.SIGKILL)
            subscriber.wait_for_status(b"offline")
        totals = gateway.records.totals()
        counted = "SELECT sum(size * (status = 0)), sum(size * (status = 1)) FROM record"
        assert gateway.database.query(counted) == [(totals.waiting_bytes, totals.kept_bytes)]
        gateway.restart().publisher(mosquitto.url)
        wait_until(drained(gateway), "an empty outbox", 60.0)
        for boot, results, events in gateway.database.query("SELECT boot, result_seq, event_seq FROM boot"):
            assert events == results // 10
            for kind, last in (("result", results), ("event", events)):
                wait_until(partial(reached, subscriber, kind, boot, last), f"{kind} {last} of boot {boot}")
                assert of_boot(subscriber, kind, boot) == list(range(1, last + 1))


def reached(subscriber: Subscriber, kind: str, boot: int, seq: int) -> bool:
    """Whether a number of a boot has arrived."""
    return max(of_boot(subscriber, kind, boot), default=0) >= seq


def of_boot(subscriber: Subscriber, kind: str, boot: int) -> list[int]:
    """Return the numbers of one boot in the order of their first arrival."""
    return first_seen([each.fields["seq"] for each in subscriber.of(kind) if each.fields["boot"] == boot])


def test_refused_credentials_are_visible_and_secret(
    new_mosquitto: Callable[..., Mosquitto], gateway: Gateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong password shows as such, without the password, and the right one from a file is let in."""
    users = tmp_path / "users"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(users), "edge", "right-pw"], check=True)
    mosquitto = new_mosquitto(f"allow_anonymous false\npassword_file {users}\n").start()
    url = mosquitto.url.replace("://", "://edge:wrong-pw@")
    publisher = gateway.publisher(url)
    gateway.write(3)
    wait_until(lambda: publisher.condition().last_error, "the refusal")
    text = publisher.condition().last_error or ""
    assert text.startswith(f"{mosquitto.url} refused the credentials of user 'edge' (not authorized)")
    with pytest.raises(CredentialsRefusedError, match="a client without user"):
        Session(BrokerAddress.parse(mosquitto.url), "test").open()
    wait_until(lambda: publisher.condition().attempts >= 3, "three attempts")
    assert caplog.text.count("refused the credentials") == 1
    assert "wrong-pw" not in caplog.text + repr(publisher.address) + str(publisher.condition()) + text
    publisher.stop()
    secret = tmp_path / "secret"
    secret.write_text("right-pw\n")
    gateway.publisher(mosquitto.url.replace("://", "://edge@"), password_file=secret)
    wait_until(drained(gateway), "an empty outbox")


@pytest.mark.parametrize("callback", ["_on_connect", "_on_publish", "_on_disconnect"])
def test_exception_in_a_callback_does_not_end_delivery(
    callback: str,
    mosquitto: Mosquitto,
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A fault inside a callback is logged with its traceback and delivery goes on with a new connection."""
    original = getattr(Session, callback)
    faults: list[int] = []

    def faulty(self: Session, *arguments: Any) -> None:
        if not faults:
            faults.append(1)
            raise RuntimeError("a fault for the test")
        original(self, *arguments)

    monkeypatch.setattr(Session, callback, faulty)
    with Subscriber(mosquitto.port) as subscriber, Proxy(mosquitto.port) as proxy:
        publisher = gateway.publisher(proxy.url)
        gateway.write(50)
        if callback == "_on_disconnect":
            wait_until(lambda: publisher.condition().connected, "a connection")
            proxy.cut()
        wait_until(lambda: faults, "the fault")
        gateway.write(50)
        subscriber.wait_for("result", 100)
        wait_until(drained(gateway), "an empty outbox")
    assert first_seen(subscriber.seqs("result")) == list(range(1, 101))
    assert "internal error, RuntimeError: a fault for the test" in caplog.text
    assert "Traceback" in caplog.text


def test_fault_of_the_database_does_not_end_delivery(
    mosquitto: Mosquitto, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When the database cannot be read the publisher says so, reopens it and continues."""
    original = Records.waiting
    faults: list[int] = []

    def faulty(self: Records, limit: int, besides: Any = ()) -> Any:
        if len(faults) < 2:
            faults.append(1)
            raise StateError("database x: disk I/O error; a fault for the test")
        return original(self, limit, besides)

    monkeypatch.setattr(Records, "waiting", faulty)
    gateway.write(5)
    gateway.publisher(mosquitto.url)
    wait_until(drained(gateway), "an empty outbox")
    assert "disk I/O error" in caplog.text


def test_message_that_the_broker_refuses_is_set_aside(
    new_mosquitto: Callable[..., Mosquitto], gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """A broker that hangs up on one message loses that one only: it is kept, counted and named, the others arrive."""
    mosquitto = new_mosquitto("max_packet_size 4000\n").start()
    with Subscriber(mosquitto.port) as subscriber, Proxy(mosquitto.port) as proxy:
        gateway.write(3)
        gateway.write(1, reason="x" * 5000)
        gateway.write(3)
        publisher = gateway.publisher(proxy.url)
        subscriber.wait_for("result", 7)
        wait_until(drained(gateway), "an empty outbox")
        wait_until(lambda: publisher.condition().set_aside == 1, "the count")
        assert publisher.condition().connected
        assert proxy.connections <= 5
    assert first_seen(subscriber.seqs("result")) == [1, 2, 3, 5, 6, 7]
    assert "bytes to fisher-edge/line-3/pump-1/vib-de/result: may" in (publisher.condition().last_set_aside or "")
    assert caplog.text.count("was set aside") == 1
    (aside,) = gateway.records.set_aside_rows()
    assert (aside.row.kind, aside.row.seq) == ("result", 4)


def test_pause_grows_to_a_cap_with_jitter() -> None:
    """The pause doubles from the first to the longest, each spread over half its length; refusals wait longer."""
    timing = Timing()
    pauses = [[timing.pause_s(attempts, BrokerError("x")) for _ in range(200)] for attempts in (1, 2, 3, 10, 10_000)]
    for found, longest in zip(pauses, (1.0, 2.0, 4.0, 30.0, 30.0), strict=True):
        assert longest / 2 <= min(found) < 0.6 * longest
        assert 0.9 * longest < max(found) <= longest
    assert timing.pause_s(1, CredentialsRefusedError("x")) >= 30.0


@pytest.mark.parametrize(("stable_s", "starts_again"), [(0.0, True), (60.0, False)])
def test_stable_connection_starts_the_pauses_again(
    stable_s: float,
    starts_again: bool,
    new_mosquitto: Callable[..., Mosquitto],
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a connection that lasted, the first pause is short again; after one that did not, it keeps growing."""
    attempts: list[int] = []
    original = Timing.pause_s

    def noted(self: Timing, attempt: int, error: BaseException) -> float:
        attempts.append(attempt)
        return original(self, attempt, error)

    monkeypatch.setattr(Timing, "pause_s", noted)
    mosquitto = new_mosquitto()
    publisher = gateway.publisher(mosquitto.url, replace(QUICK, stable_s=stable_s))
    wait_until(lambda: len(attempts) >= 3, "three attempts")
    mosquitto.start()
    wait_until(lambda: publisher.condition().connected, "the connection")
    before = len(attempts)
    mosquitto.stop()
    wait_until(lambda: len(attempts) > before, "the next attempt")
    assert attempts[before] == (1 if starts_again else before + 1)


def test_two_gateways_of_one_name_say_so_and_do_not_storm(
    mosquitto: Mosquitto, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Gateways that push each other out name the cause, once, and connect no more often than the back-off allows."""
    timing = replace(QUICK, first_retry_s=0.05, longest_retry_s=30.0, stable_s=60.0)
    started_s = time.monotonic()
    publishers = [gateway.publisher(mosquitto.url, timing) for _ in range(2)]

    def named() -> bool:
        return any("another gateway" in (publisher.condition().last_error or "") for publisher in publishers)

    wait_until(named, "the cause")
    wait_until(lambda: max(publisher.condition().attempts for publisher in publishers) >= 6, "more attempts")
    assert named()  # also while connected
    elapsed_s = time.monotonic() - started_s
    for publisher in publishers:
        attempts = publisher.condition().attempts
        assert elapsed_s >= 0.5 * timing.first_retry_s * (2.0 ** (attempts - 1) - 1)
    assert "does another gateway use the name 'line-3'? give each its own name under [gateway]" in caplog.text
    assert caplog.text.count("another gateway") <= len(publishers)


def test_states_are_sent_again_to_a_broker_that_forgot_them(mosquitto: Mosquitto, gateway: Gateway) -> None:
    """After a restart of the broker without its memory, the state of a silent channel is retained there again."""
    publisher = gateway.publisher(mosquitto.url)
    gateway.records.put(KEY, standing=standing(State.NO_DATA))
    wait_until(drained(gateway), "an empty outbox")
    mosquitto.stop()
    wait_until(lambda: not publisher.condition().connected, "the loss to be noticed")
    mosquitto.forget()
    mosquitto.start()
    wait_until(lambda: publisher.condition().connected, "the new connection")
    wait_until(drained(gateway), "an empty outbox")
    with Subscriber(mosquitto.port) as subscriber:
        wait_until(lambda: subscriber.of("state"), "the state")
        assert [message.fields["state"] for message in subscriber.of("state")] == ["no_data"]


def test_listeners_hear_their_topics_before_and_after_a_lost_connection(mosquitto: Mosquitto, gateway: Gateway) -> None:
    """Each gets what is sent to its topic, in order, retained messages at once, and again after a reconnect."""
    heard: dict[str, list[bytes]] = {"plant/a": [], "plant/b": []}
    with Subscriber(mosquitto.port) as plant, Proxy(mosquitto.port) as proxy:
        gateway.publisher(proxy.url, listeners={topic: words.append for topic, words in heard.items()})
        plant.wait_for_status(b"online")
        for topic, word in (("plant/a", "1"), ("plant/b", "2"), ("plant/c", "3"), ("plant/a", "4")):
            plant.publish(topic, word)
        wait_until(lambda: heard == {"plant/a": [b"1", b"4"], "plant/b": [b"2"]}, "the words")
        connections = proxy.connections
        proxy.cut()
        wait_until(lambda: proxy.connections > connections, "a new connection")

        def again() -> bool:
            plant.publish("plant/b", "5")
            return heard["plant/b"][-1] == b"5"

        wait_until(again, "a word after that")


def test_listener_that_fails_does_not_stop_delivery(
    mosquitto: Mosquitto, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error is logged, and everything is delivered over the same connection."""

    def fail(_: bytes) -> None:
        raise ZeroDivisionError("a bug")

    with Subscriber(mosquitto.port) as plant, Proxy(mosquitto.port) as proxy:
        gateway.publisher(proxy.url, listeners={"plant/a": fail})
        plant.wait_for_status(b"online")
        plant.publish("plant/a", "1")
        wait_until(lambda: "a message to plant/a could not be taken" in caplog.text, "the line")
        gateway.write(3)
        plant.wait_for("result", 3)
        assert proxy.connections == 1


def test_subscription_that_the_broker_refuses_is_logged(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delivery goes on, and one line says what to check. mosquitto's access rules refuse no subscription."""
    plugins: dict[str, object] = {"amqtt.plugins.topic_checking.TopicTabooPlugin": {}}
    monkeypatch.setitem(CONFIG, "plugins", {**cast("dict[str, object]", CONFIG["plugins"]), **plugins})
    with EmbeddedBroker() as broker:
        gateway.publisher(broker.url, listeners={"top-secret": lambda _: None})
        gateway.write(2)
        wait_until(drained(gateway), "an empty outbox")
        wait_until(lambda: "refuses a subscription" in caplog.text, "the line")


def test_row_that_cannot_be_decoded_is_set_aside_at_once(
    mosquitto: Mosquitto, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged row costs itself, not the connection and not the others."""
    gateway.write(3)
    gateway.database.query("UPDATE record SET body = x'00' WHERE seq = 2")
    with Subscriber(mosquitto.port) as subscriber, Proxy(mosquitto.port) as proxy:
        publisher = gateway.publisher(proxy.url)
        subscriber.wait_for("result", 3)
        wait_until(lambda: publisher.condition().set_aside == 1, "the count")
        assert "cannot be decoded" in (publisher.condition().last_set_aside or "")
        assert proxy.connections == 1
    assert subscriber.seqs("result") == [1, 3]
    assert caplog.text.count("was set aside") == 1


def test_topic_that_the_broker_refuses_does_not_cost_a_connection_a_message(
    mosquitto: Mosquitto, gateway: Gateway
) -> None:
    """When a broker hangs up on a topic, its messages are set aside without trying each, and the others arrive."""
    other = ChannelKey("pump-1", "other")
    with Subscriber(mosquitto.port) as subscriber, Proxy(mosquitto.port) as proxy:
        proxy.hang_up_on = b"vib-de/result"
        gateway.write(5)
        gateway.records.put(other, result=result(), change=change())
        publisher = gateway.publisher(proxy.url, channels={KEY, other})
        subscriber.wait_for("result", 6)
        wait_until(drained(gateway), "an empty outbox")
        connections = proxy.connections
        assert connections <= 8
        gateway.write(20)
        wait_until(lambda: publisher.condition().set_aside == 25, "the count")
        subscriber.wait_for("state", 26)
        assert proxy.connections == connections
        proxy.hang_up_on = None
        assert gateway.records.send_again() == 25
        wait_until(drained(gateway), "an empty outbox")
        subscriber.wait_for("result", 26)
        assert proxy.connections == connections
    assert first_seen([m.fields["seq"] for m in subscriber.of("result") if "vib-de" in m.topic]) == [
        *range(1, 6),
        *range(7, 27),
    ]


def test_delivered_rows_that_cannot_be_noted_are_not_sent_again(
    mosquitto: Mosquitto, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While the database cannot be written, rows go on to the broker, each once, also over a new connection."""
    original = Records.delivered
    full = threading.Event()

    def faulty(self: Records, rows: Any) -> None:
        if full.is_set():
            raise DiskFullError("database x: the disk is full; a fault for the test")
        original(self, rows)

    monkeypatch.setattr(Records, "delivered", faulty)
    monkeypatch.setattr("fisher_edge.publish.delivery.RETRY_S", 0.01)
    full.set()
    gateway.write(30)
    with Subscriber(mosquitto.port) as subscriber, Proxy(mosquitto.port) as proxy:
        publisher = gateway.publisher(proxy.url)
        subscriber.wait_for("result", 30)
        wait_until(lambda: publisher.condition().published == 31, "the acknowledgements")
        assert gateway.waiting == 31
        proxy.cut()
        wait_until(lambda: proxy.connections == 2, "the second connection")
        gateway.write(30)
        subscriber.wait_for("result", 60)
        wait_until(lambda: publisher.condition().published >= 62, "the acknowledgements")
        assert caplog.text.count("delivered messages cannot be noted yet") == 1
        full.clear()
        wait_until(drained(gateway), "an empty outbox")
    assert subscriber.seqs("result") == list(range(1, 61))


def test_disk_that_fills_while_the_broker_is_away_is_drained_when_it_is_back(
    new_mosquitto: Callable[..., Mosquitto], tmp_path: Path
) -> None:
    """What is in the database arrives once and in order although the disk is full, and so it does after a restart."""
    mosquitto = new_mosquitto()
    with small_disk(tmp_path / "disk") as folder:
        for boot in (1, 2):
            with Database(folder) as database:
                records = Records(database, database.new_boot(), limits=AMPLE)
                gateway = Gateway(folder, database, records, [])
                while records.totals().dropped_results < 20 * boot:
                    records.put(KEY, result=result(noise(2000, records.totals().dropped_results)), change=None)
                records.put(KEY, change=change(), standing=standing(State.ALARM))
                fill(folder)
                owed = [(row.boot, row.seq) for row in records.waiting(100_000) if row.kind == "result"]
                mosquitto.start()
                with Subscriber(mosquitto.port) as subscriber, Proxy(mosquitto.port) as proxy:
                    publisher = gateway.publisher(proxy.url)
                    wait_until(drained(gateway), "an empty outbox")
                    assert proxy.connections == 1
                    assert publisher.stop(10.0)
                    last_boot, last_seq = owed[-1]
                    wait_until(partial(reached, subscriber, "result", last_boot, last_seq or 0), "the results")
                arrived = [(message.fields["boot"], message.fields["seq"]) for message in subscriber.of("result")]
                assert arrived == owed
                assert [message.fields["seq"] for message in subscriber.of("event")] == [1]
                mosquitto.stop()


def test_limits_reach_the_database(mosquitto: Mosquitto, gateway: Gateway) -> None:
    """The publisher keeps the history that its limits allow, and no more."""
    gateway.write(5)
    gateway.publisher(mosquitto.url, limits=replace(AMPLE, history_bytes=0))
    wait_until(drained(gateway), "an empty outbox")
    assert gateway.records.history(KEY, "result") == []


def test_ca_file_that_disappears_is_reported_without_opening_the_database_again(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A certificate that cannot be read is an error of the connection: said once, tried again, nothing else happens."""
    opened: list[Path] = []
    original = Database.__init__

    def counted(self: Database, state_dir: Path, **options: Any) -> None:
        opened.append(state_dir)
        original(self, state_dir, **options)

    monkeypatch.setattr(Database, "__init__", counted)
    address = BrokerAddress(HOST, free_port(), tls=True, ca_file=gateway.folder / "missing.pem")
    publisher = Publisher(
        gateway.folder,
        address,
        TOPICS,
        gateway.records.boot,
        limits=AMPLE,
        channels={KEY},
        info=Info("1.2.3", "nano", "0" * 64, "cpu"),
        timing=QUICK,
    )
    gateway.publishers.append(publisher)
    publisher.start()
    wait_until(lambda: publisher.condition().attempts >= 4, "four attempts")
    assert "cannot use ca_file" in (publisher.condition().last_error or "")
    assert len(opened) == 1
    assert caplog.text.count("cannot use ca_file") == 1


def test_host_that_cannot_be_a_name_is_one_line(gateway: Gateway) -> None:
    """A host of 300 letters is an error of the address, without a traceback."""
    address = BrokerAddress.parse(f"mqtt://{'a' * 300}")
    with closing(Session(address, "test")) as session, pytest.raises(BrokerError, match="is not a host name"):
        session.open()
