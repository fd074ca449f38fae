"""Write a report as Markdown and as one HTML file that holds its plots. Start at `write_report`."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fisher_bench.rmis.catalogue import RmisSet
from fisher_bench.rmis.report.plots import draw_all
from fisher_bench.rmis.report.rows import Row

__all__ = ["Report", "write_report"]

MEANS = {"anomaly": "anomaly mean", "diagnosis": "diagnosis mean", "rmis": "overall", "area": "area mean"}
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 100rem; margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #8884; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: Canvas; }
td.best { font-weight: 700; }
img { max-width: 100%; background: #fff; border-radius: 4px; }
figcaption { color: GrayText; }
"""


@dataclass(frozen=True)
class Report:
    """What a report says besides its rows."""

    title: str
    notes: tuple[str, ...]
    """Paragraphs above the tables."""
    sets: tuple[RmisSet, ...]
    """All sets of the collection, in order."""


@dataclass(frozen=True)
class Table:
    """Cells as text, with the places of the best measured value of every column."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]]


def write_report(folder: Path, report: Report, rows: Sequence[Row]) -> tuple[Path, Path]:
    """Write `report.md`, `report.html` and the plots into a folder; return the two paths."""
    folder.mkdir(parents=True, exist_ok=True)
    plots = draw_all(folder / "plots", rows, report.sets)
    tables = [_means_table(report, rows), *_set_tables(report, rows)]
    markdown, page = folder / "report.md", folder / "report.html"
    markdown.write_text(_markdown(report, tables, plots), encoding="utf-8")
    page.write_text(_html(report, tables, plots), encoding="utf-8")
    return markdown, page


def _means_table(report: Report, rows: Sequence[Row]) -> Table:
    """Means, size and cost of every row."""
    fastest = min((row.cpu_ms for row in rows if row.cpu_ms), default=0.0)
    values = [[row.means.get(name) for name in MEANS] for row in rows]
    cells = [
        (
            row.model + _incomplete(report, row),
            row.source,
            *(_number(value) for value in line),
            f"{row.parameters / 1e6:.2f} M" if row.parameters else "",
            f"{row.cpu_ms / fastest:.1f}" if row.cpu_ms else "",
        )
        for row, line in zip(rows, values, strict=True)
    ]
    head = ("model", "source", *MEANS.values(), "parameters", "CPU time, times the fastest")
    return Table("Means (per cent) and cost", head, tuple(cells), _best(rows, values, 2))


def _set_tables(report: Report, rows: Sequence[Row]) -> list[Table]:
    """Scores of every set: those of detection, then those of diagnosis."""
    tables = []
    for caption, detects in (("Anomaly detection, every set", True), ("Diagnosis, every set", False)):
        sets = [known for known in report.sets if known.detects == detects]
        shown = [row for row in rows if any(known.name in row.scores for known in sets)]
        if not shown:
            continue
        values = [[row.scores.get(known.name) for known in sets] for row in shown]
        cells = [
            (row.model if row.measured else f"{row.model} ({row.source})", *(_number(value) for value in line))
            for row, line in zip(shown, values, strict=True)
        ]
        head = ("model", *(known.title for known in sets))
        tables.append(Table(caption, head, tuple(cells), _best(shown, values, 1)))
    return tables


def _incomplete(report: Report, row: Row) -> str:
    """Mark a measured row whose means are not over all sets."""
    count = sum(known.name in row.scores for known in report.sets)
    return f" ({count} of {len(report.sets)} sets)" if row.measured and count < len(report.sets) else ""


def _best(rows: Sequence[Row], values: Sequence[Sequence[float | None]], offset: int) -> frozenset[tuple[int, int]]:
    """Places of the largest measured value of every column."""
    places = set()
    for column in range(len(values[0]) if values else 0):
        known = {
            line: value for line, row in enumerate(rows) if row.measured and (value := values[line][column]) is not None
        }
        top = max(known.values(), default=0.0)
        places |= {(line, column + offset) for line, value in known.items() if _number(value) == _number(top)}
    return frozenset(places)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _markdown(report: Report, tables: Sequence[Table], plots: Sequence[tuple[str, Path]]) -> str:
    parts = [f"# {report.title}", *report.notes]
    for table in tables:
        lines = ["| " + " | ".join(table.head) + " |", "| --- |" + " ---: |" * (len(table.head) - 1)]
        for number, row in enumerate(table.rows):
            cells = [f"**{cell}**" if (number, place) in table.best else cell for place, cell in enumerate(row)]
            lines.append("| " + " | ".join(cells) + " |")
        parts += [f"## {table.caption}", "\n".join(lines)]
    parts += [f"## {caption}\n\n![{caption}](plots/{path.name})" for caption, path in plots]
    return "\n\n".join(parts) + "\n"


def _html(report: Report, tables: Sequence[Table], plots: Sequence[tuple[str, Path]]) -> str:
    title = html.escape(report.title)
    parts = [f"<h1>{title}</h1>", *(f"<p>{html.escape(note)}</p>" for note in report.notes)]
    for table in tables:
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.head)
        body = "".join(_html_row(number, row, table.best) for number, row in enumerate(table.rows))
        parts.append(f"<h2>{html.escape(table.caption)}</h2>")
        parts.append(f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')
    for caption, path in plots:
        image = base64.b64encode(path.read_bytes()).decode()
        text = html.escape(caption)
        picture = f'<img alt="{text}" src="data:image/svg+xml;base64,{image}">'
        parts.append(f"<figure>{picture}<figcaption>{text}</figcaption></figure>")
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n{body}\n</html>\n"
    )


def _html_row(number: int, row: Sequence[str], best: frozenset[tuple[int, int]]) -> str:
    cells = "".join(
        f'<td class="best">{html.escape(cell)}</td>' if (number, place) in best else f"<td>{html.escape(cell)}</td>"
        for place, cell in enumerate(row)
    )
    return f"<tr>{cells}</tr>"
