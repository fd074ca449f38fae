"""Thresholds: valid p-values, monotone thresholds, and the false alarms a day that were asked for."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fisher_edge.decision.threshold import DAY_S, SMALLEST_P, fit_tail, probability

Samples = npt.NDArray[np.float64]

distances = st.lists(st.floats(0, 2), min_size=1, max_size=60)
rates = st.floats(1e-6, 1e6)


def exponential(random: np.random.Generator, count: int) -> Samples:
    """Distances with an exponential tail."""
    return 0.01 + 0.002 * random.exponential(size=count)


def gamma(random: np.random.Generator, count: int) -> Samples:
    """Distances as embeddings give them: positive, skewed."""
    return 0.001 * random.gamma(4.0, size=count)


def pareto(random: np.random.Generator, count: int) -> Samples:
    """Distances with a heavy tail of shape 0.25."""
    return 0.01 * (1 + random.pareto(4.0, size=count))


@pytest.mark.parametrize("draw", [exponential, gamma, pareto])
def test_p_value_of_new_normal_windows_is_valid(draw: Callable[[np.random.Generator, int], Samples]) -> None:
    """Among new normal windows a share of at most about u has a p-value below u, and not far less."""
    random = np.random.default_rng(0)
    p_values = np.array(
        [tail.p_value(value) for tail in (fit_tail(draw(random, 40)) for _ in range(400)) for value in draw(random, 25)]
    )
    for level in (0.5, 0.2, 0.1, 0.05):
        share = float(np.mean(p_values <= level))
        assert 0.6 * level < share < 1.15 * level, f"{share:.3f} of the p-values are below {level}"
    assert np.mean(p_values <= 0.005) < 0.0125


@settings(max_examples=200, deadline=None)
@given(sample=distances, one=rates, other=rates, hop_s=st.floats(0.01, 60))
def test_threshold_falls_with_the_asked_rate(sample: list[float], one: float, other: float, hop_s: float) -> None:
    """Whoever accepts more false alarms never gets a higher threshold."""
    tail = fit_tail(sample)
    assert tail.threshold(max(one, other), hop_s) <= tail.threshold(min(one, other), hop_s)


@settings(max_examples=200, deadline=None)
@given(sample=distances, one=st.floats(1e-9, 1), other=st.floats(1e-9, 1))
def test_distance_at_falls_with_the_p_value(sample: list[float], one: float, other: float) -> None:
    """A more probable distance is never a larger one, across the seam between sample and tail too."""
    tail = fit_tail(sample)
    assert tail.distance_at(max(one, other)) <= tail.distance_at(min(one, other))


@settings(max_examples=200, deadline=None)
@given(sample=distances, one=st.floats(0, 3), other=st.floats(0, 3))
def test_p_value_falls_with_the_distance(sample: list[float], one: float, other: float) -> None:
    """A window further away is never more normal; p-values are probabilities."""
    tail = fit_tail(sample)
    near, far = tail.p_value(min(one, other)), tail.p_value(max(one, other))
    assert SMALLEST_P <= far <= near <= 1


@settings(max_examples=200, deadline=None)
@given(sample=distances, share=st.floats(0, 1))
def test_p_value_and_distance_are_inverse_in_the_tail(sample: list[float], share: float) -> None:
    """Beyond the sample the two functions undo each other; within it the p-value is the more careful of the two."""
    tail = fit_tail(sample)
    p_value = 10 ** (-8.5 + share * (8.5 + math.log10(0.99 / (len(sample) + 1))))
    distance = tail.distance_at(p_value)
    if distance > max(sample):
        assert tail.p_value(distance) == pytest.approx(p_value, rel=1e-6)
    else:
        assert tail.p_value(distance) > p_value


@pytest.mark.parametrize("sample", [[0.2], [0.1, 0.2], [0.1, 0.2, 0.3], [0.0], [0.0] * 4, [0.3] * 50])
def test_small_and_equal_samples_have_finite_thresholds_beyond_them(sample: list[float]) -> None:
    """A single window, or many alike, give a threshold above them all, not an error or a cliff."""
    tail = fit_tail(sample)
    warning, alarm = tail.threshold(1.0, 2.0), tail.threshold(0.1, 2.0)
    assert max(sample) < warning < alarm < max(sample) + 20 * max(*sample, 1e-4)
    assert tail.p_value(max(sample)) >= 1 / (len(sample) + 1)
    assert tail.p_value(alarm) == pytest.approx(0.1 * 2 / DAY_S)


def test_fit_recovers_an_exponential_tail() -> None:
    """Exponential data give a shape near 0, the true scale and the true quantile far out."""
    tail = fit_tail(exponential(np.random.default_rng(1), 4000))
    assert tail.shape < 0.12
    assert tail.scale == pytest.approx(0.002, rel=0.15)
    assert tail.distance_at(1e-5) == pytest.approx(0.01 + 0.002 * math.log(1e5), rel=0.2)


def test_fit_recovers_a_heavy_tail() -> None:
    """Pareto data give their shape, and a far quantile within a third."""
    tail = fit_tail(pareto(np.random.default_rng(1), 8000))
    assert tail.shape == pytest.approx(0.25, abs=0.1)
    assert tail.distance_at(1e-5) == pytest.approx(0.01 * 1e5**0.25, rel=0.35)


@pytest.mark.parametrize("draw", [exponential, gamma, pareto])
@pytest.mark.parametrize("per_day", [2000.0, 200.0])
def test_false_alarms_a_day_are_those_asked_for(
    draw: Callable[[np.random.Generator, int], Samples], per_day: float
) -> None:
    """Over many enrollments of 60 windows, a day of normal windows exceeds the threshold about as often as asked."""
    random = np.random.default_rng(2)
    hop_s = 2.0
    windows = round(DAY_S / hop_s)
    alarms = [
        np.count_nonzero(draw(random, windows) > fit_tail(draw(random, 60)).threshold(per_day, hop_s))
        for _ in range(40)
    ]
    assert per_day / 3 < float(np.mean(alarms)) < 2 * per_day
    assert float(np.median(alarms)) < 1.5 * per_day


def test_rare_alarms_stay_rare() -> None:
    """Asked for one false alarm in ten days, enrollments of 60 windows give few in forty days of normal windows."""
    random = np.random.default_rng(3)
    windows = round(DAY_S / 2.0)
    alarms = [
        np.count_nonzero(gamma(random, windows) > fit_tail(gamma(random, 60)).threshold(0.1, 2.0)) for _ in range(40)
    ]
    assert float(np.median(alarms)) <= 1
    assert float(np.mean(alarms)) < 5


def test_probability_is_the_share_of_windows_within_its_limits() -> None:
    """One a day of 43 200 windows, never above a half, never below what a sample can support."""
    assert probability(1.0, 2.0) == pytest.approx(1 / 43_200)
    assert probability(1e9, 2.0) == 0.5
    assert probability(1e-9, 0.01) == SMALLEST_P
