"""The C library: its own tests, its agreement with Python on random and damaged frames, its examples and its size."""

import shutil
import subprocess
from pathlib import Path

import pytest
from bridge_fuzz import build_library, run
from compiler import NEEDS_COMPILER

from fisher_bridge.emulator import C_FOLDER

pytestmark = NEEDS_COMPILER


def make(target: str, folder: Path) -> str:
    """Run a target of the library's Makefile and return what it prints."""
    done = subprocess.run(
        ["make", "-C", str(C_FOLDER), target, f"BUILD={folder}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_library_builds_without_warnings_and_passes_its_tests(tmp_path: Path) -> None:
    """With every compiler there is, and under the address and undefined-behaviour sanitizers."""
    make("lib", tmp_path)
    assert make("test", tmp_path).count(" checks, 0 failed") >= 1


def test_c_and_python_agree_on_damaged_frames(tmp_path: Path) -> None:
    """Both find the same messages to the byte: all that are whole, none that nobody sent; bodies are judged alike."""
    tally = run(build_library(tmp_path), frames=20_000, seed=1)
    assert tally.faults == []
    assert tally.frames == 20_000
    assert tally.whole <= tally.accepted < tally.frames
    assert tally.damaged > 5_000


@pytest.mark.skipif(shutil.which("c++") is None, reason="a C++ compiler is missing (apt-get install g++)")
def test_examples_are_sound_c(tmp_path: Path) -> None:
    """The examples for boards compile against the interfaces they use, with the warnings of the library."""
    assert make("examples", tmp_path).count("check examples/") == 3


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is missing")
def test_library_fits_a_small_microcontroller(tmp_path: Path) -> None:
    """Sender and commands together stay under 3 KiB of flash on the smallest core."""
    lines = [line.split() for line in make("size", tmp_path).splitlines() if "bytes of code" in line]
    assert len(lines) == 4
    assert all(0 < int(words[2]) < 3072 for words in lines)
