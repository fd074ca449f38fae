"""The settings of a run: what is trained, and how. Start at `Settings`."""

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from fisher_edge.errors import UsageError
from fisher_train.encoder import PRESETS

__all__ = ["OBJECTIVES", "PAIR_FRAMES", "PRECISIONS", "Execution", "Recipe", "Settings"]

PRECISIONS = ("fp32", "bf16", "fp16")
PAIR_FRAMES = 96
"""Frames (10 ms) of the windows of a contrastive pair: longer ones did not train better."""


@dataclass(frozen=True)
class Recipe:
    """The numbers of an objective."""

    batch: int
    """Pairs (contrastive) or recordings (self-distillation) of one optimiser step, over all processes."""
    peak_rate: float
    betas: tuple[float, float]
    clip: float
    """Largest norm of the gradient."""
    warmup_steps: int = 0
    warmup_share: float = 0.0
    """Warm-up as a share of the run, where that is longer than `warmup_steps`."""
    weight_decay: float = 0.05
    optimizer: str = "adamw"
    """`adamw`, or `muon` for the matrices of the blocks (optimizer.py)."""


RECIPES = {
    "contrastive": Recipe(batch=96, peak_rate=5e-4, betas=(0.9, 0.98), clip=3.0, warmup_steps=100, optimizer="muon"),
    # FISHER (arXiv 2507.16696), section III: 40 k of 400 k steps of warm-up.
    "distillation": Recipe(batch=16, peak_rate=5e-4, betas=(0.9, 0.95), clip=4.0, warmup_share=0.1),
    "both": Recipe(batch=96, peak_rate=5e-4, betas=(0.9, 0.98), clip=3.0, warmup_steps=100, optimizer="muon"),
}
OBJECTIVES = tuple(RECIPES)


@dataclass(frozen=True)
class Settings:
    """What is trained; a resumed run must have the same. None is the objective's recipe."""

    preset: str = "nano"
    objective: str = "contrastive"
    data: tuple[str, ...] = ()
    """Folders and shards of recordings; none: simulated machines."""
    seed: int = 0
    minutes: float = 60.0
    """Training time: the cosine follows the time spent, so that it ends at zero within the budget."""
    steps: int = 0
    """Steps instead of minutes when not 0: the cosine follows the steps, and the run repeats exactly."""
    batch: int | None = None
    frames: int = 1024
    """Frames of a window of recordings."""
    accumulate: int = 1
    """Parts into which each process divides its share of a batch, to save memory."""
    precision: str = "fp32"
    peak_rate: float | None = None
    warmup_steps: int | None = None
    init: str | None = None
    """Checkpoint whose weights the encoder starts with."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        for name, value, known in (
            ("preset", self.preset, tuple(PRESETS)),
            ("objective", self.objective, OBJECTIVES),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise UsageError(f"{name} {value!r} is not one of {', '.join(known)}; choose one of them")
        if self.steps < 0 or (self.steps == 0 and not 0 < self.minutes < math.inf) or self.seed < 0:
            raise UsageError(
                f"minutes={self.minutes}, steps={self.steps}, seed={self.seed} cannot be trained; give a positive time "
                "or number of steps and a seed from 0"
            )
        config, recipe = PRESETS[self.preset], self.recipe
        if not config.patch_size < self.frames <= config.max_frames:
            raise UsageError(
                f"frames={self.frames} cannot be trained; preset {self.preset} takes {config.patch_size + 1} to "
                f"{config.max_frames}"
            )
        if recipe.batch < 1 or self.accumulate < 1 or recipe.warmup_steps < 0 or not 0 < recipe.peak_rate < math.inf:
            raise UsageError(
                f"batch={recipe.batch}, accumulate={self.accumulate}, warmup_steps={recipe.warmup_steps}, "
                f"peak_rate={recipe.peak_rate} cannot be trained; give positive numbers"
            )

    @property
    def recipe(self) -> Recipe:
        """The numbers of the objective, with those that were given."""
        chosen = {"batch": self.batch, "peak_rate": self.peak_rate, "warmup_steps": self.warmup_steps}
        given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
        if self.warmup_steps is not None:
            given["warmup_share"] = 0.0
        return replace(RECIPES[self.objective], **given)

    def progress(self, step: int, elapsed_s: float) -> float:
        """Share of the run that is done (1 or more at its end)."""
        return step / self.steps if self.steps else elapsed_s / (60 * self.minutes)

    def total_steps(self, step: int, progress: float) -> int:
        """Steps of the whole run; of a timed one, as many as its speed so far promises."""
        return self.steps or max(step + 1, round(step / progress) if progress else 0)

    def to_dict(self) -> dict[str, Any]:
        """Return what a resumed run must share, as it is after JSON."""
        values: dict[str, Any] = json.loads(json.dumps({**asdict(self), **asdict(self.recipe)}))
        return values


@dataclass(frozen=True)
class Execution:
    """How it is trained; a resumed run may change these."""

    workers: int = 1
    """Processes that make batches, for each training process; 0 makes them in it."""
    threads: int = 1
    """Threads of each training process on the CPU. Another number rounds otherwise."""
    keep: int = 3
    """Newest checkpoints that are kept."""
    save_every_min: float = 5.0
    """Minutes between checkpoints, written together with the next line of the log."""
    log_every: int = 20
    """Steps between lines of the log."""
    tensorboard: bool = True
    compile: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if self.workers < 0 or min(self.threads, self.keep, self.log_every) < 1 or not self.save_every_min >= 0:
            raise UsageError(
                f"workers={self.workers}, threads={self.threads}, keep={self.keep}, log_every={self.log_every}, "
                f"save_every={self.save_every_min}: give at least 0, 1, 1, 1 and 0"
            )
