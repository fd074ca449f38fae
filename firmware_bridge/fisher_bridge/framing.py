"""Frames on the wire: COBS between zero bytes, with a CRC-32. See `FrameDecoder` and `encode_frame`; PROTOCOL.md."""

import struct
import zlib
from typing import NamedTuple

from cobs import cobs

__all__ = ["MAX_MESSAGE", "VERSION", "FrameDecoder", "Message", "encode_frame"]

VERSION = 1
MAX_MESSAGE = 2048
HEADER = struct.Struct("<BBBBI")
CRC_BYTES = 4
MIN_MESSAGE = HEADER.size + CRC_BYTES
MAX_STUFFED = MAX_MESSAGE + -(-MAX_MESSAGE // 254)
DELIMITER = b"\0"


class Message(NamedTuple):
    """One message without its CRC: header fields and the bytes of the body."""

    kind: int
    stream: int
    run: int
    sequence: int
    body: bytes


def encode_frame(message: Message) -> bytes:
    """Return the frame of a message, both delimiters included."""
    head = HEADER.pack(VERSION, message.kind, message.stream, message.run, message.sequence)
    content = head + message.body
    stuffed: bytes = cobs.encode(content + zlib.crc32(content).to_bytes(CRC_BYTES, "little"))
    return DELIMITER + stuffed + DELIMITER


class FrameDecoder:
    """Finds the messages in bytes that arrive in any pieces; memory is bounded and nothing raises.

    `damaged` counts what stood between two delimiters and was no frame, `other_versions` sound frames of a version this
    bridge does not speak, `text` keeps the last damaged piece that reads as text: what a device prints while it boots.
    """

    def __init__(self) -> None:
        self.damaged = 0
        self.other_versions: dict[int, int] = {}
        self.text = ""
        self._rest = b""

    def feed(self, data: bytes) -> list[Message]:
        """Take the next bytes and return the messages that they complete."""
        *pieces, rest = (self._rest + data).split(DELIMITER)
        self._rest = rest[: MAX_STUFFED + 1]  # longer than any frame: enough to be refused at the next delimiter
        return [message for piece in pieces if piece and (message := self._message(piece)) is not None]

    def _message(self, piece: bytes) -> Message | None:
        """Return the message in the bytes between two delimiters, or count them as damaged."""
        content = _unstuffed(piece)
        if content is None:
            self.damaged += 1
            self._note(piece)
            return None
        version, kind, stream, run, sequence = HEADER.unpack_from(content)
        if version != VERSION:
            self.other_versions[version] = self.other_versions.get(version, 0) + 1
            return None
        return Message(kind, stream, run, sequence, content[HEADER.size : -CRC_BYTES])

    def _note(self, piece: bytes) -> None:
        """Keep a damaged piece if it reads as text."""
        words = piece.decode("ascii", "replace").strip()
        if (
            len(words) > 3
            and all(letter.isprintable() or letter.isspace() for letter in words)
            and "\ufffd" not in words
        ):
            self.text = " ".join(words.split())[:200]


def _unstuffed(piece: bytes) -> bytes | None:
    """Undo COBS and check length and CRC; None for what is not exactly one frame."""
    if len(piece) > MAX_STUFFED:
        return None
    try:
        content: bytes = cobs.decode(piece)
    except cobs.DecodeError:
        return None
    if not MIN_MESSAGE <= len(content) <= MAX_MESSAGE:
        return None
    if zlib.crc32(content[:-CRC_BYTES]) != int.from_bytes(content[-CRC_BYTES:], "little"):
        return None
    if piece[-1] == 1 and cobs.encode(content) != piece:  # an empty group after a full one: not what a sender writes
        return None
    return content
