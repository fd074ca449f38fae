"""Random and mutated frames through both decoders: what they accept, and that they agree to the byte.

`python tests/bridge_fuzz.py --frames 10000000` is the long form of what `test_bridge_c.py` does with fewer.
"""

import argparse
import ctypes
import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bridge_reference import golden

from fisher_bridge.emulator import C_FOLDER
from fisher_bridge.framing import MAX_MESSAGE, FrameDecoder, Message, encode_frame
from fisher_bridge.messages import Kind, parse_data, parse_error, parse_hello, parse_pong, parse_stats

BATCH = 2000
LONGEST_BODY = MAX_MESSAGE - 12
PARSERS: dict[int, Callable[[bytes], object]] = {
    Kind.HELLO: parse_hello,
    Kind.DATA: parse_data,
    Kind.PONG: parse_pong,
    Kind.STATS: parse_stats,
    Kind.ERROR: parse_error,
}
LENGTHS = {Kind.WHO: 0, Kind.START: 0, Kind.STOP: 0, Kind.SET_RATE: 4, Kind.PING: 8}
BODIES = [(one["type"], bytes.fromhex(one["message"])[8:-4]) for one in golden()]


@dataclass
class Tally:
    """What went through, and what was found wrong."""

    frames: int = 0
    whole: int = 0
    accepted: int = 0
    damaged: int = 0
    faults: list[str] = field(default_factory=list)


def build_library(folder: Path) -> ctypes.CDLL:
    """Build the C library with its batch functions."""
    subprocess.run(
        ["make", "--silent", "-C", str(C_FOLDER), "shared", f"BUILD={folder}"],
        check=True,
        capture_output=True,
        text=True,
    )
    library = ctypes.CDLL(str(folder / "libfisher_frame.so"))
    library.fisher_batch_decode.restype = ctypes.c_int64
    return library


def decode_in_c(library: ctypes.CDLL, data: bytes, chunk: int) -> tuple[list[tuple[bytes, int]], tuple[int, ...]]:
    """Return header and body of every message the C decoder accepts, with what it says of its body, and its counts."""
    size = 2 * len(data) + 16
    out, counts = ctypes.create_string_buffer(size), (ctypes.c_uint64 * 3)()
    written = library.fisher_batch_decode(
        data, ctypes.c_size_t(len(data)), ctypes.c_size_t(chunk), out, ctypes.c_size_t(size), counts
    )
    assert written >= 0
    raw, found, place = out.raw[:written], [], 0
    while place < written:
        length = int.from_bytes(raw[place : place + 2], "little")
        found.append((raw[place + 2 : place + 2 + length], raw[place + 2 + length]))
        place += 3 + length
    return found, tuple(counts)


def decode_in_python(data: bytes, chunk: int) -> tuple[list[tuple[bytes, int]], tuple[int, ...]]:
    """Return the same of the Python decoder."""
    decoder = FrameDecoder()
    found = []
    for first in range(0, len(data), chunk):
        for message in decoder.feed(data[first : first + chunk]):
            header = bytes([1, *message[:3]]) + message.sequence.to_bytes(4, "little")
            found.append((header + message.body, _valid(message)))
    return found, (len(found), decoder.damaged, sum(decoder.other_versions.values()))


def _valid(message: Message) -> int:
    """Whether a body is what its type says: 1, 0, or 2 for a type nobody knows."""
    if message.kind in PARSERS:
        return int(PARSERS[message.kind](message.body) is not None)
    if message.kind in LENGTHS:
        return int(len(message.body) == LENGTHS[Kind(message.kind)])
    return 2


def random_message(chance: random.Random, sequence: int) -> Message:
    """Any message: of a real type with a golden body, sometimes cut or changed, or of random bytes."""
    if chance.random() < 0.5:
        kind, body = chance.choice(BODIES[:-1] if chance.random() < 0.02 else BODIES[2:7] + BODIES[10:])
        if chance.random() < 0.3:
            place = chance.randrange(len(body) + 1)
            body = body[:place] + chance.randbytes(chance.randrange(3)) + body[place + chance.randrange(3) :]
    else:
        kind = chance.choice([2, 3, 131, chance.randrange(256)])
        alphabet = chance.choice([b"\0\1\xff", None])
        length = chance.choice([0, 1, 5, 40, 241, 242, 243, 244, chance.randrange(700)])
        body = bytes(chance.choices(alphabet, k=length)) if alphabet else chance.randbytes(length)
    return Message(kind, chance.randrange(256), chance.randrange(256), sequence, body[:LONGEST_BODY])


def mutated(chance: random.Random, frame: bytes) -> bytes:
    """Damage a frame in one of the ways a line does; it always differs from what it was."""
    place = chance.randrange(len(frame))
    way = chance.randrange(6)
    if way == 0:
        return frame[:place] + bytes([frame[place] ^ 1 << chance.randrange(8)]) + frame[place + 1 :]
    if way == 1:
        return frame[:place] + frame[place + 1 :]
    if way == 2:
        return frame[:place] + chance.randbytes(1) + frame[place:]
    if way == 3:
        return frame[:place] + b"\0" + frame[place + 1 :]
    if way == 4:
        return frame[:place]
    return frame[:place] + chance.randbytes(chance.randrange(1, 30)) + frame[place + chance.randrange(30) :]


def run_batch(chance: random.Random, library: ctypes.CDLL, tally: Tally, frames: int = BATCH) -> None:
    """Send frames, some of them damaged and some text between, through both decoders and compare."""
    sent, whole, line = set(), [], []
    for number in range(frames):
        message = random_message(chance, tally.frames + number)
        frame = encode_frame(message)
        content = bytes([1, *message[:3]]) + message.sequence.to_bytes(4, "little") + message.body
        sent.add(content)
        if chance.random() < 0.4:
            line.append(mutated(chance, frame))
        else:
            line.append(frame)
            whole.append(content)
        if chance.random() < 0.02:
            line.append(chance.randbytes(chance.randrange(3000)).replace(b"\0", b"\1"))
    data = b"".join(line)
    here, counts = decode_in_python(data, chance.choice([64, 1000, 4096, len(data)]))
    there, counts_there = decode_in_c(library, data, chance.choice([1, 64, 1000, len(data)]))
    tally.frames += frames
    tally.whole += len(whole)
    tally.accepted += len(here)
    tally.damaged += counts[1]
    if (here, counts) != (there, counts_there):
        tally.faults.append(f"C and Python differ near frame {tally.frames}: {counts} and {counts_there}")
    accepted = [content for content, _ in here]
    if not sent.issuperset(accepted):
        tally.faults.append(f"a message that nobody sent was accepted near frame {tally.frames}")
    if missing := set(whole).difference(accepted):
        tally.faults.append(f"{len(missing)} whole frames were not found near frame {tally.frames}")


def run(library: ctypes.CDLL, frames: int, seed: int = 0) -> Tally:
    """Send so many frames, and return what was found."""
    chance, tally = random.Random(seed), Tally()
    while tally.frames < frames and not tally.faults:
        run_batch(chance, library, tally, min(BATCH, frames - tally.frames))
    return tally


def main() -> None:
    """Run the long form and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--build", type=Path, default=C_FOLDER / "build")
    given = parser.parse_args()
    began_s = time.monotonic()
    print(run(build_library(given.build.resolve()), given.frames, given.seed), f"in {time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    main()
