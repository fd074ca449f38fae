"""Voltage of a three-phase supply: harmonics, unbalance, sags, flicker, and a converter's switching.

Sources: IEC 61000-2-4 (harmonics, unbalance, sags), IEC 61000-4-15 (flicker is most annoying at 8.8 Hz); Arrillaga and
Watson, Power System Harmonics (2003), for the third harmonic of rectifiers on an unbalanced supply.
"""

from dataclasses import dataclass

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_train.simulate.damage import Damage
from fisher_train.simulate.inverter import draw_carrier, ripple
from fisher_train.simulate.motion import Drive
from fisher_train.simulate.motor import HARMONICS, draw_harmonics
from fisher_train.simulate.shaft import cosine, orders, phase_of

__all__ = ["FAULTS", "FLICKER_HZ", "Supply", "draw_supply", "supply_voltage"]

FAULTS = ("unbalance", "harmonics", "sag", "flicker")
FLICKER_HZ = 8.8
SLOPE_S = 0.005


@dataclass(frozen=True)
class Supply:
    """A supply as it is measured between one wire and neutral."""

    line_hz: float
    harmonics: tuple[complex, ...]
    """Complex amplitude of the harmonics 1, 2, ... (the first is 1)."""
    sags_hz: float
    """Sags a second on a supply that has them."""
    carrier_hz: float
    """Switching frequency of the converter that feeds or disturbs it; 0: none."""
    carrier: float


def draw_supply(rng: np.random.Generator) -> Supply:
    """Draw the mains, or the output of a converter."""
    converter = rng.uniform() < 0.4
    harmonics = np.asarray(draw_harmonics(rng))
    harmonics[1:] *= 0.5
    return Supply(
        line_hz=float(np.exp(rng.uniform(np.log(15), np.log(120)))) if converter else float(rng.choice([50.0, 60.0])),
        harmonics=tuple(harmonics.tolist()),
        sags_hz=float(rng.uniform(1.5, 3.0)),
        carrier_hz=draw_carrier(rng),
        carrier=float(rng.uniform(0.1, 0.6)) if converter else float(10 ** rng.uniform(-4, -2)),
    )


def supply_voltage(supply: Supply, drive: Drive, damage: Damage, wire: int = 0) -> FloatArray:
    """Voltage of one of three wires (samples,), 1 at its rated fundamental; `wire` 1 and 2 lag by thirds.

    `unbalance`: a negative sequence, and the third harmonic that rectifiers answer it with. `harmonics`: the 5th,
    7th, 11th, 13th of six-pulse rectifiers. `sag`: the voltage falls for a part of every cycle of events.
    `flicker`: a load that sways at 8.8 Hz.
    """
    harmonics = np.asarray(supply.harmonics)
    top = drive.top_order(drive.line_hz)
    if damage.fault == "harmonics":
        added = np.zeros(HARMONICS, np.complex128)
        added[[4, 6, 10, 12]] = damage.specimen.shape(np.asarray([0.10, 0.07, 0.04, 0.03]) * damage.size)
        harmonics = harmonics + added
    voltage = orders(drive.cycles - wire / 3, harmonics, top)
    if damage.fault == "unbalance":
        added = np.zeros(3, np.complex128)
        added[[0, 2]] = damage.specimen.shape([0.06, 0.04]) * np.exp(2j * np.pi * wire / 3) * damage.size
        voltage += orders(drive.cycles + damage.specimen.phase, added, top)
    elif damage.fault == "sag":
        voltage *= 1 - np.float32(min(0.9, 0.3 * damage.size)) * _sagging(supply, drive, damage)
    elif damage.fault == "flicker":
        sway = cosine(phase_of(drive.time_s * FLICKER_HZ + damage.specimen.phase))
        voltage *= 1 + np.float32(min(0.9, 0.06 * damage.size)) * sway
    return voltage + ripple(drive, supply.carrier_hz, supply.carrier, wire)


def _sagging(supply: Supply, drive: Drive, damage: Damage) -> FloatArray:
    """Depth of the sags (samples,), 0 to 1: each holds for a tenth to a third of the time from one to the next."""
    specimen = damage.specimen
    turn = phase_of(drive.time_s * supply.sags_hz + specimen.phase)
    holds = 0.1 + 0.25 * specimen.place
    slope = SLOPE_S * supply.sags_hz
    return np.asarray(np.clip(turn / slope, 0, 1) * np.clip((holds - turn) / slope, 0, 1), np.float32)
