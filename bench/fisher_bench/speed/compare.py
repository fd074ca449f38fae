"""Two measurements side by side, as ratios and as a picture. Start at `ratios`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fisher_edge.errors import BadInputError, require

__all__ = ["Ratio", "draw", "ratios", "read_measurement"]

DOTS_PER_INCH = 120


@dataclass(frozen=True)
class Ratio:
    """A figure in two measurements; `ratio` is the second over the first."""

    name: str
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """The second over the first; 1 where both are 0."""
        if self.before == 0:
            return 1.0 if self.after == 0 else float("inf")
        return self.after / self.before


def read_measurement(path: Path) -> dict[str, Any]:
    """Read what `fisher-edge bench --json` printed. Raises BadInputError for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror}; check the path") from error
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{path} is no JSON ({error}); give what fisher-edge bench --json printed") from error
    stages = found.get("stages") if isinstance(found, dict) else None
    if not isinstance(stages, dict) or not all(map(_is_stage, stages.values())):
        raise BadInputError(f"{path} holds no stages; give what fisher-edge bench --json printed")
    return dict(found)


def _is_stage(value: Any) -> bool:
    """Whether this is a stage as it is printed."""
    if not isinstance(value, dict) or not isinstance(value.get("what"), str):
        return False
    return value.get("cpu_ms") is None or isinstance(value["cpu_ms"], dict)


def ratios(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Ratio]:
    """Return every number that both measurements have, by its path: `stages.encoder.cpu_ms.p50`."""
    second = dict(_numbers(after))
    return [Ratio(name, value, second[name]) for name, value in _numbers(before) if name in second]


def draw(measurements: Sequence[tuple[str, Mapping[str, Any]]], path: Path) -> None:
    """Draw the stages of one or more named measurements as bars of their median with a line up to the 99 %."""
    require("bench", "matplotlib")
    from matplotlib.figure import Figure  # noqa: PLC0415 -- an extra

    names = [name for name, stage in measurements[0][1]["stages"].items() if stage["cpu_ms"] is not None]
    figure = Figure(figsize=(8, 1.2 + 0.5 * len(names) * len(measurements) ** 0.5), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(measurements)
    for number, (label, measurement) in enumerate(measurements):
        stages = measurement["stages"]
        places = [row + number * height for row, name in enumerate(names) if name in stages]
        medians = [stages[name]["cpu_ms"]["p50"] for name in names if name in stages]
        beyond = [stages[name]["cpu_ms"]["p99"] - stages[name]["cpu_ms"]["p50"] for name in names if name in stages]
        axes.barh(places, medians, height, xerr=[[0.0] * len(beyond), beyond], label=label, capsize=2)
    labels = [f"{name}, {measurements[0][1]['stages'][name]['what']}" for name in names]
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(names))], labels=labels)
    axes.invert_yaxis()
    axes.set_xlabel("CPU time of one, ms: median, line to the 99th percentile")
    axes.legend()
    try:
        figure.savefig(path, dpi=DOTS_PER_INCH)
    except (OSError, ValueError) as error:
        raise BadInputError(f"cannot write {path}: {error}; choose a name that ends in .png or .svg") from error


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield every number with its path."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)
