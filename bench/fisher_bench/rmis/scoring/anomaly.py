"""Anomaly detection on the DCASE sets: distance to the nearest normal, AUC and pAUC, and the means of each year.

Start at `score_anomaly`. Source: RMIS (arXiv 2507.16696, section IV) as released; each year's means are those of
its challenge, except that the released code takes the arithmetic mean of dev and eval in 2020 and a single bank
in 2021, where the paper says otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import hmean
from sklearn.metrics import roc_auc_score

from fisher_bench.rmis.catalogue import RmisSet
from fisher_bench.rmis.scoring.files import Scored
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.errors import BadInputError

__all__ = ["score_anomaly"]

MAX_FPR = 0.1
SUBSETS = ("dev", "eval")
Mean = Callable[[list[float]], float]


@dataclass(frozen=True, eq=False)
class Tested:
    """Test files of one section: anomaly scores (n,), and which are anomalous and of the target domain."""

    scores: npt.NDArray[np.float64]
    anomalous: npt.NDArray[np.bool_]
    target: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Year:
    """How one year is scored."""

    domains: bool
    """Two banks a section, of the source and of the target domain."""
    metrics: Callable[[Tested], list[float]]
    """Per cent, of one section; the last of a row is their mean."""
    mean: Mean
    rounds_machines: bool
    """Machines are rounded to two decimals before their mean is taken, else the means of dev and eval are."""


def score_anomaly(known: RmisSet, scored: Scored) -> dict[str, Any]:
    """Return `subset_score`, `per_machine` (rows of metrics, their mean last) and `total`, in per cent."""
    year = YEARS[known.scored_as or known.name]
    present = [name for name in SUBSETS if np.any(scored.columns["subset"] == name)]
    rows = {subset: _machine_rows(year, scored, subset) for subset in present}
    scores = {subset: year.mean([row[-1] for row in of_subset.values()]) for subset, of_subset in rows.items()}
    if year.rounds_machines:
        return {"subset_score": scores, "per_machine": rows, "total": year.mean(list(scores.values()))}
    scores = {subset: round(score, 2) for subset, score in scores.items()}
    tables = {subset: [*of_subset.values(), _column_means(year, of_subset)] for subset, of_subset in rows.items()}
    return {"subset_score": scores, "per_machine": tables, "total": year.mean(list(scores.values()))}


def _machine_rows(year: Year, scored: Scored, subset: str) -> dict[str, list[float]]:
    """Metrics of every machine of a subset, averaged over its sections and rounded to two decimals."""
    of_subset = scored.columns["subset"] == subset
    rows = {}
    for machine in dict.fromkeys(scored.columns["machine"][of_subset].tolist()):
        of_machine = of_subset & (scored.columns["machine"] == machine)
        sections = []
        for section in dict.fromkeys(scored.columns["section"][of_machine].tolist()):
            try:
                metrics = year.metrics(_tested(year, scored, of_machine & (scored.columns["section"] == section)))
            except ValueError as error:
                raise BadInputError(f"{subset}, {machine}, section {section}: {error}") from None
            sections.append([*metrics, year.mean(metrics)])
        rows[machine] = [round(year.mean(list(column)), 2) for column in zip(*sections, strict=True)]
    return rows


def _column_means(year: Year, rows: dict[str, list[float]]) -> list[float]:
    return [round(year.mean(list(column)), 2) for column in zip(*rows.values(), strict=True)]


def _tested(year: Year, scored: Scored, of_section: npt.NDArray[np.bool_]) -> Tested:
    """Score the test files of a section against its normal training files."""
    columns = scored.columns
    test = of_section & (columns["split"] == "test")
    normal = of_section & (columns["split"] == "train") & (columns["anomalous"] == "0")
    domain = columns["domain"]
    banks = [normal & (domain == name) for name in ("source", "target")] if year.domains else [normal]
    empty = [name for name, bank in zip(("source", "target"), banks, strict=False) if not bank.any()]
    if empty or not test.any():
        lacking = "test files" if not test.any() else f"normal training files of the {empty[0]} domain"
        raise ValueError(f"there are no {lacking}; a section needs both")
    scores = [_standardised(_distances(scored.embeddings[test], scored.embeddings[bank])) for bank in banks]
    return Tested(np.min(scores, axis=0), columns["anomalous"][test] == "1", domain[test] == "target")


def _distances(asked: FloatArray, bank: FloatArray) -> npt.NDArray[np.float64]:
    """Cosine distance (n,) to the nearest of the bank, k = 1; both of unit length."""
    nearest: npt.NDArray[np.float64] = 1 - (asked @ bank.T).max(axis=1).astype(np.float64)
    return nearest


def _standardised(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean 0 and population standard deviation 1 over the test files of the section."""
    deviation = float(values.std())
    standardised: npt.NDArray[np.float64] = (values - values.mean()) / (deviation or 1.0)
    return standardised


def _area(tested: Tested, among: npt.NDArray[np.bool_], max_fpr: float | None = None) -> float:
    """AUC, or with `max_fpr` its standardised part, over the files `among`, in per cent."""
    truth = tested.anomalous[among]
    if truth.all() or not truth.any():
        raise ValueError("its test files are all normal or all anomalous; an AUC needs both")
    return 100 * float(roc_auc_score(truth, tested.scores[among], max_fpr=max_fpr))


def _of_all(tested: Tested) -> list[float]:
    """2020: AUC and pAUC over everything."""
    everything = np.ones_like(tested.target)
    return [_area(tested, everything), _area(tested, everything, MAX_FPR)]


def _inside_domains(tested: Tested) -> list[float]:
    """2021: AUC and pAUC of source, then of target, each with its own anomalies."""
    return [_area(tested, part, limit) for part in (~tested.target, tested.target) for limit in (None, MAX_FPR)]


def _across_domains(tested: Tested) -> list[float]:
    """2022 on: AUC of each domain's normals against all anomalies, and pAUC over everything."""
    areas = [_area(tested, (tested.target == target) | tested.anomalous) for target in (False, True)]
    return [*areas, _area(tested, np.ones_like(tested.target), MAX_FPR)]


def _arithmetic(values: list[float]) -> float:
    return float(np.mean(values))


def _harmonic(values: list[float]) -> float:
    return float(hmean(values))


SINCE_2023 = Year(domains=True, metrics=_across_domains, mean=_harmonic, rounds_machines=False)
YEARS = {
    "dcase20": Year(domains=False, metrics=_of_all, mean=_arithmetic, rounds_machines=True),
    "dcase21": Year(domains=False, metrics=_inside_domains, mean=_harmonic, rounds_machines=True),
    "dcase22": Year(domains=True, metrics=_across_domains, mean=_harmonic, rounds_machines=True),
    "dcase23": SINCE_2023,
    "dcase24": SINCE_2023,
    "dcase25": SINCE_2023,
}
