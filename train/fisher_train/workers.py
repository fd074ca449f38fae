"""Processes that make batches during training: of low priority; they end with the process that trains.

Start at `in_workers`.
"""

import os
import threading
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, IterableDataset

from fisher_train.parent import end_with_parent

__all__ = ["in_workers"]

NICE = 10

_T = TypeVar("_T")


def in_workers(items: IterableDataset[_T], count: int, *, prefetch: int) -> DataLoader[_T]:
    """Make the items of a dataset in other processes, each ahead by so many items, in their order."""
    return DataLoader(
        items,
        batch_size=None,
        num_workers=count,
        prefetch_factor=prefetch,
        multiprocessing_context="forkserver",  # a spawned worker may abort in torch's threads when it exits
        worker_init_fn=_start,
    )


def _start(_worker: int) -> None:
    os.nice(NICE)
    torch.set_num_threads(1)
    threading.Thread(target=end_with_parent, daemon=True).start()
