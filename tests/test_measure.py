"""`python -m` of training, its measurements and the judge: tools by name, and what they say without PyTorch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from training import make_recordings

from fisher_train.measure.__main__ import TOOLS, main

BLOCKED = """
import runpy, sys
sys.modules[{package!r}] = None  # as if it were not installed
sys.argv = {argv!r}
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("module", "arguments", "package", "extra"),
    [
        ("fisher_train", ["--out", "x"], "torch", "train"),
        ("fisher_train", ["--out", "x"], "soxr", "train"),
        ("fisher_train.measure", ["cost"], "torch", "train"),
        ("fisher_train.measure", ["loader", "x"], "soxr", "train"),
        ("fisher_bench.judge", ["x"], "torch", "bench"),
    ],
)
def test_missing_extra_is_one_line(module: str, arguments: list[str], package: str, extra: str) -> None:
    """Without a package the command names the extra in one line and ends with 3."""
    code = BLOCKED.format(package=package, module=module, argv=[module, *arguments])
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 3, run.stderr
    assert run.stderr == f"error: {package} is not installed; run: pip install 'fisher-edge[{extra}]'\n"


@pytest.mark.parametrize("tool", TOOLS)
def test_tools_have_help(tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every tool that is named exists and shows how it is called."""
    with pytest.raises(SystemExit) as caught:
        main([tool, "--help"])
    assert caught.value.code == 0
    assert f"usage: python -m fisher_train.measure {tool}" in capsys.readouterr().out


def test_unknown_tool_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the tools there are."""
    with pytest.raises(SystemExit) as caught:
        main(["speed"])
    assert caught.value.code == 2
    errors = capsys.readouterr().err
    assert [tool for tool in ("cost", "throughput", "loader") if tool not in errors] == []


@pytest.mark.parametrize("tool", ["throughput", "loader"])
def test_absent_recordings_are_one_line(tool: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Recordings that are not there are one line and exit code 4."""
    assert main([tool, str(tmp_path / "absent")]) == 4
    assert capsys.readouterr().err.startswith("error: no file or folder at")


def test_loader_is_measured_on_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object for each number of workers."""
    folder = make_recordings(tmp_path / "recordings")
    options = ["--preset", "nano", "--signals", "2", "--frames", "64", "--workers", "0", "--seconds", "0.1"]
    assert main(["loader", str(folder), *options]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    measured = json.loads(line)
    assert measured["workers"] == 0
    assert measured["bands_per_s"] >= measured["signals_per_s"] > 0
