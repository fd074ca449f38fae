"""The judge: the same windows and splits for encoders and cheap spectra."""

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fisher_bench.judge.bands import band_scores
from fisher_bench.judge.cli import main
from fisher_bench.judge.corpus import MOST_WINDOWS, moments, read_dataset
from fisher_bench.judge.judge import Result, evaluate
from fisher_bench.judge.noise import noise_of
from fisher_bench.judge.report import table
from fisher_bench.judge.represent import CHEAP, encoded, viewed
from fisher_bench.judge.tasks import tasks_of
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import stretches
from fisher_edge.dsp.views import MODULATION, View, view_vector
from fisher_edge.errors import BadInputError, UsageError

RATE_HZ = 2000
FRONT_END = FrontEnd(band_width=50, top_band="pad", amplitude="standardise")
SPEEDS = (800, 1000, 1200, 1400)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset like UESTC's: four classes at four speeds, distinguished by the band of their noise."""
    folder = tmp_path_factory.mktemp("data") / "uestc_bearing"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number, label in enumerate(("ball", "inner", "normal", "outer")):
        for speed in SPEEDS:
            spectrum = np.fft.rfft(rng.standard_normal(4 * RATE_HZ))
            spectrum *= 1 + 9 * (np.arange(len(spectrum)) // (len(spectrum) // 4 + 1) == number)
            wave = np.fft.irfft(spectrum)
            scale = float(np.abs(wave).max()) / 32767
            name = f"{label}_{speed}"
            np.save(folder / f"{name}.npy", (wave / scale).astype(np.int16))
            rows.append(
                {"file": f"{name}.npy", "dataset": "uestc_bearing", "recording": name, "channel": "acc"}
                | {"class": label, "sample_rate_hz": RATE_HZ, "scale": scale, "speed_rpm": speed, "split_unit": name}
            )
    with (folder / "meta.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder.parent


def _results(data_dir: Path, name: str) -> dict[str, Result]:
    results = evaluate(data_dir, {name: CHEAP[name](FRONT_END)}, {}, datasets=("uestc",))
    return {result.task: result for result in results}


def test_windows_are_even_and_capped(data_dir: Path) -> None:
    """A recording of 4 s gives 4 windows of 1 s, 8 of 0.25 s, and 1 of itself when windows are longer."""
    counts = [len(read_dataset(data_dir / "uestc_bearing", seconds)) / 16 for seconds in (1.0, 0.25, 10.0)]
    assert counts == [4, MOST_WINDOWS, 1]
    assert {len(window.wave) for window in read_dataset(data_dir / "uestc_bearing", 10.0)} == {4 * RATE_HZ}


def test_spectra_tell_the_classes_apart_and_envelopes_do_not(data_dir: Path) -> None:
    """The classes differ in their spectrum alone: a judge that did not measure could not say so."""
    spectra, envelopes = _results(data_dir, "mean log-STFT"), _results(data_dir, "envelope spectrum")
    assert spectra["uestc, other recordings"].mean == 100
    assert spectra["uestc, unseen speed"].mean == 100
    assert spectra["uestc, any one class"].mean == 100
    assert envelopes["uestc, other recordings"].mean < 70
    assert envelopes["uestc, any one class"].mean < 95


def test_no_unit_is_enrolled_and_asked(data_dir: Path) -> None:
    """Every split of every task keeps the windows of a recording on one side, and asks about known classes."""
    windows = read_dataset(data_dir / "uestc_bearing", 1.0)
    units = np.asarray([window.unit for window in windows])
    tasks = tasks_of("uestc", windows)
    assert {task.name: len(task.splits) for task in tasks} == {
        "uestc, other recordings": 10,
        "uestc, unseen speed": 4,
        "uestc, any one class": 40,
        "uestc, healthy": 10,
    }
    for task in tasks:
        for split in task.splits:
            assert not set(units[split.enrolled]) & set(units[split.asked])
            if task.kind == "accuracy":
                assert set(task.labels[split.asked]) <= set(task.labels[split.enrolled])


def test_fused_results_stand_beside_plain_ones(data_dir: Path) -> None:
    """With a view each accuracy is given twice; one specimen a class gives the view no say, so both agree."""
    mean = CHEAP["mean log-STFT"](FRONT_END)
    results = list(
        evaluate(data_dir, {"mean": mean}, {"envelope": viewed(View("envelope"), FRONT_END)}, datasets=("uestc",))
    )
    accuracies = [result for result in results if result.kind == "accuracy"]
    assert sorted(result.fused for result in accuracies) == [False, False, True, True]
    assert {result.splits for result in accuracies if result.task == "uestc, unseen speed"} == {(100.0,) * 4}


def test_table_shows_mean_spread_and_seeds() -> None:
    """Two seeds of one recipe share a column: mean over both, spread over splits, range in the summary."""
    results = [
        Result("t", "accuracy", "a", fused=False, splits=(40.0, 60.0)),
        Result("t", "accuracy", "b", fused=False, splits=(60.0, 80.0)),
    ]
    lines = table(results, {"a": "ours", "b": "ours"}).splitlines()
    assert lines[0] == "| | ours |"
    assert lines[2] == "| t | 60.0 ± 10.0 |"
    assert lines[3] == "| **mean of 1 accuracies** | **60.0** (50.0 to 70.0) |"


def test_simultaneous_channels_share_one_deviation(tmp_path: Path) -> None:
    """Two channels of one recording keep their ratio of levels, and are one moment."""
    rng = np.random.default_rng(1)
    wave = rng.standard_normal(RATE_HZ)
    for name, gain in (("loud", 3.0), ("soft", 1.0)):
        np.save(tmp_path / f"{name}.npy", (gain * wave).astype(np.float32))
    header = "file,recording,channel,class,split_unit,sample_rate_hz,scale\n"
    rows = "".join(f"{name}.npy,r1,{name},normal,r1,{RATE_HZ},1\n" for name in ("loud", "soft"))
    (tmp_path / "meta.csv").write_text(header + rows)
    windows = read_dataset(tmp_path, 1.0)
    assert len({window.deviation for window in windows}) == 1
    assert np.std(windows[0].wave) == pytest.approx(3 * np.std(windows[1].wave), rel=1e-5)
    assert moments(windows) == [[0, 1]]


def test_pieces_are_standardised_each_by_itself(tmp_path: Path) -> None:
    """As in the gateway: a window whose level steps gives pieces of one level; channels of a moment stay related."""
    rng = np.random.default_rng(1)
    wave = rng.standard_normal(4 * RATE_HZ)
    wave[: 2 * RATE_HZ] *= 20
    for name, gain in (("loud", 3.0), ("soft", 1.0)):
        np.save(tmp_path / f"{name}.npy", (gain * wave).astype(np.float32))
    header = "file,recording,channel,class,split_unit,sample_rate_hz,scale\n"
    rows = "".join(f"{name}.npy,r1,{name},normal,r1,{RATE_HZ},1\n" for name in ("loud", "soft"))
    (tmp_path / "meta.csv").write_text(header + rows)
    seen: list[list[FloatArray]] = []

    def embed(pieces: Sequence[FloatArray]) -> FloatArray:
        seen.append(list(pieces))
        return pieces[0][:, 0]

    front_end = FrontEnd(band_width=50, top_band="pad", amplitude="standardise", piece_frames=96, piece_rule="grid")
    encoded(embed, front_end)(read_dataset(tmp_path, 4.0))
    levels = [[float(np.exp(2 * front_end.std * piece[:, :, :26]).mean()) for piece in pieces] for pieces in seen]
    assert [len(pieces) for pieces in seen] == [4, 4]
    for loud, soft in zip(*levels, strict=True):
        assert loud == pytest.approx(3 * soft, rel=0.01)
    assert levels[1][0] == pytest.approx(levels[1][3], rel=0.1)


def test_view_of_a_window_is_the_mean_of_that_of_its_pieces(tmp_path: Path) -> None:
    """As the gateway joins them."""
    np.save(tmp_path / "a.npy", np.random.default_rng(1).standard_normal(3 * RATE_HZ).astype(np.float32))
    (tmp_path / "meta.csv").write_text(HEADER + f"a.npy,r,0,normal,u,{RATE_HZ},1\n")
    (window,) = read_dataset(tmp_path, 3.0)
    front_end = FrontEnd(piece_frames=96, piece_rule="grid")
    parts = stretches(front_end, len(window.wave), RATE_HZ)
    assert len(parts) == 3
    by_hand = np.mean([view_vector(MODULATION, window.wave[part], RATE_HZ) for part in parts], axis=0)
    np.testing.assert_allclose(viewed(MODULATION, front_end)([window])[0], by_hand, atol=1e-6)


def test_folder_without_recordings_is_named(tmp_path: Path) -> None:
    """A folder that holds no dataset is one clear line."""
    with pytest.raises(BadInputError, match=r"meta\.csv"):
        read_dataset(tmp_path, 1.0)


HEADER = "file,recording,channel,class,split_unit,sample_rate_hz,scale\n"


@pytest.mark.parametrize(
    ("table_text", "samples", "message"),
    [
        (HEADER, 100, "lists no recording"),
        (HEADER.replace("split_unit,", "") + "a.npy,r,0,normal,2000,1\n", 100, "lacks the column split_unit"),
        (HEADER + "a.npy,r,0,normal,u,2000,1\n", 0, "a.npy has 0 samples"),
        (HEADER + "a.npy,r,0,normal,u,fast,1\n", 100, "fast"),
    ],
)
def test_damaged_dataset_is_named(tmp_path: Path, table_text: str, samples: int, message: str) -> None:
    """An empty table, a missing column, a recording without samples and a rate that is no number are one line."""
    (tmp_path / "meta.csv").write_text(table_text)
    np.save(tmp_path / "a.npy", np.zeros(samples, np.float32))
    with pytest.raises(BadInputError, match=message):
        read_dataset(tmp_path, 1.0)


@pytest.mark.parametrize("window_s", [0.0, -1.0, 0.001, float("nan"), float("inf")])
def test_window_that_is_no_time_is_refused(data_dir: Path, window_s: float) -> None:
    """A window holds a frame at least."""
    with pytest.raises(UsageError, match=f"window_s={window_s}"):
        read_dataset(data_dir / "uestc_bearing", window_s)


def test_command_prints_results_of_the_default_bundle(data_dir: Path) -> None:
    """`python -m fisher_bench.judge` judges the shipped bundle and prints one JSON object a result."""
    command = [sys.executable, "-m", "fisher_bench.judge", str(data_dir), "--encoder", "default", "--dataset", "uestc"]
    options = ["--cheap", "mean + std", "--target", "--json"]
    run = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert {row["representation"] for row in rows} == {"default", "default, band score", "mean + std", "exact target"}
    assert all(row["mean"] == pytest.approx(np.mean(row["splits"])) for row in rows)
    assert len(rows) == 20
    exact = [row for row in rows if (row["representation"], row["task"]) == ("exact target", "uestc, other recordings")]
    assert [row["mean"] for row in exact] == [100, 100]  # alone and fused: the peaks lie where the noise does


def test_dataset_without_its_condition_is_named(data_dir: Path) -> None:
    """A task that holds out a speed says which column it misses."""
    windows = [
        replace(window, facts={name: text for name, text in window.facts.items() if name != "speed_rpm"})
        for window in read_dataset(data_dir / "uestc_bearing", 1.0)
    ]
    with pytest.raises(BadInputError, match="lacks the column speed_rpm"):
        tasks_of("uestc", windows)


def noises(folder: Path, names: Sequence[str]) -> None:
    """Write sets of one second of a tone each, 100 Hz, 200 Hz and so on, at 4 kHz."""
    for number, name in enumerate(names, 1):
        (folder / name).mkdir()
        np.save(folder / name / "a.npy", np.sin(2 * np.pi * 100 * number * np.arange(4000) / 4000).astype(np.float32))
        (folder / name / "meta.csv").write_text(HEADER + "a.npy,r,0,normal,u,4000,1\n")


@pytest.mark.parametrize("noise_db", [0.0, -6.0])
def test_noise_is_that_of_two_other_machines_at_the_ratio(tmp_path: Path, noise_db: float) -> None:
    """The noise has the stated RMS and two tones at the right frequencies; it depends on the names alone."""
    noises(tmp_path, ["gear0_27ch", "ims_set1_first50", "drone_propeller_16k"])
    wave = np.random.default_rng(0).standard_normal(3 * RATE_HZ).astype(np.float32)
    row = {"split_unit": "u", "class": "normal", "recording": "r", "sample_rate_hz": str(RATE_HZ)}
    noise = noise_of(tmp_path, "gear0_27ch", noise_db)(wave, row) - wave
    assert 20 * np.log10(np.std(wave) / np.std(noise)) == pytest.approx(noise_db, abs=0.01)
    spectrum = np.abs(np.fft.rfft(noise))
    assert sorted(np.argsort(spectrum)[-2:] / 3) == [200, 300], "never that of the set itself"
    again, other = (noise_of(tmp_path, "gear0_27ch", noise_db)(wave, row | {"recording": name}) for name in ("r", "s"))
    np.testing.assert_array_equal(again - wave, noise)
    assert not np.allclose(other - wave, noise)


def test_noise_needs_two_other_sets(tmp_path: Path) -> None:
    """A set is never mixed with itself, so one more is not enough."""
    noises(tmp_path, ["gear0_27ch", "ims_set1_first50"])
    with pytest.raises(BadInputError, match="has 1 sets of noise for gear0_27ch"):
        noise_of(tmp_path, "gear0_27ch", 0.0)


def test_noise_costs_accuracy(data_dir: Path, tmp_path: Path) -> None:
    """In noise as loud as the signals the judge sees other recordings, and finds less."""
    (tmp_path / "uestc_bearing").symlink_to(data_dir / "uestc_bearing")
    noises(tmp_path, ["gear0_27ch", "ims_set1_first50", "drone_propeller_16k"])
    represent = {"mean": CHEAP["mean log-STFT"](FRONT_END)}
    clean, noisy = (
        {each.task: each.mean for each in evaluate(tmp_path, represent, {}, datasets=("uestc",), noise_db=noise_db)}
        for noise_db in (None, -20.0)
    )
    assert clean["uestc, any one class"] == 100
    assert noisy["uestc, any one class"] < 95


def test_band_score_is_the_mean_of_the_louder_half_of_bands() -> None:
    """By hand for three bands of one number; a query far in one band stands out where the others vary as ever."""
    random = np.random.default_rng(0)
    enrolled, asked = random.normal(1, 0.1, (9, 3)), random.normal(1, 0.1, (4, 3))
    asked[0, 1] = 3
    units = np.repeat(["a", "b", "c"], 3)
    z = np.zeros((4, 3))
    for band in range(3):
        nearest = [
            min((own - other) ** 2 for other, unit in zip(enrolled[:, band], units, strict=True) if unit != mine)
            for own, mine in zip(enrolled[:, band], units, strict=True)
        ]
        logs = np.log(nearest)
        median = np.median(logs)
        spread = 1.4826 * np.median(np.abs(logs - median)) + 0.15
        z[:, band] = [(np.log(min((one - enrolled[:, band]) ** 2)) - median) / spread for one in asked[:, band]]
    expected = np.sort(z, axis=1)[:, 1:].mean(axis=1)
    scores = band_scores(enrolled.astype(np.float32), asked.astype(np.float32), units, 1)
    np.testing.assert_allclose(scores, expected, rtol=0.01, atol=0.02)
    assert scores.argmax() == 0


def test_nothing_to_judge_is_refused(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a representation there is no empty table but an error."""
    assert main([str(data_dir), "--dataset", "uestc", "--cheap"]) == 2
    assert "nothing to judge" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--piece-frames", "3"], ["--piece-frames", "0"], ["--random", "-1"]])
def test_numbers_that_cannot_be_judged_are_refused(
    data_dir: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    """A piece shorter than a patch and fewer than no seeds are one line and exit code 2."""
    assert main([str(data_dir), "--encoder", "default", "--dataset", "uestc", *option]) == 2
    assert "cannot be judged" in capsys.readouterr().err
