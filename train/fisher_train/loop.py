"""The training loop: one straight line from batches to a checkpoint, resumable at any moment.

Start at `train`. The loss is in contrastive.py, the batches in data.py, the files of a run in run.py.
"""

import time
from pathlib import Path

import torch
from torch import Tensor, nn

from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.errors import BadInputError
from fisher_train.checkpoint import Checkpoint, save_checkpoint
from fisher_train.contrastive import Projector, nt_xent
from fisher_train.data import Plan, loader
from fisher_train.encoder import PRESETS, Encoder
from fisher_train.run import Settings, TrainingState, append_log, open_run, save_state
from fisher_train.schedule import learning_rate, parameter_groups

__all__ = ["train"]

LOG_EVERY = 20
SAVE_EVERY_S = 60.0


def train(settings: Settings, out: Path, *, workers: int = 1, plan: Plan | None = None) -> Path:
    """Pre-train an encoder on simulated machines; return the folder of the finished checkpoint.

    A run that is in `out` is continued from its last `state.pt`. Raises UsageError when that was started with
    other settings, BadInputError when the loss is no longer finite.
    """
    torch.set_num_threads(1)
    torch.manual_seed(settings.seed)
    config = PRESETS[settings.preset]
    front_end = FrontEnd(band_width=config.band_width, top_band="pad", amplitude="standardise")
    encoder, projector = Encoder(config), Projector(config.embed_dim)
    modules = nn.ModuleDict({"encoder": encoder, "projector": projector})
    groups = parameter_groups([modules], settings.weight_decay)
    optimizer = torch.optim.AdamW(groups, settings.peak_rate, betas=settings.betas)
    state = TrainingState(modules, optimizer)
    open_run(out, settings, state)

    batches = loader(plan or Plan(settings.seed, front_end), state.step, workers=workers)
    recent: list[tuple[int, float, float]] = []
    last = saved = time.monotonic()
    cpu_last = time.process_time()
    while (progress := settings.progress(state.step, state.elapsed_s)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings.peak_rate, state.step, progress, warmup_steps=settings.warmup_steps)
        views = next(batches)
        first, second = projector(encoder(views.flatten(0, 1))).chunk(2)
        loss, ranked_first = nt_xent(first, second, settings.temperature)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(modules.parameters(), settings.clip)
        if not torch.isfinite(norm):
            raise BadInputError(f"gradient is not finite at step {state.step}; start again with a lower --peak-rate")
        optimizer.step()

        now, cpu_now = time.monotonic(), time.process_time()
        state.step += 1
        state.elapsed_s, last = state.elapsed_s + now - last, now
        state.cpu_s, cpu_last = state.cpu_s + cpu_now - cpu_last, cpu_now
        recent.append((views.shape[2], loss.item(), ranked_first.item()))
        if state.step % LOG_EVERY == 0:
            rate = {"rate": float(optimizer.param_groups[0]["lr"]), "norm": norm.item()}
            append_log(out, {"step": state.step, "elapsed_s": state.elapsed_s, **rate, **_means(recent)})
            recent.clear()
        if now - saved > SAVE_EVERY_S:
            save_state(out, state)
            saved = now
    save_state(out, state)
    checkpoint = _checkpoint(settings, encoder, front_end, state)
    save_checkpoint(out / "final", checkpoint)
    return out / "final"


def _means(recent: list[tuple[int, float, float]]) -> dict[str, float]:
    """Average loss and share of pairs ranked first over recent steps, for each length of window (frames)."""
    means = {}
    for frames in sorted({frames for frames, _, _ in recent}):
        rows = [(loss, first) for length, loss, first in recent if length == frames]
        means[f"loss_{frames}"] = sum(loss for loss, _ in rows) / len(rows)
        means[f"first_{frames}"] = sum(first for _, first in rows) / len(rows)
    return means


def _checkpoint(settings: Settings, encoder: Encoder, front_end: FrontEnd, state: TrainingState) -> Checkpoint:
    """Keep the encoder and the facts of its training; the projector is left behind."""
    weights: dict[str, Tensor] = encoder.state_dict()
    budget = f"--steps {settings.steps}" if settings.steps else f"--minutes {settings.minutes:g}"
    facts = {
        "command": f"python -m fisher_train contrastive --preset {settings.preset} {budget} --seed {settings.seed}",
        "method": "contrastive (NT-Xent) on families of simulated machines",
        "data": "simulated machines only, no recordings",
        "seed": settings.seed,
        "steps": state.step,
        "minutes": round(state.elapsed_s / 60, 1),
        "cpu_minutes_without_loader": round(state.cpu_s / 60, 1),
        "torch": torch.__version__,
        "licence": "Apache-2.0",
    }
    return Checkpoint(encoder.config, front_end, weights, settings.preset, facts)
