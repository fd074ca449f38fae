"""The plots of a report, as SVG: profile over the sets, curves over the train share, score against size and time.

Start at `draw_all`.
"""

from collections.abc import Callable, Sequence
from itertools import cycle
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
GREYS = ("0.35", "0.55", "0.75")
LABEL_WIDTH, LABEL_HEIGHT = 0.28, 0.05
"""Shares of a plot's width and height that labels of points are kept apart."""
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


def _against_parameters(rows: Sequence[Row], sets: Sequence[RmisSet]) -> Figure | None:
    return _against(rows, sets, lambda row: row.parameters, "parameters (spectra have none and are left out)")


def _against_time(rows: Sequence[Row], sets: Sequence[RmisSet]) -> Figure | None:
    fastest = min((row.cpu_ms for row in rows if row.cpu_ms), default=0.0)
    return _against(rows, sets, lambda row: row.cpu_ms / fastest if fastest else 0.0, "CPU time, times the fastest")


def _against(rows: Sequence[Row], sets: Sequence[RmisSet], cost: Callable[[Row], float], label: str) -> Figure | None:
    """Draw overall scores over a cost, on a logarithmic axis; rows that lack either are left out.

    An encoder that was measured on some of the sets only has no overall score comparable with others.
    """
    comparable = [row for row in rows if len(row.scores) == len(sets) or not row.measured]
    points = [row for row in comparable if cost(row) > 0 and "rmis" in row.means]
    if not points:
        return None
    figure = Figure(figsize=(9, 5))
    axes = figure.add_subplot()
    styles = {id(row): style for row, style in zip(rows, _styles(rows), strict=True)}
    for row in points:
        marker = "o" if row.measured else "s"
        axes.plot(cost(row), row.means["rmis"], marker=marker, ls="", color=styles[id(row)]["color"])
    axes.set_xscale("log")
    axes.margins(x=0.3, y=0.2)
    _label_points(axes, [(cost(row), row.means["rmis"], _label(row)) for row in points])
    axes.set_xlabel(label)
    axes.set_ylabel("overall score, %")
    axes.grid(alpha=0.3, which="both")
    return figure


def _label_points(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write a label right of every point, moved up where it would cover the one below it."""
    low, high = axes.get_ylim()
    decades = np.ptp(np.log10(axes.get_xlim()))
    placed: list[tuple[float, float]] = []
    for x, y, text in sorted(points, key=lambda point: point[1]):
        across, place = np.log10(x) / decades, (y - low) / (high - low)
        for other, taken in placed:
            if abs(across - other) < LABEL_WIDTH:
                place = max(place, taken + LABEL_HEIGHT)
        placed.append((across, place))
        axes.annotate(
            text,
            (x, y),
            (x * 1.12, low + place * (high - low)),
            fontsize=8,
            va="center",
            arrowprops={"arrowstyle": "-", "color": "0.7", "lw": 0.6, "shrinkA": 0, "shrinkB": 2},
        )


def _styles(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Colours for what was measured, dashed greys for what was published."""
    colours, greys = cycle(COLOURS), cycle(GREYS)
    return [
        {"color": next(colours), "ls": "-", "lw": 1.3} if row.measured else {"color": next(greys), "ls": "--", "lw": 1}
        for row in rows
    ]


def _label(row: Row) -> str:
    return row.model if row.measured else f"{row.model} ({row.source})"


def _legend_beside(axes: Axes) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
