"""Machines that can be asked for by name, what can be wrong with them, and what their sensor measures."""

from dataclasses import replace
from typing import get_args

import numpy as np

from fisher_edge.errors import UsageError
from fisher_train.simulate import motor, supply
from fisher_train.simulate.machine import DRAWS, FAULTS_OF, Machine, State
from fisher_train.simulate.rotor import draw_rotor
from fisher_train.simulate.sensor import Modality, draw_sensor
from fisher_train.simulate.structure import HIGHEST_MODE_HZ, PATHS, draw_structure

__all__ = ["FAULTS_TOLD", "KINDS", "MAX_RATE_HZ", "MIN_RATE_HZ", "machine_of", "state_of"]

MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 200_000
KINDS: dict[str, tuple[str, tuple[Modality, ...]]] = {
    "rotor": ("shaft with its residual unbalance", ("vibration", "sound")),
    "bearing": ("rolling bearing", ("vibration", "sound")),
    "gear": ("pair of gears", ("vibration", "sound")),
    "planetary": ("planetary stage, sun driven, ring fixed", ("vibration", "sound")),
    "motor": ("induction motor", ("current", "vibration", "sound")),
    "flow": ("pump or fan", ("vibration", "sound")),
    "compressor": ("reciprocating compressor", ("vibration", "sound")),
    "leak": ("valve or pipe under pressure", ("sound", "vibration")),
    "supply": ("three-phase supply or converter", ("voltage",)),
}
"""What each is, and what its sensor may measure, the usual quantity first."""
FAULTS_TOLD = {
    "rotor": ("unbalance", "misaligned coupling", "loose foot", "rotor touches the stator"),
    "bearing": ("spall on the outer race", "spall on the inner race", "spall on a ball", "worn cage"),
    "gear": ("cracked tooth", "worn teeth", "eccentric pinion"),
    "planetary": (
        "damaged tooth of the sun",
        "damaged tooth of a planet",
        "damaged tooth of the ring",
        "planets share the load unevenly",
    ),
    "motor": ("broken rotor bars", "shorted turns in one winding", "eccentric air gap"),
    "flow": ("cavitation", "damaged blade", "blocked inlet"),
    "compressor": ("leaking suction valve", "leaking discharge valve", "weak valve spring", "worn piston pin"),
    "leak": ("leaking air", "leaking wet steam", "chattering valve"),
    "supply": ("unbalanced phases", "harmonics of rectifiers", "sags", "flicker"),
}
"""What the faults of FAULTS_OF are, in the same order."""
COMPANY = 0.25
"""Force of the other parts of a machine relative to the one that is asked for."""
QUIET = ("rotor", "motor", "flow")
"""Parts whose low frequencies reach the sensor in full, for no resonance helps them."""
FULL_SCALE = 300.0
"""Range of the sensor: a severe fault does not clip, for a clipping sensor is judged broken, not the machine."""


def machine_of(
    kind: str, rate_hz: int, seed: int, *, modality: str | None = None, speed_hz: float | None = None
) -> Machine:
    """Draw a machine of one kind, so that its own part is the loudest; raises UsageError for an unknown kind."""
    if kind not in KINDS:
        raise UsageError(f"machine {kind!r} is not known; choose one of: {', '.join(KINDS)}")
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise UsageError(f"rate_hz={rate_hz} is outside {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz; choose one within")
    if speed_hz is not None and not 0.5 <= speed_hz <= 1000:
        raise UsageError(f"speed_hz={speed_hz:g} is outside 0.5 to 1000 Hz; choose one within")
    measured = _modality(kind, modality)
    rng = np.random.default_rng([seed, 0])
    rotor = draw_rotor(rng)
    sensor = draw_sensor(rng, measured, healthy_rms=1.0)
    parts = {"bearing": DRAWS["bearing"][0](rng)}
    own = rng.spawn(1)[0] if kind == "bearing" else rng
    if kind in DRAWS:
        parts[kind] = DRAWS[kind][0](own)
    elif kind == "supply":
        parts[kind] = supply.draw_supply(rng)
    if measured == "current":
        parts["motor"] = motor.draw_motor(rng)
    structure = draw_structure(rng, max(HIGHEST_MODE_HZ, 0.45 * rate_hz))
    direct = tuple(max(share, float(path in QUIET)) for path, share in zip(PATHS, structure.direct, strict=True))
    levels = dict.fromkeys(PATHS, COMPANY) | {kind: 1.0, "background": 0.1 * COMPANY}
    return Machine(
        modality=measured,
        seed=seed,
        rotor=rotor if speed_hz is None else replace(rotor, speed_hz=speed_hz),
        structure=replace(structure, direct=direct),
        sensor=replace(sensor, noise_db=min(sensor.noise_db, -25.0), full_scale=FULL_SCALE, bits=24),
        levels=tuple(levels[path] for path in PATHS),
        **parts,
    )


def _modality(kind: str, asked: str | None) -> Modality:
    usual = KINDS[kind][1]
    for modality in get_args(Modality):
        if modality == (asked or usual[0]) and modality in usual:
            return modality  # type: ignore[no-any-return]  # a member of the literal by construction
    raise UsageError(f"the sensor of a {kind} measures {' or '.join(usual)}, not {asked}; choose one of them")


def state_of(kind: str, fault: str, severity: float, specimen: int = 0) -> State:
    """Return the state of a machine of this kind with a fault, or healthy without one; raises UsageError."""
    if fault and fault not in FAULTS_OF[kind]:
        raise UsageError(f"fault {fault!r} is not one of a {kind}; choose one of: {', '.join(FAULTS_OF[kind])}")
    if not 0 <= severity <= 100:
        raise UsageError(f"severity={severity:g} is outside 0 to 100; 1 is plain to see")
    return State(kind, fault, severity, specimen) if fault else State()
