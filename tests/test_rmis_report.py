"""The table, the plots and the small benchmark: what a person reads."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import rmis_oracles
from command import run

from fisher_bench.rmis.catalogue import SETS
from fisher_bench.rmis.embed.run import EMBEDDINGS_NAME, FACTS_NAME, FILES_NAME, read_facts
from fisher_bench.rmis.mini import prepare_mini, run_mini
from fisher_bench.rmis.report.full import write_full_report
from fisher_bench.rmis.report.published import published_rows
from fisher_bench.rmis.report.rows import means_of, measured_rows
from fisher_edge.errors import BadInputError


def _run_folder(folder: Path, name: str, model: str = "ours", digest: str = "a" * 64) -> None:
    """Write a run MODEL/SET of an oracle, as `rmis embed` does."""
    folder.mkdir(parents=True)
    files, embeddings = rmis_oracles.unpack(name, folder)
    files.rename(folder / FILES_NAME)
    embeddings.rename(folder / EMBEDDINGS_NAME)
    facts = {
        "set_name": name, "model": model, "spec": model, "digest": digest, "parameters": 1_222_912, "window_s": 10.0,
        "clips": 1, "dim": 1, "signal_s": 1.0, "new_clips": 0, "new_signal_s": 0.0, "new_cpu_s": 0.0, "elapsed_s": 1.0,
        "cpu_ms_per_signal_s": 2.0,
    }  # fmt: skip
    (folder / FACTS_NAME).write_text(json.dumps(facts))


def test_published_rows_agree_with_their_own_means() -> None:
    """Every row that gives all sets has the means it claims, to the rounding of its figures."""
    complete = [row for row in published_rows() if len(row.scores) == len(SETS)]
    assert len(complete) == 3
    for row in complete:
        means = means_of(row.scores, {}, SETS)
        for name, value in means.items():
            assert value == pytest.approx(row.means[name], abs=0.011), (row.model, name)
    assert {row.means["rmis"] for row in published_rows() if row.model == "BEATs iter3"} == {57.47}
    assert all(row.source for row in published_rows())


def test_report_command_puts_measured_rows_beside_published_ones(tmp_path: Path) -> None:
    """HTML in one file with its plots, Markdown with the same figures, scores kept with the embeddings."""
    for name in rmis_oracles.NAMES:
        _run_folder(tmp_path / "runs" / "ours" / name, name)
    done = run("rmis", "report", tmp_path / "runs", "--out", tmp_path / "report", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    row = result["rows"][0]
    for name in ("dcase20", "dcase21", "dcase23"):
        assert row["scores"][name] == pytest.approx(rmis_oracles.expected(name)["total"], abs=0.01)
    gearbox = rmis_oracles.expected("wt_plane_gearbox")["mean_macro_accuracy"]
    assert row["means"]["diagnosis"] == pytest.approx(gearbox, abs=0.01)
    assert row["means"]["rmis"] == pytest.approx((row["means"]["anomaly"] + gearbox) / 2, abs=0.01)
    assert 50 < row["means"]["area"] < 100
    markdown = Path(result["markdown"]).read_text()
    assert f"| ours (4 of 19 sets) | measured | **{row['means']['anomaly']:.2f}** |" in markdown
    assert "| FISHER small (released leaderboard) | 71.04 |" in markdown
    page = Path(result["html"]).read_text()
    assert page.count("data:image/svg+xml;base64,") == 3  # the time of an encoder with few sets says nothing
    assert "ours" not in (tmp_path / "report/plots/parameters.svg").read_text()
    assert 'src="plots' not in page
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    for plot in ("profile", "curves", "parameters"):
        assert (tmp_path / "report" / "plots" / f"{plot}.svg").read_text().lstrip().startswith("<?xml")
        assert f"(plots/{plot}.svg)" in markdown
    before = (tmp_path / "runs/ours/dcase20/score.json").stat().st_mtime_ns
    write_full_report(tmp_path / "runs", tmp_path / "again")
    assert (tmp_path / "runs/ours/dcase20/score.json").stat().st_mtime_ns == before


def test_area_follows_the_rule_that_is_asked_for(tmp_path: Path) -> None:
    """The kept curve serves both rules, and the report says which it used."""
    _run_folder(tmp_path / "runs" / "ours" / "wt_plane_gearbox", "wt_plane_gearbox")
    areas = {}
    for rule, text in (("simpson", "Simpson's rule"), ("trapezoid", "the trapezoidal rule")):
        rows, markdown, _ = write_full_report(tmp_path / "runs", tmp_path / rule, rule)  # type: ignore[arg-type]
        areas[rule] = rows[0].means["area"]
        assert text in markdown.read_text()
    assert areas["simpson"] != areas["trapezoid"]


def test_runs_of_two_models_in_one_folder_are_refused(tmp_path: Path) -> None:
    """A row is one encoder; a folder without runs says how to make one."""
    _run_folder(tmp_path / "runs" / "ours" / "dcase20", "dcase20")
    _run_folder(tmp_path / "runs" / "ours" / "dcase21", "dcase21", digest="b" * 64)
    with pytest.raises(BadInputError, match="embeddings of 2 different models"):
        measured_rows(tmp_path / "runs")
    with pytest.raises(BadInputError, match="holds no run MODEL/SET"):
        measured_rows(tmp_path / "nothing")
    (tmp_path / "runs/ours/dcase21" / FACTS_NAME).write_text("{}")
    with pytest.raises(BadInputError, match="does not tell what was embedded"):
        measured_rows(tmp_path / "runs")


def _recordings(folder: Path, rates: tuple[int, int] = (4000, 4000)) -> None:
    """Write a dataset of three classes with four recordings each, one class at a rate of its own."""
    rows = []
    for label, hz, rate_hz in (("normal", 300, rates[0]), ("inner", 800, rates[1]), ("outer", 1500, rates[0])):
        (folder / label).mkdir(parents=True)
        for number in range(4):
            t = np.arange(8 * rate_hz) / rate_hz
            noise = np.random.default_rng([number, hz]).standard_normal(len(t))
            wave = np.round(3000 * (np.sin(2 * np.pi * hz * t) + 0.3 * noise)).astype(np.int16)
            file = f"{label}/rec{number}__acc.npy"
            np.save(folder / file, wave)
            rows.append([file, f"rec{number}", "acc", label, f"{label}{number}", rate_hz, 0.001])
    with (folder / "meta.csv").open("w", newline="") as handle:
        names = ["file", "recording", "channel", "class", "split_unit", "sample_rate_hz", "scale"]
        csv.writer(handle).writerows([names, *rows])


@pytest.mark.slow
def test_mini_benchmark_runs_by_one_command(tmp_path: Path) -> None:
    """Diagnosis and detection on a small set, every encoder a row, marked as not the paper's sets."""
    _recordings(tmp_path / "data" / "mfpt")
    command = ["rmis", "mini", tmp_path / "data", "--out", tmp_path / "mini", "--dataset", "mfpt", "--only"]
    models = ["--model", "cheap:log-mel", "--model", "default", "--model", "random:nano:0", "--json"]
    done = run(*command, *models)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["model"] for row in rows] == ["log-mel", "nano-int8", "random nano 0"]
    for row in rows:
        assert set(row["scores"]) == {"mini-mfpt", "mini-mfpt-anomaly"}
        assert 60 < row["scores"]["mini-mfpt"] <= 100
        assert 60 < row["scores"]["mini-mfpt-anomaly"] <= 100
        assert row["cpu_ms_per_signal_s"] > 0
    assert set(rows[0]["scores"].values()) == {100.0}
    markdown = (tmp_path / "mini" / "report.md").read_text()
    assert "Not the paper's sets" in markdown
    for plot in ("parameters", "latency"):
        assert "nano-int8" in (tmp_path / "mini" / "plots" / f"{plot}.svg").read_text()
    detection = read_facts(tmp_path / "mini" / "runs" / "00-cheap-log-mel" / "mini-mfpt-anomaly")
    assert (detection.clips, detection.new_clips) == (96, 0)  # the files of the diagnosis, embedded once
    again = run(*command, *models)
    assert json.loads(again.stdout)["rows"] == rows


def test_mini_seals_units_and_enrolls_only_healthy_ones(tmp_path: Path) -> None:
    """Half of the healthy units are enrolled, all else is asked about; a doubled rate is brought down."""
    _recordings(tmp_path / "data" / "mfpt", rates=(4000, 8000))
    (diagnosis, folder), (detection, beside) = prepare_mini(tmp_path / "data", tmp_path / "sets", ["mfpt"])
    from fisher_bench.rmis.index import read_index  # noqa: PLC0415

    segments = read_index(folder).segments
    assert {segment.rate_hz for segment in segments} == {4000}
    assert {segment.samples for segment in segments} == {4000}
    assert diagnosis.classes == ("inner", "normal", "outer")
    assert (diagnosis.keys, diagnosis.segments) == (12, 96)
    asked = read_index(beside).segments
    enrolled = {segment.key for segment in asked if segment.split == "train"}
    assert len(enrolled) == 2
    assert all(key.startswith("normal") for key in enrolled)
    assert not enrolled & {segment.key for segment in asked if segment.split == "test"}
    assert {segment.anomalous for segment in asked if segment.label != "normal"} == {1}
    assert all((beside / segment.path).is_file() for segment in asked)
    assert detection.detects


def test_mini_refuses_what_is_not_there(tmp_path: Path) -> None:
    """No folder, no dataset, an unknown name, no model: one line and the documented code."""
    cases = [
        ((tmp_path / "none",), 4, "is not a folder"),
        ((tmp_path, "--dataset", "mfpt"), 4, "is not a dataset"),
        ((tmp_path, "--dataset", "mptf"), 2, "mptf is not known"),
        ((tmp_path, "--only"), 2, "at least one --model"),
    ]
    for arguments, code, text in cases:
        done = run("rmis", "mini", *arguments, "--out", tmp_path / "out")
        assert done.returncode == code
        assert text in done.stderr
        assert len(done.stderr.splitlines()) == 1
    with pytest.raises(BadInputError, match=r"no dataset .* was asked for"):
        run_mini(tmp_path, tmp_path / "out", ["default"], datasets=())
