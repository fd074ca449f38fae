"""The index of a prepared set: a Parquet table with one row a segment, and what the set as a whole was made of.

Start at `read_index`. `prepare` writes it, `embed` reads it.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fisher_edge.errors import BadInputError

__all__ = ["FILES_OF", "INDEX_NAME", "Index", "Segment", "read_index", "write_index"]

INDEX_NAME = "index.parquet"
FACTS = b"fisher-edge/rmis"
# Fact of a set that asks another question about the files of another one: the name of that set, with which it shares
# embeddings.
FILES_OF = "files_of"


@dataclass(frozen=True, slots=True)
class Segment:
    """One audio file to embed, and what is known about it. Fields a set has no use for stay empty."""

    file: str
    """Name that orders and identifies it, with forward slashes; rows are sorted by it."""
    path: str
    """Where the samples lie: relative to the folder of the index, or absolute."""
    modality: str
    rate_hz: int
    samples: int
    label: str = ""
    """Class, as the benchmark spells it (diagnosis)."""
    class_id: int = -1
    key: str = ""
    """What a sealed split keeps on one side."""
    source: str = ""
    """The publisher's file, relative to the folder that was prepared."""
    channel: int = 0
    """Channel within the source, counted from 1; 0: the source has only one."""
    start_sample: int = 0
    segment: int = 0
    """Number within its recording and channel, from 0."""
    condition: str = ""
    """Operating condition (speed, load), where the name tells it."""
    subset: str = ""
    """DCASE: dev or eval."""
    machine: str = ""
    section: str = ""
    split: str = ""
    """Official splits: train or test."""
    domain: str = ""
    """DCASE: source or target."""
    anomalous: int = 0
    attributes: str = ""


@dataclass(frozen=True)
class Index:
    """A prepared set: its segments and facts about the whole (set name, peak, skipped files with reasons)."""

    segments: tuple[Segment, ...]
    facts: dict[str, Any]


def write_index(folder: Path, index: Index) -> Path:
    """Write the index of a folder at once (never seen half-written), rows sorted by file; return its path."""
    rows = [asdict(segment) for segment in sorted(index.segments, key=lambda segment: segment.file)]
    table = pa.Table.from_pylist(rows, schema=_schema({FACTS: json.dumps(index.facts).encode()}))
    path = folder / INDEX_NAME
    beside = path.with_suffix(".new")
    pq.write_table(table, beside)
    beside.replace(path)
    return path


def read_index(folder: Path) -> Index:
    """Read the index of a prepared folder. Raises BadInputError when there is none or it is damaged."""
    path = folder / INDEX_NAME
    if not path.is_file():
        raise BadInputError(f"{path} is not there; make it with: fisher-edge rmis prepare NAME RAW_DIR --out {folder}")
    try:
        with pq.ParquetFile(path) as table:
            facts = json.loads((table.schema_arrow.metadata or {})[FACTS])
            segments = tuple(Segment(**row) for batch in table.iter_batches() for row in batch.to_pylist())
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise BadInputError(
            f"{path} is not an index of this version ({str(error).splitlines()[0]:.100}); prepare the set again"
        ) from None
    return Index(segments, facts)


def _schema(metadata: dict[bytes, bytes]) -> pa.Schema:
    return pa.schema(
        [(item.name, pa.int64() if item.type is int else pa.string()) for item in fields(Segment)], metadata=metadata
    )
