"""`python -m fisher_train`: options, errors in one line, interruption."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from torch import Tensor
from training import SMALL, make_recordings, train_here

from fisher_train.checkpoint import load_checkpoint
from fisher_train.cli import main
from fisher_train.data import batches
from fisher_train.run import progress

QUICK = [*SMALL, "--no-tensorboard"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--minutes", "0"], "minutes=0.0"),
        (["--minutes", "nan"], "minutes=nan"),
        (["--minutes", "inf"], "minutes=inf"),
        (["--steps", "-1"], "steps=-1"),
        (["--seed", "-1"], "seed=-1"),
        (["--batch", "0"], "batch=0"),
        (["--accumulate", "0"], "accumulate=0"),
        (["--peak-rate", "nan"], "peak_rate=nan"),
        (["--frames", "16"], "frames=16"),
        (["--keep", "0"], "keep=0"),
        (["--workers", "-1"], "workers=-1"),
        (["--precision", "fp16", "--steps", "1", "--device", "cpu"], "fp16 needs a CUDA device"),
        (["--distributed-backend", "nccl", "--device", "cpu", "--steps", "1"], "nccl needs CUDA"),
    ],
)
def test_values_that_cannot_be_trained_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    """Wrong values are one line on standard error and exit code 2, before a folder is made."""
    assert main(["--out", str(tmp_path / "run"), *arguments]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert text in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_unknown_data_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Recordings that are not there are one line and exit code 4, before a folder is made."""
    assert main([str(tmp_path / "absent"), "--out", str(tmp_path / "run"), "--steps", "1"]) == 4
    assert "no file or folder at" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_unknown_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint to start from that is not there is one line and exit code 5."""
    assert main(["--init", str(tmp_path / "absent"), "--out", str(tmp_path / "run"), "--steps", "1"]) == 5
    assert "is not there" in capsys.readouterr().err


def test_file_as_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file where the run should be is one line and exit code 2."""
    (tmp_path / "run").write_text("")
    assert main(["--out", str(tmp_path / "run"), "--steps", "1", *QUICK]) == 2
    assert "cannot be used as a folder" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "names"), [("--preset", "nano"), ("--objective", "both"), ("--precision", "bf16")])
def test_unknown_choices_are_refused(capsys: pytest.CaptureFixture[str], option: str, names: str) -> None:
    """The error names the choices there are."""
    with pytest.raises(SystemExit) as caught:
        main(["--out", "x", option, "giant"])
    assert caught.value.code == 2
    assert names in capsys.readouterr().err


def test_every_option_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` explains each option and has examples."""
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "torchrun" in text
    for option in ("--objective", "--accumulate", "--save-every", "--init", "--no-tensorboard", "--compile"):
        assert option in text


def test_interrupted_command_says_how_to_continue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C is no traceback: exit code 130 and one line."""

    def broken(*_: object, **__: object) -> Iterator[Tensor]:
        raise KeyboardInterrupt

    monkeypatch.setattr(batches, "loader", broken)
    assert main(["--out", str(tmp_path / "run"), "--steps", "1", "--no-tensorboard"]) == 130
    assert "continues the run" in capsys.readouterr().err


def test_full_disk_is_one_line(tmp_path: Path) -> None:
    """A checkpoint that cannot be written ends the run with what to do, and leaves no half of it."""
    run = [sys.executable, "-m", "fisher_train", *QUICK, "--steps", "3", "--out", str(tmp_path / "run")]
    limited = f"ulimit -f 2000; exec {shlex.join(run)}"  # blocks of at most 1 KiB: smaller than a checkpoint
    found = subprocess.run(["sh", "-c", limited], capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 4, found.stderr
    assert "cannot be written (File too large); make room" in found.stderr
    assert "Traceback" not in found.stderr
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {".lock", "log.jsonl", "run.json"}


def test_data_means_self_distillation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Recordings without a named objective mean self-distillation; plain lines show the progress."""
    lines = train_here(tmp_path / "run", make_recordings(tmp_path / "recordings"), *QUICK, "--batch", 2, "--steps", 2)
    assert len(lines) == 2
    assert "patch_loss" in lines[0]
    facts = load_checkpoint(tmp_path / "run" / "final").facts
    assert "--objective distillation --steps 2" in facts["command"]
    errors = capsys.readouterr().err.splitlines()
    assert errors[0] == "2 recordings of 0.00 h"
    assert errors[-1].startswith("100%  step 2  loss ")
    assert "bands/s" in errors[-1]


def test_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal one line is redrawn, with step, loss, speed and time to go."""
    monkeypatch.setattr(progress, "Console", lambda file: Console(file=file, force_terminal=True, width=120))
    with progress.watch(first=True) as shown:
        assert shown is not None
        shown.show(40, 0.25, {"elapsed_s": 60.0, "loss": 1.25, "bands_per_s": 410.0})
    text = capsys.readouterr().err
    assert "step 40  loss 1.2500  410 bands/s  3 min to go" in text
    assert "25%" in text
    assert os.linesep in text


def test_other_processes_show_nothing() -> None:
    """Only the first process has something to show."""
    with progress.watch(first=False) as shown:
        assert shown is None
