"""The example recordings: where they lie, and what is said where there are none."""

import sys
from pathlib import Path

import pytest
import soundfile
from command import run_program

from fisher_edge import example_files
from fisher_edge.errors import BadInputError


def test_examples_are_recordings_sorted_by_name() -> None:
    """They are readable, of several rates, and always in the same order."""
    files = example_files.example_files()
    assert files == sorted(files)
    assert len({soundfile.info(file).samplerate for file in files}) > 1


def test_copy_without_examples_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is missing is named."""
    monkeypatch.setattr(example_files, "INSTALLED", tmp_path / "installed")
    monkeypatch.setattr(example_files, "CHECKOUT", tmp_path / "checkout")
    with pytest.raises(BadInputError, match="installed is missing; install a copy of the package that holds"):
        example_files.find_examples()


def test_examples_need_nothing_of_the_demonstration() -> None:
    """Whoever only reads the examples, such as an export, loads no part of the demonstration."""
    code = "import sys, fisher_edge.example_files; print([name for name in sys.modules if 'edge.demo' in name])"
    assert run_program([sys.executable, "-c", code]).stdout == "[]\n"
