"""One optimiser step: forward, backward, clip, update, in parts and in mixed precision where asked for.

Start at `optimise`.
"""

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from fisher_edge.errors import BadInputError, UsageError
from fisher_train.objectives.objective import Batch, Objective
from fisher_train.run.distributed import World, local_gradients
from fisher_train.run.optimizer import make_optimizers
from fisher_train.run.settings import Settings
from fisher_train.run.start import Start
from fisher_train.run.state import TrainingState

__all__ = ["new_state", "optimise"]

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def new_state(settings: Settings, start: Start, world: World) -> TrainingState:
    """Return the state of a run before its first step. Raises UsageError for float16 without CUDA."""
    if settings.precision == "fp16" and world.device.type != "cuda":
        raise UsageError("precision fp16 needs a CUDA device, and none is used; give --precision bf16 or fp32")
    objective = Objective(settings.objective, start.config, settings.accumulate)
    if start.weights is not None:
        objective.start_from(start.weights)
    objective.to(world.device)
    optimizers = make_optimizers(objective, settings.recipe)
    scaler = torch.amp.GradScaler(world.device.type, enabled=settings.precision == "fp16")
    return TrainingState(objective, optimizers, scaler, world.device)


def optimise(model: nn.Module, batch: Batch, state: TrainingState, settings: Settings) -> dict[str, Tensor]:
    """Move the weights by one step; return the loss, the norm of the gradient and facts.

    Raises BadInputError, before the weights are touched, when the gradient is not finite.
    """
    facts = _backward(model, batch, state, settings)
    for optimizer in state.optimizers:
        state.scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(state.objective.parameters(), settings.recipe.clip)
    # A scale that is too large for float16 overflows now and then: the scaler leaves that step out and halves it.
    if not torch.isfinite(norm) and not (state.scaler.is_enabled() and state.scaler.get_scale() > 1):
        raise BadInputError(f"gradient is not finite at step {state.step}; start again with a lower --peak-rate")
    for optimizer in state.optimizers:
        state.scaler.step(optimizer)
    state.scaler.update()
    return {**facts, "norm": norm}


def _backward(model: nn.Module, batch: Batch, state: TrainingState, settings: Settings) -> dict[str, Tensor]:
    """Compute the gradient of a batch, in parts, averaged over the processes; return the loss and facts."""
    kind, mixed = state.device.type, settings.precision != "fp32"
    parts = state.objective.parts(batch)
    facts: list[dict[str, Tensor]] = []
    state.objective.zero_grad()
    for part in range(parts):
        with local_gradients(model) if part < parts - 1 else nullcontext():
            with torch.autocast(kind, TYPES.get(settings.precision), enabled=mixed):
                loss, more = model(batch, part, parts)
            torch.autograd.backward(state.scaler.scale(loss))
        facts.append({**more, "loss": loss.detach() * parts})
    return {
        name: torch.stack([found[name] for found in facts if name in found]).mean()
        for name in dict.fromkeys(name for found in facts for name in found)
    }
