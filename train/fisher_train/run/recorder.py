"""Keeps account of a run: averages what its steps report, writes the log, shows progress, saves checkpoints.

Start at `Recorder.after_step`.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from fisher_train.checkpoint import Checkpoint
from fisher_train.objectives.objective import Batch
from fisher_train.run.distributed import World
from fisher_train.run.folder import writing
from fisher_train.run.logs import Log
from fisher_train.run.progress import Progress
from fisher_train.run.settings import Execution, Settings
from fisher_train.run.start import Start, checkpoint_of
from fisher_train.run.state import TrainingState, save

__all__ = ["Recorder"]


class Recorder:
    """The account of one run. Every process keeps one; the first has the log and writes.

    `clock` returns the seconds of a clock that nobody sets.
    """

    def __init__(
        self,
        out: Path,
        settings: Settings,
        execution: Execution,
        start: Start,
        state: TrainingState,
        world: World,
        log: Log | None,
        progress: Progress | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out, self._settings, self._execution, self._start = out, settings, execution, start
        self._state, self._world, self._log, self._progress = state, world, log, progress
        self._clock = clock
        self._recent: list[tuple[int, Mapping[str, Tensor]]] = []
        self._saved_step = state.step
        self._last = self._saved = self._logged = clock()
        self._cpu_last = time.process_time()

    def after_step(self, batch: Batch, facts: Mapping[str, Tensor]) -> None:
        """Take in one step (`state.step` counts it already); log and save when it is time.

        A checkpoint follows a line of the log, so that no line spans an interruption.
        """
        now, cpu_now = self._clock(), time.process_time()
        self._state.elapsed_s += now - self._last
        self._state.cpu_s += cpu_now - self._cpu_last
        self._last, self._cpu_last = now, cpu_now
        self._recent.append((batch.n_bands, facts))
        if self._state.step % self._execution.log_every:
            return
        self._write_line()
        if now - self._saved >= 60 * self._execution.save_every_min:
            self._save()

    def finish(self) -> None:
        """Log and save what is left at the end of the run."""
        if self._recent:
            self._write_line()
        if self._state.step != self._saved_step:
            self._save()

    def checkpoint(self) -> Checkpoint:
        """Return the encoder as it is, with the facts of its training so far."""
        state = self._state
        return checkpoint_of(
            self._settings,
            self._start,
            state.objective.encoder.state_dict(),
            steps=state.step,
            elapsed_s=state.elapsed_s,
            cpu_s=state.cpu_s,
            processes=self._world.size,
        )

    def _write_line(self) -> None:
        state, now = self._state, self._clock()
        bands_per_s = self._world.size * sum(n for n, _ in self._recent) / max(1e-9, now - self._logged)
        means = self._world.mean(_means([facts for _, facts in self._recent]))
        line = {"elapsed_s": round(state.elapsed_s, 3), "bands_per_s": round(bands_per_s, 1), **means}
        if self._log is not None:
            with writing(self._out):
                self._log.write(state.step, line)
        if self._progress is not None:
            self._progress.show(state.step, self._settings.progress(state.step, state.elapsed_s), line)
        self._recent.clear()
        self._logged = now

    def _save(self) -> None:
        if self._log is not None:
            with writing(self._out):
                self._log.flush()
                save(self._out, self._state, self.checkpoint(), keep=self._execution.keep)
        self._saved_step, self._saved = self._state.step, self._clock()


def _means(recent: list[Mapping[str, Tensor]]) -> dict[str, float]:
    """Average facts over the steps that have them; the rate is that of the last step."""
    values: dict[str, list[Tensor]] = defaultdict(list)
    for facts in recent:
        for name, value in facts.items():
            values[name].append(value)
    means = {name: float(torch.stack([value.double() for value in found]).mean()) for name, found in values.items()}
    return {**means, "rate": float(recent[-1]["rate"])}
