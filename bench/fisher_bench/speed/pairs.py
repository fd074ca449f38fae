"""Ratios of CPU time that hold on a busy machine: two things run in turn, in one process, and the median of pairs."""

import statistics
import time
from collections.abc import Callable

__all__ = ["cpu_ratio", "cpu_seconds"]


def cpu_ratio(reference: Callable[[], object], ours: Callable[[], object], *, pairs: int = 9) -> float:
    """Return how many times the CPU time of `ours` the `reference` takes; both run once before, to warm up."""
    reference()
    ours()
    return statistics.median(cpu_seconds(reference) / cpu_seconds(ours) for _ in range(pairs))


def cpu_seconds(call: Callable[[], object]) -> float:
    """CPU seconds of this process, all its threads, during one call."""
    start = time.process_time()
    call()
    return time.process_time() - start
