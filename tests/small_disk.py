"""A real file system of a few megabytes, which a test can fill."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["fill", "small_disk"]


@contextmanager
def small_disk(folder: Path, megabytes: int = 4) -> Iterator[Path]:
    """Mount a file system in memory on a folder; skip the test where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small file system cannot be mounted here, which takes root: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, leave_bytes: int = 0) -> Path:
    """Fill the disk of a folder with a file, as a log that nobody rotates does."""
    hog = folder / "hog"
    with hog.open("ab", buffering=0) as file:
        room = os.statvfs(folder)
        try:
            file.write(b"x" * max(0, room.f_bavail * room.f_frsize - leave_bytes))
            while not leave_bytes:
                file.write(b"x" * 512)
        except OSError:
            pass
    return hog
