"""Learning rate over time."""

import pytest

from fisher_train.run.schedule import learning_rate


def test_paper_schedule() -> None:
    """Linear warm-up over 40 k of 400 k steps to 5e-4, then a cosine to zero."""
    peak, warmup, total = 5e-4, 40_000, 400_000

    def rate(step: int) -> float:
        return learning_rate(peak, step, step / total, warmup_steps=warmup)

    assert rate(0) == pytest.approx(peak / warmup)
    assert rate(19_999) == pytest.approx(peak / 2, rel=0.01)
    assert max(rate(step) for step in range(0, total, 1000)) == pytest.approx(peak, rel=0.03)
    assert rate(200_000) == pytest.approx(peak / 2)
    assert rate(total) == 0.0
