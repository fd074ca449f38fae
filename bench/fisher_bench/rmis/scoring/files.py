"""The two files that are scored: a CSV with one row a file, and their embeddings in the same order.

Start at `read_scored`.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fisher_bench.rmis.catalogue import RmisSet
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.errors import BadInputError

__all__ = ["COLUMNS", "Scored", "read_scored"]

COLUMNS = {
    "anomaly": ("file", "subset", "machine", "split", "section", "domain", "anomalous"),
    "official": ("file", "split", "label"),
    "sealed": ("file", "recording", "label"),
}
"""Columns the CSV of a set must have, by its kind of split; more are allowed."""
ALLOWED = {
    "subset": {"dev", "eval"},
    "split": {"train", "test"},
    "domain": {"source", "target"},
    "anomalous": {"0", "1"},
}


@dataclass(frozen=True, eq=False)
class Scored:
    """What is scored: columns of strings (n,) and embeddings (n, dim), float32, of length one."""

    columns: dict[str, npt.NDArray[np.str_]]
    embeddings: FloatArray

    def __len__(self) -> int:
        return len(self.embeddings)


def read_scored(known: RmisSet, files: Path, embeddings: Path) -> Scored:
    """Read and check the files of a set. Raises BadInputError with one line that says what does not fit."""
    columns = _read_columns(known, files)
    vectors = _read_embeddings(embeddings)
    count = len(columns["file"])
    if len(vectors) != count:
        raise BadInputError(
            f"{files} lists {count} files and {embeddings} holds {len(vectors)} embeddings; give one of each a file"
        )
    return Scored(columns, vectors)


def _read_columns(known: RmisSet, path: Path) -> dict[str, npt.NDArray[np.str_]]:
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle)
            lacking = [name for name in COLUMNS[known.split] if name not in (reader.fieldnames or ())]
            rows = list(reader) if not lacking else []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"{path} cannot be read as CSV ({error}); check the file") from None
    if lacking or not rows:
        raise BadInputError(
            f"{path} {'lacks the column ' + ', '.join(lacking) if lacking else 'lists no file'}; "
            f"a {known.name} needs a header with {', '.join(COLUMNS[known.split])}"
        )
    for number, row in enumerate(rows, start=2):
        _check_row(known, path, number, row)
    return {name: np.asarray([row[name] for row in rows]) for name in COLUMNS[known.split]}


def _check_row(known: RmisSet, path: Path, number: int, row: dict[str, str]) -> None:
    for name in COLUMNS[known.split]:
        value = row[name]
        if not value:
            raise BadInputError(f"{path}, line {number}: {name} is empty; complete the row")
        if value not in ALLOWED.get(name, {value}):
            raise BadInputError(
                f"{path}, line {number}: {name}={value!r} is not one of {', '.join(sorted(ALLOWED[name]))}"
            )
    if "label" in row and row["label"] not in known.classes:
        raise BadInputError(
            f"{path}, line {number}: label={row['label']!r} is no class of {known.name}; "
            f"its classes are {', '.join(known.classes)}"
        )


def _read_embeddings(path: Path) -> FloatArray:
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInputError(f"{path} is not a .npy file ({error}); save the embeddings with numpy.save") from None
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.shape[1]:
        raise BadInputError(f"{path} holds no table of floats (files, dimensions); save one row a file")
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise BadInputError(f"{path}: {len(bad)} rows are not finite, the first is {bad[0]}; embed those files again")
    vectors = vectors.astype(np.float32, copy=False)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    unit: FloatArray = vectors.astype(np.float32, copy=False)
    return unit
