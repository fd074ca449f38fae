"""The training loop: one straight line from batches to a checkpoint, resumable at any moment.

Start at `train`. Objectives are in objectives/, batches in data/, and what a run is made of in run/: a step in step.py,
settings in settings.py, what is written in recorder.py.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fisher_edge.errors import UsageError
from fisher_train.checkpoint import save_checkpoint
from fisher_train.data.batches import batches, plan_for
from fisher_train.data.simulated import Plan
from fisher_train.objectives.objective import Batch
from fisher_train.recordings.find import Corpus, find
from fisher_train.run.distributed import World, wrap
from fisher_train.run.folder import open_run, writing
from fisher_train.run.logs import open_log
from fisher_train.run.optimizer import set_rate
from fisher_train.run.progress import Progress, watch
from fisher_train.run.recorder import Recorder
from fisher_train.run.schedule import learning_rate
from fisher_train.run.settings import Execution, Settings
from fisher_train.run.start import start_of
from fisher_train.run.state import TrainingState, newest, resume
from fisher_train.run.step import new_state, optimise

__all__ = ["train"]


def train(
    settings: Settings,
    out: Path,
    execution: Execution | None = None,
    world: World | None = None,
    *,
    plan: Plan | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Path:
    """Pre-train an encoder; return the folder of the finished checkpoint.

    A run that is in `out` is continued from its newest whole checkpoint. With the same settings, threads and
    processes, float32 on the CPU, every later step is bit for bit what it would have been. `clock` returns the seconds
    that a run of so many minutes is measured by. Raises UsageError when
    that run has other settings or these cannot be run here, BadInputError when a gradient is not finite,
    StateError when the folder cannot be written.
    """
    execution, world = execution or Execution(), world or World()
    torch.set_num_threads(execution.threads)
    torch.manual_seed(settings.seed)
    start = start_of(settings)
    corpus = find([Path(name) for name in settings.data]) if settings.data else None
    state = new_state(settings, start, world)
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
            recorder = Recorder(out, settings, execution, start, state, world, opened, progress, clock)
            if execution.compile:
                _compile(state)
            _steps(settings, state, wrap(state.objective, world), feed, world, recorder)
        if world.first:
            with writing(out):
                save_checkpoint(out / "final", recorder.checkpoint())
    return out / "final"


def _steps(
    settings: Settings, state: TrainingState, model: nn.Module, feed: Iterator[Batch], world: World, recorder: Recorder
) -> None:
    """Train from the step of `state` to the end of the run."""
    recipe = settings.recipe
    while (done := _share_done(settings, state, world)) < 1:
        total_steps = settings.total_steps(state.step, done)
        warmup_steps = max(recipe.warmup_steps, round(recipe.warmup_share * total_steps))
        rate = learning_rate(recipe.peak_rate, state.step, done, warmup_steps=warmup_steps)
        set_rate(state.optimizers, rate)
        torch.manual_seed(_step_seed(settings.seed, state.step, world.rank))
        batch = next(feed).to(world.device)
        facts = optimise(model, batch, state, settings)
        state.objective.after_step(state.step, total_steps)
        state.step += 1
        recorder.after_step(batch, {**facts, "rate": torch.tensor(rate, dtype=torch.float64)})
    recorder.finish()


def _compile(state: TrainingState) -> None:
    """Compile the objective in place. Raises UsageError when torch would find no compiler for its code."""
    compilers = (os.environ.get("CXX", "c++"), "g++", "clang++")
    if state.device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise UsageError("compile needs a C++ compiler (g++ or clang++) on the CPU; install one or leave --compile out")
    state.objective.compile()


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
