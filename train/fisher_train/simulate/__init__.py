"""Simulated machines: physics-based waves with known faults, for pre-training without recordings."""

from fisher_train.simulate.machine import (
    Family,
    Machine,
    OperatingPoint,
    State,
    draw_machine,
    draw_operating_points,
    draw_states,
    family,
    render,
)

__all__ = [
    "Family",
    "Machine",
    "OperatingPoint",
    "State",
    "draw_machine",
    "draw_operating_points",
    "draw_states",
    "family",
    "render",
]
