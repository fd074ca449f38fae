"""The gate of an export: what a change means for the distances that a gateway measures."""

import numpy as np
import pytest

from fisher_export.gate import Group, groups_of, neighbour_agreement

EDGES: dict[object, list[tuple[float, float]]] = {8000: [(0.0, 2000.0), (2000.0, 4000.0)], 1000: [(0.0, 500.0)]}


def windows(seed: int, bands: int = 2, count: int = 12, spread: float = 0.1) -> list[np.ndarray]:
    """Embeddings (bands, dim) around one direction, as those of one machine are."""
    random = np.random.default_rng(seed)
    centre = random.standard_normal((bands, 32))
    return [centre + spread * random.standard_normal((bands, 32)) for _ in range(count)]


def of(before: list[np.ndarray], after: list[np.ndarray], takes: list[int] | None = None) -> list[Group]:
    """Compare windows of 8 kHz, each of a take of its own by default."""
    found: list[Group] = groups_of([8000] * len(before), takes or list(range(len(before))), before, after, EDGES)  # type: ignore[arg-type]
    return found


def test_equal_embeddings_are_faithful() -> None:
    """Nothing changed: cosine 1, no noise, one group for each band, with its edges."""
    before = windows(0)
    groups = of(before, before)
    assert [(group.rate_hz, group.low_hz, group.high_hz, group.windows) for group in groups] == [
        (8000, 0, 2000, 12),
        (8000, 2000, 4000, 12),
    ]
    for group in groups:
        assert group.centred_cosine == pytest.approx(1)
        assert group.noise == pytest.approx(0, abs=1e-12)
        assert group.faithful


def test_shift_that_all_windows_share_does_not_count() -> None:
    """A gateway compares windows of the same model: a common offset leaves their distances as they are."""
    before = windows(1)
    offset = 0.01 * np.random.default_rng(2).standard_normal((2, 32))
    for group in of(before, [rows + offset for rows in before]):
        assert group.centred_cosine == pytest.approx(1)
        assert group.noise is not None
        assert group.noise < 1e-3
    assert np.abs(before[0]).max() > 0


def test_noise_counts_against_the_nearest_other_take() -> None:
    """Half the squared change of a unit vector, as a share of the cosine distance to the nearest other take."""
    before = windows(3, spread=0.1)
    noise = windows(4, spread=0.02)
    change = [rows - np.mean(noise, axis=0) for rows in noise]
    after = [left + right for left, right in zip(before, change, strict=True)]
    (group, _) = of(before, after)
    # Both are Gaussian: the squared distance of two windows is 2 * 0.1 ** 2, less for the nearest of eleven.
    assert group.noise is not None
    assert 0.02 < group.noise < 0.06
    assert group.centred_cosine == pytest.approx(1 / np.sqrt(1 + 0.02**2 / 0.1**2), abs=0.005)
    assert not group.faithful


def test_windows_of_the_same_take_are_no_neighbours() -> None:
    """Windows that follow each other are alike: only other takes say how near a healthy window is."""
    before = windows(5, count=6, spread=0.1)
    doubled = [rows + 1e-4 for rows in before] + before
    noisy = [rows + 1e-3 * np.random.default_rng(n).standard_normal(rows.shape) for n, rows in enumerate(doubled)]
    takes = [*range(6), *range(6)]
    apart, together = of(doubled, noisy, takes)[0], of(doubled, noisy)[0]
    assert apart.noise is not None
    assert together.noise is not None
    assert together.noise > 100 * apart.noise


def test_rate_of_one_take_is_judged_by_its_cosine() -> None:
    """Without another take there is no distance to compare with."""
    before = windows(6)
    turned = [rows + 0.05 * np.random.default_rng(n).standard_normal(rows.shape) for n, rows in enumerate(before)]
    faithful, unfaithful = of(before, before, [0] * 12)[0], of(before, turned, [0] * 12)[0]
    assert faithful.noise is None
    assert faithful.faithful
    assert not unfaithful.faithful


def test_rates_are_groups_of_their_own() -> None:
    """A rate whose windows are nearly equal fails where the others pass, and is not hidden by them."""
    before = windows(7) + windows(8, bands=1, spread=1e-4)
    after = [rows + 1e-3 * np.random.default_rng(n).standard_normal(rows.shape) for n, rows in enumerate(before)]
    groups = groups_of([8000] * 12 + [1000] * 12, list(range(24)), before, after, EDGES)  # type: ignore[arg-type]
    assert [(group.rate_hz, group.faithful) for group in groups] == [(8000, True), (8000, True), (1000, False)]


def test_rate_of_two_windows_has_no_groups() -> None:
    """Centring leaves nothing to compare."""
    before = windows(9, count=2)
    assert of(before, before) == []


def test_neighbour_agreement_counts_windows_that_changed_their_nearest() -> None:
    """A window that moves to another neighbour counts against the export, one within float32 round-off does not."""
    angles = np.array([0.0, 0.1, 0.3, 0.6])
    before = [np.array([[np.cos(angle), np.sin(angle)]], np.float32) for angle in angles]
    turned = [np.array([[np.cos(angle), np.sin(angle)]], np.float32) for angle in (0.0, 0.1, 0.5, 0.6)]
    near = [np.array([[np.cos(angle), np.sin(angle)]], np.float32) for angle in (0.0, 1e-4, 3e-4)]
    swapped = [near[0], near[2], near[1]]

    assert neighbour_agreement([1] * 4, before, before) == 1.0
    assert neighbour_agreement([1] * 4, before, turned) == 0.75
    assert neighbour_agreement([1] * 3, near, swapped) == 1.0
    assert neighbour_agreement([1, 1, 1, 1, 2], [*before, before[0]], [*before, before[0]]) == 1.0
