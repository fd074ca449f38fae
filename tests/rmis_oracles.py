"""Embeddings scored by the authors' own code, and what came out: files of the benchmark's formats."""

import json
import zipfile
from pathlib import Path
from typing import Any

__all__ = ["NAMES", "compare", "expected", "unpack"]

ARCHIVE = Path(__file__).parent / "data" / "rmis_oracles.zip"
NAMES = ("dcase20", "dcase21", "dcase23", "wt_plane_gearbox")


def unpack(name: str, folder: Path) -> tuple[Path, Path]:
    """Write the CSV and the embeddings of one case into a folder; return their paths."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        return Path(archive.extract(f"{name}_files.csv", folder)), Path(
            archive.extract(f"{name}_embeddings.npy", folder)
        )


def expected(name: str) -> Any:
    """Return what the authors' code gave."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        return json.loads(archive.read(f"{name}_expected.json"))


def compare(found: Any, wanted: Any) -> int:
    """Hold what was found against an oracle, numbers to 0.01, all else exactly; return how many values it held."""
    if isinstance(wanted, dict):
        assert set(found) >= set(wanted)
        return sum(compare(found[name], value) for name, value in wanted.items())
    if isinstance(wanted, list):
        assert len(found) == len(wanted)
        return sum(compare(left, right) for left, right in zip(found, wanted, strict=True))
    if isinstance(wanted, float):
        assert abs(found - wanted) < 0.01
    else:
        assert found == wanted
    return 1
