"""Recordings as a source: WAV, FLAC and other sound files, and NumPy arrays.

`read_recording` reads one file whole; `RecordingSource` replays files as a sensor would deliver them.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from fisher_edge.dsp.blocks import Block, FloatArray
from fisher_edge.errors import BadInputError

__all__ = ["Recording", "RecordingSource", "read_recording"]

MAX_SAMPLES = 1 << 30
SMALLEST, LARGEST = 1e-20, 1e20
"""Peak of a recording in its unit: its spectra stay far from the limits of float32."""
BLOCK_S = 0.1


@dataclass(frozen=True, eq=False)
class Recording:
    """One channel of a file: `samples` (n,) float32, times the scale, at `rate_hz`."""

    path: Path
    samples: FloatArray
    rate_hz: int


def read_recording(
    path: Path, *, rate_hz: int | None = None, channel: int | None = None, scale: float = 1.0
) -> Recording:
    """Read one channel of a recording.

    `rate_hz` is needed for .npy files, which carry none, and must agree with the file's own otherwise;
    `channel` counts from 0 and is needed when there are several. Raises BadInputError with one line.
    """
    if not path.is_file():
        raise BadInputError(f"no file at {path}; check the path")
    if path.stat().st_size == 0:
        raise BadInputError(f"{path} is empty; record it again")
    samples, rate = _read_npy(path, rate_hz) if path.suffix.lower() == ".npy" else _read_sound(path, rate_hz)
    one = _one_channel(path, samples, channel)
    if not np.isfinite(one).all():
        bad = int(np.count_nonzero(~np.isfinite(one)))
        raise BadInputError(f"{path} holds {bad} samples that are not finite (NaN or Inf); mend or cut the recording")
    largest = float(np.abs(one).max()) * scale
    if largest and not SMALLEST < largest < LARGEST:
        raise BadInputError(
            f"{path} has a peak of {largest:g} (scale {scale:g}), outside {SMALLEST:g} to {LARGEST:g} where single "
            "precision can tell signals apart; mend the scale"
        )
    return Recording(path, np.ascontiguousarray(one * np.float32(scale), np.float32), rate)


def _read_npy(path: Path, rate_hz: int | None) -> tuple[FloatArray, int]:
    """Read an array file: (samples, channels) and the rate given by the caller."""
    if rate_hz is None:
        raise BadInputError(f"{path} carries no sampling rate; give it with --rate-hz (rate_hz in a config)")
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError) as error:
        raise BadInputError(
            f"{path} is not a plain NumPy array ({_one_line(error)}); save it with numpy.save"
        ) from error
    if array.ndim not in {1, 2} or array.dtype.kind not in "iuf":
        raise BadInputError(
            f"{path} is not an array of numbers in one or two dimensions; save samples or samples x channels"
        )
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, which is refused
        return (array if array.ndim == 2 else array[:, None]).astype(np.float32), rate_hz


def _read_sound(path: Path, rate_hz: int | None) -> tuple[FloatArray, int]:
    """Read a sound file: (samples, channels) and its rate."""
    try:
        with soundfile.SoundFile(path) as sound:
            if sound.frames > MAX_SAMPLES:
                raise BadInputError(f"{path} has {sound.frames} samples, more than {MAX_SAMPLES}; cut it into pieces")
            samples, rate = sound.read(dtype="float32", always_2d=True), int(sound.samplerate)
    except (soundfile.SoundFileError, OSError, TypeError, ValueError, MemoryError) as error:
        raise BadInputError(
            f"{path} is not a sound file that can be read ({_one_line(error)}); use WAV, FLAC, OGG or .npy"
        ) from error
    if rate_hz is not None and rate_hz != rate:
        raise BadInputError(f"{path} says {rate} Hz but rate_hz={rate_hz} was given; leave the rate out")
    return samples, rate


def _one_channel(path: Path, samples: FloatArray, channel: int | None) -> FloatArray:
    """Pick a channel of (samples, channels)."""
    count = samples.shape[1]
    if samples.size == 0:
        raise BadInputError(f"{path} holds no samples; record it again")
    if channel is None and count > 1:
        raise BadInputError(
            f"{path} has {count} channels; choose one of 0 to {count - 1} with --input-channel (embed: --channel; "
            "configuration: channel)"
        )
    if channel is not None and not 0 <= channel < count:
        raise BadInputError(f"{path} has {count} channel(s), 0 to {count - 1}; channel {channel} is out of range")
    return samples[:, channel or 0]


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
                for first in range(0, len(recording.samples), step):
                    samples = recording.samples[first : first + step]
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
