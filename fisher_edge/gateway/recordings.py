"""Recordings instead of a running sensor: enroll them, and judge them. Start at `enroll_recordings`."""

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from fisher_edge.decision.alarm import AlarmMachine, AlarmRule
from fisher_edge.decision.enroll import (
    DEFAULT_WINDOW_S,
    Enrolled,
    EnrolledTake,
    Made,
    assess,
    check_target,
    enroll,
    takes_of,
)
from fisher_edge.decision.evidence import Rates
from fisher_edge.decision.fusion import Fusion
from fisher_edge.decision.judge import Judge
from fisher_edge.decision.judgement import ModelName, Result
from fisher_edge.decision.reactions import Embed
from fisher_edge.dsp.blocks import Block, rate_text
from fisher_edge.dsp.bursts import BurstStream
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import Grid, grid_of, over_bursts
from fisher_edge.dsp.stream import Piece, PieceStream
from fisher_edge.dsp.views import View
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.spots import embed_spots
from fisher_edge.encoder.windows import EmbeddedWindow, WindowJoiner, read
from fisher_edge.errors import BadInputError, UsageError
from fisher_edge.gateway.spots import spots_of
from fisher_edge.gateway.wiring import Encoders, front_end_of
from fisher_edge.names import ChannelKey
from fisher_edge.sources.bursts import BurstRecording, read_bursts
from fisher_edge.sources.recording import Recording, read_recording
from fisher_edge.store import bundles
from fisher_edge.store.audio import DEFAULT_BYTES, AudioArchive, KeptTake
from fisher_edge.store.baselines import Baseline, Baselines
from fisher_edge.store.database import Database

__all__ = [
    "Recorded",
    "enroll_recordings",
    "enrolled_normal",
    "reembed",
    "review_recordings",
    "score_recording",
    "windows_of",
]

# Recordings are cut a stretch at a time, so that only the pieces under way are in memory.
STRETCH_S = 1.0

Recorded = Recording | BurstRecording

log = logging.getLogger(__name__)


def enroll_recordings(
    database: Database,
    encoder: Encoder,
    recordings: Sequence[Recorded],
    key: ChannelKey,
    *,
    label: str | None = None,
    specimens: Sequence[str] = (),
    states: Sequence[str] = (),
    takes: Sequence[EnrolledTake] | None = None,
    extend: bool = False,
    window_s: float = DEFAULT_WINDOW_S,
    hop_s: float | None = None,
    audio_bytes: int = DEFAULT_BYTES,
    reason: str = "",
) -> Enrolled:
    """Embed recordings and store them as the newest baseline of a channel.

    `specimens` names what was recorded (a bearing, a pump) and `states` the operating states: one for all recordings or
    one for each; `takes` says what is known about them from before. Recordings of bursts become a baseline of bursts,
    which has no views: a burst is too short for them. The bundle is kept with the baseline, and so are up to
    `audio_bytes` of recordings, those of the version that is extended among them.

    Raises BadInputError for recordings that differ in rate, are too short, constant, copies of each
    other or too few to say what is normal.
    """
    baselines, bundle = Baselines(database), encoder.bundle
    takes = _takes(recordings, specimens, states) if takes is None else takes
    cuts, made, embed = _cut_all(baselines, encoder, recordings, takes, key, label, window_s, hop_s)
    bundles.keep(database.state_dir, bundle.path, bundle.sha256)
    before = baselines.get(key, label) if extend else None
    enrolled = enroll(baselines, key, cuts, made, label=label, extend=extend, reason=reason, embed=embed)
    aside = {each.number for each in enrolled.set_aside}
    added = [recording for number, recording in enumerate(recordings) if number not in aside]
    archive = AudioArchive(database.state_dir, audio_bytes)
    earlier = _kept_of(archive, before) if before else []
    if earlier is None:
        log.warning("%s: the recordings enrolled earlier were not kept, so that these are not kept either", key)
    elif not archive.keep(key, label, enrolled.version, list(map(_kept, [*earlier, *added]))) and audio_bytes:
        log.warning(
            "%s: these recordings are larger than the %d MB that may be kept: they cannot be embedded again with "
            "another model",
            key,
            audio_bytes >> 20,
        )
    return enrolled


def review_recordings(
    database: Database,
    encoder: Encoder,
    recordings: Sequence[Recorded],
    key: ChannelKey,
    takes: Sequence[EnrolledTake],
    *,
    extend: bool = False,
    window_s: float = DEFAULT_WINDOW_S,
    hop_s: float | None = None,
) -> Enrolled:
    """Say what enrolling recordings as the normal state would mean, and store nothing; the version is 0."""
    baselines = Baselines(database)
    cuts, made, embed = _cut_all(baselines, encoder, recordings, takes, key, None, window_s, hop_s)
    before = baselines.get(key, None) if extend else None
    return assess(key, cuts, made, before=before, embed=embed).enrolled(0, None)


def _cut_all(
    baselines: Baselines,
    encoder: Encoder,
    recordings: Sequence[Recorded],
    takes: Sequence[EnrolledTake],
    key: ChannelKey,
    label: str | None,
    window_s: float,
    hop_s: float | None,
) -> tuple[list[EnrolledTake], Made, Embed]:
    """Check recordings and say how they are cut; windows are embedded when they are asked for.

    The last thing returned embeds spots of them.
    """
    _check_rates(recordings)
    _check_copies(recordings)
    bundle, rate_hz = encoder.bundle, recordings[0].rate_hz
    front_end, grid = _cut(bundle.front_end, grid_of(bundle.front_end, window_s, hop_s, rate_hz), recordings)
    made = Made(ModelName(bundle.name, bundle.sha256), front_end, grid, rate_hz)
    if any(isinstance(recording, BurstRecording) and not recording.timed for recording in recordings):
        log.warning(
            "%s: the time from one burst to the next is not known: times and expected false alarms a day count as if "
            "bursts followed each other at once; enroll again with --burst-interval-s to correct them",
            key,
        )
    _check_bursts(baselines.get(key, None) if label else None, made)
    check_target(baselines, key, made, label=label)
    windows = [windows_of(recording, encoder, front_end, grid) for recording in recordings]
    spots = [()] * len(recordings) if label else spots_of(recordings, front_end, grid)
    cuts = [
        replace(take, windows=of_take, spots=of_spots)
        for take, of_take, of_spots in zip(takes, windows, spots, strict=True)
    ]
    return cuts, made, partial(embed_spots, encoder, front_end, grid, rate_hz)


def reembed(database: Database, encoder: Encoder, key: ChannelKey, label: str | None = None) -> Enrolled:
    """Enroll the kept recordings of a baseline again with another model, as its newest version.

    Raises BadInputError when nothing is enrolled or the recordings were not kept.
    """
    baseline = Baselines(database).get(key, label)
    if baseline is None:
        raise BadInputError(f"{key} has no baseline for {label or 'normal'}; see: fisher-edge baseline list")
    recordings = _kept_of(AudioArchive(database.state_dir), baseline)
    if recordings is None:
        raise BadInputError(
            f"the recordings of {key} version {baseline.version} were not kept, or not all of them; enroll again from "
            "your own files"
        )
    return enroll_recordings(
        database,
        encoder,
        recordings,
        key,
        label=label,
        takes=takes_of(baseline),
        window_s=baseline.grid.signal_window_s,
        hop_s=baseline.grid.signal_hop_s,
        reason=f"embedded again with {encoder.bundle.name}",
    )


def score_recording(
    database: Database,
    encoders: Encoders,
    recording: Recorded,
    key: ChannelKey,
    *,
    hop_s: float | None = None,
    state: str | None = None,
) -> Iterator[Result]:
    """Yield the result of every window, in order; times count from the start of the recording.

    `state` is the operating state of the machine, where it is known. A baseline of another model than that of
    `encoders` is judged by the model it was made with while that is kept.
    Raises BadInputError when nothing is enrolled or the recording does not fit the baseline.
    """
    baselines = Baselines(database)
    enrolled, normal = baselines.active(key), enrolled_normal(database, key)
    _check_kind(normal, recording)
    if isinstance(recording, BurstRecording) and not recording.timed:
        recording = _timed_as(normal, recording)
    encoder = encoders.find(normal.model_sha256)
    front_end = front_end_of(normal, encoder.bundle.front_end) if encoder else None
    if encoder is None or front_end is None:
        other = encoders.default.bundle
        raise BadInputError(
            f"the baseline of {key} was enrolled with model {normal.model_name} ({normal.model_sha256[:8]}), not "
            f"{other.name} ({other.sha256[:8]}): their embeddings cannot be compared; enroll again or give the same "
            "--model"
        )
    if recording.rate_hz != normal.rate_hz:
        raise BadInputError(
            f"{recording.path} has {rate_text(recording.rate_hz)} Hz, the baseline of {key} was enrolled at "
            f"{rate_text(normal.rate_hz)} Hz; enroll recordings of this rate"
        )
    hop_s = normal.grid.signal_hop_s if hop_s is None else hop_s
    grid = grid_of(front_end, normal.grid.signal_window_s, hop_s, normal.rate_hz)
    front_end, grid = _cut(front_end, grid, [recording])
    weights = baselines.fusion(key)
    judge = Judge(enrolled, front_end, Rates(), grid.hop_s, Fusion.from_dict(weights) if weights else None)
    machine = AlarmMachine(AlarmRule(), clock=lambda: 0.0)
    for window in windows_of(recording, encoder, front_end, grid, views=judge.views):
        started = time.perf_counter()
        judgement = judge.judge(window, state)
        judgement = replace(judgement, latency_ms=1000 * (time.perf_counter() - started))
        machine.judge(judgement)
        yield Result(judgement, machine.state, "", machine.reason)


def enrolled_normal(database: Database, key: ChannelKey) -> Baseline:
    """Return the normal state that is enrolled for a channel; BadInputError when there is none."""
    normal = Baselines(database).get(key, None)
    if normal is None:
        raise BadInputError(
            f"nothing is enrolled for asset {key.asset!r}, channel {key.channel!r} in {database.path}; run: "
            f"fisher-edge enroll FILES --asset {key.asset} --channel {key.channel}"
        )
    return normal


def windows_of(
    recording: Recorded, encoder: Encoder, front_end: FrontEnd, grid: Grid, *, views: Sequence[View] | None = None
) -> Iterator[EmbeddedWindow]:
    """Embed the windows that the stream of a recording would give; time stamps count from its start.

    Raises BadInputError when it is shorter than a window or its samples are all the same.
    """
    frames = (grid.window_pieces - 1) * grid.piece_hop_frames + grid.piece_frames
    _check_length(recording, front_end, grid, frames)
    flat = _flat_value(recording)
    if flat is not None:
        raise BadInputError(f"{recording.path}: flat line: every sample is {flat:g}; check the sensor and record again")
    joiner = WindowJoiner(grid)
    for piece in _pieces(recording, front_end, grid):
        for reading in read(encoder, front_end, [piece], views=views):
            window = joiner.push(reading)
            if window is not None:
                yield window


def _check_length(recording: Recorded, front_end: FrontEnd, grid: Grid, frames: int) -> None:
    """Refuse a recording without a whole window, which takes so many frames."""
    if isinstance(recording, BurstRecording):
        _check_burst_frames(recording, front_end, frames)
        return
    needed = front_end.n_samples(frames, recording.rate_hz)
    if recording.length < needed:
        longest_s = recording.length / recording.rate_hz
        raise BadInputError(
            f"{recording.path} has {recording.length} samples at {rate_text(recording.rate_hz)} Hz, a window of "
            f"{grid.window_s:g} s takes {needed}; "
            + (f"use --window-s {float(longest_s) - 0.02:.2f} or less" if longest_s >= 0.2 else "record longer")
        )


def _check_burst_frames(recording: BurstRecording, front_end: FrontEnd, needed: int) -> None:
    """Refuse bursts without a whole frame, and too few of them for a window of so many frames."""
    rate_hz, shortest = recording.rate_hz, min(recording.lengths)
    if shortest < front_end.n_fft(rate_hz):
        raise BadInputError(
            f"{recording.path}: burst {recording.lengths.index(shortest) + 1} has {shortest} samples, fewer than one "
            f"frame of {front_end.n_fft(rate_hz)} ({front_end.win_ms} ms at {rate_text(rate_hz)} Hz); record longer "
            "bursts, and save an array as snapshots x samples"
        )
    frames = _burst_frames(recording, front_end)
    if frames < needed:
        raise BadInputError(
            f"{recording.path} has {len(recording.lengths)} bursts with {frames} whole frames, a window takes "
            f"{needed}; record more bursts or choose a shorter --window-s"
        )


def _burst_frames(recording: BurstRecording, front_end: FrontEnd) -> int:
    """Whole frames in all bursts together."""
    return sum(front_end.n_frames(samples, recording.rate_hz) for samples in recording.lengths)


def _cut(front_end: FrontEnd, grid: Grid, recordings: Sequence[Recorded]) -> tuple[FrontEnd, Grid]:
    """Return how recordings are cut: bursts have no views, and lengths of windows include the silence between them."""
    bursts = [recording for recording in recordings if isinstance(recording, BurstRecording)]
    if not bursts:
        return front_end, grid
    frames = max(1, sum(_burst_frames(recording, front_end) for recording in bursts))
    passed_s = sum(len(recording.lengths) * recording.interval_s for recording in bursts)
    return replace(front_end, views=()), over_bursts(grid, passed_s / front_end.seconds_of(frames, bursts[0].rate_hz))


def _check_bursts(normal: Baseline | None, made: Made) -> None:
    """Refuse examples of a fault that are bursts where the normal state is not, or the other way round."""
    if normal is not None and normal.grid.bursts != made.grid.bursts:
        kind, advice = ("bursts", "give") if normal.grid.bursts else ("unbroken recordings", "leave out")
        raise BadInputError(
            f"the normal state of {normal.key} was enrolled from {kind}; {advice} --bursts, or enroll the normal state "
            "again"
        )


def _check_kind(normal: Baseline, recording: Recorded) -> None:
    """Refuse a recording that is not cut as the baseline was."""
    if isinstance(recording, BurstRecording) != normal.grid.bursts:
        kind, other = ("unbroken", "bursts") if normal.grid.bursts else ("of bursts", "unbroken recordings")
        raise BadInputError(
            f"{recording.path} is {kind}, the baseline of {normal.key} was enrolled from {other}; enroll recordings of "
            "this kind"
        )


def _kept(recording: Recorded) -> KeptTake:
    """Describe a recording for the archive."""
    lengths = recording.lengths if isinstance(recording, BurstRecording) else ()
    return KeptTake(recording.blocks(), recording.rate_hz, recording.length, lengths)


def _kept_of(archive: AudioArchive, baseline: Baseline) -> list[Recorded] | None:
    """Open the kept recordings of a baseline; None when they were not kept, or not all of them."""
    files = archive.files(baseline.key, baseline.label, baseline.version)
    if len(files) != len(baseline.takes):
        return None
    if not baseline.grid.bursts:
        return [read_recording(file, rate_hz=baseline.rate_hz) for file in files]
    return [_timed_as(baseline, recording) for recording in read_bursts(files, rate_hz=baseline.rate_hz)]


def _timed_as(baseline: Baseline, recording: BurstRecording) -> BurstRecording:
    """Return a recording of bursts that does not say when they begin with the interval of those enrolled."""
    front_end, rate_hz = baseline.front_end or FrontEnd(), recording.rate_hz
    signal_s = front_end.seconds_of(_burst_frames(recording, front_end), rate_hz)
    interval_s = baseline.grid.time_factor * signal_s / len(recording.lengths)
    return recording.every(max(interval_s, float(max(recording.lengths) / rate_hz)))


def _pieces(recording: Recorded, front_end: FrontEnd, grid: Grid) -> Iterator[Piece]:
    """Push a recording through a stream a stretch, or a burst, at a time."""
    rate_hz, index = recording.rate_hz, 0
    if isinstance(recording, BurstRecording):
        bursts = BurstStream(front_end, rate_hz, grid)
        for block in recording.stream():
            yield from bursts.push(block)
        yield from bursts.end()
        return
    stream = PieceStream(front_end, rate_hz, grid)
    for samples in recording.blocks(max(1, round(STRETCH_S * rate_hz))):
        yield from stream.push(Block(samples, rate_hz, index, float(index / rate_hz)))
        index += len(samples)


def _flat_value(recording: Recorded) -> float | None:
    """The one value that every sample of a recording has; None when there are several."""
    first = next(iter(recording.blocks()))[0]
    return float(first) if all(bool((block == first).all()) for block in recording.blocks()) else None


def _takes(recordings: Sequence[Recorded], specimens: Sequence[str], states: Sequence[str]) -> list[EnrolledTake]:
    """Say of each recording what it is called, what was recorded, in which operating state and when."""
    count = len(recordings)
    described = zip(
        recordings, _each("specimen", specimens, count), _each("operating state", states, count), strict=True
    )
    return [
        EnrolledTake(recording.path.name, (), specimen, recording.recorded_s, state)
        for recording, specimen, state in described
    ]


def _each(what: str, names: Sequence[str], recordings: int) -> list[str | None]:
    """Name for each recording: none was given, one for all, or one each."""
    if len(names) not in {0, 1, recordings}:
        raise UsageError(
            f"{len(names)} names for the {what} of {recordings} recordings; give one for all of them, or one for each "
            "in their order"
        )
    bad = next((name for name in names if not name.strip() or not name.isprintable()), None)
    if bad is not None:
        raise UsageError(f"{what} {bad!r} names nothing; give a number or name")
    if not names:
        return [None] * recordings
    return [*names] * recordings if len(names) == 1 else [*names]


def _check_rates(recordings: Sequence[Recorded]) -> None:
    """Refuse an empty enrollment and one of mixed rates."""
    if not recordings:
        raise BadInputError("no recordings to enroll; give at least one file")
    rates = sorted({recording.rate_hz for recording in recordings})
    if len(rates) > 1:
        raise BadInputError(
            f"recordings at {', '.join(map(rate_text, rates))} Hz cannot share a baseline; enroll one rate"
        )


def _check_copies(recordings: Sequence[Recorded]) -> None:
    """Refuse a recording given twice: held out, it would find itself, and the spread would be next to nothing."""
    seen: dict[bytes, Recorded] = {}
    for recording in recordings:
        digest = hashlib.blake2b()
        for block in recording.blocks():
            digest.update(block.data)
        first = seen.setdefault(digest.digest(), recording)
        if first is not recording:
            raise BadInputError(f"{first.path} and {recording.path} hold the same samples; leave one of them out")
