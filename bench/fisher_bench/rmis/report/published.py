"""Scores that others published, read from `published.csv` in this folder. Start at `published_rows`.

The paper counts five years of DCASE, the released leaderboard six. Parameters are those of the encoders, counted on
the networks that the adapters build.
"""

import csv
from pathlib import Path

from fisher_bench.rmis.catalogue import SETS
from fisher_bench.rmis.report.rows import Row

__all__ = ["published_rows"]

TABLE = Path(__file__).with_name("published.csv")


def published_rows() -> list[Row]:
    """Return one row a published line; what its source does not give stays empty."""
    with TABLE.open(newline="", encoding="utf-8") as handle:
        lines = list(csv.DictReader(handle))
    return [
        Row(
            model=line["model"],
            source=line["source"],
            parameters=int(line["parameters"]),
            scores={known.name: float(line[known.name]) for known in SETS if line[known.name]},
            means={name: float(line[name]) for name in ("anomaly", "diagnosis", "rmis", "area") if line[name]},
        )
        for line in lines
    ]
