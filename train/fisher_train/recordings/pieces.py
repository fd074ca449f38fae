"""Cuts recordings into pieces that go into a shard: numbers kept exactly, each piece checked.

Start at `pieces`. A piece is one channel over a minute or so, whatever the length of the recording, so that memory
stays small and a crop is read without decoding an hour. Integers of 16 and 24 bits become FLAC, all else arrays.
"""

import hashlib
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from fisher_edge.errors import BadInputError
from fisher_edge.health.signal import signal_fault
from fisher_train.recordings.recording import Recording, open_array, refusing

__all__ = ["Piece", "cuts", "key_of", "pieces"]

FRAME_S = 0.025
"""A piece shorter than one frame of the front-end is of no use."""
SIXTEEN_BIT = {"PCM_16", "PCM_S8", "PCM_U8", "ALAW", "ULAW"}
SMALL_INTEGERS = {"int8", "uint8", "int16"}
FLAC_ANY_HZ, FLAC_TENS_HZ = 65_535, 655_350
"""Rates a FLAC stream can state: any up to the first, multiples of ten up to the second."""


@dataclass(frozen=True, eq=False)
class Piece:
    """One channel of a recording over some time; `fault` says why it is of no use."""

    key: str
    recording: Recording
    """As it will be in the shard: the length and scale of the piece."""
    kind: str
    """Ending of the member that holds the numbers."""
    payload: bytes
    fault: str | None = None


def key_of(recording: Recording, first: int) -> str:
    """Name a piece: the same recording, channel and first sample give the same key, which holds no full stop."""
    return hashlib.sha256(f"{recording.name}\0{recording.channel}\0{first}".encode()).hexdigest()[:24]


def cuts(recording: Recording, segment_s: float) -> list[tuple[int, int]]:
    """Return (first, end) of pieces of equal length, `segment_s` seconds at most."""
    count = max(1, -(-recording.samples // max(1, int(segment_s * recording.rate_hz))))
    ends = [recording.samples * place // count for place in range(count + 1)]
    return list(itertools.pairwise(ends))


def pieces(channels: Sequence[Recording], segment_s: float, done: frozenset[str] | set[str]) -> Iterator[Piece]:
    """Yield the pieces of the channels of one file, those with a key in `done` left out.

    Raises BadInputError where the file cannot be read any further.
    """
    for first, end in cuts(channels[0], segment_s):
        wanted = [channel for channel in channels if key_of(channel, first) not in done]
        if wanted:
            numbers, depth = _numbers(wanted[0], first, end - first)
            if len(numbers) != end - first:
                raise BadInputError(
                    f"{wanted[0].path} gives {len(numbers)} of {end - first} samples from {first} on; it is cut short"
                )
            for channel in wanted:
                yield _piece(channel, numbers[:, channel.channel], first, depth)


def _numbers(recording: Recording, first: int, count: int) -> tuple[npt.NDArray[Any], int]:
    """Return the numbers (count, channels) of a file and the bits FLAC needs for them; 0: FLAC cannot hold them."""
    if recording.encoding == "array":
        numbers = np.asarray(open_array(recording.path)[first : first + count])
        small = numbers.dtype.name in SMALL_INTEGERS
        return (numbers.astype(np.int16), 16) if small else (numbers, 0)
    with refusing(recording.path), soundfile.SoundFile(recording.path) as sound:
        subtype = sound.subtype
        depth = 16 if subtype in SIXTEEN_BIT else 24 if subtype == "PCM_24" else 0
        dtype = {16: "int16", 24: "int32"}.get(depth) or {"PCM_32": "int32", "DOUBLE": "float64"}.get(
            subtype, "float32"
        )
        sound.seek(first)
        return sound.read(count, dtype=dtype, always_2d=True), depth


def _piece(recording: Recording, numbers: npt.NDArray[Any], first: int, depth: int) -> Piece:
    """Encode and check one channel (samples,) of a piece."""
    rate_hz = recording.rate_hz
    flac = depth and (rate_hz <= FLAC_ANY_HZ or (rate_hz % 10 == 0 and rate_hz <= FLAC_TENS_HZ))
    payload = io.BytesIO()
    if flac:
        with refusing(recording.path):
            soundfile.write(payload, numbers, rate_hz, format="FLAC", subtype=f"PCM_{depth}")
    else:
        np.lib.format.write_array(payload, np.ascontiguousarray(numbers), allow_pickle=False)
    packed = replace(
        recording,
        channel=0,
        samples=len(numbers),
        scale=_scale(recording, numbers.dtype, flac=bool(flac)),
        encoding="sound" if flac else "array",
        label=recording.label or str(recording.channel),
        first=first,
    )
    kind = "flac" if flac else "npy"
    return Piece(key_of(recording, first), packed, kind, payload.getvalue(), _fault(packed, numbers))


def _scale(recording: Recording, dtype: np.dtype[Any], *, flac: bool) -> float:
    """Return the scale of the numbers as they are stored: a power of two more or less, which is exact."""
    was_array = recording.encoding == "array"
    if was_array == (not flac) or dtype.kind == "f":
        return recording.scale
    full_scale = 2.0 ** (8 * dtype.itemsize - 1)
    return recording.scale * full_scale if was_array else recording.scale / full_scale


def _fault(packed: Recording, numbers: npt.NDArray[Any]) -> str | None:
    """Return why a piece cannot be used; None when it can."""
    if packed.seconds < FRAME_S:
        return f"too short: {len(numbers)} samples, less than one frame of {FRAME_S * 1000:g} ms"
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, which is a fault
        return signal_fault(numbers.astype(np.float32) * np.float32(packed.scale), packed.rate_hz)
