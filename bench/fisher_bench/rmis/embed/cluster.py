"""Embed clips on a Ray cluster (or on this machine's Ray). Start at `on_ray`.

Every node must see the prepared folder under the same path.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray

from fisher_bench.rmis.adapters import open_adapter
from fisher_bench.rmis.embed.local import Clip, Embedded, embed_one

__all__ = ["on_ray"]

BATCH = 16


def on_ray(clips: Sequence[Clip], spec: str, window_s: float, workers: int, address: str) -> Iterator[Embedded]:
    """Embed clips with `workers` actors; `address` is that of the cluster, "local" starts one here."""
    ray.init(address=None if address == "local" else address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        rows = [{"key": clip.key, "path": str(clip.path), "rate_hz": clip.rate_hz} for clip in clips]
        batches = ray.data.from_items(rows, override_num_blocks=max(1, len(rows) // BATCH)).map_batches(
            Embedder, fn_constructor_args=(spec, window_s), batch_size=BATCH, concurrency=workers
        )
        for row in batches.iter_rows():
            vector = np.asarray(row["vector"], np.float32)
            yield Embedded(row["key"], vector if vector.size else None, row["error"], row["cpu_s"], row["signal_s"])
    finally:
        ray.shutdown()


class Embedder:
    """An actor that holds the encoder."""

    def __init__(self, spec: str, window_s: float) -> None:
        self._adapter = open_adapter(spec)
        self._window_s = window_s

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Embed a batch of rows."""
        columns: dict[str, list[Any]] = {name: [] for name in ("key", "vector", "error", "cpu_s", "signal_s")}
        for key, path, rate_hz in zip(batch["key"], batch["path"], batch["rate_hz"], strict=True):
            done = embed_one(self._adapter, Clip(str(key), Path(str(path)), int(rate_hz)), self._window_s)
            values = (
                done.key,
                [] if done.vector is None else done.vector.tolist(),
                done.error,
                done.cpu_s,
                done.signal_s,
            )
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
        return columns
