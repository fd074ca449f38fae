"""From a device's ticks to the time of the host.

`TickCounter` unwraps the 32-bit counter, `ClockMap` learns how fast the device's clock runs and where it stands from
pings, `RateMeter` measures how many samples a second a stream really has. Times are in seconds of one monotonic clock.
"""

import math
from collections import deque
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["ClockFit", "ClockMap", "Measured", "RateMeter", "TickCounter"]

WRAP = 1 << 32
PINGS = 2400
"""Pings remembered: two minutes of twenty a second, so that a clock that warms up is followed."""
FEWEST = 8
MOST_PPM = 5000.0
"""Half a percent."""
BUCKETS = 24
PRIOR_PPM = 2000.0
"""How far a clock may be off before anything is measured: an RC oscillator rather than a crystal."""
SWAY = 0.1
"""How far the shortest trips themselves may change over the pings, one way against the other, as a share of them."""
FLOOR_S = 2e-6
"""A quickest ping is not known better than this: the resolution of a tick and of the host's clock."""
TUNING = 1.345
"""Huber's constant: 95 % efficient where the errors are normal."""

Floats = npt.NDArray[np.float64]


class TickCounter:
    """Unwraps the 32-bit tick counter with the help of the host's clock, however long the silence in between."""

    def __init__(self, tick_hz: int) -> None:
        self.tick_hz = tick_hz
        self._last: tuple[int, float] | None = None

    def unwrap(self, ticks: int, host_s: float) -> int:
        """Return the ticks since the counter's zero before the first call, given roughly when they were read."""
        if self._last is None:
            self._last = ticks, host_s
            return ticks
        known, known_s = self._last
        expected = known + round((host_s - known_s) * self.tick_hz)
        whole = expected + (ticks - expected + WRAP // 2) % WRAP - WRAP // 2
        if whole > known:
            self._last = whole, host_s
        return whole


@dataclass(frozen=True)
class Measured:
    """A value with its standard error."""

    value: float
    error: float

    def is_wrong_rate(self) -> bool:
        """Whether a deviation in ppm is too large by three standard errors: it moves the lines of a spectrum as far."""
        return abs(self.value) - 3 * self.error > MOST_PPM


@dataclass(frozen=True)
class ClockFit:
    """A device's clock: `host_s` of a tick, and how fast it runs against the host's in parts per million."""

    tick_hz: float
    reference_ticks: int
    reference_s: float
    drift_ppm: Measured
    offset_error_s: float
    """Half of the quickest round trip: what asymmetry could hide."""

    def host_s(self, ticks: int) -> float:
        """Return when the host's clock showed the moment of a tick."""
        return self.reference_s + (ticks - self.reference_ticks) / (self.tick_hz * (1 + self.drift_ppm.value * 1e-6))

    def unconfirmed(self) -> "ClockFit":
        """Return the same clock without fresh pings: its drift is as uncertain as if it had never been measured."""
        return replace(self, drift_ppm=Measured(self.drift_ppm.value, math.hypot(self.drift_ppm.error, PRIOR_PPM)))


class ClockMap:
    """Learns a device's clock from pings that are sent at one time, received and answered at ticks, and come back.

    A line is fitted by robust least squares through the pings of the shortest trip in each stretch of time, for each
    direction on its own: a ping that was delayed on its way back still shows when it arrived. Both lines have one
    slope, and the clock lies half-way between them, which supposes that the shortest trips there and back are alike.
    """

    def __init__(self, tick_hz: int) -> None:
        self.tick_hz = tick_hz
        self._pings: deque[tuple[float, int, int, float]] = deque(maxlen=PINGS)

    def __len__(self) -> int:
        return len(self._pings)

    def add(self, sent_s: float, received_ticks: int, answered_ticks: int, back_s: float) -> None:
        """Take one ping; ticks are unwrapped."""
        self._pings.append((sent_s, received_ticks, answered_ticks, back_s))

    def fit(self) -> ClockFit | None:
        """Return the clock as the pings show it; None while they are too few."""
        if len(self._pings) < FEWEST:
            return None
        reference_s, reference_ticks = self._pings[-1][0], self._pings[-1][1]
        pings = np.array(
            [
                (sent - reference_s, (received - reference_ticks), (answered - reference_ticks), back - reference_s)
                for sent, received, answered, back in self._pings
            ]
        ).T
        sent, back = pings[0], pings[3]
        there, here = pings[1] / self.tick_hz, pings[2] / self.tick_hz  # seconds of the device's clock
        slope, error = 0.0, 0.0  # of the device's clock minus the host's
        for _ in range(4):
            forward = _quickest(sent, there - sent - slope * sent)
            backward = _quickest(back, -(here - back - slope * back))
            slope, error = _common_slope(
                (sent[forward], (there - sent)[forward]), (back[backward], (here - back)[backward])
            )
        offset_there = np.min(there - sent - slope * sent)
        offset_here = np.max(here - back - slope * back)
        asymmetry_s = max(0.0, float(offset_there - offset_here) / 2)
        error = math.hypot(error, SWAY * asymmetry_s / max(float(back[-1] - sent[0]), FLOOR_S))
        middle = (offset_there + offset_here) / 2  # of the device's clock at host time reference_s
        return ClockFit(
            tick_hz=self.tick_hz,
            reference_ticks=reference_ticks,
            reference_s=reference_s - middle / (1 + slope),
            drift_ppm=Measured(slope * 1e6, error * 1e6),
            offset_error_s=asymmetry_s,
        )


def _quickest(time_s: Floats, delay: Floats) -> npt.NDArray[np.intp]:
    """Return, for each stretch of time, which ping had the least delay."""
    count = min(BUCKETS, max(2, len(time_s) // 6))
    edges = np.linspace(0, len(time_s), count + 1).astype(int)
    return np.array([first + int(np.argmin(delay[first:last])) for first, last in pairwise(edges)])


def _common_slope(*lines: tuple[Floats, Floats]) -> tuple[float, float]:
    """Fit lines of one slope and an intercept each, by Huber's weights; return the slope and its standard error.

    A weak prior keeps the slope at zero where the data do not determine it.
    """
    x, y = (np.concatenate(parts) for parts in zip(*lines, strict=True))
    of_line = np.repeat(np.arange(len(lines)), [len(part) for part, _ in lines])
    freedom = max(1, len(x) - len(lines) - 1)
    weight, slope, variance = np.ones(len(x)), 0.0, 0.0
    for _ in range(6):
        total = np.bincount(of_line, weight)
        centred_x = x - (np.bincount(of_line, weight * x) / total)[of_line]
        centred_y = y - (np.bincount(of_line, weight * y) / total)[of_line]
        residual = centred_y - slope * centred_x
        variance = max(FLOOR_S**2, float(np.sum(weight * residual**2)) / freedom)
        precision = float(np.sum(weight * centred_x**2)) / variance + (PRIOR_PPM * 1e-6) ** -2
        slope = float(np.sum(weight * centred_x * centred_y)) / variance / precision
        residual = np.abs(centred_y - slope * centred_x)
        spread = max(FLOOR_S, 1.4826 * float(np.median(residual)))
        weight = np.minimum(1, TUNING * spread / np.maximum(residual, FLOOR_S))
    return slope, precision**-0.5


class RateMeter:
    """Measures the real rate of one run of a stream: samples against ticks, and ticks against the host."""

    def __init__(self, rate_hz: float) -> None:
        self.rate_hz = rate_hz
        self._points: deque[tuple[int, int]] = deque(maxlen=2048)

    def add(self, index: int, ticks: int) -> None:
        """Take the index of a sample and the (unwrapped) tick at which it was taken."""
        self._points.append((index, ticks))

    def deviation_ppm(self, clock: ClockFit) -> Measured | None:
        """Return how far the real rate is from the nominal one; None before there are enough points."""
        if len(self._points) < FEWEST:
            return None
        index, ticks = np.array(self._points, np.float64).T
        index -= index.mean()
        seconds = (ticks - ticks.mean()) / clock.tick_hz
        spread = float(np.sum(seconds**2))
        if spread == 0:
            return None
        per_second = float(np.sum(seconds * index)) / spread
        residual = float(np.std(index - per_second * seconds))
        own_ppm = (per_second / self.rate_hz - 1) * 1e6
        error_ppm = max(residual, self.rate_hz / clock.tick_hz / math.sqrt(12)) / math.sqrt(spread) / self.rate_hz * 1e6
        value = ((1 + own_ppm * 1e-6) * (1 + clock.drift_ppm.value * 1e-6) - 1) * 1e6
        return Measured(value, math.hypot(error_ppm, clock.drift_ppm.error))
