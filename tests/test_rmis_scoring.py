"""The scores of the benchmark, against the authors' own code and against slow versions of what that does not cover."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rmis_oracles
from command import run
from scipy.integrate import simpson
from sklearn.metrics import roc_auc_score

from fisher_bench.protocol import SealedSplit
from fisher_bench.rmis.catalogue import SETS, find
from fisher_bench.rmis.scoring.diagnosis import Curve, area, multi_split, score_diagnosis
from fisher_bench.rmis.scoring.files import Scored, read_scored
from fisher_bench.rmis.scoring.neighbours import find_neighbours
from fisher_bench.rmis.scoring.score import score
from fisher_edge.errors import BadInputError, UsageError


@pytest.mark.parametrize("name", rmis_oracles.NAMES)
def test_command_reproduces_the_authors_scores(name: str, tmp_path: Path) -> None:
    """Every score to 0.01, and the rows, seeds and predictions of sealed splits exactly."""
    files, embeddings = rmis_oracles.unpack(name, tmp_path)
    done = run("rmis", "score", "--dataset", name, "--files", files, "--embeddings", embeddings, "--json")
    assert done.returncode == 0, done.stderr
    assert rmis_oracles.compare(json.loads(done.stdout), rmis_oracles.expected(name)) > 20


def test_shared_oracles_are_those_of_the_tests() -> None:
    """The copies in the tests are what lies in the shared folder, where there is one."""
    shared = Path(__file__).parents[2] / "shared" / "reference" / "rmis"
    if not shared.is_dir():
        pytest.skip("the folder of reference vectors is not next to this checkout")
    for name in rmis_oracles.NAMES:
        assert json.loads((shared / f"{name}_expected.json").read_text()) == rmis_oracles.expected(name)


def _slow_2022(rows: list[dict[str, str]], vectors: npt.NDArray[np.float64]) -> dict[str, dict[str, float]]:
    """Score 2022 as written down: loops, no shared code."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    totals: dict[str, dict[str, float]] = {}
    for subset in ("dev", "eval"):
        for machine in {row["machine"] for row in rows if row["subset"] == subset}:
            of_section = []
            for section in {row["section"] for row in rows if (row["subset"], row["machine"]) == (subset, machine)}:
                here = [
                    (row, unit[i])
                    for i, row in enumerate(rows)
                    if (row["subset"], row["machine"], row["section"]) == (subset, machine, section)
                ]
                tests = [(row, vector) for row, vector in here if row["split"] == "test"]
                scores = []
                for domain in ("source", "target"):
                    bank = [v for row, v in here if row["split"] == "train" and row["domain"] == domain]
                    d = np.array([min(1 - float(vector @ other) for other in bank) for _, vector in tests])
                    scores.append((d - d.mean()) / d.std())
                final = np.minimum(*scores)
                truth = np.array([row["anomalous"] == "1" for row, _ in tests])
                target = np.array([row["domain"] == "target" for row, _ in tests])
                metrics = [
                    100 * roc_auc_score(truth[~target | truth], final[~target | truth]),
                    100 * roc_auc_score(truth[target | truth], final[target | truth]),
                    100 * roc_auc_score(truth, final, max_fpr=0.1),
                ]
                of_section.append(3 / sum(1 / metric for metric in metrics))
            harmonic = len(of_section) / sum(1 / value for value in of_section)
            totals.setdefault(subset, {})[machine] = round(harmonic, 2)
    return totals


def test_2022_has_two_banks_and_all_anomalies_against_each_domain(tmp_path: Path) -> None:
    """No oracle covers 2022: a slow version written from the rules gives the same machines, subsets and total."""
    files, embeddings = rmis_oracles.unpack("dcase21", tmp_path)
    result = score(find("dcase22"), read_scored(find("dcase22"), files, embeddings))
    with files.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    slow = _slow_2022(rows, np.load(embeddings).astype(np.float64))
    subsets = {}
    for subset, machines in slow.items():
        assert {name: row[-1] for name, row in result["per_machine"][subset].items()} == pytest.approx(
            machines, abs=0.02
        )
        subsets[subset] = len(machines) / sum(1 / value for value in machines.values())
    assert result["subset_score"] == pytest.approx(subsets, abs=0.02)
    assert result["total"] == pytest.approx(2 / sum(1 / value for value in subsets.values()), abs=0.02)


@pytest.mark.parametrize("name", ["dcase24", "dcase25"])
def test_later_years_are_scored_as_2023(name: str, tmp_path: Path) -> None:
    """2024 and 2025 have the rules of 2023."""
    files, embeddings = rmis_oracles.unpack("dcase23", tmp_path)
    result = score(find(name), read_scored(find(name), files, embeddings))
    assert rmis_oracles.compare(result, rmis_oracles.expected("dcase23")) > 60


def test_official_split_has_both_numbers_of_neighbours(tmp_path: Path) -> None:
    """IIEE is scored once, with the 5 neighbours of the released settings and the 10 of the paper."""
    known = find("idmt_engine")
    rng = np.random.default_rng(0)
    labels = np.repeat(known.classes, 40)
    columns = {
        "file": np.asarray([f"f{i:03d}" for i in range(120)]),
        "split": np.asarray(["train", "test"] * 60),
        "label": labels,
    }
    vectors = rng.standard_normal((120, 8)) + 1.2 * np.repeat(np.eye(3, 8), 40, axis=0)
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    result = score_diagnosis(known, Scored(columns, unit))
    for k in (5, 10):
        accuracy = _slow_accuracy(unit, labels, np.arange(0, 120, 2), np.arange(1, 120, 2), k)
        assert result["macro_accuracy_by_k"][str(k)] == pytest.approx(accuracy)
    assert result["mean_macro_accuracy"] == result["macro_accuracy_by_k"]["5"]
    assert result["macro_accuracy_by_k"]["5"] != result["macro_accuracy_by_k"]["10"]
    with pytest.raises(UsageError, match="official split"):
        multi_split(known, Scored(columns, unit))


def _slow_accuracy(
    unit: npt.NDArray[np.float32], labels: npt.NDArray[np.str_], enrolled: npt.NDArray[np.int64],
    asked: npt.NDArray[np.int64], k: int,
) -> float:  # fmt: skip
    hits: dict[str, list[bool]] = {}
    for row in asked:
        nearest = sorted(enrolled, key=lambda other: -float(unit[row] @ unit[other]))[:k]
        sums: dict[str, float] = {}
        for other in nearest:
            sums[str(labels[other])] = sums.get(str(labels[other]), 0.0) + float(unit[row] @ unit[other])
        hits.setdefault(str(labels[row]), []).append(max(sums, key=lambda name: sums[name]) == labels[row])
    return 100 * float(np.mean([np.mean(values) for values in hits.values()]))


def test_neighbours_found_once_serve_every_split() -> None:
    """A list too short for a split is searched again: every split gives what a search of its own gives."""
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((300, 6)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    neighbours = find_neighbours(unit, listed=20)
    for share in (0.02, 0.1, 0.5, 0.95):
        order = rng.permutation(300)
        split = SealedSplit(order[: int(share * 300)], order[int(share * 300) :], 0)
        rows, cosines = neighbours.nearest(split.enrolled, split.asked, 5)
        similarity = unit[split.asked] @ unit[split.enrolled].T
        best = np.sort(split.enrolled)[
            np.argsort(-(unit[split.asked] @ unit[np.sort(split.enrolled)].T), axis=1)[:, :5]
        ]
        assert rows.tolist() == best.tolist()
        assert cosines == pytest.approx(np.sort(similarity, axis=1)[:, ::-1][:, :5], abs=1e-6)


def test_ties_go_to_the_lowest_class_id(tmp_path: Path) -> None:
    """The id decides, not the alphabet: IICA's first class wins over one that comes earlier in the alphabet."""
    known = find("idmt_air")
    assert known.classes[0] > known.classes[1]
    columns = {
        "file": np.asarray([f"f{i:02d}" for i in range(48)]),
        "recording": np.asarray([f"r{i:02d}" for i in range(48)]),
        "label": np.tile(known.classes, 8),
    }
    result = score_diagnosis(known, Scored(columns, np.ones((48, 1), np.float32)), runs=1)
    labels = np.asarray(columns["label"])
    nearest = labels[np.sort(result["runs"][0]["train_rows"])[:5]].tolist()
    most = max(nearest.count(name) for name in nearest)
    winner = next(name for name in known.classes if nearest.count(name) == most)
    assert set(result["runs"][0]["predicted"]) == {winner}


def test_curve_has_its_end_points_and_area_by_both_rules() -> None:
    """The curve starts at chance and ends at 100; areas are those of Simpson's and of the trapezoidal rule."""
    known = find("pu_vib")
    rng = np.random.default_rng(2)
    count = 240
    labels = np.tile(known.classes, count // 3)
    columns = {
        "file": np.asarray([f"f{i:03d}" for i in range(count)]),
        "recording": np.asarray([f"{label}{i // 6}" for i, label in enumerate(labels)]),
        "label": labels,
    }
    vectors = rng.standard_normal((count, 6)) + np.tile(np.eye(3, 6), (count // 3, 1))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    scored = Scored(columns, unit)
    curve = multi_split(known, scored)
    assert curve.train_shares == tuple(round(i / 20, 2) for i in range(21))
    assert curve.accuracies[0] == pytest.approx(100 / 3)
    assert curve.accuracies[-1] == 100.0
    assert curve.left_out == ()
    half = score_diagnosis(known, scored)["mean_macro_accuracy"]
    assert curve.accuracies[10] == pytest.approx(half)
    y = np.asarray(curve.accuracies)
    assert area(curve, "trapezoid") == pytest.approx(float(np.sum((y[1:] + y[:-1]) / 2) / 20))
    weights = np.asarray([1, *([4, 2] * 9), 4, 1]) / 60
    assert area(curve) == pytest.approx(float(weights @ y)) == pytest.approx(float(simpson(y, x=curve.train_shares)))
    assert area(Curve((0.0, 0.5, 1.0), (0.0, 100.0, 100.0))) != area(
        Curve((0.0, 0.5, 1.0), (0.0, 100.0, 100.0)), "trapezoid"
    )


def test_umged_asks_a_fifth() -> None:
    """UMGED is split 80 to 20; all other sealed sets in halves."""
    shares = {known.name: known.test_share for known in SETS if known.split == "sealed"}
    assert {name for name, share in shares.items() if share == 0.2} == {name for name in shares if "umged" in name}
    assert {share for name, share in shares.items() if "umged" not in name} == {0.5}
    assert len(SETS) == 19
    assert sum(not known.detects for known in SETS) == 13


def test_bad_input_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    """A lacking column, an unknown class, a wrong count, a number that is none: each names the file and the place."""
    files, embeddings = rmis_oracles.unpack("wt_plane_gearbox", tmp_path)
    known = find("wt_plane_gearbox")
    text = files.read_text()
    other = tmp_path / "other.csv"
    cases: list[tuple[str, str]] = [
        (text.replace("recording", "what", 1), "lacks the column recording"),
        (text.replace("root_crack\n", "root_crak\n", 1), "label='root_crak' is no class of wt_plane_gearbox"),
        ("\n".join(text.splitlines()[:-1]), "lists 114 files and .* holds 115"),
        (text.splitlines()[0], "lists no file"),
    ]
    for content, message in cases:
        other.write_text(content)
        with pytest.raises(BadInputError, match=message) as caught:
            read_scored(known, other, embeddings)
        assert "\n" not in str(caught.value)
    vectors = np.load(embeddings)
    vectors[7, 3] = np.nan
    np.save(tmp_path / "nan.npy", vectors)
    with pytest.raises(BadInputError, match="1 rows are not finite, the first is 7"):
        read_scored(known, files, tmp_path / "nan.npy")
    with pytest.raises(BadInputError, match=r"is not a \.npy file"):
        read_scored(known, files, files)


def test_command_names_the_nearest_set(tmp_path: Path) -> None:
    """A name that is not in the benchmark ends with exit code 2 and a suggestion; bad files with 4."""
    files, embeddings = rmis_oracles.unpack("dcase20", tmp_path)
    done = run("rmis", "score", "--dataset", "dcase2020", "--files", files, "--embeddings", embeddings)
    assert done.returncode == 2
    assert "dcase20" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = run("rmis", "score", "--dataset", "dcase21", "--files", embeddings, "--embeddings", embeddings)
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 1


def test_a_section_without_what_a_score_needs_is_named(tmp_path: Path) -> None:
    """Without normal training files of a domain, or with test files of one kind only, the section is named."""
    files, embeddings = rmis_oracles.unpack("dcase23", tmp_path)
    shutil.copy(files, tmp_path / "all.csv")
    with files.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    vectors = np.load(embeddings)
    kept = [
        i
        for i, r in enumerate(rows)
        if not (r["machine"] == "fan" and r["split"] == "train" and r["domain"] == "target")
    ]
    columns = {name: np.asarray([rows[i][name] for i in kept]) for name in rows[0]}
    with pytest.raises(
        BadInputError, match="dev, fan, section 0: there are no normal training files of the target domain"
    ):
        score(find("dcase23"), Scored(columns, vectors[kept]))
    kept = [i for i, r in enumerate(rows) if not (r["machine"] == "fan" and r["anomalous"] == "1")]
    columns = {name: np.asarray([rows[i][name] for i in kept]) for name in rows[0]}
    with pytest.raises(BadInputError, match="dev, fan, section 0: its test files are all normal"):
        score(find("dcase23"), Scored(columns, vectors[kept]))
