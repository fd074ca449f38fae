"""What a normal baseline would notice: injected changes, reactions, limits, what holds back, and the commands."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import run_here
from machine import EXAMPLES, RATE_HZ, machine_signal, sound_file
from test_calibrate import BANDS, DIM, HOME, NOISE, enrollment, state, windows

from fisher_edge.decision.calibrate import calibrate, grouped
from fisher_edge.decision.evidence import Limits, Rates, level_limits
from fisher_edge.decision.held_back import _doubled
from fisher_edge.decision.noticing import DB, Policy
from fisher_edge.decision.reactions import Normal, Reaction, Reactions, Shift, Shifts, Signal
from fisher_edge.decision.sensitivity import Noticed, Sensitivity, sensitivity
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.changes import Change, Spot, changed, tried
from fisher_edge.dsp.grid import grid_of, over_bursts
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.spots import embed_spots
from fisher_edge.errors import InsensitiveError
from fisher_edge.gateway.spots import spots_of
from fisher_edge.sources.bursts import read_bursts
from fisher_edge.sources.recording import read_recording

EDGES_HZ = [(2000.0 * band, 2000.0 * (band + 1)) for band in range(BANDS)]
PLACE = ("--asset", "pump-1", "--channel", "vib")
NOISE_SPOT = (np.random.default_rng(3).normal(size=RATE_HZ).astype(np.float32),)
DIRECTION = state(8)
NOISE_DB = 10 * np.log10(RATE_HZ)
GAINS = (0.0, 8.0, 12.0, 24.0)
"""How strongly the encoder of these tests moves a band when its level changes: the lowest not at all."""


def embed(spots: Sequence[Spot]) -> FloatArray:
    """Stand-in for an encoder: a band moves in one direction by its level (dB above that of the noise)."""
    embedded = []
    for spot in spots:
        power = np.abs(np.fft.rfft(spot[0])) ** 2
        hz = np.fft.rfftfreq(len(spot[0]), 1 / RATE_HZ)
        levels = [10 * np.log10(power[(hz >= low) & (hz < high)].mean()) for low, high in EDGES_HZ]
        moved = np.array([gain * (level - NOISE_DB) * NOISE for gain, level in zip(GAINS, levels, strict=True)])
        embedded.append(HOME + moved[:, None] * DIRECTION)
    lengths = [np.linalg.norm(each) for each in embedded]
    return np.array([each / length for each, length in zip(embedded, lengths, strict=True)], np.float32)


def normal(takes: Sequence[np.ndarray], levels: Sequence[float] | None = None) -> Normal:
    """Calibrate takes of windows of a second, whose level says little unless it is given."""
    enrolled = enrollment(takes, np.linspace(-0.3, 0.3, len(takes)).tolist() if levels is None else levels)
    states = grouped(enrolled).state_of_take
    calibration = calibrate(enrolled, states)
    assert calibration is not None
    return Normal(enrolled, states, [f"take-{number}" for number in range(len(takes))], calibration)


def signal() -> Signal:
    """One spot of noise of the first take."""
    return Signal([NOISE_SPOT], [0], embed, EDGES_HZ, RATE_HZ)


def takes(count: int, offset: float = 0.5, length: int = 16) -> list[np.ndarray]:
    """Takes of one operating state."""
    return [windows(length, seed, HOME, offset) for seed in range(count)]


@pytest.fixture(scope="module")
def found() -> Sensitivity:
    """What six takes would notice."""
    return sensitivity(normal(takes(6)), signal())


def power_share(before: Spot, after: Spot) -> float:
    """Share of the energy that was added."""
    added = sum(float(((new - old) ** 2).sum()) for old, new in zip(before, after, strict=True))
    return added / sum(float((new**2).sum()) for new in after)


def test_one_band_is_louder_and_the_others_are_not() -> None:
    """A gain of 6 dB doubles the amplitude of every line within the band, in each burst."""
    spot = tuple(np.split(NOISE_SPOT[0], 4))
    after = changed(spot, Change("band", "dB", 2000.0, 4000.0, ()), 20 * np.log10(2), RATE_HZ)
    assert len(after) == 4
    for old, new in zip(spot, after, strict=True):
        ratio = np.abs(np.fft.rfft(new)) / np.abs(np.fft.rfft(old))
        hz = np.fft.rfftfreq(len(old), 1 / RATE_HZ)
        inside = (hz >= 2000) & (hz < 4000)
        np.testing.assert_allclose(ratio[inside], 2, rtol=0.01)
        np.testing.assert_allclose(ratio[~inside], 1, rtol=0.01)


@pytest.mark.parametrize("kind", ["impulses", "tone"])
@pytest.mark.parametrize("share", [0.3, 0.03])
def test_what_is_added_has_its_share_of_the_energy(kind: str, share: float) -> None:
    """Whatever was there before, one burst or several."""
    (change,) = (each for each in tried(EDGES_HZ, RATE_HZ) if each.kind == kind)
    for spot in (NOISE_SPOT, tuple(np.split(100 * NOISE_SPOT[0], 4))):
        assert power_share(spot, changed(spot, change, share, RATE_HZ)) == pytest.approx(share, rel=0.05)


def test_impulses_come_ninety_times_a_second_and_ring() -> None:
    """The resonance is where the change says, and the envelope repeats as a damaged bearing's does."""
    (change,) = (each for each in tried(EDGES_HZ, RATE_HZ) if each.kind == "impulses")
    silence = (np.zeros(RATE_HZ, np.float32) + 1e-3 * NOISE_SPOT[0],)
    (wave,) = changed(silence, change, 0.999, RATE_HZ)
    spectrum = np.abs(np.fft.rfft(wave))
    assert abs(float(spectrum.argmax()) - change.low_hz) < 100
    envelope = np.abs(np.fft.rfft(wave**2))
    assert int(envelope[30:130].argmax()) + 30 == 90


def test_changes_fit_low_rates() -> None:
    """Resonance and tone stay below half the rate."""
    for change in tried([(0.0, 500.0)], 1000.0):
        assert change.high_hz <= 500
    assert [change.kind for change in tried(EDGES_HZ, RATE_HZ)] == ["band"] * BANDS + ["impulses", "tone"]


def test_later_is_never_larger(found: Sensitivity) -> None:
    """More time notices smaller changes, of any kind."""
    for each in found.noticed:
        sizes = [np.inf if size is None else size for size in (each.minute, each.hour, each.day)]
        assert sizes == sorted(sizes, reverse=True)
    assert found.noticed[0].change == "level"


def test_band_that_moves_less_is_noticed_less(found: Sensitivity) -> None:
    """A band that the encoder does not hear is missed; those that move more are noticed at smaller sizes."""
    days = [band.day for band in found.bands]
    assert days[0] is None
    assert found.missed == (found.bands[0],)
    assert found.weakest is found.bands[0]
    rest = [size for size in days[1:] if size is not None]
    assert len(rest) == 3
    assert rest == sorted(rest, reverse=True)
    assert rest[0] > rest[-1]


def test_restless_band_is_weak() -> None:
    """The same movement is noticed less in a band that never rests."""
    restless = takes(6)
    for seed, take in enumerate(restless):
        take[:, 3] += 20 * NOISE * np.random.default_rng(seed).normal(size=(len(take), DIM)).astype(np.float32)
    calm, weak = (sensitivity(normal(each), signal()).bands[3] for each in (takes(6), restless))
    assert calm.day is not None
    assert weak.weakness > calm.weakness


def test_more_takes_are_more_sensitive() -> None:
    """More recordings of the same machine notice smaller changes: of the level, and of bands."""
    few, many = (sensitivity(normal(takes(count, 0.0, 31), [0.0] * count), signal()) for count in (3, 12))
    for less, more in zip(few.noticed[:3], many.noticed[:3], strict=True):
        assert more.weakness < less.weakness


def test_level_that_is_said_raises_an_alarm() -> None:
    """What is said of the level is its limit, over spans that the clipped mean can reach, in dB."""
    of = normal(takes(6), [0.0, 0.02, -0.02, 0.03, -0.03, 0.01])
    policy = Policy.of(of.calibration, Rates())
    spans = level_limits(of.calibration, Rates(), of.calibration.step_s)
    loudest = 1.5 * spans[0][1].warning
    reached = [
        limit.alarm for span_s, limit in spans if span_s <= 60 and (limit is spans[0][1] or limit.alarm < loudest)
    ]
    assert policy.level_db(60) == pytest.approx(DB * min(reached))
    assert policy.level_db(0.5) is None
    for alarm, reached_alarm in ((1.4, 1.4), (2.0, 3.0)):
        cut_off = replace(policy, needed_s=[2.0, 3.0], level=[Limits(0.0, 1.0, 3.0), Limits(0.0, 0.5, alarm)])
        assert cut_off.level_db(60) == pytest.approx(DB * reached_alarm)


def test_change_of_one_band_counts_by_its_level_too() -> None:
    """A band that the encoder does not hear is noticed by the level where it carries the energy."""
    steady = normal(takes(6), [0.0, 0.01, -0.01, 0.01, 0.0, -0.01])
    assert sensitivity(steady, signal()).bands[0].day is not None
    of = signal()
    shift = Shifts(of, steady).of(tried(EDGES_HZ, RATE_HZ)[0], 6.0)
    louder = changed(NOISE_SPOT, tried(EDGES_HZ, RATE_HZ)[0], 6.0, RATE_HZ)[0]
    assert shift.level == pytest.approx(np.log(louder.std() / NOISE_SPOT[0].std()), rel=1e-4)


def test_noticed_size_lies_between_those_around_it() -> None:
    """The crossing is interpolated between the sizes that were tried."""
    of = normal(takes(6))
    policy = Policy.of(of.calibration, Rates())
    usual, limit = policy.shape[0].normal, policy.shape[0].alarm
    spans = len(of.calibration.spans)

    def at(score: float) -> Reaction:
        return Reaction(np.full(spans, score), 0.0)

    alone = replace(policy, needed_s=policy.needed_s[:1])
    assert alone.smallest([(6.0, at(limit + 1)), (3.0, at(limit - 1))], 60) == pytest.approx(np.sqrt(18.0))
    assert alone.smallest([(6.0, at(2 * limit - usual)), (3.0, at(usual - 9))], 60) == pytest.approx(np.sqrt(18.0))
    assert alone.smallest([(6.0, at(limit + 1)), (3.0, at(limit + 0.5))], 60) == 3.0
    assert alone.smallest([(6.0, at(limit - 1))], 60) is None
    assert alone.smallest([(6.0, at(limit + 1))], 1.5) is None


def test_unfamiliar_state_is_no_alarm() -> None:
    """A sudden change no farther than another operating state is a warning: it is not said to be noticed."""
    of = normal(takes(6))
    policy = replace(Policy.of(of.calibration, Rates()), zone=5.0)
    near, far = (Reaction(np.full(len(of.calibration.spans), 50.0), ratio) for ratio in (4.0, 6.0))
    assert policy.is_unfamiliar(near)
    assert policy.smallest([(6.0, near)], 86_400) is None
    assert not policy.is_unfamiliar(far)
    # The smaller size raises the alarm that the larger does not.
    assert policy.smallest([(6.0, near), (3.0, far)], 86_400) == 3.0
    band = Noticed("band", "dB", 0.0, 1.0, 6.0, None, None, None, unfamiliar=True)
    assert not band.missed
    assert replace(band, unfamiliar=False).missed


def test_each_state_shifts_as_its_own_spots() -> None:
    """Spots of one state say nothing about another that has spots; a state without any moves as all do."""
    of = normal(takes(3))
    three = replace(of, state_of_take=(0, 1, 2))
    quiet = (0.1 * NOISE_SPOT[0] + 0.1 * np.sin(np.arange(RATE_HZ)).astype(np.float32),)
    shifts = Shifts(Signal([NOISE_SPOT, quiet], [0, 1], embed, EDGES_HZ, RATE_HZ), three)
    change = tried(EDGES_HZ, RATE_HZ)[3]
    first, second, none = shifts.of(change, 6.0).vectors
    assert not np.allclose(first, second)
    np.testing.assert_allclose(none, (first + second) / 2)


def test_reaction_is_that_of_held_out_takes() -> None:
    """Without a shift the median take is where the calibration expects a new one; a shift moves it up."""
    of = normal(takes(8))
    reactions = Reactions(of)
    calm = reactions.to(Shift(np.zeros((1, BANDS, DIM))))
    spans = of.calibration.spans
    assert len(calm.scores) == len(spans)
    for score, span in zip(calm.scores, spans, strict=True):
        assert abs(score - span.score.mean) < 2 * span.score.sd
    moved = reactions.to(Shift(np.full((1, BANDS, DIM), 3 * NOISE)))
    assert np.all(moved.scores > calm.scores + 1)
    assert moved.log_ratio > calm.log_ratio
    # Means are of what is tamed: however large a change is, it counts no more.
    large, huge = (reactions.to(Shift(np.full((1, BANDS, DIM), by))).scores for by in (0.3, 0.6))
    assert huge[0] > large[0] + 0.1
    np.testing.assert_allclose(huge[1:], large[1:], atol=0.2)


def test_few_takes_and_false_alarms_hold_back() -> None:
    """Twice as many takes, or ten times as many false alarms, notice smaller changes."""
    found = sensitivity(normal(takes(3), [0.0, 0.01, 0.0]), signal())
    causes = {each.cause: each for each in found.held_back}
    assert {"few takes", "alarm_per_day"} <= causes.keys()
    for each in causes.values():
        before, after = each.level_db
        assert before is not None
        assert after is not None
        assert after < before
    calibration = normal(takes(3)).calibration
    few, twice = (Policy.of(each, Rates()).shape[0].alarm for each in (calibration, _doubled(calibration)))
    assert twice < 0.95 * few
    assert "blocks" in {each.cause for each in sensitivity(normal(takes(1, length=32)), signal()).held_back}


def test_state_recorded_once_is_named() -> None:
    """Its level is known least, which a second recording would mend."""
    lone = normal([*takes(4), windows(16, 40, state(2), 0.5)])
    (once,) = (each for each in sensitivity(lone, signal()).held_back if each.cause == "recorded once")
    assert once.name == "take-4"


def test_take_that_makes_the_spread_is_named() -> None:
    """One recording that is louder than the others of its state widens the limits of the level."""
    loud = normal(takes(6), [0.0, 0.01, 0.0, 0.4, 0.01, 0.0])
    named = [each for each in sensitivity(loud, signal()).held_back if each.cause == "one take"]
    assert [each.name for each in named] == ["take-3"]
    before, after = named[0].level_db
    rest = normal([take for number, take in enumerate(takes(6)) if number != 3], [0.0, 0.01, 0.0, 0.01, 0.0])
    assert after == pytest.approx(sensitivity(rest, signal()).noticed[0].hour)
    assert before is not None
    assert after is not None
    assert after < 0.7 * before


def test_json_round_trip(found: Sensitivity) -> None:
    """What is stored comes back as it was."""
    assert found.held_back
    assert Sensitivity.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_spots_are_pieces_of_the_recordings(tmp_path: Path, encoder: Encoder) -> None:
    """Six stretches of the length of a piece, spread over recordings and time, each as it is in the file."""
    front_end = encoder.bundle.front_end
    grid = grid_of(front_end, 0.64, None, RATE_HZ)
    waves = [machine_signal(seed) for seed in range(9)]
    files = [read_recording(sound_file(tmp_path / f"{seed}.wav", wave)) for seed, wave in enumerate(waves)]
    assert sum(map(len, spots_of(files, front_end, grid))) == 6
    ((first, *rest),) = spots_of(files[:1], front_end, grid)
    assert len(rest) == 5
    assert len(first[0]) == front_end.n_samples(grid.piece_frames, RATE_HZ)
    starts = [np.correlate(waves[0], spot[0], "valid").argmax() for spot in (first, *rest)]
    assert starts == sorted(set(starts))
    assert starts[0] == (len(waves[0]) - len(first[0])) // 12
    np.testing.assert_array_equal(waves[0][starts[2] :][: len(first[0])], rest[1][0])
    (embedded,) = embed_spots(encoder, front_end, grid, RATE_HZ, [first])
    np.testing.assert_array_equal(embedded, encoder.embed([front_end.sub_bands(first[0], RATE_HZ)])[0])


def test_spots_of_bursts_are_whole_groups(tmp_path: Path, encoder: Encoder) -> None:
    """Consecutive bursts that hold a piece together, embedded as their stream would be."""
    front_end = replace(encoder.bundle.front_end, views=())
    grid = over_bursts(grid_of(front_end, 0.64, None, RATE_HZ))
    np.save(tmp_path / "a.npy", machine_signal(1, 6.0).reshape(60, 1600))
    bursts = read_bursts([tmp_path / "a.npy"], rate_hz=RATE_HZ)
    (spots,) = spots_of(bursts, front_end, grid)
    assert len(spots) == 6
    frames = front_end.n_frames(1600, RATE_HZ)
    assert {len(spot) for spot in spots} == {-(-grid.piece_frames // frames)}
    assert embed_spots(encoder, front_end, grid, RATE_HZ, spots).shape[:2] == (6, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with three recordings whose top band holds next to nothing."""
    made = tmp_path_factory.mktemp("recordings")
    for seed in range(3):
        sound_file(made / f"{seed}.wav", machine_signal(seed))
    return made


def test_commands_say_what_would_be_noticed(folder: Path) -> None:
    """`enroll` prints and stores it, warns of bands that are missed; `baseline show` prints it again."""
    options = (*PLACE, "--state-dir", "state")
    files = ("0.wav", "1.wav", "2.wav", "--window-s", "0.64")
    done = run_here("enroll", *files, *options, "--reason", "new belt", "--json", cwd=folder)
    found = Sensitivity.from_dict(json.loads(done.stdout)["sensitivity"])
    assert (done.returncode, len(found.bands), found.spots) == (0, 4, 6)
    warned = [band for band in found.bands if f"{band.low_hz:.0f}-{band.high_hz:.0f} Hz" in done.stderr]
    assert warned == list(found.missed)
    shown = json.loads(run_here("baseline", "show", *options, "--json", cwd=folder).stdout)
    assert shown["sensitivity"] == json.loads(done.stdout)["sensitivity"]
    assert shown["promise"] == json.loads(done.stdout)["promise"]
    assert [take["name"] for take in shown["takes"]] == ["0.wav", "1.wav", "2.wav"]
    said = run_here("baseline", "show", *options, cwd=folder).stdout
    assert "version 1 (active)" in said
    assert "new belt" in said
    assert said.count("one band louder") == 4
    assert "louder or quieter as a whole" in said
    again = run_here("enroll", *files, *options, cwd=folder)
    assert again.stdout.count("one band louder") == 2
    assert "held back by few recordings; with twice as many like these: " in again.stdout
    missing = run_here("baseline", "show", *PLACE[:3], "other", "--state-dir", "state", cwd=folder)
    assert (missing.returncode, missing.stdout) == (4, "")


def test_strict_ends_with_a_code_of_its_own(tmp_path: Path) -> None:
    """Bands of little energy are missed: `--strict` says so with 7, and the baseline is stored all the same."""
    files = [EXAMPLES / "bearing" / f"healthy-600rpm-{part}.flac" for part in "abc"]
    words = ("enroll", *files, "--window-s", "0.64", *PLACE, "--state-dir", tmp_path)
    missed = "pump-1/vib: a change of +6 dB would not raise an alarm within a day in: "
    lax = run_here(*words)
    assert lax.returncode == 0
    assert lax.stderr.startswith(f"warning: {missed}")
    assert lax.stderr.endswith(" Hz\n")
    done = run_here(*words, "--strict")
    assert (done.returncode, InsensitiveError.exit_code) == (7, 7)
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {missed}")
    assert "version 2 is stored all the same" in done.stderr
    listed = json.loads(run_here("baseline", "list", "--state-dir", tmp_path, "--json").stdout)
    assert [(row["version"], row["active"]) for row in listed] == [(1, False), (2, True)]
    assert run_here(*words, "--strict", "--label", "worn").returncode == 2
