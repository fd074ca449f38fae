"""When a recording was made, as far as its recorder wrote that into the file. See `recorded_s`."""

import re
import struct
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["recorded_s"]

TIME = re.compile(
    r"(\d{4})[-:/.](\d\d?)[-:/.](\d\d?)[T ]+(\d\d?)[-:.](\d\d)(?:[-:.](\d\d)(?:[.,](\d+))?)?"
    r"\s*(?:(Z|UTC|GMT)|([+-]\d\d):?(\d\d)?)?",
    re.IGNORECASE,
)
RIFF_KINDS = {b"RIFF", b"RF64", b"BW64"}
MOST_CHUNKS = 1000
# In a bext chunk (EBU Tech 3285) date and time follow a description and two names: 10 and 8 characters.
BEXT_DATE = 256 + 32 + 32
BEXT_CHARACTERS = 10 + 8


def recorded_s(path: Path, facts: Mapping[str, Any], date: str) -> float | None:
    """Return when the first sample was taken, in seconds since 1970-01-01 UTC; None: the file does not say.

    Three places are looked at, the most exact one first: the facts that `fisher-edge bridge record` wrote into the
    comment, the bext chunk of a broadcast WAV, and the date of the file's tags (ICRD in WAV, DATE in FLAC and OGG).
    A date without a time of day says too little and does not count; a time without a zone is one of this machine.
    """
    for text in (facts.get("time"), _broadcast_time(path), date):
        time_s = _seconds(text) if isinstance(text, str) else None
        if time_s is not None:
            return time_s
    return None


def _seconds(text: str) -> float | None:
    """Read a date with a time of day in one of the usual spellings."""
    match = TIME.search(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, utc, zone_hours, zone_minutes = match.groups("")
    zone = "+00:00" if utc else f"{zone_hours}:{zone_minutes or '00'}" if zone_hours else ""
    clock = f"{hour:0>2}:{minute}:{second or '00'}.{fraction[:6]:0<6}"
    try:
        seconds = datetime.fromisoformat(f"{year}-{month:0>2}-{day:0>2}T{clock}{zone}").timestamp()
    except (ValueError, OverflowError, OSError):  # no such day, or one that no clock can show
        return None
    return seconds if seconds > 0 else None


def _broadcast_time(path: Path) -> str | None:
    """Return date and time of the bext chunk of a WAV file, if it has one."""
    with path.open("rb") as file:
        kind, form = struct.unpack("<4s4x4s", file.read(12).ljust(12, b"\0"))
        if kind not in RIFF_KINDS or form != b"WAVE":
            return None
        for _ in range(MOST_CHUNKS):
            name, size = struct.unpack("<4sI", file.read(8).ljust(8, b"\0"))
            if name == b"bext" and size >= BEXT_DATE + BEXT_CHARACTERS:
                return _bext_text(file)
            if not size:
                return None
            file.seek(size + size % 2, 1)
    return None


def _bext_text(file: BinaryIO) -> str:
    """Join date and time of a bext chunk whose first byte comes next."""
    file.seek(BEXT_DATE, 1)
    text = file.read(BEXT_CHARACTERS).decode("latin-1")
    return f"{text[:10]} {text[10:]}"
