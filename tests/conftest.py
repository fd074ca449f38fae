"""Fixtures that several test files share."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mosquitto import EXECUTABLE, Mosquitto

from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.select import VARIABLE, open_encoder

# Files that start processes or brokers, compile, export or train: `make test-fast` leaves them out.
HEAVY = {
    "test_bad_input", "test_bench_command", "test_bridge_c", "test_bridge_commands", "test_bridge_device",
    "test_bridge_path", "test_broker", "test_bundle", "test_checkpoint", "test_cli", "test_contrastive", "test_cost",
    "test_database", "test_ddp", "test_decision_benches", "test_decoder", "test_demo", "test_distillation",
    "test_embed_files", "test_encoder", "test_encoders", "test_engines", "test_example_files", "test_export",
    "test_export_variants", "test_gate", "test_gateway", "test_gateway_process", "test_graph", "test_half",
    "test_judge", "test_loop", "test_measure", "test_migration", "test_mqtt", "test_official", "test_openvino",
    "test_optimizer", "test_ort", "test_pack", "test_packaging", "test_plugins", "test_quantise", "test_rate_groups",
    "test_readme", "test_real_machine", "test_reference", "test_resume", "test_rmis_adapters",
    "test_rmis_adapters_published", "test_rmis_embed", "test_rmis_prepare", "test_rmis_report", "test_rmis_scoring",
    "test_roofline", "test_run", "test_search", "test_select", "test_simulate_command", "test_simulator_gateway",
    "test_simulator_source", "test_teacher", "test_tensorrt", "test_train_cli", "test_train_data", "test_variants",
}  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--fast`."""
    parser.addoption("--fast", action="store_true", help="leave out what starts processes, compiles or trains")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave heavy files out of a fast run, so that what they import is not loaded either."""
    return True if config.getoption("--fast") and collection_path.stem in HEAVY else None


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what is measured and built in a folder of this run, for the processes that tests start too.

    "auto" is the CPU: which provider is quickest depends on what else the machine does. A test of the choice unsets it.
    """
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "cpu")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def encoder(cache_home: Path) -> Encoder:
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
