"""Self-distillation of masked sub-bands: a student predicts what its own moving average sees.

Start at `Distillation.forward`. Source: FISHER (arXiv 2507.16696), section II, with EAT's masking and decoder
(arXiv 2401.03497) and data2vec 2's targets (arXiv 2212.07525). Masks are in masking.py, targets in teacher.py.
"""

import math

import torch
from torch import Tensor, nn

from fisher_train.encoder import Encoder, EncoderConfig
from fisher_train.objectives.decoder import Decoder
from fisher_train.objectives.teacher import distillation_targets, ema_decay, make_teacher, update_teacher

__all__ = ["Distillation"]

NOISE_STD = 0.01


class Distillation(nn.Module):
    """Student `encoder`, its `teacher` and the `decoder`; only the student and the decoder are trained.

    The teacher and its decay are part of the state dict, so a resumed run continues exactly. Under autocast the
    teacher's weights, the targets and the loss stay float32.
    """

    decay: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.teacher = make_teacher(self.encoder)
        self.decoder = Decoder(config.embed_dim)
        self.register_buffer("decay", torch.tensor(ema_decay(0), dtype=torch.float64))

    def forward(
        self, bands: Tensor, kept: Tensor, seeds: Tensor, band_index: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch and facts to log.

        `bands` (n, frames, band_width); `kept` (n, clones, n_kept), int64, from `masking.kept_patches`; `seeds`
        (n,), int64, of the noise of each band; `band_index` (n,), int64, the place of each band in its signal,
        gives the loss of each place. The loss is a mean over n equal parts that do not see each other: the mean of
        the losses (and gradients) of two halves of a batch, on two processes or accumulated, is that of the whole.
        """
        patch_targets, utterance_targets = distillation_targets(self.teacher, bands)
        utterances, predictions = self._predict(bands, kept, seeds)
        masked = torch.ones(predictions.shape[:3], device=bands.device).scatter_(2, kept, 0.0)
        patch_errors = _error(predictions, patch_targets.unsqueeze(1))  # (n, clones, patches)
        patch_loss = (patch_errors * masked).sum((1, 2)) / masked.sum((1, 2))
        utterance_loss = _error(utterances, utterance_targets.unsqueeze(1)).mean(1)
        loss = patch_loss + utterance_loss
        facts = {
            "patch_loss": patch_loss.mean(),
            "utterance_loss": utterance_loss.mean(),
            "masked_share": masked.mean(),
            "ema_decay": self.decay,
            **_variances(patch_targets, predictions, masked, utterance_targets, utterances),
        }
        for place in [] if band_index is None else sorted(set(band_index.tolist())):
            facts[f"loss_band_{place}"] = loss[band_index == place].mean()
        return loss.mean(), {name: fact.detach().clone() for name, fact in facts.items()}

    def after_step(self, step: int, total_steps: int) -> None:
        """Move the teacher after optimiser step number `step` (from 0) of `total_steps`."""
        self.decay.fill_(ema_decay(step, total_steps))
        update_teacher(self.teacher, self.encoder, float(self.decay))

    def _predict(self, bands: Tensor, kept: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Return utterance (n, clones, dim) and patch predictions (n, clones, patches, dim) of the student."""
        config = self.encoder.config
        n_time, n_freq = config.patch_grid(bands.shape[1])
        encoded = self.encoder.encode_kept(bands, kept)
        encoded = encoded.view(*kept.shape[:2], *encoded.shape[1:])  # (n, clones, 1 + n_kept, dim)
        grid = fill_noise(seeds, (kept.shape[1], n_time * n_freq, config.embed_dim)).to(encoded.dtype)
        index = kept.unsqueeze(3).expand(-1, -1, -1, config.embed_dim)
        grid = grid.scatter(2, index, encoded[:, :, 1:])
        rows, columns = (n_time, n_freq) if config.flatten == "freq" else (n_freq, n_time)
        decoded: Tensor = self.decoder(grid.flatten(0, 1), rows, columns)
        return encoded[:, :, 0], decoded.view_as(grid)


def fill_noise(seeds: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Noise N(0, 0.01^2) in place of masked patches: (n, *shape), each row from its own seed alone.

    So it does not depend on how a batch is divided among processes. CPU and CUDA draw different numbers.
    """
    noise = torch.empty((len(seeds), *shape), device=seeds.device)
    generator = torch.Generator(seeds.device)
    for row, seed in zip(noise, seeds.tolist(), strict=True):
        row.normal_(0, NOISE_STD, generator=generator.manual_seed(seed))
    return noise


def _error(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared error summed over channels and scaled by 1 / sqrt(dim)."""
    return (predicted.float() - target).square().sum(-1) / math.sqrt(target.shape[-1])


@torch.no_grad()
def _variances(
    patch_targets: Tensor, predictions: Tensor, masked: Tensor, utterance_targets: Tensor, utterances: Tensor
) -> dict[str, Tensor]:
    """Variance of targets and predictions (mean over channels): 0 is a collapse.

    The variances of patches are over all places and bands. A target that encodes nothing but its position has
    variance too, so the variance between bands at the same place is given as well.
    """
    return {
        "target_variance": patch_targets.flatten(0, 1).var(0, correction=0).mean(),
        "target_variance_between_bands": patch_targets.var(0, correction=0).mean(),
        "prediction_variance": predictions.float()[masked.bool()].var(0, correction=0).mean(),
        "utterance_target_variance": utterance_targets.var(0, correction=0).mean(),
        "utterance_variance": utterances.float().flatten(0, 1).var(0, correction=0).mean(),
    }
