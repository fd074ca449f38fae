"""What a coreset saves where many windows are enrolled: calibration, and each judgement, with and without it.

Run: python -m fisher_bench.coreset [--windows N ...]

Windows are random vectors around one direction, in takes that differ, in as many bands as a signal of 48 kHz has. What
a coreset costs in alarms is measured by `fisher_bench.lives` and `fisher_bench.quiet` with `--most`.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from fisher_bench.channel import KEY
from fisher_bench.speed.pairs import cpu_seconds
from fisher_edge.decision.coreset import MOST_WINDOWS
from fisher_edge.decision.evidence import Rates
from fisher_edge.decision.judge import Judge
from fisher_edge.dsp.grid import grid_of
from fisher_edge.dsp.measures import Measures
from fisher_edge.encoder.bundle import Bundle, load_bundle
from fisher_edge.encoder.windows import EmbeddedWindow
from fisher_edge.errors import FisherEdgeError, UsageError
from fisher_edge.store.baselines import Baseline, OperatingState, Take

__all__ = ["main"]

RATE_HZ = 48_000
WINDOW_S = 10.24
TAKES = 20
OWN, NOISE = 0.2, 0.3
JUDGEMENTS = 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m fisher_bench.coreset", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--windows", type=int, nargs="*", default=[1000, 10_000], help="enrolled windows")
    parser.add_argument("--bundle", default="default", help="bundle of the encoder")
    options = parser.parse_args(arguments)
    try:
        if min(options.windows, default=0) < 2 * TAKES:
            raise UsageError(f"--windows {options.windows}: give numbers of at least {2 * TAKES}")
        bundle = load_bundle(options.bundle)
    except FisherEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("| enrolled | compared with | calibration s | judgement ms | memory of the bank MB |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for count in options.windows:
        for most in (count, MOST_WINDOWS):
            print(_row(bundle, count, most), flush=True)
    return 0


def _row(bundle: Bundle, count: int, most: int) -> str:
    """Measure one bank with at most so many windows in the coreset."""
    rows = _vectors(bundle, count + JUDGEMENTS)
    baseline, judges = _baseline(bundle, rows[:count]), list[Judge]()
    calibration_s = cpu_seconds(
        lambda: judges.append(Judge([baseline], bundle.front_end, Rates(), baseline.grid.hop_s, most=most))
    )
    (judge,) = judges
    windows = list(_windows(rows[count:], baseline.grid.window_s))
    judge.judge(windows[0])
    judgement_s = statistics.median(cpu_seconds(partial(judge.judge, window)) for window in windows)
    core = len(judge.calibration.core)
    megabytes = 2 * core * rows[0].nbytes / 1e6  # vectors, and vectors by band
    return f"| {count} | {core} | {calibration_s:.1f} | {1000 * judgement_s:.2f} | {megabytes:.0f} |"


def _vectors(bundle: Bundle, count: int) -> np.ndarray:
    """Embeddings (count, bands, dim), take after take."""
    rng = np.random.default_rng(0)
    shape = (bundle.front_end.n_bands(RATE_HZ), bundle.dim)
    own = OWN * rng.standard_normal((TAKES, *shape))
    take = np.arange(count) * TAKES // count
    return np.asarray(rng.standard_normal(shape) + own[take] + NOISE * rng.standard_normal((count, *shape)), np.float32)


def _baseline(bundle: Bundle, vectors: np.ndarray) -> Baseline:
    """Enroll vectors as a normal state without views."""
    count, rng = len(vectors), np.random.default_rng(1)
    take = np.arange(count) * TAKES // count
    grid = grid_of(bundle.front_end, WINDOW_S, None, RATE_HZ)
    return Baseline(
        key=KEY,
        label=None,
        model_name=bundle.name,
        model_sha256=bundle.sha256,
        front_end=bundle.front_end,
        rate_hz=RATE_HZ,
        grid=grid,
        vectors=vectors,
        take=take.astype(np.int32),
        offset_s=(grid.window_s + grid.hop_s * (np.arange(count) - np.searchsorted(take, take))).astype(np.float64),
        level=0.01 * rng.standard_normal(count),
        takes=tuple(Take(f"take {number}") for number in range(TAKES)),
        states=(OperatingState("1", np.zeros(1), 0.0, 0.01),),
    )


def _windows(vectors: np.ndarray, window_s: float) -> Iterator[EmbeddedWindow]:
    """Windows with these embeddings and the level of those enrolled."""
    measures = Measures(100, 0.0, 100.0, 0.0, 300.0, -2.0, 3.0)
    for number, vector in enumerate(vectors):
        end_s = window_s * (number + 1)
        yield EmbeddedWindow(vector, (), measures, None, 0.1, RATE_HZ, 0, end_s, window_s, number)


if __name__ == "__main__":
    sys.exit(main())
