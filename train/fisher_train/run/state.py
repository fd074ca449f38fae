"""Checkpoints of a run under way: `step-000123/`, from which it continues exactly.

Start at `save`, `newest` and `resume`. A folder holds `config.json` and `model.safetensors`, so it is a project
checkpoint that export reads. It also holds `training.safetensors` (teacher, projector, decoder, optimiser) and
`training.json` (step, time, digests). It is written under another name and renamed. Nothing is pickled. Random numbers
need no state: those of a step depend on the seed, the step and the process alone.
"""

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from fisher_edge.errors import BadArtifactError
from fisher_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from fisher_train.objectives.objective import Objective

__all__ = ["TrainingState", "checkpoints", "newest", "resume", "save"]

FORMAT = "fisher-edge training state 1"
FOLDER = re.compile(r"step-(\d{6,})")
HASHED = ("config.json", "model.safetensors", "training.safetensors")
ENCODERS = ("distillation.encoder.", "contrastive.encoder.")
"""Where the encoder is in an objective's state; it is kept once, in `model.safetensors`."""
MOMENTS: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.Muon: ("momentum_buffer",),
}
"""What an optimiser keeps of each parameter."""


@dataclass
class TrainingState:
    """All that changes while training runs."""

    objective: Objective
    optimizers: list[torch.optim.Optimizer]
    scaler: torch.amp.GradScaler
    device: torch.device
    step: int = 0
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    """Processor time of the first training process, without its loader workers."""


class _DamagedError(Exception):
    """A checkpoint of a run is not whole."""


def save(out: Path, state: TrainingState, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write `step-N/` and forget all but the newest `keep`; return the folder. Raises OSError when the disk is full."""
    folder = out / f"step-{state.step:06d}"
    workshop = out / ".writing"  # also holds what a process that was killed has left half-written
    beside = workshop / folder.name
    shutil.rmtree(workshop, ignore_errors=True)
    try:
        save_checkpoint(beside, checkpoint)
        _write(beside / "training.safetensors", safetensors.torch.save(_tensors(state)))
        facts = {
            "format": FORMAT,
            "step": state.step,
            "elapsed_s": state.elapsed_s,
            "cpu_s": state.cpu_s,
            "scaler": state.scaler.state_dict(),
            "sha256": {name: _sha256(beside / name) for name in HASHED},
        }
        _write(beside / "training.json", (json.dumps(facts, indent=2) + "\n").encode())
        beside.rename(folder)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    for _, old in checkpoints(out)[:-keep]:
        shutil.rmtree(old)
    return folder


def resume(out: Path, state: TrainingState, step: int) -> None:
    """Continue from `step-N/` of a run. Raises BadArtifactError when it is not that of this run."""
    if step == 0:
        return
    folder = out / f"step-{step:06d}"
    try:
        facts = _facts(folder)
        tensors = safetensors.torch.load((folder / "training.safetensors").read_bytes())
        state.objective.encoder.load_state_dict(load_checkpoint(folder).state)
        _load_tensors(state, tensors)
        state.scaler.load_state_dict(facts["scaler"])
        state.step, state.elapsed_s, state.cpu_s = facts["step"], facts["elapsed_s"], facts["cpu_s"]
    except (_DamagedError, OSError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        raise BadArtifactError(
            f"{folder} cannot be continued from in this process ({error}); --out must be a folder that all processes "
            "see, of a run of this version"
        ) from error


def newest(out: Path) -> tuple[int, list[str]]:
    """Return the step of the newest whole checkpoint (0: none) and what is wrong with those after it.

    Damaged ones are put aside under a hidden name. Raises BadArtifactError when there are only damaged ones.
    """
    wrong = []
    for step, folder in reversed(checkpoints(out)):
        try:
            _facts(folder)
        except _DamagedError as error:
            wrong.append(f"{folder.name} is damaged ({error})")
        else:
            for _, damaged in checkpoints(out)[-len(wrong) :] if wrong else []:
                damaged.rename(_unused(out / f".damaged-{damaged.name}"))
            return step, wrong
    if wrong:
        raise BadArtifactError(f"{out} has no whole checkpoint: {', '.join(wrong)}; delete it to start the run again")
    return 0, wrong


def checkpoints(out: Path) -> list[tuple[int, Path]]:
    """Return steps and folders of the checkpoints of a run, newest last."""
    matches = ((FOLDER.fullmatch(path.name), path) for path in out.iterdir())
    return sorted((int(match[1]), path) for match, path in matches if match)


def _facts(folder: Path) -> dict[str, Any]:
    """Read `training.json` after checking that every file is what was written."""
    try:
        facts = json.loads((folder / "training.json").read_text("utf-8"))
        for name in HASHED:
            if _sha256(folder / name) != facts["sha256"][name]:
                raise _DamagedError(f"{name} is not what was written")
        if facts["format"] != FORMAT or folder.name != f"step-{facts['step']:06d}":
            raise _DamagedError(f"training.json is of format {facts['format']!r} and step {facts['step']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _DamagedError(f"training.json: {error}") from error
    return dict(facts)


def _tensors(state: TrainingState) -> dict[str, Tensor]:
    """Everything but the encoder: heads under their names, moments of the optimiser by parameter."""
    heads = {key: value for key, value in state.objective.state_dict().items() if not key.startswith(ENCODERS)}
    tensors = {f"objective.{key}": value for key, value in heads.items()}
    for name, parameter in state.objective.named_parameters():
        for optimizer in state.optimizers:
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
    return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}


def _load_tensors(state: TrainingState, tensors: dict[str, Tensor]) -> None:
    """Undo `_tensors`; raises KeyError or RuntimeError when they are those of something else."""
    heads = {key.removeprefix("objective."): value for key, value in tensors.items() if key.startswith("objective.")}
    missing = state.objective.load_state_dict(heads, strict=False)
    absent = [key for key in missing.missing_keys if not key.startswith(ENCODERS)]
    if absent or missing.unexpected_keys:
        raise KeyError(f"{absent + missing.unexpected_keys} too many or too few")
    names = {parameter: name for name, parameter in state.objective.named_parameters()}
    for optimizer in state.optimizers:
        content, moments = optimizer.state_dict(), MOMENTS[type(optimizer)]
        ordered = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
        content["state"] = {
            index: {key: tensors[f"optimizer.{key}.{name}"] for key in moments} for index, name in enumerate(ordered)
        }
        optimizer.load_state_dict(content)


def _unused(path: Path) -> Path:
    """Return the path, or the path with the first number that is free."""
    return next(
        candidate
        for candidate in (path.with_name(f"{path.name}{end}") for end in ("", *(f".{n}" for n in range(1, 10000))))
        if not candidate.exists()
    )


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
