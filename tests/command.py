"""Runs the command line as a user does: a process of its own, with its output and exit code."""

import subprocess
import sys
from pathlib import Path

__all__ = ["COMMAND", "run", "run_program"]

COMMAND = [sys.executable, "-m", "fisher_edge.cli"]


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return run_program([*COMMAND, *map(str, arguments)], cwd)


def run_program(command: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run any program to its end."""
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
