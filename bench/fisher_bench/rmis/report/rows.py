"""The rows of the table: one encoder's scores on all sets, their means, and what it costs. Start at `measured_rows`.

A folder of runs is RUNS/MODEL/SET with what `rmis embed` wrote; the scores are kept in `score.json` there.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fisher_bench.rmis.catalogue import SETS, RmisSet
from fisher_bench.rmis.embed.run import EMBEDDINGS_NAME, FACTS_NAME, FILES_NAME, read_facts
from fisher_bench.rmis.scoring.diagnosis import Curve, Rule, area
from fisher_bench.rmis.scoring.files import read_scored
from fisher_bench.rmis.scoring.score import headline, score, with_curve
from fisher_edge.errors import BadInputError

__all__ = ["SCORE_NAME", "Row", "curve_of", "means_of", "measured_row", "measured_rows"]

SCORE_NAME = "score.json"
MEASURED = "measured"


@dataclass(frozen=True)
class Row:
    """One line of the table, in per cent."""

    model: str
    source: str
    """"measured", or where it was published."""
    parameters: int
    scores: dict[str, float]
    """By set."""
    means: dict[str, float]
    """anomaly, diagnosis, rmis (the mean of the two) and area, where they are known."""
    curves: dict[str, Curve] = field(default_factory=dict)
    cpu_ms: float = 0.0
    """CPU time for a second of signal, one thread, averaged over the sets; 0: not measured."""

    @property
    def measured(self) -> bool:
        """Whether it was measured here."""
        return self.source == MEASURED


def measured_rows(
    runs: Path, sets: Sequence[RmisSet] = SETS, rule: Rule = "simpson", report: Callable[[str], None] = lambda _: None
) -> list[Row]:
    """Score everything below a folder of runs, one row a model. Raises BadInputError when there is nothing."""
    rows = []
    for folder in sorted(path for path in runs.iterdir() if path.is_dir()) if runs.is_dir() else []:
        if any((folder / known.name / FACTS_NAME).is_file() for known in sets):
            report(folder.name)
            rows.append(measured_row(folder, sets, rule))
    if not rows:
        raise BadInputError(
            f"{runs} holds no run MODEL/SET of these sets; make one with: fisher-edge rmis embed SET_DIR --out "
            f"{runs}/MODEL/SET"
        )
    return rows


def measured_row(folder: Path, sets: Sequence[RmisSet], rule: Rule = "simpson") -> Row:
    """Score the runs MODEL/SET of one model. Raises BadInputError when they are of several models."""
    present = [known for known in sets if (folder / known.name / FACTS_NAME).is_file()]
    results = {known.name: _scored(known, folder / known.name) for known in present}
    curves = {name: curve for name, result in results.items() if (curve := curve_of(result)) is not None}
    scores = {name: float(result["score"]) for name, result in results.items()}
    facts = [read_facts(folder / known.name) for known in present]
    digests = {fact.digest for fact in facts}
    if len(digests) > 1:
        raise BadInputError(
            f"{folder} holds embeddings of {len(digests)} different models; give each a folder of its own"
        )
    costs = [fact.cpu_ms_per_signal_s for fact in facts if fact.cpu_ms_per_signal_s]
    areas = {name: area(curve, rule) for name, curve in curves.items()}
    means = means_of(scores, areas, present)
    cost = float(np.mean(costs)) if costs else 0.0
    return Row(facts[0].model, MEASURED, facts[0].parameters, scores, means, curves, cost)


def means_of(scores: dict[str, float], areas: dict[str, float], sets: Sequence[RmisSet]) -> dict[str, float]:
    """Means of the sets that are there; `rmis` only when both kinds are."""
    means = {}
    for name, detects in (("anomaly", True), ("diagnosis", False)):
        values = [scores[known.name] for known in sets if known.detects == detects and known.name in scores]
        if values:
            means[name] = float(np.mean(values))
    if len(means) == 2:
        means["rmis"] = float(np.mean(list(means.values())))
    if areas:
        means["area"] = float(np.mean(list(areas.values())))
    return means


def curve_of(result: dict[str, Any]) -> Curve | None:
    """Return the curve of a kept score, if the set has one."""
    curve = result.get("curve")
    return Curve(*(tuple(curve[name]) for name in ("train_shares", "accuracies", "left_out"))) if curve else None


def _scored(known: RmisSet, folder: Path) -> dict[str, Any]:
    """Return the kept score of a run, or score it and keep that."""
    path = folder / SCORE_NAME
    embeddings = folder / EMBEDDINGS_NAME
    if path.is_file() and path.stat().st_mtime_ns >= embeddings.stat().st_mtime_ns:
        kept: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return kept
    scored = read_scored(known, folder / FILES_NAME, embeddings)
    result: dict[str, Any] = {"score": headline(score(known, scored))}
    if known.split == "sealed":
        result |= with_curve(known, scored)
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(result), encoding="utf-8")
    beside.replace(path)
    return result
