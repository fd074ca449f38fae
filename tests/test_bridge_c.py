"""The C library: its own tests, its agreement with Python on random and damaged frames, its examples and its size."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from bridge_fuzz import build_library, run
from compiler import NEEDS_COMPILER
from simulated_board import Talk, talk

from fisher_bridge.emulator import C_FOLDER

pytestmark = NEEDS_COMPILER
SECONDS = 8.0
Whole = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]


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


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the examples as programs in simulated time."""
    if shutil.which("c++") is None:
        pytest.skip("a C++ compiler is missing (apt-get install g++)")
    folder = tmp_path_factory.mktemp("boards")
    make("simulated", folder)
    return folder


def volts(numbers: Whole) -> Reals:
    """Input of the Arduino: steps of 25 mV."""
    return np.asarray(0.025 * (numbers % 100), np.float64)[:, None]


def acceleration(numbers: Whole) -> Reals:
    """Input of the Zephyr board, up to 306 g each way."""
    count = (numbers + 1) % 6001 - 3000
    return np.stack([count, -count, count / 1000], axis=1)


def counts(numbers: Whole) -> Reals:
    """Input of the STM32: counts of 12 bits of 3.3 V."""
    return (3 * numbers[:, None] + np.arange(3)) % 4096 * 3.3 / 4096


def check(heard: Talk, expected: Callable[[Whole], Reals], step: float, rate_hz: float) -> None:
    """Check that everything was heard, in the right unit, but for `step`, and at the right rate."""
    session = heard.session
    lost = session.counts.lost_frames, session.counts.dropped_samples, session.counts.unannounced_samples
    assert (session.boots, *lost, session.counts.damaged, session.counts.invalid) == (1, 0, 0, 0, 0, 0)
    assert session.stats is not None
    assert session.stats.dropped == 0
    assert heard.samples[0].index == 0
    values = heard.values()
    assert rate_hz * (SECONDS - 0.4) < len(values) <= rate_hz * SECONDS
    np.testing.assert_allclose(values, expected(np.arange(len(values))), rtol=0, atol=step)
    assert abs(session.deviations[0].value) < 5 * session.deviations[0].error < 250


@pytest.mark.parametrize(
    ("name", "baud", "expected", "step", "rate_hz"),
    [
        ("arduino", 500_000, volts, 3.3 / 4096, 1000),
        ("arduino_avr", 500_000, volts, 5 / 1024, 1000),
        ("zephyr", 115_200, acceleration, 1e-5, 400),
        ("stm32", 2_000_000, counts, 1e-6, 12_800),
        ("stm32_cache", 2_000_000, counts, 1e-6, 12_800),
    ],
)
def test_example_is_a_sensor(
    name: str, baud: int, expected: Callable[[Whole], Reals], step: float, rate_hz: float, boards: Path
) -> None:
    """Each example starts, answers every ping and sends every sample in its unit, over a UART with registers of a byte.

    Bytes take their time on the line: one that is not read in time is lost, and whoever waits for the line waits long.
    The Cortex-M7 has a data cache between its processor and its DMA.
    """
    heard = talk([boards / f"run_{name}"], baud, SECONDS)
    assert len(heard.pings) > 50
    assert heard.unanswered(SECONDS) == 0
    assert heard.session.stats is not None
    assert heard.session.stats.bad_frames == 0
    check(heard, expected, step, rate_hz)


@pytest.mark.parametrize("name", ["stm32", "stm32_cache"])
def test_error_of_the_line_does_not_end_reception(name: str, boards: Path) -> None:
    """An overrun in the middle of a PING loses that one: the HAL ends reception, and the example begins it again."""
    heard = talk([boards / f"run_{name}", "2001", "2051", "3001"], 2_000_000, SECONDS)
    lost = [sent_s for token, sent_s in heard.pings.items() if token not in heard.pongs and sent_s < SECONDS - 0.1]
    assert 1 <= len(lost) <= 3
    assert max(lost) < 3.1
    check(heard, counts, 1e-6, 12_800)


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is missing")
def test_library_fits_a_small_microcontroller(tmp_path: Path) -> None:
    """Sender and commands together stay under 3 KiB of flash on the smallest core."""
    lines = [line.split() for line in make("size", tmp_path).splitlines() if "bytes of code" in line]
    assert len(lines) == 4
    assert all(0 < int(words[2]) < 3072 for words in lines)
