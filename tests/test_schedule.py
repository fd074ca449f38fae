"""Learning rate over time, and which parameters decay."""

import pytest
import torch

from fisher_train.distillation import Distillation
from fisher_train.encoder import PRESETS
from fisher_train.schedule import learning_rate, parameter_groups


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


def test_only_matrices_and_kernels_of_what_is_trained_decay() -> None:
    """Norms, biases and the [CLS] do not decay; the teacher is in neither group; all else is in one of them."""
    with torch.device("meta"):
        model = Distillation(PRESETS["nano"])
    decayed, free = parameter_groups([model], 0.05)
    names = {id(value): name for name, value in model.named_parameters()}
    assert isinstance(decayed["params"], list)
    assert isinstance(free["params"], list)
    decayed_names = {names[id(value)] for value in decayed["params"]}
    free_names = {names[id(value)] for value in free["params"]}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    assert decayed_names | free_names == {name for name in names.values() if not name.startswith("teacher.")}
    assert free_names == {
        name
        for name in names.values()
        if not name.startswith("teacher.") and ("norm" in name or name.endswith("bias") or "extra_tokens" in name)
    }
    assert "decoder.convolutions.5.weight" in decayed_names
