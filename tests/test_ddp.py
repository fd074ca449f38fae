"""A process's place among others (that several train as one: see test_resume.py)."""

import pytest

from fisher_edge.errors import UsageError
from fisher_train.run.distributed import World, join


@pytest.mark.parametrize("size", [1, 2, 4])
def test_shares_are_the_whole(size: int) -> None:
    """The shares of all processes are equal and, joined, the whole in its order."""
    shares = [World(rank, size).share(8, "pairs") for rank in range(size)]
    assert [row for share in shares for row in range(8)[share]] == list(range(8))
    assert {share.stop - share.start for share in shares} == {8 // size}


def test_batch_that_cannot_be_divided_is_refused() -> None:
    """Equal shares are what makes several processes equal to one: anything else is one line."""
    with pytest.raises(UsageError, match="7 pairs cannot be divided among 2 processes"):
        World(0, 2).share(7, "pairs")


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lone process joins nothing, agrees with itself and averages over itself."""
    monkeypatch.delenv("RANK", raising=False)
    with join("cpu") as world:
        assert (world.rank, world.size, world.first, world.grouped) == (0, 1, True, False)
        assert world.agree(3.5) == 3.5
        assert world.mean({"loss": 2.0}) == {"loss": 2.0}
