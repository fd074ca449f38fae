"""Prediction of the next take: t quantiles, coverage by simulation, odd takes."""

import numpy as np
import pytest
from scipy import stats

from fisher_edge.decision.predict import Usual, pooled, predict, student_quantile, student_tail

USUAL = Usual(sd=0.3, takes=8)


@pytest.mark.parametrize("freedom", [1.0, 2.5, 8.0, 13.0, 200.0])
@pytest.mark.parametrize("probability", [0.9, 0.3, 1e-3, 1e-6, 1e-9])
def test_quantiles_are_those_of_the_t_distribution(freedom: float, probability: float) -> None:
    """Down to the smallest probabilities that a limit asks for."""
    expected = stats.t.isf(probability, freedom)
    assert student_quantile(probability, freedom) == pytest.approx(expected, rel=1e-7)
    assert student_tail(expected, freedom) == pytest.approx(probability, rel=1e-7)


@pytest.mark.parametrize("takes", [2, 3, 6, 20])
@pytest.mark.parametrize("probability", [0.05, 0.01])
def test_next_take_exceeds_the_limit_as_often_as_said(takes: int, probability: float) -> None:
    """Machines whose spread is drawn from what is usual: next takes exceed the limit with its probability."""
    rng = np.random.default_rng(takes)
    machines = 20_000
    sd = USUAL.sd * np.sqrt(USUAL.takes / rng.chisquare(USUAL.takes, machines))
    seen = rng.normal(size=(machines, takes)) * sd[:, None]
    limits = [pooled(float(row.mean()), float(row.var(ddof=1)), takes - 1, takes, USUAL) for row in seen]
    t = student_quantile(probability, USUAL.takes + takes - 1)
    beyond = rng.normal(size=machines) * sd > [each.mean + t * each.sd for each in limits]
    error = np.sqrt(probability / machines)
    assert abs(float(beyond.mean()) - probability) < 4 * error


def test_limit_is_the_quantile_of_the_prediction() -> None:
    """`limit` and `tail` are each other's inverse, around the mean."""
    prediction = pooled(1.0, 0.04, 4, 5, USUAL)
    assert prediction.freedom == USUAL.takes + 4
    assert prediction.limit(0.5) == pytest.approx(1.0)
    assert prediction.tail(prediction.limit(1e-5)) == pytest.approx(1e-5)


def test_few_takes_give_wider_limits() -> None:
    """With the same spread, three takes leave more room than thirty."""
    few, many = pooled(0.0, 0.09, 2, 3, USUAL), pooled(0.0, 0.09, 29, 30, USUAL)
    assert few.limit(1e-5) > 1.2 * many.limit(1e-5)


def values(means: list[float], windows: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Scores of windows of takes with these means, and whose they are."""
    wiggle = np.tile(np.linspace(-0.1, 0.1, windows), len(means))
    return np.repeat(means, windows) + wiggle, np.repeat(np.arange(len(means)), windows)


def test_windows_of_one_take_are_one_piece_of_evidence() -> None:
    """Ten times as many windows of the same takes make the prediction no more certain."""
    few, _ = predict(*values([0.0, 0.2, -0.2], 5), USUAL)
    many, _ = predict(*values([0.0, 0.2, -0.2], 50), USUAL)
    assert (few.takes, few.freedom) == (many.takes, many.freedom)
    assert few.sd == pytest.approx(many.sd, rel=0.05)


def test_spread_between_and_within_takes_add_up() -> None:
    """Both are part of what the next window may show."""
    flat = Usual(sd=0.3, takes=1e-9)
    means = [0.0, 0.4, -0.4, 0.2, -0.2]
    prediction, _ = predict(*values(means), flat)
    within = float(np.linspace(-0.1, 0.1, 5).var())
    assert prediction.sd**2 / (1 + 1 / 5) == pytest.approx(np.var(means, ddof=1) + within)


def test_odd_take_is_named_and_does_not_widen_the_spread() -> None:
    """One run-in recording among nine changes nothing but the number of takes."""
    means = [0.0, 0.1, -0.1, 0.2, -0.2, 0.1, 0.0, -0.1, 6.0]
    with_it, odd = predict(*values(means), USUAL)
    without, none = predict(*values(means[:-1]), USUAL)
    assert (odd, none) == ((8,), ())
    assert with_it == without


def test_three_takes_cannot_say_which_is_odd() -> None:
    """None is left out: the spread is what they show."""
    prediction, odd = predict(*values([0.0, 0.1, 6.0]), USUAL)
    assert odd == ()
    assert prediction.takes == 3


@pytest.mark.parametrize(
    ("means", "odd"),
    [
        ([0.0, 0.0, 0.0, 1.1], ()),  # within four usual standard deviations
        ([0.0, 0.0, 0.0, 1.3], (3,)),
        ([0.0, 0.0, 0.0, -9.0], ()),  # nearer to the others than usual is no fault
        ([0.0, 3.0, 6.0, 9.0, 12.0], ()),  # takes that all differ
        ([0.0, 0.1, 5.0, 5.1, 0.2, 0.15], (2, 3)),
    ],
)
def test_take_is_odd_only_far_above_most_others(means: list[float], odd: tuple[int, ...]) -> None:
    """Odd are those more than four robust standard deviations, at least the usual ones, above the median."""
    assert predict(*values(means), USUAL)[1] == odd


def test_one_take_is_predicted_from_what_is_usual() -> None:
    """A single take without any spread within has the usual one, and twice as much variance for the next."""
    prediction, odd = predict(np.ones(5), np.zeros(5, np.int64), USUAL)
    assert odd == ()
    assert (prediction.mean, prediction.sd) == pytest.approx((1.0, USUAL.sd * np.sqrt(2)))
    assert (prediction.freedom, prediction.takes) == (8, 1)


def test_windows_of_the_next_take_keep_the_limit() -> None:
    """Through `predict` itself, from takes of several windows, one in twenty of the next takes exceeds the limit."""
    rng = np.random.default_rng(5)
    exceeded = []
    for _ in range(1000):
        sd = USUAL.sd * np.sqrt(USUAL.takes / rng.chisquare(USUAL.takes))
        windows = sd * rng.normal(size=(6, 1)) + 0.02 * rng.normal(size=(6, 5))
        prediction, _ = predict(windows[:5].ravel(), np.repeat(np.arange(5), 5), USUAL)
        exceeded.append(windows[5].mean() > prediction.limit(0.05))
    assert np.mean(exceeded) == pytest.approx(0.05, abs=0.025)
