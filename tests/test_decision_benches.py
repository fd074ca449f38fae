"""The benches of the decision on small made-up data: whole lives, and recordings kept out of the enrollment."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fisher_bench import coreset, lives, noticed, other_rate, quiet
from fisher_edge.config.schema import AlarmConfig
from fisher_edge.decision.evidence import Rates
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.select import open_encoder

RATE_HZ = 12_800


def write_set(folder: Path, rows: list[dict[str, Any]], waves: dict[str, np.ndarray]) -> None:
    """Write a dataset: one .npy of int16 for every file, and the table."""
    folder.mkdir(parents=True)
    for file, wave in waves.items():
        np.save(folder / file, np.round(wave * 1000).astype(np.int16))
    with (folder / "meta.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def vibration(samples: int, seed: int, tone_hz: float = 1000.0, tone: float = 0.5) -> np.ndarray:
    """Noise and a tone of the machine."""
    time_s = np.arange(samples) / RATE_HZ
    wave = np.random.default_rng(seed).normal(size=samples) + tone * np.sin(2 * np.pi * tone_hz * time_s)
    return np.asarray(wave, np.float64)


@pytest.fixture
def life(tmp_path: Path) -> Path:
    """One life of 200 bursts that changes its sound, not its level, at 60 %."""
    bursts = [vibration(1280, seed) if seed < 120 else vibration(1280, seed, 4000.0, 1.2) for seed in range(200)]
    bursts = [burst / burst.std() for burst in bursts]
    rows = [
        {
            "file": "a__x.npy",
            "channel": "x",
            "split_unit": "a",
            "sample_rate_hz": RATE_HZ,
            "scale": 0.001,
            "array_row": row,
            "time_s": 10 * row,
            "life_fraction": row / 199,
        }
        for row in range(200)
    ]
    write_set(tmp_path / "life", rows, {"a__x.npy": np.stack(bursts)})
    return tmp_path


def objects(capsys: pytest.CaptureFixture[str]) -> Iterator[dict[str, Any]]:
    """Objects that were printed."""
    return map(json.loads, capsys.readouterr().out.splitlines())


def test_life_is_alarmed_when_its_sound_changes(life: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The encoder alarms soon after the change, the level never; a picture shows it."""
    assert lives.main([str(life), "--dataset", "life", "--json", "--plots", str(life / "plots")]) == 0
    (found,) = objects(capsys)
    assert (found["life"], found["channel"], found["level_alarm"]) == ("a", "x", None)
    assert 0.6 <= found["first_warning"] <= found["first_alarm"] < 0.75
    assert found["kind"] in {"sudden", "persistent"}
    assert "svg" in (life / "plots" / "a-x.svg").read_text(encoding="utf-8")


def test_table_counts_what_never_alarms(life: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A life without an alarm counts as 1 in the median."""
    assert lives.main([str(life), "--dataset", "life"]) == 0
    assert "x, level_alarm: median 1.00, never 1 of 1" in capsys.readouterr().out


def test_life_is_alarmed_by_a_coreset(life: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Compared with a third of the enrolled windows, the alarm still comes soon after the change."""
    assert lives.main([str(life), "--dataset", "life", "--json", "--most", "8", "--hop-bursts", "2"]) == 0
    (found,) = objects(capsys)
    assert 0.6 <= found["first_alarm"] < 0.75


def test_cost_of_many_windows_is_a_row_with_and_one_without_a_coreset(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bank shrinks to what is compared with; fewer windows than takes can hold are refused."""
    monkeypatch.setattr(coreset, "MOST_WINDOWS", 40)
    assert coreset.main(["--windows", "80"]) == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["80", "80"], ["80", "40"]]
    assert all(float(row[3]) > 0 for row in rows)
    assert coreset.main(["--windows", "10"]) == 2
    assert "give numbers of at least 40" in capsys.readouterr().err


@pytest.fixture
def machines(tmp_path: Path) -> Path:
    """Four healthy recordings of two speeds twice, and a faulty one."""
    waves, rows = {}, []
    for number, (label, speed, tone_hz) in enumerate(
        [("normal", "900", 1000.0), ("normal", "1200", 1400.0), ("normal", "1500", 1800.0), ("inner", "900", 5000.0)]
    ):
        file = f"{label}-{speed}.npy"
        waves[file] = vibration(10 * RATE_HZ, number, tone_hz, 3.0)
        rows.append(
            {
                "file": file,
                "recording": file,
                "channel": "x",
                "class": label,
                "load": "",
                "speed_rpm": speed,
                "sample_rate_hz": RATE_HZ,
                "scale": 0.001,
            }
        )
    write_set(tmp_path / "rig", rows, waves)
    return tmp_path


def test_kept_out_recordings_are_counted_by_kind(machines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kept out by time, healthy ones are normal and the fault alarms; kept out by speed, the state is unseen."""
    assert quiet.main([str(machines), "--dataset", "rig", "--machines", "0", "--json"]) == 0
    found = list(objects(capsys))
    by_time = {each["kind"]: each for each in found if each["split"] == "x time"}
    assert (by_time["same"]["recordings"], by_time["same"]["normal"]) == (3, 3)
    assert (by_time["faulty"]["recordings"], by_time["faulty"]["alarm"]) == (1, 1)
    unseen = [each for each in found if each["kind"] == "unseen"]
    assert sorted(each["split"] for each in unseen) == ["x without 1200", "x without 1500", "x without 900"]
    assert all(each["recordings"] == 1 for each in unseen)


def test_sensor_of_another_rate_is_put_beside_one_of_the_same(
    machines: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heard at the lower rate, healthy recordings stay normal; with the band in which the filters end they do not."""
    monkeypatch.setattr(other_rate, "SETS", {"rig": 10_000})
    monkeypatch.setattr(other_rate, "FILTERS", {"chebyshev": other_rate.FILTERS["chebyshev"]})
    assert other_rate.main([str(machines), "--json"]) == 0
    found = {(row["pair"], row["bands"], row["kind"]): row for row in objects(capsys)}
    assert len(found) == 4 * 2 * 2
    for pair in ("same", "slower sensor", "faster sensor"):
        assert (found[pair, "common", "same"]["recordings"], found[pair, "common", "same"]["normal"]) == (3, 3)
        assert found[pair, "common", "faulty"]["alarm"] == 1
    assert found["same", "all", "same"]["normal"] == 3
    assert found["slower sensor", "all", "same"]["normal"] == found["stored vectors", "all", "same"]["normal"] == 0


def test_what_is_said_to_be_noticed_is(
    machines: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of recordings kept out, the level that is said raises an alarm when it is exceeded, two thirds of it do not."""
    monkeypatch.setattr(noticed, "MOST_KEPT", 1)
    monkeypatch.setattr(noticed, "HORIZONS_S", {"minute": 60.0, "hour": 120.0})
    assert noticed.main([str(machines), "--dataset", "rig", "--json"]) == 0
    found = list(objects(capsys))
    assert {each["change"] for each in found} == {"level", "band", "impulses", "tone"}
    level = {
        each["factor"]: each["happened"] for each in found if (each["change"], each["horizon"]) == ("level", "minute")
    }
    assert level[1.5] == "alarm"
    assert level[2 / 3] != "alarm"
    *_, last = noticed._table([noticed.Tried(**each) for each in found])
    at_size = [each for each in found if (each["factor"], each["horizon"]) == (1.0, "hour")]
    alarms = sum(each["happened"] == "alarm" for each in at_size)
    assert last.split(" | ")[:2] == ["| all", "hour"]
    assert last.split(" | ")[3] == f"{alarms} of {len(at_size)}"


def test_simulated_day_keeps_its_promise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A short day of one machine: counts, promise and interval of both rates."""
    monkeypatch.setattr(quiet, "DAY_S", 60 * 60)
    monkeypatch.setattr(quiet, "TAKES", 6)
    encoder = open_encoder(load_bundle())
    found = list(quiet._quiet_day(encoder, 3))
    assert [each.promised for each in found] == list(quiet.RATES)
    for each in found:
        assert each.interval[0] < each.promised < each.interval[1]
        assert each.alarms <= each.most
        assert each.within


@pytest.mark.parametrize(("expected", "most"), [(0.01, 0), (0.3, 1), (1.0, 3), (5.0, 9)])
def test_most_that_fits_is_a_poisson_quantile(expected: float, most: int) -> None:
    """95 % of counts are no larger."""
    assert quiet._most(expected) == most


@pytest.mark.parametrize("command", [lives.main, quiet.main])
def test_folder_without_data_is_one_line(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It names the folder and says what to give instead, with the exit code of bad input."""
    options = ["--machines", "0"] if command is quiet.main else []
    assert command([str(tmp_path), "--dataset", "nothing", *options]) == 4
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "nothing" in error


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        (lives.main, ["--plots", "/dev/null/x"], "give --plots a folder that can be written"),
        (quiet.main, ["--machines", "-1"], "machines=-1 is no number of machines"),
    ],
)
def test_option_that_cannot_be_is_one_line(
    command: Any, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong options are refused before anything is measured, with the exit code of usage."""
    assert command([str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_set_without_healthy_recordings_is_refused(machines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty table would say that all is quiet."""
    table = machines / "rig" / "meta.csv"
    table.write_text(table.read_text(encoding="utf-8").replace(",normal,", ",worn,"), encoding="utf-8")
    assert quiet.main([str(machines), "--dataset", "rig", "--machines", "0"]) == 4
    assert "has no healthy recordings to enroll" in capsys.readouterr().err


def test_default_rates_are_those_of_the_configuration() -> None:
    """The benches judge by the policy that a gateway has by default."""
    alarm = AlarmConfig()
    assert Rates() == Rates(alarm.warning_per_day, alarm.alarm_per_day)
