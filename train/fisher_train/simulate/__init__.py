"""Simulated machines: physics-based waves with known faults, for pre-training without recordings."""

from fisher_train.simulate.family import Family, draw_operating_points, draw_states, family
from fisher_train.simulate.machine import Machine, OperatingPoint, State, draw_machine, render

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
