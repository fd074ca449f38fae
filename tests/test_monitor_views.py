"""Views in the runtime: enrolled, stored, weighed, published; and everything as before without them."""

import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import micro
import numpy as np
import pytest
from command import run
from machine import RATE_HZ, recording, sound_file

from fisher_edge.database import DATABASE_NAME, MIGRATIONS
from fisher_edge.decision import baselines
from fisher_edge.decision.enrol import enroll, windows_of
from fisher_edge.decision.evidence import Fusion
from fisher_edge.decision.monitor import FAR, UNLIKE_ANYTHING, load_monitor
from fisher_edge.decision.score import score_recording
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.views import View, view_vector
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.ort import EncoderSession
from fisher_edge.errors import BadInputError, UsageError
from fisher_edge.publish.message import channel_message, encode
from fisher_edge.sources.recording import Recording
from fisher_edge.store import Store
from fisher_export.pipeline import export
from fisher_train.checkpoint import load_checkpoint, save_checkpoint

CHECKPOINT = Path(__file__).parents[1] / "train" / "checkpoints" / "nano"
PLACE: dict[str, Any] = {"asset": "pump-1", "channel": "vib-de"}
WINDOW: dict[str, Any] = {"window_s": 0.96, "hop_s": 0.96}
VIEWS = (View("envelope"), View("slow", 200, 400))
STRIKES = {"inner race": 131.0, "outer race": 88.0}
RINGS_HZ = (2600.0, 4200.0, 5800.0, 3400.0)
"""Resonance of each specimen: what the signal sees first."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle of the shipped weights as the first versions were: windows are embedded whole."""
    folder = tmp_path_factory.mktemp("bundle")
    shipped = load_checkpoint(CHECKPOINT)
    save_checkpoint(folder / "nano", replace(shipped, front_end=replace(shipped.front_end, piece_frames=0)))
    return export(folder / "nano", folder / "whole", "fp32", micro.signals()).path


def changed_bundle(base: Path, folder: Path, change: dict[str, Any]) -> Path:
    """Copy a bundle and change the front-end in its manifest."""
    shutil.copytree(base, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["front_end"].update(change)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def bundle(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle whose manifest lists two views."""
    folder = tmp_path_factory.mktemp("bundle") / "viewed"
    return changed_bundle(whole, folder, {"views": [view.to_dict() for view in VIEWS]})


@pytest.fixture(scope="module")
def viewed(bundle: Path) -> EncoderSession:
    """Return the encoder of that bundle."""
    return EncoderSession(load_bundle(bundle))


@pytest.fixture(scope="module")
def plain(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> EncoderSession:
    """Return the same encoder without views."""
    folder = tmp_path_factory.mktemp("bundle") / "plain"
    return EncoderSession(load_bundle(changed_bundle(whole, folder, {"views": []})))


def bearing(label: str | None, specimen: int, take: int = 0, seconds: float = 4.0) -> Recording:
    """Return a bearing: noise at a frequency of its own that swells with the shaft or with the strikes of a fault."""
    random = np.random.default_rng([specimen, take, len(label or "")])
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    swell = 0.2 + (time_s * STRIKES.get(label or "", 29.0) % 1 < 0.3)
    ring = np.sin(2 * np.pi * RINGS_HZ[specimen] * time_s) * np.convolve(
        random.normal(size=len(time_s)), np.ones(16), "same"
    )
    wave = swell * ring + 0.1 * random.standard_normal(len(time_s))
    return Recording(Path(f"{label}-{specimen}-{take}.wav"), wave.astype(np.float32), RATE_HZ)


def enroll_bearings(store: Store, session: EncoderSession, specimens: int = 3, *, named: bool = True) -> None:
    """Enrol healthy bearings and examples of both faults, one recording of each of some specimens."""
    for label in (None, *STRIKES):
        takes = [bearing(label, specimen) for specimen in range(specimens)]
        names = [f"{label or 'healthy'} {specimen}" for specimen in range(specimens)] if named else []
        enroll(store, session, takes, **PLACE, **WINDOW, label=label, specimens=names)


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory, viewed: EncoderSession) -> Path:
    """Return a state directory with three specimens of each state, enrolled with views; tests only read it."""
    folder = tmp_path_factory.mktemp("enrolled")
    with Store(folder) as store:
        enroll_bearings(store, viewed)
    return folder


def scored(folder: Path, session: EncoderSession, taken: Recording) -> list[dict[str, Any]]:
    """Return the results of a recording."""
    with Store(folder) as store:
        return list(score_recording(store, session, taken, **PLACE))


def test_enrolment_stores_the_views_of_every_window(enrolled: Path, viewed: EncoderSession) -> None:
    """Beside the embeddings there are the views of the very same segments, their calibration and the specimens."""
    with Store(enrolled) as store:
        normal = store.baselines(active_only=True)[0]
    windows = [
        window
        for specimen in range(3)
        for window in windows_of(bearing(None, specimen), viewed.bundle.front_end, *WINDOW.values())
    ]
    assert normal.views is not None
    assert normal.views.shape == (len(windows), 300 + 80) == (12, 380)
    for row, window in zip(normal.views, windows, strict=True):
        parts = [view_vector(view, window.samples, RATE_HZ) for view in VIEWS]
        np.testing.assert_array_equal(row, np.concatenate(parts))
    assert normal.facts["specimens"] == ["healthy 0", "healthy 1", "healthy 2"]
    assert baselines.views_of(normal) == list(VIEWS)
    assert [len(each["held_out"]) for each in normal.facts["views"]] == [12, 12]


def test_view_names_the_fault_of_a_specimen_nobody_enrolled(enrolled: Path, viewed: EncoderSession) -> None:
    """The envelope gets a weight, and with it the faults of a fourth specimen are named, which the signal cannot do."""
    with Store(enrolled) as store:
        weights = store.fusion(**PLACE)
        assert weights is not None
        fusion = Fusion.from_dict(weights)
        assert fusion.classes_with_two_units == fusion.classes == 3
        assert fusion.weights[0] > 0
        assert fusion.accuracy is not None
        assert fusion.fused_accuracy is not None
        assert fusion.fused_accuracy > fusion.accuracy + 0.2
        named: dict[bool, int] = {}
        for with_views in (True, False):
            if not with_views:
                store.set_fusion(**PLACE, weights=None)
            results = [
                (label, result)
                for label in STRIKES
                for result in score_recording(store, viewed, bearing(label, 3), **PLACE)
            ]
            named[with_views] = sum(result["fault"]["label"] == label for label, result in results)
            assert len(results) == 8
        store.set_fusion(**PLACE, weights=weights)
    assert named[True] == 8
    assert named[False] < named[True]


def test_fault_of_a_specimen_as_far_as_the_enrolled_ones_is_named(tmp_path: Path, viewed: EncoderSession) -> None:
    """A steady machine has a tight threshold; a fault is named all the same where its specimens lie that far apart."""
    said = {}
    with Store(tmp_path) as store:
        enroll(store, viewed, [bearing(None, 0, take) for take in range(4)], **PLACE, **WINDOW)
        for count in (1, 3):
            for label in STRIKES:
                takes = [bearing(label, specimen) for specimen in range(count)]
                enroll(store, viewed, takes, **PLACE, **WINDOW, label=label)
            said[count] = list(score_recording(store, viewed, bearing("inner race", 3), **PLACE))
    assert {result["fault"]["label"] for result in said[1]} == {UNLIKE_ANYTHING}
    assert {result["fault"]["label"] for result in said[3]} == {"inner race"}
    assert min(result["distance"] for result in said[3]) > FAR * said[3][0]["threshold"]


def test_result_has_weight_and_z_of_every_view(enrolled: Path, viewed: EncoderSession) -> None:
    """A healthy window is near the others in both views; strikes are far in the envelope."""
    with Store(enrolled) as store:
        fusion = store.fusion(**PLACE)
    assert fusion is not None
    healthy, struck = (scored(enrolled, viewed, bearing(label, 1, take=9)) for label in (None, "inner race"))
    for result in (*healthy, *struck):
        assert [view["name"] for view in result["views"]] == ["envelope-600hz", "slow-200hz"]
        assert [view["weight"] for view in result["views"]] == [view["weight"] for view in fusion["views"]]
        message = channel_message("result", result, gateway="g", **PLACE, boot=1, seq=1)
        assert json.loads(encode(message))["views"] == result["views"]
    assert max(abs(result["views"][0]["z"]) for result in healthy) < 4
    assert min(result["views"][0]["z"] for result in struck) > 10


def test_view_of_an_enrolled_window_is_at_distance_zero(enrolled: Path, viewed: EncoderSession) -> None:
    """Z counts from the median of the held-out windows in their spread: an enrolled window is a median below it."""
    with Store(enrolled) as store:
        normal = store.baselines(active_only=True)[0]
    for number, facts in enumerate(normal.facts["views"]):
        median = np.median(facts["held_out"])
        spread = max(1.4826 * np.median(np.abs(facts["held_out"] - median)), 0.05 * median)
        for result in scored(enrolled, viewed, bearing(None, 2)):
            assert result["views"][number]["z"] == pytest.approx(-median / spread, abs=1e-3)


def test_distance_is_the_same_with_and_without_views(
    enrolled: Path, viewed: EncoderSession, plain: EncoderSession
) -> None:
    """Views are evidence beside the distance: distance, ratio, p-value and state do not know them."""
    taken = bearing("outer race", 3)
    with_views, without = (scored(enrolled, session, taken) for session in (viewed, plain))
    for left, right in zip(with_views, without, strict=True):
        assert right["views"] == []
        for name in ("distance", "ratio", "p_value", "state", "bands"):
            assert left[name] == right[name]


def test_weights_follow_what_is_enrolled(tmp_path: Path, viewed: EncoderSession) -> None:
    """Adding, removing, activating and replacing examples learns anew; without examples there is nothing to weigh."""

    def classes(store: Store) -> tuple[int, int] | None:
        fusion = store.fusion(**PLACE)
        return (fusion["classes"], fusion["classes_with_two_units"]) if fusion else None

    with Store(tmp_path) as store:
        enroll(store, viewed, [bearing(None, unit) for unit in range(2)], **PLACE, **WINDOW)
        assert classes(store) is None
        first = enroll(store, viewed, [bearing("inner race", 0)], **PLACE, **WINDOW, label="inner race")
        assert classes(store) == (2, 1)
        assert first.fusion is not None
        assert first.fusion.to_dict() == store.fusion(**PLACE)
        both = [bearing("inner race", unit) for unit in range(2)]
        enroll(store, viewed, both, **PLACE, **WINDOW, label="inner race")
        assert classes(store) == (2, 2)
        enroll(store, viewed, both, **PLACE, **WINDOW, label="inner race", specimens=["B7"])
        assert classes(store) == (2, 1), "two recordings of one specimen are one unit"
        baselines.activate(store, PLACE["asset"], PLACE["channel"], "inner race", 2)
        assert classes(store) == (2, 2)
        baselines.remove(store, PLACE["asset"], PLACE["channel"], "inner race")
        assert classes(store) is None


def test_enrolment_and_weights_are_one_transaction(
    tmp_path: Path, viewed: EncoderSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the weights cannot be learnt, neither the new baseline nor its removal of the old one is kept."""
    with Store(tmp_path) as store:
        for label in (None, "inner race"):
            enroll(store, viewed, [bearing(label, unit) for unit in range(2)], **PLACE, **WINDOW, label=label)
        before = store.fusion(**PLACE)

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(baselines, "weigh", fail)
        for label in STRIKES:
            with pytest.raises(ZeroDivisionError):
                enroll(store, viewed, [bearing(label, 2)], **PLACE, **WINDOW, label=label)
        assert [(row.label, row.version, row.active) for row in store.baselines()] == [
            (None, 1, True),
            ("inner race", 1, True),
        ]
        assert store.fusion(**PLACE) == before


def test_kill_while_faults_are_enrolled_leaves_weights_that_fit(tmp_path: Path, bundle: Path) -> None:
    """However often the process is killed, the weights kept are those of the baselines that are active."""
    code = """
        import sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[1])
        from test_monitor_views import PLACE, STRIKES, WINDOW, bearing
        from fisher_edge.decision.enrol import enroll
        from fisher_edge.encoder.bundle import load_bundle
        from fisher_edge.encoder.ort import EncoderSession
        from fisher_edge.store import Store
        session = EncoderSession(load_bundle(sys.argv[2]))
        takes = {label: [bearing(label, unit, seconds=2.0) for unit in range(2)] for label in (None, *STRIKES)}
        with Store(Path(sys.argv[3])) as store:
            while True:
                for label, recordings in takes.items():
                    count = 1 + store.query("SELECT count(*) FROM baseline")[0][0] % 2 if label else 2
                    enroll(store, session, recordings[:count], **PLACE, **{**WINDOW, "hop_s": 0.48}, label=label)
                    print("enrolled", flush=True)
    """
    chance = random.Random(0)
    arguments = [str(Path(__file__).parent), str(bundle), str(tmp_path)]
    for _ in range(3):
        command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(4):
                assert child.stdout.readline() == "enrolled\n"
            time.sleep(chance.uniform(0, 0.2))
            child.send_signal(signal.SIGKILL)
            child.stdout.read()
        with Store(tmp_path) as store:
            kept = store.fusion(**PLACE)
            active = {row.label: row for row in store.baselines(active_only=True)}
            baselines.activate(store, PLACE["asset"], PLACE["channel"], None, active[None].version)
            assert kept == store.fusion(**PLACE)
            assert kept is not None
            assert kept["classes"] == len(active) >= 2


def first_schema(folder: Path) -> None:
    """Take a database back to the first schema: no column for views, no weights, and facts as they were."""
    with sqlite3.connect(folder / DATABASE_NAME) as connection:
        connection.execute("DROP TABLE fusion")
        connection.execute("ALTER TABLE baseline DROP COLUMN views")
        for name in ("views", "specimens", "front_end"):
            connection.execute(f"UPDATE baseline SET facts = json_remove(facts, '$.{name}')")
        connection.execute("PRAGMA user_version = 1")
    connection.close()


def test_database_of_the_first_schema_serves_on(tmp_path: Path, viewed: EncoderSession, plain: EncoderSession) -> None:
    """What was enrolled before there were views judges as before, votes by the signal, and takes new examples."""
    with Store(tmp_path) as store:
        enroll_bearings(store, plain, 2)
    taken = bearing("inner race", 1, take=5)
    before = scored(tmp_path, plain, taken)
    first_schema(tmp_path)
    with Store(tmp_path) as store:
        assert store.query("PRAGMA user_version") == [(len(MIGRATIONS),)]
        assert all(row.views is None for row in store.baselines())
        assert store.fusion(**PLACE) is None
    for result, old in zip(scored(tmp_path, viewed, taken), before, strict=True):
        assert result["views"] == []
        for name in ("distance", "ratio", "p_value", "state", "bands", "fault"):
            assert result[name] == old[name]
    with Store(tmp_path) as store:
        again = enroll(store, viewed, [bearing("inner race", 0)], **PLACE, **WINDOW, label="inner race")
    assert again.fusion is not None
    assert (again.fusion.classes, again.fusion.views) == (3, ()), "the normal state has no views yet"
    assert scored(tmp_path, viewed, taken)[0]["fault"]["k"] == 5


def test_bundle_that_lost_a_view_uses_the_others(
    enrolled: Path, whole: Path, tmp_path: Path, viewed: EncoderSession
) -> None:
    """A bundle that lists one of the enrolled views gives that one, and the vote goes without the other."""
    one = EncoderSession(load_bundle(changed_bundle(whole, tmp_path / "one", {"views": [VIEWS[1].to_dict()]})))
    (result, *_), (full, *_) = (scored(enrolled, session, bearing("inner race", 3)) for session in (one, viewed))
    assert result["views"] == full["views"][1:]
    assert result["distance"] == full["distance"]
    assert result["fault"] is not None


def test_other_cut_of_the_top_band_is_another_front_end(
    enrolled: Path, whole: Path, tmp_path: Path, plain: EncoderSession
) -> None:
    """The same weights behind other bands give embeddings that cannot be compared: refused, for old baselines too."""
    overlapping = EncoderSession(load_bundle(changed_bundle(whole, tmp_path / "b", {"top_band": "overlap"})))
    with Store(enrolled) as store, pytest.raises(BadInputError, match="with another front-end than that of") as caught:
        load_monitor(store, overlapping, **PLACE)
    assert "\n" not in str(caught.value)
    folder = tmp_path / "old"
    with Store(folder) as store:
        enroll(store, plain, [recording(seed) for seed in range(2)], **PLACE, **WINDOW)
    first_schema(folder)
    with Store(folder) as store, pytest.raises(BadInputError, match="with another front-end"):
        load_monitor(store, overlapping, **PLACE)


def test_shares_of_overlapping_bands_add_up(whole: Path, tmp_path: Path) -> None:
    """At 12.8 kHz the top band overlaps with the one below; Hz ranges say so, and the shares are the distance."""
    session = EncoderSession(load_bundle(changed_bundle(whole, tmp_path / "b", {"top_band": "overlap"})))
    waves: list[FloatArray] = [
        np.random.default_rng(seed).standard_normal(30_000).astype(np.float32) for seed in range(3)
    ]
    takes = [Recording(Path(f"{number}.wav"), wave, 12_800) for number, wave in enumerate(waves)]
    with Store(tmp_path) as store:
        enroll(store, session, takes[:2], **PLACE, **WINDOW)
        result = next(score_recording(store, session, takes[2], **PLACE))
    edges = [(band["low_hz"], band["high_hz"]) for band in result["bands"]]
    assert edges == [(0, 2000), (2000, 4000), (4000, 6000), (4440, 6400)]
    assert sum(band["share"] for band in result["bands"]) == pytest.approx(result["distance"], abs=1e-6)


@pytest.mark.parametrize(
    ("specimens", "reason"),
    [
        (["B1", "B2", "B3"], "3 specimens for 2 recordings; give --specimen once for all"),
        (["B1", " "], "specimen ' ' names nothing"),
        (["B\n1"], r"specimen 'B\\n1' names nothing"),
    ],
)
def test_specimens_that_do_not_fit_are_refused(
    tmp_path: Path, viewed: EncoderSession, specimens: list[str], reason: str
) -> None:
    """As many as recordings, or one for all, and each with a name; nothing is stored otherwise."""
    with Store(tmp_path) as store:
        with pytest.raises(UsageError, match=reason):
            enroll(store, viewed, [recording(0), recording(1)], **PLACE, **WINDOW, specimens=specimens)
        assert store.baselines() == []


def test_commands_tell_specimens_and_weights(tmp_path: Path, bundle: Path, viewed: EncoderSession) -> None:
    """`enroll --specimen` and `baseline list` say in plain words by what faults are named and how often rightly."""
    with Store(tmp_path) as store:
        for label in (None, "inner race"):
            takes = [bearing(label, unit) for unit in range(3)]
            enroll(
                store, viewed, takes, **PLACE, **WINDOW, label=label, specimens=[f"{label} {unit}" for unit in "012"]
            )
    state = ["--state-dir", str(tmp_path)]
    place = ["--asset", "pump-1", "--channel", "vib-de", "--label", "outer race", *state, "--model", str(bundle)]
    files = [sound_file(tmp_path / f"{unit}.wav", bearing("outer race", unit).samples) for unit in range(3)]
    names = [word for name in ("B1", "B2", "B2") for word in ("--specimen", name)]
    done = run("enroll", *files, *place, *names, "--window-s", 0.96, "--hop-s", 0.96)
    assert (done.returncode, done.stderr) == (0, "")
    told = done.stdout.splitlines()[-1]
    assert told.startswith("  faults are named by the signal and envelope-600hz (weight ")
    assert " right on a specimen or recording left out, " in told
    assert told.endswith("% by the signal alone")
    shown = run("baseline", "list", *state)
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert lines[-1] == told
    assert "  specimen inner race 0, inner race 1, inner race 2  " in lines[1]
    assert "  specimen B1, B2  " in lines[2]
    rows = json.loads(run("baseline", "list", *state, "--json").stdout)
    assert [row["specimens"] for row in rows][2] == ["B1", "B2", "B2"]
    assert rows[0]["fusion"]["views"][0]["weight"] > 0
    wrong = run("enroll", *files, *place, "--specimen", "a", "--specimen", "b")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)
