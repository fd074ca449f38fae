"""Families: one simulated machine in several states, each recorded at two operating points.

Start at `family`: it is what contrastive training uses.
"""

from dataclasses import dataclass, replace

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_train.simulate.machine import ELECTRICAL, FAULTS_OF, Machine, OperatingPoint, State, draw_machine, render
from fisher_train.simulate.structure import PATHS

SPREADS = (0.03, 0.15, 0.4)
"""Largest relative deviations of speed from the middle of two operating points, drawn alike."""
OTHER_SPECIMEN = 0.3
"""Share of families whose second recording shows other specimens of the same faults."""
__all__ = ["Family", "draw_operating_points", "draw_states", "family"]


@dataclass(frozen=True, eq=False)
class Family:
    """One machine in several states: `waves` (states, operating points, samples), float32."""

    machine: Machine
    states: tuple[State, ...]
    waves: FloatArray


def draw_states(machine: Machine, rng: np.random.Generator) -> tuple[State, ...]:
    """Draw 4 states: healthy, one fault at two severities, and another fault (or a third severity).

    Severities run from hardly to plainly visible, compared with the loudest force on the machine.
    """
    part, fault = _draw_fault(machine, rng)
    other_part, other = _draw_fault(machine, rng)
    low, high = np.sort(10 ** rng.uniform(-0.7, 0.9, 2))
    high = max(high, 1.8 * low)
    size = 10 ** rng.uniform(-0.4, 0.9)
    if (other_part, other) == (part, fault):
        size = 2 * high
    return (
        State(),
        State(part, fault, float(low * _scale(machine, part))),
        State(part, fault, float(high * _scale(machine, part))),
        State(other_part, other, float(size * _scale(machine, other_part))),
    )


def draw_operating_points(rng: np.random.Generator) -> tuple[OperatingPoint, OperatingPoint]:
    """Draw two ways to run one machine: close together, apart, or further apart than a fixed-speed plant ever runs."""
    spread = float(rng.choice(SPREADS))
    speed, load = rng.uniform(0.65, 1.0), rng.uniform(0.1, 1.0)

    def near() -> OperatingPoint:
        return OperatingPoint(
            speed=float(speed * (1 + rng.uniform(-spread, spread))),
            load=float(np.clip(load + rng.uniform(-1, 1) * min(0.3, 2 * spread), 0, 1)),
            line=float(1 + rng.uniform(-0.01, 0.01)),
            gain_db=float(rng.uniform(-1, 1)),
        )

    return near(), near()


def family(rng: np.random.Generator, rate_hz: int, samples: int) -> Family:
    """Draw one machine with 4 states and record each at 2 operating points."""
    machine = draw_machine(rng, rate_hz)
    states = draw_states(machine, rng)
    points = draw_operating_points(rng)
    other_specimen = rng.uniform() < OTHER_SPECIMEN
    waves = np.stack(
        [
            np.stack(
                [
                    render(machine, replace(state, specimen=number * other_specimen), point, rate_hz, samples, rng)
                    for number, point in enumerate(points)
                ]
            )
            for state in states
        ]
    )
    return Family(machine, states, waves)


def _draw_fault(machine: Machine, rng: np.random.Generator) -> tuple[str, str]:
    parts = machine.parts()
    part = parts[rng.integers(len(parts))]
    faults = FAULTS_OF[part]
    return part, faults[rng.integers(len(faults))]


def _scale(machine: Machine, part: str) -> float:
    """Loudest force on the machine over the force of one part."""
    if machine.modality in ELECTRICAL:
        return 1.0
    present = [level for path, level in zip(PATHS, machine.levels, strict=True) if getattr(machine, path, True)]
    return max(present) / machine.levels[PATHS.index(part)]
