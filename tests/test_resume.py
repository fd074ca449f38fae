"""Exact resumption: a run that was killed at any moment goes on as if nothing had happened."""

from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training import SMALL, Run, log_of, make_recordings, train_here

from fisher_train.checkpoint import load_checkpoint

BOTH = [*SMALL, "--objective", "both", "--steps", "7", "--warmup-steps", "2"]


def test_killed_run_continues_exactly(tmp_path: Path) -> None:
    """After two SIGKILLs and the same command again, losses and weights are those of an unbroken run, bit by bit.

    Both objectives, on simulated machines and recordings, with a worker for each: all that has a state is in it.
    """
    recordings = make_recordings(tmp_path / "recordings")
    whole = train_here(tmp_path / "whole", recordings, *BOTH)
    command = [recordings, *BOTH, "--workers", "1"]
    Run(tmp_path / "killed", *command).kill_when(lambda out: (out / "step-000002").exists())
    Run(tmp_path / "killed", *command).kill_when(lambda out: (out / "step-000004").exists())
    steps_then = len(log_of(tmp_path / "killed"))
    code, _, errors = Run(tmp_path / "killed", *command).end()
    assert code == 0, errors
    assert "continuing" in errors
    assert 4 <= steps_then < 7 == len(whole)
    assert log_of(tmp_path / "killed") == whole
    states = [load_checkpoint(tmp_path / name / "final").state for name in ("whole", "killed")]
    torch.testing.assert_close(states[1], states[0], atol=0, rtol=0)
    events = EventAccumulator(str(tmp_path / "killed" / "tensorboard"))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("loss")]
    assert shown == [(line["step"], pytest.approx(line["loss"], rel=1e-6)) for line in whole]


def test_two_killed_processes_continue_exactly(tmp_path: Path) -> None:
    """Two processes under torchrun, all killed, continue to the losses and weights of two that were not."""
    recordings = make_recordings(tmp_path / "recordings")
    command = [recordings, *SMALL, "--batch", "2", "--steps", "5", "--warmup-steps", "2"]
    whole = Run(tmp_path / "whole", *command, processes=2)
    assert whole.end()[0] == 0
    Run(tmp_path / "killed", *command, processes=2).kill_when(lambda out: (out / "step-000002").exists())
    assert not (tmp_path / "killed" / "final").exists()
    code, _, errors = Run(tmp_path / "killed", *command, processes=2).end()
    assert code == 0, errors
    assert "continuing" in errors
    log = log_of(tmp_path / "whole")
    assert len(log) == 5
    assert log_of(tmp_path / "killed") == log
    states = [load_checkpoint(tmp_path / name / "final").state for name in ("whole", "killed")]
    torch.testing.assert_close(states[1], states[0], atol=0, rtol=0)
    one = train_here(tmp_path / "one", *command)
    for line, expected in zip(log, one, strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert line["norm"] == pytest.approx(expected["norm"], rel=1e-4)
