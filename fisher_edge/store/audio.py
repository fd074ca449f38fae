"""Recordings of enrollments, kept so that they can be embedded again with a new model. Start at `AudioArchive`.

One folder a baseline version: `audio/<asset>/<channel>/<label>/<version>`; one file a recording, 32-bit float WAV or,
where WAV cannot hold the rate, NumPy; bursts are the rows of an array. The folders together stay below a number of
bytes: the oldest go first.
"""

import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from fisher_edge.dsp.blocks import FloatArray, Rate
from fisher_edge.errors import StateError
from fisher_edge.names import ChannelKey
from fisher_edge.store.database import make_private

__all__ = ["DEFAULT_BYTES", "AudioArchive", "KeptTake", "safe_name"]

FOLDER = "audio"
NORMAL = "_normal"
DEFAULT_BYTES = 256 << 20
# Most that a file takes beside its samples.
HEADER_BYTES = 128

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptTake:
    """One recording to keep: its samples in the unit of the channel, block by block; `bursts` are their lengths."""

    blocks: Iterable[FloatArray]
    rate_hz: Rate
    samples: int
    bursts: tuple[int, ...] = ()


class AudioArchive:
    """The recordings of a state directory, at most `max_bytes` of them."""

    def __init__(self, state_dir: Path, max_bytes: int = DEFAULT_BYTES) -> None:
        self.folder = state_dir / FOLDER
        self.max_bytes = max_bytes

    def keep(self, key: ChannelKey, label: str | None, version: int, takes: Sequence[KeptTake]) -> bool:
        """Keep the recordings of a baseline; tell whether they fit. Raises StateError when they cannot be written.

        Bursts of different lengths do not fit: no array holds them.
        """
        needed = sum(4 * take.samples + HEADER_BYTES for take in takes)
        if needed > self.max_bytes or any(len(set(take.bursts)) > 1 for take in takes):
            return False
        folder = self._of(key, label, version)
        partial = folder.with_name(f"{version}.partial")
        for stale in (partial, folder):
            shutil.rmtree(stale, ignore_errors=True)
        make_private(partial)
        try:
            for number, take in enumerate(takes):
                _write(partial / f"{number:04d}", take)
            # Only now: the recordings may be those of an earlier version, which is read until here.
            self._make_room(needed, partial)
            partial.rename(folder)
        except (OSError, soundfile.SoundFileError) as error:
            raise StateError(f"cannot keep the recordings in {folder}: {error}; make room on the disk") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return True

    def files(self, key: ChannelKey, label: str | None, version: int) -> list[Path]:
        """Return the kept recordings of a baseline in their order; none when they were not kept."""
        folder = self._of(key, label, version)
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def forget(self, key: ChannelKey, label: str | None) -> None:
        """Delete the recordings of all versions of a baseline."""
        shutil.rmtree(self._of(key, label, 0).parent, ignore_errors=True)

    def trim(self) -> None:
        """Delete the oldest recordings until all of them fit."""
        self._make_room(0, self.folder)

    def _of(self, key: ChannelKey, label: str | None, version: int) -> Path:
        kind = NORMAL if label is None else f"fault-{safe_name(label)}"
        return self.folder / safe_name(key.asset) / safe_name(key.channel) / kind / str(version)

    def _make_room(self, needed: int, written: Path) -> None:
        """Delete the oldest versions until so many bytes fit beside them, which are in the folder `written`."""
        versions = sorted(
            (folder for folder in self._versions() if folder != written), key=lambda folder: folder.stat().st_mtime
        )
        sizes = {folder: sum(file.stat().st_size for file in folder.iterdir()) for folder in versions}
        total = sum(sizes.values())
        for folder in versions:
            if total + needed <= self.max_bytes:
                return
            shutil.rmtree(folder)
            total -= sizes[folder]
            log.info("the recordings in %s were deleted: kept recordings may take %d bytes", folder, self.max_bytes)

    def _versions(self) -> Iterator[Path]:
        """Folders of all versions."""
        return (folder for folder in self.folder.glob("*/*/*/*") if folder.is_dir())


def _write(path: Path, take: KeptTake) -> None:
    """Write one recording exactly: float samples, at its own rate."""
    if take.bursts:
        np.save(path.with_suffix(".npy"), np.stack(list(take.blocks)).astype(np.float32))
        return
    if isinstance(take.rate_hz, int):
        name = path.with_suffix(".wav")
        with soundfile.SoundFile(name, "w", samplerate=take.rate_hz, channels=1, subtype="FLOAT") as file:
            for block in take.blocks:
                file.write(block)
        return
    np.save(path.with_suffix(".npy"), np.concatenate(list(take.blocks)))


def safe_name(name: str) -> str:
    """Return a name as that of a folder, another for every name: letters and digits as they are, else their codes."""
    return "".join(each if each.isalnum() or each in "-_" else f"%{ord(each):x};" for each in name)
