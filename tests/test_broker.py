"""The broker inside the process."""

import logging
import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest
from judgements import AMPLE, result, standing
from mosquitto import HOST, Subscriber, free_port, wait_until

from fisher_edge.errors import BrokerError
from fisher_edge.names import ChannelKey
from fisher_edge.publish import BrokerAddress, Publisher, Topics, check_broker
from fisher_edge.publish.broker import LARGEST_PACKET, EmbeddedBroker
from fisher_edge.publish.message import Info
from fisher_edge.publish.session import Session
from fisher_edge.store.database import Database
from fisher_edge.store.records import Records

TOPICS = Topics("fisher-edge", "line-3")
KEY = ChannelKey("pump-1", "vib-de")


def test_publisher_delivers_through_the_embedded_broker(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Status, retained info and results pass through it; it logs nothing of its own."""
    caplog.set_level(logging.INFO)
    with EmbeddedBroker() as broker, Subscriber(broker.port) as subscriber, Database(tmp_path) as database:
        records = Records(database, database.new_boot(), limits=AMPLE)
        with Publisher(
            tmp_path,
            BrokerAddress.parse(broker.url),
            TOPICS,
            records.boot,
            limits=AMPLE,
            channels={KEY},
            info=Info("1.2.3", "nano", "0" * 64, "cpu"),
        ):
            for _ in range(50):
                records.put(KEY, result=result(), standing=standing())
            subscriber.wait_for("result", 50)
            with Subscriber(broker.port) as late:
                wait_until(lambda: late.of("status") and late.of("info") and late.of("state"), "the retained messages")
                assert {message.payload for message in late.of("status")} == {b"online"}  # amqtt may repeat it
        subscriber.wait_for_status(b"offline")
    assert sorted(subscriber.seqs("result")) == list(range(1, 51))
    loggers = {record.name.split(".")[0] for record in caplog.records}
    assert loggers == {"fisher_edge"}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_shutdown_with_clients_is_clean_and_frees_the_port() -> None:
    """Leaving the block with a client connected ends the thread, and the port can be used again at once."""
    before = threading.active_count()
    with EmbeddedBroker() as broker:
        subscriber = Subscriber(broker.port)
        subscriber.__enter__()
    with EmbeddedBroker(broker.port) as again:
        assert again.url == f"mqtt://{HOST}:{broker.port}"
        check_broker(BrokerAddress.parse(again.url), "check")
    subscriber.__exit__()
    assert threading.active_count() == before


def test_port_that_is_taken_is_a_clear_error() -> None:
    """A second broker on a port says which port and what to do."""
    with EmbeddedBroker(free_port()) as broker:
        with pytest.raises(
            BrokerError, match=f"cannot take port {broker.port} of {HOST}: Address already in use; stop"
        ):
            EmbeddedBroker(broker.port).__enter__()
        check_broker(BrokerAddress.parse(broker.url), "check")


def test_broker_that_fails_to_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the broker library at the start is a BrokerError with its reason, not a broker that never answers."""
    monkeypatch.setattr("fisher_edge.publish.broker.CONFIG", {"listeners": {}, "plugins": {}})
    with pytest.raises(BrokerError, match="did not start: "):
        EmbeddedBroker().__enter__()


def open_files() -> int:
    """Count the descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_client_that_says_nothing_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections without a greeting do not add up: each is closed, and its descriptor with it."""
    monkeypatch.setattr("fisher_edge.publish.broker.GREETING_S", 0.1)
    with EmbeddedBroker() as broker:
        before = open_files()
        clients = [socket.create_connection((HOST, broker.port), 10.0) for _ in range(20)]
        for client in clients:
            assert client.recv(1) == b""
            client.close()
        wait_until(lambda: open_files() <= before, "the descriptors of the broker")
        check_broker(BrokerAddress.parse(broker.url), "check")


def test_packet_that_is_too_large_is_not_read() -> None:
    """A large message arrives; a client that sends a huge one is disconnected before that fills the memory."""
    with EmbeddedBroker() as broker, Subscriber(broker.port) as subscriber:
        with closing(Session(BrokerAddress.parse(broker.url), "large")) as session:
            session.open()
            number = session.publish("large", bytes(LARGEST_PACKET // 2), retain=False)
            wait_until(lambda: number in session.run(0.1), "the acknowledgement")
            session.publish("huge", bytes(LARGEST_PACKET + 1), retain=False)
            with pytest.raises(BrokerError, match="closed it"):
                wait_until(lambda: session.run(0.1), "the end of the connection")
        wait_until(lambda: subscriber.messages, "the large message")
        assert [message.topic for message in subscriber.messages] == ["large"]
