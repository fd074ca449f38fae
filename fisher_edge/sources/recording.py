"""Recordings as a source: WAV, FLAC and other sound files, and NumPy arrays.

`read_recording` checks one file, which is then read block by block; `RecordingSource` replays files as a sensor would
deliver them.
"""

import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from fisher_edge.dsp.blocks import Block, FloatArray
from fisher_edge.errors import BadInputError

__all__ = ["Recording", "RecordingSource", "read_recording"]

SMALLEST, LARGEST = 1e-20, 1e20
"""Peak of a recording in its unit: its spectra stay far from the limits of float32."""
BLOCK_S = 0.1
BLOCK_SAMPLES = 1 << 16
"""Read at a time when nobody asks for more or less: memory does not grow with the length of a recording."""


@dataclass(frozen=True, eq=False)
class Recording:
    """One channel of a file, at `rate_hz`: it is read anew, block by block, whenever somebody asks for its samples."""

    path: Path
    held: FloatArray | None
    """The samples (n,) where they are in memory; None: they are in the file."""
    rate_hz: int
    channel: int = 0
    scale: float = 1.0
    frames: int = 0
    """Samples in the file, once they are counted."""

    @property
    def length(self) -> int:
        """Number of samples."""
        return self.frames if self.held is None else len(self.held)

    @property
    def samples(self) -> FloatArray:
        """All samples (n,) at once, for recordings that are known to be short."""
        return np.concatenate(list(self.blocks())) if self.held is None else self.held

    def blocks(self, step: int = BLOCK_SAMPLES) -> Iterator[FloatArray]:
        """Yield all samples in order, times the scale, in arrays of `step` (the last one is shorter).

        Raises BadInputError when the file is damaged or is no longer as long as it was.
        """
        if self.held is not None:
            yield from (self.held[first : first + step] for first in range(0, len(self.held), step))
            return
        read = 0
        for block in (_npy_blocks if _is_npy(self.path) else _sound_blocks)(self.path, self.channel, step):
            with np.errstate(over="ignore"):  # what does not fit becomes infinite, which is refused
                samples = block.astype(np.float32) * np.float32(self.scale)
            read += len(samples)
            yield samples
        if self.frames and read != self.frames:
            raise BadInputError(
                f"{self.path} had {self.frames} samples and has {read} now; read it when it is complete"
            )


def read_recording(
    path: Path, *, rate_hz: int | None = None, channel: int | None = None, scale: float = 1.0
) -> Recording:
    """Open one channel of a recording, and read it once to check every sample.

    `rate_hz` is needed for .npy files, which carry none, and must agree with the file's own otherwise;
    `channel` counts from 0 and is needed when there are several. A file that `fisher-edge bridge record` wrote says
    what its full scale is: its samples are in the unit of the sensor. Raises BadInputError with one line.
    """
    if not path.is_file():
        raise BadInputError(f"no file at {path}; check the path")
    if path.stat().st_size == 0:
        raise BadInputError(f"{path} is empty; record it again")
    frames, channels, rate = (_open_npy if _is_npy(path) else _open_sound)(path, rate_hz)
    _check_channel(path, frames, channels, channel)
    scale *= 1.0 if _is_npy(path) else _full_scale(path)
    unscaled = Recording(path, None, rate, channel or 0)
    read, bad, largest = 0, 0, 0.0
    for samples in unscaled.blocks():
        read += len(samples)
        bad += len(samples) - int(np.count_nonzero(np.isfinite(samples)))
        largest = max(largest, float(np.abs(samples).max()) * scale)
    if bad:
        raise BadInputError(f"{path} holds {bad} samples that are not finite (NaN or Inf); mend or cut the recording")
    if largest and not SMALLEST < largest < LARGEST:
        raise BadInputError(
            f"{path} has a peak of {largest:g} (scale {scale:g}), outside {SMALLEST:g} to {LARGEST:g} where single "
            "precision can tell signals apart; mend the scale"
        )
    return replace(unscaled, scale=scale, frames=read)


def _is_npy(path: Path) -> bool:
    """Whether a file is an array file by its name."""
    return path.suffix.lower() == ".npy"


def _open_npy(path: Path, rate_hz: int | None) -> tuple[int, int, int]:
    """Return the samples and channels of an array file, and the rate given by the caller."""
    if rate_hz is None:
        raise BadInputError(f"{path} carries no sampling rate; give it with --rate-hz (rate_hz in a config)")
    with _refusing(path), np.errstate(over="ignore"):  # a header may ask for anything
        array = np.lib.format.open_memmap(path, mode="r")
    if array.ndim not in {1, 2} or array.dtype.kind not in "iuf":
        raise BadInputError(
            f"{path} is not an array of numbers in one or two dimensions; save samples or samples x channels"
        )
    frames, channels = (*array.shape, 1)[:2]
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


def _full_scale(path: Path) -> float:
    """Return what 1.0 of a sound file stands for: what its comment says when we wrote it, else 1."""
    with _refusing(path), soundfile.SoundFile(path) as sound:
        comment = sound.comment
    try:
        facts = json.loads(comment)["fisher-edge"]
    except (ValueError, KeyError, TypeError):  # the comment of somebody else
        return 1.0
    full_scale = facts.get("full_scale") if isinstance(facts, dict) else None
    if not isinstance(full_scale, int | float) or not math.isfinite(full_scale) or full_scale == 0:
        raise BadInputError(
            f"{path}: its comment gives full_scale = {full_scale!r}, which is no scale; record it again"
        )
    return float(full_scale)


def _open_sound(path: Path, rate_hz: int | None) -> tuple[int, int, int]:
    """Return the samples, the channels and the rate of a sound file."""
    with _refusing(path), soundfile.SoundFile(path) as sound:
        frames, channels, rate = sound.frames, sound.channels, int(sound.samplerate)
    if rate_hz is not None and rate_hz != rate:
        raise BadInputError(f"{path} says {rate} Hz but rate_hz={rate_hz} was given; leave the rate out")
    return frames, channels, rate


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
        )
    if channel is not None and not 0 <= channel < channels:
        raise BadInputError(f"{path} has {channels} channel(s), 0 to {channels - 1}; channel {channel} is out of range")


def _one_line(error: BaseException) -> str:
    """Text of an error of a library, whose lines and full stops would break ours."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


@dataclass
class RecordingSource:
    """Replays recordings, one after the other: `speed` 1 as fast as recorded, 10 ten times, 0 without waiting.

    From one file to the next the sample index jumps by one, which marks a gap: windows never span two files.
    Time stamps start now and advance with the samples. After a file that cannot be read the source goes on with that
    file, so that none before it is played twice.
    """

    files: tuple[Path, ...]
    rate_hz: int | None = None
    channel: int | None = None
    scale: float = 1.0
    speed: float = 1.0
    loop: bool = False
    block_s: float = BLOCK_S
    _played: int = field(default=0, init=False, repr=False)
    """Files of this round that are done."""

    @property
    def patient(self) -> bool:
        """Whether blocks may wait for whoever takes them: at speed 0 nothing is lost."""
        return self.speed == 0

    def blocks(self, stop: threading.Event) -> Iterator[Block]:
        """Yield blocks until the recordings end (never, with `loop`) or `stop` is set."""
        start_s, played_s, index = time.time(), 0.0, 0
        clock = time.monotonic()
        while True:
            for path in self.files[self._played :]:
                recording = read_recording(path, rate_hz=self.rate_hz, channel=self.channel, scale=self.scale)
                step = max(1, round(self.block_s * recording.rate_hz))
                for samples in recording.blocks(step):
                    yield Block(samples, recording.rate_hz, index, start_s + played_s)
                    index += len(samples)
                    played_s += len(samples) / recording.rate_hz
                    if self._wait(stop, clock, played_s):
                        return
                index += 1
                self._played += 1
            self._played = 0
            if not self.loop:
                return

    def _wait(self, stop: threading.Event, clock: float, played_s: float) -> bool:
        """Wait until a sensor would have delivered so many seconds; True when asked to stop."""
        due = clock + played_s / self.speed if self.speed > 0 else clock
        return stop.wait(max(0.0, due - time.monotonic()))
