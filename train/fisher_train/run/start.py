"""What a run begins with and what it leaves behind: a front-end, weights, and the facts of their training.

Start at `start_of` and `checkpoint_of`.
"""

import shlex
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.views import ENVELOPE, MODULATION
from fisher_edge.errors import UsageError
from fisher_train.checkpoint import Checkpoint, load_checkpoint
from fisher_train.encoder import PRESETS, EncoderConfig
from fisher_train.run.settings import PAIR_FRAMES, Settings

__all__ = ["Start", "checkpoint_of", "command_of", "start_of"]

METHODS = {
    "contrastive": "contrastive (NT-Xent)",
    "distillation": "self-distillation of masked sub-bands",
    "both": "contrastive (NT-Xent) and self-distillation of masked sub-bands",
}


@dataclass(frozen=True, eq=False)
class Start:
    """Shape of the encoder, its front-end and, where it continues from others, its weights."""

    config: EncoderConfig
    front_end: FrontEnd
    weights: dict[str, Tensor] | None = None
    facts: dict[str, Any] | None = None
    """Facts of the training that the weights had before."""


def start_of(settings: Settings) -> Start:
    """Return the preset's encoder with the project's front-end, or the checkpoint that is named in `init`.

    A checkpoint's front-end is kept. Raises UsageError when its encoder is not that of the preset,
    BadArtifactError when it cannot be read.
    """
    config = PRESETS[settings.preset]
    if settings.init is None:
        return Start(config, _front_end(settings, config))
    found = load_checkpoint(settings.init)
    if found.config != config:
        raise UsageError(
            f"{settings.init} has {found.config}, which is not preset {settings.preset} ({config}); choose its preset"
        )
    return Start(config, found.front_end, found.state, found.facts)


def _front_end(settings: Settings, config: EncoderConfig) -> FrontEnd:
    """Return the project's front-end: windows longer than those trained on are embedded in pieces."""
    return FrontEnd(
        band_width=config.band_width,
        top_band="pad",
        amplitude="standardise",
        piece_frames=0 if settings.objective == "distillation" else PAIR_FRAMES,
        views=(ENVELOPE, MODULATION),
    )


def command_of(settings: Settings) -> str:
    """Return the command that trains with these settings."""
    budget = ("--steps", settings.steps) if settings.steps else ("--minutes", f"{settings.minutes:g}")
    options: list[tuple[str, object]] = [
        ("--preset", settings.preset),
        ("--objective", settings.objective),
        budget,
        ("--seed", settings.seed),
    ]
    usual = Settings()
    for name in ("batch", "frames", "accumulate", "precision", "peak_rate", "warmup_steps", "init"):
        value = getattr(settings, name)
        if value != getattr(usual, name):
            options.append((f"--{name.replace('_', '-')}", value))
    words = ["python", "-m", "fisher_train", *settings.data, *(str(word) for option in options for word in option)]
    return shlex.join(words)


def checkpoint_of(
    settings: Settings,
    start: Start,
    weights: dict[str, Tensor],
    *,
    steps: int,
    elapsed_s: float,
    cpu_s: float,
    processes: int,
) -> Checkpoint:
    """Return the encoder with the facts of its training; what was needed for training alone is left behind."""
    simulated = "simulated machines"
    if not settings.data:
        data = f"{simulated} only, no recordings"
    elif settings.objective == "distillation":
        data = f"recordings: {', '.join(settings.data)}"
    else:
        data = f"{simulated}, and recordings: {', '.join(settings.data)}"
    facts: dict[str, Any] = {
        "command": command_of(settings),
        "method": METHODS[settings.objective],
        "data": data,
        "seed": settings.seed,
        "steps": steps,
        "minutes": round(elapsed_s / 60, 1),
        "cpu_minutes_without_loader": round(cpu_s / 60, 1),
        "processes": processes,
        "torch": torch.__version__,
        "licence": "Apache-2.0",
    }
    if start.facts is not None:
        facts["started_from"] = {"checkpoint": settings.init, "facts": start.facts}
    return Checkpoint(start.config, start.front_end, weights, settings.preset, facts)
