"""What all mechanisms share: sums of orders, numbered events, trains of pulses, periodic gates."""

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray

__all__ = [
    "DoubleArray",
    "cosine",
    "events",
    "orders",
    "periodic",
    "phase_of",
    "pulse_rms",
    "pulses",
    "turn_grid",
    "unit_gate",
]

DoubleArray = npt.NDArray[np.float64]
GATE_POINTS = 512


def phase_of(angle: DoubleArray) -> FloatArray:
    """Fraction of a revolution (samples,), 0 to 1, in single precision."""
    return np.asarray(angle - np.floor(angle), np.float32)


def cosine(phase: FloatArray) -> FloatArray:
    """Cosine of an angle in revolutions."""
    return np.asarray(np.cos(np.float32(2 * np.pi) * phase))


def orders(angle: DoubleArray, amplitudes: npt.NDArray[np.complexfloating], top_order: float = np.inf) -> FloatArray:
    """Sum of orders 1, 2, ... of a rotation: `Re sum_k a_k exp(2 pi i k r)`, by Horner's rule.

    Orders from `top_order` on are left out: they would fold back from above half the sampling rate.
    """
    used = np.flatnonzero(amplitudes)
    used = used[used + 1 < top_order]
    if not len(used):
        return np.zeros(len(angle), np.float32)
    radians = np.float32(2 * np.pi) * phase_of(angle)
    turn = np.empty(len(angle), np.complex64)
    turn.real = np.cos(radians)
    turn.imag = np.sin(radians)
    total = np.full(len(angle), np.complex64(amplitudes[used[-1]]))
    for amplitude in amplitudes[: used[-1]][::-1]:
        total *= turn
        if amplitude:
            total += np.complex64(amplitude)
    total *= turn
    return total.real


def events(edge_angle: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Whole numbers that an angle (samples + 2,) passes and the place of each in samples.

    One event more on either side is among them, extrapolated, so that one that comes late or early at a border of
    two blocks is seen by the block it falls into.
    """
    samples = len(edge_angle) - 2
    number = np.arange(np.ceil(edge_angle[0] - 1), np.floor(edge_angle[-1] + 1) + 1)
    place = np.interp(number, edge_angle, np.arange(-1.0, samples + 1))
    early, late = number < edge_angle[0], number > edge_angle[-1]
    place[early] = -1 - (edge_angle[0] - number[early]) / (edge_angle[1] - edge_angle[0])
    place[late] = samples + (number[late] - edge_angle[-1]) / (edge_angle[-1] - edge_angle[-2])
    return number, place


def pulses(place: DoubleArray, weights: DoubleArray, samples: int) -> FloatArray:
    """Unit pulses at places counted in samples, each times its weight; split between two samples."""
    inside = (place > -1) & (place < samples)
    place, weights = place[inside] + 1, weights[inside]
    left = place.astype(np.int64)
    part = place - left
    train = np.bincount(left, weights * (1 - part), samples + 2)
    train += np.bincount(left + 1, weights * part, samples + 2)
    return train[1:-1].astype(np.float32)


def pulse_rms(events_hz: float, rate_hz: int, mean_square: float = 1.0) -> float:
    """Root mean square that `pulses` have on average at so many events a second and this mean square of weights.

    A pulse that is split between two samples at a random place keeps two thirds of its energy.
    """
    return float(np.sqrt(events_hz / rate_hz * mean_square * 2 / 3))


def unit_gate(gate: DoubleArray) -> FloatArray:
    """Scale one period of a gate so that white noise of variance 1 keeps it on passing."""
    return np.asarray(gate / np.sqrt(np.mean(np.square(gate))), np.float32)


def periodic(table: FloatArray, phase: FloatArray) -> FloatArray:
    """Read one period (points,) of a function at an angle (samples,) of 0 to 1 revolutions, between points linearly."""
    place = phase * np.float32(len(table))
    left = place.astype(np.int32)
    left[left == len(table)] = 0
    place -= left
    around = np.concatenate([table, table[:1]])
    low = around[left]
    place *= around[left + 1] - low
    place += low
    return place


def turn_grid(points: int = GATE_POINTS) -> DoubleArray:
    """Angles (points,) of one revolution."""
    return np.arange(points) / points
