"""Takes of a running sensor: cut by time, at gaps and by operating state; kept exactly, whatever the rate."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fisher_edge.dsp.blocks import Block, FloatArray, Rate
from fisher_edge.errors import BadInputError, StateError
from fisher_edge.gateway.context import Situation
from fisher_edge.gateway.live import accept, review
from fisher_edge.gateway.recorder import Progress, Recorder
from fisher_edge.names import ChannelKey
from fisher_edge.store.database import Database
from fisher_edge.store.takes import PendingTake, PendingTakes, TakeFacts

KEY = ChannelKey("pump 1", "vib.x")
RATE_HZ = 1000
FACTS = TakeFacts(window_s=0.5, hop_s=None, bundle="default", rate="1", recorded_s=0.0)
NOISE = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)


def blocks(samples: FloatArray, rate_hz: Rate = RATE_HZ, length: int = 100, first: int = 0) -> list[Block]:
    """Cut samples into blocks of a stream that began at 50 s."""
    return [
        Block(samples[start : start + length], rate_hz, first + start, 50.0 + float((first + start) / rate_hz))
        for start in range(0, len(samples), length)
    ]


@pytest.fixture
def takes(tmp_path: Path) -> PendingTakes:
    """Return the takes of a channel, none yet."""
    return PendingTakes(tmp_path, KEY)


def read(take: PendingTake) -> FloatArray:
    """Read the samples of a take."""
    if take.file.suffix == ".npy":
        return np.asarray(np.load(take.file))
    samples, rate_hz = soundfile.read(take.file, dtype="float32")
    assert rate_hz == take.facts.rate_hz
    return np.asarray(samples)


def test_recording_is_cut_into_eight_takes(takes: PendingTakes) -> None:
    """Every sample is in one of them, exactly; it ends by itself, and later samples are not taken."""
    recorder = Recorder(takes, FACTS, 40.0)
    for block in blocks(NOISE[:60_000]):
        recorder.push(block)
    assert recorder.progress() == Progress(pytest.approx(40.0), 40.0, 8, True)  # type: ignore[arg-type]
    found = takes.all()
    assert [take.number for take in found] == list(range(1, 9))
    assert [take.facts.recorded_s for take in found] == pytest.approx([50.0 + 5 * number for number in range(8)])
    assert np.array_equal(np.concatenate([read(take) for take in found]), NOISE[:40_000])
    assert [take.facts.signal_s for take in found] == [5.0] * 8


def test_takes_are_no_shorter_than_four_windows(takes: PendingTakes) -> None:
    """A recording of ten seconds has five takes of two seconds."""
    recorder = Recorder(takes, FACTS, 10.0)
    for block in blocks(NOISE[:10_000]):
        recorder.push(block)
    assert [take.facts.signal_s for take in takes.all()] == [2.0] * 5


def test_takes_are_no_longer_than_five_minutes(takes: PendingTakes) -> None:
    """However long the recording is."""
    recorder = Recorder(takes, FACTS, 1e5)
    samples = np.zeros(700_000, np.float32)
    for block in blocks(samples, length=10_000):
        recorder.push(block)
    recorder.stop()
    assert [take.facts.signal_s for take in takes.all()] == [300.0, 300.0, 100.0]


def test_gap_and_change_of_state_or_rate_begin_a_take(takes: PendingTakes) -> None:
    """Samples are never joined across a gap, nor two operating states."""
    recorder = Recorder(takes, FACTS, 60.0)
    for block in blocks(NOISE[:500]):
        recorder.push(block, Situation("slow"))
    for block in blocks(NOISE[:500], first=500):
        recorder.push(block, Situation("fast"))
    for block in blocks(NOISE[:500], first=1001):
        recorder.push(block, Situation("fast"))
    for block in blocks(NOISE[:500], rate_hz=500, first=1501):
        recorder.push(block, Situation("fast"))
    recorder.stop()
    found = [(take.facts.state, take.facts.samples, take.facts.rate_hz) for take in takes.all()]
    assert found == [("slow", 500, 1000), ("fast", 500, 1000), ("fast", 500, 1000), ("fast", 500, 500)]


def test_state_given_by_the_user_counts(takes: PendingTakes) -> None:
    """Not that of the machine."""
    recorder = Recorder(takes, TakeFacts(0.5, None, "default", "1", 0.0, "hot"), 60.0)
    for block, state in zip(blocks(NOISE[:300]), ("slow", "fast", None), strict=True):
        recorder.push(block, Situation(state))
    recorder.stop()
    assert [take.facts.state for take in takes.all()] == ["hot"]


def test_machine_that_idles_is_not_recorded(takes: PendingTakes) -> None:
    """The time passes, and the next take begins when it runs again."""
    recorder = Recorder(takes, FACTS, 60.0)
    for number, block in enumerate(blocks(NOISE[:900])):
        recorder.push(block, Situation(idle="it stands" if 3 <= number < 6 else None))
    recorder.stop()
    assert [take.facts.samples for take in takes.all()] == [300, 300]
    assert [take.facts.recorded_s for take in takes.all()] == pytest.approx([50.0, 50.6])
    assert recorder.progress().seconds == pytest.approx(0.9)


def test_rate_that_no_wav_holds_is_kept_exactly(takes: PendingTakes) -> None:
    """A fraction of Hz is written as an array."""
    rate_hz = Fraction(15_625, 4)
    recorder = Recorder(takes, FACTS, 60.0)
    for block in blocks(NOISE[:500], rate_hz=rate_hz):
        recorder.push(block)
    recorder.stop()
    (take,) = takes.all()
    assert (take.facts.rate_hz, take.file.suffix) == (rate_hz, ".npy")
    assert np.array_equal(read(take), NOISE[:500])


def test_bursts_are_rows_with_the_time_between_them(takes: PendingTakes) -> None:
    """Gaps between bursts begin no take; the length counts the silence."""
    facts = TakeFacts(0.5, None, "default", "1", 0.0, None, bursts=True)
    recorder = Recorder(takes, facts, 1200.0)
    for number in range(12):
        recorder.push(Block(NOISE[100 * number :][:100], RATE_HZ, 150 * number, 50.0 + 10.0 * number))
    recorder.stop()
    assert recorder.progress().seconds == pytest.approx(110.1)
    (take,) = takes.all()
    assert take.facts.interval_s == pytest.approx(10.0)
    assert np.array_equal(read(take), NOISE[:1200].reshape(12, 100))


def test_take_of_bursts_holds_windows_enough(takes: PendingTakes) -> None:
    """Two seconds of signal, four windows, take twenty bursts, however short the recording is."""
    facts = TakeFacts(0.5, None, "default", "1", 0.0, None, bursts=True)
    recorder = Recorder(takes, facts, 500.0)
    for number in range(60):
        recorder.push(Block(NOISE[:100], RATE_HZ, 150 * number, 50.0 + 10.0 * number))
    assert [take.facts.samples for take in takes.all()] == [2000, 2000, 1100]


def test_what_a_killed_gateway_left_is_deleted(takes: PendingTakes, caplog: pytest.LogCaptureFixture) -> None:
    """A take without its facts was not recorded to its end; complete ones stay, and numbers go on."""
    first = Recorder(takes, FACTS, 60.0)
    for block in blocks(NOISE[:300]):
        first.push(block)
    first.stop()
    killed = Recorder(takes, FACTS, 60.0)
    killed.push(blocks(NOISE[:100])[0])
    (takes.folder / "0007.npy").write_bytes(b"half")
    assert len(takes.all()) == 1
    third = Recorder(takes, FACTS, 60.0)
    third.push(blocks(NOISE[:100])[0])
    third.stop()
    assert [take.number for take in takes.all()] == [1, 2]
    assert sorted(path.name for path in takes.folder.iterdir()) == ["0001.json", "0001.wav", "0002.json", "0002.wav"]
    assert "was not recorded to its end and is deleted: 0002.wav" in caplog.text


def test_clock_that_is_set_neither_ends_nor_prolongs_a_recording(takes: PendingTakes) -> None:
    """A day forth and back in the middle of the signal; across a gap an hour counts at most."""
    recorder = Recorder(takes, FACTS, 40.0)
    for number, block in enumerate(blocks(NOISE[:30_000])):
        moved_s = 86_400.0 * (number // 100 % 2)
        recorder.push(Block(block.samples, RATE_HZ, block.index, block.time_s + moved_s))
    assert recorder.progress() == Progress(pytest.approx(30.0), 40.0, 5, False)  # type: ignore[arg-type]
    long = Recorder(takes, FACTS, 1e5)
    for index, time_s in ((0, 50.0), (500, 1e6), (900, 10.0)):
        long.push(Block(NOISE[:100], RATE_HZ, index, time_s))
    assert long.progress().seconds == pytest.approx(3600.3)


def test_stopping_twice_or_before_a_sample_is_no_error(takes: PendingTakes) -> None:
    """Nothing was recorded then."""
    recorder = Recorder(takes, FACTS, 60.0)
    recorder.stop()
    recorder.stop()
    assert recorder.progress() == Progress(0.0, 60.0, 0, True)
    assert takes.all() == []


def test_disk_that_cannot_be_written_ends_the_recording(takes: PendingTakes, tmp_path: Path) -> None:
    """The reader goes on; whoever asks hears why."""
    (tmp_path / "takes").write_text("in the way")
    recorder = Recorder(takes, FACTS, 60.0)
    recorder.push(blocks(NOISE[:100])[0])
    progress = recorder.progress()
    assert progress.ended
    assert progress.problem is not None
    assert progress.problem.startswith("a take cannot be written: ")


def test_takes_are_dropped_by_number(takes: PendingTakes) -> None:
    """An unknown number drops nothing."""
    recorder = Recorder(takes, FACTS, 10.0)
    for block in blocks(NOISE[:10_000]):
        recorder.push(block)
    with pytest.raises(BadInputError, match=r"has no take 7 that waits; it has: 1, 2, 3, 4, 5"):
        takes.drop([1, 7])
    assert takes.drop([1, 3]) == 2
    assert [take.number for take in takes.all()] == [2, 4, 5]
    assert takes.drop() == 3
    assert takes.all() == []


@pytest.mark.parametrize("key", [ChannelKey("", ""), ChannelKey("a/b", "c"), ChannelKey("pump", "")])
def test_takes_of_no_channel_are_refused(tmp_path: Path, key: ChannelKey) -> None:
    """Empty names would mean the folder of all channels."""
    with pytest.raises(BadInputError, match="name"):
        PendingTakes(tmp_path, key)


def test_damaged_facts_are_one_line(takes: PendingTakes) -> None:
    """It says which file, and how to go on."""
    takes.folder.mkdir(parents=True)
    (takes.folder / "0001.json").write_text("{")
    with pytest.raises(StateError, match=r"0001.json is damaged .* baseline discard"):
        takes.all()
    assert takes.drop() == 1
    assert takes.all() == []


def test_take_that_cannot_be_enrolled_does_not_keep_the_others(takes: PendingTakes, tmp_path: Path) -> None:
    """One too short for a window and one of a dead sensor are named and left out; nothing else is deleted."""
    rate_hz = 16_000
    facts = TakeFacts(window_s=0.32, hop_s=0.16, bundle="default", rate="1", recorded_s=0.0)
    signals = [NOISE[seed * 40_000 :][:32_000] for seed in range(3)]
    signals += [NOISE[:2000], np.ones(32_000, np.float32), signals[1]]
    for signal in signals:
        recorder = Recorder(takes, facts, 60.0)
        for block in blocks(signal, rate_hz=rate_hz, length=2000):
            recorder.push(block)
        recorder.stop()
    under_way = Recorder(takes, facts, 60.0)
    under_way.push(blocks(NOISE[:2000], rate_hz=rate_hz, length=2000)[0])
    with Database(tmp_path) as database:
        reviewed = review(database, KEY)
        assert sorted(reviewed.unusable) == [4, 5, 6]
        assert reviewed.unusable[6] == "it holds the same samples as take 2"
        assert "has 2000 samples" in reviewed.unusable[4]
        assert "flat line" in reviewed.unusable[5]
        enrolled = accept(database, KEY, audio_bytes=0)
    assert enrolled.state_of_take == reviewed.enrolled.state_of_take
    assert len(enrolled.state_of_take) == 3
    under_way.stop()
    (left,) = takes.all()
    assert left.facts.samples == 2000


def test_no_take_that_can_be_enrolled_is_one_line(takes: PendingTakes, tmp_path: Path) -> None:
    """It says why the first of them cannot."""
    recorder = Recorder(takes, FACTS, 60.0)
    recorder.push(blocks(NOISE[:100])[0])
    recorder.stop()
    with (
        Database(tmp_path) as database,
        pytest.raises(BadInputError, match=r"no take of .* can be enrolled: .*samples"),
    ):
        review(database, KEY)
    assert len(takes.all()) == 1


def test_takes_of_another_configuration_are_not_enrolled_together(takes: PendingTakes, tmp_path: Path) -> None:
    """Windows of two lengths are no baseline."""
    for window_s in (0.5, 1.0):
        recorder = Recorder(takes, TakeFacts(window_s, None, "default", "1", 0.0), 60.0)
        for block in blocks(NOISE[:3000]):
            recorder.push(block)
        recorder.stop()
    with Database(tmp_path) as database, pytest.raises(BadInputError, match="was changed between its takes"):
        accept(database, KEY, audio_bytes=0)
