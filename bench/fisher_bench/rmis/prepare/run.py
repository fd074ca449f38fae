"""Prepare one set: find, check, measure the peak, cut, write the index. Start at `prepare_set`."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import numpy as np
import soundfile

from fisher_bench.rmis.catalogue import RmisSet, find
from fisher_bench.rmis.index import Index, Segment, write_index
from fisher_bench.rmis.prepare.cut import write_segments
from fisher_bench.rmis.prepare.dcase import find_clips, lacking_machines, segment_of
from fisher_bench.rmis.prepare.expected import KNOWN_BROKEN, lacking
from fisher_bench.rmis.prepare.journal import Journal, open_journal
from fisher_bench.rmis.prepare.layouts import find_sources
from fisher_bench.rmis.prepare.read import read_channels
from fisher_bench.rmis.prepare.source import DamagedError, Source
from fisher_edge.errors import BadInputError, UsageError
from fisher_train.parent import end_with_parent

__all__ = ["prepare_set"]

UNSCALED = ("idmt_air",)
AHEAD = 2
"""Sources handed to each process before the first is back."""
BROKEN = "is the file that was published damaged; its key keeps the other repetitions, so that the splits do not change"

Report = Callable[[str, int, int], None]
_Done = TypeVar("_Done")


def prepare_set(
    name: str,
    raw_dir: Path,
    out_dir: Path,
    *,
    workers: int = 1,
    allow_incomplete: bool = False,
    report: Report = lambda _stage, _done, _total: None,
) -> Index:
    """Turn a publisher's files below `raw_dir` into segments and an index in `out_dir`, and return the index.

    Raises BadInputError, in one line, for what is missing or damaged, unless `allow_incomplete`; then the index
    lists it. Results of an earlier run into the same folder are reused.
    """
    known = find(name)
    if not raw_dir.is_dir():
        raise BadInputError(f"{raw_dir} is not a folder; get {known.title} from {known.get}")
    if out_dir.resolve().is_relative_to(raw_dir.resolve()):
        raise UsageError(f"--out {out_dir} lies in the folder of the originals; give one outside of it")
    try:
        journal = open_journal(out_dir, name)
    except OSError as error:
        raise BadInputError(f"cannot write into {out_dir} ({error.strerror}); choose another --out") from None
    try:
        if known.detects or known.split == "official":
            segments, facts = _as_published(known, raw_dir, allow_incomplete, report)
        else:
            segments, facts = _cut_all(known, raw_dir, out_dir, journal, workers, allow_incomplete, report)
    finally:
        journal.close()
    about = {"name": name, "title": known.title, "get": known.get, "licence": known.licence}
    index = Index(tuple(sorted(segments, key=lambda segment: segment.file)), about | facts)
    write_index(out_dir, index)
    return index


def _as_published(
    known: RmisSet, raw_dir: Path, allow_incomplete: bool, report: Report
) -> tuple[list[Segment], dict[str, Any]]:
    """Index clips that are used where they lie: the DCASE sets and the one with an official split."""
    segments: list[Segment] = []
    skipped: list[dict[str, str]] = []
    if known.detects:
        clips = find_clips(known, raw_dir)
        items: Iterable[tuple[str, Callable[[], Segment]]] = [
            (clip.file, partial(segment_of, known, clip)) for clip in clips
        ]
    else:
        sources, strange = find_sources(known.name, raw_dir)
        items = [(source.file, partial(_published_segment, known, source)) for source in sources]
        skipped = [{"file": file, "reason": "its name does not fit the layout"} for file in strange]
    items = list(items)
    damaged = set()
    for done, (file, describe) in enumerate(items, start=1):
        try:
            segments.append(describe())
        except DamagedError as error:
            damaged.add(file)
            skipped.append({"file": file, "reason": str(error)})
        report("reading headers", done, len(items))
    if known.detects:
        missing = lacking_machines(known, [clip for clip in clips if clip.file not in damaged])
    else:
        missing = lacking(known, [source for source in sources if source.file not in damaged])
    _check_complete(known, raw_dir, missing, skipped, allow_incomplete)
    return segments, {"skipped": skipped, "incomplete": missing, "sources": len(segments)}


def _cut_all(
    known: RmisSet, raw_dir: Path, out: Path, journal: Journal, workers: int, allow_incomplete: bool, report: Report
) -> tuple[list[Segment], dict[str, Any]]:
    """Find the one peak of the set, then cut every recording."""
    sources, strange = find_sources(known.name, raw_dir)
    _check_names(sources)
    _check_complete(known, raw_dir, lacking(known, sources), [], allow_incomplete)
    skipped = [{"file": file, "reason": "its name does not fit the layout"} for file in strange]
    damaged: dict[str, str] = {}
    scale, peak = 1.0, None
    if known.name not in UNSCALED:
        peak = _peak(known, sources, journal, workers, damaged, report)
        scale = max(1.0, peak)
    whole = [source for source in sources if source.file not in damaged]
    segments = _segments(known, whole, out, journal, workers, scale, damaged, report)
    bad = [source for source in sources if source.file in damaged]
    for source in bad:
        reason = f"{damaged[source.file]}; it {BROKEN}" if source.path.stem == KNOWN_BROKEN else damaged[source.file]
        skipped.append({"file": source.file, "reason": reason})
    missing = lacking(known, sources, bad)
    _check_complete(known, raw_dir, missing, skipped, allow_incomplete)
    facts = {"peak": peak, "scale": scale, "skipped": skipped, "incomplete": missing}
    return segments, facts | {"sources": len(sources) - len(bad)}


def _check_names(sources: Sequence[Source]) -> None:
    """Refuse two files that would become one segment, such as a set that was unpacked twice."""
    owners: dict[str, str] = {}
    for source in sources:
        for channel in source.channels:
            other = owners.setdefault(channel.name, source.file)
            if other != source.file:
                raise BadInputError(f"{other} and {source.file} are the same recording by name; remove one of them")


def _check_complete(
    known: RmisSet, raw_dir: Path, missing: str, skipped: Sequence[dict[str, str]], allow_incomplete: bool
) -> None:
    if missing and not allow_incomplete:
        damaged = [f"{item['file']} {item['reason']}" for item in skipped]
        first = f"; {len(damaged)} left out, the first: {damaged[0]}" if damaged else ""
        raise BadInputError(
            f"{raw_dir} is not all of {known.title}: {missing}{first}. Get it from {known.get}, or go on without: "
            "--allow-incomplete"
        )


def _peak(
    known: RmisSet, sources: Sequence[Source], journal: Journal, workers: int, damaged: dict[str, str], report: Report
) -> float:
    """Largest magnitude of all used channels of all recordings; files that cannot be read are put into `damaged`."""
    peaks = {source: peak for source in sources if (peak := journal.peak(source)) is not None}
    left = [source for source in sources if source not in peaks]
    for source, found in _over(left, partial(_measure, known), workers):
        if isinstance(found, str):
            damaged[source.file] = found
        else:
            journal.measured(source, found)
            peaks[source] = found
        report("measuring the peak", len(peaks) + len(damaged), len(sources))
    return max(peaks.values(), default=0.0)


def _segments(
    known: RmisSet, sources: Sequence[Source], out: Path, journal: Journal, workers: int, scale: float,
    damaged: dict[str, str], report: Report,
) -> list[Segment]:  # fmt: skip
    """Write all segments that are not written yet; files that cannot be read are put into `damaged`."""
    segments: list[Segment] = []
    left = []
    for source in sources:
        written = journal.segments(source, scale)
        if written is None or not all((out / segment.path).is_file() for segment in written):
            left.append(source)
        else:
            segments += written
    for number, (source, found) in enumerate(_over(left, partial(_cut, known, scale, out), workers), start=1):
        if isinstance(found, str):
            damaged[source.file] = found
        else:
            journal.written(source, scale, found)
            segments += found
        report("cutting", len(sources) - len(left) + number, len(sources))
    return segments


def _over(
    sources: Sequence[Source], work: Callable[[Source], "_Done | str"], workers: int
) -> Iterator[tuple[Source, "_Done | str"]]:
    """Process every source, in this process or in several; a result of text says why a source cannot be used."""
    if workers == 1 or len(sources) < 2:
        yield from ((source, work(source)) for source in sources)
        return
    waiting = iter(sources)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start) as pool:
        running = {pool.submit(work, source): source for source in islice(waiting, AHEAD * workers)}
        try:
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                finished = [(running.pop(future), future) for future in done]
                running |= {pool.submit(work, source): source for source in islice(waiting, len(done))}
                yield from ((source, future.result()) for source, future in finished)
        except BrokenProcessPool:
            raise BadInputError(
                f"one of {workers} processes ended, likely for lack of memory; use fewer --workers (nothing is lost)"
            ) from None


def _start() -> None:
    Thread(target=end_with_parent, daemon=True).start()


def _measure(known: RmisSet, source: Source) -> float | str:
    """Peak of the used channels of a recording, or why it cannot be used."""
    try:
        return max(float(np.max(np.abs(wave))) for _, wave in read_channels(known, source))
    except DamagedError as error:
        return str(error)


def _cut(known: RmisSet, scale: float, out: Path, source: Source) -> list[Segment] | str:
    """Segments of a recording, written, or why it cannot be used."""
    segments: list[Segment] = []
    try:
        for channel, wave in read_channels(known, source):
            segments += write_segments(known, source, channel, wave, scale, out)
    except DamagedError as error:
        return str(error)
    except (OSError, soundfile.SoundFileError) as error:
        raise BadInputError(
            f"cannot write into {out} ({error}); make room, or give another --out: the same command continues"
        ) from None
    return segments


def _published_segment(known: RmisSet, source: Source) -> Segment:
    """Describe a clip of the set with an official split, which is used where it lies."""
    channel, wave = next(iter(read_channels(known, source)))
    return Segment(
        f"{channel.name}.wav", str(source.path.resolve()), known.modality, known.rate_hz, len(wave), source.label,
        known.classes.index(source.label), source=source.file, split=source.split,
    )  # fmt: skip
