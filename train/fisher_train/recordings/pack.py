"""Packs folders of recordings into shards; killed at any moment, the same command continues.

Start at `pack`. A shard is written under a hidden name and renamed when it is complete, so that what has the name of a
shard is whole; the pieces it holds are found by reading it, and no journal can disagree with it.
"""

import csv
import fcntl
import io
import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fisher_edge.errors import BadInputError, FisherEdgeError, UsageError
from fisher_train.recordings.find import Bad, Corpus, look
from fisher_train.recordings.pieces import Piece, pieces
from fisher_train.recordings.recording import Recording
from fisher_train.recordings.shards import INDEX, SHARD, facts_of, keys_of, recordings_of
from fisher_train.recordings.writer import PART, ShardWriter, replace_file

__all__ = ["BAD", "Progress", "pack", "summary"]

BAD = "bad.csv"
SETTINGS = "pack.json"
LOCK = ".lock"
SOURCE_BYTES = "source_bytes"


@dataclass
class Progress:
    """How far a packing has come."""

    total_s: float
    """Seconds of all signals found."""
    done_s: float = 0.0
    bad: list[Bad] = field(default_factory=list)


def pack(inputs: Sequence[Path], out: Path, *, shard_bytes: int, segment_s: float = 60.0) -> Iterator[Progress]:
    """Write the recordings of `inputs` as shards of about `shard_bytes` into `out`; yield before and after every file.

    Shards among the inputs are passed over. When it ends, `index.json` lists all pieces and `bad.csv` all that was left
    out, with the reason. Raises BadInputError when nothing is usable or a packed file has changed since, UsageError
    when `out` cannot be used or was packed with another `segment_s`.
    """
    if shard_bytes < 1 or not 1 <= segment_s < math.inf:
        raise UsageError(f"shards of {shard_bytes} bytes, pieces of {segment_s:g} s: give at least 1 byte and 1 s")
    with _locked(out):
        _same_settings(out, {"segment_s": segment_s})
        found = _originals(look(inputs))
        done = _packed(out, found)
        progress = Progress(found.seconds, bad=list(found.bad))
        yield progress
        writer = ShardWriter(out, shard_bytes)
        for _, group in itertools.groupby(found.recordings, lambda one: one.path):
            channels = list(group)
            progress.bad += _pack_file(writer, channels, segment_s, done)
            progress.done_s += sum(one.seconds for one in channels)
            yield progress
        writer.close()
        _write_bad(out / BAD, progress.bad)
        _write_index(out)
        _refuse_nothing(out, progress.bad)


def summary(recordings: Sequence[Recording]) -> dict[str, Any]:
    """Count recordings, pieces and seconds, in all and for each rate (Hz) and dataset."""
    by_rate: dict[int, float] = defaultdict(float)
    by_dataset: dict[str, float] = defaultdict(float)
    for one in recordings:
        by_rate[one.rate_hz] += one.seconds
        by_dataset[one.dataset] += one.seconds
    return {
        "recordings": len({(one.name, one.label) for one in recordings}),
        "pieces": len(recordings),
        "seconds": round(sum(by_rate.values()), 3),
        "seconds_by_rate_hz": {str(rate): round(by_rate[rate], 3) for rate in sorted(by_rate)},
        "seconds_by_dataset": {name: round(by_dataset[name], 3) for name in sorted(by_dataset)},
    }


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Make the folder and keep a second packing off it; what a killed one left half written is removed."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with (out / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for part in out.glob(f".*{PART}"):
                part.unlink()
            yield
    except BlockingIOError as error:
        raise UsageError(f"{out} is being packed by another process; wait for it or choose another --out") from error
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UsageError(f"{out} cannot be used as a folder ({error.strerror}); choose another --out") from error
    except OSError as error:
        raise BadInputError(
            f"{error.filename or out} cannot be read or written ({error.strerror or error}); correct that and run "
            "the same command, which continues"
        ) from error


def _same_settings(out: Path, wanted: dict[str, Any]) -> None:
    """Refuse to continue with pieces of another length: the same samples would be packed twice."""
    path = out / SETTINGS
    if not path.exists():
        if any(out.glob(f"*{SHARD}")):
            raise UsageError(f"{out} holds shards of another origin; choose another --out")
        replace_file(path, json.dumps(wanted) + "\n")
    elif (found := path.read_text("utf-8").strip()) != json.dumps(wanted):
        raise UsageError(f"{out} was packed with {found}, not {json.dumps(wanted)}; choose another --out")


def _originals(found: Corpus) -> Corpus:
    """Leave out what is in shards already; refuse two recordings of one name."""
    recordings = tuple(one for one in found.recordings if not one.size)
    paths: dict[str, Path] = {}
    for one in recordings:
        if paths.setdefault(one.name, one.path) != one.path:
            raise BadInputError(
                f"{paths[one.name]} and {one.path} would both be called {one.name}; give one folder that holds both"
            )
    return Corpus(recordings, found.bad)


def _packed(out: Path, found: Corpus) -> set[str]:
    """Return the keys of all pieces in the shards of a folder; refuse files that have changed since."""
    sizes = {one.name: (one.path, one.path.stat().st_size) for one in found.recordings}
    done: set[str] = set()
    for shard in sorted(out.glob(f"*{SHARD}")):
        for key, facts in keys_of(shard).items():
            path, now = sizes.get(facts["name"], (None, None))
            if path and facts[SOURCE_BYTES] != now:
                raise BadInputError(
                    f"{path} had {facts[SOURCE_BYTES]} bytes when it was packed into {shard} and has {now} now; "
                    "choose another --out"
                )
            done.add(key)
    return done


def _pack_file(writer: ShardWriter, channels: list[Recording], segment_s: float, done: set[str]) -> list[Bad]:
    """Write the pieces of one file that are not in a shard yet; return those that are of no use."""
    bad: list[Bad] = []
    path = channels[0].path
    try:
        for piece in pieces(channels, segment_s, done):
            if piece.fault:
                bad.append(Bad(path, f"{path}{_where(piece, channels)}: {piece.fault}"))
            else:
                facts = facts_of(piece.recording) | {SOURCE_BYTES: path.stat().st_size}
                writer.add(piece.key, {"json": json.dumps(facts).encode(), piece.kind: piece.payload})
    except FisherEdgeError as error:
        bad.append(Bad(path, str(error)))
    return bad


def _where(piece: Piece, channels: list[Recording]) -> str:
    """Say which part of a file a piece is, where it is not all of it."""
    part = piece.recording
    where = f", channel {part.label}" if len(channels) > 1 else ""
    if part.samples != channels[0].samples:
        where += f", {part.first / part.rate_hz:.3f} to {(part.first + part.samples) / part.rate_hz:.3f} s"
    return where


def _write_bad(path: Path, bad: Sequence[Bad]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "reason"])
    table.writerows([(str(one.path), one.reason) for one in bad])
    replace_file(path, text.getvalue())


def _write_index(out: Path) -> None:
    """Write the index of all shards, so that their members need not be read to find it."""
    shards = [(path, recordings_of(path)) for path in sorted(out.glob(f"*{SHARD}"))]
    rows = [
        {
            "name": path.name,
            "bytes": path.stat().st_size,
            "recordings": [facts_of(one) | {"offset": one.offset, "size": one.size} for one in recordings],
        }
        for path, recordings in shards
    ]
    counts = summary([one for _, recordings in shards for one in recordings])
    replace_file(out / INDEX, json.dumps({"summary": counts, "shards": rows}) + "\n")


def _refuse_nothing(out: Path, bad: Sequence[Bad]) -> None:
    """Raise BadInputError when no shard was written."""
    if not any(out.glob(f"*{SHARD}")):
        first = f"; the first of {len(bad)} is {bad[0].reason}" if bad else ""
        raise BadInputError(f"nothing to pack: no usable recording{first}; all reasons are in {out / BAD}")
