"""Learning rate over time, and which parameters decay."""

import math
from collections.abc import Iterable

from torch import Tensor, nn

__all__ = ["learning_rate", "parameter_groups"]


def learning_rate(peak: float, step: int, progress: float, *, warmup_steps: int) -> float:
    """Linear warm-up over the first steps, then a cosine down to zero; `progress` runs from 0 to 1."""
    warm = min(1.0, (step + 1) / max(1, warmup_steps))
    return peak * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def parameter_groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict[str, list[Tensor] | float]]:
    """Matrices and kernels decay; norms, biases and tokens (one dimension longer than 1) do not.

    Parameters that are not trained, as those of a teacher, are in neither group.
    """
    decayed: list[Tensor] = []
    free: list[Tensor] = []
    for module in modules:
        for parameter in module.parameters():
            if not parameter.requires_grad:
                continue
            long_sides = sum(side > 1 for side in parameter.shape)
            (decayed if long_sides > 1 else free).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
