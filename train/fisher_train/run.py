"""A run on disk: its settings, its log and the state from which it is continued.

A run is a folder: `run.json` (settings), `log.jsonl` (one object a line), `state.pt` (where it is) and, when it
has finished, `final/` (the checkpoint). Every file is written beside and renamed.
"""

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fisher_edge.errors import BadArtifactError, UsageError
from fisher_train.encoder import PRESETS

__all__ = ["Settings", "TrainingState", "append_log", "open_run", "save_state"]


@dataclass(frozen=True)
class Settings:
    """Settings of a run; a resumed run must have the same."""

    preset: str = "nano"
    seed: int = 0
    minutes: float = 60.0
    """Training time: the cosine follows the time spent, so that it ends at zero within the budget."""
    steps: int = 0
    """Steps instead of minutes when not 0: the cosine follows the steps, and the run repeats exactly."""
    peak_rate: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    warmup_steps: int = 100
    clip: float = 3.0
    temperature: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if self.preset not in PRESETS:
            raise UsageError(f"preset {self.preset!r} is not one of {', '.join(PRESETS)}; choose one of them")
        if self.steps < 0 or (self.steps == 0 and not 0 < self.minutes < math.inf) or self.seed < 0:
            raise UsageError(
                f"minutes={self.minutes}, steps={self.steps}, seed={self.seed} cannot be trained; give a positive time "
                "or number of steps and a seed from 0"
            )

    def progress(self, step: int, elapsed_s: float) -> float:
        """Share of the run that is done (1 or more at its end)."""
        return step / self.steps if self.steps else elapsed_s / (60 * self.minutes)


@dataclass
class TrainingState:
    """All that changes while training runs."""

    modules: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    """Processor time of the training process, without the loader worker."""


def open_run(out: Path, settings: Settings, state: TrainingState) -> None:
    """Start a run in a folder, or continue the one that is there: fills `state`.

    Raises UsageError when the folder cannot be made or its run has other settings, BadArtifactError when its
    files are damaged.
    """
    wanted = json.loads(json.dumps(asdict(settings)))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out} cannot be used as a folder ({error.strerror}); choose another --out") from error
    if not (out / "run.json").exists():
        _replace(out / "run.json", (json.dumps(wanted, indent=2) + "\n").encode())
        return
    try:
        found = json.loads((out / "run.json").read_text("utf-8"))
    except ValueError as error:
        raise BadArtifactError(f"{out / 'run.json'} is not JSON; delete the folder to start again") from error
    if found != wanted:
        raise UsageError(f"{out} holds a run with other settings ({_difference(found, wanted)}); choose another --out")
    if (out / "state.pt").exists():
        _load_state(out / "state.pt", state)
    _cut_log(out / "log.jsonl", state.step)


def save_state(out: Path, state: TrainingState) -> None:
    """Write `state.pt`, from which the run can be continued."""
    content = {
        "modules": state.modules.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "step": state.step,
        "elapsed_s": state.elapsed_s,
        "cpu_s": state.cpu_s,
        "torch_rng": torch.get_rng_state(),
    }
    beside = out / ".state.pt.new"
    torch.save(content, beside)
    beside.replace(out / "state.pt")


def append_log(out: Path, facts: dict[str, Any]) -> None:
    """Append one line to the log, numbers rounded to what can be read from them."""
    line = {key: float(f"{value:.5g}") if isinstance(value, float) else value for key, value in facts.items()}
    with (out / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def _load_state(path: Path, state: TrainingState) -> None:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state.modules.load_state_dict(content["modules"])
        state.optimizer.load_state_dict(content["optimizer"])
        state.step, state.elapsed_s, state.cpu_s = content["step"], content["elapsed_s"], content["cpu_s"]
        torch.set_rng_state(content["torch_rng"])
    except Exception as error:  # a damaged pickle raises whatever it likes
        raise BadArtifactError(f"{path} cannot be continued from; delete it to start the run again") from error


def _cut_log(path: Path, step: int) -> None:
    """Forget lines that were written after the state from which the run continues."""
    if not path.exists():
        return
    kept = [line for line in path.read_text("utf-8").splitlines() if _step_of(line) <= step]
    _replace(path, "".join(line + "\n" for line in kept).encode())


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line cut short when the run was ended


def _difference(found: object, wanted: dict[str, Any]) -> str:
    if not isinstance(found, dict):
        return "unreadable"
    keys = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
    return ", ".join(f"{key} {found.get(key)} there, {wanted.get(key)} asked for" for key in keys)


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    beside.write_bytes(content)
    beside.replace(path)
