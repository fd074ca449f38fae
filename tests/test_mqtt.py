"""Delivery to a real mosquitto: complete, in order, once per key, whatever happens to broker, network or process."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from judgements import AMPLE, result, standing
from mosquitto import HOST, Mosquitto, Proxy, Subscriber, free_port, wait_until

from fisher_edge.errors import BrokerError, StateError
from fisher_edge.names import ChannelKey
from fisher_edge.publish import BrokerAddress, Publisher, Timing, Topics
from fisher_edge.publish.delivery import WINDOW
from fisher_edge.publish.message import Info
from fisher_edge.publish.session import CredentialsRefusedError, Session
from fisher_edge.store.database import Database
from fisher_edge.store.records import Limits, Records

TOPICS = Topics("fisher-edge", "line-3")
KEY = ChannelKey("pump-1", "vib-de")
QUICK = Timing(first_retry_s=0.05, longest_retry_s=0.2, refused_retry_s=0.1, stable_s=5.0, acknowledge_s=1.0)


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
    assert message.fields["schema"] == "fisher-edge/result/1"
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
        for _ in range(12):
            gateway.write(40)
            time.sleep(chance.uniform(0.0, 0.05))
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
        publisher = gateway.publisher(proxy.url)
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
        publisher = gateway.publisher(mosquitto.url)
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
        time.sleep(0.2)  # a last will would come now
    assert subscriber.seqs("result") == list(range(1, 201))
    assert [m.payload for m in subscriber.of("status")] == [b"online", b"offline"]
    assert subscriber.messages[-1].payload == b"offline"
    assert not publisher.condition().connected


def test_stop_without_a_broker_is_quick_and_keeps_rows(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """A stop does not wait for a broker that is not there, and says that rows are left."""
    publisher = gateway.publisher(f"mqtt://{HOST}:{free_port()}", Timing(first_retry_s=60.0))
    gateway.write(5)
    wait_until(lambda: publisher.condition().waiting == 6, "the first attempt and its count")
    started_s = time.monotonic()
    assert not publisher.stop(5.0)
    assert time.monotonic() - started_s < 2.0
    assert not publisher.is_alive()
    assert gateway.waiting == 6
    assert "stopped with 6 messages" in caplog.text


PUBLISHER = """
    import sys
    from pathlib import Path
    from judgements import AMPLE, change, result
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
            while True:
                records.put(key, result=result(), change=change())
"""


def test_killed_gateway_is_offline_and_its_rows_arrive_after_the_restart(
    mosquitto: Mosquitto, gateway: Gateway
) -> None:
    """After SIGKILL the last will says `offline`; the next start sends the rest; every number arrives."""
    with Subscriber(mosquitto.port) as subscriber:
        command = [sys.executable, "-c", textwrap.dedent(PUBLISHER), str(gateway.folder), mosquitto.url]
        with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}) as process:
            wait_until(lambda: len(subscriber.of("result")) > 50, "results of the other process")
            process.send_signal(signal.SIGKILL)
        subscriber.wait_for_status(b"offline")
        gateway.restart().publisher(mosquitto.url)
        wait_until(drained(gateway), "an empty outbox")
        last = gateway.database.query("SELECT result_seq, event_seq FROM boot WHERE boot = 2")[0]
        subscriber.wait_for("result", last[0])
        subscriber.wait_for("event", last[1])
    assert first_seen(subscriber.seqs("result")) == list(range(1, last[0] + 1))
    assert first_seen(subscriber.seqs("event")) == list(range(1, last[1] + 1))


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
    assert "wrong-pw" not in caplog.text + repr(publisher.address) + str(publisher.address) + text
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
    """When the database cannot be read the publisher says so, opens it anew and goes on."""
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


def test_two_gateways_of_one_name_do_not_storm(mosquitto: Mosquitto, gateway: Gateway) -> None:
    """The second gateway of a name pushes out the first; neither connects more often than the back-off allows."""
    timing = Timing(first_retry_s=0.2, longest_retry_s=10.0)
    publishers = [gateway.publisher(mosquitto.url, timing) for _ in range(2)]
    time.sleep(2.0)
    attempts = [publisher.condition().attempts for publisher in publishers]
    assert 1 <= max(attempts) <= 6
