"""The C library: its own tests, its agreement with Python on random and damaged frames, its examples and its size."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from bridge_fuzz import build_library, run
from compiler import NEEDS_COMPILER
from mosquitto import wait_until

from fisher_bridge.continuity import Samples
from fisher_bridge.emulator import C_FOLDER
from fisher_bridge.port import PortSettings
from fisher_bridge.reader import shared_reader

pytestmark = NEEDS_COMPILER


def make(target: str, folder: Path) -> str:
    """Run a target of the library's Makefile and return what it prints."""
    done = subprocess.run(
        ["make", "-C", str(C_FOLDER), target, f"BUILD={folder}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_library_builds_without_warnings_and_passes_its_tests(tmp_path: Path) -> None:
    """With every compiler there is, and under the address and undefined-behaviour sanitizers.

    The tests run three times: as it is, with a CRC unit in place of the table, and with a size_t of 16 bits.
    """
    make("lib", tmp_path)
    passed = [line for line in make("test", tmp_path).splitlines() if line.endswith(" checks, 0 failed")]
    with_table, with_unit, small = passed[:3]
    assert int(with_unit.split()[0]) == int(with_table.split()[0]) + 1 > 7000  # one more: that the unit was used
    assert small == "size_t of 16 bits: 9 checks, 0 failed"


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


@pytest.mark.skipif(shutil.which("c++") is None, reason="a C++ compiler is missing (apt-get install g++)")
def test_examples_run_as_sensors(tmp_path: Path) -> None:
    """Each example, run on a pty with its board played by this machine, starts, answers, counts and is read.

    Its input counts, and so do the values of every piece that is said to be consecutive; a new boot is never made up.
    """
    make("hosted", tmp_path)
    for name, modulo, step in (("arduino", 1024, 1), ("zephyr", 1 << 31, 1_000_000), ("stm32", 4096, 3)):
        with subprocess.Popen([tmp_path / f"run_{name}"], stdout=subprocess.PIPE, text=True) as board:
            assert board.stdout is not None
            settings = PortSettings(json.loads(board.stdout.readline())["port"])
            with shared_reader(settings) as reader, reader.subscribe(0) as subscription:
                taken: list[Samples] = subscription.take(10)
                cut = reader.session.counts.damaged  # the HELLO at boot, if the port was opened in the middle of it
                assert cut <= 1, name
                while sum(len(samples.raw) for samples in taken) < 900:
                    taken += subscription.take(0.2)
                wait_until(lambda: reader.session.stats is not None, f"STATS of {name}", 10)
                counts, boots = reader.session.counts, reader.session.boots
            board.kill()
        assert (boots, counts.lost_frames, counts.damaged, counts.invalid) == (1, 0, cut, 0), name
        for samples in taken:
            values = samples.raw[:, 0].astype(np.int64)
            assert ((values[1:] - values[:-1]) % modulo == step).all(), name


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is missing")
def test_library_fits_a_small_microcontroller(tmp_path: Path) -> None:
    """Sender and commands together stay under 3 KiB of flash on the smallest core."""
    lines = [line.split() for line in make("size", tmp_path).splitlines() if "bytes of code" in line]
    assert len(lines) == 4
    assert all(0 < int(words[2]) < 3072 for words in lines)
