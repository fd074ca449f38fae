"""Recordings as files and as a source: read exactly, refused in one line, replayed like a sensor."""

import re
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from fisher_edge.dsp.blocks import Block
from fisher_edge.errors import BadInputError
from fisher_edge.names import ChannelKey
from fisher_edge.sources.recording import RecordingSource, read_recording
from fisher_edge.sources.source import SourceContext

RATE_HZ = 8000


def noise(samples: int, channels: int = 1, seed: int = 0) -> npt.NDArray[np.float32]:
    """Return noise (samples, channels) that 16 bits hold exactly."""
    integers = np.random.default_rng(seed).integers(-20_000, 20_000, (samples, channels))
    return (integers / 32768).astype(np.float32)


def wav(path: Path, samples: npt.NDArray[np.float32], rate_hz: int = RATE_HZ) -> Path:
    """Write a 16-bit sound file in the format of its suffix and return its path."""
    soundfile.write(path, samples, rate_hz, subtype="PCM_16")
    return path


def npy(path: Path, array: npt.NDArray[Any]) -> Path:
    """Write an array file and return its path."""
    np.save(path, array)
    return path


def source_of(*files: Path, scale: float = 1.0, clock: float = 1000.0, **options: Any) -> RecordingSource:
    """Return a source that plays files without waiting; its clock stands still."""
    context = SourceContext(ChannelKey("pump", "vib"), scale=scale, clock=lambda: clock)
    return RecordingSource(context, files, **{"speed": 0.0, **options})


def refused(path: Path, **options: Any) -> str:
    """Return why a file is refused, checked to be one line that names the file."""
    with pytest.raises(BadInputError) as caught:
        read_recording(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".WAV"])
def test_sound_file_is_read_exactly(tmp_path: Path, suffix: str) -> None:
    """Samples of a lossless file come back bit by bit, with the rate of its header."""
    samples = noise(1000)
    recording = read_recording(wav(tmp_path / f"a{suffix}", samples, 51_200))
    assert recording.rate_hz == 51_200
    assert recording.samples.dtype == np.float32
    assert np.array_equal(recording.samples, samples[:, 0])


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float16", "float32", "float64", ">f4"])
def test_array_file_is_read_in_its_own_unit(tmp_path: Path, dtype: str) -> None:
    """Numbers of any real type become float32 as they are; integers are not rescaled."""
    array = np.arange(200).astype(dtype)
    recording = read_recording(npy(tmp_path / "a.npy", array), rate_hz=1000)
    assert recording.rate_hz == 1000
    assert recording.samples.dtype == np.float32
    assert recording.samples.tolist() == list(range(200))


def test_channel_is_chosen_from_several(tmp_path: Path) -> None:
    """Channels count from 0, in sound files and in arrays of either memory order; one channel needs no choice."""
    samples = noise(300, channels=3)
    files: list[tuple[Path, dict[str, Any]]] = [
        (wav(tmp_path / "a.wav", samples), {}),
        (npy(tmp_path / "c.npy", samples), {"rate_hz": RATE_HZ}),
        (npy(tmp_path / "f.npy", np.asfortranarray(samples)), {"rate_hz": RATE_HZ}),
    ]
    for path, options in files:
        for channel in range(3):
            recording = read_recording(path, channel=channel, **options)
            assert np.array_equal(recording.samples, samples[:, channel])
            assert recording.samples.flags.c_contiguous
    mono = wav(tmp_path / "mono.wav", samples[:, :1])
    assert np.array_equal(read_recording(mono).samples, read_recording(mono, channel=0).samples)


@pytest.mark.parametrize("step", [1, 7, 1000, 10_000])
def test_blocks_are_the_whole_file_in_pieces(tmp_path: Path, step: int) -> None:
    """Whatever the format and the step, the blocks hold every sample of the channel once, in order, all of one size."""
    samples = noise(1000, channels=2)
    soundfile.write(tmp_path / "a.ogg", samples, RATE_HZ)
    lossy, _ = soundfile.read(tmp_path / "a.ogg", dtype="float32")
    files = [
        (wav(tmp_path / "a.wav", samples), samples, None),
        (wav(tmp_path / "a.flac", samples), samples, None),
        (tmp_path / "a.ogg", lossy, None),
        (npy(tmp_path / "c.npy", samples.astype(">f8")), samples, RATE_HZ),
        (npy(tmp_path / "f.npy", np.asfortranarray(samples)), samples, RATE_HZ),
    ]
    for path, whole, rate_hz in files:
        recording = read_recording(path, channel=1, rate_hz=rate_hz, scale=3.0)
        blocks = list(recording.blocks(step))
        assert np.array_equal(np.concatenate(blocks), whole[:, 1] * np.float32(3))
        assert recording.length == len(whole) == 1000
        assert {len(block) for block in blocks[:-1]} <= {step}
        assert len(blocks) == -(-len(whole) // step)


@pytest.mark.parametrize("name", ["a.wav", "a.npy"])
def test_file_that_becomes_shorter_is_refused(tmp_path: Path, name: str) -> None:
    """A file that is overwritten between its check and its use is an error, not a shorter recording."""
    write, rate_hz = (npy, RATE_HZ) if name == "a.npy" else (wav, None)
    recording = read_recording(write(tmp_path / name, noise(1000)), rate_hz=rate_hz)
    write(tmp_path / name, noise(900))
    with pytest.raises(BadInputError, match=rf"{name} had 1000 samples and has 900 now"):
        list(recording.blocks())


def test_scale_turns_samples_into_the_unit_of_the_channel(tmp_path: Path) -> None:
    """Every sample is multiplied by the scale."""
    samples = noise(100)
    scaled = read_recording(wav(tmp_path / "a.wav", samples), scale=9.81).samples
    np.testing.assert_allclose(scaled, 9.81 * samples[:, 0], rtol=1e-6)


def test_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    """No file, a folder and a file of no bytes are named for what they are."""
    (tmp_path / "empty.wav").touch()
    assert refused(tmp_path / "nowhere.wav").startswith("no file at")
    assert refused(tmp_path).startswith("no file at")
    assert "is empty" in refused(tmp_path / "empty.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.raw", "a.txt", "a"])
def test_file_that_is_no_sound_is_refused(tmp_path: Path, name: str) -> None:
    """Text under any name, headerless .raw included, is not a sound file."""
    (tmp_path / name).write_bytes(b"time;value\n0;1\n" * 50)
    assert "is not a sound file" in refused(tmp_path / name)


def test_damaged_sound_file_is_refused(tmp_path: Path) -> None:
    """A FLAC that was cut short gives an error, not its first half."""
    whole = wav(tmp_path / "a.flac", noise(20_000)).read_bytes()
    (tmp_path / "a.flac").write_bytes(whole[: len(whole) // 2])
    assert "is not a sound file" in refused(tmp_path / "a.flac")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused_and_counted(tmp_path: Path, bad: float) -> None:
    """NaN and Inf are counted in the channel that is read, in arrays and in float sound files."""
    samples = noise(500, channels=2)
    samples[7:10, 1] = bad
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, subtype="FLOAT")
    assert "3 samples that are not finite" in refused(tmp_path / "a.wav", channel=1)
    assert "3 samples that are not finite" in refused(npy(tmp_path / "a.npy", samples), channel=1, rate_hz=1000)
    assert read_recording(tmp_path / "a.wav", channel=0).length == 500


@pytest.mark.parametrize(
    ("factor", "scale", "reason"),
    [(1e300, 1.0, "not finite"), (1e30, 1.0, "peak of"), (1.0, 1e-30, "peak of"), (1.0, 1e39, "peak of")],
)
def test_samples_beyond_single_precision_are_refused(tmp_path: Path, factor: float, scale: float, reason: str) -> None:
    """Values whose spectrum float32 cannot hold are an error, not an embedding of infinities."""
    path = npy(tmp_path / "a.npy", factor * noise(100).astype(np.float64))
    assert reason in refused(path, rate_hz=1000, scale=scale)


@pytest.mark.parametrize("shape", [(0,), (0, 2), (5, 0)])
def test_recording_without_samples_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """A valid file of no samples is named as such."""
    assert "no samples" in refused(npy(tmp_path / "a.npy", np.zeros(shape)), rate_hz=1000)
    assert "no samples" in refused(wav(tmp_path / "a.wav", noise(0)))


def test_several_channels_need_a_choice(tmp_path: Path) -> None:
    """Nobody guesses the channel: the text says how many there are and how to choose."""
    text = refused(wav(tmp_path / "a.wav", noise(10, channels=2)))
    assert "2 channels; choose one of 0 to 1 with --input-channel" in text


@pytest.mark.parametrize("channel", [-1, 2, 99])
def test_channel_out_of_range_is_refused(tmp_path: Path, channel: int) -> None:
    """A channel the file does not have is named with those it has."""
    text = refused(wav(tmp_path / "a.wav", noise(10, channels=2)), channel=channel)
    assert "2 channel(s), 0 to 1" in text
    assert f"channel {channel} is out of range" in text


def test_rate_is_needed_for_arrays_and_must_agree_otherwise(tmp_path: Path) -> None:
    """An array has no rate of its own; a sound file's cannot be overruled, only confirmed."""
    assert "carries no sampling rate; give it with --rate-hz" in refused(npy(tmp_path / "a.npy", noise(10)[:, 0]))
    path = wav(tmp_path / "a.wav", noise(10))
    assert f"says {RATE_HZ} Hz but rate_hz=44100 was given" in refused(path, rate_hz=44_100)
    assert read_recording(path, rate_hz=RATE_HZ).rate_hz == RATE_HZ


def test_rate_may_be_a_fraction(tmp_path: Path) -> None:
    """An array has the rate it is given; a header holds whole Hz, which the caller may know more exactly."""
    assert read_recording(npy(tmp_path / "a.npy", noise(10)), rate_hz="3906.25").rate_hz == Fraction(15_625, 4)
    path = wav(tmp_path / "a.wav", noise(10), 3906)
    assert read_recording(path, rate_hz=3906.25).rate_hz == Fraction(15_625, 4)
    assert "says 3906 Hz but rate_hz=3907.25 was given" in refused(path, rate_hz=3907.25)
    with pytest.raises(BadInputError, match="rate_hz=0 is not above 0"):
        read_recording(path, rate_hz=0)


class Explosive:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "unpickled")


def test_pickled_array_is_refused_and_never_run(tmp_path: Path) -> None:
    """An array of objects is not unpickled: what it would do does not happen."""
    mark = tmp_path / "mark"
    np.save(tmp_path / "a.npy", np.array([Explosive(mark)], object), allow_pickle=True)
    assert "is not a plain NumPy array" in refused(tmp_path / "a.npy", rate_hz=1000)
    assert not mark.exists()


@pytest.mark.parametrize(
    "array",
    [
        np.float32(1),
        np.zeros((2, 2, 2)),
        np.zeros(5, bool),
        np.zeros(5, complex),
        np.array(["a"]),
        np.zeros(3, "i4,f4"),
    ],
)
def test_array_that_holds_no_signal_is_refused(tmp_path: Path, array: npt.NDArray[Any]) -> None:
    """Only real numbers in one or two dimensions are a signal."""
    assert "is not an array of numbers" in refused(npy(tmp_path / "a.npy", array), rate_hz=1000)


def test_damaged_array_file_is_refused(tmp_path: Path) -> None:
    """Random bytes, a cut file, an .npz in disguise and a header that asks for petabytes all give one line."""
    whole = npy(tmp_path / "whole.npy", noise(1000)[:, 0]).read_bytes()
    np.savez(tmp_path / "z.npz", a=noise(10))
    with (tmp_path / "huge").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**15,)})
    contents = [b"\x93NUMPY", whole[:-1], whole[:60], (tmp_path / "z.npz").read_bytes()]
    for content in [*contents, (tmp_path / "huge").read_bytes()]:
        (tmp_path / "a.npy").write_bytes(content)
        assert "is not a plain NumPy array" in refused(tmp_path / "a.npy", rate_hz=1000)


def replay(source: RecordingSource, count: int = 1_000_000) -> list[Block]:
    """Take the blocks of a source, so many at most."""
    blocks = []
    stop = threading.Event()
    with source:
        for block in source.blocks(stop):
            blocks.append(block)
            if len(blocks) >= count:
                stop.set()
    return blocks


@pytest.mark.parametrize("block_s", [0.1, 0.013, 10.0])
def test_source_reproduces_its_files_exactly(tmp_path: Path, block_s: float) -> None:
    """The blocks of a file joined are the file; index and time advance with the samples, by one more between files."""
    first, second = noise(2500, seed=1), noise(1700, seed=2)
    files = (wav(tmp_path / "a.wav", first), wav(tmp_path / "b.wav", second))
    source = source_of(*files, block_s=block_s, scale=2.0)
    assert source.finite
    blocks = replay(source)
    joined = np.concatenate([block.samples for block in blocks])
    assert np.array_equal(joined, 2 * np.concatenate([first, second])[:, 0])
    ends = [block.index + len(block.samples) for block in blocks]
    jumps = [after.index - end for after, end in zip(blocks[1:], ends, strict=False)]
    assert blocks[0].index == 0
    assert sorted(jumps) == [0] * (len(blocks) - 2) + [1]
    assert blocks[jumps.index(1) + 1].index == 2501
    played = np.cumsum([0, *(len(block.samples) for block in blocks[:-1])]) / RATE_HZ
    np.testing.assert_allclose([block.time_s - 1000 for block in blocks], played, atol=1e-6)
    assert {block.rate_hz for block in blocks} == {RATE_HZ}


def test_source_loops_with_a_gap_each_time(tmp_path: Path) -> None:
    """A loop begins the file again, after a jump of the index: no window spans the seam. It never ends."""
    samples = noise(800)
    source = source_of(wav(tmp_path / "a.wav", samples), loop=True, block_s=0.05)
    assert not source.finite
    blocks = replay(source, count=6)
    assert [block.index for block in blocks] == [0, 400, 801, 1201, 1602, 2002]
    for block, half in zip(blocks, [samples[:400], samples[400:]] * 3, strict=True):
        assert np.array_equal(block.samples, half[:, 0])


def test_source_follows_a_change_of_rate(tmp_path: Path) -> None:
    """Each file keeps its own rate, and time goes on by its seconds."""
    files = (wav(tmp_path / "a.wav", noise(8000), 8000), wav(tmp_path / "b.wav", noise(8000), 16_000))
    blocks = replay(source_of(*files, block_s=0.5))
    assert [block.rate_hz for block in blocks] == [8000, 8000, 16_000]
    assert blocks[2].time_s - blocks[0].time_s == pytest.approx(1.0, abs=1e-6)


def test_source_of_a_fractional_rate(tmp_path: Path) -> None:
    """Blocks carry 3906.25 Hz, and 15625 samples of it are four seconds."""
    source = source_of(npy(tmp_path / "a.npy", noise(15_626)), rate_hz=Fraction(15_625, 4), block_s=4.0)
    first, second = replay(source)
    assert first.rate_hz == Fraction(15_625, 4)
    assert len(first.samples) == 15_625
    assert second.time_s - first.time_s == 4.0


class Waited(threading.Event):
    """Remembers how long it was waited for, and returns at once."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        """Do not wait."""
        self.seconds.append(timeout or 0.0)
        return self.is_set()


def test_source_keeps_its_speed(tmp_path: Path) -> None:
    """A block comes when its last sample has been taken, at speed 4 in a quarter of the time, at speed 0 at once."""
    path = wav(tmp_path / "a.wav", noise(2 * RATE_HZ))
    for speed, expected in ((4.0, np.arange(1, 21) * 0.025), (0.0, np.zeros(20))):
        source = source_of(path, speed=speed, block_s=0.1)
        assert source.patient == (speed == 0)
        stop = Waited()
        began = time.monotonic()
        assert len(list(source.blocks(stop))) == 20
        took = time.monotonic() - began
        assert (np.array(stop.seconds) <= expected + 1e-9).all()
        assert (np.array(stop.seconds) >= expected - took).all()


def test_source_stops_promptly(tmp_path: Path) -> None:
    """A source that waits for a block that is due in an hour ends as soon as it is asked to."""
    source = source_of(wav(tmp_path / "a.wav", noise(RATE_HZ)), speed=1e-5, loop=True)
    waits, stop = threading.Event(), threading.Event()

    class Asked(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.set()
            return stop.wait(timeout)

    blocks: list[Block] = []
    thread = threading.Thread(target=lambda: blocks.extend(source.blocks(Asked())))
    thread.start()
    assert waits.wait(20)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert blocks == []


def test_source_closes_its_file(tmp_path: Path) -> None:
    """Left in the middle of a file, the source has nothing open any more."""
    path = wav(tmp_path / "a.wav", noise(RATE_HZ))
    with source_of(path) as source:
        blocks = source.blocks(threading.Event())
        next(blocks)
        assert path in open_files()
    assert path not in open_files()
    assert list(blocks) == []


def open_files() -> set[Path]:
    """Files that this process has open."""
    return {link.readlink() for link in Path("/proc/self/fd").iterdir() if link.exists()}


def test_source_reports_a_file_that_has_gone(tmp_path: Path) -> None:
    """A file that vanishes between two loops is an error with its name, which the daemon retries."""
    path = wav(tmp_path / "a.wav", noise(100))
    blocks = source_of(path, loop=True).blocks(threading.Event())
    next(blocks)
    path.unlink()
    with pytest.raises(BadInputError, match=re.escape(f"no file at {path}")):
        next(blocks)


def test_source_goes_on_with_the_file_that_failed(tmp_path: Path) -> None:
    """Started again after a file that could not be read, a source plays none twice and leaves none out."""
    first, second = noise(400, seed=1), noise(300, seed=2)
    source = source_of(wav(tmp_path / "a.wav", first), tmp_path / "b.wav")
    played: list[Block] = []
    for _ in range(2):
        with source, pytest.raises(BadInputError, match=r"no file at .*b\.wav"):
            played.extend(source.blocks(threading.Event()))
    wav(tmp_path / "b.wav", second)
    with source:
        played.extend(source.blocks(threading.Event()))
    joined = np.concatenate([block.samples for block in played])
    assert np.array_equal(joined, np.concatenate([first, second])[:, 0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_source_leaves_a_damaged_file_behind(tmp_path: Path, bad: float) -> None:
    """Samples are checked while they are played; after a bad one the source goes on with the next file."""
    damaged = noise(1600)
    damaged[1000] = bad
    soundfile.write(tmp_path / "a.wav", damaged, RATE_HZ, subtype="FLOAT")
    source = source_of(tmp_path / "a.wav", wav(tmp_path / "b.wav", noise(800)), block_s=0.1)
    played: list[Block] = []
    with (
        source,
        pytest.raises(BadInputError, match=r"a\.wav holds samples that are not finite \(NaN or Inf\) or beyond"),
    ):
        played.extend(source.blocks(threading.Event()))
    assert sum(len(block.samples) for block in played) == 800
    with source:
        (block,) = source.blocks(threading.Event())
    assert np.array_equal(block.samples, noise(800)[:, 0])


def test_source_reads_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Playing decodes every sample once: nothing is read only to be checked."""
    decoded = []
    read = soundfile.SoundFile.read

    def counted(sound: soundfile.SoundFile, *arguments: Any, **options: Any) -> npt.NDArray[Any]:
        samples: npt.NDArray[Any] = read(sound, *arguments, **options)
        decoded.append(len(samples))
        return samples

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    replay(source_of(wav(tmp_path / "a.wav", noise(5000))))
    assert sum(decoded) == 5000
