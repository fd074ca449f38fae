"""Types of sources: found by their entry point, checked by the parameters of their function, opened with a context."""

import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
from pydantic import Field
from source_types import install_source

from fisher_edge.config import ChannelConfig, load_config
from fisher_edge.dsp.blocks import Block, as_rate
from fisher_edge.errors import FisherEdgeError, MissingExtraError, UsageError
from fisher_edge.names import ChannelKey
from fisher_edge.sources.open import open_source
from fisher_edge.sources.recording import RecordingSource
from fisher_edge.sources.source import Source, SourceContext


class Ramp:
    """Counts, times the scale of its channel."""

    finite = True
    patient = True

    def __init__(self, context: SourceContext, rate_hz: float, path: Path | None) -> None:
        self.context = context
        self.rate_hz = rate_hz
        self.path = path

    def __enter__(self) -> "Ramp":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def blocks(self, stop: threading.Event) -> Iterator[Block]:  # noqa: ARG002 -- one block needs no stop
        """Yield one block."""
        samples = np.arange(5, dtype=np.float32) * np.float32(self.context.scale)
        yield Block(samples, as_rate(self.rate_hz), 0, self.context.clock())


def open_ramp(
    context: SourceContext,
    *,
    rate_hz: float,
    step: Annotated[float, Field(le=20)] = 1.0,
    path: Path | None = None,
) -> Ramp:
    """Open a ramp as a package of somebody else would."""
    if step > 10:
        raise UsageError(f"step={step:g} is more than 10; choose less")
    return Ramp(context, rate_hz, path and context.base_dir / path)


def open_old(*, rate_hz: int, scale: float) -> Ramp:
    """Stand for a function written for another release: it takes no context."""
    raise AssertionError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install types that work and types that do not; return a folder for files."""
    install_source(tmp_path / "site", monkeypatch, ramp=open_ramp, old=open_old)
    site = tmp_path / "broken"
    info = site / "brokenmaker-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "brokenmaker.py").write_text("import a_module_nobody_has\n")
    (site / "crashing.py").write_text("raise RuntimeError('no licence\\nfound')\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brokenmaker\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[fisher_edge.sources]\n"
        "broken = brokenmaker:open_broken [special]\nbare = brokenmaker:open_broken\ncrash = crashing:open_crash\n"
    )
    monkeypatch.syspath_prepend(str(site))
    return tmp_path


def channel_text(source: str) -> str:
    """Return one channel in g with that source."""
    return f'[[channel]]\nasset = "pump"\nname = "vib"\nunit = "g"\nscale = 2.0\nsource = {source}\n'


def opened(folder: Path, source: str) -> Source:
    """Open the source of a configuration of one channel."""
    file = folder / "gateway.toml"
    file.write_text(channel_text(source))
    config = load_config(file)
    return open_source(config.channel[0], config.base_dir, clock=lambda: 17.0)


def test_type_of_another_package_gets_its_keys_and_its_context(package: Path) -> None:
    """Keys of the table, scale, unit, clock and folder reach the function, and its blocks come back."""
    source = opened(package, '{ type = "ramp", rate_hz = 3906.25, path = "calibration.csv" }')
    assert isinstance(source, Ramp)
    assert source.context.key == ChannelKey("pump", "vib")
    assert source.context.unit == "g"
    assert source.path == package / "calibration.csv"
    with source:
        (block,) = source.blocks(threading.Event())
    assert block.rate_hz == Fraction(15_625, 4)
    assert block.samples.tolist() == [0, 2, 4, 6, 8]
    assert block.time_s == 17.0


def test_recordings_are_a_type_like_all_others(package: Path) -> None:
    """Their keys are checked the same way, and their files count from the folder of the configuration."""
    source = opened(package, '{ type = "recording", files = ["a.wav", "/b.wav"], rate_hz = 3906.25, loop = true }')
    assert isinstance(source, RecordingSource)
    assert source.files == (package / "a.wav", Path("/b.wav"))
    assert source.rate_hz == Fraction(15_625, 4)
    assert source.context.scale == 2.0
    assert not source.finite


@pytest.mark.parametrize(
    ("source", "kind", "said"),
    [
        ('{ type = "ramp" }', UsageError, "[[channel]] 1, source, rate_hz is missing; add it"),
        (
            '{ type = "ramp", rate_hz = 5, stop = 1 }',
            UsageError,
            "unknown key 'stop' in [[channel]] 1, source; did you",
        ),
        ('{ type = "ramp", rate_hz = 5, x = 1 }', UsageError, "known keys: path, rate_hz, step"),
        ('{ type = "ramp", rate_hz = 5, context = 1 }', UsageError, "unknown key 'context' in [[channel]] 1, source"),
        ('{ type = "ramp", rate_hz = "5" }', UsageError, "source, rate_hz = '5': must be a number, without quotes"),
        ('{ type = "ramp", rate_hz = 5, step = inf }', UsageError, "source, step = inf: must be a finite number"),
        ('{ type = "ramp", rate_hz = 5, step = 21 }', UsageError, "source, step = 21: must be 20 or less"),
        ('{ type = "ramp", rate_hz = 5, path = 3 }', UsageError, "source, path = 3: must be text in quotes"),
        (
            '{ type = "ramp", rate_hz = 5, step = 11 }',
            UsageError,
            "of channel pump/vib: step=11 is more than 10; choose",
        ),
        ('{ type = "rmap" }', UsageError, "type = 'rmap': no installed package brings this type; did you mean 'ramp'?"),
        ('{ type = "alsa" }', UsageError, "known types: bare, broken (brokenmaker[special]), bursts, crash, old, ramp"),
        ('{ type = "alsa" }', UsageError, "serial (fisher-edge[bridge]), simulator (fisher-edge[simulate])"),
        ('{ type = "broken" }', UsageError, "'broken' needs the package a_module_nobody_has; run: pip install 'broken"),
        ('{ type = "bare" }', UsageError, "'bare' needs the package a_module_nobody_has; install it"),
        ('{ type = "crash" }', UsageError, "crashing failed to load (RuntimeError: no licence found); repair it"),
        (
            '{ type = "old", rate_hz = 5 }',
            UsageError,
            "'old' cannot be used: sourcemaker does not take (context, *, keys",
        ),
    ],
)
def test_wrong_source_is_one_line(package: Path, source: str, kind: type[FisherEdgeError], said: str) -> None:
    """Unknown types name the known ones, wrong keys their place and what is known, missing packages what to run."""
    with pytest.raises(kind) as caught:
        opened(package, source)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_extra_comes_behind_the_mistakes_of_the_file(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyserial a file that is right names the extra, and a file with a mistake names that mistake."""
    monkeypatch.setitem(sys.modules, "serial", None)
    for name in [name for name in sys.modules if name.startswith("fisher_bridge")]:
        monkeypatch.delitem(sys.modules, name)
    file, text = package / "gateway.toml", channel_text('{ type = "serial", port = "/dev/ttyACM0" }')
    file.write_text(text)
    with pytest.raises(MissingExtraError, match="serial is not installed; run: pip install 'fisher-edge"):
        load_config(file)
    file.write_text("[gatewy]\n" + text)
    with pytest.raises(UsageError, match="unknown key 'gatewy'"):
        load_config(file)


def test_channel_made_by_a_program_is_checked_as_well(package: Path) -> None:
    """Paths, tuples and whole numbers of Python are fine as keys; a wrong key names the channel."""
    table = {"asset": "pump", "name": "vib", "source": {"type": "recording", "files": (Path("/a.wav"),), "speed": 0}}
    source = open_source(ChannelConfig.model_validate(table))
    assert isinstance(source, RecordingSource)
    assert (source.files, source.patient, source.finite) == ((Path("/a.wav"),), True, True)
    table["source"] = {"type": "recording", "file": "a.wav"}
    with pytest.raises(UsageError) as caught:
        open_source(ChannelConfig.model_validate(table))
    assert str(caught.value) == (
        "source of channel pump/vib: unknown key 'file' in source; did you mean 'files'?; "
        "source, files is missing; add it"
    )
