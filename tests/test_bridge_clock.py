"""The clock map, the tick counter and the meter of rates, on clocks whose truth is known."""

import numpy as np
import pytest

from fisher_bridge.clock import ClockFit, ClockMap, Measured, RateMeter, TickCounter

TICK_HZ = 1_000_000


class Link:
    """A device's clock and a line with delays; the truth to measure against."""

    def __init__(self, seed: int, drift_ppm: float, jitter_s: float) -> None:
        self.chance = np.random.default_rng(seed)
        self.drift_ppm = drift_ppm
        self.jitter_s = jitter_s
        self.offset_s = float(self.chance.uniform(0, 1000))

    def ticks(self, host_s: float) -> int:
        """Ticks of the device at a time of the host."""
        return int((self.offset_s + host_s * (1 + self.drift_ppm * 1e-6)) * TICK_HZ)

    def delay_s(self, now_s: float, phase: float) -> float:
        """How long a byte takes: at least a tenth of a millisecond, which sways with the load of the host."""
        least_s = 1e-4 * (1 + 0.3 * np.sin(now_s / 5 + phase))
        return float(least_s + self.chance.uniform(0, self.jitter_s))

    def pinged(self, seconds: float, a_second: int = 20, held_up: float = 0.0) -> ClockMap:
        """Ping for some time; a share of the pings is held up for a tenth of a second."""
        clock = ClockMap(TICK_HZ)
        for i in range(round(seconds * a_second)):
            sent_s = 50 + i / a_second + float(self.chance.uniform(0, 1e-3))
            there_s, back_s = self.delay_s(sent_s, self.offset_s), self.delay_s(sent_s, 2 * self.offset_s)
            if self.chance.random() < held_up:
                back_s += 0.1
            arrived_s = sent_s + there_s
            clock.add(sent_s, self.ticks(arrived_s), self.ticks(arrived_s + 2e-5), arrived_s + 2e-5 + back_s)
        return clock


def fitted(clock: ClockMap) -> ClockFit:
    """Fit a clock that has enough pings."""
    fit = clock.fit()
    assert fit is not None
    return fit


@pytest.mark.parametrize("drift_ppm", [-200.0, 0.0, 200.0])
def test_a_minute_with_five_milliseconds_of_jitter_gives_the_rate(drift_ppm: float) -> None:
    """The rate is within 2 ppm and the time within a quarter of a millisecond, whatever the chance."""
    for seed in range(20):
        link = Link(seed, drift_ppm, 5e-3)
        fit = fitted(link.pinged(60))
        assert abs(fit.drift_ppm.value - drift_ppm) < 2
        assert abs(fit.host_s(link.ticks(111.0)) - 111.0) < 2.5e-4


@pytest.mark.parametrize(("seconds", "jitter_s"), [(3.0, 5e-3), (10.0, 5e-3), (60.0, 5e-3), (60.0, 2e-4)])
def test_error_bars_are_honest(seconds: float, jitter_s: float) -> None:
    """Over many clocks the deviation is about as large as the error says: neither half nor double."""
    scores = []
    for seed in range(60):
        link = Link(seed, float(np.random.default_rng(seed).uniform(-300, 300)), jitter_s)
        measured = fitted(link.pinged(seconds)).drift_ppm
        scores.append((measured.value - link.drift_ppm) / measured.error)
    assert 0.5 < float(np.sqrt(np.mean(np.square(scores)))) < 2


def test_pings_held_up_do_not_move_the_clock() -> None:
    """A third of the pings late by a tenth of a second, all on the way back: the quick ones decide."""
    link = Link(3, 80.0, 1e-3)
    fit = fitted(link.pinged(60, held_up=0.33))
    assert abs(fit.drift_ppm.value - 80) < 2
    assert abs(fit.host_s(link.ticks(111.0)) - 111.0) < 2.5e-4


def test_few_pings_are_no_clock() -> None:
    """Below eight pings there is no answer, and the first answers are close to nominal rather than wild."""
    link = Link(1, 30.0, 5e-3)
    assert link.pinged(0.35).fit() is None
    assert abs(fitted(link.pinged(0.5)).drift_ppm.value) < 4000


def test_round_trip_bounds_the_offset() -> None:
    """Half of the quickest round trip is what asymmetry could hide."""
    fit = fitted(Link(1, 0.0, 0.0).pinged(5))
    assert fit.offset_error_s == pytest.approx(1e-4, abs=3e-5)


def test_ticks_are_unwrapped_over_any_silence() -> None:
    """The counter wraps every 71 minutes; frames may be seconds, hours or days apart, or a little out of order."""
    counter, truth = TickCounter(TICK_HZ), 2**32 - 3_000_000
    host_s = 0.0
    first = counter.unwrap(truth % 2**32, host_s)
    for step_s in (1.0, 1.5, 0.1, 4000.0, 86_400.0, 0.02, -0.5, 1.0):
        host_s += step_s
        now = truth + round(host_s * TICK_HZ * 1.0002)
        assert counter.unwrap(now % 2**32, host_s + 0.01) - first == now - truth


def test_real_rate_is_measured_against_the_host() -> None:
    """A sensor 0.1 % fast on a clock 100 ppm fast is 0.11 % fast; the error says how sure that is."""
    clock = ClockFit(TICK_HZ, 0, 0.0, Measured(100.0, 0.5), 0.0)
    meter = RateMeter(3200.0)
    assert meter.deviation_ppm(clock) is None
    for frame in range(600):
        index = frame * 32
        meter.add(index, round(index / (3200.0 * 1.001) * TICK_HZ))
    measured = meter.deviation_ppm(clock)
    assert measured is not None
    assert measured.value == pytest.approx(1100.1, abs=0.2)
    assert 0.5 <= measured.error < 0.6


def test_meter_without_any_time_says_nothing() -> None:
    """A device whose ticks stand still has no rate."""
    meter = RateMeter(100.0)
    for index in range(20):
        meter.add(index, 5)
    assert meter.deviation_ppm(ClockFit(TICK_HZ, 0, 0.0, Measured(0.0, 1.0), 0.0)) is None
