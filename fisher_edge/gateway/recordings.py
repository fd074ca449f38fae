"""Recordings instead of a running sensor: enroll them, and judge them. Start at `enroll_recordings`."""

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from fisher_edge.decision.alarm import AlarmMachine, AlarmRule
from fisher_edge.decision.enroll import DEFAULT_WINDOW_S, Enrolled, EnrolledTake, Made, check_target, enroll
from fisher_edge.decision.evidence import Rates
from fisher_edge.decision.fusion import Fusion
from fisher_edge.decision.judge import Judge
from fisher_edge.decision.judgement import ModelName, Result
from fisher_edge.decision.naming import normal_of
from fisher_edge.dsp.blocks import Block, rate_text
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import Grid, grid_of
from fisher_edge.dsp.stream import Piece, PieceStream
from fisher_edge.dsp.views import View
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.windows import EmbeddedWindow, WindowJoiner, read
from fisher_edge.errors import BadInputError, UsageError
from fisher_edge.gateway.wiring import Encoders, front_end_of
from fisher_edge.names import ChannelKey
from fisher_edge.sources.recording import Recording, read_recording
from fisher_edge.store import bundles
from fisher_edge.store.audio import DEFAULT_BYTES, AudioArchive, KeptTake
from fisher_edge.store.baselines import Baselines, Take
from fisher_edge.store.database import Database

__all__ = ["enroll_recordings", "reembed", "score_recording", "windows_of"]

# Recordings are cut a stretch at a time, so that only the pieces under way are in memory.
STRETCH_S = 1.0

log = logging.getLogger(__name__)


def enroll_recordings(
    database: Database,
    encoder: Encoder,
    recordings: Sequence[Recording],
    key: ChannelKey,
    *,
    label: str | None = None,
    specimens: Sequence[str] = (),
    takes: Sequence[Take] | None = None,
    extend: bool = False,
    window_s: float = DEFAULT_WINDOW_S,
    hop_s: float | None = None,
    audio_bytes: int = DEFAULT_BYTES,
    reason: str = "",
) -> Enrolled:
    """Embed recordings and store them as the newest baseline of a channel.

    `specimens` names what was recorded (a bearing, a pump): one for all recordings or one for each; `takes` says all
    about them where it is known from before. The bundle is kept beside the baseline, and so are up to `audio_bytes` of
    recordings. Raises BadInputError for recordings that differ in rate, are too short, constant, copies of each
    other or too few to say what is normal.
    """
    takes = _takes(recordings, specimens) if takes is None else takes
    _check_rates(recordings)
    _check_copies(recordings)
    bundle, rate_hz = encoder.bundle, recordings[0].rate_hz
    grid = grid_of(bundle.front_end, window_s, hop_s, rate_hz)
    made = Made(ModelName(bundle.name, bundle.sha256), bundle.front_end, grid, rate_hz)
    baselines = Baselines(database)
    check_target(baselines, key, made, label=label, extend=extend)
    cuts = [
        EnrolledTake(take.name, windows_of(recording, encoder, bundle.front_end, grid), take.specimen, take.recorded_s)
        for recording, take in zip(recordings, takes, strict=True)
    ]
    bundles.keep(database.state_dir, bundle.path, bundle.sha256)
    enrolled = enroll(baselines, key, cuts, made, label=label, extend=extend, reason=reason)
    if not extend:
        kept = [
            KeptTake(recording.blocks(), recording.rate_hz, recording.length)
            for recording, take in zip(recordings, takes, strict=True)
            if take.name not in enrolled.set_aside
        ]
        if not AudioArchive(database.state_dir, audio_bytes).keep(key, label, enrolled.version, kept) and audio_bytes:
            log.warning(
                "%s: these recordings are larger than the %d MB that may be kept: they cannot be embedded again with "
                "another model",
                key,
                audio_bytes >> 20,
            )
    return enrolled


def reembed(database: Database, encoder: Encoder, key: ChannelKey, label: str | None = None) -> Enrolled:
    """Enroll the kept recordings of a baseline again with another model, as its newest version.

    Raises BadInputError when nothing is enrolled or the recordings were not kept.
    """
    baseline = Baselines(database).get(key, label)
    if baseline is None:
        raise BadInputError(f"{key} has no baseline for {label or 'normal'}; see: fisher-edge baseline list")
    files = AudioArchive(database.state_dir).files(key, label, baseline.version)
    if len(files) != len(baseline.takes):
        raise BadInputError(
            f"the recordings of {key} version {baseline.version} were not kept, or not all of them; enroll again from "
            "your own files"
        )
    return enroll_recordings(
        database,
        encoder,
        [read_recording(file, rate_hz=baseline.rate_hz) for file in files],
        key,
        label=label,
        takes=baseline.takes,
        window_s=baseline.grid.window_s,
        hop_s=baseline.grid.hop_s,
        reason=f"embedded again with {encoder.bundle.name}",
    )


def score_recording(
    database: Database, encoders: Encoders, recording: Recording, key: ChannelKey, *, hop_s: float | None = None
) -> Iterator[Result]:
    """Yield the result of every window, in order; times count from the start of the recording.

    A baseline of another model than that of `encoders` is judged by the model it was made with while that is kept.
    Raises BadInputError when nothing is enrolled or the recording does not fit the baseline.
    """
    baselines = Baselines(database)
    enrolled = baselines.active(key)
    normal = normal_of(enrolled)
    if normal is None:
        raise BadInputError(
            f"nothing is enrolled for asset {key.asset!r}, channel {key.channel!r} in {database.path}; run: "
            f"fisher-edge enroll FILES --asset {key.asset} --channel {key.channel}"
        )
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
    grid = grid_of(front_end, normal.grid.window_s, normal.grid.hop_s if hop_s is None else hop_s, normal.rate_hz)
    weights = baselines.fusion(key)
    judge = Judge(enrolled, front_end, Rates(), grid.hop_s, Fusion.from_dict(weights) if weights else None)
    machine = AlarmMachine(AlarmRule(), clock=lambda: 0.0)
    for window in windows_of(recording, encoder, front_end, grid, views=judge.views):
        started = time.perf_counter()
        judgement = judge.judge(window)
        judgement = replace(judgement, latency_ms=1000 * (time.perf_counter() - started))
        machine.judge(judgement)
        yield Result(judgement, machine.state, "", machine.reason)


def windows_of(
    recording: Recording, encoder: Encoder, front_end: FrontEnd, grid: Grid, *, views: Sequence[View] | None = None
) -> Iterator[EmbeddedWindow]:
    """Embed the windows that the stream of a recording would give; time stamps count from its start.

    Raises BadInputError when it is shorter than a window or its samples are all the same.
    """
    stream = PieceStream(front_end, recording.rate_hz, grid)
    frames = (grid.window_pieces - 1) * grid.piece_hop_frames + grid.piece_frames
    needed = front_end.n_samples(frames, recording.rate_hz)
    if recording.length < needed:
        longest_s = recording.length / recording.rate_hz
        raise BadInputError(
            f"{recording.path} has {recording.length} samples at {rate_text(recording.rate_hz)} Hz, a window of "
            f"{grid.window_s:g} s takes {needed}; "
            + (f"use --window-s {float(longest_s) - 0.02:.2f} or less" if longest_s >= 0.2 else "record longer")
        )
    flat = _flat_value(recording)
    if flat is not None:
        raise BadInputError(f"{recording.path}: flat line: every sample is {flat:g}; check the sensor and record again")
    joiner = WindowJoiner(grid)
    for piece in _pieces(stream, recording):
        for reading in read(encoder, front_end, [piece], views=views):
            window = joiner.push(reading)
            if window is not None:
                yield window


def _pieces(stream: PieceStream, recording: Recording) -> Iterator[Piece]:
    """Push a recording through a stream a stretch at a time."""
    rate_hz, index = recording.rate_hz, 0
    for samples in recording.blocks(max(1, round(STRETCH_S * rate_hz))):
        yield from stream.push(Block(samples, rate_hz, index, float(index / rate_hz)))
        index += len(samples)


def _flat_value(recording: Recording) -> float | None:
    """The one value that every sample of a recording has; None when there are several."""
    first = next(iter(recording.blocks()))[0]
    return float(first) if all(bool((block == first).all()) for block in recording.blocks()) else None


def _takes(recordings: Sequence[Recording], specimens: Sequence[str]) -> list[Take]:
    """Say of each recording what it is called, what was recorded and when."""
    pairs = zip(recordings, _specimens(specimens, len(recordings)), strict=True)
    return [Take(recording.path.name, specimen, recording.recorded_s) for recording, specimen in pairs]


def _specimens(specimens: Sequence[str], recordings: int) -> list[str | None]:
    """Specimen of each recording: none was named, one for all, or one each."""
    if len(specimens) not in {0, 1, recordings}:
        raise UsageError(
            f"{len(specimens)} specimens for {recordings} recordings; give --specimen once for all of them, or once "
            "for each in their order"
        )
    bad = next((name for name in specimens if not name.strip() or not name.isprintable()), None)
    if bad is not None:
        raise UsageError(f"specimen {bad!r} names nothing; give the number or name of what was recorded")
    if not specimens:
        return [None] * recordings
    return [*specimens] * recordings if len(specimens) == 1 else [*specimens]


def _check_rates(recordings: Sequence[Recording]) -> None:
    """Refuse an empty enrollment and one of mixed rates."""
    if not recordings:
        raise BadInputError("no recordings to enroll; give at least one file")
    rates = sorted({recording.rate_hz for recording in recordings})
    if len(rates) > 1:
        raise BadInputError(
            f"recordings at {', '.join(map(rate_text, rates))} Hz cannot share a baseline; enroll one rate"
        )


def _check_copies(recordings: Sequence[Recording]) -> None:
    """Refuse a recording given twice: held out, it would find itself, and the spread would be next to nothing."""
    seen: dict[bytes, Recording] = {}
    for recording in recordings:
        digest = hashlib.blake2b()
        for block in recording.blocks():
            digest.update(block.data)
        first = seen.setdefault(digest.digest(), recording)
        if first is not recording:
            raise BadInputError(f"{first.path} and {recording.path} hold the same samples; leave one of them out")
