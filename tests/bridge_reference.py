"""A second, slow implementation of the wire format, written from PROTOCOL.md alone: the reference of both others.

`python tests/bridge_reference.py` writes `firmware_bridge/vectors.json`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).resolve().parents[1] / "firmware_bridge" / "vectors.json"
SAMPLE_BYTES = {1: 2, 2: 3, 3: 4, 4: 4}


def little(value: int, size: int) -> bytes:
    """Write an integer, negative ones in two's complement."""
    return (value % (1 << (8 * size))).to_bytes(size, "little")


def text(words: str, size: int) -> bytes:
    """Pad a text."""
    return words.encode("ascii").ljust(size, b"\0")


def crc32(data: bytes) -> int:
    """CRC-32/ISO-HDLC, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xEDB88320 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def cobs(message: bytes) -> bytes:
    """Stuff a message, byte by byte."""
    out, group = bytearray(), bytearray()
    for position, byte in enumerate(message):
        if byte:
            group.append(byte)
        if byte == 0 or (len(group) == 254 and position + 1 < len(message)):
            out += bytes([len(group) + 1]) + group
            group = bytearray()
        if byte == 0 and position + 1 == len(message):
            return bytes(out) + b"\1"
    return bytes(out) + (bytes([len(group) + 1]) + group if group or not out else b"")


def message(kind: int, stream: int, run: int, sequence: int, body: bytes) -> bytes:
    """Header, body and CRC."""
    head = bytes([1, kind, stream, run]) + little(sequence, 4)
    return head + body + little(crc32(head + body), 4)


def frame(complete: bytes) -> bytes:
    """Delimiters around the stuffed message."""
    return b"\0" + cobs(complete) + b"\0"


def hello(fields: dict[str, Any]) -> bytes:
    """Body of a HELLO."""
    body = little(fields["tick_hz"], 4) + little(fields["boot"], 4) + bytes.fromhex(fields["firmware"])
    body += text(fields["board"], 16) + little(fields["max_message"], 2) + bytes([len(fields["streams"]), 0])
    for stream in fields["streams"]:
        body += bytes([stream["stream"], stream["run"], stream["format"], stream["channels"]])
        body += little(stream["rate_mhz"], 4) + little(stream["scale_mantissa"], 4)
        body += little(stream["scale_exponent"], 1) + bytes([stream["running"], 0, 0])
        body += text(stream["unit"], 8) + text(stream["sensor"], 24)
    return body


def data(fields: dict[str, Any]) -> bytes:
    """Body of a DATA; samples of float32 are given as the integers of their bits."""
    size = SAMPLE_BYTES[fields["format"]]
    body = bytes([fields["format"], fields["channels"]]) + little(fields["count"], 2)
    body += little(fields["ticks"], 4) + little(fields["index"], 8)
    return body + b"".join(little(sample, size) for sample in fields["samples"])


def integers(fields: dict[str, Any], sizes: Sequence[tuple[str, int]]) -> bytes:
    """Body of integers one after the other."""
    return b"".join(little(fields[name], size) for name, size in sizes)


def error(fields: dict[str, Any]) -> bytes:
    """Body of an ERROR."""
    return bytes([fields["code"], 0, 0, 0]) + little(fields["sequence"], 4) + text(fields["text"], 48)


def nothing(_: dict[str, Any]) -> bytes:
    """Body of a command that needs none."""
    return b""


PONG = (("token", 8), ("ticks_received", 4), ("ticks_sent", 4))
STATS = (("dropped", 8), ("overruns", 4), ("frames_sent", 4), ("bad_frames", 4))
KINDS = {
    "HELLO": (1, hello),
    "DATA": (2, data),
    "PONG": (3, lambda fields: integers(fields, PONG)),
    "STATS": (4, lambda fields: integers(fields, STATS)),
    "ERROR": (5, error),
    "WHO": (129, nothing),
    "START": (130, nothing),
    "STOP": (131, nothing),
    "SET_RATE": (132, lambda fields: integers(fields, (("rate_mhz", 4),))),
    "PING": (133, lambda fields: integers(fields, (("token", 8),))),
}


def stream_fields(number: int, kind: int, channels: int, rate_mhz: int, **more: Any) -> dict[str, Any]:
    """Fields of one stream of a HELLO."""
    plain = {"run": 0, "scale_mantissa": 1, "scale_exponent": 0, "running": 0, "unit": "", "sensor": ""}
    return {"stream": number, "format": kind, "channels": channels, "rate_mhz": rate_mhz} | plain | more


def examples() -> list[tuple[str, str, int, int, int, dict[str, Any]]]:
    """Name, kind, stream, run, sequence and fields of every golden frame."""
    board = {"tick_hz": 1_000_000, "boot": 3, "firmware": "00112233445566ff", "board": "bench", "max_message": 2048}
    accelerometer = stream_fields(
        0, 1, 3, 3_200_000, run=7, scale_mantissa=61, scale_exponent=-6, running=1, unit="g", sensor="LIS3DH #12"
    )
    current = stream_fields(
        15, 2, 1, 51_200_000, scale_mantissa=-1_000_000, scale_exponent=-128, unit="A rms..", sensor="c" * 24
    )
    most = {**board, "streams": [stream_fields(number, 3, 8, 4_294_967_295) for number in range(16)]}
    return [
        ("a board with two streams", "HELLO", 0, 0, 0, {**board, "streams": [accelerometer, current]}),
        ("a board with all sixteen streams", "HELLO", 0, 0, 4_294_967_295, most),
        ("one sample", "DATA", 0, 7, 1, samples(1, 1, 0, 0, [-2])),
        ("int16 of three channels", "DATA", 0, 7, 2, samples(1, 3, 999, 500, [0, 1, -1, 256, -32768, 32767])),
        ("int24 at both ends", "DATA", 15, 0, 3, samples(2, 1, 4_294_967_295, 1 << 40, [-8388608, 8388607, 0, 65536])),
        ("int32", "DATA", 1, 255, 4, samples(3, 2, 1, (1 << 64) - 1, [-2147483648, 2147483647, 16909060, 0])),
        ("float32: 1, -0.5, the smallest, pi", "DATA", 2, 1, 5, samples(4, 1, 7, 9, FLOATS)),
        ("nothing but zeros", "DATA", 0, 7, 6, samples(1, 1, 0, 0, [0] * 40)),
        ("a long run without a zero", "DATA", 0, 7, 7, samples(1, 1, 0x01010101, 0x0101010101010101, [257] * 500)),
        ("the longest message", "DATA", 0, 7, 8, samples(1, 2, 5, 6, [37 * i % 65536 - 32768 for i in range(1010)])),
        ("the answer to a ping", "PONG", 0, 0, 9, {"token": (1 << 64) - 2, "ticks_received": 10, "ticks_sent": 260}),
        (
            "what was lost",
            "STATS",
            0,
            0,
            10,
            {"dropped": 1 << 33, "overruns": 2, "frames_sent": 4_000_000_000, "bad_frames": 0},
        ),
        ("a refusal", "ERROR", 0, 0, 11, {"code": 3, "sequence": 17, "text": "rate 1600, 3200 or 6400 Hz"}),
        ("who is there", "WHO", 0, 0, 0, {}),
        ("begin all", "START", 255, 0, 1, {}),
        ("end one", "STOP", 15, 0, 2, {}),
        ("another rate", "SET_RATE", 0, 0, 3, {"rate_mhz": 6_400_000}),
        ("a ping", "PING", 0, 0, 4, {"token": 72623859790382856}),
    ]


FLOATS = [0x3F800000, 0xBF000000, 0x00000001, 0x40490FDB]


def samples(kind: int, channels: int, ticks: int, index: int, values: list[int]) -> dict[str, Any]:
    """Fields of a DATA."""
    count = len(values) // channels
    return {
        "format": kind,
        "channels": channels,
        "count": count,
        "ticks": ticks,
        "index": index,
        "samples": values,
    }


def golden() -> list[dict[str, Any]]:
    """All golden frames with their bytes."""
    frames = []
    for name, kind, stream, run, sequence, fields in examples():
        number, body = KINDS[kind]
        complete = message(number, stream, run, sequence, body(fields))
        place = {"type": number, "stream": stream, "run": run, "sequence": sequence}
        shown = {"message": complete.hex(), "frame": frame(complete).hex()}
        frames.append({"name": name, "kind": kind} | place | {"fields": fields} | shown)
    return frames


def streams_of_bytes() -> list[dict[str, Any]]:
    """Bytes as a link may bring them, with the numbers of the golden frames a receiver finds in them."""
    frames = [bytes.fromhex(one["frame"]) for one in golden()]
    flipped = bytearray(frames[3])
    flipped[9] ^= 2
    split = bytearray(frames[3])
    split[12] = 0
    full = cobs_of_254()
    return [
        {"name": "one after the other", "bytes": (frames[2] + frames[3]).hex(), "found": [2, 3], "damaged": 0},
        {"name": "boot text", "bytes": (b"boot v1.2\r\n" + frames[0]).hex(), "found": [0], "damaged": 1},
        {"name": "text between", "bytes": (frames[2] + b"ADC late\n" + frames[3]).hex(), "found": [2, 3], "damaged": 1},
        {"name": "from the middle", "bytes": (frames[0][40:] + frames[2]).hex(), "found": [2], "damaged": 1},
        {"name": "one bit", "bytes": (frames[2] + bytes(flipped) + frames[4]).hex(), "found": [2, 4], "damaged": 1},
        {"name": "a zero inside", "bytes": (bytes(split) + frames[4]).hex(), "found": [4], "damaged": 2},
        {"name": "its end is lost", "bytes": (frames[3][:-1] + frames[4]).hex(), "found": [3, 4], "damaged": 0},
        {
            "name": "its end is not zero",
            "bytes": (frames[3][:-1] + b"\1" + frames[4]).hex(),
            "found": [4],
            "damaged": 1,
        },
        {"name": "nothing but delimiters", "bytes": bytes(9).hex(), "found": [], "damaged": 0},
        {"name": "too long", "bytes": (b"\0" + b"\xff" * 3000 + frames[2]).hex(), "found": [2], "damaged": 1},
        {"name": "too short", "bytes": (frame(b"\1\x81" + bytes(5)) + frames[13]).hex(), "found": [13], "damaged": 1},
        {
            "name": "an empty last group",
            "bytes": (b"\0" + full + b"\1\0" + frames[2]).hex(),
            "found": [2],
            "damaged": 1,
        },
    ]


def cobs_of_254() -> bytes:
    """A sound message whose last group is full: what follows it must not be an empty group."""
    for trial in range(100_000):
        complete = message(200, 1, 1, 0x01010101 + trial, bytes([2]) * 242)
        if 0 not in complete:
            stuffed = cobs(complete)
            assert (len(complete), len(stuffed)) == (254, 255)
            return stuffed
    raise AssertionError


def main() -> None:
    """Write the vectors."""
    VECTORS.write_text(json.dumps({"frames": golden(), "streams": streams_of_bytes()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
