"""Names of faults: the nearest examples of each, by the views that earned a weight; what is unlike all is said so."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from windows import FRONT_END, KEY, VIEWS, embedding, made, take, window

from fisher_edge.decision.assess import EnrolledTake
from fisher_edge.decision.enroll import enroll
from fisher_edge.decision.evidence import Rates
from fisher_edge.decision.fusion import Fusion
from fisher_edge.decision.judge import Judge
from fisher_edge.decision.judgement import FaultVote, Judgement
from fisher_edge.decision.naming import UNLIKE_ANYTHING, learn, made_alike
from fisher_edge.encoder.windows import EmbeddedWindow
from fisher_edge.store.baselines import Baseline, Baselines
from fisher_edge.store.database import Database

FAULTS = {"inner race": 1, "outer race": 2}
VIEW = VIEWS[1]
NORMAL = [take(f"{seed}.wav", 0, seed) for seed in range(4)]


@pytest.fixture
def baselines(tmp_path: Path) -> Iterator[Baselines]:
    """Return baselines with a normal state, whose windows lie at 0 of 24 directions."""
    with Database(tmp_path) as database:
        opened = Baselines(database)
        enroll(opened, KEY, NORMAL, made())
        yield opened


def judge(baselines: Baselines) -> Judge:
    """Return the judge of what is enrolled, with the weights that were learnt."""
    weights = baselines.fusion(KEY)
    views = replace(FRONT_END, views=(VIEW,))
    return Judge(baselines.active(KEY), views, Rates(), 0.64, Fusion.from_dict(weights) if weights else None)


def vote_on(baselines: Baselines, axis: int, seed: int = 900) -> FaultVote | None:
    """Return what a new window of one kind is taken for."""
    return judge(baselines).judge(window(embedding(axis, seed))).fault


def test_nothing_is_named_without_examples(baselines: Baselines) -> None:
    """While no fault is labelled there is no vote, not one for normal."""
    assert vote_on(baselines, 0) is vote_on(baselines, 7) is None


def test_nearest_examples_name_the_fault(baselines: Baselines) -> None:
    """The nearest windows agree on each fault and on normal; what resembles nothing is said to."""
    for label, axis in FAULTS.items():
        enroll(baselines, KEY, [take(f"{label}.wav", axis, 20 + axis)], made(), label=label)
    assert vote_on(baselines, 0) == FaultVote("normal", 2, 2)
    assert vote_on(baselines, 1) == FaultVote("inner race", 2, 2)
    assert vote_on(baselines, 2) == FaultVote("outer race", 2, 2)
    unlike = vote_on(baselines, 9)
    assert unlike is not None
    assert unlike.label == UNLIKE_ANYTHING


def at(degrees: float) -> EmbeddedWindow:
    """Return a window that lies so many degrees from the first direction towards the second."""
    vector = np.zeros(24, np.float32)
    vector[0], vector[1] = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return window(vector.reshape(4, 6))


def test_nearest_two_of_each_fault_count(baselines: Baselines) -> None:
    """Faults with eight windows are scored by two each: two near ones win against a single one that is nearer."""
    for label, degrees in (("a", (44.0, *range(70, 77))), ("b", (45.0, 46.0, *range(80, 86)))):
        windows = [replace(at(each), end_time_s=0.64 * number) for number, each in enumerate(degrees)]
        enroll(baselines, KEY, [EnrolledTake(f"{label}.wav", windows)], made(), label=label)
    assert judge(baselines).judge(at(43.0)).fault == FaultVote("b", 1, 2)
    assert judge(baselines).judge(at(73.0)).fault == FaultVote("a", 2, 2)


def test_window_is_unlike_anything_beyond_ten_typical_distances(baselines: Baselines) -> None:
    """A window is named up to ten times the median distance of normal windows from the nearest example."""
    enroll(baselines, KEY, [EnrolledTake("a.wav", [at(90.0)])], made(), label="a")
    normal = baselines.get(KEY, None)
    assert normal is not None
    typical = float(np.median(np.concatenate([state.held_out for state in normal.states])))
    edge = float(np.degrees(np.arccos(1 - 10 * typical)))
    near, far = (judge(baselines).judge(at(90.0 + degrees)).fault for degrees in (0.98 * edge, 1.02 * edge))
    assert near is not None
    assert far is not None
    assert near.label != UNLIKE_ANYTHING
    assert far.label == UNLIKE_ANYTHING


def test_fault_as_far_as_its_enrolled_specimens_is_named(baselines: Baselines) -> None:
    """A fault is named beyond that where specimens of one fault lie that far apart themselves."""

    def specimen(degrees: float, name: str) -> EnrolledTake:
        return EnrolledTake(f"{name}.wav", [at(degrees)], specimen=name)

    enroll(baselines, KEY, [specimen(180.0, "A")], made(), label="a")
    alone = judge(baselines).judge(at(110.0))
    assert alone.fault is not None
    assert alone.fault.label == UNLIKE_ANYTHING
    enroll(baselines, KEY, [specimen(180.0, "A"), specimen(260.0, "B")], made(), label="a")
    assert baselines.fusion(KEY) is not None
    judged = judge(baselines).judge(at(110.0))
    assert judged.fault is not None
    assert judged.fault.label != UNLIKE_ANYTHING


@pytest.mark.parametrize("made_with", [{"model_sha256": "b" * 64}, {"rate_hz": 8000}])
def test_examples_of_another_model_or_rate_have_no_vote(
    baselines: Baselines, made_with: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Examples that cannot be compared are left out and named once; the normal state judges on."""
    enroll(baselines, KEY, [take("f.wav", 1, 20)], made(), label="inner race")
    example = baselines.get(KEY, "inner race")
    assert example is not None
    baselines.add(replace(example, **made_with))
    with caplog.at_level(logging.WARNING):
        judged = judge(baselines).judge(window(embedding(1, 900)))
    assert (judged.fault, judged.distance is not None) == (None, True)
    (record,) = caplog.records
    assert "the examples of 'inner race' for pump-1/vib-de have no vote" in record.getMessage()
    assert learn(baselines.active(KEY)) is None


def test_old_baseline_may_be_compared_with_any_front_end(baselines: Baselines) -> None:
    """A baseline that does not say what its front-end was is taken at its word that the model is the same."""
    normal = baselines.get(KEY, None)
    assert normal is not None
    other = replace(normal, front_end=replace(FRONT_END, top_band="pad"))
    assert not made_alike(normal, other)
    assert made_alike(replace(normal, front_end=None), other)


# Views


def shown(label: str | None, specimen: int, *, seed: int = 0) -> EnrolledTake:
    """Return a recording whose signal shows the specimen and whose view shows the fault."""
    random = np.random.default_rng([specimen, seed, len(label or "")])
    pattern = np.zeros(VIEW.bins)
    pattern[10 * (1 + ["", *FAULTS].index(label or ""))] = 1
    windows = []
    for number in range(6):
        vector = 0.1 * random.standard_normal(24)
        vector[12 + specimen] += 1
        # Faults are audible in the signal, but less than specimens are.
        vector[FAULTS.get(label or "", 0)] += 0.1
        view = (pattern + 0.02 * random.random(VIEW.bins)).astype(np.float32)
        windows.append(window(vector.astype(np.float32).reshape(4, 6), 0.64 * (number + 1), views=(view,)))
    name = f"{label}-{specimen}"
    return EnrolledTake(f"{name}.wav", windows, name)


@pytest.fixture
def viewed(tmp_path: Path) -> Iterator[Baselines]:
    """Return baselines of three specimens of normal and of each fault, with a view."""
    with Database(tmp_path / "viewed") as database:
        opened = Baselines(database)
        for label in (None, *FAULTS):
            enroll(opened, KEY, [shown(label, each) for each in range(3)], made(views=(VIEW,)), label=label)
        yield opened


def judged(baselines: Baselines, label: str, specimen: int) -> list[Judgement]:
    """Judge new windows of a specimen."""
    channel = judge(baselines)
    return [channel.judge(each) for each in shown(label, specimen, seed=5).windows]


def test_view_names_the_fault_of_a_specimen_nobody_enrolled(viewed: Baselines) -> None:
    """The view gets a weight, which results report, and names every fault; the signal alone names fewer."""
    weights = viewed.fusion(KEY)
    assert weights is not None
    fusion = Fusion.from_dict(weights)
    (weight,) = fusion.weights
    assert weight > 0
    assert fusion.accuracy is not None
    assert fusion.fused_accuracy is not None
    assert fusion.fused_accuracy > fusion.accuracy + 0.2
    named = {}
    for learnt in (weights, None):
        viewed.set_fusion(KEY, learnt)
        results = [(label, each) for label in FAULTS for each in judged(viewed, label, 1)]
        assert [each.views[0].weight for _, each in results] == [weight if learnt else 0.0] * 12
        named[learnt is None] = sum(each.fault is not None and each.fault.label == label for label, each in results)
    assert named[False] == 12
    assert named[True] < 12


def test_view_that_the_encoder_has_lost_does_not_vote(viewed: Baselines) -> None:
    """A bundle without the view leaves the vote to the signal, and nothing fails."""
    weights = viewed.fusion(KEY)
    assert weights is not None
    channel = Judge(viewed.active(KEY), FRONT_END, Rates(), 0.64, Fusion.from_dict(weights))
    signal = replace(next(iter(shown("inner race", 1, seed=5).windows)), views=())
    fault = channel.judge(signal).fault
    assert fault is not None
    assert fault.k == 3


def test_views_that_not_all_baselines_have_are_not_weighed(viewed: Baselines) -> None:
    """Examples enrolled before there were views are compared by the signal."""
    example = viewed.get(KEY, "inner race")
    assert example is not None
    active: list[Baseline] = [each for each in viewed.active(KEY) if each.label != "inner race"]
    fusion = learn([*active, replace(example, views=None, view_calibrations=())])
    assert fusion is not None
    assert (fusion.classes, fusion.views) == (3, ())
    whole = learn([*active, example])
    assert whole is not None
    assert [each.name for each in whole.views] == [VIEW.name]


def test_recordings_are_units_where_no_specimen_is_named(viewed: Baselines) -> None:
    """Without names every recording counts as a specimen of its own, also under several labels."""
    enrolled = viewed.active(KEY)
    unnamed = [replace(each, takes=tuple(replace(one, specimen=None) for one in each.takes)) for each in enrolled]
    one = [replace(each, takes=tuple(replace(one, specimen="the one") for one in each.takes)) for each in enrolled]
    by_recording, by_specimen = learn(unnamed), learn(one)
    assert by_recording is not None
    assert by_specimen is not None
    assert (by_recording.classes_with_two_units, by_specimen.classes_with_two_units) == (3, 0)
    assert by_specimen.weights == (0.0,)
