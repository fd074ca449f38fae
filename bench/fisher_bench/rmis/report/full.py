"""The report on the paper's sets: measured and published scores in one table. Start at `write_full_report`."""

from collections.abc import Callable
from pathlib import Path

from fisher_bench.rmis.catalogue import SETS
from fisher_bench.rmis.report.published import published_rows
from fisher_bench.rmis.report.rows import Row, measured_rows
from fisher_bench.rmis.report.write import Report, write_report
from fisher_bench.rmis.scoring.diagnosis import Rule

__all__ = ["write_full_report"]

NOTES = (
    (
        "Scores in per cent. Detection: k = 1, AUC and pAUC as in the challenge of each year. Diagnosis: k = 5, macro "
        "accuracy, mean of ten sealed splits (IIEE: the official split). Overall: mean of the two means. Means of an "
        "encoder that was measured on some of the sets only are over those, and are not comparable with the others."
    ),
    (
        "Published rows are taken from where they say. The paper averages DCASE 2020 to 2024, the released "
        "leaderboard 2020 to 2025, and so do the rows measured here. The released settings run UMGED sound at 16 kHz "
        "for FISHER tiny and mini, and the released loaders normalise spectra on some sets only; which of the two the "
        "published figures used is not known."
    ),
)
AREA = (
    "Areas under the curves over the enrolled share: {} rule; the released code has Simpson's, the paper trapezoidal."
)


def write_full_report(
    runs: Path, out: Path, rule: Rule = "simpson", report: Callable[[str], None] = lambda _: None
) -> tuple[list[Row], Path, Path]:
    """Score RUNS/MODEL/SET and write the report; return all rows, published ones last, and the paths.

    Raises BadInputError when there is no run.
    """
    rows = [*measured_rows(runs, SETS, rule, report), *published_rows()]
    area = AREA.format({"simpson": "Simpson's", "trapezoid": "the trapezoidal"}[rule])
    markdown, page = write_report(out, Report("RMIS", (*NOTES, area), SETS), rows)
    return rows, markdown, page
