"""The arithmetic of the benchmark protocol."""

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from fisher_bench.protocol import area_under_roc, macro_accuracy, sealed_splits, similarity_vote
from fisher_edge.errors import BadInputError


def test_splits_are_those_of_scikit_learn() -> None:
    """The first split of seven recordings of one class equals train_test_split with random_state 111."""
    units = np.asarray([f"r{index}" for index in range(7)])
    split = next(sealed_splits(np.asarray(["a"] * 7), units, runs=1))
    enrolled, asked = train_test_split(np.arange(7), test_size=0.5, random_state=111)
    assert split.enrolled.tolist() == enrolled.tolist()
    assert split.asked.tolist() == asked.tolist()
    assert split.seed == 111


def test_a_unit_is_never_on_both_sides_and_every_class_is_on_both() -> None:
    """Windows of one recording stay together; both sides hold every class in all ten splits."""
    labels = np.repeat(["a", "b", "c"], 12)
    units = np.asarray([f"{label}{index // 3 % 4}" for index, label in enumerate(labels)])
    splits = list(sealed_splits(labels, units))
    assert len(splits) == 10
    for split in splits:
        enrolled, asked = split.enrolled, split.asked
        assert not set(units[enrolled]) & set(units[asked])
        assert set(labels[enrolled]) == set(labels[asked]) == {"a", "b", "c"}
        assert len(enrolled) + len(asked) == len(labels)


def test_a_class_of_one_recording_is_refused() -> None:
    """No split can have a class on both sides when it was recorded once."""
    with pytest.raises(BadInputError, match="at least two recordings"):
        list(sealed_splits(np.asarray(["a", "a", "b"]), np.asarray(["1", "2", "3"]), runs=1))


def test_vote_sums_the_similarities_of_the_nearest() -> None:
    """Two near windows of one class lose against three whose similarities add up to more."""
    similarity = np.asarray([[0.9, 0.8, 0.7, 0.7, 0.6, 0.1], [0.9, 0.9, 0.1, 0.1, 0.1, 0.0]])
    labels = np.asarray(["a", "a", "b", "b", "b", "a"])
    assert similarity_vote(similarity, labels, k=5).tolist() == ["b", "a"]


def test_vote_counts_classes_with_negative_similarities() -> None:
    """A class among the neighbours wins over one that is not, even when its similarity is below zero."""
    assert similarity_vote(np.asarray([[-0.5, -0.9]]), np.asarray(["b", "a"]), k=1).tolist() == ["b"]


def test_macro_accuracy_weighs_classes_alike() -> None:
    """Nine of ten and none of one are 45 per cent, not 82."""
    truth = np.asarray(["a"] * 10 + ["b"])
    found = np.asarray(["a"] * 9 + ["b", "a"])
    assert macro_accuracy(truth, found) == pytest.approx(45.0)


def test_area_counts_ties_as_half() -> None:
    """One of four pairs is right, two are tied, one is wrong."""
    assert area_under_roc([1.0, 2.0], [1.0, 2.0]) == pytest.approx(0.5)
    assert area_under_roc([0.0, 1.0], [2.0]) == 1.0
    with pytest.raises(BadInputError, match="both kinds"):
        area_under_roc([], [1.0])
