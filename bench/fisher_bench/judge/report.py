"""Tables of the judge's results, in Markdown. Start at `table`."""

from collections.abc import Callable, Sequence

import numpy as np

from fisher_bench.judge.judge import Result

__all__ = ["means", "table"]

SUMMARIES = (
    ("accuracy", "mean of {} accuracies"),
    ("honest", "mean of {} further crossings"),
    ("area", "mean of {} areas, healthy enrolled"),
    ("one class", "mean of {} areas, any one class enrolled"),
)
Column = tuple[str, bool]


def table(results: Sequence[Result], seeds: dict[str, str]) -> str:
    """Rows are tasks, columns representations, alone or fused: mean and spread over splits, averaged over seeds.

    `seeds` names the column of each representation: several representations of one name are seeds of one recipe.
    """
    columns: list[Column] = sorted({(seeds[r.representation], r.fused) for r in results}, key=_order(results, seeds))
    rows = ["| | " + " | ".join(name + (", fused" if fused else "") for name, fused in columns) + " |"]
    rows.append("| --- |" + " --- |" * len(columns))
    for task in dict.fromkeys(result.task for result in results):
        cells = [_cell([r for r in results if r.task == task and _column(r, seeds) == column]) for column in columns]
        rows.append(f"| {task} | " + " | ".join(cells) + " |")
    for kind, text in SUMMARIES:
        tasks = {result.task for result in results if result.kind == kind}
        if tasks:
            cells = [_summary(means(results, seeds, column, kind)) for column in columns]
            rows.append(f"| **{text.format(len(tasks))}** | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def means(results: Sequence[Result], seeds: dict[str, str], column: Column, kind: str) -> list[float]:
    """Mean over the tasks of one kind, for each seed of a column; unfused where fusing is not defined."""
    fused = column[1] and kind in {"accuracy", "honest"}
    if column[1] != fused:
        return []
    by_seed: dict[str, list[float]] = {}
    for result in results:
        if result.kind == kind and _column(result, seeds) == column:
            by_seed.setdefault(result.representation, []).append(result.mean)
    return [float(np.mean(values)) for values in by_seed.values()]


def _cell(results: list[Result]) -> str:
    """Mean over seeds and splits, and the standard deviation over splits."""
    if not results:
        return ""
    spread = np.mean([np.std(result.splits) for result in results])
    return f"{np.mean([result.mean for result in results]):.1f} ± {spread:.1f}"


def _summary(values: list[float]) -> str:
    """Mean over seeds, and their range when there are several."""
    if not values:
        return ""
    spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
    return f"**{np.mean(values):.1f}**{spread}"


def _column(result: Result, seeds: dict[str, str]) -> Column:
    return seeds[result.representation], result.fused


def _order(results: Sequence[Result], seeds: dict[str, str]) -> Callable[[Column], tuple[bool, int]]:
    first = list(dict.fromkeys(seeds[result.representation] for result in results))
    return lambda column: (column[1], first.index(column[0]))
