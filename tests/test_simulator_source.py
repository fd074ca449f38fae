"""The simulator as a source of the gateway: found by its entry point, without gaps, in real time."""

import sys
import threading
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from command import run_program

from fisher_edge.config import load_config
from fisher_edge.errors import UsageError
from fisher_edge.names import ChannelKey
from fisher_edge.sources.open import open_source
from fisher_edge.sources.source import SourceContext
from fisher_train.simulate.source import SimulatorSource, open_simulator

CONTEXT = SourceContext(ChannelKey("pump", "vib"))


def opened(tmp_path: Path, keys: str) -> SimulatorSource:
    """Open the source as the gateway does."""
    file = tmp_path / "gateway.toml"
    file.write_text(
        f'[[channel]]\nasset = "pump"\nname = "vib"\nscale = 2.0\nsource = {{ type = "simulator", {keys} }}\n'
    )
    source = open_source(load_config(file).channel[0], clock=lambda: 1000.0)
    assert isinstance(source, SimulatorSource)
    return source


def test_gateway_opens_a_simulator_by_its_entry_point(tmp_path: Path) -> None:
    """The table of the documentation gives blocks without a gap, at the rate and the scale asked for."""
    source = opened(
        tmp_path,
        'machine = "bearing", fault = "outer", severity = 1.0, onset_s = 30, rate_hz = 16000, seed = 0, speed = 0',
    )
    assert source.patient
    assert not source.finite
    with source:
        blocks = list(islice(source.blocks(threading.Event()), 25))
    assert {block.rate_hz for block in blocks} == {16_000}
    assert [block.index for block in blocks] == [1600 * i for i in range(25)]
    np.testing.assert_allclose([block.time_s for block in blocks], 1000 + 0.1 * np.arange(25), atol=1e-6)
    unscaled = open_simulator(CONTEXT, machine="bearing", fault="outer", onset_s=30, rate_hz=16_000, speed=0)
    first = next(iter(unscaled.blocks(threading.Event())))
    np.testing.assert_allclose(blocks[0].samples, 2 * first.samples)


def test_simulator_keeps_real_time_and_stops_when_told() -> None:
    """At speed 4 half a simulated second takes an eighth of a second, and a set event ends it at once."""
    source = open_simulator(CONTEXT, machine="leak", rate_hz=4000, speed=4.0)
    assert not source.patient
    stop = threading.Event()
    blocks = source.blocks(stop)
    next(blocks)
    began = time.monotonic()
    for _ in range(5):
        next(blocks)
    assert 0.1 < time.monotonic() - began < 1.0
    stop.set()
    assert list(blocks) == []


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('machine = "toaster", rate_hz = 8000', "machine 'toaster' is not known; choose one of: rotor, bearing"),
        (
            'machine = "gear", fault = "outer", rate_hz = 8000',
            "fault 'outer' is not one of a gear; choose one of",
        ),
        ('machine = "gear", rate_hz = 500', "rate_hz=500 is outside 1000 to 200000 Hz"),
        ('machine = "gear", rate_hz = 8000, modality = "current"', "a gear measures vibration or sound, not current"),
        ('machine = "gear", rate_hz = 8000, severity = -1', "severity=-1 is outside 0 to 100"),
        ('machine = "gear", rate_hz = 8000, onset_s = -1', "onset_s=-1 is negative"),
        ('machine = "gear", rate_hz = 8000, load = 2', "load=2 is outside 0 to 1"),
        ('machine = "gear", rate_hz = 8000, speed_hz = 0', "speed_hz=0 is outside 0.5 to 1000 Hz"),
        ('machine = "gear"', "rate_hz is missing; add it"),
        (
            'machine = "gear", rate_hz = 8000, onsets = 1',
            "unknown key 'onsets' in [[channel]] 1, source; did you mean 'onset_s'?",
        ),
    ],
)
def test_wrong_simulator_is_one_line(tmp_path: Path, keys: str, said: str) -> None:
    """An unknown name or value gets an error with the known ones and the channel."""
    with pytest.raises(UsageError) as caught:
        opened(tmp_path, keys)
    assert said in str(caught.value)
    assert "source of channel pump/vib: " in str(caught.value) or "[[channel]] 1, source" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package", ["scipy", "matplotlib"])
def test_missing_extra_is_named(package: str, tmp_path: Path) -> None:
    """Without a package of the extra the command and the source say what to install."""
    block = f"import sys; sys.modules[{package!r}] = None; from fisher_edge.cli import main; main()"
    program = [sys.executable, "-c", block]
    found = run_program([*program, "simulate", "--machine", "gear", "--plot", "a.png"], tmp_path)
    assert found.returncode == 3
    assert found.stderr == f"error: {package} is not installed; run: pip install 'fisher-edge[simulate]'\n"
    (tmp_path / "g.toml").write_text(
        '[[channel]]\nasset = "a"\nname = "b"\nsource = { type = "simulator", machine = "gear", rate_hz = 8000 }\n'
    )
    checked = run_program([*program, "config", "check", "g.toml"], tmp_path)
    if package == "scipy":
        assert checked.stderr == found.stderr
    else:
        assert checked.returncode == 0, checked.stderr
