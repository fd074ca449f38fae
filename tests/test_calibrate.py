"""What enrolled windows say about normal: operating states, held-out takes, spread by span, level, unfamiliar zone."""

from collections.abc import Sequence

import numpy as np
import pytest

from fisher_edge.decision.bank import MemoryBank
from fisher_edge.decision.calibrate import Calibration, Enrollment, calibrate, grouped, held_out_distances, score_of

BANDS, DIM = 4, 16
NOISE = 0.01


def state(seed: int) -> np.ndarray:
    """Where one operating state lies: (bands, dim) of unit length over all bands."""
    vector = np.random.default_rng(seed).normal(size=(BANDS, DIM))
    return np.asarray(vector / np.linalg.norm(vector))


def windows(count: int, seed: int, centre: np.ndarray, offset: float = 0.0) -> np.ndarray:
    """Windows (count, bands, dim) of one take around a state; `offset` is what this take has of its own."""
    rng = np.random.default_rng(seed)
    own = offset * rng.normal(size=(BANDS, DIM)) * NOISE
    return np.asarray(centre + own + NOISE * rng.normal(size=(count, BANDS, DIM)), np.float32)


def enrollment(takes: Sequence[np.ndarray], levels: Sequence[float] | None = None, hop_s: float = 1.0) -> Enrollment:
    """Takes of windows of 1 s as an enrollment."""
    lengths = [len(take) for take in takes]
    owner = np.repeat(np.arange(len(takes)), lengths)
    level = np.repeat(np.zeros(len(takes)) if levels is None else np.array(levels, float), lengths)
    end_s = np.concatenate([1.0 + hop_s * np.arange(length) for length in lengths])
    return Enrollment(MemoryBank.of(np.concatenate(takes)), owner, end_s, level, 1.0)


def calibrated(enrolled: Enrollment) -> Calibration:
    """Group and calibrate."""
    found = calibrate(enrolled, grouped(enrolled).state_of_take)
    assert found is not None
    return found


def score(found: Calibration, enrolled: Enrollment, window: np.ndarray) -> float:
    """Score of one window."""
    residual = enrolled.bank.compare(window).residual(np.ones(len(enrolled.bank), np.bool_))
    return float(score_of(found.spans[0].unusual(residual)))


HOME, AWAY = state(1), state(2)


def test_takes_near_each_other_are_one_operating_state() -> None:
    """Shape decides, and a take that is alone in its state is named."""
    enrolled = enrollment([*(windows(6, seed, HOME) for seed in range(3)), windows(6, 9, AWAY)])
    assert grouped(enrolled).state_of_take == (0, 0, 0, 1)
    assert grouped(enrolled).alone == (3,)


def test_level_separates_operating_states_of_one_shape() -> None:
    """Standstill and running may sound alike once the amplitude is standardised: a factor of 2 tells them apart."""
    takes = [windows(6, seed, HOME) for seed in range(4)]
    assert grouped(enrollment(takes, [0.0, 0.1, -2.0, -2.1])).state_of_take == (0, 0, 1, 1)
    assert grouped(enrollment(takes, [0.0, 0.1, 0.5, 0.6])).state_of_take == (0, 0, 0, 0)


def test_windows_are_held_out_with_their_take() -> None:
    """The distance of an enrolled window is that to other takes of its state, not to its neighbours in time."""
    takes = [np.repeat(windows(1, seed, HOME), 5, axis=0) for seed in range(3)]
    enrolled = enrollment(takes)
    held_out = held_out_distances(enrolled, (0, 0, 0))
    assert np.all(held_out > 1e-3 * NOISE)
    rows = enrolled.bank.vectors.reshape(15, -1)
    nearest = [1 - max(rows[i] @ rows[j] for j in range(15) if i // 5 != j // 5) for i in range(15)]
    np.testing.assert_allclose(held_out, nearest, atol=1e-6)


def test_one_recording_is_held_out_in_blocks() -> None:
    """A state that was recorded once is cut into blocks, and overlapping windows are never compared."""
    enrolled = enrollment([windows(16, 1, HOME)], hop_s=0.5)
    held_out = held_out_distances(enrolled, (0,))
    assert np.isfinite(held_out).all()
    assert calibrated(enrolled).takes == 8


def test_single_window_cannot_be_calibrated() -> None:
    """Nothing can be held out."""
    enrolled = enrollment([windows(1, 1, HOME)])
    assert np.isnan(held_out_distances(enrolled, (0,))).all()
    assert calibrate(enrolled, (0,)) is None


def test_spans_reach_as_far_as_two_takes() -> None:
    """1, 2, 4 windows, up to what at least two recordings hold."""
    enrolled = enrollment([windows(9, 1, HOME), windows(5, 2, HOME), windows(3, 3, HOME)])
    assert [span.windows for span in calibrated(enrolled).spans] == [1, 2, 4]


def test_healthy_windows_score_near_nothing() -> None:
    """A new take of an enrolled state is within a few standard deviations."""
    enrolled = enrollment([windows(8, seed, HOME, 0.5) for seed in range(6)])
    found = calibrated(enrolled)
    scores = [score(found, enrolled, window) for window in windows(20, 99, HOME, 0.5)]
    assert abs(float(np.median(scores)) - found.spans[0].score.mean) < 1.5
    far = windows(1, 98, HOME)[0]
    far[2] += 20 * NOISE * state(5)[2] / np.linalg.norm(state(5)[2])
    assert score(found, enrolled, far) > max(scores) + 1


def test_one_restless_band_counts_less() -> None:
    """The same distance is unusual in a quiet band and usual in a restless one."""
    takes = [windows(8, seed, HOME) for seed in range(6)]
    for seed, take in enumerate(takes):
        take[:, 0] += 5 * NOISE * np.random.default_rng(seed).normal(size=(8, DIM)).astype(np.float32)
    enrolled = enrollment(takes)
    span = calibrated(enrolled).spans[0]
    residual = np.full((BANDS, DIM), 2 * NOISE)
    unusual = span.unusual(residual)
    assert unusual[0] < min(unusual[1:]) - 1


def test_odd_take_is_named_and_neither_widens_nor_collapses() -> None:
    """A take linked to the others, but further off than they are from each other, says nothing about their spread."""
    takes = [windows(8, seed, HOME) for seed in range(8)]
    run_in = windows(8, 50, HOME + 0.3 * state(7))
    with_it, without = enrollment([*takes, run_in]), enrollment(takes)
    found = calibrate(with_it, (0,) * 9)
    assert found is not None
    assert found.odd == (8,)
    plain = calibrated(without)
    ratio = found.spans[0].score.sd / plain.spans[0].score.sd
    assert 0.7 < ratio < 1.3


def test_level_is_that_of_its_operating_state() -> None:
    """Three recordings of a standstill do not make every level of the running machine normal."""
    takes = [windows(6, seed, HOME) for seed in range(3)] + [windows(6, seed, AWAY) for seed in range(10, 13)]
    running, still = calibrated(enrollment(takes, [0.0, 0.02, -0.02, -3.0, -3.02, -2.98])).levels
    assert running.mean == pytest.approx(0.0, abs=0.01)
    assert still.mean == pytest.approx(-3.0, abs=0.01)
    assert running.sd < 0.1


def test_unfamiliar_zone_is_about_as_wide_as_states_are_apart() -> None:
    """None with one state; with several, 2.5 times the squared distance between them."""
    one = enrollment([windows(6, seed, HOME) for seed in range(3)])
    assert calibrated(one).zone is None
    near = HOME + 0.3 * state(7)
    two = enrollment([windows(6, 1, HOME), windows(6, 2, HOME), windows(6, 3, near), windows(6, 4, near)])
    found = calibrated(two)
    assert found.zone is not None
    residual = two.bank.compare(windows(1, 5, near)[0]).residual(two.take < 2)
    log_ratio = float((found.spans[0].unusual(residual) * found.spans[0].spread).mean())
    assert found.zone == pytest.approx(log_ratio + np.log(2.5), abs=0.4)


def test_score_is_the_mean_of_the_more_unusual_half() -> None:
    """Of seven bands, the four most unusual."""
    assert score_of(np.array([9.0, -3.0, 1.0, 2.0, 4.0, -8.0, 0.0])) == pytest.approx(4.0)
    assert score_of(np.array([1.5])) == 1.5


def test_tamed_residual_keeps_its_direction() -> None:
    """What is far beyond unusual is shortened, what is near is not touched."""
    span = calibrated(enrollment([windows(8, seed, HOME) for seed in range(4)])).spans[0]
    near, far = np.full((BANDS, DIM), NOISE), np.full((BANDS, DIM), 100 * NOISE)
    np.testing.assert_allclose(span.tamed(near), near)
    np.testing.assert_allclose(span.unusual(span.tamed(far)), 3.0, atol=0.01)
    assert np.all(span.tamed(far) > 0)


# How operating states are found


def test_states_linked_by_takes_between_them_are_one() -> None:
    """Takes of a load that rises step by step are one state, however far first and last are apart."""
    takes = [windows(6, seed, HOME + 0.03 * seed * state(7)) for seed in range(12)]
    assert grouped(enrollment(takes)).state_of_take == (0,) * 12
    assert grouped(enrollment([takes[0], takes[-1]])).state_of_take == (0, 1)


def test_overlap_of_windows_makes_no_states() -> None:
    """Windows that share samples are near each other; takes of one state stay one state all the same."""
    takes = []
    for seed in range(4):
        pieces = windows(35, seed, HOME)
        takes.append(np.stack([pieces[first : first + 4].mean(axis=0) for first in range(32)]))
    assert grouped(enrollment(takes, hop_s=0.25)).state_of_take == (0,) * 4


def test_takes_of_one_window_are_grouped_by_how_far_apart_takes_usually_are() -> None:
    """A take too short to have a spread of its own belongs to the state it resembles, and to no other."""
    centres = (HOME, AWAY, state(3))
    long = [windows(8, seed, centres[seed % 2]) for seed in range(4)]
    short = [windows(1, 20 + number, centre) for number, centre in enumerate(centres)]
    assert grouped(enrollment([*long, *short])).state_of_take == (0, 1, 0, 1, 0, 1, 2)
    alike = [windows(1, seed, centres[seed % 2]) for seed in range(6)]
    assert grouped(enrollment(alike)).state_of_take == (0, 1) * 3
    assert grouped(enrollment(alike[:1])).state_of_take == (0,)


def test_nothing_is_alone_where_one_state_is_known() -> None:
    """A single recording, or recordings that all resemble each other."""
    assert grouped(enrollment([windows(8, 1, HOME)])).alone == ()
    assert grouped(enrollment([windows(8, seed, HOME) for seed in range(3)])).alone == ()


@pytest.mark.parametrize("hop_s", [1.0, 0.25, 3.0])
def test_blocks_of_one_recording_share_no_sample_with_what_they_meet(hop_s: float) -> None:
    """A window meets the windows of other blocks that do not overlap it."""
    enrolled = enrollment([windows(64, 1, HOME)], hop_s=hop_s)
    rows = enrolled.bank.vectors.reshape(64, -1).astype(np.float64)
    block = np.arange(64) // 8
    apart = np.abs(enrolled.end_s[:, None] - enrolled.end_s) >= 1.0 - 1e-9
    allowed = apart & (block[:, None] != block)
    expected = np.where(allowed, 1 - rows @ rows.T, np.inf).min(axis=1)
    np.testing.assert_allclose(held_out_distances(enrolled, (0,)), expected, atol=1e-6)


# What the spread is learnt from


def limit(found: Calibration) -> float:
    """Score that a normal take exceeds rarely."""
    return found.spans[0].score.limit(1e-4)


def scores(found: Calibration, enrolled: Enrollment, stream: np.ndarray, number: int = 0) -> list[float]:
    """Scores of windows, each against one operating state."""
    among = np.array(grouped(enrolled).state_of_take)[enrolled.take] == number
    residuals = [enrolled.bank.compare(window).residual(among) for window in stream]
    return [float(score_of(found.spans[0].unusual(residual))) for residual in residuals]


def broken(count: int, seed: int, centre: np.ndarray) -> np.ndarray:
    """Windows of which half of the bands have moved far."""
    moved = windows(count, seed, centre)
    moved[:, :2] += np.float32(15 * NOISE)
    return moved


def test_one_run_in_take_hides_no_fault() -> None:
    """A take that is alone in its state leaves the limit of the others: a fault is beyond it, a new take is not."""
    normal = [windows(8, seed, HOME, 0.5) for seed in range(5)]
    plain, with_one = enrollment(normal), enrollment([*normal, windows(8, 60, AWAY)])
    assert grouped(with_one).alone == (5,)
    for enrolled in (plain, with_one):
        found = calibrated(enrolled)
        assert min(scores(found, enrolled, broken(8, 70, HOME))) > 1.5 * limit(found)
        assert max(scores(found, enrolled, windows(8, 80, HOME, 0.5))) < limit(found)


def test_takes_that_all_differ_are_judged_by_the_state_they_are_in() -> None:
    """Every take is a state of its own: new takes of those states stay below the limit, a fault in one does not."""
    centres = [state(20 + number) for number in range(5)]
    enrolled = enrollment([windows(32, seed, centre) for seed, centre in enumerate(centres)])
    assert grouped(enrolled).state_of_take == (0, 1, 2, 3, 4)
    found = calibrated(enrolled)
    for number, centre in enumerate(centres):
        assert max(scores(found, enrolled, windows(8, 90 + number, centre), number)) < limit(found)
        assert min(scores(found, enrolled, broken(8, 95 + number, centre), number)) > limit(found)


def test_blocks_stand_in_for_takes_only_where_no_state_was_recorded_twice() -> None:
    """Where others were recorded twice, a state recorded once says nothing about the spread between takes."""
    once = enrollment([windows(16, 8, AWAY)])
    assert calibrated(once).takes == 8
    loads = [windows(8, seed, HOME) for seed in range(6)]
    both = enrollment([*loads, windows(16, 8, AWAY)], [0.0, 0.2] * 3 + [3.0])
    found = calibrated(both)
    assert found.takes == 6
    several, single = found.levels
    assert (several.takes, single.takes) == (6, 1)
    assert single.freedom == several.freedom == calibrated(enrollment(loads, [0.0, 0.2] * 3)).levels[0].freedom
    assert single.sd == pytest.approx(several.sd * np.sqrt(2 / (1 + 1 / 6)))


def test_equal_windows_prove_no_precision() -> None:
    """Takes that are copies of one window keep a floor of spread; every limit is finite."""
    found = calibrated(enrollment([np.repeat(windows(1, 0, HOME), 8, axis=0) for _ in range(3)]))
    assert len(found.spans) == 4
    for span in found.spans:
        np.testing.assert_allclose(span.spread, 0.15)
        assert np.isfinite(span.score.limit(1e-6))


def test_longer_spans_have_smaller_residuals() -> None:
    """Averaging removes what is chance; what a take has of its own stays."""
    noise = calibrated(enrollment([windows(64, seed, HOME) for seed in range(4)]))
    takes = calibrated(enrollment([windows(64, seed, HOME, 1.0) for seed in range(4)]))
    by_span = [float(span.centre.mean()) for span in noise.spans]
    assert by_span == sorted(by_span, reverse=True)
    assert by_span[5] < by_span[0] - 1
    assert takes.spans[5].centre.mean() > noise.spans[5].centre.mean() + 0.5


def test_new_takes_exceed_the_limit_of_every_span_as_often_as_said() -> None:
    """Forty machines, twelve further takes each: what is predicted from enrolled takes holds for those to come.

    By the spread of their own windows takes would look more alike than they are, and twice as many would be beyond.
    """
    beyond: dict[int, list[bool]] = {}
    for machine in range(40):
        rng = np.random.default_rng(machine)

        def take(rng: np.random.Generator = rng) -> np.ndarray:
            noise = NOISE * rng.normal(size=(17, BANDS, DIM))
            own = 2 * NOISE * rng.normal(size=(BANDS, DIM))
            return np.asarray(HOME + own + (noise[1:] + noise[:-1]) / np.sqrt(2), np.float32)

        enrolled = enrollment([take() for _ in range(6)])
        found = calibrate(enrolled, (0,) * 6)
        assert found is not None
        among = np.ones(len(enrolled.bank), np.bool_)
        for _ in range(12):
            residuals = np.stack(
                [found.spans[0].tamed(enrolled.bank.compare(window).residual(among)) for window in take()]
            )
            for span in found.spans:
                value = float(score_of(span.unusual(residuals[: span.windows].mean(axis=0))))
                beyond.setdefault(span.windows, []).append(value > span.score.limit(0.05))
    shares = {windows: float(np.mean(each)) for windows, each in beyond.items()}
    assert set(shares) == {1, 2, 4, 8, 16}
    assert all(0.005 < share < 0.08 for share in shares.values()), shares
