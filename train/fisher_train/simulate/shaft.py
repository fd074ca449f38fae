"""What all mechanisms share: the turning shaft, sums of orders, trains of impacts."""

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray

__all__ = ["DoubleArray", "impact_train", "orders", "shaft_revolutions", "unit_rms"]

DoubleArray = npt.NDArray[np.float64]
KNOT_S = 0.15
"""Speed wanders between random knots this far apart."""


def shaft_revolutions(
    speed_hz: float, fluctuation: float, samples: int, rate_hz: int, rng: np.random.Generator
) -> DoubleArray:
    """Revolutions turned at every sample (samples,), strictly increasing, from a random starting angle.

    `fluctuation` is the relative standard deviation of the speed.
    """
    knots = max(3, int(samples / rate_hz / KNOT_S) + 2)
    wander = fluctuation * np.clip(rng.standard_normal(knots), -3, 3)
    speed = speed_hz * (1 + np.interp(np.linspace(0, knots - 1, samples), np.arange(knots), wander))
    return np.cumsum(speed) / rate_hz + rng.uniform()


def orders(revolutions: DoubleArray, amplitudes: npt.NDArray[np.complexfloating]) -> FloatArray:
    """Sum of orders 1, 2, ... of a rotation: `Re sum_k a_k exp(2 pi i k r)`, by Horner's rule."""
    angle = (2 * np.pi * (revolutions % 1.0)).astype(np.float32)
    turn = np.empty(len(angle), np.complex64)
    turn.real = np.cos(angle)
    turn.imag = np.sin(angle)
    used = np.flatnonzero(amplitudes)
    if not len(used):
        return np.zeros(len(angle), np.float32)
    total = np.full(len(angle), np.complex64(amplitudes[used[-1]]))
    for amplitude in amplitudes[: used[-1]][::-1]:
        total *= turn
        if amplitude:
            total += np.complex64(amplitude)
    total *= turn
    return total.real


def impact_train(revolutions: DoubleArray, at: DoubleArray, weights: DoubleArray) -> FloatArray:
    """Unit pulses at the revolutions `at` (ascending), each times its weight; split between two samples."""
    samples = len(revolutions)
    inside = (at > revolutions[0]) & (at < revolutions[-1])
    place = np.interp(at[inside], revolutions, np.arange(samples))
    left = place.astype(np.int64)
    part = place - left
    kept = weights[inside]
    train = np.bincount(left, kept * (1 - part), samples + 1)
    train += np.bincount(left + 1, kept * part, samples + 1)
    return train[:samples].astype(np.float32)


def unit_rms(wave: FloatArray) -> FloatArray:
    """Scale a wave to root mean square 1; silence stays silence."""
    rms = float(np.sqrt(np.mean(np.square(wave))))
    return wave / np.float32(rms) if rms > 0 else wave
