"""Frames and messages: the golden vectors, any pieces, any damage."""

import json
import zlib
from itertools import pairwise
from typing import Any

import pytest
from bridge_reference import KINDS, VECTORS, cobs, frame, golden, message, streams_of_bytes
from hypothesis import given
from hypothesis import strategies as st

from fisher_bridge.framing import MAX_MESSAGE, FrameDecoder, Message, encode_frame
from fisher_bridge.messages import (
    Format,
    Kind,
    encode_ping,
    encode_rate,
    parse_data,
    parse_error,
    parse_hello,
    parse_pong,
    parse_stats,
)
from fisher_bridge.samples import raw_samples

VECTORS_READ = json.loads(VECTORS.read_text())
FRAMES = VECTORS_READ["frames"]
messages = st.builds(
    Message,
    kind=st.integers(0, 255),
    stream=st.integers(0, 255),
    run=st.integers(0, 255),
    sequence=st.integers(0, 2**32 - 1),
    body=st.one_of(st.binary(max_size=600), st.binary(max_size=3).map(lambda few: few * 500)),
)


def sent(one: dict[str, Any]) -> Message:
    """Message of a golden frame."""
    return Message(one["type"], one["stream"], one["run"], one["sequence"], bytes.fromhex(one["message"])[8:-4])


def test_vectors_are_what_the_reference_writes() -> None:
    """The file that both languages read was not changed by hand, and has every kind."""
    assert {"frames": golden(), "streams": streams_of_bytes()} == VECTORS_READ
    assert {one["kind"] for one in FRAMES} == set(KINDS) == {kind.name for kind in Kind}


@pytest.mark.parametrize("one", FRAMES, ids=lambda one: one["name"])
def test_golden_frame_is_written_and_found(one: dict[str, Any]) -> None:
    """Every golden frame is written byte for byte, and gives its message back."""
    assert encode_frame(sent(one)).hex() == one["frame"]
    assert FrameDecoder().feed(bytes.fromhex(one["frame"])) == [sent(one)]


@pytest.mark.parametrize("one", VECTORS_READ["streams"], ids=lambda one: one["name"])
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_golden_bytes_give_their_frames(one: dict[str, Any], step: int) -> None:
    """What a link may bring, in pieces of any size, gives the frames in it and counts the rest."""
    data, decoder = bytes.fromhex(one["bytes"]), FrameDecoder()
    found = [found for first in range(0, len(data), step) for found in decoder.feed(data[first : first + step])]
    assert found == [sent(FRAMES[number]) for number in one["found"]]
    assert decoder.damaged == one["damaged"]


@given(messages)
def test_frame_has_the_bytes_of_the_slow_reference(one: Message) -> None:
    """Framing agrees with the one written from the document, byte by byte and bit by bit."""
    kind, stream, run, sequence, body = one
    assert encode_frame(one) == frame(message(kind, stream, run, sequence, body))
    assert FrameDecoder().feed(encode_frame(one)) == [one]


@given(st.lists(st.one_of(messages, st.binary(max_size=40)), max_size=8), st.lists(st.integers(0, 5000), max_size=8))
def test_pieces_do_not_matter(parts: list[Message | bytes], cuts: list[int]) -> None:
    """Frames and rubbish cut anywhere give the same messages and the same counts as in one piece."""
    data = b"".join(encode_frame(part) if isinstance(part, Message) else part for part in parts)
    whole, pieces = FrameDecoder(), FrameDecoder()
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    found = [one for first, last in pairwise(places) for one in pieces.feed(data[first:last])]
    assert found == whole.feed(data)
    assert pieces.damaged == whole.damaged


@given(messages, messages, st.data())
def test_damage_costs_one_frame_only(first: Message, second: Message, data: st.DataObject) -> None:
    """A flipped bit anywhere in a frame loses that frame, never the next, and never gives another message."""
    octets = bytearray(encode_frame(first))
    bit = data.draw(st.integers(0, 8 * len(octets) - 1))
    octets[bit // 8] ^= 1 << bit % 8
    decoder = FrameDecoder()
    assert decoder.feed(bytes(octets) + encode_frame(second)) == [second]
    assert decoder.damaged >= 1


@given(st.binary(max_size=5000))
def test_rubbish_is_no_message(data: bytes) -> None:
    """Any bytes leave the decoder ready for the next frame, and hold no more memory than one."""
    decoder = FrameDecoder()
    decoder.feed(data)
    assert len(decoder._rest) <= MAX_MESSAGE + 10
    good = Message(Kind.PING, 0, 0, 5, bytes(8))
    assert decoder.feed(encode_frame(good))[-1] == good


def test_other_versions_are_counted_apart() -> None:
    """A sound frame of a later version is not read by the rules of this one."""
    content = bytes([9, 1, 0, 0]) + bytes(4)
    later = frame(content + zlib.crc32(content).to_bytes(4, "little"))
    decoder = FrameDecoder()
    assert decoder.feed(later) == []
    assert (decoder.other_versions, decoder.damaged) == ({9: 1}, 0)


def test_text_between_frames_is_kept() -> None:
    """What a device prints while it boots can be shown."""
    decoder = FrameDecoder()
    decoder.feed(b"\r\nboot v1.2, sensor ok\r\n" + encode_frame(Message(Kind.PING, 0, 0, 5, bytes(8))))
    assert decoder.text == "boot v1.2, sensor ok"


def fields(number: int) -> tuple[dict[str, Any], bytes]:
    """Fields and body of a golden frame."""
    return FRAMES[number]["fields"], sent(FRAMES[number]).body


def test_hello_is_read() -> None:
    """Every field of both streams arrives, scales in the unit and rates in hertz."""
    said, body = fields(0)
    hello = parse_hello(body)
    assert hello is not None
    assert (hello.tick_hz, hello.boot, hello.firmware, hello.board) == (1_000_000, 3, said["firmware"], "bench")
    first, last = hello.streams
    assert (first.number, first.run, first.format, first.channels, first.running) == (0, 7, Format.INT16, 3, True)
    assert (first.rate_hz, first.scale, first.unit, first.sensor) == (3200.0, 61e-6, "g", "LIS3DH #12")
    assert (last.number, last.rate_hz, last.scale, last.unit) == (15, 51_200.0, -1e-122, "A rms..")
    assert (last.running, len(last.sensor)) == (False, 24)


@pytest.mark.parametrize("number", [2, 3, 4, 5, 7, 8, 9])
def test_integer_samples_are_read(number: int) -> None:
    """Samples of 16, 24 and 32 bits arrive with their sign, in their channels."""
    said, body = fields(number)
    data = parse_data(body)
    assert data is not None
    assert (data.samples, data.ticks, data.first) == (said["count"], said["ticks"], said["index"])
    raw = raw_samples(data.payload, data.format, data.channels)
    assert raw.shape == (said["count"], said["channels"])
    assert raw.ravel().tolist() == said["samples"]


def test_float_samples_are_read() -> None:
    """Samples of float32 arrive exactly."""
    data = parse_data(fields(6)[1])
    assert data is not None
    raw = raw_samples(data.payload, data.format, data.channels)
    assert raw.ravel().tolist() == pytest.approx([1.0, -0.5, 2.0**-149, 3.1415927410125732], rel=0, abs=0)


def test_answers_are_read() -> None:
    """PONG, STATS and ERROR arrive with all their fields."""
    assert parse_pong(fields(10)[1]) == ((1 << 64) - 2, 10, 260)
    assert parse_stats(fields(11)[1]) == (1 << 33, 2, 4_000_000_000, 0)
    assert parse_error(fields(12)[1]) == (3, 17, "rate 1600, 3200 or 6400 Hz")


def test_commands_are_written() -> None:
    """Bodies of our own commands are those of the golden frames."""
    assert encode_ping(72623859790382856) == fields(17)[1]
    assert encode_rate(6400) == fields(16)[1]


@pytest.mark.parametrize("number", [0, 3, 10, 11, 12])
def test_body_of_another_length_is_refused(number: int) -> None:
    """One byte more or less than a type needs is not read."""
    parse = {1: parse_hello, 2: parse_data, 3: parse_pong, 4: parse_stats, 5: parse_error}[FRAMES[number]["type"]]
    body = fields(number)[1]
    assert parse(body) is not None
    for other in (body[:-1], body + b"\0", b""):
        assert parse(other) is None


@pytest.mark.parametrize(
    ("number", "place", "value"),
    [
        (0, 0, bytes(4)),
        (0, 34, b"\0"),
        (0, 34, b"\x11"),
        (0, 36, b"\x10"),
        (0, 38, b"\5"),
        (0, 39, b"\0"),
        (0, 40, bytes(4)),
        (3, 0, b"\0"),
        (3, 1, b"\0"),
        (3, 2, bytes(2)),
    ],
)
def test_impossible_fields_are_refused(number: int, place: int, value: bytes) -> None:
    """No ticks, no stream, stream 16, no such format, no channel, no rate, no samples: nothing a device can mean."""
    body = fields(number)[1]
    changed = body[:place] + value + body[place + len(value) :]
    assert (parse_hello if number == 0 else parse_data)(changed) is None


@given(st.binary(max_size=900))
def test_no_body_raises(body: bytes) -> None:
    """Whatever stands in a sound frame is read or refused."""
    for parse in (parse_hello, parse_data, parse_pong, parse_stats, parse_error):
        parse(body)


def test_reference_stuffing_is_canonical() -> None:
    """The reference itself writes the published examples of Cheshire and Baker's rule."""
    assert cobs(b"\0") == b"\1\1"
    assert cobs(b"\x11\x22\0\x33") == b"\3\x11\x22\2\x33"
    assert cobs(bytes(range(1, 255))) == b"\xff" + bytes(range(1, 255))
    assert cobs(bytes(range(1, 256))) == b"\xff" + bytes(range(1, 255)) + b"\2\xff"
