"""The plots of a report, as SVG: profile over the sets, curves over the train share, score against size and time.

Start at `draw_all`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fisher_bench.rmis.catalogue import RmisSet
from fisher_bench.rmis.report.rows import Row

__all__ = ["draw_all"]

COLUMNS = 4
"""Small plots side by side."""
COLOURS = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined] # a ListedColormap, which has them
GREY = "0.6"
SVG = {"svg.fonttype": "none", "svg.hashsalt": "rmis", "font.family": "sans-serif"}
"""Text stays text, and the same figures give the same file."""


def draw_all(folder: Path, rows: Sequence[Row], sets: Sequence[RmisSet]) -> list[tuple[str, Path]]:
    """Draw what the rows allow into a folder; return the caption and the file of every plot."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[tuple[str, Path]] = []
    for name, caption, draw in (
        ("profile", "Score of every set (per cent)", _profile),
        ("curves", "Macro accuracy over the share of recordings that are enrolled", _curves),
        ("parameters", "Score against the parameters of the encoder", _against_parameters),
        ("latency", "Score against CPU time, relative to the fastest encoder of this run", _against_time),
    ):
        with mpl.rc_context(SVG):  # type: ignore[arg-type] # wants literal keys
            figure = draw(rows, sets)
            if figure is not None:
                path = folder / f"{name}.svg"
                figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
                drawn.append((caption, path))
    return drawn


def _profile(rows: Sequence[Row], sets: Sequence[RmisSet]) -> Figure | None:
    """One line a model over the sets that any model was measured on."""
    shown = [known for known in sets if any(known.name in row.scores for row in rows)]
    figure = Figure(figsize=(max(7.0, 0.75 * len(shown) + 3), 5))
    axes = figure.add_subplot()
    places = np.arange(len(shown))
    for row, style in zip(rows, _styles(rows), strict=True):
        values = [row.scores.get(known.name, np.nan) for known in shown]
        if not np.isnan(values).all():
            axes.plot(places, values, marker="o", ms=4, label=_label(row), **style)
    axes.set_xticks(places, [known.title for known in shown], rotation=40, ha="right")
    axes.set_ylabel("score, %")
    axes.grid(alpha=0.3)
    _legend_beside(axes)
    return figure


def _curves(rows: Sequence[Row], sets: Sequence[RmisSet]) -> Figure | None:
    """One small plot a set with a curve."""
    shown = [known for known in sets if any(known.name in row.curves for row in rows)]
    if not shown:
        return None
    lines = -(-len(shown) // COLUMNS)
    figure = Figure(figsize=(3.2 * COLUMNS, 2.6 * lines))
    grid = figure.subplots(lines, COLUMNS, squeeze=False)
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    for axes, known in zip(grid.flat, shown, strict=False):
        for row, style in zip(rows, _styles(rows), strict=True):
            curve = row.curves.get(known.name)
            if curve is not None:
                axes.plot(curve.train_shares, curve.accuracies, label=_label(row), **style)
        axes.set_title(known.title, fontsize=9)
        axes.set_ylim(0, 101)
        axes.grid(alpha=0.3)
    figure.supxlabel("share of the recordings that is enrolled", fontsize=9)
    figure.supylabel("macro accuracy, %", fontsize=9)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.tight_layout(rect=(0.02, 0.02, 1, 1))
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=4, fontsize=8, frameon=False)
    return figure


def _against_parameters(rows: Sequence[Row], _sets: Sequence[RmisSet]) -> Figure | None:
    return _against(rows, lambda row: row.parameters, "parameters (spectra have none and are left out)")


def _against_time(rows: Sequence[Row], _sets: Sequence[RmisSet]) -> Figure | None:
    fastest = min((row.cpu_ms for row in rows if row.cpu_ms), default=0.0)
    return _against(rows, lambda row: row.cpu_ms / fastest if fastest else 0.0, "CPU time, times the fastest")


def _against(rows: Sequence[Row], cost: Callable[[Row], float], label: str) -> Figure | None:
    """Draw overall scores over a cost, on a logarithmic axis; rows that lack either are left out."""
    points = [row for row in rows if cost(row) > 0 and "rmis" in row.means]
    if not points:
        return None
    figure = Figure(figsize=(7.5, 4.5))
    axes = figure.add_subplot()
    for row in points:
        style = next(style for other, style in zip(rows, _styles(rows), strict=True) if other is row)
        axes.plot(cost(row), row.means["rmis"], marker="o" if row.measured else "s", ls="", color=style["color"])
        axes.annotate(
            _label(row), (cost(row), row.means["rmis"]), xytext=(5, 4), textcoords="offset points", fontsize=8
        )
    axes.set_xscale("log")
    axes.margins(x=0.25, y=0.12)
    axes.set_xlabel(label)
    axes.set_ylabel("overall score, %")
    axes.grid(alpha=0.3, which="both")
    return figure


def _styles(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Colours for what was measured, dashed grey for what was published."""
    colours = iter(COLOURS * (1 + len(rows) // len(COLOURS)))
    return [
        {"color": next(colours), "ls": "-", "lw": 1.3} if row.measured else {"color": GREY, "ls": "--", "lw": 1}
        for row in rows
    ]


def _label(row: Row) -> str:
    return row.model if row.measured else f"{row.model} ({row.source})"


def _legend_beside(axes: Axes) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
