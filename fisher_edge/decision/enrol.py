"""Enrolment: normal (or labelled) recordings become a baseline with its own calibration. See `enroll`."""

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fisher_edge.decision.bank import MemoryBank
from fisher_edge.decision.calibrate import held_out_distances
from fisher_edge.decision.threshold import fit_tail
from fisher_edge.dsp.blocks import Block, FloatArray
from fisher_edge.dsp.features import level_log_rms, sensor_fault
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.stream import Window, WindowStream
from fisher_edge.encoder.ort import EncoderSession
from fisher_edge.errors import BadInputError
from fisher_edge.sources.recording import Recording
from fisher_edge.store import Baseline, Store, check_topic_level

__all__ = ["DEFAULT_WINDOW_S", "Enrolled", "check_length", "default_hop_s", "enroll", "windows_of"]

DEFAULT_WINDOW_S = 10.24
LARGEST_HOP_S = 2.0
MIN_HELD_OUT = 4
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
    window_s: float
    hop_s: float
    spread: float
    """Median held-out distance of a normal window."""
    thresholds: dict[str, float]
    """Distance by expected false alarms a day."""
    alone: tuple[str, ...]
    """Recordings unlike all the others: an operating state recorded once, or a mistake."""


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
    window_s: float = DEFAULT_WINDOW_S,
    hop_s: float | None = None,
) -> Enrolled:
    """Embed recordings and store them as the newest baseline of a channel, in one transaction.

    Without `label` they are its normal state; with one, examples of a fault. Raises BadInputError for
    recordings that differ in rate, are too short, constant, copies of each other or too few to calibrate a threshold.
    """
    check_topic_level("asset", asset)
    check_topic_level("channel", channel)
    _check_label(label)
    _check_rates(recordings)
    _check_copies(recordings)
    hop_s = default_hop_s(window_s) if hop_s is None else hop_s
    front_end = session.bundle.front_end
    if label:
        _check_fits(store, asset, channel, recordings[0].rate_hz, window_s, front_end)
    cut = _embed_all(session, recordings, [windows_of(each, front_end, window_s, hop_s) for each in recordings])
    window_frames, hop_frames = front_end.frames_of(window_s), front_end.frames_of(hop_s)
    held_out, alone = (np.zeros(0), ()) if label else _calibrate(cut, front_end.hop(cut.rate_hz), window_frames)
    facts: dict[str, Any] = {
        "model": {"name": session.bundle.name, "sha256": session.bundle.sha256},
        "rate_hz": cut.rate_hz,
        "window_frames": window_frames,
        "hop_frames": hop_frames,
        "bands": cut.embeddings.shape[1],
        "sources": [recording.path.name for recording in recordings],
        "source_of_window": cut.owner.tolist(),
        "level": _level(cut),
        "held_out": held_out.tolist(),
    }
    vectors = cut.embeddings.reshape(len(cut.owner), -1)
    version = store.add_baseline(Baseline(asset, channel, label, vectors, time.time() + cut.end_s, facts))
    tail = fit_tail(held_out) if len(held_out) else None
    return Enrolled(
        asset=asset,
        channel=channel,
        label=label,
        version=version,
        windows=len(cut.owner),
        window_s=window_s,
        hop_s=hop_s,
        spread=float(np.median(held_out)) if len(held_out) else 0.0,
        thresholds={f"{rate:g}": tail.threshold(rate, hop_s) for rate in (1.0, 0.1)} if tail else {},
        alone=tuple(recordings[index].path.name for index in alone),
    )


@dataclass(frozen=True, eq=False)
class _Cut:
    """The windows of all recordings: what is kept of them once they are embedded."""

    rate_hz: int
    embeddings: FloatArray
    """(windows, bands, dim)"""
    owner: npt.NDArray[np.int64]
    """Recording of each window."""
    start: npt.NDArray[np.int64]
    """First sample within the recording."""
    end_s: npt.NDArray[np.float64]
    level: npt.NDArray[np.float64]
    """Log RMS."""


def _check_fits(store: Store, asset: str, channel: str, rate_hz: int, window_s: float, front_end: FrontEnd) -> None:
    """Refuse examples of a fault that the normal state of the channel cannot be compared with."""
    enrolled = store.baselines(asset, channel, active_only=True)
    normal = next((baseline for baseline in enrolled if baseline.label is None), None)
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


def _embed_all(session: EncoderSession, recordings: Sequence[Recording], cuts: Sequence[Iterator[Window]]) -> _Cut:
    """Embed the windows of every recording, one at a time; a stretch of a dead sensor is nobody's normal state."""
    embeddings, rows = [], []
    for number, windows in enumerate(cuts):
        for window in windows:
            fault = sensor_fault(window.samples)
            if fault:
                raise BadInputError(
                    f"{recordings[number].path}, {window.start / window.rate_hz:.2f} to {window.end_time_s:.2f} s: "
                    f"{fault}; cut that part out"
                )
            embeddings.append(session.embed(window.bands))
            rows.append((number, window.start, window.end_time_s, level_log_rms(window.samples)))
    owner, start, end_s, level = (np.array(column) for column in zip(*rows, strict=True))
    return _Cut(recordings[0].rate_hz, np.stack(embeddings), owner, start, end_s, level)


def _calibrate(cut: _Cut, frame_samples: int, window_frames: int) -> tuple[npt.NDArray[np.float64], tuple[int, ...]]:
    """Return the held-out distances and the recordings unlike all others."""
    bank = MemoryBank.of(cut.embeddings, ["normal"] * len(cut.embeddings))
    held_out = held_out_distances(bank, cut.owner, cut.start // frame_samples, window_frames)
    if len(held_out.distances) < MIN_HELD_OUT:
        raise BadInputError(
            f"{len(cut.owner)} windows leave {len(held_out.distances)} that can be held out to calibrate a threshold, "
            f"{MIN_HELD_OUT} are needed; enrol several recordings, longer ones, or a shorter --window-s"
        )
    return held_out.distances, held_out.alone


def _check_label(label: str | None) -> None:
    """Refuse names of a fault that say nothing."""
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


def _level(cut: _Cut) -> dict[str, Any]:
    """Log RMS of the enrolled windows: mean, standard deviation and deviations of each recording from the others."""
    levels, owner = cut.level, cut.owner
    mean = float(levels.mean())
    held_out = [
        float(abs(level - levels[owner != own].mean())) if (owner != own).any() else float(abs(level - mean))
        for level, own in zip(levels, owner, strict=True)
    ]
    return {"mean": mean, "std": float(levels.std()), "held_out": held_out}
