"""The processes of a run: one, or many under `torchrun` (DistributedDataParallel).

Start at `join`. Nothing here averages gradients: that is DistributedDataParallel's work, in `wrap`.
"""

import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from fisher_edge.errors import UsageError

__all__ = ["World", "join", "local_gradients", "wrap"]


@dataclass(frozen=True)
class World:
    """The processes of a run and this one's place among them."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    grouped: bool = False
    """Whether the processes are joined in a process group."""

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def agree(self, value: float) -> float:
        """Return the first process's value in every process."""
        if not self.grouped:
            return value
        box = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(box, src=0)
        return float(box)

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Average values over processes; every process must give the same names."""
        if not self.grouped or not values:
            return dict(values)
        names = sorted(values)
        box = torch.tensor([values[name] for name in names], dtype=torch.float64, device=self.device)
        distributed.all_reduce(box)
        return dict(zip(names, (box / self.size).tolist(), strict=True))

    def share(self, n: int, what: str) -> slice:
        """Return this process's equal part of `n` rows; raises UsageError when they cannot be divided."""
        if n % self.size:
            raise UsageError(
                f"{n} {what} cannot be divided among {self.size} processes; give a --batch of which they can"
            )
        part = n // self.size
        return slice(self.rank * part, (self.rank + 1) * part)


@contextmanager
def join(device: str = "auto", backend: str = "auto") -> Iterator[World]:
    """Join the processes that `torchrun` started; without it there is one.

    `device` is auto, cpu or cuda; `backend` auto (NCCL on GPUs, else Gloo), nccl or gloo. Raises UsageError when
    a GPU is asked for that is not there.
    """
    chosen = _device(device)
    if backend == "nccl" and chosen.type != "cuda":
        raise UsageError("the backend nccl needs CUDA, which is not there; leave --distributed-backend out")
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield World(device=chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    automatic = "nccl" if chosen.type == "cuda" else "gloo"
    distributed.init_process_group(automatic if backend == "auto" else backend)
    yield World(distributed.get_rank(), distributed.get_world_size(), chosen, grouped=True)
    distributed.destroy_process_group()  # not after an error: the others may be waiting for what never comes


def wrap(module: nn.Module, world: World) -> nn.Module:
    """Return the module whose gradients are averaged over the processes."""
    if not world.grouped:
        return module
    # Buffers need no broadcast: positions are fixed, batch norm sees the whole batch in every process.
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # renamed in torch 2.13
    without: dict[str, Any] = {name: False}
    return DistributedDataParallel(module, **without)


def local_gradients(model: nn.Module) -> AbstractContextManager[None]:
    """Hold back the averaging of gradients while parts of a batch are accumulated."""
    if isinstance(model, DistributedDataParallel):
        context: AbstractContextManager[None] = model.no_sync()
        return context
    return nullcontext()


def _device(name: str) -> torch.device:
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise UsageError("cuda was asked for and no CUDA device is there; use --device cpu")
    if name == "cpu" or not there:
        return torch.device("cpu")
    local, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= count:
        raise UsageError(f"process {local} of this node has no GPU of its own ({count} are there); start fewer")
    return torch.device("cuda", local)
