"""Many enrolled windows: a greedy coreset of each recording is compared with, and the limits stay right."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windows import KEY, VIEWS, made, take, window

from fisher_edge.cli.enroll import print_enrolled
from fisher_edge.decision import enroll as enrollment
from fisher_edge.decision.assess import EnrolledTake
from fisher_edge.decision.bank import MemoryBank
from fisher_edge.decision.calibrate import Enrollment, calibrate, held_out_distances
from fisher_edge.decision.coreset import MOST_WINDOWS, coreset
from fisher_edge.decision.evidence import Rates
from fisher_edge.decision.judge import Judge
from fisher_edge.store.baselines import Baselines
from fisher_edge.store.database import Database

BANDS, DIM = 3, 8


def vectors(seed: int, count: int, spread: float = 0.3) -> np.ndarray:
    """Unit vectors (count, bands, dim) around one direction."""
    rng = np.random.default_rng(seed)
    centre = np.random.default_rng(0).normal(size=(BANDS, DIM))
    return MemoryBank.of((centre + spread * rng.normal(size=(count, BANDS, DIM))).astype(np.float32)).vectors


def radius(rows: np.ndarray, chosen: np.ndarray) -> float:
    """Largest distance (Euclidean) of a window to the nearest chosen one."""
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    return float(np.linalg.norm(flat[:, None] - flat[chosen][None], axis=2).min(axis=1).max())


def enrolled(takes: int, count: int, seed: int = 0) -> Enrollment:
    """So many takes of so many windows of one operating state; each has something of its own."""
    rng = np.random.default_rng(seed)
    centre = np.random.default_rng(0).normal(size=(BANDS, DIM))
    own = 0.05 * rng.normal(size=(takes, 1, BANDS, DIM))
    rows = centre + own + 0.1 * rng.normal(size=(takes, count, BANDS, DIM))
    return Enrollment(
        MemoryBank.of(rows.reshape(-1, BANDS, DIM).astype(np.float32)),
        np.repeat(np.arange(takes), count),
        np.tile(1.0 + np.arange(count), takes),
        0.01 * rng.normal(size=takes * count),
        1.0,
    )


def test_few_windows_are_all_kept() -> None:
    """Up to the limit nothing changes."""
    rows = vectors(1, 40)
    assert coreset(rows, np.zeros(40, np.int64), 40).tolist() == list(range(40))
    assert len(coreset(rows, np.zeros(40, np.int64))) == 40
    assert MOST_WINDOWS == 1024


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), sizes=st.lists(st.integers(1, 40), min_size=2, max_size=8), share=st.floats(0.1, 0.9))
def test_each_group_is_thinned_by_the_same_share(seed: int, sizes: list[int], share: float) -> None:
    """All together are as many as asked for; a small group keeps one window."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    rows, most = vectors(seed, len(group)), max(1, round(share * len(group)))
    chosen = coreset(rows, group, most)
    counts = np.bincount(group[chosen], minlength=len(sizes))
    assert all(left < right for left, right in pairwise(chosen))
    assert (counts >= 1).all()
    assert (np.abs(counts - most * np.array(sizes) / len(group)) <= 1).all()
    assert most <= len(chosen) <= most + len(sizes)


def test_group_that_is_held_out_leaves_the_choice_of_the_others() -> None:
    """A recording that is held out stands to the others as a new one does: they were chosen without it."""
    rows, group = vectors(2, 200), np.repeat(np.arange(4), 50)
    everything = coreset(rows, group, 40)
    without = coreset(rows[50:], group[50:], 30) + 50
    np.testing.assert_array_equal(everything[everything >= 50], without)


@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_coreset_covers_at_most_twice_the_best_radius(count: int) -> None:
    """The bound of the greedy choice: any better one would have to cover `count` + 1 points that lie farther apart."""
    rows = vectors(3, 150)
    chosen = coreset(rows, np.zeros(150, np.int64), count)
    assert len(set(chosen.tolist())) == count
    flat = rows.reshape(150, -1)
    farthest = int((1 - flat @ flat[chosen].T).min(axis=1).argmax())
    points = flat[[*chosen, farthest]].astype(np.float64)
    between = np.linalg.norm(points[:, None] - points[None], axis=2)[np.triu_indices(count + 1, 1)]
    assert radius(rows, chosen) <= between.min() + 1e-6
    random = [np.random.default_rng(seed).choice(150, count, replace=False) for seed in range(20)]
    assert radius(rows, chosen) < np.mean([radius(rows, each) for each in random])


def test_limits_are_those_of_the_coreset() -> None:
    """Every window is held out and asked, only the coreset answers; a new take then scores as predicted."""
    known = enrolled(12, 50)
    found, whole = calibrate(known, (0,) * 12, most=60), calibrate(known, (0,) * 12)
    assert found is not None
    assert whole is not None
    assert len(found.core) == 60
    assert len(whole.core) == 600
    assert found.takes == whole.takes == 12
    assert (found.spans[0].centre > whole.spans[0].centre).all()
    far = held_out_distances(known, (0,) * 12, found.core)
    near = held_out_distances(known, (0,) * 12)
    assert (far >= near - 1e-6).all()
    assert 1.05 < np.median(far / near) < 2
    bank = known.bank.only(found.core)
    everything = np.ones(len(bank), np.bool_)
    fresh = enrolled(12, 50, seed=1).bank.vectors
    logs = [np.log((bank.compare(each).residual(everything) ** 2).sum(axis=1)) for each in fresh]
    assert np.median(logs, axis=0) == pytest.approx(found.spans[0].centre, abs=0.1)


def test_judge_names_the_window_and_the_state_that_it_compared_with(tmp_path: Path) -> None:
    """With a coreset a match is still a window of the baseline, in its own operating state."""
    takes = [
        take(f"{axis} {seed}", axis, seed, count=20, log_rms=0.0 if axis == 1 else 2.0)
        for axis in (1, 9)
        for seed in range(3)
    ]
    with Database(tmp_path) as database:
        baselines = Baselines(database)
        enrollment.enroll(baselines, KEY, takes, made())
        (baseline,) = baselines.active(KEY)
    judge = Judge([baseline], made().front_end, Rates(), 0.64, most=12)
    core = judge.calibration.core
    assert len(core) == 12
    for index in core[[0, 5, 6, 11]]:
        found = judge.judge(window(baseline.vectors[index], log_rms=baseline.level[index]))
        assert found.distance == pytest.approx(0, abs=1e-6)
        assert found.nearest is not None
        assert found.nearest.recording == baseline.takes[baseline.take[index]].name
        assert found.nearest.offset_s == baseline.offset_s[index]
        assert found.operating_state == baseline.states[baseline.state_of_window[index]].name
    missing = np.setdiff1d(np.arange(len(baseline)), core)[0]
    found = judge.judge(window(baseline.vectors[missing], log_rms=0.0))
    assert found.distance is not None
    assert found.distance > 1e-4
    assert found.baseline is not None
    assert found.baseline.windows == 120


def test_examples_and_views_are_compared_with_the_coreset_as_well(tmp_path: Path) -> None:
    """Naming a fault and a view cost no more than the signal: normal windows of the coreset, and all examples."""
    count = VIEWS[0].bins

    def viewed(name: str, axis: int, seed: int) -> EnrolledTake:
        plain = take(name, axis, seed, count=20)
        rng = np.random.default_rng(seed)
        windows = [replace(each, views=(rng.random(count, np.float32),)) for each in plain.windows]
        return replace(plain, windows=windows)

    how = made(views=VIEWS[:1])
    with Database(tmp_path) as database:
        baselines = Baselines(database)
        enrollment.enroll(baselines, KEY, [viewed(f"n{seed}", 1, seed) for seed in range(3)], how)
        enrollment.enroll(baselines, KEY, [viewed("f", 9, 7)], how, label="fault")
        judge = Judge(baselines.active(KEY), how.front_end, Rates(), 0.64, most=12)
    assert judge._examples is not None
    assert Counter(judge._examples.labels) == {"normal": 12, "fault": 20}
    assert len(judge._examples.signal) == 32
    (scorer,) = judge._view_scores
    assert scorer.bank.vectors.shape == (12, 1, count)


def test_enrollment_says_what_a_coreset_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beyond the limit `enroll` prints how many windows are compared with, and how much longer distances are."""
    few = [take(f"t{seed}", 1, seed, count=20) for seed in range(3)]
    many = [take(f"t{seed}", 1, seed, count=400) for seed in range(3)]
    with Database(tmp_path) as database:
        small = enrollment.enroll(Baselines(database), KEY, few, made())
        large = enrollment.enroll(Baselines(database), KEY, many, made())
    assert (small.coreset, small.coreset_loss) == (60, 1.0)
    assert (large.windows, large.coreset) == (1200, 1024)
    assert 1.0 < large.coreset_loss < 1.2
    print_enrolled(small)
    assert "windows are compared with" not in capsys.readouterr().out
    print_enrolled(large)
    said = f"are compared with 1024 of these, which makes distances {large.coreset_loss:.3g} times as long on average"
    assert said in capsys.readouterr().out
