"""Recordings: WAV, FLAC and other sound files, and NumPy arrays.

`read_recording` checks one file, which is then read block by block; `RecordingSource` replays files as a sensor would
deliver them.
"""

import json
import math
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import soundfile
from pydantic import Field

from fisher_edge.dsp.blocks import Block, FloatArray, Rate, as_rate, rate_text
from fisher_edge.errors import BadInputError
from fisher_edge.sources.recorded import recorded_s
from fisher_edge.sources.source import SourceContext

__all__ = [
    "Recording",
    "RecordingSource",
    "Replay",
    "check_samples",
    "open_recording",
    "read_array_header",
    "read_recording",
]

# Peak of a recording in its unit: its spectra stay far from the limits of float32.
SMALLEST, LARGEST = 1e-20, 1e20
BLOCK_S = 0.1
# Read at a time when nobody asks for more or less: memory does not grow with the length of a recording.
BLOCK_SAMPLES = 1 << 16


@dataclass(frozen=True)
class Recording:
    """One channel of a file, at `rate_hz`: every call of `blocks` reads the file again.

    `length` is the number of samples, `recorded_s` the time of the first one where the file says it (seconds since
    1970-01-01 UTC).
    """

    path: Path
    rate_hz: Rate
    channel: int = 0
    scale: float = 1.0
    length: int = 0
    recorded_s: float | None = None

    @property
    def samples(self) -> FloatArray:
        """All samples (n,) at once, for recordings that are known to be short."""
        return np.concatenate(list(self.blocks()))

    def blocks(self, step: int = BLOCK_SAMPLES) -> Iterator[FloatArray]:
        """Yield all samples in order, times the scale, in arrays of `step` (the last one is shorter).

        Raises BadInputError when the file is damaged or is no longer as long as it was.
        """
        read = 0
        for block in (_npy_blocks if _is_npy(self.path) else _sound_blocks)(self.path, self.channel, step):
            with np.errstate(over="ignore"):  # what does not fit becomes infinite, which is refused
                samples = block.astype(np.float32) * np.float32(self.scale)
            read += len(samples)
            yield samples
        if self.length and read != self.length:
            raise BadInputError(
                f"{self.path} had {self.length} samples and has {read} now; read it when it is complete"
            )


def read_recording(
    path: Path,
    *,
    rate_hz: float | str | Fraction | None = None,
    channel: int | None = None,
    scale: float = 1.0,
) -> Recording:
    """Open one channel of a recording, and read it once to check every sample.

    `rate_hz` is needed for .npy files, which carry none, and must agree with the file's own otherwise; `channel` counts
    from 0 and is needed when there are several. A file that `fisher-edge bridge record` wrote says what its full scale
    is: its samples are in the unit of the sensor. Raises BadInputError with one line.
    """
    recording = _opened(path, rate_hz, channel, scale)
    unscaled = replace(recording, scale=1.0)
    return replace(recording, length=check_samples(path, unscaled.blocks(), recording.scale))


def check_samples(path: Path, blocks: Iterable[FloatArray], scale: float = 1.0) -> int:
    """Count the samples of a recording; BadInputError when they, times the scale, are not numbers to compute with."""
    read, bad, largest = 0, 0, 0.0
    for samples in blocks:
        read += len(samples)
        bad += len(samples) - int(np.count_nonzero(np.isfinite(samples)))
        largest = max(largest, float(np.abs(samples).max()) * abs(scale))
    if bad:
        raise BadInputError(
            f"{path} holds {bad} samples that are not finite (NaN or Inf); correct or cut the recording"
        )
    if largest and not SMALLEST < largest < LARGEST:
        raise BadInputError(
            f"{path} has a peak of {largest:g} (scale {scale:g}), outside {SMALLEST:g} to {LARGEST:g} where "
            "single precision can tell signals apart; correct the scale"
        )
    return read


def read_array_header(path: Path) -> tuple[tuple[int, int], bool]:
    """Return samples and channels of an array file, and whether it has two dimensions; BadInputError for others."""
    with _refusing(path), np.errstate(over="ignore"):  # a header may ask for anything
        array = np.lib.format.open_memmap(path, mode="r")
    if array.ndim not in {1, 2} or array.dtype.kind not in "iuf":
        raise BadInputError(
            f"{path} is not an array of numbers in one or two dimensions; save samples or samples x channels"
        )
    rows, columns = (*array.shape, 1)[:2]
    return (rows, columns), array.ndim == 2


@dataclass
class Replay:
    """What replays of files have in common: `speed` 1 is as fast as recorded, 10 ten times, 0 without waiting."""

    context: SourceContext
    files: tuple[Path, ...]
    rate_hz: Rate | None = None
    speed: float = 1.0
    loop: bool = False

    @property
    def finite(self) -> bool:
        """Whether the source may end."""
        return not self.loop

    @property
    def patient(self) -> bool:
        """Whether blocks may wait for whoever takes them: at speed 0 nothing is lost."""
        return self.speed == 0

    def wait(self, began_s: float, played_s: float, stop: threading.Event) -> bool:
        """Wait until so many seconds of the recording are due since `began_s` (monotonic); tell whether to stop."""
        due_s = began_s + played_s / self.speed if self.speed else began_s
        return stop.wait(max(0.0, due_s - time.monotonic()))


@dataclass
class RecordingSource(Replay):
    """Replays recordings, one after the other: `speed` 1 as fast as recorded, 10 ten times, 0 without waiting.

    Time stamps start at the clock of the context and advance with the samples. From one file to the next the sample
    index jumps by one, which marks a gap: windows never span two files. Samples are checked while they are played.
    Opened again after a failure, the source tries a file that could not be opened once more, and goes on behind one
    that was damaged further in: nothing is played twice.
    """

    channel: int | None = None
    block_s: float = BLOCK_S
    # Files of this round that have been opened.
    _played: int = field(default=0, init=False, repr=False)
    _playing: Generator[Block, None, None] | None = field(default=None, init=False, repr=False)

    def __enter__(self) -> "RecordingSource":
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file that is being played."""
        if self._playing is not None:
            self._playing.close()

    def blocks(self, stop: threading.Event) -> Iterator[Block]:
        """Yield blocks until the recordings end (never, with `loop`) or `stop` is set.

        Raises BadInputError for a file that cannot be read.
        """
        self._playing = self._play(stop)
        return self._playing

    def _play(self, stop: threading.Event) -> Generator[Block, None, None]:
        start_s, began_s = self.context.clock(), time.monotonic()
        played_s, index = 0.0, 0
        while True:
            for path in self.files[self._played :]:
                recording = _opened(path, self.rate_hz, self.channel, self.context.scale)
                self._played += 1
                for samples in _cut(recording, max(1, round(self.block_s * recording.rate_hz))):
                    _check_finite(path, samples)
                    block = Block(samples, recording.rate_hz, index, start_s + played_s)
                    index += len(samples)
                    played_s += len(samples) / float(recording.rate_hz)
                    if self.wait(began_s, played_s, stop):
                        return
                    yield block
                index += 1
            self._played = 0
            if not self.loop:
                return


def open_recording(
    context: SourceContext,
    *,
    files: Annotated[
        tuple[Path, ...],
        Field(min_length=1, description="Files that are played one after the other: WAV, FLAC, OGG or .npy."),
    ],
    rate_hz: Annotated[float | None, Field(gt=0, description="Sampling rate in Hz; only .npy files need it.")] = None,
    channel: Annotated[
        int | None, Field(ge=0, description="Channel of the files, from 0; needed when there are several.")
    ] = None,
    speed: Annotated[
        float, Field(ge=0, description="1 is as fast as recorded, 10 ten times as fast, 0 without waiting.")
    ] = 1.0,
    loop: Annotated[bool, Field(description="Whether the files are played again and again.")] = False,
) -> RecordingSource:
    """Open the source `{ type = "recording", files = ["healthy.flac"], speed = 1.0, loop = true }`."""
    paths = tuple(context.base_dir / file for file in files)
    rate = None if rate_hz is None else as_rate(rate_hz)
    return RecordingSource(context, paths, rate, speed, loop, channel)


def _opened(path: Path, rate_hz: float | str | Fraction | None, channel: int | None, scale: float) -> Recording:
    """Open one channel of a file whose samples nobody has checked or counted yet."""
    given = None if rate_hz is None else as_rate(rate_hz)
    if not path.is_file():
        raise BadInputError(f"no file at {path}; check the path")
    if path.stat().st_size == 0:
        raise BadInputError(f"{path} is empty; record it again")
    if _is_npy(path):
        frames, channels, rate = _open_npy(path, given)
        _check_channel(path, frames, channels, channel)
        return Recording(path, rate, channel or 0, scale)
    with _refusing(path), soundfile.SoundFile(path) as sound:
        frames, channels, header_hz = sound.frames, sound.channels, int(sound.samplerate)
        facts, date = _facts(sound.comment), sound.date
    _check_channel(path, frames, channels, channel)
    rate, scale = _rate(path, header_hz, facts, given), scale * _full_scale(path, facts)
    with _refusing(path):
        time_s = recorded_s(path, facts, date)
    return Recording(path, rate, channel or 0, scale, recorded_s=time_s)


def _cut(recording: Recording, step: int) -> Iterator[FloatArray]:
    """Yield all samples in arrays of `step`; the file is read a second or so at a time, which costs less."""
    for samples in recording.blocks(step * max(1, BLOCK_SAMPLES // step)):
        for start in range(0, len(samples), step):
            yield samples[start : start + step]


def _check_finite(path: Path, samples: FloatArray) -> None:
    """Refuse samples whose spectrum single precision cannot hold."""
    if not np.abs(samples).max() < LARGEST:  # so that NaN is refused as well
        raise BadInputError(
            f"{path} holds samples that are not finite (NaN or Inf) or beyond {LARGEST:g}; correct or cut the recording"
        )


def _is_npy(path: Path) -> bool:
    """Whether a file is an array file by its name."""
    return path.suffix.lower() == ".npy"


def _open_npy(path: Path, rate_hz: Rate | None) -> tuple[int, int, Rate]:
    """Return the samples and channels of an array file, and the rate given by the caller."""
    if rate_hz is None:
        raise BadInputError(f"{path} carries no sampling rate; give it with --rate-hz (rate_hz in a config)")
    (frames, channels), _ = read_array_header(path)
    return frames, channels, rate_hz


def _npy_blocks(path: Path, channel: int, step: int) -> Iterator[npt.NDArray[Any]]:
    """Yield one channel of an array file, which is mapped for its header only: pages once touched would stay."""
    with _refusing(path), path.open("rb") as file:
        array = np.lib.format.open_memmap(path, mode="r")
        frames, channels = (*array.shape, 1)[:2]
        in_rows = array.flags.c_contiguous
        first, width = (channel, channels) if in_rows else (0, 1)
        file.seek(array.offset + (0 if in_rows else channel * frames * array.itemsize))
        for done in range(0, frames, step):
            yield np.fromfile(file, array.dtype, width * min(step, frames - done))[first::width]


def _facts(comment: str) -> dict[str, Any]:
    """Return what `fisher-edge bridge record` wrote into the comment of a file; nothing for anybody else's comment."""
    try:
        facts = json.loads(comment)["fisher-edge"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _full_scale(path: Path, facts: dict[str, Any]) -> float:
    """Return what 1.0 of a sound file stands for."""
    if not facts:
        return 1.0
    full_scale = facts.get("full_scale")
    if not isinstance(full_scale, int | float) or not math.isfinite(full_scale) or full_scale == 0:
        raise BadInputError(
            f"{path}: its comment gives full_scale = {full_scale!r:.60}, which is no scale; record it again"
        )
    return float(full_scale)


def _rate(path: Path, header_hz: int, facts: dict[str, Any], given: Rate | None) -> Rate:
    """Return the rate of a sound file. Its header holds whole Hz: what was rounded there may be known better.

    A comment that does not fit the header is that of a file that was resampled, and does not count.
    """
    stated = facts.get("rate_hz")
    try:
        own = as_rate(stated) if isinstance(stated, int | float | str) else header_hz
    except BadInputError:
        own = header_hz
    if abs(float(own) - header_hz) > 0.5:
        own = header_hz
    if given is None or given == own:
        return own
    if own == header_hz and abs(float(given) - header_hz) <= 0.5:
        return given
    raise BadInputError(f"{path} says {rate_text(own)} Hz but rate_hz={rate_text(given)} was given; leave the rate out")


def _sound_blocks(path: Path, channel: int, step: int) -> Iterator[FloatArray]:
    """Yield one channel of a sound file."""
    with _refusing(path), soundfile.SoundFile(path) as sound:
        while len(block := sound.read(step, dtype="float32", always_2d=True)):
            yield block[:, channel]


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn whatever the libraries raise for a file they cannot read into one line."""
    try:
        yield
    except (soundfile.SoundFileError, EOFError, MemoryError, OSError, OverflowError, TypeError, ValueError) as error:
        what, instead = (
            ("a plain NumPy array", "save it with numpy.save")
            if _is_npy(path)
            else ("a sound file that can be read", "use WAV, FLAC, OGG or .npy")
        )
        raise BadInputError(f"{path} is not {what} ({_one_line(error)}); {instead}") from error


def _check_channel(path: Path, frames: int, channels: int, channel: int | None) -> None:
    """Refuse a file of nothing, and a channel that it does not have or that nobody chose."""
    if frames * channels == 0:
        raise BadInputError(f"{path} holds no samples; record it again")
    if channel is None and channels > 1:
        raise BadInputError(
            f"{path} has {channels} channels; choose one of 0 to {channels - 1} with --input-channel (embed: "
            "--channel; configuration: channel)"
            + (", or enroll with --bursts when its rows are bursts" if _is_npy(path) else "")
        )
    if channel is not None and not 0 <= channel < channels:
        raise BadInputError(f"{path} has {channels} channel(s), 0 to {channels - 1}; channel {channel} is out of range")


def _one_line(error: BaseException) -> str:
    """Text of an error of a library, whose lines and full stops would break ours."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
