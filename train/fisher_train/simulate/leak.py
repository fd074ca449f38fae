"""Valves and pipes: flow noise, the hiss of a leak, steam that spits, a valve that chatters.

Sources: Howe, Theory of Vortex Sound (2003), and Tam, Viswanathan, Ahuja and Panda, The sources of jet noise, JFM 615
(2008): a jet of speed U from a hole of diameter D is loudest near `0.2 U/D` and falls off slowly on either side; the
flow in a pipe has most of its noise below that.
"""

from dataclasses import dataclass

import numpy as np
from scipy import signal

from fisher_edge.dsp.blocks import FloatArray
from fisher_train.simulate.damage import Damage
from fisher_train.simulate.motion import Drive
from fisher_train.simulate.shaft import DoubleArray, events, pulse_rms, pulses

__all__ = ["FAULTS", "Leak", "draw_leak", "hiss_taps", "leak_force", "peak_hz"]

FAULTS = ("air", "steam", "chatter")
TAPS = 65
AIR_M_S, STEAM_M_S = 340.0, 480.0
"""Speed of sound in the throat, which a choked jet has."""


@dataclass(frozen=True)
class Leak:
    """A valve with something flowing through or past it."""

    flow: float
    """Level of the noise of the flow when nothing leaks."""
    flow_hz: float
    """Frequency above which that noise falls off."""
    chatter_hz: float
    """Blows a second of a disc that cannot hold its seat."""


def draw_leak(rng: np.random.Generator) -> Leak:
    """Draw a valve: a quiet one that is shut, or one with flow through it."""
    return Leak(
        flow=float(10 ** rng.uniform(-1.5, 0)),
        flow_hz=float(10 ** rng.uniform(2.3, 3.5)),
        chatter_hz=float(np.exp(rng.uniform(np.log(15), np.log(80)))),
    )


def peak_hz(damage: Damage) -> float:
    """Frequency at which the jet of this specimen is loudest: holes of 2 to 15 mm of air, larger ones of steam."""
    speed, low_m, high_m = (AIR_M_S, 2e-3, 15e-3) if damage.fault == "air" else (STEAM_M_S, 5e-3, 30e-3)
    return float(0.2 * speed / (low_m * (high_m / low_m) ** damage.specimen.place))


def leak_force(leak: Leak, drive: Drive, damage: Damage) -> FloatArray:
    """Force at the valve (samples,), 1 for a flow of level 1.

    `air`: an even hiss about `peak_hz`. `steam`: lower and uneven, because drops of water come with it. `chatter`:
    the disc strikes its seat at its own pace. `size` is the RMS of what is added.
    """
    force = np.float32(leak.flow * (0.3 + 0.7 * drive.load)) * _coloured(
        drive, "flow", hiss_taps(leak.flow_hz, drive.rate_hz, jet=False)
    )
    if damage.fault in {"air", "steam"}:
        hiss = _coloured(drive.of_fault, "hiss", hiss_taps(peak_hz(damage), drive.rate_hz, jet=True))
        if damage.fault == "steam":
            hiss *= _spitting(drive, damage)
        force += np.float32(damage.size) * hiss
    elif damage.fault == "chatter":
        force += np.float32(damage.size) * _chatter(leak, drive, damage)
    return force


def hiss_taps(peak: float, rate_hz: int, *, jet: bool) -> FloatArray:
    """Filter (TAPS,) that gives white noise the spectrum of a jet, or of a flow below `peak`, at RMS 1."""
    f = np.linspace(0, rate_hz / 2, 257)
    x = f / peak
    amplitude = x / (1 + x**2) if jet else 1 / (1 + x**2) ** (5 / 12)  # power falls off as f^-2; as f^(-5/3)
    taps = signal.firwin2(TAPS, f, amplitude, fs=rate_hz)
    return np.asarray(taps / np.sqrt(np.sum(np.square(taps))), np.float32)


def _coloured(drive: Drive, name: str, taps: FloatArray) -> FloatArray:
    noise = drive.run.continued_white(name, drive.samples, len(taps) - 1)
    return np.asarray(signal.oaconvolve(noise, taps, "valid"), np.float32)


def _spitting(drive: Drive, damage: Damage) -> FloatArray:
    """Swelling of a wet jet (samples,), 1 in the mean square: bursts a few times to some dozen times a second."""
    per_s = 4 * (1 + 4 * damage.specimen.width)
    drift = drive.of_fault.edge_drift("spit", 0.3)[1:-1]
    angle = (drive.time_s + drift) * per_s + damage.specimen.phase
    depth = 0.5 + 0.4 * damage.specimen.exit
    swell: DoubleArray = 1 + depth * np.sin(2 * np.pi * angle + 1.3 * np.sin(2 * np.pi * 0.37 * angle))
    return np.asarray(swell / np.sqrt(1 + depth**2 / 2), np.float32)


def _chatter(leak: Leak, drive: Drive, damage: Damage) -> FloatArray:
    """Train of blows (samples,) of RMS 1 of a disc on its seat, not quite regular."""
    times = np.arange(drive.first - 1, drive.first + drive.samples + 1) / drive.rate_hz
    times += drive.of_fault.edge_drift("disc", 0.02)
    number, place = events(times * leak.chatter_hz + damage.specimen.phase)
    weights = np.exp((0.2 + damage.specimen.roughness) * drive.run.of_fault.scatter("disc", number))
    square = float(np.exp(2 * (0.2 + damage.specimen.roughness) ** 2))
    return pulses(place, weights, drive.samples) / np.float32(pulse_rms(leak.chatter_hz, drive.rate_hz, square))
