"""The folder of a run: settings, lock, checkpoints, logs, and what is damaged in it."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training import PLAN, log_of

from fisher_edge.errors import BadArtifactError, UsageError
from fisher_train.checkpoint import load_checkpoint
from fisher_train.loop import train
from fisher_train.run.settings import Execution, Settings
from fisher_train.run.state import checkpoints

SETTINGS = Settings(steps=4, warmup_steps=2)
EACH = Execution(workers=0, log_every=1, tensorboard=False, save_every_min=0)
"""A line and a checkpoint after every step."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run of four steps, of which the last three checkpoints are kept."""
    folder = tmp_path_factory.mktemp("finished")
    train(SETTINGS, folder, EACH, plan=PLAN)
    return folder


@pytest.fixture
def run(tmp_path: Path, finished: Path) -> Path:
    """Return a copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_newest_checkpoints_are_kept(run: Path) -> None:
    """Only the newest three checkpoints are kept, and nothing half-written."""
    assert [step for step, _ in checkpoints(run)] == [2, 3, 4]
    assert not [path.name for path in run.iterdir() if path.name.startswith(".") and path.name != ".lock"]


def test_every_checkpoint_is_one_of_the_project(run: Path) -> None:
    """A `step-*` folder is read as it is, with its own step in its facts; the last has the weights of the end."""
    for step, folder in checkpoints(run):
        assert load_checkpoint(folder).facts["steps"] == step
    last, final = load_checkpoint(run / "step-000004"), load_checkpoint(run / "final")
    torch.testing.assert_close(last.state, final.state, atol=0, rtol=0)


def test_run_is_plain_data(run: Path) -> None:
    """No file of a run is a pickle."""
    files = [path for path in run.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {"", ".json", ".jsonl", ".safetensors"}
    assert not [path for path in files if path.read_bytes()[:2] in {b"PK", b"\x80\x02", b"\x80\x04"}]


def test_finished_run_trains_no_further(run: Path) -> None:
    """Starting a finished run again gives the same checkpoint and log."""
    before, log = load_checkpoint(run / "final"), log_of(run)
    after = load_checkpoint(train(SETTINGS, run, EACH, plan=PLAN))
    assert after.facts == before.facts
    torch.testing.assert_close(after.state, before.state, atol=0, rtol=0)
    assert log_of(run) == log


def test_run_with_other_settings_is_refused(run: Path) -> None:
    """A folder is continued with its own settings only; the error names the one that differs."""
    with pytest.raises(UsageError, match="seed 0 there, 7 asked for"):
        train(replace(SETTINGS, seed=7), run, EACH, plan=PLAN)


def test_damaged_settings_are_refused(run: Path) -> None:
    """A half-written `run.json` is one clear line."""
    (run / "run.json").write_text("{")
    with pytest.raises(BadArtifactError, match=r"run\.json is not JSON"):
        train(SETTINGS, run, EACH, plan=PLAN)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "training.safetensors", "training.json"])
@pytest.mark.parametrize("damage", ["torn", "flipped", "gone"])
def test_damaged_checkpoint_falls_back_to_the_one_before(
    run: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str
) -> None:
    """Whatever is wrong with the newest checkpoint, it is reported, put aside, and the run ends the same."""
    expected, log = load_checkpoint(run / "final"), log_of(run)
    path = run / "step-000004" / name
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 0x40
        path.write_bytes(content)
    found = load_checkpoint(train(SETTINGS, run, EACH, plan=PLAN))
    errors = capsys.readouterr().err
    assert "step-000004 is damaged" in errors
    assert "from step 3" in errors
    assert (run / ".damaged-step-000004").is_dir()
    torch.testing.assert_close(found.state, expected.state, atol=0, rtol=0)
    assert log_of(run) == log


def test_run_of_damaged_checkpoints_only_is_refused(run: Path) -> None:
    """When no checkpoint is whole, the run does not silently start over."""
    for _, folder in checkpoints(run):
        (folder / "training.json").write_text("{}")
    with pytest.raises(BadArtifactError, match="no whole checkpoint"):
        train(SETTINGS, run, EACH, plan=PLAN)


def test_log_is_cut_where_the_run_continues(run: Path) -> None:
    """Lines after the checkpoint, and a line cut short, are forgotten."""
    log = log_of(run)
    with (run / "log.jsonl").open("a") as file:
        file.write('{"step": 40}\n{"st')
    train(SETTINGS, run, EACH, plan=PLAN)
    assert log_of(run) == log


def test_tensorboard_shows_what_the_log_says(tmp_path: Path) -> None:
    """After an interruption too, the event files hold each step once, with the numbers of `log.jsonl`."""
    execution = replace(EACH, tensorboard=True)
    train(SETTINGS, tmp_path, execution, plan=PLAN)
    for step in (3, 4):
        (tmp_path / f"step-{step:06d}" / "training.json").write_text("{}")
    train(SETTINGS, tmp_path, execution, plan=PLAN)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    log = log_of(tmp_path)
    for name in ("loss", "ranked_first", "norm", "rate"):
        shown = [(event.step, event.value) for event in events.Scalars(name)]
        assert shown == [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in log]
    assert len(log) == 4
