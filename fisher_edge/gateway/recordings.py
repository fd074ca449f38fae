"""Recordings instead of a running sensor: enroll them, and judge them. Start at `enroll_recordings`."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from fisher_edge.decision.alarm import AlarmMachine, AlarmRule
from fisher_edge.decision.assess import Enrolled, EnrolledTake, Made, assess, takes_of
from fisher_edge.decision.enroll import DEFAULT_WINDOW_S, check_target, enroll
from fisher_edge.decision.evidence import Rates
from fisher_edge.decision.fusion import Fusion
from fisher_edge.decision.judge import Judge
from fisher_edge.decision.judgement import ModelName, Result
from fisher_edge.decision.reactions import Embed
from fisher_edge.dsp.blocks import rate_text
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import Grid, at_rate, grid_of, over_bursts
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.forms import forms_of
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.select import AUTO, open_encoder
from fisher_edge.encoder.spots import embed_spots
from fisher_edge.errors import BadInputError, UsageError
from fisher_edge.gateway.other_rate import Heard, at_other_rate
from fisher_edge.gateway.spots import spots_of
from fisher_edge.gateway.windows import Recorded, burst_frames, digest_of, read_again, timed_as, windows_of
from fisher_edge.gateway.wiring import Encoders, cache_of, front_end_of
from fisher_edge.names import ChannelKey
from fisher_edge.sources.bursts import BurstRecording
from fisher_edge.store import bundles
from fisher_edge.store.audio import DEFAULT_BYTES, AudioArchive, KeptTake
from fisher_edge.store.baselines import Baseline, Baselines
from fisher_edge.store.database import Database

__all__ = [
    "Recorded",
    "encoder_for",
    "enroll_recordings",
    "enrolled_normal",
    "reembed",
    "review_recordings",
    "score_recording",
    "windows_of",
]

log = logging.getLogger(__name__)


def encoder_for(
    database: Database, bundle: str, key: ChannelKey, provider: str = AUTO, *, continued: bool = False
) -> Encoder:
    """Return the encoder that recordings of a channel are enrolled with.

    Where the enrollment is `continued`, by further takes or by examples of a fault, it is the form of the bundle that
    the normal state was enrolled with, because the embeddings of others cannot be compared with it.
    """
    loaded, normal = load_bundle(bundle), Baselines(database).get(key, None)
    hashes = {form.sha256 for form in forms_of(loaded).values()}
    sha256 = normal.model_sha256 if continued and normal and normal.model_sha256 in hashes else None
    return open_encoder(loaded, provider, cache_dir=cache_of(database.state_dir), sha256=sha256)


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
    baselines = Baselines(database)
    takes = _takes(recordings, specimens, states) if takes is None else takes
    cuts, made, embed = _cut_all(baselines, encoder, recordings, takes, key, label, window_s, hop_s)
    bundles.keep(database.state_dir, encoder.bundle.path, encoder.sha256)
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
    made = Made(ModelName(encoder.name, encoder.sha256), front_end, grid, rate_hz)
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
        reason=f"embedded again with {encoder.name}",
    )


def score_recording(
    database: Database,
    encoders: Encoders,
    recording: Recorded,
    key: ChannelKey,
    *,
    hop_s: float | None = None,
    state: str | None = None,
    other_rate: bool = False,
) -> Iterator[Result]:
    """Yield the result of every window, in order; times count from the start of the recording.

    `state` is the operating state of the machine, where it is known. A baseline of another model than that of
    `encoders` is judged by the model it was made with while that is kept. With `other_rate` a recording of another
    rate than the enrolled one is judged by the bands that both have.
    Raises BadInputError when nothing is enrolled or the recording does not fit the baseline.
    """
    baselines = Baselines(database)
    enrolled, normal = baselines.active(key), enrolled_normal(database, key)
    _check_kind(normal, recording)
    _check_state(normal, state)
    if isinstance(recording, BurstRecording) and not recording.timed:
        recording = timed_as(normal, recording)
    encoder = encoders.find(normal.model_sha256)
    front_end = front_end_of(normal, encoder.bundle.front_end) if encoder else None
    if encoder is None or front_end is None:
        other = encoders.default
        raise BadInputError(
            f"the baseline of {key} was enrolled with model {normal.model_name} ({normal.model_sha256[:8]}), not "
            f"{other.name} ({other.sha256[:8]}): their embeddings cannot be compared; enroll again or give the same "
            "--model"
        )
    hop_s = normal.grid.signal_hop_s if hop_s is None else hop_s
    grid = grid_of(front_end, normal.grid.signal_window_s, hop_s, normal.rate_hz)
    front_end, grid = _cut(front_end, grid, [recording])
    weights = baselines.fusion(key)
    heard = Heard(enrolled, normal.rate_hz, Fusion.from_dict(weights) if weights else None)
    if recording.rate_hz != normal.rate_hz:
        _check_other_rate(recording, normal, other_rate=other_rate)
        heard = at_other_rate(database.state_dir, encoder, front_end, enrolled, recording.rate_hz)
        log.warning("%s: %s", key, heard.common)
        grid = at_rate(front_end, grid, heard.rate_hz)
    judge = Judge(heard.enrolled, front_end, Rates(), grid.hop_s, heard.fusion, heard.common)
    machine = AlarmMachine(AlarmRule(), clock=lambda: 0.0)
    for window in windows_of(recording, encoder, front_end, grid, views=judge.views, rate_hz=heard.rate_hz):
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


def _cut(front_end: FrontEnd, grid: Grid, recordings: Sequence[Recorded]) -> tuple[FrontEnd, Grid]:
    """Return how recordings are cut: bursts have no views, and lengths of windows include the silence between them."""
    bursts = [recording for recording in recordings if isinstance(recording, BurstRecording)]
    if not bursts:
        return front_end, grid
    frames = max(1, sum(burst_frames(recording, front_end) for recording in bursts))
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


def _check_other_rate(recording: Recorded, normal: Baseline, *, other_rate: bool) -> None:
    """Refuse a recording of another rate unless that is meant."""
    if not other_rate:
        raise BadInputError(
            f"{recording.path} has {rate_text(recording.rate_hz)} Hz, the baseline of {normal.key} was enrolled at "
            f"{rate_text(normal.rate_hz)} Hz; enroll recordings of this rate, or judge by the bands that both have: "
            "--other-rate"
        )


def _check_kind(normal: Baseline, recording: Recorded) -> None:
    """Refuse a recording that is not cut as the baseline was."""
    if isinstance(recording, BurstRecording) != normal.grid.bursts:
        kind, other = ("unbroken", "bursts") if normal.grid.bursts else ("of bursts", "unbroken recordings")
        raise BadInputError(
            f"{recording.path} is {kind}, the baseline of {normal.key} was enrolled from {other}; enroll recordings of "
            "this kind"
        )


def _check_state(normal: Baseline, state: str | None) -> None:
    """Refuse an operating state that was not named at enrollment."""
    named = [each.name for each in normal.states if each.given]
    if state is not None and state not in named:
        have = f"there are: {', '.join(named)}" if named else "none was named: enroll with --state"
        raise BadInputError(f"{normal.key} has no operating state {state!r}; {have}")


def _kept(recording: Recorded) -> KeptTake:
    """Describe a recording for the archive."""
    lengths = recording.lengths if isinstance(recording, BurstRecording) else ()
    return KeptTake(recording.blocks(), recording.rate_hz, recording.length, lengths)


def _kept_of(archive: AudioArchive, baseline: Baseline) -> list[Recorded] | None:
    """Open the kept recordings of a baseline; None when they were not kept, or not all of them."""
    files = archive.files(baseline.key, baseline.label, baseline.version)
    return read_again(files, baseline) if len(files) == len(baseline.takes) else None


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
        first = seen.setdefault(digest_of(recording), recording)
        if first is not recording:
            raise BadInputError(f"{first.path} and {recording.path} hold the same samples; leave one of them out")
