"""One signal of a corpus: one channel of a file or of a member of a shard, read at any place without the rest.

Start at `Recording.read`. Arrays are mapped into memory, also inside a shard; sound files are opened, sought and read.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import soundfile

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.errors import BadInputError

__all__ = ["Recording", "open_array", "refusing"]

OPEN_ARRAYS = 8192
"""Arrays held mapped at once, far below the 65 530 maps that Linux gives a process."""


@dataclass(frozen=True)
class Recording:
    """Where one signal lies and what its numbers mean."""

    name: str
    """Names the recording within its corpus, whatever file it lies in."""
    dataset: str
    unit: str
    """Recordings of one unit (a machine, a run) must stay on one side of a split."""
    channel: int
    """Column of the array or channel of the sound file."""
    rate_hz: int
    samples: int
    scale: float
    """Unit of the signal per number stored: of an array its own numbers, of a sound file those with full scale 1."""
    path: Path
    encoding: Literal["array", "sound"]
    offset: int = 0
    """First byte of the member within a shard."""
    size: int = 0
    """Bytes of the member; 0: the recording is a file of its own."""
    label: str = ""
    """Name of the channel."""
    first: int = 0
    """Sample of the original recording with which this piece of it begins."""

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.samples / self.rate_hz

    def read(self, first: int = 0, count: int | None = None) -> FloatArray:
        """Return `count` samples from `first` on, in the unit of the signal; fewer where the recording ends.

        Raises BadInputError when the file is damaged, is no longer as long as it was or holds NaN or Inf there.
        """
        wanted = max(0, min(self.samples - first, self.samples if count is None else count))
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is found as such
            samples = self.stored(first, wanted).astype(np.float32) * np.float32(self.scale)
        if len(samples) != wanted:
            raise BadInputError(
                f"{self.path} gives {len(samples)} of {wanted} samples from {first} on; it was changed or cut short"
            )
        if not np.isfinite(samples).all():
            raise BadInputError(
                f"{self.path} holds NaN or Inf between samples {first} and {first + wanted}; correct it or leave it "
                "out (`fisher-edge train-data pack` leaves out such pieces)"
            )
        return samples

    def stored(self, first: int, count: int) -> npt.NDArray[Any]:
        """Return the numbers of the file before the scale; float32 with full scale 1 for a sound file."""
        if self.encoding == "array":
            return np.asarray(open_array(self.path, self.offset)[first : first + count, self.channel])
        with refusing(self.path), soundfile.SoundFile(self._opened()) as sound:
            sound.seek(first)
            return np.asarray(sound.read(count, dtype="float32", always_2d=True)[:, self.channel])

    def _opened(self) -> str | io.BytesIO:
        """Return the file, or the bytes of the member of a shard."""
        if not self.size:
            return str(self.path)
        with self.path.open("rb") as shard:
            return io.BytesIO(os.pread(shard.fileno(), self.size, self.offset))


@lru_cache(maxsize=OPEN_ARRAYS)
def open_array(path: Path, offset: int = 0) -> npt.NDArray[Any]:
    """Map an array (samples,) or (samples, channels), which starts `offset` bytes into a file, as (samples, channels).

    Raises BadInputError when it is not an array of numbers in one or two dimensions.
    """
    with refusing(path), path.open("rb") as file:
        file.seek(offset)
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, in_columns, dtype = header(file)
        if len(shape) not in {1, 2} or dtype.kind not in "iuf":
            raise BadInputError(
                f"{path} holds {dtype} of shape {shape}, not numbers as samples or samples x channels; save it so"
            )
        if 0 in shape:
            return np.empty((0, (*shape, 1)[1]), dtype)
        order: Literal["C", "F"] = "F" if in_columns else "C"
        mapped = np.memmap(file, dtype, "r", offset=file.tell(), shape=shape, order=order)
    return mapped.reshape(len(mapped), -1)


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn whatever the libraries raise for a file they cannot read into one line."""
    try:
        yield
    except (soundfile.SoundFileError, EOFError, MemoryError, OSError, OverflowError, TypeError, ValueError) as error:
        text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise BadInputError(f"{path} cannot be read as a recording ({text}); correct it or leave it out") from error
