"""The prediction of the next take: its quantiles, its coverage by simulation, and takes that are unlike the others."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fisher_edge.decision.predict import Prediction, Usual, pooled, predict, student_quantile, student_tail

Doubles = npt.NDArray[np.float64]
USUAL = Usual(sd=0.3, takes=8)
FREEDOMS = [1.0, 2.0, 5.5, 8.0, 10.0, 13.0, 30.0, 200.0]


@pytest.mark.parametrize("freedom", FREEDOMS)
def test_tail_is_that_of_scipy(freedom: float) -> None:
    """The probability to exceed a value agrees with an independent implementation, far out in the tail too."""
    for t in (-20.0, -3.0, -0.5, 0.0, 1e-6, 0.5, 1.0, 2.5, 6.0, 20.0, 100.0):
        assert student_tail(t, freedom) == pytest.approx(stats.t.sf(t, freedom), rel=1e-8, abs=1e-300)


@pytest.mark.parametrize("freedom", FREEDOMS)
def test_quantile_is_that_of_scipy(freedom: float) -> None:
    """The limit of a probability agrees with an independent implementation, for the rarest alarms too."""
    for probability in (0.999, 0.7, 0.5, 0.4, 0.05, 0.01, 1e-4, 1e-7, 1e-10):
        expected = stats.t.isf(probability, freedom)
        assert student_quantile(probability, freedom) == pytest.approx(expected, rel=1e-8, abs=1e-8)


@given(st.floats(-8, 8), st.floats(1, 100))
def test_quantile_undoes_the_tail(t: float, freedom: float) -> None:
    """The limit of the probability to exceed a value is that value."""
    assert student_quantile(student_tail(t, freedom), freedom) == pytest.approx(t, abs=1e-5)


def test_limit_and_tail_of_a_prediction_belong_together() -> None:
    """Both count from the mean in the scale of the prediction."""
    prediction = Prediction(mean=2.0, sd=0.5, freedom=10, takes=3)
    assert prediction.limit(0.5) == pytest.approx(2.0)
    assert prediction.limit(0.01) == pytest.approx(2.0 + 0.5 * stats.t.isf(0.01, 10))
    assert prediction.tail(prediction.limit(0.003)) == pytest.approx(0.003)


@pytest.mark.parametrize("takes", [3, 6, 20])
@pytest.mark.parametrize("probability", [0.05, 0.01])
def test_next_take_exceeds_the_limit_as_often_as_it_says(takes: int, probability: float) -> None:
    """Takes of machines whose spread scatters as the prior says: the limit is exceeded with its probability.

    The prior of variances is the scaled inverse chi-square one that a t distribution follows from.
    """
    machines = 40_000
    random = np.random.default_rng(takes)
    sd = USUAL.sd * np.sqrt(USUAL.takes / random.chisquare(USUAL.takes, machines))
    means = random.normal(size=machines) + sd * random.normal(size=(takes + 1, machines))
    learnt, following = means[:takes], means[takes]
    unit = pooled(0.0, 1.0, takes - 1, takes, USUAL)
    variance = learnt.var(axis=0, ddof=1)
    scale = np.sqrt((USUAL.takes * USUAL.sd**2 + (takes - 1) * variance) / unit.freedom * (1 + 1 / takes))
    one = pooled(float(learnt[:, 0].mean()), float(variance[0]), takes - 1, takes, USUAL)
    assert (one.sd, one.mean) == pytest.approx((scale[0], learnt[:, 0].mean())), "the same formula, vectorised"
    exceeded = float(np.mean(following > learnt.mean(axis=0) + scale * student_quantile(probability, unit.freedom)))
    assert exceeded == pytest.approx(probability, abs=4 * np.sqrt(probability / machines))


def test_prediction_of_windows_covers_the_next_take() -> None:
    """Through `predict` itself, from windows that resemble each other within a take, one in twenty exceeds the limit.

    What scatters within a take widens the limit: single windows of the next take keep it too.
    """
    random = np.random.default_rng(5)
    exceeded = []
    for _ in range(1000):
        sd = USUAL.sd * np.sqrt(USUAL.takes / random.chisquare(USUAL.takes))
        windows = sd * random.normal(size=(6, 1)) + 0.02 * random.normal(size=(6, 5))
        prediction, _ = predict(windows[:5].ravel(), np.repeat(np.arange(5), 5), USUAL)
        exceeded.append(windows[5].mean() > prediction.limit(0.05))
    assert np.mean(exceeded) == pytest.approx(0.05, abs=0.025)


def values_of(means: list[float], count: int = 6) -> tuple[Doubles, npt.NDArray[np.int64]]:
    """Return windows of takes with these means, without any spread within, and whose they are."""
    return np.repeat(np.array(means), count), np.repeat(np.arange(len(means)), count)


def test_odd_take_is_named_and_left_out() -> None:
    """One take far above the others moves neither mean nor spread; what is left is as if it had not been there."""
    means = [0.0, 0.1, -0.1, 0.05]
    with_odd, odd = predict(*values_of([*means[:2], 9.0, *means[2:]]), USUAL)
    without, none = predict(*values_of(means), USUAL)
    assert (odd, none) == ((2,), ())
    assert with_odd == without


@pytest.mark.parametrize(
    ("means", "odd"),
    [
        ([0.0, 0.0, 9.0], ()),  # of three takes nobody can say which is odd
        ([0.0, 0.0, 0.0, 1.1], ()),  # within four usual standard deviations
        ([0.0, 0.0, 0.0, 1.3], (3,)),
        ([0.0, 0.0, 0.0, -9.0], ()),  # nearer to the others than usual is no fault
        ([0.0, 3.0, 6.0, 9.0, 12.0], ()),  # takes that all differ
        ([0.0, 0.1, 5.0, 5.1, 0.2, 0.15], (2, 3)),
    ],
)
def test_take_is_odd_only_far_above_most_others(means: list[float], odd: tuple[int, ...]) -> None:
    """Odd are those more than four robust standard deviations, at least the usual ones, above the median."""
    assert predict(*values_of(means), USUAL)[1] == odd


def test_fewer_takes_have_a_wider_limit() -> None:
    """The same spread seen in fewer takes leaves more room for the next one."""
    predictions = [pooled(0.0, 0.09, takes - 1, takes, USUAL) for takes in (1, 2, 3, 6, 20, 100)]
    limits = [prediction.limit(1e-4) for prediction in predictions]
    assert limits == sorted(limits, reverse=True)
    assert limits[0] > 1.5 * limits[-1]
    assert [prediction.freedom for prediction in predictions] == [8, 9, 10, 13, 27, 107]


def test_one_take_is_predicted_from_what_is_usual() -> None:
    """A single take has the usual spread and says twice as much variance for the next one."""
    prediction, odd = predict(*values_of([1.0]), USUAL)
    assert odd == ()
    assert (prediction.mean, prediction.sd) == pytest.approx((1.0, USUAL.sd * np.sqrt(2)))
    assert (prediction.freedom, prediction.takes) == (8, 1)


def test_many_takes_outweigh_what_is_usual() -> None:
    """A hundred takes of a very steady machine make its limit narrow, of an unsteady one wide."""
    random = np.random.default_rng(0)
    for sd in (0.05, 2.0):
        prediction, _ = predict(*values_of(list(sd * random.normal(size=200))), USUAL)
        assert sd * 0.85 < prediction.sd < np.hypot(sd, USUAL.sd)


def test_spread_within_takes_counts() -> None:
    """Windows of a take that scatter widen the prediction: a single window must keep the limit too."""
    takes = np.repeat(np.arange(4), 50)
    steady, _ = predict(np.zeros(200), takes, USUAL)
    scattered, _ = predict(np.tile([-1.0, 1.0], 100), takes, USUAL)
    assert scattered.sd**2 - steady.sd**2 == pytest.approx(3 / 11 * 1.0 * (1 + 1 / 4))
