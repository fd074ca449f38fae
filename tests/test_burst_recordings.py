"""Recordings of bursts: enrolled and scored by the command line, kept, and refused with one line when wrong."""

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from command import run_here, troubles
from machine import RATE_HZ, machine_signal, sound_file

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.names import ChannelKey
from fisher_edge.sources.bursts import read_bursts
from fisher_edge.store.baselines import Baselines
from fisher_edge.store.database import DATABASE_NAME, Database
from fisher_edge.store.migration import STEPS

KEY = ChannelKey("pump-1", "wireless")
PLACE = ("--asset", KEY.asset, "--channel", KEY.channel, "--rate-hz", RATE_HZ)
ENROLL = ("enroll", *PLACE, "--bursts", "--burst-interval-s", 600)
SAMPLES = 1600  # 8 frames


def bursts(seed: int, count: int = 30, fault_hz: float = 0.0) -> FloatArray:
    """Return bursts (count, samples) of a machine that runs on between them."""
    return machine_signal(seed, count * 0.5, fault_hz=fault_hz).reshape(count, -1)[:, :SAMPLES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with arrays of bursts, enrolled in `state`."""
    made = tmp_path_factory.mktemp("bursts")
    for seed in range(3):
        np.save(made / f"{seed}.npy", bursts(seed))
    np.save(made / "healthy.npy", bursts(7))
    np.save(made / "faulty.npy", bursts(8, fault_hz=5000.0))
    np.save(made / "one.npy", bursts(7)[0])
    np.save(made / "few.npy", bursts(7, 11))
    np.save(made / "short.npy", bursts(7)[:, :300])
    np.save(made / "nan.npy", np.where(bursts(7) == bursts(7)[3, 5], np.float32(np.nan), bursts(7)))
    sound_file(made / "long.wav", machine_signal(3))
    for name, rate_hz in (("same", RATE_HZ), ("other", 8000)):
        (made / name).mkdir()
        for number, wave in enumerate(bursts(9)):
            sound_file(made / name / f"{number:02d}.wav", wave, rate_hz if number == 20 else RATE_HZ)
    done = run_here(*ENROLL, "0.npy", "1.npy", "2.npy", cwd=made)
    assert (done.returncode, troubles(done)) == (0, [])
    return made


def test_scored_bursts_have_real_times_and_states(folder: Path) -> None:
    """A window joins twelve bursts, the next begins three later, healthy stays normal, a fault ends in an alarm."""
    states = {}
    for name in ("healthy.npy", "faulty.npy"):
        done = run_here("score", name, *PLACE, "--json", cwd=folder)
        assert (done.returncode, done.stderr) == (0, "")
        results = [json.loads(line) for line in done.stdout.splitlines()]
        states[name] = [result["state"] for result in results]
        assert [result["time"] for result in results[:2]] == ["1970-01-01T01:50:00.100Z", "1970-01-01T02:20:00.100Z"]
        assert results[0]["window_s"] == 7200
    assert states["healthy.npy"] == ["normal"] * 7
    assert states["faulty.npy"][-1] == "alarm"


def test_files_of_one_burst_each_give_the_windows_of_the_array(folder: Path, tmp_path: Path) -> None:
    """Files of a folder are one recording, in the order given, with the same result as the rows of an array."""
    np.save(tmp_path / "same.npy", bursts(9))
    files = sorted((folder / "same").iterdir())
    lines = [
        run_here("score", *paths, *PLACE[:4], *rate, "--state-dir", folder / "state").stdout.splitlines()
        for paths, rate in ((files, ()), ([tmp_path / "same.npy"], PLACE[4:]))
    ]
    assert len(lines[0]) == 9
    assert lines[0] == lines[1]


def test_baseline_remembers_that_it_is_one_of_bursts(folder: Path) -> None:
    """Grid, time factor and lengths survive the store; kept bursts are embedded again to the same windows."""
    done = run_here("baseline", "reembed", *PLACE[:4], cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    with Database(folder / "state") as database:
        first, second = (Baselines(database).get(KEY, None, version) for version in (1, 2))
    assert first is not None
    assert second is not None
    grid = first.grid
    assert (grid.bursts, grid.piece_frames, grid.piece_hop_frames, grid.window_pieces) == (True, 96, 24, 1)
    assert (grid.time_factor, grid.window_s, grid.hop_s) == pytest.approx((7500, 7200, 1800))
    assert (first.views, first.view_calibrations) == (None, ())
    np.testing.assert_allclose(first.offset_s[:3], [6600.1, 8400.1, 10_200.1])
    np.testing.assert_array_equal(first.vectors, second.vectors)
    np.testing.assert_allclose(first.offset_s, second.offset_s)
    assert second.grid.time_factor == pytest.approx(7500)


def test_unknown_interval_is_told(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without an interval bursts follow each other at once, and enrollment says what that means."""
    done = run_here(*ENROLL[:-2], *sorted(folder.glob("[012].npy")), "--json", "--state-dir", tmp_path / "state")
    assert done.returncode == 0
    assert json.loads(done.stdout)["window_s"] == pytest.approx(1.2)
    assert "enroll again with --burst-interval-s" in caplog.text


def test_times_of_bursts(folder: Path) -> None:
    """Bursts begin as given or at once after each other, and blocks jump from one to the next."""
    (given,) = read_bursts([folder / "0.npy"], rate_hz=RATE_HZ, interval_s=2)
    (at_once,) = read_bursts([folder / "0.npy"], rate_hz=RATE_HZ)
    assert given.starts_s[:3] == (0, 2, 4)
    assert at_once.starts_s[:3] == pytest.approx((0, 0.1, 0.2))
    assert (given.interval_s, at_once.interval_s) == pytest.approx((2, 0.1))
    assert [(block.index, block.time_s, len(block.samples)) for block in given.stream()][:2] == [
        (0, 0.0, SAMPLES),
        (SAMPLES + 1, 2.0, SAMPLES),
    ]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((*ENROLL, "one.npy"), "one.npy has one dimension and is a single burst; give the files of all bursts, or"),
        ((*ENROLL, "few.npy"), "few.npy has 11 bursts with 88 whole frames, a window takes 96; record more bursts"),
        ((*ENROLL, "short.npy"), "short.npy: burst 1 has 300 samples, fewer than one frame of 400 (25 ms at 16000 Hz)"),
        ((*ENROLL, "nan.npy"), "nan.npy holds 1 samples that are not finite"),
        ((*ENROLL[:5], "--bursts", "0.npy"), "0.npy carries no sampling rate; give it with --rate-hz"),
        ((*ENROLL, "0.npy", "--input-channel", 0), "0.npy holds bursts of one channel, a row each; leave"),
        ((*ENROLL[:-1], 0.05, "0.npy"), "0.npy last 0.1 s and cannot begin every 0.05 s; give the time from"),
        (
            (*ENROLL[:5], "--bursts", *(f"other/{number:02d}.wav" for number in range(30))),
            "bursts in other have 8000, 16000 Hz; give bursts of one rate",
        ),
        (("enroll", *PLACE, "0.npy"), "has 1600 channels; choose one of 0 to 1599 with --input-channel"),
        (("enroll", *PLACE, "0.npy"), "or enroll with --bursts when its rows are bursts"),
        (("enroll", *PLACE[:4], "long.wav", "--burst-interval-s", 9), "--burst-interval-s is for a sensor that sends"),
        (("enroll", *PLACE[:4], "long.wav", "--label", "x"), "was enrolled from bursts; give --bursts, or enroll the"),
        (("score", *PLACE[:4], "long.wav"), "long.wav has one dimension and is a single burst"),
        (("score", *PLACE, "0.npy", "1.npy"), "2 recordings were given; score one at a time"),
        (("score", *PLACE, "0.npy", "--state-dir", "unbroken"), "0.npy has 1600 channels"),
    ],
)
def test_wrong_use_is_refused(folder: Path, words: tuple[object, ...], reason: str) -> None:
    """Each mistake is one line that says what is wrong and what to do, and changes nothing."""
    if "unbroken" in words and not (folder / "unbroken").exists():
        assert run_here("enroll", *PLACE[:4], "long.wav", "--state-dir", "unbroken", "--window-s", 0.64,
                        cwd=folder).returncode == 0  # fmt: skip
    with Database(folder / "state") as database:
        before = Baselines(database).generation()
    done = run_here(*words, cwd=folder)
    assert done.returncode in {2, 4}
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1
    with Database(folder / "state") as database:
        assert Baselines(database).generation() == before


def test_baselines_of_the_schema_before_are_not_of_bursts(folder: Path, tmp_path: Path) -> None:
    """A baseline of schema 3 is one of an unbroken stream after the migration, with the lengths it had."""
    done = run_here("enroll", *PLACE[:4], folder / "long.wav", "--window-s", 0.64, "--state-dir", tmp_path)
    assert done.returncode == 0
    connection = sqlite3.connect(tmp_path / DATABASE_NAME)
    for column in ("bursts", "time_factor", "sensitivity"):
        connection.execute(f"ALTER TABLE baseline DROP COLUMN {column}")
    connection.execute("ALTER TABLE baseline_state DROP COLUMN given")
    connection.execute("DROP TABLE command")
    connection.execute("ALTER TABLE baseline_state ADD COLUMN level_held_out BLOB NOT NULL DEFAULT x''")
    connection.execute("PRAGMA user_version = 3")
    connection.commit()
    connection.close()
    with Database(tmp_path) as database:
        assert database.query("PRAGMA user_version") == [(len(STEPS),)]
        baseline = Baselines(database).get(KEY, None)
    assert baseline is not None
    assert (baseline.grid.bursts, baseline.grid.time_factor, baseline.grid.window_s) == (False, 1.0, 0.64)
