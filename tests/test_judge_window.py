"""The judgement of a window: shape and level apart, by operating state; what cannot be trusted is never an anomaly."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from windows import FRONT_END, KEY, VIEWS, embedding, made, take, window

from fisher_edge.decision.alarm import UNFAMILIAR, AlarmMachine, AlarmRule
from fisher_edge.decision.assess import EnrolledTake
from fisher_edge.decision.enroll import enroll
from fisher_edge.decision.evidence import Rates
from fisher_edge.decision.judge import Judge, Unenrolled
from fisher_edge.decision.judgement import BaselineName, Judgement, Level, ModelName, State
from fisher_edge.encoder.windows import EmbeddedWindow
from fisher_edge.errors import BadInputError
from fisher_edge.store.baselines import Baseline, Baselines
from fisher_edge.store.database import Database

RUNNING = [take(f"run-{seed}.wav", 0, seed, recorded_s=1.7e9 + 1000 * seed) for seed in range(4)]
STANDSTILL = [take(f"rest-{seed}.wav", 5, seed, log_rms=-4.5, hum_share=0.3) for seed in range(10, 14)]


def normal_of(folder: Any, takes: Sequence[EnrolledTake], **options: Any) -> Baseline:
    """Enroll recordings and return the baseline as it is read back."""
    with Database(folder) as database:
        baselines = Baselines(database)
        enroll(baselines, KEY, takes, made(**options))
        baseline = baselines.get(KEY, None)
    assert baseline is not None
    return baseline


@pytest.fixture(scope="module")
def normal(tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    """Return the enrolled state of a machine that runs; tests only read it."""
    return normal_of(tmp_path_factory.mktemp("running"), RUNNING)


@pytest.fixture(scope="module")
def two_states(tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    """Return the enrolled states of a machine that runs and stands still."""
    return normal_of(tmp_path_factory.mktemp("both"), [*RUNNING, *STANDSTILL])


def judge_of(baseline: Baseline, hop_s: float = 0.64, **rates: float) -> Judge:
    """Return a judge for one baseline alone."""
    return Judge([baseline], replace(FRONT_END, views=VIEWS), Rates(**rates), hop_s)


def fresh(axis: int = 0, seed: int = 77, **options: Any) -> EmbeddedWindow:
    """Return a window that nobody has enrolled."""
    return window(embedding(axis, seed), 1234.5, **options)


def judged_twice(judge: Judge, window: EmbeddedWindow) -> Judgement:
    """Judge a window and the same again: two windows are the least that raise anything."""
    judge.judge(window)
    return judge.judge(window)


def test_judgement_says_what_and_when(normal: Baseline) -> None:
    """Names, time and measures are those of the window; there is no evidence before the second one."""
    judged = judge_of(normal).judge(fresh(log_rms=0.25))
    assert judged.distance is not None
    assert judged.evidence is not None
    assert (judged.evidence.sudden, judged.evidence.alarm, judged.ratio) == (None, 0.0, 0.0)
    assert (judged.time_s, judged.window_s, judged.rate_hz) == (1234.5, 0.64, 16_000.0)
    assert judged.model == ModelName("nano", "a" * 64)
    assert judged.baseline == BaselineName(1, 32)
    assert (judged.distrust, judged.unjudged, judged.fault, judged.views) == (None, None, None, ())
    deviation = math.exp(0.25)
    assert judged.measures is not None
    assert asdict(judged.measures) == pytest.approx(
        {"rms": deviation, "peak": 3 * deviation, "crest": 3.0, "kurtosis": 3.0}
    )


def test_windows_of_the_enrolled_kind_are_within_the_limits(normal: Baseline) -> None:
    """New windows of the same sound stay below the warning, another sound is far beyond the alarm."""
    judge = judge_of(normal)
    same = [judge.judge(fresh(seed=seed)) for seed in range(500, 520)]
    assert max(each.evidence.warning for each in same if each.evidence) < 1
    assert max(abs(each.score) for each in same if each.score is not None) < 4
    other = judged_twice(judge, fresh(axis=3))
    assert other.ratio is not None
    assert other.score is not None
    assert other.ratio > 1
    assert other.score > 4


def test_score_is_the_mean_of_the_more_unusual_half_of_the_bands(normal: Baseline) -> None:
    """Four bands: the two most unusual."""
    judged = judge_of(normal).judge(fresh(axis=3))
    unusual = sorted(band.unusual for band in judged.bands if band.unusual is not None)
    assert judged.score == pytest.approx(np.mean(unusual[-2:]))


def test_shares_of_the_bands_add_up_to_the_distance(normal: Baseline) -> None:
    """At 16 kHz four bands of 2 kHz follow each other; the one that changed has most of the distance."""
    changed = embedding(0, 77)
    changed[2] += 0.5
    judged = judge_of(normal).judge(window(changed))
    assert [(band.low_hz, band.high_hz) for band in judged.bands] == [
        (0.0, 2000.0),
        (2000.0, 4000.0),
        (4000.0, 6000.0),
        (6000.0, 8000.0),
    ]
    shares = [band.share for band in judged.bands]
    assert sum(shares) == pytest.approx(judged.distance, abs=1e-6)
    assert min(shares) >= 0
    assert shares[2] > 0.5 * sum(shares)


@pytest.mark.parametrize(("number", "place"), [(0, 0), (2, 5), (3, 7)])
def test_nearest_names_recording_offset_and_time(normal: Baseline, number: int, place: int) -> None:
    """An enrolled window is at distance 0 of itself: named by its recording, its end in it, and when that was."""
    enrolled = list(RUNNING[number].windows)[place]
    judged = judge_of(normal).judge(enrolled)
    assert judged.distance == pytest.approx(0.0, abs=1e-6)
    assert judged.nearest is not None
    assert (judged.nearest.version, judged.nearest.recording) == (1, f"run-{number}.wav")
    assert judged.nearest.offset_s == pytest.approx(0.64 * (place + 1))
    assert judged.nearest.time_s == pytest.approx(1.7e9 + 1000 * number + 0.64 * (place + 1), abs=1e-6)


def test_time_of_a_recording_that_does_not_say_is_unknown(two_states: Baseline) -> None:
    """A recording without a time has a name and an offset only."""
    judged = judge_of(two_states).judge(next(iter(STANDSTILL[1].windows)))
    assert judged.nearest is not None
    assert (judged.nearest.recording, judged.nearest.time_s) == ("rest-11.wav", None)


def test_rarer_alarms_ask_for_more_evidence(normal: Baseline) -> None:
    """The rates of the configuration move the limits of shape and of level."""

    def evidence(**rates: float) -> list[float]:
        judged = judged_twice(judge_of(normal, **rates), fresh(axis=3, log_rms=1.0))
        assert judged.evidence is not None
        assert judged.level is not None
        assert judged.level.evidence is not None
        found = (judged.evidence, judged.level.evidence)
        return [each.warning for each in found] + [each.alarm for each in found]

    usual = evidence()
    assert all(new < old for new, old in zip(evidence(warning_per_day=0.1, alarm_per_day=0.01), usual, strict=True))
    warning_only = evidence(warning_per_day=0.5)
    assert [new < old for new, old in zip(warning_only, usual, strict=True)] == [True, True, False, False]


# Level


def level_of(judge: Judge, axis: int, log_rms: float) -> tuple[str | None, Level, float]:
    """Return operating state, level and evidence of the level after two windows of one sound."""
    judged = judged_twice(judge, fresh(axis, log_rms=log_rms))
    assert judged.level is not None
    assert judged.level.evidence is not None
    assert judged.evidence is not None
    assert judged.evidence.alarm < 1, "the shape is a normal one"
    return judged.operating_state, judged.level, judged.level.evidence.alarm


def test_louder_is_an_alarm_of_the_level_alone(normal: Baseline) -> None:
    """The same sound three times as loud, or a third, is beyond the level's limit and normal in shape."""
    for gain in (3.0, 1 / 3):
        judge = judge_of(normal)
        state, level, evidence = level_of(judge, 0, math.log(gain))
        prediction = judge.calibration.levels[0]
        assert state is None
        assert evidence > 1
        assert level.log_rms == pytest.approx(math.log(gain))
        assert level.deviation == pytest.approx(abs(math.log(gain) - prediction.mean))
        assert level.z == pytest.approx((math.log(gain) - prediction.mean) / prediction.sd)
    _, quiet, evidence = level_of(judge_of(normal), 0, prediction.mean)
    assert quiet.z == pytest.approx(0.0, abs=1e-6)
    assert evidence == pytest.approx(0.0, abs=1e-6)


def test_each_operating_state_has_a_level_of_its_own(two_states: Baseline) -> None:
    """Where standstill is enrolled too, running three times as loud is an alarm, and so is a standstill that runs."""
    for axis, name, log_rms in ((0, "1", 0.0), (5, "2", -4.5)):
        state, _, evidence = level_of(judge_of(two_states), axis, log_rms)
        assert state == name
        assert evidence < 1
        assert level_of(judge_of(two_states), axis, log_rms + math.log(3.0))[2] > 1
    state, _, evidence = level_of(judge_of(two_states), 5, 0.0)
    assert state == "2"
    assert evidence > 1


def test_level_is_judged_by_what_is_usual_in_other_machines_too(normal: Baseline) -> None:
    """A machine enrolled at the very same level all along may become 3 % louder, not twice as loud."""
    level = np.zeros_like(normal.level)
    for gain, exceeded in ((1.03, False), (2.0, True)):
        evidence = level_of(judge_of(replace(normal, level=level)), 0, math.log(gain))[2]
        assert (evidence > 1) is exceeded


# What cannot be trusted


def assert_distrusted(judged: Judgement, reason: str) -> None:
    """Check that a judgement says why nothing was judged, and can be published."""
    assert judged.distrust is not None
    assert reason in judged.distrust
    assert (judged.distance, judged.score, judged.evidence, judged.level, judged.fault) == (None,) * 5
    assert (judged.bands, judged.views, judged.ratio) == ((), (), None)
    assert judged.baseline == BaselineName(1, 32)
    assert judged.time_s == 1234.5


def test_fault_of_the_sensor_is_distrusted(normal: Baseline) -> None:
    """A window of a dead sensor has its reason and no distance, however far it is."""
    assert_distrusted(judge_of(normal).judge(fresh(axis=3, fault="flat line")), "flat line")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("everywhere", [True, False])
def test_embedding_that_is_not_finite_is_distrusted(normal: Baseline, value: float, everywhere: bool) -> None:
    """NaN and infinity, in one number or in all, are distrust and never an error or an alarm."""
    vector = embedding(0, 77)
    if everywhere:
        vector[:] = value
    else:
        vector[3, 1] = value
    assert_distrusted(judge_of(normal).judge(window(vector, 1234.5)), "the encoder gives no finite numbers")


def test_view_that_is_not_finite_is_distrusted(tmp_path: Any) -> None:
    """A view of NaN is distrust like an embedding of NaN."""
    views = tuple(np.ones(view.bins, np.float32) for view in VIEWS)
    baseline = normal_of(tmp_path, [take(f"{seed}.wav", 0, seed, views=views) for seed in range(4)], views=VIEWS)
    broken = (views[0], np.full(VIEWS[1].bins, np.nan, np.float32))
    assert_distrusted(judge_of(baseline).judge(fresh(views=broken)), "no finite numbers")


def test_baseline_that_is_not_finite_is_distrusted(normal: Baseline) -> None:
    """A number that was damaged in the database is no error: the channel says that it cannot be judged."""
    vectors = normal.vectors.copy()
    vectors[5, 0, 0] = np.nan
    assert_distrusted(judge_of(replace(normal, vectors=vectors)).judge(fresh()), "no finite numbers")


@pytest.mark.parametrize(
    ("hum", "enrolled", "open_cable"),
    [(0.99, 0.1, True), (0.95, 0.5, True), (0.94, 0.1, False), (0.99, 0.51, False), (0.99, 1.0, False)],
)
def test_open_cable_is_told_by_its_hum(normal: Baseline, hum: float, enrolled: float, open_cable: bool) -> None:
    """Nearly all power at mains frequency where it was never so is an open cable; a motor current hums by itself."""
    state = replace(normal.states[0], hum_share=enrolled)
    judged = judge_of(replace(normal, states=(state,))).judge(fresh(axis=3, hum_share=hum))
    if open_cable:
        assert_distrusted(judged, f"open cable: {hum:.0%} of the power is at mains frequency")
        assert f"at most {enrolled:.0%} of it when it was enrolled" in str(judged.distrust)
    else:
        assert judged.distrust is None
        assert judged.distance is not None


def test_hum_is_held_against_the_state_the_window_is_nearest_to(two_states: Baseline) -> None:
    """Hum that is normal at one speed does not make an open cable plausible at another."""
    states = (replace(two_states.states[0], hum_share=0.9), two_states.states[1])
    judge = judge_of(replace(two_states, states=states))
    assert judge.judge(fresh(0, hum_share=0.99)).distrust is None
    assert judge.judge(fresh(5, hum_share=0.99, log_rms=-4.5)).distrust is not None


def test_absurd_rates_and_identical_windows_still_judge(normal: Baseline) -> None:
    """Endless alarms asked for, and a baseline without any spread, give finite numbers that can be published."""
    state = replace(normal.states[0], held_out=np.zeros(5))
    same = replace(normal, vectors=np.repeat(normal.vectors[:1], 32, axis=0), states=(state,))
    judged = judged_twice(judge_of(same, warning_per_day=1e9, alarm_per_day=1e9), fresh())
    assert judged.ratio is not None
    assert judged.ratio > 1
    json.dumps(asdict(judged), allow_nan=False)


def test_channel_without_a_normal_state_cannot_be_judged(normal: Baseline) -> None:
    """Examples of a fault alone are no baseline."""
    with pytest.raises(BadInputError, match="no normal state is enrolled"):
        judge_of(replace(normal, label="inner"))


# Views


@pytest.fixture(scope="module")
def viewed(tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    """Return a baseline whose windows have two views."""
    takes = []
    for seed in range(4):
        random = np.random.default_rng(seed)
        plain = take(f"{seed}.wav", 0, seed)
        windows = [
            replace(
                each,
                views=tuple((1 + 0.1 * random.standard_normal(view.bins)).astype(np.float32) for view in VIEWS),
            )
            for each in plain.windows
        ]
        takes.append(replace(plain, windows=windows))
    return normal_of(tmp_path_factory.mktemp("viewed"), takes, views=VIEWS)


def test_views_say_how_far_a_window_is_in_spreads(viewed: Baseline) -> None:
    """Z counts from the median of the held-out distances in their spread: an enrolled window is a median below it."""
    first = viewed.view_calibrations[0].view.bins
    assert viewed.views is not None
    enrolled, strange = (
        fresh(views=(viewed.views[3, :first], viewed.views[3, first:])),
        fresh(views=(viewed.views[3, :first], np.eye(1, VIEWS[1].bins, 7, dtype=np.float32)[0])),
    )
    judge = judge_of(viewed)
    judged = judge.judge(enrolled)
    assert [each.name for each in judged.views] == ["envelope-600hz", "slow-200hz"]
    assert [each.weight for each in judged.views] == [0.0, 0.0]
    for calibration, score in zip(viewed.view_calibrations, judged.views, strict=True):
        median = np.median(calibration.held_out)
        spread = max(1.4826 * np.median(np.abs(calibration.held_out - median)), 0.05 * median)
        assert score.z == pytest.approx(-median / spread, abs=1e-3)
    other = judge.judge(strange)
    assert other.views[0].z == judged.views[0].z
    assert other.views[1].z > 100


def test_views_do_not_touch_the_distance(viewed: Baseline) -> None:
    """Distance, evidence and level are the same for an encoder that has lost one view, or both."""
    vectors = tuple(np.ones(view.bins, np.float32) for view in VIEWS)
    whole = judge_of(viewed).judge(fresh(views=vectors))
    one = Judge([viewed], replace(FRONT_END, views=VIEWS[1:]), Rates(), 0.64)
    none = Judge([viewed], FRONT_END, Rates(), 0.64)
    assert (one.views, none.views) == (VIEWS[1:], ())
    for judged, views in ((one.judge(fresh(views=vectors[1:])), whole.views[1:]), (none.judge(fresh()), ())):
        assert judged.views == views
        assert replace(judged, views=whole.views) == whole


# Operating states that are known


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    """Return the enrolled states of a machine that runs and stands still, with names."""
    takes = [replace(each, state="run") for each in RUNNING] + [replace(each, state="rest") for each in STANDSTILL]
    return normal_of(tmp_path_factory.mktemp("named"), takes)


def test_window_is_judged_by_the_state_the_machine_is_in(named: Baseline) -> None:
    """Standing still is normal where the machine stands still, and far from it where it should run."""
    resting = fresh(5, log_rms=-4.5)
    assert judge_of(named).judge(resting).operating_state == "rest"
    as_it_is = judged_twice(judge_of(named), resting)
    as_it_is_not = judge_of(named)
    as_it_is_not.judge(resting, "run")
    wrong = as_it_is_not.judge(resting, "run")
    assert (wrong.operating_state, wrong.unfamiliar) == ("run", False)
    assert as_it_is.ratio is not None
    assert wrong.ratio is not None
    assert as_it_is.ratio < 1 < wrong.ratio
    assert wrong.level is not None
    assert wrong.level.evidence is not None
    assert wrong.level.evidence.alarm > 1


def test_state_that_was_never_enrolled_is_unfamiliar_at_once(named: Baseline) -> None:
    """It has a distance, no score, and leaves no evidence behind."""
    judge = judge_of(named)
    said = judge.judge(fresh(3, log_rms=2.0), "fast")
    assert (said.operating_state, said.unfamiliar, said.score, said.ratio) == ("fast", True, None, 0.0)
    assert said.distance == pytest.approx(sum(band.share for band in said.bands))
    assert {band.unusual for band in said.bands} == {None}
    machine = AlarmMachine(AlarmRule(), lambda: 0.0)
    change = machine.judge(said)
    assert change is not None
    assert (change.after, change.kind) == (State.WARNING, UNFAMILIAR)
    assert change.reason.startswith("unfamiliar operating state 'fast': enroll it if it is normal")
    assert judge.judge(fresh()).evidence == judge_of(named).judge(fresh()).evidence


def test_states_that_were_found_have_no_names_to_know(two_states: Baseline) -> None:
    """Where no state was named at enrollment, a window belongs to the one it is nearest to."""
    said = judge_of(two_states).judge(fresh(5, log_rms=-4.5), "1")
    assert (said.operating_state, said.unfamiliar) == ("2", False)


def test_evidence_goes_on_with_another_judge_of_the_same_state(normal: Baseline) -> None:
    """New examples of a fault do not forget what has come; another hop does."""
    before, same, other = judge_of(normal), judge_of(normal), judge_of(normal, hop_s=0.32)
    before.judge(fresh(3))
    for judge, ratio_above in ((same, True), (other, False)):
        judge.take_over(before)
        said = judge.judge(fresh(3))
        assert said.ratio is not None
        assert (said.ratio > 1) is ratio_above


# Not enrolled


def test_unenrolled_channel_shows_plain_measures() -> None:
    """Before anything is enrolled a channel has its level and measures, a reason, and no distance."""
    judged = Unenrolled(ModelName("nano", "b" * 64), "nothing is enrolled").judge(fresh(log_rms=-1.0))
    assert (judged.unjudged, judged.distrust, judged.distance) == ("nothing is enrolled", None, None)
    assert (judged.model, judged.baseline) == (ModelName("nano", "b" * 64), None)
    assert judged.level is not None
    assert judged.level == Level(judged.level.log_rms)
    assert judged.level.log_rms == pytest.approx(-1.0)
    assert judged.measures is not None
    assert judged.measures.rms == pytest.approx(math.exp(-1.0))


def test_dead_sensor_of_an_unenrolled_channel_is_told() -> None:
    """The health of the sensor needs no baseline."""
    judged = Unenrolled(ModelName("nano", "b" * 64), "nothing is enrolled").judge(fresh(fault="clipped"))
    assert (judged.distrust, judged.unjudged, judged.level) == ("clipped", None, None)


def test_baseline_without_levels_of_its_windows_is_judged_by_what_it_kept(normal: Baseline) -> None:
    """A former release kept mean and spread of the level alone."""
    state = replace(normal.states[0], level_mean=0.0, level_std=0.02)
    old = replace(normal, level=np.full(len(normal), np.nan), states=(state,))
    assert level_of(judge_of(old), 0, 0.0)[2] < 1
    assert level_of(judge_of(old), 0, math.log(3.0))[2] > 1


def test_judge_keeps_one_copy_of_what_was_enrolled(normal: Baseline) -> None:
    """The vectors lie in the bank, band by band as they are compared; the baseline that came in is not held on to."""
    judge = judge_of(normal)
    assert judge.normal.vectors.size == 0
    assert judge.normal.views is None
    assert judge._bank._by_band.base is not None
    assert np.shares_memory(judge._bank._by_band, judge._bank.vectors)
