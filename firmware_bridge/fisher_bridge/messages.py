"""What the messages say: one class or function for each kind of PROTOCOL.md.

`parse_*` return None for a body that is not exactly what its kind needs; `encode_*` return bodies.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

__all__ = [
    "ALL_STREAMS",
    "SAMPLE_BYTES",
    "Data",
    "DeviceError",
    "Format",
    "Hello",
    "Kind",
    "Pong",
    "Stats",
    "StreamInfo",
    "encode_ping",
    "encode_rate",
    "parse_data",
    "parse_error",
    "parse_hello",
    "parse_pong",
    "parse_stats",
]

ALL_STREAMS = 255
MAX_STREAMS = 16
DEVICE = struct.Struct("<II8s16sHBx")
STREAM = struct.Struct("<BBBBIibBxx8s24s")
DATA = struct.Struct("<BBHIQ")
PONG = struct.Struct("<QII")
STATS = struct.Struct("<QIII")
ERROR = struct.Struct("<BxxxI48s")


class Kind(IntEnum):
    """Types of messages."""

    HELLO = 1
    DATA = 2
    PONG = 3
    STATS = 4
    ERROR = 5
    WHO = 129
    START = 130
    STOP = 131
    SET_RATE = 132
    PING = 133


class Format(IntEnum):
    """How a sample is written."""

    INT16 = 1
    INT24 = 2
    INT32 = 3
    FLOAT32 = 4


SAMPLE_BYTES = {Format.INT16: 2, Format.INT24: 3, Format.INT32: 4, Format.FLOAT32: 4}


@dataclass(frozen=True)
class StreamInfo:
    """One stream of a device: `channels` values at a time, `rate_hz` times a second, each times `scale` in `unit`."""

    number: int
    run: int
    format: Format
    channels: int
    rate_hz: float
    scale: float
    running: bool
    unit: str
    sensor: str


@dataclass(frozen=True)
class Hello:
    """What a device says of itself."""

    tick_hz: int
    boot: int
    firmware: str
    board: str
    max_message: int
    streams: tuple[StreamInfo, ...]

    def stream(self, number: int) -> StreamInfo | None:
        """Return a stream by its number."""
        return next((stream for stream in self.streams if stream.number == number), None)


class Data(NamedTuple):
    """A DATA: `samples` of each of `channels`, interleaved in `payload`; the first is number `first` of its run."""

    format: Format
    channels: int
    samples: int
    ticks: int
    first: int
    payload: bytes


class Pong(NamedTuple):
    """The answer to a PING, with the device's ticks when that arrived and when this left."""

    token: int
    ticks_received: int
    ticks_sent: int


class Stats(NamedTuple):
    """What a device counts since its boot."""

    dropped: int
    overruns: int
    frames_sent: int
    bad_frames: int


class DeviceError(NamedTuple):
    """A command refused, or a fault of the sensor (`sequence` 0)."""

    code: int
    sequence: int
    text: str


def parse_hello(body: bytes) -> Hello | None:
    """Read a HELLO."""
    if len(body) < DEVICE.size:
        return None
    tick_hz, boot, firmware, board, max_message, count = DEVICE.unpack_from(body)
    if not tick_hz or not 1 <= count <= MAX_STREAMS or len(body) != DEVICE.size + count * STREAM.size:
        return None
    streams = tuple(_stream(fields) for fields in STREAM.iter_unpack(body[DEVICE.size :]))
    if None in streams:
        return None
    known = tuple(stream for stream in streams if stream is not None)
    return Hello(tick_hz, boot, firmware.hex(), _text(board), max_message, known)


def _stream(fields: tuple[int, int, int, int, int, int, int, int, bytes, bytes]) -> StreamInfo | None:
    """Read one stream of a HELLO; None for an unknown format, no channel or no rate."""
    number, run, kind, channels, rate_mhz, mantissa, exponent, running, unit, sensor = fields
    if number >= MAX_STREAMS or kind not in SAMPLE_BYTES or not channels or not rate_mhz:
        return None
    scale = float(f"{mantissa}e{exponent}")  # the decimal as it is meant, rounded once
    return StreamInfo(
        number, run, Format(kind), channels, rate_mhz / 1000, scale, bool(running), _text(unit), _text(sensor)
    )


def parse_data(body: bytes) -> Data | None:
    """Read a DATA."""
    if len(body) <= DATA.size:
        return None
    kind, channels, samples, ticks, first = DATA.unpack_from(body)
    size = SAMPLE_BYTES.get(kind, 0) * channels * samples
    if not size or len(body) != DATA.size + size:
        return None
    return Data(kind, channels, samples, ticks, first, body[DATA.size :])


def parse_pong(body: bytes) -> Pong | None:
    """Read a PONG."""
    return Pong(*PONG.unpack(body)) if len(body) == PONG.size else None


def parse_stats(body: bytes) -> Stats | None:
    """Read a STATS."""
    return Stats(*STATS.unpack(body)) if len(body) == STATS.size else None


def parse_error(body: bytes) -> DeviceError | None:
    """Read an ERROR."""
    if len(body) != ERROR.size:
        return None
    code, sequence, text = ERROR.unpack(body)
    return DeviceError(code, sequence, _text(text))


def encode_ping(token: int) -> bytes:
    """Body of a PING."""
    return token.to_bytes(8, "little")


def encode_rate(rate_hz: float) -> bytes:
    """Body of a SET_RATE."""
    return round(rate_hz * 1000).to_bytes(4, "little")


def _text(padded: bytes) -> str:
    """Read a padded text; what is not printable becomes a question mark."""
    letters = padded.split(b"\0", 1)[0].decode("ascii", "replace")
    return "".join(letter if letter.isprintable() and letter.isascii() else "?" for letter in letters)
