"""The judgement of a channel: shape and level apart, sensor faults never an anomaly, baselines that fit."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from machine import EXAMPLES, RATE_HZ, machine_signal, recording

from fisher_edge.decision.enrol import enroll, windows_of
from fisher_edge.decision.monitor import UNLIKE_ANYTHING, Monitor, Policy, Unenrolled, load_monitor
from fisher_edge.decision.score import score_recording
from fisher_edge.decision.threshold import fit_tail
from fisher_edge.dsp.stream import Window
from fisher_edge.encoder.ort import EncoderSession
from fisher_edge.errors import BadInputError
from fisher_edge.sources.recording import Recording, read_recording
from fisher_edge.store import Baseline, Store

PLACE: dict[str, Any] = {"asset": "pump-1", "channel": "vib-de"}
WINDOW_S, HOP_S = 0.64, 0.32
FIELDS = {
    "time": str,
    "window_s": float,
    "rate_hz": int,
    "state": str,
    "distance": float,
    "threshold": float,
    "ratio": float,
    "p_value": float,
    "bands": list,
    "nearest": dict,
    "level": dict,
    "views": list,
    "features": dict,
    "baseline": dict,
    "model": dict,
    "latency_ms": float,
}
"""Fields of a judged window (design, section 7); `fault` is a dict or None."""


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory, encoder: EncoderSession) -> Path:
    """Return a state directory with the machine's normal state enrolled; tests only read it."""
    folder = tmp_path_factory.mktemp("enrolled")
    with Store(folder) as store:
        enroll(store, encoder, [recording(seed) for seed in range(6)], **PLACE, window_s=WINDOW_S, hop_s=HOP_S)
    return folder


@pytest.fixture
def monitor(state_dir: Path, encoder: EncoderSession) -> Monitor:
    """Return a fresh monitor of the machine."""
    with Store(state_dir) as store:
        return load_monitor(store, encoder, **PLACE)


@pytest.fixture
def cut(encoder: EncoderSession) -> Callable[..., list[Window]]:
    """Return a function that makes windows of a machine nobody has enrolled."""

    def windows(seed: int = 100, seconds: float = 2.0, **options: float) -> list[Window]:
        taken = recording(seed, seconds, **options)
        return list(windows_of(taken, encoder.bundle.front_end, WINDOW_S, HOP_S))

    return windows


def states(monitor: Monitor, windows: list[Window]) -> list[str]:
    """Judge windows and return the states."""
    return [monitor.judge(window).fields["state"] for window in windows]


def seconds(stamp: str) -> float:
    """Read an RFC 3339 time stamp."""
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def test_result_has_every_field(monitor: Monitor, cut: Callable[..., list[Window]], encoder: EncoderSession) -> None:
    """A judged window has all fields with their types, as plain JSON, and they agree with each other."""
    window = cut()[1]
    fields = monitor.judge(window).fields
    assert {name: type(fields[name]) for name in FIELDS} == FIELDS
    assert fields["fault"] is None
    json.dumps(fields, allow_nan=False)
    assert fields["time"] == "1970-01-01T00:00:00.975Z"
    assert (fields["window_s"], fields["rate_hz"]) == (0.655, RATE_HZ)
    assert fields["ratio"] == pytest.approx(fields["distance"] / fields["threshold"])
    assert fields["warning_threshold"] < fields["threshold"]
    tail = fit_tail(monitor.normal.facts["held_out"])
    assert fields["threshold"] == tail.threshold(0.1, HOP_S)
    assert fields["p_value"] == tail.p_value(fields["distance"])
    assert fields["nearest"]["baseline"] == fields["baseline"]["version"] == 1
    gaps = np.abs(monitor.normal.times - seconds(fields["nearest"]["time"]))
    assert gaps.min() < 1e-3
    assert fields["baseline"]["windows"] == len(monitor.normal.times) == 66
    assert fields["model"] == {"name": encoder.bundle.name, "sha256": encoder.bundle.sha256}
    assert set(fields["features"]) >= {"rms", "peak", "crest", "kurtosis"}
    assert fields["latency_ms"] > 0


def test_bands_tile_the_spectrum_and_add_up(monitor: Monitor, cut: Callable[..., list[Window]]) -> None:
    """At 16 kHz four bands of 2 kHz follow each other without gap, and their shares are the distance."""
    fields = monitor.judge(cut()[0]).fields
    edges = [(band["low_hz"], band["high_hz"]) for band in fields["bands"]]
    assert edges == [(0, 2000), (2000, 4000), (4000, 6000), (6000, 8000)]
    shares = [band["share"] for band in fields["bands"]]
    assert sum(shares) == pytest.approx(fields["distance"], abs=1e-6)
    assert min(shares) >= 0


def test_nearest_of_an_enrolled_window_is_itself(monitor: Monitor, encoder: EncoderSession) -> None:
    """A window of the enrolment is at distance 0 and names its own time."""
    window = list(windows_of(recording(2), encoder.bundle.front_end, WINDOW_S, HOP_S))[4]
    fields = monitor.judge(window).fields
    assert fields["distance"] < 1e-5
    assert seconds(fields["nearest"]["time"]) == pytest.approx(monitor.normal.times[2 * 11 + 4], abs=1e-3)


def test_healthy_machine_stays_normal(monitor: Monitor, cut: Callable[..., list[Window]]) -> None:
    """Windows of takes that were not enrolled raise nothing."""
    assert {state for seed in (100, 101, 102) for state in states(monitor, cut(seed, 4.0))} == {"normal"}


def test_changed_shape_raises_an_alarm_and_names_its_band(monitor: Monitor, cut: Callable[..., list[Window]]) -> None:
    """A new tone at 5 kHz is an alarm from the second window on, nearly all of it in the band from 4 to 6 kHz."""
    verdicts = [monitor.judge(window) for window in cut(fault_hz=5000, gain=0.8)[:3]]
    assert [verdict.fields["state"] for verdict in verdicts] == ["normal", "alarm", "alarm"]
    fields = verdicts[0].fields
    assert fields["ratio"] > 1
    assert fields["p_value"] < 1e-5
    worst = max(fields["bands"], key=lambda band: float(band["share"]))
    assert (worst["low_hz"], worst["high_hz"]) == (4000, 6000)
    assert worst["share"] > 0.5 * fields["distance"]
    assert [verdict.transition is not None for verdict in verdicts] == [False, True, False]
    transition = verdicts[1].transition
    assert transition is not None
    assert (transition.before, transition.after) == ("normal", "alarm")
    assert "shape at" in transition.reason


def test_louder_is_not_different(monitor: Monitor, cut: Callable[..., list[Window]]) -> None:
    """The same sound three times as loud is an alarm of the level alone: its shape stays within its threshold."""
    verdicts = [monitor.judge(window).fields for window in cut(gain=3.0)]
    assert verdicts[-1]["state"] == "alarm"
    for fields in verdicts:
        assert fields["ratio"] < 1
        assert fields["level"]["ratio"] > 1
        assert fields["level"]["deviation"] == pytest.approx(math.log(3), abs=0.1)
        assert fields["level"]["ratio"] == pytest.approx(fields["level"]["deviation"] / fields["level"]["threshold"])
        assert fields["level"]["z"] > 10
    quiet = [monitor.judge(window).fields for window in cut(gain=1 / 3)]
    assert quiet[-1]["level"]["z"] < -10
    assert quiet[-1]["level"]["ratio"] > 1


def test_level_is_never_judged_finer_than_one_percent(tmp_path: Path, encoder: EncoderSession) -> None:
    """A machine that was enrolled at the very same level all along may become 3 % louder, not 10 %."""
    steady = []
    for seed in range(3):
        samples = machine_signal(seed)
        steady.append(Recording(Path(f"{seed}.wav"), (samples / samples.std()).astype(np.float32), RATE_HZ))
    tone = np.sin(2 * np.pi * 500 * np.arange(4 * RATE_HZ) / RATE_HZ)
    steady = [Recording(take.path, (tone + 1e-3 * take.samples).astype(np.float32), RATE_HZ) for take in steady]
    with Store(tmp_path) as store:
        enroll(store, encoder, steady, **PLACE, window_s=WINDOW_S, hop_s=HOP_S)
        for gain, exceeded in ((1.03, False), (1.1, True)):
            louder = replace(steady[0], held=np.float32(gain) * steady[0].samples)
            results = list(score_recording(store, encoder, louder, **PLACE))
            assert {result["level"]["ratio"] > 1 for result in results} == {exceeded}
    assert results[0]["level"]["threshold"] > 0.03


def broken(window: Window, samples: Any) -> Window:
    """Return a window with other samples and a spectrum of nonsense."""
    return replace(window, samples=np.asarray(samples, np.float32), bands=np.full_like(window.bands, np.nan))


def test_sensor_fault_is_never_an_anomaly(monitor: Monitor, cut: Callable[..., list[Window]]) -> None:
    """NaN, Inf, a flat line and clipping give `check_function` with the reason and no distance."""
    window = cut()[0]
    with_nan, with_inf = window.samples.copy(), window.samples.copy()
    with_nan[5], with_inf[7] = np.nan, np.inf
    clipped = np.clip(window.samples, -0.05, 0.05)
    for samples, reason in (
        (with_nan, "1 samples are not finite"),
        (with_inf, "1 samples are not finite"),
        (np.zeros_like(clipped), "flat line"),
        (clipped, "clipped"),
    ):
        fields = monitor.judge(broken(window, samples)).fields
        assert fields["state"] == monitor.state == "check_function"
        assert reason in fields["reason"]
        assert fields["distance"] is fields["ratio"] is fields["p_value"] is fields["fault"] is None
        assert fields["bands"] == []
        assert FIELDS.keys() <= fields.keys()
        json.dumps(fields, allow_nan=False)


def test_interruptions_clear_no_alarm(monitor: Monitor, cut: Callable[..., list[Window]]) -> None:
    """After a dead sensor and missing data the alarm is back with the next window, until the hold is over."""
    healthy = cut(seconds=3.0)
    assert states(monitor, cut(fault_hz=5000)[:3])[-1] == "alarm"
    for _ in range(10):
        assert monitor.judge(broken(healthy[0], np.zeros(10))).fields["state"] == "check_function"
    transition = monitor.interrupt("no_data", "unplugged")
    assert transition is not None
    assert (transition.before, transition.after, transition.reason) == ("check_function", "no_data", "unplugged")
    assert monitor.interrupt("no_data", "still unplugged") is None
    assert states(monitor, healthy[:4]) == ["alarm", "alarm", "normal", "normal"]


def test_interruptions_raise_no_alarm(monitor: Monitor, cut: Callable[..., list[Window]]) -> None:
    """Dead windows do not count towards the N of M."""
    faulty, healthy = cut(fault_hz=5000)[0], cut()
    assert states(monitor, [faulty, *healthy[:2]]) == ["normal"] * 3
    monitor.judge(broken(faulty, np.zeros(10)))
    assert states(monitor, [faulty]) == ["normal"]


def test_labelled_faults_vote(tmp_path: Path, encoder: EncoderSession) -> None:
    """With labelled examples the five nearest windows name the fault, and what resembles nothing is said to."""
    with Store(tmp_path) as store:
        enroll(store, encoder, [recording(seed) for seed in range(4)], **PLACE, window_s=WINDOW_S, hop_s=HOP_S)
        for label, fault_hz in (("inner race", 5000), ("gear mesh", 3000)):
            examples = [recording(50 + fault_hz, 3.0, fault_hz=fault_hz)]
            enroll(store, encoder, examples, **PLACE, label=label, window_s=WINDOW_S, hop_s=HOP_S)
        slope = np.cumsum(np.random.default_rng(0).standard_normal(3 * RATE_HZ)).astype(np.float32)
        unlike = Recording(Path("unlike.wav"), slope, RATE_HZ)
        said = {}
        for name, taken in (
            ("healthy", recording(100, 2.0)),
            ("inner race", recording(101, 2.0, fault_hz=5000)),
            ("gear mesh", recording(102, 2.0, fault_hz=3000)),
            ("unlike", unlike),
        ):
            said[name] = [result["fault"] for result in score_recording(store, encoder, taken, **PLACE)]
    assert {fault["label"] for fault in said["healthy"]} == {"normal"}
    for name in ("inner race", "gear mesh"):
        assert {fault["label"] for fault in said[name]} == {name}
        assert {fault["k"] for fault in said[name]} == {5}
        assert min(fault["votes"] for fault in said[name]) >= 3
    assert {fault["label"] for fault in said["unlike"]} == {UNLIKE_ANYTHING}


@pytest.mark.parametrize("made_with", [{"model": {"name": "old", "sha256": "0" * 64}}, {"rate_hz": 8000}])
def test_examples_of_another_model_or_rate_have_no_vote(
    tmp_path: Path, encoder: EncoderSession, made_with: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Examples that cannot be compared are left out and named; the normal state judges on."""
    with Store(tmp_path) as store:
        for label in (None, "inner race"):
            enroll(store, encoder, [recording(seed) for seed in range(3)], **PLACE, label=label, window_s=WINDOW_S)
        normal, examples = store.baselines()
        store.add_baseline(replace(examples, facts=examples.facts | made_with))
        results = list(score_recording(store, encoder, recording(100, 2.0), **PLACE))
    assert {result["state"] for result in results} == {"normal"}
    assert {result["baseline"]["windows"] for result in results} == {len(normal.vectors)}
    assert {result["fault"] for result in results} == {None}
    assert "'inner race' for pump-1/vib-de have no vote" in caplog.text


def test_newest_version_judges(tmp_path: Path, encoder: EncoderSession) -> None:
    """After enrolling the changed machine as its new normal state, that is normal and the old state is not."""
    with Store(tmp_path) as store:
        for fault_hz in (0, 5000):
            takes = [recording(seed, fault_hz=fault_hz) for seed in range(4)]
            enroll(store, encoder, takes, **PLACE, window_s=WINDOW_S, hop_s=HOP_S)
        verdicts = {
            fault_hz: list(score_recording(store, encoder, recording(100, 2.0, fault_hz=fault_hz), **PLACE))[-1]
            for fault_hz in (0, 5000)
        }
    assert (verdicts[0]["state"], verdicts[5000]["state"]) == ("alarm", "normal")
    assert verdicts[0]["baseline"]["version"] == verdicts[0]["nearest"]["baseline"] == 2


def test_baseline_of_another_model_is_refused(state_dir: Path, encoder: EncoderSession) -> None:
    """Embeddings of different models are not compared: the text names both."""
    other = replace(encoder.bundle, name="other", sha256="0" * 64)
    session = EncoderSession(other)
    with Store(state_dir) as store, pytest.raises(BadInputError, match=r"not other \(00000000\)") as caught:
        load_monitor(store, session, **PLACE)
    assert encoder.bundle.sha256[:8] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_channel_without_a_normal_state_is_refused(tmp_path: Path, encoder: EncoderSession) -> None:
    """Nothing enrolled says what to run, and examples of a fault are not taken before the normal state."""
    with Store(tmp_path) as store:
        with pytest.raises(BadInputError, match=r"nothing is enrolled for asset 'pump-1'.* run: fisher-edge enroll"):
            load_monitor(store, encoder, **PLACE)
        with pytest.raises(BadInputError, match="normal state of pump-1/vib-de is not enrolled yet"):
            enroll(store, encoder, [recording(0)], **PLACE, label="inner race", window_s=WINDOW_S)
        assert store.baselines() == []


def test_policy_moves_the_thresholds(state_dir: Path, encoder: EncoderSession) -> None:
    """Fewer false alarms a day, or more windows a day, mean higher thresholds, of shape and of level."""
    with Store(state_dir) as store:
        usual = load_monitor(store, encoder, **PLACE)
        strict = load_monitor(store, encoder, **PLACE, policy=Policy(warning_per_day=0.1, alarm_per_day=0.01))
        often = load_monitor(store, encoder, **PLACE, hop_frames=4)
    for stricter in (strict, often):
        for name in ("_shape", "_level"):
            assert getattr(stricter, name).alarm > getattr(usual, name).alarm
            assert getattr(stricter, name).warning > getattr(usual, name).warning
    assert (usual.hop_frames, often.hop_frames) == (32, 4)


def test_policy_of_endless_alarms_still_judges(encoder: EncoderSession, cut: Callable[..., list[Window]]) -> None:
    """A baseline of identical windows and an absurd rate of alarms give numbers, not a division by zero."""
    window = cut()[0]
    embedding = encoder.embed(window.bands).ravel()
    facts = {
        "rate_hz": RATE_HZ,
        "window_frames": 64,
        "hop_frames": 32,
        "bands": 4,
        "held_out": [0.0] * 5,
        "level": {"mean": 0.0, "std": 0.0, "held_out": [0.0] * 5},
    }
    normal = Baseline("a", "c", None, np.stack([embedding] * 5), np.zeros(5), facts)
    fields = Monitor(encoder, normal, [], Policy(1e9, 1e9)).judge(window).fields
    json.dumps(fields, allow_nan=False)
    assert fields["state"] in {"normal", "warning", "alarm"}


def test_score_of_a_recording_numbers_its_windows(state_dir: Path, encoder: EncoderSession) -> None:
    """Every window of the file comes in order, with the identity of the channel and times from its start."""
    with Store(state_dir) as store:
        results = list(score_recording(store, encoder, recording(100, 3.0), **PLACE))
        finer = list(score_recording(store, encoder, recording(100, 3.0), **PLACE, hop_s=0.16))
    assert [result["seq"] for result in results] == list(range(1, 9))
    assert {(result["asset"], result["channel"], result["boot"], result["replay"]) for result in results} == {
        ("pump-1", "vib-de", None, False)
    }
    times = [seconds(result["time"]) for result in results]
    np.testing.assert_allclose(times, 0.655 + HOP_S * np.arange(8), atol=2e-3)
    assert len(finer) == 15
    assert finer[0]["threshold"] > results[0]["threshold"]


@pytest.mark.parametrize(
    ("taken", "options", "reason"),
    [
        (Recording(Path("a.wav"), machine_signal(0), 8000), {}, "has 8000 Hz, the baseline of pump-1/vib-de was"),
        (recording(0, 0.5), {}, "a window of 0.64 s takes 10480"),
        (recording(0), {"hop_s": 0.0}, "hop_s=0 is not a length of time"),
        (recording(0), {"hop_s": float("nan")}, "hop_s=nan is not a length of time"),
        (recording(0), {"channel": "vib-nde"}, "nothing is enrolled"),
    ],
)
def test_recording_that_does_not_fit_is_refused(
    state_dir: Path, encoder: EncoderSession, taken: Recording, options: dict[str, Any], reason: str
) -> None:
    """Another rate, too short a file, a hop of nothing and an unknown channel are one line each."""
    with Store(state_dir) as store, pytest.raises(BadInputError, match=reason):
        list(score_recording(store, encoder, taken, **{**PLACE, **options}))


def test_unenrolled_channel_shows_plain_measures(encoder: EncoderSession, cut: Callable[..., list[Window]]) -> None:
    """Before anything is enrolled a channel has its level and features, a sensor check, and no distance."""
    watch = Unenrolled(encoder, 64, 32)
    window = cut()[0]
    verdict = watch.judge(window)
    fields = verdict.fields
    assert (verdict.transition, fields["state"], fields["distance"]) == (None, "no_baseline", None)
    assert fields["features"]["rms"] == pytest.approx(float(window.samples.std()), rel=1e-3)
    assert fields["level"] == {"log_rms": pytest.approx(math.log(window.samples.std()), rel=1e-3)}
    flat = watch.judge(broken(window, np.zeros(100)))
    assert flat.transition is not None
    assert (flat.transition.after, flat.fields["state"]) == ("check_function", "check_function")
    assert watch.judge(window).fields["state"] == watch.state == "no_baseline"
    assert watch.interrupt("no_data", "unplugged") is not None


def test_real_bearing_is_judged(tmp_path: Path, encoder: EncoderSession) -> None:
    """Of a real bearing, healthy takes that were kept out are normal throughout and faults of both races are alarms."""
    folder = EXAMPLES / "bearing"
    place: dict[str, Any] = {"asset": "bearing", "channel": "vibration"}
    takes = [read_recording(folder / f"healthy-{rpm}rpm-{part}.flac") for rpm in (600, 900, 1200) for part in "ab"]
    with Store(tmp_path) as store:
        enroll(store, encoder, takes, **place, window_s=0.64)
        final = {}
        for name in ("healthy-900rpm-c", "inner-5-900rpm", "outer-5-1200rpm"):
            results = list(
                score_recording(store, encoder, read_recording(folder / f"{name}.flac"), **place, hop_s=0.32)
            )
            final[name] = [result["state"] for result in results]
            assert results[0]["bands"][-1]["high_hz"] == 25_600
    assert set(final["healthy-900rpm-c"]) == {"normal"}
    assert set(final["inner-5-900rpm"][1:]) == {"alarm"}
    assert set(final["outer-5-1200rpm"][1:]) == {"alarm"}
