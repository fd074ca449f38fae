"""Exact resumption: a killed run goes on as if nothing had happened, and several processes train as one."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from training import SMALL, Run, log_of, make_recordings, train_here

from fisher_edge.errors import UsageError
from fisher_train.checkpoint import load_checkpoint
from fisher_train.cli import main
from fisher_train.loop import train
from fisher_train.objectives.objective import Batch
from fisher_train.run.recorder import Recorder
from fisher_train.run.settings import Settings

NANO = Path(__file__).parents[1] / "train" / "checkpoints" / "nano"
BOTH = [*SMALL, "--objective", "both", "--warmup-steps", "1", "--init", str(NANO)]
"""Both objectives, on simulated machines and recordings, so that all that has a state is in it."""


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Return a folder of two short sounds."""
    return make_recordings(tmp_path / "recordings")


@pytest.mark.parametrize("objective", ["contrastive", "distillation"])
def test_interrupted_run_continues_exactly(
    tmp_path: Path, recordings: Path, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command after an interruption gives the losses and weights of an unbroken run, bit by bit."""
    command = [recordings, *SMALL, "--objective", objective, "--warmup-steps", "1", "--steps", 3, "--no-tensorboard"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train_here(whole, *command)
    after_step = Recorder.after_step

    def interrupted(recorder: Recorder, batch: Batch, facts: Mapping[str, Tensor]) -> None:
        after_step(recorder, batch, facts)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "after_step", interrupted)
        assert main([*map(str, command), "--out", str(broken)]) == 130
    assert len(log_of(broken)) == 1
    train_here(broken, *command)
    assert_same_run(broken, whole)


@pytest.mark.slow
def test_killed_run_continues_exactly(tmp_path: Path, recordings: Path) -> None:
    """After SIGKILL and the same command again, losses and weights are those of an unbroken run, bit by bit."""
    command = [recordings, *BOTH, "--steps", 5]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    log = train_here(whole, *command)
    Run(killed, *command).kill_when(lambda out: (out / "step-000001").exists() and is_in_use(out))
    steps_then = len(log_of(killed, torn=True))
    code, _, errors = Run(killed, *command, "--workers", "1").end()
    assert code == 0, errors
    assert "continuing" in errors
    assert steps_then < 5
    assert_same_run(killed, whole)
    events = EventAccumulator(str(killed / "tensorboard"))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("loss")]
    assert shown == [(line["step"], pytest.approx(line["loss"], rel=1e-6)) for line in log]


@pytest.mark.slow
def test_two_processes_train_as_one_and_continue_exactly(tmp_path: Path, recordings: Path) -> None:
    """Two processes under torchrun have the losses of one with the same global batch, and go on after SIGKILL.

    The losses of both objectives agree to 1e-5 and the gradient's norm to 1e-4; what is left is the rounding of
    float32, which Adam's first steps would enlarge at a higher learning rate. After SIGKILL they agree bit by bit
    with two processes that were not killed.
    """
    command = [recordings, *BOTH, "--peak-rate", "2e-5", "--batch", "16", "--steps", 4, "--no-tensorboard"]
    one, two, killed = tmp_path / "one", tmp_path / "two", tmp_path / "killed"
    expected = train_here(one, *command)
    code, output, errors = Run(two, *command, processes=2).end()
    assert code == 0, errors
    assert output == f"{two / 'final'}\n"
    assert load_checkpoint(two / "final").facts["processes"] == 2
    assert_close(log_of(two), expected)

    Run(killed, *command, processes=2).kill_when(lambda out: (out / "step-000001").exists())
    assert not (killed / "final").exists()
    code, _, errors = Run(killed, *command, processes=2).end()
    assert code == 0, errors
    assert "continuing" in errors
    assert_same_run(killed, two)


def assert_same_run(found: Path, expected: Path) -> None:
    """Check that two finished runs have the same log, but for its clocks, and the same weights."""
    assert log_of(found) == log_of(expected)
    states = [load_checkpoint(run / "final").state for run in (found, expected)]
    torch.testing.assert_close(states[0], states[1], atol=0, rtol=0)


def assert_close(found: Sequence[dict[str, float]], expected: Sequence[dict[str, float]]) -> None:
    """Check that two logs agree as far as float32 does."""
    assert len(found) == len(expected) == 4
    for line, wanted in zip(found, expected, strict=True):
        for name in ("loss", "contrastive_loss", "patch_loss", "utterance_loss"):
            assert line[name] == pytest.approx(wanted[name], rel=1e-5), name
        assert line["norm"] == pytest.approx(wanted["norm"], rel=1e-4)


def is_in_use(out: Path) -> bool:
    """Check that nobody else can train in the folder of a run that is under way."""
    with pytest.raises(UsageError, match="another process"):
        train(Settings(steps=1), out)
    return True


def test_workers_end_with_a_killed_run(tmp_path: Path, recordings: Path) -> None:
    """SIGKILL of the process that trains alone leaves nobody behind, of either kind of batches."""
    run = Run(tmp_path / "run", recordings, "--objective", "both", *SMALL, "--steps", "1000", "--workers", "1")
    run.wait_until(lambda out: (out / "log.jsonl").exists())
    children = psutil.Process(run.process.pid).children(recursive=True)
    run.process.kill()
    _, left = psutil.wait_procs(children, timeout=20)
    for child in left:
        child.kill()
    run.process.communicate(timeout=60)
    assert len(children) >= 3, "a fork server, and a worker of each kind"
    assert left == []
