"""The teacher of self-distillation: a moving average of the student, and the targets it gives.

Start at `distillation_targets`. Source: data2vec 2 (arXiv 2212.07525) and FISHER (arXiv 2507.16696), section II.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from fisher_train.encoder import Encoder

__all__ = ["PAPER_STEPS", "distillation_targets", "ema_decay", "make_teacher", "update_teacher"]

PAPER_STEPS = 400_000
RAMP_SHARE = 0.25
"""Share of the run over which the decay rises: the paper's first 100 k of 400 k steps."""
FIRST_DECAY, LAST_DECAY = 0.9998, 0.99999
LOWEST_DECAY = 0.9
"""However short the run, the teacher averages over about ten steps: a copy of the student would collapse."""


def ema_decay(step: int, total_steps: int = PAPER_STEPS) -> float:
    """Decay of the moving average after a step (from 0): 0.9998 rising linearly to 0.99999 in 100 k steps.

    A run shorter than the paper's 400 k steps has a proportionally faster teacher: both the ramp and the number
    of steps averaged over (1 / (1 - decay)) are the same share of the run. Longer runs keep the paper's numbers.
    """
    times_shorter = max(1.0, PAPER_STEPS / max(1, total_steps))
    ramped = min(1.0, step * times_shorter / (RAMP_SHARE * PAPER_STEPS))
    decay = FIRST_DECAY + (LAST_DECAY - FIRST_DECAY) * ramped
    return max(LOWEST_DECAY, 1 - (1 - decay) * times_shorter)


def make_teacher(student: Encoder) -> Encoder:
    """Return a copy of the student that no optimiser trains, in float32."""
    teacher = copy.deepcopy(student).float()
    return teacher.requires_grad_(requires_grad=False)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Move the teacher's weights towards the student's, in place: `t = decay t + (1 - decay) s`."""
    averages: list[Tensor] = list(teacher.parameters())
    current: list[Tensor] = [parameter.float() for parameter in student.parameters()]
    torch._foreach_lerp_(averages, current, 1 - decay)  # one pass over all weights, as optimisers do it


@torch.no_grad()
def distillation_targets(teacher: Encoder, bands: Tensor) -> tuple[Tensor, Tensor]:
    """Return patch targets (n, patches, dim) and utterance targets (n, dim), float32, of sub-bands seen whole.

    What each block's feed-forward layer adds is normalised over the patches of its band, channel by channel;
    the mean over blocks is normalised over channels. The utterance target is the mean over patches.
    """
    total = torch.zeros((), device=bands.device)
    for ffn in teacher.ffn_outputs(bands):
        total = total + functional.instance_norm(ffn.float().transpose(1, 2))
    mean = total.transpose(1, 2) / len(teacher.blocks)
    patches = functional.layer_norm(mean, mean.shape[-1:])
    return patches, patches.mean(1)
