"""The map of the runtime: names of the page are checked against the code."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "architecture_map.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("architecture_map", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "architecture_map", module)
        spec.loader.exec_module(module)
    return module


def test_names_of_the_runtime_are_found(script: ModuleType) -> None:
    """Dotted names in backticks that begin with a package of the runtime count, others do not."""
    text = "`dsp.stream.PieceStream.push` and `torch.stft`, dsp.grid.Grid, `gateway.work.WorkQueue.get()`"
    assert script.named(text) == ["dsp.stream.PieceStream.push", "gateway.work.WorkQueue.get"]


def test_name_that_the_code_does_not_have_is_missing(script: ModuleType) -> None:
    """Modules, classes, methods and fields exist or are reported."""
    there = ["dsp.stream", "dsp.stream.Piece.samples", "store.records.Records.put"]
    gone = ["dsp.streams", "dsp.stream.Piece.colour", "store.records.Records.push"]
    assert script.missing([*there, *gone]) == gone
