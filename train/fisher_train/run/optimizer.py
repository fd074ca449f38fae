"""The optimiser: AdamW, or Muon for the matrices of the blocks with AdamW for all else. Start at `make_optimizers`."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fisher_train.run.settings import Recipe

__all__ = ["make_optimizers", "parameter_groups", "set_rate"]

MUON_RATE = 10.0
"""Rate of Muon over that of AdamW; each is scaled to the same root mean square first (arXiv 2502.16982)."""
FACTOR = "rate_factor"


def make_optimizers(module: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return the optimisers that together train all parameters of a module.

    Muon (arXiv 2502.16982) makes the update of a matrix orthogonal, so that directions with small gradients are
    learnt too. It is meant for hidden matrices: those of transformer blocks; kernels, heads, norms, biases and tokens
    are AdamW's.
    """
    hidden = _hidden_matrices(module) if recipe.optimizer == "muon" else []
    groups = parameter_groups([module], recipe.weight_decay, without=hidden)
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, recipe.peak_rate, betas=recipe.betas)]
    if hidden:
        group = {"params": hidden, FACTOR: MUON_RATE}
        optimizers.append(
            torch.optim.Muon(
                [group], recipe.peak_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
            )
        )
    return optimizers


def set_rate(optimizers: Iterable[torch.optim.Optimizer], rate: float) -> None:
    """Set the learning rate of a step."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get(FACTOR, 1.0)


def parameter_groups(
    modules: Iterable[nn.Module], weight_decay: float, *, without: Iterable[Tensor] = ()
) -> list[dict[str, list[Tensor] | float]]:
    """Matrices and kernels decay; norms, biases and tokens (one dimension longer than 1) do not.

    Parameters that are not trained, as those of a teacher, are in neither group.
    """
    decayed: list[Tensor] = []
    free: list[Tensor] = []
    left_out = {id(parameter) for parameter in without}
    for module in modules:
        for parameter in module.parameters():
            if not parameter.requires_grad or id(parameter) in left_out:
                continue
            long_sides = sum(side > 1 for side in parameter.shape)
            (decayed if long_sides > 1 else free).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def _hidden_matrices(module: nn.Module) -> list[nn.Parameter]:
    """Trained matrices of the transformer blocks, under whatever module they are."""
    return [
        parameter
        for name, parameter in module.named_parameters()
        if ".blocks." in name and parameter.requires_grad and parameter.ndim == 2
    ]
