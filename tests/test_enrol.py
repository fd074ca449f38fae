"""Enrolment: windows like those of the stream, a calibrated baseline, all of it stored or nothing."""

import json
import random
import signal
import subprocess
import sys
import textwrap
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from machine import RATE_HZ, machine_signal, recording, sound_file

from fisher_edge.decision.enrol import default_hop_s, enroll, windows_of
from fisher_edge.decision.threshold import fit_tail
from fisher_edge.dsp.blocks import Block, FloatArray
from fisher_edge.dsp.stream import WindowStream
from fisher_edge.encoder.ort import EncoderSession
from fisher_edge.errors import BadInputError, UsageError
from fisher_edge.sources.recording import Recording, read_recording
from fisher_edge.store import Store

PLACE: dict[str, Any] = {"asset": "pump-1", "channel": "vib-de"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return an open store."""
    with Store(tmp_path) as opened:
        yield opened


def test_windows_of_a_recording_are_those_of_its_stream(encoder: EncoderSession) -> None:
    """Cutting a recording piece by piece gives the windows of one push, with times from the start of the recording."""
    front_end = encoder.bundle.front_end
    whole = recording(0, 7.3)
    cut = list(windows_of(whole, front_end, 1.28, 0.5))
    pushed = WindowStream(front_end, RATE_HZ, 128, 50).push(Block(whole.samples, RATE_HZ, 0, 0.0))
    assert len(cut) == len(pushed) == 13
    for left, right in zip(cut, pushed, strict=True):
        assert np.array_equal(left.samples, right.samples)
        np.testing.assert_allclose(left.bands, right.bands, atol=1e-5)
        assert left.start == right.start
        assert left.end_time_s == pytest.approx(left.start / RATE_HZ + left.seconds)


def test_windows_of_a_recording_are_not_all_in_memory(encoder: EncoderSession) -> None:
    """Of a long recording only the windows under way are kept, however small the hop."""
    windows = (weakref.ref(window) for window in windows_of(recording(0, 30), encoder.bundle.front_end, 2.0, 0.2))
    references = []
    alive = []
    for reference in windows:
        references.append(reference)
        alive.append(sum(window() is not None for window in references))
    assert len(references) == 140
    assert max(alive) < 20


def test_file_is_cut_like_samples_in_memory(tmp_path: Path, encoder: EncoderSession) -> None:
    """A recording that is read from its file block by block gives the windows of its samples, bit by bit."""
    held = recording(0, 3.3)
    opened = read_recording(sound_file(tmp_path / "a.wav", held.samples))
    pairs = zip(*(windows_of(each, encoder.bundle.front_end, 1.28, 0.5) for each in (held, opened)), strict=True)
    starts = []
    for left, right in pairs:
        starts.append((left.start, left.end_time_s) == (right.start, right.end_time_s))
        assert np.array_equal(left.samples, right.samples)
        assert np.array_equal(left.bands, right.bands)
    assert starts == [True] * 5


def test_default_hop_is_a_quarter_of_the_window_two_seconds_at_most() -> None:
    """Short windows overlap by three quarters, the standard window moves on by 2 s."""
    assert default_hop_s(10.24) == 2.0
    assert default_hop_s(0.64) == 0.16


def test_enrolment_stores_what_it_reports(store: Store, encoder: EncoderSession) -> None:
    """Every window is there with its embedding, its time, its recording and the calibration behind the thresholds."""
    recordings = [recording(seed) for seed in range(3)]
    before = time.time()
    enrolled = enroll(store, encoder, recordings, **PLACE, window_s=1.28, hop_s=0.64)
    (stored,) = store.baselines()
    assert (enrolled.version, enrolled.windows, enrolled.window_s, enrolled.hop_s) == (1, 15, 1.28, 0.64)
    assert (stored.asset, stored.channel, stored.label, stored.active) == ("pump-1", "vib-de", None, True)
    facts = stored.facts
    assert facts["model"] == {"name": encoder.bundle.name, "sha256": encoder.bundle.sha256}
    assert (facts["rate_hz"], facts["window_frames"], facts["hop_frames"], facts["bands"]) == (RATE_HZ, 128, 64, 4)
    assert facts["sources"] == ["take-0.wav", "take-1.wav", "take-2.wav"]
    assert facts["source_of_window"] == [0] * 5 + [1] * 5 + [2] * 5
    assert stored.vectors.shape == (15, 4 * encoder.bundle.dim)
    window = list(windows_of(recordings[1], encoder.bundle.front_end, 1.28, 0.64))[2]
    np.testing.assert_allclose(stored.vectors[7], encoder.embed(window.bands).ravel(), atol=1e-5)
    offsets = stored.times - before
    assert offsets[0] == pytest.approx(1.295, abs=30)
    np.testing.assert_allclose(np.diff(offsets[:5]), 0.64, atol=1e-3)
    assert len(facts["held_out"]) == len(facts["level"]["held_out"]) == 15
    assert enrolled.spread == pytest.approx(np.median(facts["held_out"]))
    tail = fit_tail(facts["held_out"])
    assert enrolled.thresholds == {"1": tail.threshold(1.0, 0.64), "0.1": tail.threshold(0.1, 0.64)}
    assert enrolled.thresholds["1"] < enrolled.thresholds["0.1"]
    json.dumps(facts, allow_nan=False)


def test_enrolling_again_makes_the_next_version(store: Store, encoder: EncoderSession) -> None:
    """The newest is active; labelled examples have versions and calibration of their own, and may be few."""
    versions = [enroll(store, encoder, [recording(seed)], **PLACE, window_s=0.64).version for seed in (0, 1)]
    fault = enroll(store, encoder, [recording(2, 1.0, fault_hz=5000)], **PLACE, label="inner race", window_s=0.64)
    assert versions == [1, 2]
    assert (fault.version, fault.thresholds, fault.windows) == (1, {}, 3)
    active = [(row.label, row.version) for row in store.baselines(active_only=True)]
    assert active == [(None, 2), ("inner race", 1)]


def test_recording_unlike_the_others_is_named(store: Store, encoder: EncoderSession) -> None:
    """A state recorded once, or a mistake, is pointed out with its file name."""
    slope = np.cumsum(np.random.default_rng(0).standard_normal(4 * RATE_HZ))
    recordings = [recording(0), recording(1), with_samples(slope)]
    assert enroll(store, encoder, recordings, **PLACE, window_s=0.64).alone == ("odd.wav",)


def with_samples(samples: Any, rate_hz: int = RATE_HZ) -> Recording:
    """Return a recording of these samples."""
    return Recording(Path("odd.wav"), np.asarray(samples, np.float32), rate_hz)


def half_flat() -> Recording:
    """Return a recording whose sensor died halfway."""
    samples = machine_signal(0)
    samples[len(samples) // 2 :] = samples[len(samples) // 2]
    return with_samples(samples)


NORMAL = [recording(0), recording(1)]
REFUSALS: list[tuple[list[Recording], dict[str, Any], str]] = [
    ([], {}, "no recordings to enrol"),
    ([with_samples(np.ones(80_000))], {}, "odd.wav: flat line: every sample is 1"),
    ([half_flat()], {}, "odd.wav, 1.92 to 2.57 s: flat line|odd.wav, 2.08 to 2.73 s: flat line"),
    ([with_samples(np.clip(machine_signal(0), -0.05, 0.05))], {}, "clipped: "),
    ([with_samples([0.5])], {}, "odd.wav has 1 samples at 16000 Hz, a window of 0.64 s takes 10480; record longer"),
    ([recording(0, 0.5)], {}, "use --window-s 0.48 or less"),
    ([with_samples(np.arange(5000) % 7, 50)], {}, "rate_hz=50 is below 100 Hz"),
    ([recording(0), with_samples(machine_signal(1), 8000)], {}, "recordings at 8000, 16000 Hz cannot share a baseline"),
    ([recording(0, 0.8)], {}, "1 windows leave 0 that can be held out to calibrate a threshold, 4 are needed"),
    ([*NORMAL, with_samples(NORMAL[0].samples)], {}, "take-0.wav and odd.wav hold the same samples"),
    (NORMAL, {"window_s": 20.0}, "a window of 2000 frames is not within 1 and 1024"),
    (NORMAL, {"window_s": 0.05}, "16 frames"),
    (NORMAL, {"window_s": 0.0}, "window_s=0 is not a length of time"),
    (NORMAL, {"window_s": float("nan")}, "window_s=nan is not a length of time"),
    (NORMAL, {"window_s": float("inf")}, "window_s=inf is not a length of time"),
    (NORMAL, {"hop_s": 0.0}, "hop_s=0 is not a length of time"),
    (NORMAL, {"hop_s": -1.0}, "hop_s=-1 is not a length of time"),
    (NORMAL, {"asset": "pump/1"}, "asset name 'pump/1' contains '/'"),
    (NORMAL, {"channel": "#"}, "channel name '#' contains '#'"),
    (NORMAL, {"label": ""}, "label '' names no fault"),
    (NORMAL, {"label": "normal"}, "label 'normal' names no fault"),
]


@pytest.mark.parametrize(("recordings", "options", "reason"), REFUSALS, ids=[reason[:40] for *_, reason in REFUSALS])
def test_enrolment_that_cannot_be_is_refused_and_stores_nothing(
    store: Store, encoder: EncoderSession, recordings: list[Recording], options: dict[str, Any], reason: str
) -> None:
    """Every refusal is one line with the values, and the baselines stay as they are."""
    with pytest.raises(BadInputError) as caught:
        enroll(store, encoder, recordings, **{**PLACE, "window_s": 0.64, **options})
    assert any(part in str(caught.value) for part in reason.split("|")), str(caught.value)
    assert "\n" not in str(caught.value)
    assert store.baselines() == []


def test_enrolment_that_cannot_be_written_keeps_the_old_one(
    store: Store, encoder: EncoderSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When writing fails after the old version was retired, the old version is active still."""
    enroll(store, encoder, NORMAL, **PLACE, window_s=0.64)

    def fail(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("fisher_edge.store.json.dumps", fail)
    with pytest.raises(OSError, match="no space"):
        enroll(store, encoder, NORMAL, **PLACE, window_s=0.64)
    assert [(row.version, row.active) for row in store.baselines()] == [(1, True)]


def test_kill_during_enrolment_leaves_whole_baselines(tmp_path: Path) -> None:
    """However often a process is killed while it enrols, versions have no gap, one is active, and all are complete."""
    code = """
        import sys
        from pathlib import Path
        import numpy as np
        from fisher_edge.decision.enrol import enroll
        from fisher_edge.encoder.bundle import load_bundle
        from fisher_edge.encoder.ort import EncoderSession
        from fisher_edge.sources.recording import Recording
        from fisher_edge.store import Store
        session = EncoderSession(load_bundle())
        noise = np.random.default_rng(0).standard_normal(1500).astype(np.float32)
        takes = [Recording(Path("a"), noise, 1000), Recording(Path("b"), noise[::-1].copy(), 1000)]
        with Store(Path(sys.argv[1])) as store:
            while True:
                print(enroll(store, session, takes, asset="a", channel="c", window_s=0.32).version, flush=True)
    """
    chance = random.Random(0)
    told = 0
    for _ in range(3):
        command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert int(child.stdout.readline()) >= told
            time.sleep(chance.uniform(0, 0.2))
            child.send_signal(signal.SIGKILL)
            told = max([told, *(int(line) for line in child.stdout.read().splitlines() if line)])
    with Store(tmp_path) as store:
        rows = store.baselines()
    assert [row.version for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= max(3, told)
    assert [row.version for row in rows if row.active] == [len(rows)]
    assert {row.vectors.shape for row in rows} == {rows[0].vectors.shape}
    assert {len(row.facts["held_out"]) for row in rows} == {len(rows[0].facts["held_out"])}


def test_scale_of_the_recording_does_not_change_its_embedding(store: Store, encoder: EncoderSession) -> None:
    """The same signal in another unit has the same shape; only its level moves."""
    loud = [replace(each, held=1000 * each.samples) for each in NORMAL]
    for recordings in (NORMAL, loud):
        enroll(store, encoder, recordings, **PLACE, window_s=0.64)
    quiet, scaled = store.baselines()
    assert np.max(1 - _cosines(quiet.vectors, scaled.vectors)) < 1e-5  # int8 rounds a few numbers otherwise
    assert scaled.facts["level"]["mean"] - quiet.facts["level"]["mean"] == pytest.approx(np.log(1000), abs=1e-4)


def _cosines(left: FloatArray, right: FloatArray) -> Any:
    """Cosine (n,) of each pair of rows (n, width), in float64."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_examples_of_a_fault_must_fit_the_normal_state(store: Store, encoder: EncoderSession) -> None:
    """Another rate or another window cannot be compared with what is enrolled: refused, and nothing is stored."""
    enroll(store, encoder, NORMAL, **PLACE, window_s=0.64)
    other_rate = with_samples(NORMAL[0].samples, RATE_HZ // 2)
    with pytest.raises(BadInputError, match=f"was enrolled at {RATE_HZ} Hz; a fault has to be recorded"):
        enroll(store, encoder, [other_rate], **PLACE, label="oops", window_s=0.64)
    with pytest.raises(BadInputError, match=r"windows of 0\.64 s; use --window-s 0\.64"):
        enroll(store, encoder, NORMAL[:1], **PLACE, label="oops", window_s=0.32)
    assert [row.label for row in store.baselines()] == [None]


def test_further_specimen_joins_those_enrolled(store: Store, encoder: EncoderSession) -> None:
    """With `extend` a new version holds old and new examples, each with its recording, specimen and level."""
    enroll(store, encoder, NORMAL, **PLACE, window_s=0.64)
    fault: dict[str, Any] = {**PLACE, "label": "inner race", "window_s": 0.64, "extend": True}
    first = [recording(2, 1.0, fault_hz=5000), recording(3, 1.0, fault_hz=5000)]
    second = [recording(4, 2.0, fault_hz=5000, gain=5.0)]
    one = enroll(store, encoder, first, **fault, specimens=["6205-a"])
    two = enroll(store, encoder, second, **fault, specimens=["6205-b"])
    _, earlier, both = store.baselines()
    assert (one.version, one.windows, one.windows_before) == (1, 6, 0)
    assert (two.version, two.windows, two.windows_before) == (2, 9, 6)
    assert (earlier.active, both.active) == (False, True)
    assert both.facts["sources"] == ["take-2.wav", "take-3.wav", "take-4.wav"]
    assert both.facts["specimens"] == ["6205-a", "6205-a", "6205-b"]
    assert both.facts["source_of_window"] == [0] * 3 + [1] * 3 + [2] * 9
    assert both.views is not None
    assert earlier.views is not None
    assert len(both.times) == len(both.views) == len(both.facts["level"]["held_out"]) == 15
    assert np.array_equal(both.vectors[:6], earlier.vectors)
    assert np.array_equal(both.views[:6], earlier.views)
    alone = enroll(store, encoder, second, **{**fault, "extend": False})
    assert alone.windows_before == 0
    again = store.baselines()[-1]
    assert np.array_equal(again.vectors, both.vectors[6:])
    levels = np.array([earlier.facts["level"]["mean"]] * 6 + [again.facts["level"]["mean"]] * 9)
    spread = np.array([earlier.facts["level"]["std"]] * 6 + [again.facts["level"]["std"]] * 9)
    assert both.facts["level"]["mean"] == pytest.approx(levels.mean())
    assert both.facts["level"]["std"] == pytest.approx(np.sqrt(levels.var() + (spread**2).mean()))
    assert two.fusion is not None
    assert two.fusion.classes_with_two_units == 2


def test_examples_that_cannot_join_are_refused(store: Store, encoder: EncoderSession) -> None:
    """A recording enrolled before, a normal state, and examples of another window leave everything as it is."""
    enroll(store, encoder, NORMAL, **PLACE, window_s=0.64)
    example = [recording(2, 1.0, fault_hz=5000)]
    enroll(store, encoder, example, **PLACE, label="inner race", window_s=0.64)
    with pytest.raises(BadInputError, match="among the examples of 'inner race' already; leave out the recording"):
        enroll(store, encoder, [recording(3), *example], **PLACE, label="inner race", window_s=0.64, extend=True)
    with pytest.raises(UsageError, match="a normal state is calibrated as a whole"):
        enroll(store, encoder, [recording(3)], **PLACE, window_s=0.64, extend=True)
    enroll(store, encoder, NORMAL, **PLACE, window_s=0.32)
    with pytest.raises(BadInputError, match=r"another model, rate or window; enrol all of them again, without --add"):
        enroll(store, encoder, [recording(3)], **PLACE, label="inner race", window_s=0.32, extend=True)
    assert [(row.label, row.version) for row in store.baselines()] == [(None, 1), ("inner race", 1), (None, 2)]
