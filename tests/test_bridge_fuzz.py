"""The long form of `test_bridge_c.test_c_and_python_agree_on_damaged_frames`, for `make nightly`."""

from pathlib import Path

import pytest
from bridge_fuzz import build_library, run
from compiler import NEEDS_COMPILER

FRAMES = 1_000_000

pytestmark = [pytest.mark.slow, NEEDS_COMPILER]


def test_c_and_python_agree_on_a_million_frames(tmp_path: Path) -> None:
    """Both find the same messages to the byte, whatever happens to the frames."""
    tally = run(build_library(tmp_path), FRAMES, seed=2)
    assert tally.faults == []
    assert tally.frames == FRAMES
    assert tally.damaged > FRAMES // 4
