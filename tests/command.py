"""Runs the command line: in a process of its own as a user does, or in this one where a process adds nothing."""

import contextlib
import io
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fisher_edge.cli import main

__all__ = ["COMMAND", "run", "run_here", "run_program", "troubles"]

COMMAND = [sys.executable, "-m", "fisher_edge.cli"]


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command to its end in a process."""
    return run_program([*COMMAND, *map(str, arguments)], cwd)


def run_here(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command to its end in this process, which costs no start of an interpreter; its log is not in stderr."""
    words, output, errors = [str(argument) for argument in arguments], io.StringIO(), io.StringIO()
    level = logging.getLogger().level
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd or Path.cwd())
        with (
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
            pytest.raises(SystemExit) as left,
        ):
            main(words)
    logging.getLogger().setLevel(level)
    code = left.value.code
    assert code is None or isinstance(code, int)
    return subprocess.CompletedProcess(words, code or 0, output.getvalue(), errors.getvalue())


def run_program(command: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run any program to its end."""
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def troubles(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Lines on stderr, but those by which `enroll` warns of changes that it would not notice."""
    return [line for line in done.stderr.splitlines() if not re.match(r"warning: .* would not raise an alarm", line)]
