"""Finds the recordings of folders: sound files of any rate, arrays described by a `meta.csv`, and shards.

Start at `find`. Nothing but headers is read here.
"""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from fisher_edge.dsp.frontend import MAX_RATE_HZ, MIN_RATE_HZ
from fisher_edge.errors import BadInputError, FisherEdgeError
from fisher_train.recordings.recording import Recording, open_array, refusing
from fisher_train.recordings.shards import SHARD, recordings_of

__all__ = ["Bad", "Corpus", "find", "look"]

META = "meta.csv"
SOUND = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64", ".rf64"})
ARRAY = ".npy"


@dataclass(frozen=True)
class Bad:
    """A recording that cannot be used, and why."""

    path: Path
    reason: str
    """One line; names the channel where only one of several is meant."""


@dataclass(frozen=True, eq=False)
class Corpus:
    """Recordings in a fixed order, and the files that could not be used."""

    recordings: tuple[Recording, ...]
    bad: tuple[Bad, ...] = ()

    @property
    def seconds(self) -> float:
        """Length of all signals together."""
        return sum(recording.seconds for recording in self.recordings)


def find(inputs: Sequence[Path]) -> Corpus:
    """Find the recordings of files and folders, in an order that depends on the names alone.

    Raises BadInputError when there is no usable recording at all; files that cannot be used are listed in `bad`.
    """
    found = look(inputs)
    if not found.recordings:
        first = f"; the first of {len(found.bad)} unusable: {found.bad[0].reason}" if found.bad else ""
        raise BadInputError(
            f"no usable recording in {', '.join(map(str, inputs))}{first}; give folders of WAV, FLAC or other sound "
            f"files, of .npy with a {META}, or of shards"
        )
    return found


def look(inputs: Sequence[Path]) -> Corpus:
    """Find the recordings of files and folders, if there are any."""
    recordings: list[Recording] = []
    bad: list[Bad] = []
    for path, root in _files_of(inputs):
        found = _in_file(path, root)
        recordings += found.recordings
        bad += found.bad
    return Corpus(tuple(recordings), tuple(bad))


def _files_of(inputs: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield (file, root folder) of everything that may hold recordings: a `meta.csv` stands for its arrays."""
    for given in inputs:
        if given.is_file():
            yield given, given.parent
        elif given.is_dir():
            yield from ((path, given) for path in _walk(given))
        else:
            raise BadInputError(f"no file or folder at {given}; check the path")


def _in_file(path: Path, root: Path) -> Corpus:
    """Read what the headers say of one file, which lies below `root`."""
    try:
        if path.name == META:
            return _listed(path, root)
        if path.suffix.lower() == SHARD:
            return Corpus(tuple(recordings_of(path)))
        if path.suffix.lower() == ARRAY:
            raise BadInputError(f"{path} carries no sampling rate; list it in a {META} in the same folder")
        return Corpus(tuple(_channels_of_sound(path, root)))
    except FisherEdgeError as error:
        return Corpus((), (Bad(path, str(error)),))


def _walk(root: Path) -> Iterator[Path]:
    """Yield the files below a folder, sorted: sounds, shards, tables, and arrays that no table lists."""
    listed: set[Path] = set()
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(folder)
        if META in names:
            yield here / META
            listed |= _names_in(here / META)
        for name in sorted(names):
            suffix = Path(name).suffix.lower()
            known = suffix in SOUND or suffix == SHARD or (suffix == ARRAY and here / name not in listed)
            if known and not name.startswith("."):
                yield here / name


def _names_in(meta: Path) -> set[Path]:
    """Return the files that a table lists; a table that cannot be read lists none."""
    try:
        return {meta.parent / row.get("file", "") for row in _rows(meta)}
    except BadInputError:
        return set()


def _rows(meta: Path) -> list[dict[str, str]]:
    with refusing(meta), meta.open(newline="", encoding="utf-8") as file:
        try:
            return [{key: value or "" for key, value in row.items() if key} for row in csv.DictReader(file)]
        except csv.Error as error:
            raise ValueError(error) from error


def _listed(meta: Path, root: Path) -> Corpus:
    """Return the arrays of a table with the columns file, sample_rate_hz and, if there, scale and names."""
    rows = _rows(meta)
    lacking = {"file", "sample_rate_hz"} - (rows[0].keys() if rows else set())
    if lacking:
        raise BadInputError(f"{meta} lacks the column {', '.join(sorted(lacking))} or rows; correct the table")
    recordings: list[Recording] = []
    bad: list[Bad] = []
    for row in rows:
        path = meta.parent / row["file"]
        try:
            recordings += _channels_of_array(path, root, row)
        except FisherEdgeError as error:
            bad.append(Bad(path, str(error)))
    return Corpus(tuple(recordings), tuple(bad))


def _channels_of_array(path: Path, root: Path, row: dict[str, str]) -> Iterable[Recording]:
    """Return a recording for every column of an array that a table describes."""
    if not path.is_file():
        raise BadInputError(f"no file at {path}, which {META} lists; correct the table")
    try:
        rate_hz, scale = int(row["sample_rate_hz"]), float(row.get("scale") or 1.0)
    except ValueError as error:
        raise BadInputError(f"{path} has no numbers as its rate and scale in {META} ({error}); correct it") from error
    _check_rate(path, rate_hz)
    samples, channels = open_array(path).shape
    if samples == 0:
        raise BadInputError(f"{path} holds no samples; record it again")
    name = _name(path, root)
    unit = row.get("split_unit") or name
    dataset = row.get("dataset") or root.name
    return [
        Recording(name, dataset, unit, channel, rate_hz, samples, scale, path, "array", label=row.get("channel", ""))
        for channel in range(channels)
    ]


def _channels_of_sound(path: Path, root: Path) -> Iterable[Recording]:
    with refusing(path), soundfile.SoundFile(path) as sound:
        rate_hz, samples, channels = int(sound.samplerate), int(sound.frames), int(sound.channels)
    _check_rate(path, rate_hz)
    if samples == 0:
        raise BadInputError(f"{path} holds no samples; record it again")
    name = _name(path, root)
    return [
        Recording(name, root.name, name, channel, rate_hz, samples, 1.0, path, "sound") for channel in range(channels)
    ]


def _name(path: Path, root: Path) -> str:
    """Return the name of a recording: the path of its file relative to the folder that was given."""
    return (Path(root.resolve().name) / path.relative_to(root)).as_posix()


def _check_rate(path: Path, rate_hz: int) -> None:
    """Refuse a rate that no front-end can hear."""
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise BadInputError(
            f"{path} has a rate of {rate_hz} Hz, outside {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz; correct the rate or leave "
            "it out"
        )
