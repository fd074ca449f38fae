"""Enrollment of windows: a calibrated baseline with everything it was made of, stored whole or not at all."""

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from windows import FRONT_END, KEY, VIEWS, embedding, made, take, window

from fisher_edge.decision import enroll as module
from fisher_edge.decision.assess import EnrolledTake, Made, SetAside
from fisher_edge.decision.enroll import activate, enroll, remove, undo
from fisher_edge.decision.evidence import Rates
from fisher_edge.decision.judge import Judge
from fisher_edge.decision.judgement import ModelName
from fisher_edge.dsp.views import View
from fisher_edge.errors import BadInputError
from fisher_edge.names import ChannelKey
from fisher_edge.store.baselines import Baselines, Take
from fisher_edge.store.database import Database

NORMAL = [take(f"normal-{seed}.wav", 0, seed) for seed in range(3)]
MADE = made()


@pytest.fixture
def baselines(tmp_path: Path) -> Iterator[Baselines]:
    """Return the baselines of an empty database."""
    with Database(tmp_path) as database:
        yield Baselines(database)


@pytest.fixture
def enrolled(baselines: Baselines) -> Baselines:
    """Return baselines with a normal state."""
    enroll(baselines, KEY, NORMAL, MADE)
    return baselines


def stored(baselines: Baselines) -> list[tuple[str | None, int, bool]]:
    """Return label, version and whether it is active of every baseline."""
    return [(each.label, each.version, each.active) for each in baselines.facts()]


def viewed(name: str, axis: int, seed: int, views: tuple[View, ...] = VIEWS) -> EnrolledTake:
    """Return a recording whose windows have views: random ones around a pattern of their kind."""
    plain = take(name, axis, seed)
    random = np.random.default_rng(seed)
    patterns = [np.random.default_rng(100 + axis).random(view.bins) for view in views]
    windows = [
        replace(
            each,
            views=tuple((pattern + 0.05 * random.random(len(pattern))).astype(np.float32) for pattern in patterns),
        )
        for each in plain.windows
    ]
    return replace(plain, windows=windows)


def test_enrollment_stores_everything_it_was_given(baselines: Baselines) -> None:
    """Embeddings, views, ends, levels, names, specimens and times are there bit by bit, with model and grid."""
    how = made(0.64, 0.32, VIEWS, model=ModelName("micro", "c" * 64), rate_hz=Fraction(31_250, 2))
    takes = [
        replace(viewed("a.wav", 0, 1), specimen="6205-a", recorded_s=1.7e9),
        viewed("b.wav", 0, 2),
    ]
    result = enroll(baselines, KEY, takes, how, reason="after overhaul")
    kept = baselines.get(KEY, None)
    assert kept is not None
    windows = [each for one in takes for each in one.windows]
    np.testing.assert_array_equal(kept.vectors, [each.embedding for each in windows])
    np.testing.assert_array_equal(kept.views, [np.concatenate(each.views) for each in windows])
    np.testing.assert_array_equal(kept.offset_s, [each.end_time_s for each in windows])
    np.testing.assert_array_equal(kept.level, [each.measures.log_rms for each in windows])
    assert kept.take.tolist() == [0] * 8 + [1] * 8
    assert kept.takes == (Take("a.wav", "6205-a", 1.7e9, 0), Take("b.wav", None, None, 0))
    assert (kept.model_name, kept.model_sha256, kept.rate_hz) == ("micro", "c" * 64, Fraction(15_625))
    assert (kept.grid, kept.reason, kept.label) == (how.grid, "after overhaul", None)
    assert kept.front_end == replace(how.front_end, views=())
    assert [each.view for each in kept.view_calibrations] == list(VIEWS)
    assert [len(each.held_out) for each in kept.view_calibrations] == [16, 16]
    assert (result.windows, result.windows_before, result.version) == (16, 0, 1)
    assert (result.window_s, result.hop_s) == (how.grid.window_s, how.grid.hop_s)


def test_view_is_held_out_like_the_signal(baselines: Baselines) -> None:
    """The calibration of a view is the distance of each window's view to the nearest of another recording."""
    takes = [viewed(f"{seed}.wav", 0, seed) for seed in range(2)]
    enroll(baselines, KEY, takes, made(views=VIEWS))
    kept = baselines.get(KEY, None)
    assert kept is not None
    for number, calibration in enumerate(kept.view_calibrations):
        first, second = (np.stack([each.views[number] for each in one.windows]).astype(float) for one in takes)
        first, second = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (first, second))
        distances = 1 - first @ second.T
        expected = np.concatenate([distances.min(axis=1), distances.min(axis=0)])
        np.testing.assert_allclose(calibration.held_out, expected, atol=1e-6)


def test_report_follows_from_the_stored_calibration(baselines: Baselines) -> None:
    """Spread, takes and promise of the report are those that the judge will come to."""
    result = enroll(baselines, KEY, NORMAL, MADE)
    kept = baselines.get(KEY, None)
    assert kept is not None
    (state,) = kept.states
    assert result.spread == np.median(state.held_out)
    judge = Judge([kept], FRONT_END, Rates(), 0.64)
    assert result.takes == judge.calibration.takes
    assert result.promise == {"1": judge.promise.warning_interval, "0.1": judge.promise.alarm_interval}
    for rate, (low, high) in result.promise.items():
        assert low < float(rate) < high
    assert result.spans_s[:3] == pytest.approx((0.64, 1.28, 2.56))
    levels = np.array([each.measures.log_rms for one in NORMAL for each in one.windows])
    assert (state.level_mean, state.level_std) == pytest.approx((levels.mean(), levels.std()))
    assert state.hum_share == 0.1


def test_recordings_of_one_name_are_told_apart_by_their_place(baselines: Baselines) -> None:
    """Recorders call every file alike: only the one of the faulty sensor is set aside."""
    alike = [replace(each, name="ok.wav") for each in NORMAL]
    result = enroll(baselines, KEY, [alike[0], dead("ok.wav"), *alike[1:]], MADE)
    assert [each.number for each in result.set_aside] == [1]
    assert result.windows == sum(len(list(each.windows)) for each in NORMAL)


def test_recording_of_a_faulty_sensor_is_set_aside(baselines: Baselines) -> None:
    """It is no part of the baseline, the others are enrolled, and the report says why."""
    result = enroll(baselines, KEY, [NORMAL[0], dead("dead.wav"), *NORMAL[1:]], MADE)
    assert result.set_aside == (SetAside(1, "dead.wav", "1.28 to 1.92 s: flat line: every sample is 1"),)
    kept = baselines.get(KEY, None)
    assert kept is not None
    assert [each.name for each in kept.takes] == [each.name for each in NORMAL]
    assert kept.take.max() == len(NORMAL) - 1
    assert result.windows == sum(len(list(each.windows)) for each in NORMAL)


def test_operating_states_are_stored_and_told(baselines: Baselines) -> None:
    """Standstill and running are two states; each recording knows its own, the report names them."""
    standstill = [take(f"rest-{seed}.wav", 5, seed, log_rms=-4.0) for seed in range(10, 12)]
    result = enroll(baselines, KEY, [NORMAL[0], standstill[0], NORMAL[1], standstill[1]], MADE)
    kept = baselines.get(KEY, None)
    assert kept is not None
    assert (result.states, result.state_of_take, result.alone) == (("1", "2"), ("1", "2", "1", "2"), ())
    assert [each.state for each in kept.takes] == [0, 1, 0, 1]
    assert [state.level_mean for state in kept.states] == pytest.approx([0.01, -3.99], abs=0.02)


def test_recording_unlike_the_others_is_named(baselines: Baselines) -> None:
    """A state recorded once, or a mistake, is pointed out by its name."""
    assert enroll(baselines, KEY, [*NORMAL, take("odd.wav", 7, 9)], MADE).alone == ("odd.wav",)


def test_recording_unlike_the_others_of_its_state_is_named(baselines: Baselines) -> None:
    """It is enrolled, but says nothing about their spread: people shall listen to it."""
    normal = [take(f"normal-{seed}.wav", 0, seed) for seed in range(8)]
    plain = take("odd.wav", 0, 99)
    moved = np.zeros((4, 6), np.float32)
    moved[:, 1] = 0.2
    odd = replace(plain, windows=[replace(each, embedding=each.embedding + moved) for each in plain.windows])
    result = enroll(baselines, KEY, [*normal, odd], MADE)
    assert (result.states, result.alone, result.odd) == (("1",), (), ("odd.wav",))
    assert (result.windows, result.takes) == (72, 8)


def test_baseline_without_the_faulty_recording_is_as_if_it_had_not_been_given(baselines: Baselines) -> None:
    """Windows, recordings and report are those of an enrollment of the others."""
    result = enroll(baselines, KEY, [NORMAL[0], dead("dead.wav"), *NORMAL[1:]], MADE)
    without = enroll(baselines, KEY, NORMAL, MADE)
    first, second = baselines.get(KEY, None, 1), baselines.get(KEY, None, 2)
    assert first is not None
    assert second is not None
    assert first.takes == second.takes
    assert first.take.tolist() == second.take.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    np.testing.assert_array_equal(first.vectors, second.vectors)
    assert replace(result, set_aside=(), version=2) == without


def test_enrolling_again_makes_the_next_version(enrolled: Baselines) -> None:
    """The newest is active; labelled examples have versions of their own, no limits, and may be few."""
    assert enroll(enrolled, KEY, NORMAL, MADE).version == 2
    fault = enroll(enrolled, KEY, [take("f.wav", 1, 5, count=1)], MADE, label="inner race")
    assert (fault.version, fault.windows, fault.promise, fault.spread) == (1, 1, {}, 0.0)
    assert stored(enrolled) == [(None, 1, False), (None, 2, True), ("inner race", 1, True)]


def dead(name: str) -> EnrolledTake:
    """Return a recording whose third window is of a dead sensor."""
    windows = list(take(name, 0, 3).windows)
    windows[2] = replace(windows[2], fault="flat line: every sample is 1")
    return EnrolledTake(name, windows)


def not_finite(value: float) -> EnrolledTake:
    """Return a recording of which one number of an embedding is not finite."""
    vector = embedding(0, 1)
    vector[2, 3] = value
    return EnrolledTake("nan.wav", [window(vector)])


REFUSALS: list[tuple[list[EnrolledTake], dict[str, Any], str]] = [
    ([dead("dead.wav")], {}, "dead.wav, 1.28 to 1.92 s: flat line: every sample is 1; cut that part out"),
    ([dead("a.wav"), dead("b.wav")], {}, "a.wav, 1.28 to 1.92 s: flat line: every sample is 1; cut that part out"),
    ([EnrolledTake("a.wav", [])], {}, "the recordings hold no window; enroll longer ones"),
    ([], {}, "the recordings hold no window"),
    ([take("a.wav", 0, 1, count=1)], {}, "1 windows leave 0 that can be held out to say what is normal, 4 are needed"),
    ([take("a.wav", 0, 1, count=3)], {}, "3 windows leave 3 that can be held out"),
    ([*NORMAL, not_finite(np.nan)], {}, "the encoder gives no finite numbers"),
    ([*NORMAL, not_finite(np.inf)], {}, "the encoder gives no finite numbers"),
    (NORMAL, {"key": ChannelKey("pump/1", "a")}, "asset name 'pump/1' contains '/'"),
    (NORMAL, {"key": ChannelKey("a", "#")}, "channel name '#' contains '#'"),
    (NORMAL, {"label": ""}, "label '' names no fault"),
    (NORMAL, {"label": " "}, "label ' ' names no fault"),
    (NORMAL, {"label": "normal"}, "label 'normal' names no fault"),
    (NORMAL, {"label": "a\nb"}, r"label 'a\nb' names no fault"),
    (NORMAL, {"label": "inner"}, "the normal state of pump-1/vib-de is not enrolled yet; enroll it first"),
]


@pytest.mark.parametrize(("takes", "options", "reason"), REFUSALS, ids=[reason[:40] for *_, reason in REFUSALS])
def test_enrollment_that_cannot_be_is_refused_and_stores_nothing(
    baselines: Baselines, takes: list[EnrolledTake], options: dict[str, Any], reason: str
) -> None:
    """Every refusal is one line with the values, and nothing is stored."""
    options = {"key": KEY} | options
    with pytest.raises(BadInputError) as caught:
        enroll(baselines, takes=takes, made=MADE, **options)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert stored(baselines) == []


def test_four_windows_that_can_be_held_out_are_enough(baselines: Baselines) -> None:
    """Two recordings of two windows each calibrate a threshold."""
    assert enroll(baselines, KEY, [take("a", 0, 1, count=2), take("b", 0, 2, count=2)], MADE).windows == 4


def test_examples_of_a_fault_must_fit_the_normal_state(enrolled: Baselines) -> None:
    """Another rate or another window cannot be compared with what is enrolled: refused, and nothing is stored."""
    with pytest.raises(
        BadInputError, match=r"have 8000 Hz, the normal state of .* was enrolled at 16000 Hz; record the"
    ):
        enroll(enrolled, KEY, NORMAL, made(rate_hz=8000), label="oops")
    with pytest.raises(BadInputError, match=r"windows of 0\.64 s; use --window-s 0\.64"):
        enroll(enrolled, KEY, NORMAL, made(window_s=0.32), label="oops")
    assert stored(enrolled) == [(None, 1, True)]


@pytest.mark.parametrize("window_s", [0.57, 1.13, 2.03])
def test_window_of_any_length_fits_itself(baselines: Baselines, window_s: float) -> None:
    """A fault enrolled with the very settings of the normal state is never refused by rounding."""
    for label in (None, "inner"):
        enroll(baselines, KEY, NORMAL, made(window_s), label=label)
    assert stored(baselines) == [(None, 1, True), ("inner", 1, True)]


def test_further_specimen_joins_those_enrolled(baselines: Baselines) -> None:
    """With `extend` a new version holds old and new examples, each with its recording, specimen, level and views."""
    how = made(views=VIEWS)
    enroll(baselines, KEY, [viewed(f"{seed}.wav", 0, seed) for seed in range(2)], how)
    first = [replace(viewed(f"f{seed}.wav", 1, seed), specimen="6205-a") for seed in (4, 5)]
    louder = [replace(each, measures=window(each.embedding, log_rms=1.5).measures, hum_share=0.4)
              for each in viewed("f6.wav", 2, 6).windows]  # fmt: skip
    second = [EnrolledTake("f6.wav", louder, "6205-b", 5.0)]
    one = enroll(baselines, KEY, first, how, label="inner", extend=True)
    two = enroll(baselines, KEY, second, made(hop_s=0.32, views=VIEWS), label="inner", extend=True, reason="B")
    assert (one.version, one.windows, one.windows_before) == (1, 16, 0)
    assert (two.version, two.windows, two.windows_before) == (2, 8, 16)
    assert stored(baselines) == [(None, 1, True), ("inner", 1, False), ("inner", 2, True)]
    earlier, both = (baselines.get(KEY, "inner", version) for version in (1, 2))
    assert earlier is not None
    assert both is not None
    assert both.takes == (*earlier.takes, Take("f6.wav", "6205-b", 5.0, 0))
    assert both.take.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert both.view_calibrations[0].view == VIEWS[0]
    for name in ("vectors", "views", "offset_s", "level"):
        np.testing.assert_array_equal(getattr(both, name)[:16], getattr(earlier, name))
        assert len(getattr(both, name)) == 24
    np.testing.assert_array_equal(both.vectors[16:], [each.embedding for each in louder])
    (state,) = both.states
    assert (state.level_mean, state.level_std) == pytest.approx((both.level.mean(), both.level.std()))
    assert state.hum_share == 0.4
    assert both.reason == "B"
    assert two.fusion is not None
    assert two.fusion.classes_with_two_units == 2


def test_without_extend_new_examples_replace_the_old(enrolled: Baselines) -> None:
    """The active version of a fault is what was enrolled last, alone."""
    for seed in (4, 5):
        result = enroll(enrolled, KEY, [take(f"{seed}.wav", 1, seed)], MADE, label="inner")
        assert result.windows_before == 0
    active = enrolled.get(KEY, "inner")
    assert active is not None
    assert [each.name for each in active.takes] == ["5.wav"]


@pytest.mark.parametrize(
    "other",
    [
        made(model=ModelName("nano", "b" * 64)),
        replace(MADE, front_end=replace(MADE.front_end, top_band="pad")),
        replace(MADE, grid=replace(MADE.grid, piece_frames=32, piece_hop_frames=32, window_pieces=2)),
    ],
    ids=["model", "front-end", "grid"],
)
def test_examples_made_in_another_way_cannot_join(enrolled: Baselines, other: Made) -> None:
    """Windows of another model, front-end or grid are refused with what to do, and everything stays as it is."""
    enroll(enrolled, KEY, [take("f.wav", 1, 4)], MADE, label="inner")
    with pytest.raises(BadInputError, match="another model, rate or window; enroll all of them again, without --add"):
        enroll(enrolled, KEY, [take("g.wav", 1, 5)], other, label="inner", extend=True)
    assert stored(enrolled) == [(None, 1, True), ("inner", 1, True)]


def test_same_recording_cannot_join_twice(enrolled: Baselines) -> None:
    """A recording enrolled before is named by its label, also when it comes with new ones."""
    enroll(enrolled, KEY, [take("f.wav", 1, 4)], MADE, label="inner")
    with pytest.raises(BadInputError, match="among those of 'inner' already; leave out the recording"):
        enroll(enrolled, KEY, [take("new.wav", 1, 5), take("f.wav", 1, 4)], MADE, label="inner", extend=True)
    assert stored(enrolled) == [(None, 1, True), ("inner", 1, True)]


def test_normal_state_is_extended_and_calibrated_as_a_whole(baselines: Baselines) -> None:
    """Recordings in two steps give the baseline that all of them give at once."""
    enroll(baselines, KEY, NORMAL[:2], MADE)
    extended = enroll(baselines, KEY, NORMAL[2:], MADE, extend=True)
    first = baselines.get(KEY, None)
    at_once = enroll(baselines, KEY, NORMAL, MADE)
    second = baselines.get(KEY, None)
    assert first is not None
    assert second is not None
    assert (extended.windows, extended.windows_before) == (len(second) - len_of(NORMAL[:2]), len_of(NORMAL[:2]))
    assert (extended.takes, extended.promise, extended.spread) == (at_once.takes, at_once.promise, at_once.spread)
    for name in ("vectors", "take", "offset_s", "level", "views"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    assert first.takes == second.takes


def len_of(takes: list[EnrolledTake]) -> int:
    """Return how many windows takes have."""
    return sum(len(list(each.windows)) for each in takes)


@pytest.mark.parametrize(
    "made",
    [
        replace(MADE, rate_hz=8000),
        replace(MADE, model=ModelName("other", "1" * 64)),
        replace(MADE, grid=replace(MADE.grid, piece_frames=48)),
    ],
)
def test_normal_state_made_in_another_way_is_not_extended(baselines: Baselines, made: Made) -> None:
    """Another rate, model or window cannot be added."""
    enroll(baselines, KEY, NORMAL[:2], MADE)
    with pytest.raises(BadInputError, match="made with another model, rate or window; enroll all of them again"):
        enroll(baselines, KEY, NORMAL[2:], made, extend=True)


def test_undo_goes_back_one_version(baselines: Baselines) -> None:
    """The version before becomes active; the first has none before it."""
    for reason in ("first", "second"):
        enroll(baselines, KEY, NORMAL, MADE, reason=reason)
    assert undo(baselines, KEY, None) == 1
    normal = baselines.get(KEY, None)
    assert normal is not None
    assert normal.reason == "first"
    with pytest.raises(BadInputError, match="no version of normal before the active one"):
        undo(baselines, KEY, None)


def test_operating_states_have_the_names_given(baselines: Baselines) -> None:
    """Takes of one name are one state however different they are; the others are grouped by themselves."""
    takes = [replace(each, state=state) for each, state in zip(NORMAL, ("fast", "slow", "fast"), strict=True)]
    enrolled = enroll(baselines, KEY, takes, MADE)
    assert enrolled.state_of_take == ("fast", "slow", "fast")
    assert enrolled.alone == (takes[1].name,)
    normal = baselines.get(KEY, None)
    assert normal is not None
    assert [(state.name, state.given) for state in normal.states] == [("fast", True), ("slow", True)]
    mixed = enroll(baselines, KEY, [takes[0], *NORMAL[1:]], MADE)
    assert mixed.state_of_take == ("fast", "2", "2")
    clash = enroll(baselines, KEY, [replace(NORMAL[0], state="2"), *NORMAL[1:]], MADE)
    assert clash.state_of_take == ("2", "2 (found)", "2 (found)")


def test_weights_follow_what_is_enrolled(enrolled: Baselines) -> None:
    """Adding, replacing, activating and removing examples relearns the weights; without examples there are none."""

    def classes() -> tuple[int, int] | None:
        fusion = enrolled.fusion(KEY)
        return (fusion["classes"], fusion["classes_with_two_units"]) if fusion else None

    assert classes() is None
    first = enroll(enrolled, KEY, [take("a", 1, 4)], MADE, label="inner")
    assert classes() == (2, 1)
    assert first.fusion is not None
    assert first.fusion.to_dict() == enrolled.fusion(KEY)
    both = [take("a", 1, 4), take("b", 1, 5)]
    enroll(enrolled, KEY, both, MADE, label="inner")
    assert classes() == (2, 2)
    enroll(enrolled, KEY, [replace(each, specimen="B7") for each in both], MADE, label="inner")
    assert classes() == (2, 1), "two recordings of one specimen are one unit"
    activate(enrolled, KEY, "inner", 2)
    assert classes() == (2, 2)
    assert remove(enrolled, KEY, "inner") == 3
    assert classes() is None


@pytest.mark.parametrize(
    "change",
    [
        lambda baselines: enroll(baselines, KEY, NORMAL, MADE),
        lambda baselines: enroll(baselines, KEY, NORMAL, MADE, label="outer"),
        lambda baselines: activate(baselines, KEY, "inner", 1),
        lambda baselines: remove(baselines, KEY, "inner"),
    ],
    ids=["enroll", "label", "activate", "remove"],
)
def test_change_and_weights_are_one_transaction(
    enrolled: Baselines, change: Callable[[Baselines], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the weights cannot be learnt, nothing of an enrollment, an activation or a removal is kept."""
    for seed in (4, 5):
        enroll(enrolled, KEY, [take("f", 1, seed)], MADE, label="inner")
    before, weights = stored(enrolled), enrolled.fusion(KEY)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "learn", fail)
    with pytest.raises(ZeroDivisionError):
        change(enrolled)
    assert stored(enrolled) == before
    assert enrolled.fusion(KEY) == weights is not None


def test_kill_during_enrollment_leaves_whole_baselines_and_their_weights(tmp_path: Path) -> None:
    """However often a process is killed while it enrolls, versions have no gap, all are complete, weights fit them."""
    code = """
        import sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[1])
        from windows import KEY, made, take
        from fisher_edge.decision.enroll import enroll
        from fisher_edge.store.baselines import Baselines
        from fisher_edge.store.database import Database
        with Database(Path(sys.argv[2])) as database:
            baselines = Baselines(database)
            while True:
                enroll(baselines, KEY, [take("a", 0, 1), take("b", 0, 2)], made())
                for units in (1, 2):
                    enroll(baselines, KEY, [take(str(seed), 1, seed) for seed in range(units)], made(), label="inner")
                print("enrolled", flush=True)
    """
    for lines in (1, 2, 3):
        command = [sys.executable, "-c", textwrap.dedent(code), str(Path(__file__).parent), str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert [child.stdout.readline() for _ in range(lines)] == ["enrolled\n"] * lines
            child.send_signal(signal.SIGKILL)
        with Database(tmp_path, check=True) as database:
            baselines = Baselines(database)
            for label in (None, "inner"):
                versions = [(each.version, each.active) for each in baselines.facts() if each.label == label]
                assert versions == [(number + 1, number + 1 == len(versions)) for number in range(len(versions))]
            kept = baselines.fusion(KEY)
            active = {each.label: each for each in baselines.active(KEY)}
            assert {label: len(each) for label, each in active.items()} == {
                None: 16,
                "inner": 8 * len(active["inner"].takes),
            }
            activate(baselines, KEY, None, active[None].version)
            assert baselines.fusion(KEY) == kept is not None
