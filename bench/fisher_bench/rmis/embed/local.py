"""Embed clips in processes of this machine, a bounded number of clips ahead. Start at `in_processes`."""

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Thread

from fisher_bench.rmis.adapters import Adapter, open_adapter
from fisher_bench.rmis.embed.clip import embed_clip, read_clip
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.errors import BadInputError
from fisher_train.parent import end_with_parent

__all__ = ["Clip", "Embedded", "embed_one", "in_processes", "one_thread"]

AHEAD = 4
"""Clips handed to each process before the first of them is back."""


@dataclass(frozen=True)
class Clip:
    """A clip to embed."""

    key: str
    path: Path
    rate_hz: int


@dataclass(frozen=True, eq=False)
class Embedded:
    """What became of a clip: its embedding (dim,), or why there is none."""

    key: str
    vector: FloatArray | None
    error: str
    cpu_s: float
    signal_s: float


def in_processes(clips: Sequence[Clip], spec: str, window_s: float, workers: int) -> Iterator[Embedded]:
    """Yield embeddings as they are computed: in this process for one worker, else in `workers` processes.

    Raises BadInputError when a process dies, for example for lack of memory.
    """
    if workers == 1:
        adapter = open_adapter(spec)
        for clip in clips:
            yield embed_one(adapter, clip, window_s)
        return
    one_thread()
    waiting = iter(clips)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(spec, window_s)) as pool:
        try:
            running = {pool.submit(_embed, clip) for clip in islice(waiting, AHEAD * workers)}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= _submitted(pool, waiting, len(done))
                yield from (future.result() for future in done)
        except BrokenProcessPool:
            raise BadInputError(
                f"one of {workers} processes ended, likely for lack of memory; use fewer --workers (nothing is lost)"
            ) from None


def embed_one(adapter: Adapter, clip: Clip, window_s: float) -> Embedded:
    """Embed one clip. The result of a clip that cannot be used holds its error, so that the others continue."""
    started = time.process_time()
    try:
        wave = read_clip(clip.path, clip.rate_hz)
        vector = embed_clip(adapter, wave, clip.rate_hz, window_s)
    except BadInputError as error:
        return Embedded(clip.key, None, str(error), 0.0, 0.0)
    return Embedded(clip.key, vector, "", time.process_time() - started, len(wave) / clip.rate_hz)


def one_thread() -> None:
    """Keep numerical libraries of processes started from here to one thread: the processes are the parallelism."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


_opened: list[tuple[Adapter, float]] = []
"""The encoder of a worker process and its window length."""


def _start(spec: str, window_s: float) -> None:
    Thread(target=end_with_parent, daemon=True).start()
    _opened.append((open_adapter(spec), window_s))


def _embed(clip: Clip) -> Embedded:
    adapter, window_s = _opened[0]
    return embed_one(adapter, clip, window_s)


def _submitted(pool: ProcessPoolExecutor, waiting: Iterator[Clip], count: int) -> "set[Future[Embedded]]":
    return {pool.submit(_embed, clip) for clip in islice(waiting, count)}
