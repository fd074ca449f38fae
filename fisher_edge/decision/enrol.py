"""Enrolment: normal (or labelled) recordings become a baseline with its own calibration. See `enroll`."""

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fisher_edge.decision.baselines import Added, active_of, add, front_end_facts
from fisher_edge.decision.cut import Calibration, Cut, calibrate, embed_all, level_facts
from fisher_edge.decision.evidence import Fusion
from fisher_edge.decision.threshold import fit_tail
from fisher_edge.dsp.blocks import Block
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.stream import Window, WindowStream
from fisher_edge.encoder.bundle import Bundle
from fisher_edge.encoder.ort import EncoderSession
from fisher_edge.errors import BadInputError, UsageError
from fisher_edge.sources.recording import Recording
from fisher_edge.store import Baseline, Store, check_topic_level

__all__ = ["DEFAULT_WINDOW_S", "Enrolled", "check_length", "default_hop_s", "enroll", "windows_of"]

DEFAULT_WINDOW_S = 10.24
LARGEST_HOP_S = 2.0
PIECE_S = 1.0
"""Recordings are cut a piece at a time, so that only the windows under way are in memory."""


@dataclass(frozen=True)
class Enrolled:
    """What an enrolment has stored."""

    asset: str
    channel: str
    label: str | None
    version: int
    windows: int
    windows_before: int
    """Windows enrolled earlier that were kept beside these."""
    window_s: float
    hop_s: float
    spread: float
    """Median held-out distance of a normal window."""
    thresholds: dict[str, float]
    """Distance by expected false alarms a day."""
    alone: tuple[str, ...]
    """Recordings unlike all the others: an operating state recorded once, or a mistake."""
    fusion: Fusion | None
    """How faults are named and how well; None while no fault is enrolled."""


def default_hop_s(window_s: float) -> float:
    """Hop of a window when none is given: a quarter of it, 2 s at most."""
    return min(LARGEST_HOP_S, window_s / 4)


def check_length(name: str, seconds: float) -> None:
    """Refuse what cannot be the length of a window or of a hop."""
    if not (math.isfinite(seconds) and seconds > 0):
        raise BadInputError(f"{name}={seconds:g} is not a length of time; give seconds above 0")


def windows_of(recording: Recording, front_end: FrontEnd, window_s: float, hop_s: float) -> Iterator[Window]:
    """Cut a recording into the windows its stream would give; time stamps count from its start.

    Raises BadInputError at once when it is shorter than a window or its sensor is not to be trusted.
    """
    check_length("window_s", window_s)
    check_length("hop_s", hop_s)
    window_frames, hop_frames = front_end.frames_of(window_s), front_end.frames_of(hop_s)
    stream = WindowStream(front_end, recording.rate_hz, window_frames, hop_frames)
    needed = front_end.n_samples(window_frames, recording.rate_hz)
    if recording.length < needed:
        longest = front_end.n_frames(recording.length, recording.rate_hz) * front_end.hop_ms / 1000
        raise BadInputError(
            f"{recording.path} has {recording.length} samples at {recording.rate_hz} Hz, a window of "
            f"{window_s:g} s takes {needed}; "
            + (f"use --window-s {longest:g} or less" if longest >= 0.16 else "record longer")
        )
    flat = _flat_value(recording)
    if flat is not None:
        raise BadInputError(f"{recording.path}: flat line: every sample is {flat:g}; check the sensor and record again")
    return _cut(stream, recording)


def _cut(stream: WindowStream, recording: Recording) -> Iterator[Window]:
    """Push a recording through a stream piece by piece."""
    rate_hz, index = recording.rate_hz, 0
    for samples in recording.blocks(max(1, round(PIECE_S * rate_hz))):
        yield from stream.push(Block(samples, rate_hz, index, index / rate_hz))
        index += len(samples)


def _flat_value(recording: Recording) -> float | None:
    """The one value that every sample of a recording has; None when there are several."""
    first = next(recording.blocks())[0]
    return float(first) if all(bool((block == first).all()) for block in recording.blocks()) else None


def enroll(
    store: Store,
    session: EncoderSession,
    recordings: Sequence[Recording],
    *,
    asset: str,
    channel: str,
    label: str | None = None,
    specimens: Sequence[str] = (),
    extend: bool = False,
    window_s: float = DEFAULT_WINDOW_S,
    hop_s: float | None = None,
) -> Enrolled:
    """Embed recordings and store them as the newest baseline of a channel, in one transaction.

    Without `label` they are its normal state; with one, examples of a fault. `specimens` names what was recorded (a
    bearing, a pump): one for all recordings or one for each. `extend` keeps the examples of this fault that are
    enrolled already. Raises BadInputError for recordings that differ in rate, are too short, constant, copies of each
    other or too few to calibrate a threshold, UsageError for a normal state that is to be extended.
    """
    check_topic_level("asset", asset)
    check_topic_level("channel", channel)
    _check_label(label, extend=extend)
    specimen_of = _specimens(specimens, len(recordings))
    _check_rates(recordings)
    _check_copies(recordings)
    hop_s = default_hop_s(window_s) if hop_s is None else hop_s
    front_end = session.bundle.front_end
    if label:
        _check_fits(store, asset, channel, recordings[0].rate_hz, window_s, front_end)
    cut = embed_all(session, recordings, [windows_of(each, front_end, window_s, hop_s) for each in recordings])
    window_frames, hop_frames = front_end.frames_of(window_s), front_end.frames_of(hop_s)
    calibration = Calibration.none(front_end.views) if label else calibrate(cut, front_end, window_frames)
    facts = {
        "sources": [recording.path.name for recording in recordings],
        "specimens": specimen_of,
        "window_frames": window_frames,
        "hop_frames": hop_frames,
        **_facts(session.bundle, cut, calibration),
    }
    vectors = cut.embeddings.reshape(len(cut.owner), -1)
    baseline = Baseline(asset, channel, label, vectors, time.time() + cut.end_s, facts, cut.views_side_by_side)
    return _enrolled(baseline, add(store, baseline, extend=extend), calibration, window_s, hop_s)


def _enrolled(baseline: Baseline, added: Added, calibration: Calibration, window_s: float, hop_s: float) -> Enrolled:
    """Say what was stored, and what its calibration means."""
    held_out = calibration.distances
    tail = fit_tail(held_out) if len(held_out) else None
    return Enrolled(
        asset=baseline.asset,
        channel=baseline.channel,
        label=baseline.label,
        version=added.version,
        windows=len(baseline.vectors),
        windows_before=added.windows_before,
        window_s=window_s,
        hop_s=hop_s,
        spread=float(np.median(held_out)) if len(held_out) else 0.0,
        thresholds={f"{rate:g}": tail.threshold(rate, hop_s) for rate in (1.0, 0.1)} if tail else {},
        alone=tuple(baseline.facts["sources"][index] for index in calibration.alone),
        fusion=added.fusion,
    )


def _facts(bundle: Bundle, cut: Cut, calibration: Calibration) -> dict[str, Any]:
    """What a baseline keeps beside its vectors: what it was made with, and its calibration."""
    return {
        "model": {"name": bundle.name, "sha256": bundle.sha256},
        "front_end": front_end_facts(bundle.front_end),
        "rate_hz": cut.rate_hz,
        "bands": cut.embeddings.shape[1],
        "source_of_window": cut.owner.tolist(),
        "level": level_facts(cut),
        "held_out": calibration.distances.tolist(),
        "views": [
            {"view": view.to_dict(), "held_out": distances.tolist()}
            for view, distances in zip(bundle.front_end.views, calibration.of_views, strict=True)
        ],
    }


def _check_fits(store: Store, asset: str, channel: str, rate_hz: int, window_s: float, front_end: FrontEnd) -> None:
    """Refuse examples of a fault that the normal state of the channel cannot be compared with."""
    enrolled = store.baselines(asset, channel, active_only=True)
    normal = active_of(enrolled, None)
    if normal is None:
        raise BadInputError(
            f"the normal state of {asset}/{channel} is not enrolled yet; enrol it first, then examples of faults"
        )
    if normal.facts["rate_hz"] != rate_hz:
        raise BadInputError(
            f"these recordings have {rate_hz} Hz, the normal state of {asset}/{channel} was enrolled at "
            f"{normal.facts['rate_hz']} Hz; a fault has to be recorded with the same sensor"
        )
    if normal.facts["window_frames"] != front_end.frames_of(window_s):
        enrolled_s = normal.facts["window_frames"] * front_end.hop_ms / 1000
        raise BadInputError(
            f"the normal state of {asset}/{channel} was enrolled with windows of {enrolled_s:g} s; use --window-s "
            f"{enrolled_s:g}"
        )


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


def _check_label(label: str | None, *, extend: bool) -> None:
    """Refuse names of a fault that say nothing, and a normal state that is to be extended."""
    if extend and label is None:
        raise UsageError(
            "--add is for examples of a fault; a normal state is calibrated as a whole: enrol all of its recordings "
            "together"
        )
    if label is not None and (label.strip() in {"", "normal"} or not label.isprintable()):
        raise BadInputError(
            f"label {label!r} names no fault; give the fault the recordings show, or none for the normal state"
        )


def _check_rates(recordings: Sequence[Recording]) -> None:
    """Refuse an empty enrolment and one of mixed rates."""
    if not recordings:
        raise BadInputError("no recordings to enrol; give at least one file")
    rates = sorted({recording.rate_hz for recording in recordings})
    if len(rates) > 1:
        raise BadInputError(f"recordings at {', '.join(map(str, rates))} Hz cannot share a baseline; enrol one rate")


def _check_copies(recordings: Sequence[Recording]) -> None:
    """Refuse a recording given twice: held out, it would find itself, and the threshold would be next to nothing."""
    seen: dict[bytes, Recording] = {}
    for recording in recordings:
        digest = hashlib.blake2b()
        for block in recording.blocks():
            digest.update(block.data)
        first = seen.setdefault(digest.digest(), recording)
        if first is not recording:
            raise BadInputError(f"{first.path} and {recording.path} hold the same samples; leave one of them out")
