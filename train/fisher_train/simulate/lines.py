"""Where theory puts the lines of a machine and of its faults: what plots mark and reports name."""

from dataclasses import dataclass
from typing import Literal

from fisher_train.simulate.bearing import fault_orders
from fisher_train.simulate.damage import Damage, draw_specimen
from fisher_train.simulate.leak import peak_hz
from fisher_train.simulate.machine import Machine, OperatingPoint, State
from fisher_train.simulate.motor import slip_of
from fisher_train.simulate.planetary import stage_orders
from fisher_train.simulate.supply import FLICKER_HZ

__all__ = ["Line", "lines_of"]


@dataclass(frozen=True)
class Line:
    """A frequency, its name in the field, and where it is looked for."""

    name: str
    hz: float
    seen_in: Literal["spectrum", "envelope"]


def lines_of(machine: Machine, state: State, point: OperatingPoint) -> tuple[Line, ...]:
    """Lines of the part that is damaged (of the healthy shaft without one) at an operating point."""
    speed_hz = machine.rotor.speed_hz * point.speed
    known = {
        "rotor": _rotor,
        "bearing": _bearing,
        "gear": _gear,
        "planetary": _planetary,
        "motor": _motor,
        "flow": _flow,
        "compressor": _compressor,
        "leak": _leak,
        "supply": _supply,
    }
    return known[state.part](machine, state, point, speed_hz) if state.part else (_order("1X", speed_hz),)


def _order(name: str, hz: float) -> Line:
    return Line(name, hz, "spectrum")


def _beside(name: str, side: str, hz: float, side_hz: float) -> tuple[Line, ...]:
    """A line with one sideband on either side."""
    return _order(f"{name} - {side}", hz - side_hz), _order(name, hz), _order(f"{name} + {side}", hz + side_hz)


def _envelope(name: str, hz: float, *, harmonics: int = 3) -> tuple[Line, ...]:
    return tuple(Line(f"{k} {name}" if k > 1 else name, k * hz, "envelope") for k in range(1, harmonics + 1))


def _rotor(_machine: Machine, state: State, _point: OperatingPoint, speed_hz: float) -> tuple[Line, ...]:
    orders = {"unbalance": (1.0,), "misalignment": (1.0, 2.0)}.get(state.fault, (0.5, 1.0, 1.5, 2.0))
    bursts = _envelope("1X", speed_hz) if state.fault in {"looseness", "rub"} else ()
    return (*(_order(f"{order:g}X", order * speed_hz) for order in orders), *bursts)


def _bearing(machine: Machine, state: State, _point: OperatingPoint, speed_hz: float) -> tuple[Line, ...]:
    assert machine.bearing is not None
    slip = draw_specimen(machine.seed, "bearing", state.fault, state.specimen).slip
    hz = {name: order * speed_hz for name, order in fault_orders(machine.bearing, slip).items()}
    return {
        "outer": _envelope("BPFO", hz["outer"]),
        "inner": (*_envelope("BPFI", hz["inner"]), *_envelope("1X", speed_hz, harmonics=1)),
        "ball": (*_envelope("BSF", hz["ball"] / 2, harmonics=4), *_envelope("FTF", hz["cage"], harmonics=1)),
        "cage": _envelope("FTF", hz["cage"]),
    }[state.fault]


def _gear(machine: Machine, state: State, _point: OperatingPoint, speed_hz: float) -> tuple[Line, ...]:
    assert machine.gear is not None
    mesh_hz = machine.gear.teeth * speed_hz
    harmonics = tuple(_order(f"{k} mesh", k * mesh_hz) for k in (2, 3))
    strikes = _envelope("1X", speed_hz) if state.fault == "tooth" else ()
    return (*_beside("mesh", "1X", mesh_hz, speed_hz), *harmonics, *strikes)


def _planetary(machine: Machine, state: State, _point: OperatingPoint, speed_hz: float) -> tuple[Line, ...]:
    assert machine.planetary is not None
    hz = {name: order * speed_hz for name, order in stage_orders(machine.planetary).items()}
    mesh = _beside("mesh", "carrier", hz["mesh"], hz["carrier"])
    return mesh if state.fault == "carrier" else (*mesh, *_envelope(state.fault, hz[state.fault]))


def _motor(machine: Machine, state: State, point: OperatingPoint, _speed_hz: float) -> tuple[Line, ...]:
    assert machine.motor is not None
    line_hz = machine.motor.line_hz * point.line
    slip = slip_of(machine.motor, point.load)
    shaft_hz = line_hz * (1 - slip) / machine.motor.pole_pairs
    main, hz = ("line", line_hz) if machine.modality == "current" else ("2 line", 2 * line_hz)
    return {
        "bars": (*_beside(main, "2 slip", hz, 2 * slip * line_hz), *_envelope("2 slip", 2 * slip * line_hz)),
        "airgap": (*_beside(main, "shaft", hz, shaft_hz), *_envelope("shaft", shaft_hz, harmonics=1)),
        "interturn": (_order(main, hz), _order("3 line" if main == "line" else "4 line", (hz / line_hz + 2) * line_hz)),
    }[state.fault]


def _flow(machine: Machine, state: State, _point: OperatingPoint, speed_hz: float) -> tuple[Line, ...]:
    assert machine.flow is not None
    pass_hz = machine.flow.blades * speed_hz
    if state.fault == "cavitation":
        return (_order("blade pass", pass_hz), *_envelope("blade pass", pass_hz))
    return _beside("blade pass", "1X", pass_hz, speed_hz)


def _compressor(_machine: Machine, _state: State, _point: OperatingPoint, speed_hz: float) -> tuple[Line, ...]:
    return (_order("1X", speed_hz), *_envelope("1X", speed_hz, harmonics=5))


def _leak(machine: Machine, state: State, _point: OperatingPoint, _speed_hz: float) -> tuple[Line, ...]:
    assert machine.leak is not None
    if state.fault == "chatter":
        return _envelope("chatter", machine.leak.chatter_hz)
    specimen = draw_specimen(machine.seed, "leak", state.fault, state.specimen)
    return (_order("0.2 U/D", peak_hz(Damage(state.fault, state.size, specimen))),)


def _supply(machine: Machine, state: State, point: OperatingPoint, _speed_hz: float) -> tuple[Line, ...]:
    assert machine.supply is not None
    line_hz = machine.supply.line_hz * point.line
    if state.fault == "flicker":
        return (*_beside("line", "8.8 Hz", line_hz, FLICKER_HZ), *_envelope("8.8 Hz", FLICKER_HZ, harmonics=1))
    if state.fault == "sag":
        return (_order("line", line_hz), *_envelope("sags", machine.supply.sags_hz))
    orders = (1, 3) if state.fault == "unbalance" else (1, 5, 7, 11, 13)
    return tuple(_order(f"{order} line", order * line_hz) for order in orders)
