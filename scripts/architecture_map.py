"""Draws the runtime's modules and imports from the code: docs/architecture.svg and the table in docs/architecture.md.

`--check` fails when either is not current, or when docs/architecture.md names a function that does not exist.

Run: python scripts/architecture_map.py
"""

import importlib
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import grimp
from importlinter.api import read_configuration

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PICTURE = ROOT / "docs" / "architecture.svg"
PACKAGE = "fisher_edge"
BEGIN, END = "<!-- imports: begin -->", "<!-- imports: end -->"
# Plain data that lower rows share; no arrow is drawn to it.
SHARED = f"{PACKAGE}.decision.judgement"
# Fewer names than this in the walk mean that the pattern below no longer finds them.
FEWEST_NAMES = 15

WIDTH, MARGIN, GAP, LANE = 980, 16, 34, 11
LINE, TITLE, PAD, CHARACTER = 15, 22, 8, 6.1
INK, FAINT, FILL, EDGE = "#1b2a33", "#5a6b75", "#f3f7f9", "#8aa1ad"


@dataclass(frozen=True)
class Map:
    """Rows of packages from top to bottom, the modules of each, and what each module and package imports."""

    rows: list[list[str]]
    modules: dict[str, list[str]]
    imports: dict[str, list[str]]
    edges: set[tuple[str, str]]


@dataclass(frozen=True)
class Box:
    """A package on the picture: its place, and the lines of text in columns."""

    name: str
    x: float
    y: float
    width: float
    height: float
    columns: list[list[tuple[str, str]]]


def read_map() -> Map:
    """Read the layers from pyproject.toml and the imports from the code."""
    graph = grimp.build_graph(PACKAGE)
    contracts = read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    layers = next(each["layers"] for each in contracts if each.get("containers") == [PACKAGE])
    rows = [[name.strip() for name in layer.split("|")] for layer in layers]
    packages = set(itertools.chain(*rows))
    modules, imports, edges = {}, {}, set()
    for package in itertools.chain(*rows):
        whole = f"{PACKAGE}.{package}"
        modules[package] = sorted(name for name in graph.modules if name == whole or name.startswith(f"{whole}."))
        for module in modules[package]:
            seen = graph.find_modules_directly_imported_by(module)
            imports[module] = sorted({_package(name) for name in seen} - {package, ""})
            edges |= {(package, _package(name)) for name in seen - {SHARED} if _package(name) in packages - {package}}
    return Map(rows, modules, imports, edges)


def table(drawn: Map) -> str:
    """Return the table of modules, what each is for and what it imports of the runtime."""
    lines = ["| module | what it is | imports |", "| --- | --- | --- |"]
    for package in itertools.chain(*drawn.rows):
        for module in drawn.modules[package]:
            purpose = _purpose(module)
            if purpose and (_short(module) != package or len(drawn.modules[package]) == 1):
                lines.append(f"| `{_short(module)}` | {purpose} | {', '.join(drawn.imports[module])} |")
    return "\n".join(lines)


def picture(drawn: Map) -> str:
    """Return the map as SVG: a row for each layer; arrows that follow from other arrows are left out."""
    boxes = _placed(drawn)
    layer = {package: index for index, row in enumerate(drawn.rows) for package in row}
    edges = sorted(_reduced(drawn.edges))
    height = max(box.y + box.height for box in boxes.values()) + MARGIN
    shapes = [*_arrows(layer, drawn, boxes, edges), *(part for box in boxes.values() for part in _drawn(box))]
    size = f'width="{WIDTH}" height="{height:.0f}"'
    font = 'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="10"'
    tip = f'<path d="M0,0 L8,4 L0,8 z" fill="{EDGE}"/>'
    marker = f'<marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">{tip}</marker>'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {WIDTH} {height:.0f}" {font}>',
        f"<title>The modules of {PACKAGE} and what they import</title>",
        f"<defs>{marker}</defs>",
        f'<rect {size} fill="white"/>',
    ]
    return "\n".join([*head, *shapes, "</svg>\n"])


def named(text: str) -> list[str]:
    """Return the functions and classes of the runtime that a text names: dotted, in backticks, from the package on."""
    packages = {path.stem for path in (ROOT / PACKAGE).iterdir()}
    found = re.findall(r"`([A-Za-z_]\w*(?:\.\w+)+)(?:\(\))?`", text)
    return [name for name in found if name.split(".")[0] in packages]


def missing(names: Sequence[str]) -> list[str]:
    """Return those names that the code does not have."""
    return [name for name in names if not _exists(name)]


def main() -> None:
    """Write picture and table, or compare them."""
    drawn = read_map()
    text = PAGE.read_text("utf-8")
    before, rest = text.split(BEGIN)
    page = f"{before}{BEGIN}\n{table(drawn)}\n{END}{rest.split(END)[1]}"
    made = {PAGE: page, PICTURE: picture(drawn)}
    names = named(before)
    if len(names) < FEWEST_NAMES:
        sys.exit(f"{PAGE} names {len(names)} functions of the runtime; the walk of a block should name more")
    if unknown := missing(names):
        sys.exit(f"{PAGE} names what the code does not have: {', '.join(unknown)}; correct the page")
    if "--check" not in sys.argv:
        for path, content in made.items():
            path.write_text(content, encoding="utf-8")
    elif stale := [path for path, content in made.items() if not path.is_file() or path.read_text("utf-8") != content]:
        sys.exit(f"{', '.join(map(str, stale))}: not what the code says; run: make docs")


def _package(module: str) -> str:
    """Name of the package, or of the module outside any package, that a module of the runtime belongs to."""
    return module.split(".")[1] if module.startswith(f"{PACKAGE}.") else ""


def _short(module: str) -> str:
    return module.removeprefix(f"{PACKAGE}.")


def _purpose(module: str) -> str:
    """First sentence of the docstring of a module; the file is not run."""
    path = ROOT.joinpath(*module.split("."))
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8")
    found = re.match(r'"""(.+?)(?:\.\s|\.?"""|\n\n)', source, re.DOTALL)
    return " ".join(found.group(1).split()).replace("|", "\\|") if found else ""


def _exists(name: str) -> bool:
    """Whether a dotted name is a module, class, function, method or field of the runtime."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join([PACKAGE, *parts[:count]]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            if not hasattr(value, part) and part not in getattr(value, "__dataclass_fields__", {}):
                return False
            value = getattr(value, part, None)
        return True
    return False


def _reduced(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Leave out edges that follow from other edges (transitive reduction)."""
    reach: dict[str, set[str]] = {}

    def below(name: str) -> set[str]:
        if name not in reach:
            reach[name] = {other for start, end in edges if start == name for other in (end, *below(end))}
        return reach[name]

    starts = {start for start, _ in edges}
    onward = {name: below(name) for name in sorted(starts)}
    return {
        (start, end)
        for start, end in edges
        if not any(
            end in onward.get(other, ()) for other_start, other in edges if other_start == start and other != end
        )
    }


def _placed(drawn: Map) -> dict[str, Box]:
    """Place the boxes: those of a layer side by side, as wide as their modules need."""
    long = sum(len(row) for row in drawn.rows)
    right = WIDTH - MARGIN - LANE * long / 2
    boxes, y = {}, float(MARGIN)
    for row in drawn.rows:
        room = (right - MARGIN - GAP * (len(row) - 1)) / len(row)
        x = float(MARGIN)
        for package in row:
            columns = _columns(drawn, package, room)
            widths = [max(len(f"{name}  {seen}") for name, seen in column) * CHARACTER + 2 * PAD for column in columns]
            width = min(room, max(sum(widths), 150.0))
            height = TITLE + PAD + LINE * max(len(column) for column in columns)
            boxes[package] = Box(package, x, y, width, height, columns)
            x += width + GAP
        y += max(boxes[package].height for package in row) + GAP
    return boxes


def _columns(drawn: Map, package: str, room: float) -> list[list[tuple[str, str]]]:
    """Lines of a box: a module and what it imports, in one column, or in two where there is room."""
    modules = [module for module in drawn.modules[package] if _short(module) != package] or drawn.modules[package]
    lines = [(module.rsplit(".", 1)[1], " ".join(drawn.imports[module])) for module in modules]
    longest = max(len(f"{name}  {seen}") for name, seen in lines) * CHARACTER + 2 * PAD
    if len(lines) < 6 or 2 * longest > room:
        return [lines]
    half = (len(lines) + 1) // 2
    return [lines[:half], lines[half:]]


def _drawn(box: Box) -> Iterator[str]:
    yield (
        f'<rect x="{box.x:.0f}" y="{box.y:.0f}" width="{box.width:.0f}" height="{box.height:.0f}" rx="5" '
        f'fill="{FILL}" stroke="{EDGE}"/>'
    )
    yield (
        f'<text x="{box.x + PAD:.0f}" y="{box.y + 15:.0f}" font-size="12" font-weight="bold" fill="{INK}">'
        f"{escape(box.name)}</text>"
    )
    for index, column in enumerate(box.columns):
        x = box.x + PAD + index * box.width / len(box.columns)
        for number, (name, seen) in enumerate(column):
            y = box.y + TITLE + LINE * (number + 0.75)
            own = "" if [name] == [each for each, _ in itertools.chain(*box.columns)] else escape(name)
            yield (
                f'<text x="{x:.0f}" y="{y:.0f}" fill="{INK}" xml:space="preserve">{own}'
                f'<tspan fill="{FAINT}">{"  " if own else ""}{escape(seen)}</tspan></text>'
            )


def _arrows(
    layer: dict[str, int], drawn: Map, boxes: dict[str, Box], edges: Sequence[tuple[str, str]]
) -> Iterator[str]:
    """Draw arrows: straight between neighbouring layers, else along lanes on the right."""
    lane = 0
    for start, end in edges:
        above, below = boxes[start], boxes[end]
        if layer[end] - layer[start] == 1:
            x = min(max(below.x + 40, above.x + 24), above.x + above.width - 10)
            path = f"M{x:.0f},{above.y + above.height:.0f} L{below.x + 40:.0f},{below.y - 1:.0f}"
        else:
            lane += 1
            x, out, into = WIDTH - LANE * lane, above.x + 70 + 9 * lane, below.x + 70 + 9 * lane
            leave, arrive = above.y + above.height + 4 + 3 * lane, below.y - 4 - 3 * lane
            leave = max(leave, max(boxes[p].y + boxes[p].height for p in drawn.rows[layer[start]]) + 4 + 3 * lane)
            path = (
                f"M{out:.0f},{above.y + above.height:.0f} V{leave:.0f} H{x:.0f} V{arrive:.0f} H{into:.0f} "
                f"V{below.y - 1:.0f}"
            )
        yield f'<path d="{path}" fill="none" stroke="{EDGE}" marker-end="url(#tip)"/>'


if __name__ == "__main__":
    main()
