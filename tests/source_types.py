"""Types of sources for tests: installed as a package would, by a dist-info folder with entry points."""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

__all__ = ["install_source"]

PACKAGE = "sourcemaker"


def install_source(folder: Path, monkeypatch: pytest.MonkeyPatch, **functions: Callable[..., Any]) -> None:
    """Install types of sources, by name, into a folder from which Python imports until the test ends."""
    module = types.ModuleType(PACKAGE)
    info = folder / f"{PACKAGE}-1.0.dist-info"
    info.mkdir(parents=True)
    lines = []
    for name, function in functions.items():
        setattr(module, name, function)
        lines.append(f"{name} = {PACKAGE}:{name}")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[fisher_edge.sources]", *lines]))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setitem(sys.modules, PACKAGE, module)
