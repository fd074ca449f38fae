"""From a port to recordings: samples are written as they were sent, and a gap begins a new file."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import soundfile

from fisher_bridge.continuity import Samples
from fisher_bridge.messages import SAMPLE_BYTES, Format, StreamInfo
from fisher_bridge.port import PortSettings
from fisher_bridge.reader import shared_reader
from fisher_edge.errors import BadInputError, UsageError

__all__ = ["Recorded", "record", "time_text"]

SUBTYPES = {Format.INT16: "PCM_16", Format.INT24: "PCM_24", Format.INT32: "PCM_32", Format.FLOAT32: "FLOAT"}
FLAC_FORMATS = {Format.INT16, Format.INT24}
FLAC_CHANNELS, FLAC_RATE_HZ = 8, 655_350
TAKE_S = 0.2


@dataclass(frozen=True)
class Recorded:
    """One file written: its first sample was taken at `time_s`."""

    path: Path
    samples: int
    rate_hz: float
    time_s: float
    wanted: int
    """Samples of the whole recording, over all files."""


def record(
    settings: PortSettings, out: Path, stream: int, rate_hz: float | None, seconds: float, stop: threading.Event
) -> Iterator[Recorded]:
    """Record all channels of a stream for so many seconds of samples; yield after every piece what is written so far.

    After a gap the next file begins, named OUT-2, OUT-3, …: a recording has no hole. Scale and unit are in the comment
    of the file, and `enroll` and `score` read values in that unit. Raises UsageError for what a file cannot hold
    or where there is one already, BadInputError for a device that cannot be read (any more) and for a full disk.
    """
    _check_name(out)
    with ExitStack() as stack:
        reader = stack.enter_context(shared_reader(settings))
        subscription = stack.enter_context(reader.subscribe(stream, rate_hz))
        open_file = stack.enter_context(ExitStack())
        writer: _Writer | None = None
        files, left, wanted = 0, None, 0
        while (left is None or left > 0) and not stop.is_set():
            for samples in subscription.take(TAKE_S):
                if left is None:
                    left = wanted = round(seconds * samples.stream.rate_hz)
                if writer is None or not writer.follows(samples):
                    files += 1
                    open_file.close()
                    writer = open_file.enter_context(_Writer(_numbered(out, files), samples))
                left -= writer.write(samples, left)
                yield Recorded(writer.path, writer.samples, samples.stream.rate_hz, writer.time_s, wanted)
                if left <= 0:
                    break


class _Writer:
    """One file under way."""

    def __init__(self, path: Path, first: Samples) -> None:
        info = first.stream
        _check_name(path)
        _check(path, info)
        self.path = path
        self.samples = 0
        self.time_s = first.time_s + time.time() - time.monotonic()
        self._info = info
        self._next = first.index
        try:
            self._file = soundfile.SoundFile(
                path, "w", samplerate=round(info.rate_hz), channels=info.channels, subtype=SUBTYPES[info.format]
            )
        except (soundfile.SoundFileError, OSError) as error:
            raise UsageError(f"{path} cannot be written ({error}); choose another name or folder") from error
        self._file.comment = _comment(info, self.time_s)

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def follows(self, samples: Samples) -> bool:
        """Whether samples go on where this file ends."""
        return samples.index == self._next and samples.stream == self._info

    def write(self, samples: Samples, most: int) -> int:
        """Write samples, at most so many, and return how many."""
        raw = samples.raw[:most]
        shift = 32 - 8 * SAMPLE_BYTES[samples.stream.format] if raw.dtype == np.int32 else 0
        try:
            self._file.write(raw << shift if shift else raw)  # soundfile takes integers at the upper end
        except (soundfile.SoundFileError, AssertionError) as error:
            raise BadInputError(
                f"{self.path} cannot be written any further ({error}); make room, and record again"
            ) from error
        self._next = samples.index + len(samples.raw)
        self.samples += len(raw)
        return len(raw)


def _check_name(path: Path) -> None:
    """Refuse a name that is taken or does not end in .flac or .wav."""
    if path.suffix.lower() not in {".flac", ".wav"}:
        raise UsageError(f"{path} has another ending than .flac or .wav; choose a name that ends in one of them")
    if path.exists():
        raise UsageError(f"{path} is there already; choose another name, or remove it")


def _check(path: Path, info: StreamInfo) -> None:
    """Refuse FLAC where it cannot hold the stream unchanged."""
    fits = info.format in FLAC_FORMATS and info.channels <= FLAC_CHANNELS and info.rate_hz <= FLAC_RATE_HZ
    if path.suffix.lower() == ".flac" and not fits:
        raise UsageError(
            f"FLAC cannot hold {info.channels} x {info.format.name.lower()} at {info.rate_hz:g} Hz; name it .wav"
        )


def _numbered(out: Path, number: int) -> Path:
    """Return the name of file `number`; the first keeps its own."""
    return out if number == 1 else out.with_name(f"{out.stem}-{number}{out.suffix}")


def time_text(time_s: float) -> str:
    """Write seconds since 1970 UTC as RFC 3339 with milliseconds: 2026-01-31T09:30:00.250Z."""
    return datetime.fromtimestamp(time_s, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _comment(info: StreamInfo, time_s: float) -> str:
    """Say in the file what its header cannot: 1.0 of full scale is `full_scale` in `unit`, when, and the exact rate."""
    full_scale = info.scale * (1 if info.format == Format.FLOAT32 else 2 ** (8 * SAMPLE_BYTES[info.format] - 1))
    facts = {
        "full_scale": full_scale,
        "unit": info.unit,
        "sensor": info.sensor,
        "time": time_text(time_s),
        "rate_hz": info.rate_hz,
    }
    return json.dumps({"fisher-edge": facts})
