"""Whether the C side of the bridge can be built here."""

import shutil

import pytest

__all__ = ["NEEDS_COMPILER"]

NEEDS_COMPILER = pytest.mark.skipif(
    shutil.which("make") is None or not any(shutil.which(name) for name in ("cc", "gcc", "clang")),
    reason="make or a C compiler is missing (apt-get install make gcc libc6-dev)",
)
