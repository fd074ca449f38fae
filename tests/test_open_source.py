"""Sources that other packages bring: found by their entry point, checked by the annotations of their function."""

import sys
import threading
from pathlib import Path

import pytest

from fisher_edge.cli import main
from fisher_edge.config import load_config
from fisher_edge.errors import FisherEdgeError, MissingExtraError, UsageError
from fisher_edge.sources.open import Source, open_source
from fisher_edge.sources.recording import RecordingSource

MODULE = """
import threading
from collections.abc import Iterator
from fisher_edge.dsp.blocks import Block
from fisher_edge.errors import UsageError
import numpy as np

class Ramp:
    patient = True
    def __init__(self, rate_hz: int, scale: float) -> None:
        self.rate_hz, self.scale = rate_hz, scale
    def blocks(self, stop: threading.Event) -> Iterator[Block]:
        yield Block(np.arange(5, dtype=np.float32) * self.scale, self.rate_hz, 0, 0.0)

def open_ramp(*, rate_hz: int, scale: float, step: float = 1.0) -> Ramp:
    if step > 10:
        raise UsageError(f"step={step} is more than 10; choose less")
    return Ramp(rate_hz, scale)
"""
ENTRY_POINTS = """[fisher_edge.sources]
ramp = rampmaker:open_ramp
broken = brokenmaker:open_broken [special]
bare = brokenmaker:open_broken
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a package with three types of sources, two of which miss a module; return a folder for files."""
    site = tmp_path / "site"
    info = site / "rampmaker-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "rampmaker.py").write_text(MODULE)
    (site / "brokenmaker.py").write_text("import a_module_nobody_has\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rampmaker\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "rampmaker", raising=False)
    return tmp_path


def opened(folder: Path, source: str) -> Source:
    """Open the source of a configuration of one channel."""
    file = folder / "gateway.toml"
    file.write_text(f'[[channel]]\nasset = "pump"\nname = "vib"\nscale = 2.0\nsource = {source}\n')
    return open_source(load_config(file).channel[0])


def test_type_of_another_package_is_opened_with_its_keys_and_the_scale(package: Path) -> None:
    """The keys of the table and the scale of the channel reach the function, and its blocks come back."""
    source = opened(package, '{ type = "ramp", rate_hz = 50 }')
    (block,) = source.blocks(threading.Event())
    assert block.rate_hz == 50
    assert block.samples.tolist() == [0, 2, 4, 6, 8]


def test_recordings_are_still_recordings(package: Path) -> None:
    """The type that is built in does not go through entry points."""
    assert isinstance(opened(package, '{ type = "recording", files = ["a.wav"] }'), RecordingSource)


@pytest.mark.parametrize(
    ("source", "kind", "said"),
    [
        ('{ type = "ramp" }', UsageError, "source of channel pump/vib: rate_hz is missing; add it"),
        ('{ type = "ramp", rate_hz = 5, x = 1 }', UsageError, "unknown key 'x'; known keys: rate_hz, step"),
        ('{ type = "ramp", rate_hz = "many" }', UsageError, "rate_hz = 'many': input should be a valid integer"),
        ('{ type = "ramp", rate_hz = 5, step = inf }', UsageError, "step = inf: input should be a finite number"),
        ('{ type = "ramp", rate_hz = 5, step = 11 }', UsageError, "pump/vib: step=11.0 is more than 10; choose less"),
        ('{ type = "alsa" }', UsageError, "type = 'alsa': known types are bare, broken, ramp, recording"),
        ('{ type = "broken" }', MissingExtraError, "a_module_nobody_has is not installed; run: pip install"),
        ('{ type = "bare" }', UsageError, "type 'bare' needs the package a_module_nobody_has; install it"),
    ],
)
def test_wrong_source_is_one_line(package: Path, source: str, kind: type[FisherEdgeError], said: str) -> None:
    """Unknown types name the known ones, wrong keys their place and what is known, missing packages the extra."""
    with pytest.raises(kind) as caught:
        opened(package, source)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_check_of_a_configuration_opens_its_sources(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`config check` finds the wrong key, not only the first start."""
    with pytest.raises(UsageError):
        opened(package, '{ type = "ramp", rate_hz = 5, x = 1 }')
    with pytest.raises(SystemExit) as left:
        main(["config", "check", str(package / "gateway.toml")])
    assert left.value.code == 2
    assert "unknown key 'x'" in capsys.readouterr().err
