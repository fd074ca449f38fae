"""The command that packs recordings, as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command import run

from fisher_train.recordings.find import find


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    """Return a folder with two good recordings and a flat one."""
    root = tmp_path / "plant"
    root.mkdir()
    for place, rate_hz in enumerate((8000, 48_828)):
        noise = np.random.default_rng(place).normal(0, 0.1, (3 * rate_hz, 1 + place))
        soundfile.write(root / f"r{rate_hz}.wav", noise, rate_hz)
    soundfile.write(root / "flat.wav", np.zeros(8000), 8000)
    return root


def test_pack_says_what_is_there_and_what_is_left_out(plant: Path, tmp_path: Path) -> None:
    """Signals, hours and rates on standard output, one line for each recording left out on standard error."""
    done = run("train-data", "pack", plant, "--out", tmp_path / "out")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == f"{tmp_path / 'out'}: 3 signals in 3 pieces, 0.00 h"
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["8000", "48828"]
    assert done.stderr.splitlines() == [f"left out: {plant / 'flat.wav'}: flat line: every sample is 0"]
    assert len(find([tmp_path / "out"]).recordings) == 3


def test_pack_prints_json_and_may_be_repeated(plant: Path, tmp_path: Path) -> None:
    """The same command again packs nothing twice and says the same."""
    command = ("train-data", "pack", plant, "--out", tmp_path / "out", "--segment-s", 1, "--shard-mb", 0.1, "--json")
    first, again = json.loads(run(*command).stdout), json.loads(run(*command).stdout)
    assert first == again
    assert (first["recordings"], first["pieces"], first["seconds"]) == (3, 9, 9.0)
    assert first["seconds_by_rate_hz"] == {"8000": 3.0, "48828": 6.0}
    assert [Path(one["file"]).name for one in first["bad"]] == ["flat.wav"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nowhere",), 4, "no file or folder at nowhere"),
        ((".",), 4, "nothing to pack: no usable recording"),
        ((".", "--shard-mb", "0"), 2, "0.001"),
        ((".", "--shard-mb", "inf"), 2, "1000000"),
        ((".", "--segment-s", "nan"), 2, "--segment-s"),
        ((), 2, "Missing argument 'inputs'"),
    ],
)
def test_pack_refuses_in_one_line(tmp_path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    """Wrong paths, empty folders and impossible sizes give their exit code and one line."""
    (tmp_path / "empty").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "fisher_edge.cli", "train-data", "pack", *arguments, "--out", str(tmp_path / "out")],
        cwd=tmp_path / "empty",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_pack_needs_no_torch(plant: Path, tmp_path: Path) -> None:
    """Packing runs on a machine that has only the runtime: neither torch nor soxr is imported."""
    code = f"""
import sys
from fisher_edge.cli.app import app
app(["train-data", "pack", {str(plant)!r}, "--out", {str(tmp_path / "out")!r}], standalone_mode=False)
print([name for name in ("torch", "soxr", "webdataset", "scipy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
