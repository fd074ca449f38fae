"""Learning rate over time."""

import math

__all__ = ["learning_rate"]


def learning_rate(peak: float, step: int, progress: float, *, warmup_steps: int) -> float:
    """Linear warm-up over the first steps, then a cosine down to zero; `progress` runs from 0 to 1."""
    warm = min(1.0, (step + 1) / max(1, warmup_steps))
    return peak * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
