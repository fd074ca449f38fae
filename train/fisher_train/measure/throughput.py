"""Throughput of the two halves of training: sub-bands a second of the loader alone and of the step alone.

`python -m fisher_train.measure throughput` takes the options of training. Both are measured in this process, on one
core, in its processor time, so that other load does not show; a loader worker runs in parallel with the step.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch

from fisher_edge.errors import FisherEdgeError
from fisher_train.cli import add_settings, settings_of
from fisher_train.data.batches import batches, plan_for
from fisher_train.recordings.find import find
from fisher_train.run.distributed import World, join
from fisher_train.run.settings import Settings
from fisher_train.run.start import start_of
from fisher_train.run.step import new_state, optimise

__all__ = ["Throughput", "main", "measure"]


_T = TypeVar("_T")


@dataclass(frozen=True)
class Throughput:
    """Sub-bands a second of processor time; clones are not counted."""

    loader_bands_per_s: float
    step_bands_per_s: float
    bands_per_step: float
    steps: int

    @property
    def loaders_per_step(self) -> float:
        """Cores that must make batches for one core that trains."""
        return self.step_bands_per_s / self.loader_bands_per_s


def measure(settings: Settings, steps: int, world: World) -> Throughput:
    """Make batches, then train on them, each `steps` times after a first one that is not counted."""
    start = start_of(settings)
    corpus = find([Path(name) for name in settings.data]) if settings.data else None
    made = batches(settings, start.config, plan_for(settings, start.front_end), corpus, world, first_step=0, workers=0)
    first = next(made)
    loader_s, kept = _timed(lambda: [batch.to(world.device) for batch in islice(made, steps)])
    state = new_state(settings, start, world)
    optimise(state.objective, first.to(world.device), state, settings)
    step_s, _ = _timed(lambda: [optimise(state.objective, batch, state, settings) for batch in kept])
    bands = sum(batch.n_bands for batch in kept)
    return Throughput(bands / loader_s, bands / step_s, bands / steps, steps)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fisher_train.measure throughput",
        description="Measure sub-bands a second of the loader and of the step, each alone on one core.",
        epilog="example: python -m fisher_train.measure throughput --preset nano --steps 20",
    )
    add_settings(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        with join("cpu") as world:
            found = measure(settings_of(options), options.steps or 20, world)
    except FisherEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if options.json:
        print(json.dumps({**asdict(found), "loaders_per_step": found.loaders_per_step}))
    else:
        print(
            f"loader {found.loader_bands_per_s:.0f} bands/s, step {found.step_bands_per_s:.0f} bands/s of a core "
            f"({found.steps} steps of {found.bands_per_step:.0f} bands): "
            f"{found.loaders_per_step:.2f} loader cores keep one training core busy"
        )
    return 0


def _timed(work: Callable[[], _T]) -> tuple[float, _T]:
    """Return the processor time (s) of some work of this process, and its result."""
    before = time.process_time()
    result = work()
    return time.process_time() - before, result
