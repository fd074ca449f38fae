"""Fusion: a view counts where it names faults of specimens left out, and nowhere else."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fisher_edge.decision import weighing
from fisher_edge.decision.fusion import Fusion, Scale, fuse, neighbors, vote
from fisher_edge.decision.weighing import CANDIDATES, CHANCE, weigh
from fisher_edge.dsp.blocks import FloatArray

CLASSES = ("ball", "inner", "outer")
WIDTH = 24


def pattern(key: str) -> FloatArray:
    """Return the direction that belongs to a name."""
    return np.random.default_rng(sum(map(ord, key)) * 7919 + len(key)).standard_normal(WIDTH).astype(np.float32)


class Enrolled:
    """Windows of specimens: `per_unit` of each of `units` specimens of each class."""

    def __init__(self, units: int = 3, per_unit: int = 8, classes: tuple[str, ...] = CLASSES, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        triples = [(label, f"{label} {unit}") for label in classes for unit in range(units) for _ in range(per_unit)]
        self.labels, self.units = (list(column) for column in zip(*triples, strict=True))

    def shows(self, fault: float, specimen: float, noise: float, faults: tuple[str, ...] = CLASSES) -> FloatArray:
        """Return vectors in which the fault, if it is one of `faults`, the specimen and noise are so strong."""
        return np.stack(
            [
                fault * pattern(label) * (label in faults)
                + specimen * pattern(unit)
                + self.random.normal(0, noise, WIDTH)
                for label, unit in zip(self.labels, self.units, strict=True)
            ]
        ).astype(np.float32)

    def weigh(self, **vectors: FloatArray) -> Fusion:
        """Learn the weights of these views."""
        return weigh(vectors, self.labels, self.units)


def accuracy(fusion: Fusion) -> tuple[float, float]:
    """Return both accuracies, which must be there."""
    assert fusion.accuracy is not None
    assert fusion.fused_accuracy is not None
    return fusion.accuracy, fusion.fused_accuracy


def test_view_that_knows_the_fault_of_other_specimens_gets_a_weight() -> None:
    """Where the signal knows specimens and the view knows faults, the view is chosen and the accuracy rises."""
    enrolled = Enrolled()
    fusion = enrolled.weigh(signal=enrolled.shows(0.2, 1, 0.5), envelope=enrolled.shows(1, 0.2, 0.5))
    alone, fused = accuracy(fusion)
    (view,) = fusion.views
    assert view.weight in CANDIDATES
    assert view.weight > 0
    assert alone < 0.6
    assert fused > 0.95
    assert view.gain == pytest.approx((fused - alone) * len(enrolled.labels))
    assert view.gain > 2 * math.sqrt(view.changed)
    assert view.p_value is not None
    assert view.p_value <= CHANCE
    assert (fusion.classes, fusion.classes_with_two_units, fusion.windows) == (3, 3, 72)


def test_view_that_adds_nothing_has_no_say() -> None:
    """Where the signal knows the faults, neither noise nor a view that knows them too gets a weight."""
    enrolled = Enrolled()
    for view in (enrolled.shows(0, 0, 1), enrolled.shows(0, 1, 0.5), enrolled.shows(1, 0.2, 0.5)):
        fusion = enrolled.weigh(signal=enrolled.shows(1, 0.2, 0.5), envelope=view)
        assert fusion.weights == (0.0,)
        assert accuracy(fusion) == (1.0, 1.0)


def test_gain_within_chance_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gain must exceed twice the square root of what changed: four more windows do not, five more do."""
    enrolled = Enrolled()
    signal, view = enrolled.shows(0.2, 1, 0.5), enrolled.shows(1, 0.2, 0.5)
    right = np.zeros(72, np.bool_)
    right[:40] = True
    for more in (4, 5):
        found = {True: right, False: right | (np.arange(72) >= 72 - more)}

        def correct(
            _: Any, weights: list[float], found: dict[bool, Any] = found
        ) -> Any:  # the outcome of the vote, as given
            return found[weights[0] == 0]

        monkeypatch.setattr(weighing._Trial, "correct", correct)
        fusion = enrolled.weigh(signal=signal, envelope=view)
        assert (fusion.weights[0] > 0) is (more == 5)
        assert fusion.weights[0] == (min(CANDIDATES[1:]) if more == 5 else 0), "of equal weights the lowest is taken"
        assert fusion.views[0].changed == more


@pytest.mark.parametrize("specimen", [0.0, 2.0])
def test_view_of_noise_gets_no_weight(specimen: float) -> None:
    """At most 7 % of 200 enrollments give a view of noise a weight, also when each specimen has a noise of its own."""
    assert np.mean([simulated(seed, fault=0.0, specimen=specimen) > 0 for seed in range(200)]) <= 0.07


def test_view_of_the_fault_gets_a_weight_in_most_enrollments() -> None:
    """Of 40 enrollments with a view that knows the fault, and the specimen too, nine of ten give it a weight."""
    assert np.mean([simulated(seed, fault=1.5, specimen=1.0) > 0 for seed in range(40)]) >= 0.9


def simulated(seed: int, *, fault: float, specimen: float) -> float:
    """Weight of a view that shows fault and specimen so strongly, with a signal that knows the specimen best."""
    random = np.random.default_rng(seed)
    classes, units = np.repeat(np.arange(3), 12), np.repeat(np.arange(9), 4)

    def shows(fault: float, specimen: float) -> FloatArray:
        of_class, of_unit = random.standard_normal((3, WIDTH)), random.standard_normal((9, WIDTH))
        noise = random.standard_normal((36, WIDTH))
        return (fault * of_class[classes] + specimen * of_unit[units] + noise).astype(np.float32)

    vectors = {"signal": shows(0.5, 2.0), "envelope": shows(fault, specimen)}
    return weigh(vectors, [str(each) for each in classes], [str(each) for each in units]).weights[0]


def test_too_few_specimens_prove_nothing() -> None:
    """Two specimens of each of two classes can be paired in three ways only, so no view gets a weight."""
    enrolled = Enrolled(units=2, classes=("inner", "outer"))
    fusion = enrolled.weigh(signal=enrolled.shows(0.2, 1, 0.5), envelope=enrolled.shows(1, 0.2, 0.5))
    (view,) = fusion.views
    assert fusion.may_learn
    assert view.weight == 0
    assert view.p_value is not None
    assert view.p_value > CHANCE


@pytest.mark.parametrize(
    ("single", "learns"),
    [((), True), (("ball",), True), (("ball", "inner"), False), (("ball", "inner", "outer", "normal"), False)],
)
def test_three_quarters_of_the_classes_need_two_units(single: tuple[str, ...], learns: bool) -> None:
    """With one class of four known from a single specimen the weight is learnt from the rest; with two it is 0."""
    enrolled = Enrolled(classes=(*CLASSES, "normal"))
    enrolled.units = [
        label if label in single else unit for label, unit in zip(enrolled.labels, enrolled.units, strict=True)
    ]
    fusion = enrolled.weigh(signal=enrolled.shows(0.2, 1, 0.5), envelope=enrolled.shows(1, 0.2, 0.5))
    assert (fusion.classes, fusion.classes_with_two_units) == (4, 4 - len(single))
    assert (fusion.weights[0] > 0) is learns
    assert fusion.windows == 24 * (4 - len(single))
    if len(single) == 4:
        assert fusion.accuracy is fusion.fused_accuracy is fusion.reach is None


def test_windows_of_one_specimen_are_never_compared() -> None:
    """With recordings as units, a signal that knows only the specimen looks perfect; with specimens it does not."""
    enrolled = Enrolled()
    signal, view = enrolled.shows(0, 1, 0.3), enrolled.shows(1, 0.2, 0.5)
    by_specimen = enrolled.weigh(signal=signal, envelope=view)
    enrolled.units = [f"{unit} {number % 2}" for number, unit in enumerate(enrolled.units)]
    by_recording = enrolled.weigh(signal=signal, envelope=view)
    assert accuracy(by_recording)[0] == 1.0
    assert by_recording.weights == (0.0,)
    assert accuracy(by_specimen)[0] < 0.5
    assert by_specimen.weights[0] > 0


def test_best_view_comes_first_and_the_others_must_add_to_it() -> None:
    """A second view that knows what the first does not is taken too; one that knows the same is not."""
    enrolled = Enrolled(classes=(*CLASSES, "gear", "belt"))
    signal = enrolled.shows(0, 0.3, 1.0)
    rotor = enrolled.shows(1, 0.1, 0.3, faults=("ball", "inner", "outer"))
    drive = enrolled.shows(1, 0.1, 0.3, faults=("gear", "belt"))
    both = enrolled.weigh(signal=signal, drive=drive, rotor=rotor)
    assert [view.name for view in both.views] == ["drive", "rotor"]
    assert min(both.weights) > 0
    alone = enrolled.weigh(signal=signal, rotor=rotor)
    assert accuracy(both)[1] > accuracy(alone)[1] + 0.1
    everything = enrolled.shows(1, 0.1, 0.3, faults=tuple(set(enrolled.labels)))
    again = enrolled.weigh(signal=signal, envelope=everything, copy=everything)
    assert min(again.weights) == 0
    assert max(again.weights) > 0


def test_scales_leave_out_pairs_of_one_unit() -> None:
    """Mean and deviation are those of the cosine of windows of different units, by the textbook."""
    enrolled = Enrolled(units=2, per_unit=3)
    signal = enrolled.shows(0.2, 1, 0.5)
    rows = signal / np.linalg.norm(signal, axis=1, keepdims=True)
    pairs = [
        float(rows[a] @ rows[b])
        for a in range(len(rows))
        for b in range(len(rows))
        if enrolled.units[a] != enrolled.units[b]
    ]
    fusion = enrolled.weigh(signal=signal)
    assert fusion.signal.mean == pytest.approx(np.mean(pairs), abs=1e-6)
    assert fusion.signal.std == pytest.approx(np.std(pairs), abs=1e-6)


def test_reach_is_how_far_apart_units_of_one_class_lie() -> None:
    """It is the distance nearly all windows of the widest class have to the next unit of theirs, whatever is nearer."""
    degrees = {"normal": (0, 1, 2, 3), "inner": (20, 50, 22, 51)}
    angles = np.radians([*degrees["normal"], *degrees["inner"]])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    labels = ["normal"] * 4 + ["inner"] * 4
    fusion = weigh({"signal": vectors}, labels, ["n1", "n2", "n1", "n2", "i1", "i2", "i1", "i2"])
    assert fusion.reach == pytest.approx(1 - np.cos(np.radians(29.7)), abs=0.005)
    narrow = weigh({"signal": vectors}, labels, ["n1", "n2", "n1", "n2", "i1", "i1", "i1", "i1"])
    assert narrow.reach == pytest.approx(1 - np.cos(np.radians(1)), abs=1e-4)


@pytest.mark.parametrize(("labels", "units"), [(["normal"] * 4, list("aabb")), (list("abcd"), ["one"] * 4)])
def test_nothing_to_compare_learns_nothing(labels: list[str], units: list[str]) -> None:
    """One class, or one specimen of everything, gives weights of 0 and finite scales."""
    vectors = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    fusion = weigh({"signal": vectors, "envelope": np.zeros_like(vectors)}, labels, units)
    assert fusion.weights == (0.0,)
    assert all(scale.std > 0 for scale in fusion.scales)
    assert np.isfinite(fusion.similarity([np.eye(4), np.eye(4)])).all()


def test_many_windows_are_thinned_evenly() -> None:
    """With a long normal state and few examples, all examples and an even choice of normal windows are compared."""
    kept = weighing._thinned(np.array(["normal"] * 100_000 + ["inner"] * 40))
    normal = kept[kept < 100_000]
    assert len(kept) == 300 + 40
    assert kept[-40:].tolist() == list(range(100_000, 100_040))
    assert set(np.diff(normal)) == {333, 334}


def test_fuse_is_the_weighted_mean_of_z() -> None:
    """(z_signal + sum w z_view) / (1 + sum w), each z by its own mean and deviation."""
    signal, left, right = (np.random.default_rng(seed).uniform(-1, 1, (3, 5)) for seed in range(3))
    scales = [Scale(0.9, 0.05), Scale(0.1, 0.2), Scale(-0.3, 0.5)]
    expected = ((signal - 0.9) / 0.05 + 2 * (left - 0.1) / 0.2 + 0.25 * (right + 0.3) / 0.5) / 3.25
    np.testing.assert_allclose(fuse([signal, left, right], scales, [2.0, 0.25]), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(fuse([signal], scales[:1], []), (signal - 0.9) / 0.05, rtol=1e-5, atol=1e-5)


def test_without_weights_the_similarity_is_the_cosine() -> None:
    """A view with weight 0 leaves the cosine of the signal as it is."""
    enrolled = Enrolled()
    fusion = enrolled.weigh(signal=enrolled.shows(1, 0.2, 0.5), envelope=enrolled.shows(0, 0, 1))
    cosine = np.random.default_rng(0).uniform(-1, 1, (4, 7))
    np.testing.assert_allclose(fusion.similarity([cosine, 1 - cosine]), cosine, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    bank=st.integers(1, 30),
    classes=st.integers(1, 5),
    masked=st.integers(0, 29),
    k=st.integers(1, 4),
)
def test_vote_equals_brute_force(seed: int, bank: int, classes: int, masked: int, k: int) -> None:
    """The class with the largest mean of its k best wins; the votes are how many of the k best of all are its own."""
    random = np.random.default_rng(seed)
    scores = random.uniform(0, 1, (6, bank))
    scores[:, : min(masked, bank - 1)] = -np.inf
    of_class = random.integers(0, classes, bank)
    ballot = vote(scores, of_class, k)
    for row, winner, votes in zip(scores, ballot.winners, ballot.votes, strict=True):
        known = [index for index in np.argsort(-row) if np.isfinite(row[index])]
        means = {
            each: np.mean([row[index] for index in known if of_class[index] == each][:k]) for each in of_class[known]
        }
        assert winner == max(means, key=lambda each: means[each])
        assert votes == sum(of_class[index] == winner for index in known[:k])


def test_class_can_win_without_one_of_the_nearest() -> None:
    """Three classes have one near window each and far ones; the fourth has three windows that are nearly as near."""
    scores = np.array([[0.9, 0.1, 0.1, 0.89, 0.1, 0.1, 0.88, 0.1, 0.1, 0.8, 0.8, 0.8]])
    ballot = vote(scores, np.repeat(np.arange(4), 3), 3)
    assert (ballot.winners.tolist(), ballot.votes.tolist()) == ([3], [0])


def test_exact_tie_goes_to_the_first_class() -> None:
    """Equal scores: the class with the smaller number, which is the first in alphabetical order."""
    assert vote(np.array([[0.5, 0.5, 0.25]]), np.array([1, 0, 2]), 1).winners.tolist() == [0]


@pytest.mark.parametrize(("counts", "k"), [([1, 2, 7], 1), ([7, 7], 1), ([8, 3, 9], 2), ([12, 50], 3), ([900, 900], 3)])
def test_quarter_of_the_median_class_scores_it(counts: list[int], k: int) -> None:
    """One window of four, at least 1 and at most 3, whatever the largest class has."""
    assert neighbors(np.repeat(np.arange(len(counts)), counts)) == k


def test_fusion_of_an_older_release_is_read() -> None:
    """Older releases stored no p-value: the weights are kept until the next enrollment."""
    enrolled = Enrolled(units=2, per_unit=3)
    fusion = enrolled.weigh(signal=enrolled.shows(0.2, 1, 0.5), envelope=enrolled.shows(1, 0.2, 0.5))
    stored = fusion.to_dict()
    for view in stored["views"]:
        del view["p_value"]
    read = Fusion.from_dict(stored)
    assert read.weights == fusion.weights
    assert [view.p_value for view in read.views] == [None]


def test_fusion_survives_json() -> None:
    """What is stored is what comes back."""
    enrolled = Enrolled(units=2, per_unit=3)
    fusion = enrolled.weigh(signal=enrolled.shows(0.2, 1, 0.5), envelope=enrolled.shows(1, 0.2, 0.5))
    assert Fusion.from_dict(json.loads(json.dumps(fusion.to_dict(), allow_nan=False))) == fusion
