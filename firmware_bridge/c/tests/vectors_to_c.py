"""Write the golden frames as C data for the tests, or as files for the fuzzer.

vectors_to_c.py VECTORS [--corpus DIR]
"""

import json
import pathlib
import sys
from typing import Any


def octets(text: str) -> str:
    """Hexadecimal text as the inside of a C array."""
    return ", ".join(f"0x{byte:02x}" for byte in bytes.fromhex(text)) or "0"


def write_c(vectors: dict[str, Any]) -> None:
    """Print two arrays: frames with their messages, and streams of bytes with the frames found in them."""
    for number, one in enumerate(vectors["frames"]):
        print(f"static const uint8_t frame_{number}[] = {{{octets(one['frame'])}}};")
        print(f"static const uint8_t message_{number}[] = {{{octets(one['message'])}}};")
    for number, one in enumerate(vectors["streams"]):
        print(f"static const uint8_t stream_{number}[] = {{{octets(one['bytes'])}}};")
        print(f"static const size_t found_{number}[] = {{{', '.join(map(str, one['found'])) or '0'}}};")
    print("static const struct golden_frame golden_frames[] = {")
    for number, one in enumerate(vectors["frames"]):
        sizes = f"sizeof frame_{number}, message_{number}, sizeof message_{number}"
        place = f"{one['type']}, {one['stream']}, {one['run']}, {one['sequence']}u"
        print(f"    {{{json.dumps(one['name'])}, frame_{number}, {sizes}, {place}}},")
    print("};\nstatic const struct golden_stream golden_streams[] = {")
    for number, one in enumerate(vectors["streams"]):
        found = f"found_{number}, {len(one['found'])}, {one['damaged']}"
        print(f"    {{{json.dumps(one['name'])}, stream_{number}, sizeof stream_{number}, {found}}},")
    print("};")


def write_corpus(vectors: dict[str, Any], folder: pathlib.Path) -> None:
    """Write one file for every golden frame and stream of bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(
        [one["frame"] for one in vectors["frames"]] + [one["bytes"] for one in vectors["streams"]]
    ):
        (folder / f"golden-{number}").write_bytes(bytes.fromhex(text))


golden = json.loads(pathlib.Path(sys.argv[1]).read_text())
if "--corpus" in sys.argv:
    write_corpus(golden, pathlib.Path(sys.argv[sys.argv.index("--corpus") + 1]))
else:
    write_c(golden)
