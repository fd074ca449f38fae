"""Several processes under torchrun train as one does (self-distillation: see test_resume.py)."""

from pathlib import Path

import pytest
import torch
from training import SMALL, Run, log_of, train_here

from fisher_train.checkpoint import load_checkpoint
from fisher_train.distributed import World


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Contrastive losses of two processes are those of one with the same global batch, to 1e-5; gradients to 1e-4.

    The learning rate is a tenth of the usual one: Adam's first steps turn rounding of near-zero gradients into
    whole steps.
    """
    command = [*SMALL, "--steps", "5", "--warmup-steps", "1", "--peak-rate", "1e-4"]
    one = train_here(tmp_path / "one", *command)
    code, output, errors = Run(tmp_path / "two", *command, processes=2).end()
    assert code == 0, errors
    assert output == f"{tmp_path / 'two' / 'final'}\n"
    two = log_of(tmp_path / "two")
    assert len(two) == 5
    for line, expected in zip(two, one, strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert line["norm"] == pytest.approx(expected["norm"], rel=1e-4)
    found, wanted = (load_checkpoint(tmp_path / name / "final") for name in ("two", "one"))
    assert found.facts["processes"] == 2
    torch.testing.assert_close(found.state, wanted.state, atol=1e-4, rtol=1e-3)


def test_error_among_several_processes_is_one_line(tmp_path: Path) -> None:
    """A batch that cannot be divided ends both processes; the first one says why, once."""
    code, _, errors = Run(tmp_path, *SMALL, "--batch", "7", "--steps", "1", processes=2).end()
    assert code != 0
    assert errors.count("error: 7 pairs cannot be divided among 2 processes") == 1


@pytest.mark.parametrize("size", [1, 2, 4])
def test_shares_are_the_whole(size: int) -> None:
    """The shares of all processes are equal and, joined, the whole in its order."""
    shares = [World(rank, size).share(8, "pairs") for rank in range(size)]
    assert [row for share in shares for row in range(8)[share]] == list(range(8))
    assert {share.stop - share.start for share in shares} == {8 // size}
