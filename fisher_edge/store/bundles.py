"""Bundles kept with the baselines that need them, so that a new default model does not end monitoring.

A bundle lies in `bundles/<SHA-256 of its model>` of the state directory. Start at `keep` and `find`.
"""

import logging
import shutil
from collections.abc import Set as AbstractSet
from pathlib import Path

from fisher_edge.errors import StateError
from fisher_edge.store.database import make_private

__all__ = ["find", "forget_unused", "keep"]

FOLDER = "bundles"

log = logging.getLogger(__name__)


def keep(state_dir: Path, bundle: Path, sha256: str) -> None:
    """Copy a bundle folder into the state directory unless one of that model is there already.

    Raises StateError when it cannot be written.
    """
    target = state_dir / FOLDER / sha256
    if target.is_dir():
        return
    make_private(target.parent)
    partial = target.with_name(f"{sha256}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(bundle, partial)
        partial.rename(target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise StateError(
            f"cannot keep the bundle {bundle} in {target.parent}: {error.strerror or error}; make room or correct the "
            "permissions of the state directory"
        ) from error


def find(state_dir: Path, sha256: str) -> Path | None:
    """Return the folder of the kept bundle with this model; None when there is none."""
    folder = state_dir / FOLDER / sha256
    return folder if folder.is_dir() else None


def forget_unused(state_dir: Path, needed: AbstractSet[str]) -> None:
    """Delete the bundles that no baseline needs any more."""
    folder = state_dir / FOLDER
    for kept in folder.iterdir() if folder.is_dir() else ():
        if kept.name not in needed:
            shutil.rmtree(kept, ignore_errors=True)
            log.info("the bundle of model %s is no longer needed and was deleted", kept.name[:8])
