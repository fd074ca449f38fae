"""The training loop: one straight line from batches to a checkpoint, resumable at any moment.

Start at `train`. Objectives are in objective.py, batches in batches.py; what a run writes in recorder.py, with its
files in run.py (settings), logs.py and state.py (checkpoints).
"""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fisher_edge.errors import BadInputError, UsageError
from fisher_train.batches import batches, plan_for
from fisher_train.checkpoint import save_checkpoint
from fisher_train.data import Plan
from fisher_train.distributed import World, local_gradients, wrap
from fisher_train.logs import open_log
from fisher_train.objective import Batch, Objective
from fisher_train.progress import Progress, watch
from fisher_train.recorder import Recorder
from fisher_train.recordings.find import Corpus, find
from fisher_train.run import Execution, Settings, open_run, writing
from fisher_train.schedule import learning_rate, parameter_groups
from fisher_train.start import Start, start_of
from fisher_train.state import TrainingState, newest, resume

__all__ = ["train"]

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def train(
    settings: Settings,
    out: Path,
    execution: Execution | None = None,
    world: World | None = None,
    *,
    plan: Plan | None = None,
) -> Path:
    """Pre-train an encoder; return the folder of the finished checkpoint.

    A run that is in `out` is continued from its newest whole checkpoint. With the same settings, threads and
    processes, float32 on the CPU, every later step is bit for bit what it would have been. Raises UsageError when
    that run has other settings or these cannot be run here, BadInputError when a gradient is not finite,
    StateError when the folder cannot be written.
    """
    execution, world = execution or Execution(), world or World()
    torch.set_num_threads(execution.threads)
    torch.manual_seed(settings.seed)
    start = start_of(settings)
    corpus = find([Path(name) for name in settings.data]) if settings.data else None
    state = _new_state(settings, start, world)
    with (
        open_run(out, settings) if world.first else nullcontext(),
        watch(first=world.first) as progress,
    ):
        if progress is not None and corpus is not None:
            progress.say(_describe(corpus))
        _continue(out, state, world, progress)
        plan = plan or plan_for(settings, start.front_end)
        feed = batches(settings, start.config, plan, corpus, world, first_step=state.step, workers=execution.workers)
        log = open_log(out, state.step, tensorboard=execution.tensorboard) if world.first else nullcontext()
        with log as opened:
            recorder = Recorder(out, settings, execution, start, state, world, opened, progress)
            if execution.compile:
                state.objective.compile()
            _steps(settings, state, wrap(state.objective, world), feed, world, recorder)
        if world.first:
            with writing(out):
                save_checkpoint(out / "final", recorder.checkpoint())
    return out / "final"


def _steps(
    settings: Settings, state: TrainingState, model: nn.Module, feed: Iterator[Batch], world: World, recorder: Recorder
) -> None:
    """Train from where the state is to the end of the run."""
    recipe = settings.recipe
    while (done := _share_done(settings, state, world)) < 1:
        total_steps = settings.total_steps(state.step, done)
        warmup_steps = max(recipe.warmup_steps, round(recipe.warmup_share * total_steps))
        rate = learning_rate(recipe.peak_rate, state.step, done, warmup_steps=warmup_steps)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(_step_seed(settings.seed, state.step, world.rank))
        batch = next(feed).to(world.device)
        facts = _backward(model, batch, state, settings)
        norm = _update(state, recipe.clip)
        state.objective.after_step(state.step, total_steps)
        state.step += 1
        recorder.after_step(batch, {**facts, "norm": norm, "rate": torch.tensor(rate, dtype=torch.float64)})
    recorder.finish()


def _backward(model: nn.Module, batch: Batch, state: TrainingState, settings: Settings) -> dict[str, Tensor]:
    """Compute the gradient of a batch, in parts, averaged over the processes; return the loss and facts."""
    kind, mixed = state.device.type, settings.precision != "fp32"
    parts = state.objective.parts(batch)
    facts: list[dict[str, Tensor]] = []
    state.optimizer.zero_grad()
    for part in range(parts):
        with local_gradients(model) if part < parts - 1 else nullcontext():
            with torch.autocast(kind, TYPES[settings.precision] if mixed else None, enabled=mixed):
                loss, more = model(batch, part, parts)
            torch.autograd.backward(state.scaler.scale(loss))
        facts.append({**more, "loss": loss.detach() * parts})
    return {
        name: torch.stack([found[name] for found in facts if name in found]).mean()
        for name in dict.fromkeys(name for found in facts for name in found)
    }


def _update(state: TrainingState, clip: float) -> Tensor:
    """Clip the gradient, move the weights and return the norm. Raises BadInputError when it is not finite."""
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.objective.parameters(), clip)
    # A scale that is too large for float16 overflows now and then: the scaler leaves that step out and halves it.
    if not torch.isfinite(norm) and not (state.scaler.is_enabled() and state.scaler.get_scale() > 1):
        raise BadInputError(f"gradient is not finite at step {state.step}; start again with a lower --peak-rate")
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return norm


def _new_state(settings: Settings, start: Start, world: World) -> TrainingState:
    """Return the state of a run before its first step."""
    if settings.precision == "fp16" and world.device.type != "cuda":
        raise UsageError("precision fp16 needs a CUDA device, and none is used; give --precision bf16 or fp32")
    objective = Objective(settings.objective, start.config, settings.accumulate)
    if start.weights is not None:
        objective.start_from(start.weights)
    objective.to(world.device)
    recipe = settings.recipe
    groups = parameter_groups([objective], recipe.weight_decay)
    optimizer = torch.optim.AdamW(groups, recipe.peak_rate, betas=recipe.betas)
    scaler = torch.amp.GradScaler(world.device.type, enabled=settings.precision == "fp16")
    return TrainingState(objective, optimizer, scaler, world.device)


def _continue(out: Path, state: TrainingState, world: World, progress: Progress | None) -> None:
    """Fill the state from the newest whole checkpoint of the run, the same in all processes."""
    step, damaged = newest(out) if world.first else (0, [])
    step = round(world.agree(step))
    resume(out, state, step)
    if progress is not None and (step or damaged):
        progress.say("; ".join([*damaged, f"continuing {out} from step {step}"]))


def _describe(corpus: Corpus) -> str:
    unusable = f"; {len(corpus.bad)} unusable, the first: {corpus.bad[0].reason}" if corpus.bad else ""
    return f"{len(corpus.recordings)} recordings of {corpus.seconds / 3600:.2f} h{unusable}"


def _share_done(settings: Settings, state: TrainingState, world: World) -> float:
    """Share of the run that is done; the first process's clock counts."""
    return settings.progress(state.step, state.elapsed_s if settings.steps else world.agree(state.elapsed_s))


def _step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of what is random in one step of one process, so that no state of a generator need be kept."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])
