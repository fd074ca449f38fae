"""Fixtures that several test files share."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mosquitto import EXECUTABLE, Mosquitto

from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.select import open_encoder


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """Return the encoder that ships with the package, loaded once."""
    return open_encoder(load_bundle())


@pytest.fixture
def new_mosquitto(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """Return a function that makes a mosquitto (not started yet), with extra lines for its configuration."""
    if EXECUTABLE is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    brokers: list[Mosquitto] = []

    def new(extra: str = "") -> Mosquitto:
        folder = tmp_path / f"mosquitto-{len(brokers)}"
        folder.mkdir()
        brokers.append(Mosquitto(folder, extra))
        return brokers[-1]

    yield new
    for broker in brokers:
        broker.close()


@pytest.fixture
def mosquitto(new_mosquitto: Callable[..., Mosquitto]) -> Mosquitto:
    """Return a running mosquitto that lets everybody in."""
    return new_mosquitto().start()


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    """Give an event that ends sources, set when the test ends."""
    event = threading.Event()
    yield event
    event.set()
