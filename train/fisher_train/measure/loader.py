"""Measures how many sub-bands a second the loader gives: `python -m fisher_train.measure loader DATA`.

Each number of workers is run for some seconds after its first batch, with nothing but the loader at work.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.errors import FisherEdgeError
from fisher_train.encoder import PRESETS
from fisher_train.objectives.masking import MAX_CLONED_BANDS
from fisher_train.recordings.batches import BatchPlan, loader
from fisher_train.recordings.find import Corpus, find

__all__ = ["main", "measure"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one JSON line per number of workers; return the exit code."""
    options = _parser().parse_args(arguments)
    config = PRESETS[options.preset]
    front_end = FrontEnd(band_width=config.band_width, top_band="pad", amplitude="standardise")
    cloned = MAX_CLONED_BANDS[options.preset]
    plan = BatchPlan(options.seed, front_end, config, options.signals, options.frames, cloned)
    try:
        corpus = find(options.data)
        for workers in options.workers:
            print(json.dumps({"preset": options.preset, **measure(corpus, plan, workers, options.seconds)}), flush=True)
    except FisherEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def measure(corpus: Corpus, plan: BatchPlan, workers: int, seconds: float) -> dict[str, float]:
    """Return batches, signals and bands a second of the loader alone, and with no worker the processor time of one.

    The processor time is the figure to compare machines by: it hardly depends on what else they do.
    """
    batches = loader(corpus, plan, workers=workers)
    next(batches)
    start, cpu_start, taken, bands = time.perf_counter(), time.process_time(), 0, 0
    while (elapsed := time.perf_counter() - start) < seconds or not taken:
        bands += len(next(batches).bands)
        taken += 1
    cpu_ms = 1000 * (time.process_time() - cpu_start) / (taken * plan.signals)
    return {
        "workers": workers,
        "frames": plan.frames,
        "batches_per_s": round(taken / elapsed, 3),
        "signals_per_s": round(taken * plan.signals / elapsed, 1),
        "bands_per_s": round(bands / elapsed, 1),
        **({} if workers else {"cpu_ms_per_signal": round(cpu_ms, 2)}),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fisher_train.measure loader",
        description="Measure the loader alone.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("data", type=Path, nargs="+", help="folders of recordings or shards")
    parser.add_argument("--preset", default="tiny", choices=list(PRESETS), help="shape of the encoder")
    parser.add_argument("--signals", type=int, default=24, help="signals of a batch")
    parser.add_argument("--frames", type=int, default=1024, help="frames of a window")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="numbers of worker processes")
    parser.add_argument("--seconds", type=float, default=20.0, help="time for each")
    parser.add_argument("--seed", type=int, default=0, help="seed of the batches")
    return parser
