"""The emulated device: the C program of `c/emulator`, built from the firmware's own library and run on a pty."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from fisher_edge.errors import BadInputError, UsageError

__all__ = ["C_FOLDER", "Emulator", "build_emulator", "device_options", "emulated"]

PACKAGE = Path(__file__).resolve().parent
C_FOLDER = next((folder for folder in (PACKAGE / "c", PACKAGE.parent / "c") if folder.is_dir()), PACKAGE / "c")
"""Where the C sources are: next to this package in the repository, inside it in the wheel."""
FORMATS = {"PCM_24": "int24", "PCM_32": "int32", "FLOAT": "float32", "DOUBLE": "float32"}
READ_AS = {"int16": "int16", "int24": "int32", "int32": "int32", "float32": "float32"}
FULL_SCALE = {"int16": (305_175_781, -13), "int24": (119_209_290, -15), "int32": (465_661_287, -18), "float32": (1, 0)}
"""One count of a full scale of 1.0, as the decimal of a HELLO: mantissa and exponent."""
TICK_HZ, WRAPS_AFTER_S = 1_000_000, 5.0
BUILD_S = 120
END_S = 10


class Emulator:
    """A running emulated device on `port`; `stop` ends it and returns what it counted.

    It booted at `boot_s` by `time.monotonic`, when its tick counter stood WRAPS_AFTER_S before its wrap.
    """

    def __init__(self, process: "subprocess.Popen[str]", port: str, boot_s: float) -> None:
        self.process = process
        self.port = port
        self.boot_s = boot_s

    def true_s(self, ticks: int, drift_ppm: float) -> float:
        """Return the true time (s, `time.monotonic`) of an unwrapped tick of a device with this drift."""
        since_boot_s = (ticks - (1 << 32)) / TICK_HZ + WRAPS_AFTER_S
        return self.boot_s + since_boot_s / (1 + drift_ppm * 1e-6)

    def stop(self) -> dict[str, Any]:
        """End the device, and return what it sent, lost and damaged."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait(END_S)

    def wait(self, timeout_s: float) -> dict[str, Any]:
        """Wait until the device ends by itself, and return what it sent, lost and damaged."""
        out, _ = self.process.communicate(timeout=timeout_s)
        counted: dict[str, Any] = json.loads(out.splitlines()[-1])
        return counted


def build_emulator() -> Path:
    """Return the program, built once for its sources. Raises UsageError without a C compiler or make."""
    sources = sorted(path for path in C_FOLDER.rglob("*") if path.suffix in {".c", ".h"} or path.name == "Makefile")
    sources = [path for path in sources if "build" not in path.parts]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fisher-edge" / f"emulator-{digest}"
    program = cache / "fisher_emulator"
    if program.exists():
        return program
    if shutil.which("make") is None or not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        raise UsageError("building the emulator needs make and a C compiler; run: apt-get install make gcc libc6-dev")
    built = subprocess.run(  # noqa: S603 -- our own sources
        ["make", "--directory", str(C_FOLDER), "emulator", f"BUILD={cache}.{os.getpid()}"],  # noqa: S607 -- found above
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    if built.returncode:
        raise BadInputError(
            f"the emulator could not be built: {built.stderr.strip().splitlines()[-1:]}; see {C_FOLDER}"
        )
    built_in = Path(f"{cache}.{os.getpid()}")
    try:
        built_in.rename(cache)
    except OSError:  # somebody else was quicker
        shutil.rmtree(built_in)
    return program


@contextmanager
def device_options(file: Path | None, rate_hz: float | None, channels: int) -> Iterator[list[str]]:
    """Give the options for a device that replays a recording as it is, or one that counts.

    Raises BadInputError for a file that cannot be read.
    """
    if file is None:
        yield ["--rate", f"{rate_hz or 16_000:g}", "--channels", str(channels)]
        return
    try:
        sound = soundfile.SoundFile(file)
    except (soundfile.SoundFileError, OSError) as error:
        raise BadInputError(f"{file} cannot be read ({error}); give a WAV or FLAC") from error
    with sound, tempfile.NamedTemporaryFile(suffix=".pcm") as samples:
        kind = FORMATS.get(sound.subtype, "int16")
        for block in sound.blocks(1 << 16, dtype=READ_AS[kind], always_2d=True):
            octets = np.ascontiguousarray(block).view(np.uint8)
            samples.write((octets.reshape(-1, 4)[:, 1:] if kind == "int24" else octets).tobytes())
        samples.flush()
        mantissa, exponent = FULL_SCALE[kind]
        yield [
            *("--pcm", samples.name, "--format", kind, "--channels", str(sound.channels)),
            *("--rate", f"{rate_hz or sound.samplerate:g}", "--sensor", file.stem[:23]),
            *("--scale-mantissa", str(mantissa), "--scale-exponent", str(exponent)),
        ]


@contextmanager
def emulated(options: Sequence[str] = ()) -> Iterator[Emulator]:
    """Run an emulated device with options of the C program until the block is left."""
    command = [str(build_emulator()), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        if not first:
            said = process.stderr.read().strip().removeprefix("error: ")
            raise UsageError(f"the emulator says: {said}; choose another value")
        try:
            said = json.loads(first)
            yield Emulator(process, said["port"], said["boot_ns"] / 1e9)
        finally:
            if process.poll() is None:
                process.kill()
