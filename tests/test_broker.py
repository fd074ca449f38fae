"""The broker inside the process."""

import logging
import threading
from pathlib import Path

import pytest
from mosquitto import HOST, Subscriber, free_port, wait_until

from fisher_edge.errors import BrokerError
from fisher_edge.publish import BrokerAddress, Outbox, Publisher, Topics, check_broker
from fisher_edge.publish.broker import EmbeddedBroker
from fisher_edge.store import Store

TOPICS = Topics("fisher-edge", "line-3")


def test_publisher_delivers_through_the_embedded_broker(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Status, retained info and results pass through it; it logs nothing of its own."""
    caplog.set_level(logging.INFO)
    with EmbeddedBroker() as broker, Subscriber(broker.port) as subscriber, Store(tmp_path) as store:
        outbox = Outbox(store, TOPICS, store.new_boot())
        with Publisher(tmp_path, BrokerAddress.parse(broker.url), TOPICS, outbox.boot, info={"version": "1"}):
            for _ in range(50):
                outbox.put("pump-1", "vib-de", result={"time": "2026-01-31T09:30:00.250Z"}, state={"state": "normal"})
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
