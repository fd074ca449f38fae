"""The real rate of a source by the times of its blocks."""

import numpy as np
import pytest

from fisher_edge.dsp.blocks import Block
from fisher_edge.health.rate import PERIOD_S, RateMeter

NOMINAL_HZ = 1000.0


def feed(meter: RateMeter, real_hz: float, seconds: float, first_s: float = 0.0, clock_s: float = 0.0) -> float:
    """Give a meter blocks of a second by a clock that is `clock_s` off; return where the stream stands then."""
    second = first_s
    while second < first_s + seconds:
        time_s = 1.7e9 + clock_s + second * NOMINAL_HZ / real_hz
        meter.push(Block(np.zeros(0, np.float32), int(NOMINAL_HZ), round(second * NOMINAL_HZ), time_s))
        second += 1.0
    return second


def test_right_rate_is_no_fault() -> None:
    """A source that keeps its rate is never suspected, and the rate is known after a period."""
    meter = RateMeter(NOMINAL_HZ)
    feed(meter, NOMINAL_HZ, PERIOD_S)
    assert meter.real_hz is None
    feed(meter, NOMINAL_HZ, 10 * PERIOD_S, PERIOD_S)
    assert meter.real_hz == pytest.approx(NOMINAL_HZ)
    assert meter.fault is None


@pytest.mark.parametrize(("real_hz", "wrong"), [(1004.0, False), (996.0, False), (1006.0, True), (994.0, True)])
def test_rate_that_is_off_is_told_after_two_periods(real_hz: float, wrong: bool) -> None:
    """0.6 % either way is a fault once a second period says so too, 0.4 % is not; both rates are in the text."""
    meter = RateMeter(NOMINAL_HZ)
    reached = feed(meter, real_hz, 1.5 * PERIOD_S)
    assert meter.real_hz == pytest.approx(real_hz)
    assert meter.fault is None
    feed(meter, real_hz, PERIOD_S, reached)
    assert meter.fault == (f"samples come at {real_hz:.1f} Hz, 1000 Hz are configured" if wrong else None)


@pytest.mark.parametrize("step_s", [5.0, -5.0, 3600.0, -3600.0])
def test_step_of_the_clock_is_no_fault(step_s: float) -> None:
    """A clock that is set once spoils one period at most, and the next one measures the real rate."""
    meter = RateMeter(NOMINAL_HZ)
    reached = feed(meter, NOMINAL_HZ, 1.5 * PERIOD_S)
    faults = []
    for _ in range(40):
        reached = feed(meter, NOMINAL_HZ, 5.0, reached, step_s)
        faults.append(meter.fault)
    assert faults == [None] * 40
    assert meter.real_hz == pytest.approx(NOMINAL_HZ)


def test_fault_ends_with_the_first_period_at_the_right_rate() -> None:
    """A source that is set right is trusted again."""
    meter = RateMeter(NOMINAL_HZ)
    reached = feed(meter, 1100.0, 3 * PERIOD_S)
    assert meter.fault is not None
    meter = RateMeter(NOMINAL_HZ, meter.real_hz, _periods_off=2)
    assert meter.fault is not None
    feed(meter, NOMINAL_HZ, 2 * PERIOD_S, reached)
    assert meter.fault is None
