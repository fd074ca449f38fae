"""The commands against the authors' embeddings: `export --fp32`, then `embed`, padded to 1024 frames or not."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fisher_edge.dsp.blocks import FloatArray

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).parents[2] / "shared" / "reference" / "model"
COMMAND = [sys.executable, "-m", "fisher_edge.cli"]
TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Case:
    """A recording and its embeddings by the authors' code, as it is and padded to 1024 frames."""

    wave: FloatArray
    rate_hz: int
    plain: FloatArray
    padded: FloatArray


def largest_difference(checkpoint: Path, cases: list[Case], folder: Path) -> float:
    """Export a checkpoint, embed float WAV files of the cases, and compare with what the authors' code gave."""
    files = []
    for number, case in enumerate(cases):
        files.append(folder / f"{number}.wav")
        soundfile.write(files[-1], case.wave, case.rate_hz, subtype="FLOAT")
    _run("export", checkpoint, "--fp32", "--out", folder / "bundle")
    differences = []
    for option, expected in (("--no-pad-frames", "plain"), ("--pad-frames", "padded")):
        _run("embed", *files, files[0], "--model", folder / "bundle", "--out", folder / "all.npz", option)
        with np.load(folder / "all.npz", allow_pickle=False) as embeddings:
            for file, case in zip(files, cases, strict=True):
                rows = embeddings[str(file)]
                wanted: FloatArray = getattr(case, expected)
                assert rows.shape == (1, len(wanted))
                differences.append(float(np.abs(rows[0] - wanted).max()))
    assert len(differences) == 2 * len(cases)
    return max(differences)


def _run(*arguments: str | Path) -> None:
    """Run a command that must succeed."""
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("checkpoint", "prefix"),
    [("official_micro_band100_trimmed.pt", "band100"), ("official_micro_band50_time.pt", "band50_time")],
)
def test_commands_reproduce_the_reference(checkpoint: str, prefix: str, tmp_path: Path) -> None:
    """The small copy of one case, for official checkpoints of both token orders."""
    case = np.load(DATA / "official_micro_case01.npz")
    expected = (case[f"{prefix}_embedding"], case[f"{prefix}_embedding_padded_1024"])
    worst = largest_difference(DATA / checkpoint, [Case(case["wave"], int(case["rate_hz"]), *expected)], tmp_path)
    assert 0 < worst <= TOLERANCE


@pytest.mark.skipif(not SHARED.is_dir(), reason="the full reference vectors are not on this machine")
@pytest.mark.parametrize("name", ["official_micro_band100", "official_micro_band50_time"])
def test_commands_reproduce_all_reference_cases(name: str, tmp_path: Path) -> None:
    """Six recordings from 5 to 64 kHz, each padded and not."""
    vectors = np.load(SHARED / f"{name}.npz")
    cases = [
        Case(
            vectors[f"case{number:02}_wave"],
            int(vectors[f"case{number:02}_rate_hz"]),
            vectors[f"case{number:02}_embedding"],
            vectors[f"case{number:02}_embedding_padded_1024"],
        )
        for number in range(6)
    ]
    worst = largest_difference(SHARED / f"{name}.pt", cases, tmp_path)
    print(f"{name}: largest difference {worst:.2g}")
    assert 0 < worst <= TOLERANCE
