"""Embed a prepared set with one model, from where the last run stopped. Start at `embed_set`.

The result is what `rmis score` reads: `files.csv` and `embeddings.npy` in the same order, and `embed.json`, which
names the model that made them.
"""

import csv
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fisher_bench.rmis.adapters import Adapter, open_adapter
from fisher_bench.rmis.catalogue import RmisSet
from fisher_bench.rmis.embed.cache import EmbeddingCache, segment_key
from fisher_bench.rmis.embed.local import Clip, Embedded, in_processes, one_thread
from fisher_bench.rmis.index import FILES_OF, Index, Segment, read_index
from fisher_bench.rmis.scoring.files import COLUMNS
from fisher_edge.errors import BadInputError

__all__ = ["EMBEDDINGS_NAME", "FACTS_NAME", "FILES_NAME", "Facts", "embed_set", "read_facts"]

FILES_NAME, EMBEDDINGS_NAME, FACTS_NAME = "files.csv", "embeddings.npy", "embed.json"
KEPT_EVERY_S = 2.0
"""Seconds of work that a killed process may lose."""


@dataclass(frozen=True)
class Facts:
    """What `embed.json` holds."""

    set_name: str
    model: str
    spec: str
    digest: str
    parameters: int
    window_s: float
    clips: int
    dim: int
    signal_s: float
    """Seconds of all clips of the set."""
    new_clips: int
    new_signal_s: float
    """Embedded in this run; the rest was in the cache."""
    new_cpu_s: float
    elapsed_s: float
    cpu_ms_per_signal_s: float
    """Over all runs with this cache, one thread; 0: nothing was ever measured."""

    @property
    def hours_per_hour(self) -> float:
        """Throughput of this run: hours of signal an hour."""
        return self.new_signal_s / self.elapsed_s if self.elapsed_s else 0.0


def embed_set(
    known: RmisSet,
    folder: Path,
    spec: str,
    out: Path,
    *,
    cache: Path,
    workers: int = 1,
    ray: str = "",
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> Facts:
    """Embed every segment of the index of a folder; what the cache holds is not computed again.

    `ray` is the address of a cluster, or "local". Raises BadInputError after all others are done when segments
    cannot be embedded.
    """
    one_thread()
    adapter = open_adapter(spec)
    index = read_index(folder)
    if not index.segments:
        raise BadInputError(f"the index of {folder} lists no segment; prepare the set again")
    try:
        with EmbeddingCache(cache, adapter.digest, known.window_s) as kept:
            facts = _embed(known, folder, index, adapter, spec, out, kept, workers, ray, report)
        _write_text(out / FACTS_NAME, json.dumps(asdict(facts), indent=1) + "\n")
    except (OSError, sqlite3.Error) as error:
        raise BadInputError(
            f"cannot write {cache} or {out} ({error}); make room, or give another place: the same command continues"
        ) from None
    return facts


def read_facts(folder: Path) -> Facts:
    """Read what `embed_set` wrote about a folder. Raises BadInputError when it is not there or damaged."""
    path = folder / FACTS_NAME
    try:
        return Facts(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise BadInputError(f"{path} does not tell what was embedded ({error}); run: fisher-edge rmis embed") from None


def _embed(
    known: RmisSet, folder: Path, index: Index, adapter: Adapter, spec: str, out: Path,
    kept: EmbeddingCache, workers: int, ray: str, report: Callable[[int, int], None],
) -> Facts:  # fmt: skip
    """Embed what the cache lacks and write the result."""
    started = time.monotonic()
    segments = index.segments
    owner = str(index.facts.get(FILES_OF, known.name))
    paths = [folder / segment.path for segment in segments]
    keys = [segment_key(owner, segment.file, path) for segment, path in zip(segments, paths, strict=True)]
    present = kept.known(keys)
    clips = [
        Clip(key, path, segment.rate_hz)
        for key, path, segment in zip(keys, paths, segments, strict=True)
        if key not in present
    ]
    source = _source(clips, spec, known.window_s, workers, ray)
    new_cpu_s, new_signal_s = _keep(kept, source, lambda done: report(len(keys) - len(clips) + done, len(keys)))
    elapsed_s = time.monotonic() - started
    cpu_s, measured_s = kept.spent()
    return Facts(
        set_name=known.name,
        model=adapter.name,
        spec=spec,
        digest=adapter.digest,
        parameters=adapter.parameters,
        window_s=known.window_s,
        clips=len(keys),
        dim=_write(out, known, segments, keys, kept),
        signal_s=sum(segment.samples / segment.rate_hz for segment in segments),
        new_clips=len(clips),
        new_signal_s=new_signal_s,
        new_cpu_s=new_cpu_s,
        elapsed_s=elapsed_s,
        cpu_ms_per_signal_s=1000 * cpu_s / measured_s if measured_s else 0.0,
    )


def _source(clips: Sequence[Clip], spec: str, window_s: float, workers: int, ray: str) -> Iterable[Embedded]:
    if not clips:
        return ()
    if not ray:
        return in_processes(clips, spec, window_s, workers)
    from fisher_bench.rmis.embed.cluster import on_ray  # noqa: PLC0415 -- an extra of its own

    return on_ray(clips, spec, window_s, workers, ray)


def _keep(kept: EmbeddingCache, source: Iterable[Embedded], report: Callable[[int], None]) -> tuple[float, float]:
    """Put embeddings into the cache as they come; return CPU seconds and seconds of signal."""
    batch: list[Embedded] = []
    refused: list[str] = []
    totals = np.zeros(2)
    written = time.monotonic()
    for count, done in enumerate(source, start=1):
        if done.vector is None:
            refused.append(done.error)
        batch.append(done)
        if time.monotonic() - written >= KEPT_EVERY_S:
            totals += _flush(kept, batch)
            batch, written = [], time.monotonic()
        report(count)
    totals += _flush(kept, batch)
    if refused:
        raise BadInputError(f"{len(refused)} clips cannot be embedded (the others are kept); the first: {refused[0]}")
    return float(totals[0]), float(totals[1])


def _flush(kept: EmbeddingCache, batch: Sequence[Embedded]) -> tuple[float, float]:
    cpu_s, signal_s = sum(done.cpu_s for done in batch), sum(done.signal_s for done in batch)
    if batch:
        kept.add(((done.key, done.vector) for done in batch if done.vector is not None), cpu_s, signal_s)
    return cpu_s, signal_s


def _write(out: Path, known: RmisSet, segments: Sequence[Segment], keys: Sequence[str], kept: EmbeddingCache) -> int:
    """Write both files row by row, so that memory stays flat; return the width of an embedding."""
    out.mkdir(parents=True, exist_ok=True)
    dim = len(kept.vector(keys[0]))
    beside = out / f".{EMBEDDINGS_NAME}.new"
    with beside.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (len(keys), dim)})
        for segment, key in zip(segments, keys, strict=True):
            vector = kept.vector(key)
            if len(vector) != dim:
                raise BadInputError(
                    f"{segment.file} gives {len(vector)} numbers, others {dim}: its rate of {segment.rate_hz} Hz "
                    "differs from theirs; bring the set to one rate"
                )
            file.write(vector.astype("<f4").tobytes())
    beside.replace(out / EMBEDDINGS_NAME)
    with (out / f".{FILES_NAME}.new").open("w", newline="", encoding="utf-8") as table:
        rows = csv.writer(table)
        names = COLUMNS[known.split]
        rows.writerow(names)
        rows.writerows([_value(segment, name) for name in names] for segment in segments)
    (out / f".{FILES_NAME}.new").replace(out / FILES_NAME)
    return dim


def _value(segment: Segment, name: str) -> Any:
    return segment.key if name == "recording" else getattr(segment, name)


def _write_text(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
