"""The wheel as a stranger gets it: in an environment of its own, with nothing but what it asks for."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from compiler import NEEDS_COMPILER

ROOT = Path(__file__).parents[1]
OURS = {"fisher_edge", "fisher_train", "fisher_export", "fisher_bridge", "fisher_bench"}


def run(
    *command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it prints."""
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )


def run_clean(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of the clean environment, which sees no folder but its own."""
    return run(*command, cwd=cwd, env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"})


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a new virtual environment; return its folder of programs."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    run(sys.executable, "-m", "venv", folder)
    programs = folder / "bin"
    installed = run(programs / "python", "-m", "pip", "install", "--constraint", ROOT / "constraints.txt", wheel)
    assert installed.returncode == 0, installed.stderr
    return programs


def test_wheel_holds_only_our_packages(wheel: Path) -> None:
    """No generic names such as `train` or `tests` reach site-packages; the default bundle and examples do."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert top == OURS
    assert "fisher_edge/bundles/default/encoder.onnx" in names
    assert "fisher_edge/examples/README.md" in names
    assert all(f"{package}/py.typed" in names for package in OURS)


@NEEDS_COMPILER
def test_emulator_builds_from_what_the_wheel_holds(wheel: Path, tmp_path: Path) -> None:
    """The C sources that `bridge emulate` builds are all in the wheel, and nothing that was built before."""
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if "/build/" in name]
        archive.extractall(tmp_path)
    built = run("make", "-C", tmp_path / "fisher_bridge" / "c", "emulator", f"BUILD={tmp_path / 'built'}")
    assert built.returncode == 0, built.stderr
    ended = run(tmp_path / "built" / "fisher_emulator", "--duration", "0.1")
    assert ended.stdout.startswith('{"port": ')


def test_clean_environment_runs_the_program(clean: Path, tmp_path: Path) -> None:
    """Without any extra the program helps, enrolls, scores and embeds."""
    program = clean / "fisher-edge"
    helped = run_clean(program, "--help", cwd=tmp_path)
    assert (helped.returncode, "enroll" in helped.stdout) == (0, True)
    files = sorted((ROOT / "examples" / "motor").glob("healthy-*.flac"))
    place: list[str | Path] = ["--asset", "motor", "--channel", "current", "--state-dir", tmp_path]
    enrolled = run_clean(program, "enroll", *files, *place, "--window-s", "0.48", cwd=tmp_path)
    assert enrolled.returncode == 0, enrolled.stderr
    scored = run_clean(program, "score", ROOT / "examples" / "motor" / "short-40pct-1.flac", *place, cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert "alarm" in scored.stdout


def test_clean_environment_names_the_missing_extra(clean: Path, tmp_path: Path) -> None:
    """What needs torch says how to get it, in one line, with exit code 3."""
    exported = run_clean(clean / "fisher-edge", "export", "x.pt", "--out", "x", cwd=tmp_path)
    assert exported.returncode == 3
    assert exported.stderr == "error: torch is not installed; run: pip install 'fisher-edge[export]'\n"


def test_clean_environment_has_the_commands_of_all_our_packages(clean: Path, tmp_path: Path) -> None:
    """Commands that join by an entry point are in the list, run where they can, and else name their extra."""
    helped = run_clean(clean / "fisher-edge", "--help", cwd=tmp_path)
    assert all(f" {name} " in helped.stdout for name in ("bridge", "rmis", "simulate", "train-data"))
    assert "Cannot be loaded" not in helped.stdout
    assert run_clean(clean / "fisher-edge", "rmis", "list", cwd=tmp_path).returncode == 0
    for words, extra in ((("simulate", "--list"), "simulate"), (("bridge", "list"), "bridge")):
        refused = run_clean(clean / "fisher-edge", *words, cwd=tmp_path)
        assert refused.returncode == 3
        assert refused.stderr.endswith(f" is not installed; run: pip install 'fisher-edge[{extra}]'\n")


def test_clean_environment_has_no_generic_names(clean: Path, tmp_path: Path) -> None:
    """`import train` and its like fail: the folders of the checkout are not packages."""
    for name in ("train", "export", "bench", "tests", "firmware_bridge", "scripts"):
        assert "ModuleNotFoundError" in run_clean(clean / "python", "-c", f"import {name}", cwd=tmp_path).stderr


def test_command_line_loads_no_heavy_package() -> None:
    """Importing the command line loads neither torch nor onnx, nor NumPy, which `--help` does not need."""
    code = (
        "import sys, fisher_edge.cli; print([m for m in ('torch', 'onnx', 'onnxruntime', 'numpy') if m in sys.modules])"
    )
    assert run(sys.executable, "-c", code).stdout == "[]\n"


@pytest.mark.parametrize("module", ["gateway", "demo.play", "decision.judge", "publish", "encoder.select"])
def test_runtime_loads_no_training_package(module: str) -> None:
    """No part of the runtime loads torch, onnx or a library of one provider, not even by way of another package."""
    heavy = ("torch", "onnx", "openvino", "tensorrt")
    code = f"import sys, fisher_edge.{module}; print([m for m in {heavy} if m in sys.modules])"
    assert run(sys.executable, "-c", code).stdout == "[]\n"


def test_shipped_bundle_on_the_cpu_loads_no_other_library() -> None:
    """What is neither chosen nor tried is not imported, though it is installed."""
    code = (
        "import sys; from fisher_edge.encoder.bundle import load_bundle; "
        "from fisher_edge.encoder.select import open_encoder; open_encoder(load_bundle(), 'cpu'); "
        "print([m for m in ('openvino', 'tensorrt') if m in sys.modules])"
    )
    assert run(sys.executable, "-c", code).stdout == "[]\n"
