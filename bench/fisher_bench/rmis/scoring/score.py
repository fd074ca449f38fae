"""The score of one set, whichever its protocol. Start at `score`."""

from dataclasses import asdict
from typing import Any

from fisher_bench.rmis.catalogue import RmisSet
from fisher_bench.rmis.scoring.anomaly import score_anomaly
from fisher_bench.rmis.scoring.diagnosis import Rule, area, multi_split, score_diagnosis
from fisher_bench.rmis.scoring.files import Scored

__all__ = ["headline", "score", "with_curve"]


def score(known: RmisSet, scored: Scored) -> dict[str, Any]:
    """Score a set: the fields of its protocol, in per cent."""
    return score_anomaly(known, scored) if known.detects else score_diagnosis(known, scored)


def with_curve(known: RmisSet, scored: Scored, rule: Rule = "simpson") -> dict[str, Any]:
    """Return the `curve` over the train share, its `area` and the `rule` of that.

    Raises UsageError for a set that has no sealed split.
    """
    curve = multi_split(known, scored)
    return {"curve": asdict(curve), "area": area(curve, rule), "rule": rule}


def headline(result: dict[str, Any]) -> float:
    """Return the one number of a set that enters the table: `total` or `mean_macro_accuracy`."""
    return float(result["total"] if "total" in result else result["mean_macro_accuracy"])
