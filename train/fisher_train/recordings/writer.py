"""Writes shards of a given size; each gets its name only when it is complete and on the disk.

Start at `ShardWriter.add`.
"""

import io
import os
import tarfile
from pathlib import Path

from fisher_train.recordings.shards import SHARD

__all__ = ["PART", "ShardWriter", "replace_file"]

PART = ".part"


class ShardWriter:
    """Writes samples into one shard after the other: `shard-000000.tar`, `shard-000001.tar` and so on."""

    def __init__(self, out: Path, shard_bytes: int) -> None:
        """Start behind the last shard that is in the folder."""
        self.out, self.shard_bytes = out, shard_bytes
        self._number = 1 + max((int(path.stem.rpartition("-")[2]) for path in out.glob(f"shard-*{SHARD}")), default=-1)
        self._file: io.BufferedWriter | None = None
        self._tar: tarfile.TarFile | None = None

    def add(self, key: str, members: dict[str, bytes]) -> None:
        """Write one sample: a member `KEY.ENDING` for every ending."""
        if self._tar is None:
            self._file = self._part.open("wb")
            self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - closed in close()
        for ending, content in members.items():
            info = tarfile.TarInfo(f"{key}.{ending}")
            info.size = len(content)
            self._tar.addfile(info, io.BytesIO(content))
        assert self._file is not None  # opened together with the tar
        if self._file.tell() >= self.shard_bytes:
            self.close()

    def close(self) -> None:
        """Complete the shard that is being written, if there is one."""
        if self._tar is None or self._file is None:
            return
        self._tar.close()
        _to_disk(self._file)
        self._file.close()
        self._part.rename(self.out / f"shard-{self._number:06d}{SHARD}")
        _folder_to_disk(self.out)
        self._number += 1
        self._tar = self._file = None

    @property
    def _part(self) -> Path:
        """Where the shard lies until it is complete."""
        return self.out / f".shard-{self._number:06d}{SHARD}{PART}"


def replace_file(path: Path, text: str) -> None:
    """Write a file under another name and rename it, so that a complete one always exists."""
    partial = path.with_name(f".{path.name}{PART}")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        _to_disk(file)
    partial.replace(path)
    _folder_to_disk(path.parent)


def _to_disk(file: "io.BufferedWriter | io.TextIOWrapper") -> None:
    file.flush()
    os.fsync(file.fileno())


def _folder_to_disk(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
