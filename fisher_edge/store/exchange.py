"""Baselines of a channel as one file, to take them to another gateway: see `export_channel` and `import_channel`.

The file is a ZIP archive of a database that holds them alone, and of the bundles they were made with: a newer release
brings the database up to date as it does its own.
"""

import tempfile
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path, PurePosixPath

from fisher_edge.errors import BadInputError, StateError
from fisher_edge.names import ChannelKey
from fisher_edge.store import bundles
from fisher_edge.store.baselines import Baseline, Baselines
from fisher_edge.store.database import DATABASE_NAME, Database

__all__ = ["export_channel", "import_channel"]

BUNDLES = "bundles"
# Larger than any baseline and model, and small enough to unpack.
MOST_BYTES = 2 << 30
MOST_FILES = 100


def export_channel(database: Database, key: ChannelKey, out: Path) -> list[Baseline]:
    """Write the active baselines of a channel, and the bundles of their models, into a file; return the baselines.

    A bundle that is not kept in the state directory is left out. Raises BadInputError when nothing is enrolled.
    """
    if out.is_dir():
        raise StateError(f"{out} is a folder; give the name of a file")
    enrolled = Baselines(database).active(key)
    if not enrolled:
        raise BadInputError(f"nothing is enrolled for {key}; see: fisher-edge baseline list")
    with tempfile.TemporaryDirectory() as folder:
        with Database(Path(folder)) as copy:
            for baseline in enrolled:
                Baselines(copy).add(baseline)
            copy.connection.execute("PRAGMA journal_mode = DELETE")
        partial = out.with_name(f"{out.name}.partial")
        try:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.write(Path(folder) / DATABASE_NAME, DATABASE_NAME)
                for sha256 in sorted({baseline.model_sha256 for baseline in enrolled}):
                    bundle = bundles.find(database.state_dir, sha256)
                    for file in sorted(bundle.iterdir()) if bundle else ():
                        archive.write(file, f"{BUNDLES}/{sha256}/{file.name}")
            partial.rename(out)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise StateError(f"cannot write {out}: {error.strerror or error}; choose another place") from error
    return enrolled


def import_channel(database: Database, file: Path, key: ChannelKey | None = None) -> list[tuple[Baseline, int]]:
    """Add the baselines of a file as the newest versions of their channel, or of `key`; return them with the versions.

    All of them are added or none; how faults are named is to be learnt again. Bundles of the file are kept unless they
    are there already; whoever loads them checks them. Raises BadInputError for a file that is no export.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _unpack(file, place)
        try:
            with Database(place, set_aside=False, create=False) as source:
                channels = Baselines(source).channels()
                if len(channels) != 1:
                    raise BadInputError(f"{file} holds baselines of {len(channels)} channels; export one at a time")
                enrolled = Baselines(source).active(channels[0])
                for baseline in enrolled:
                    baseline.check()
                if not enrolled:
                    raise BadInputError(f"{file} holds no active baseline; export the channel again")
        except (StateError, ValueError) as error:  # ValueError: numbers that are no baseline
            raise BadInputError(f"{file} is damaged ({error}); export the channel again") from error
        target, baselines = key or channels[0], Baselines(database)
        target.check()
        for sha256 in sorted({baseline.model_sha256 for baseline in enrolled}):
            bundle = place / BUNDLES / sha256
            if bundle.is_dir():
                bundles.keep(database.state_dir, bundle, sha256)
        with database.transaction(durable=True):
            versions = [baselines.add(_imported(baseline, target, file)) for baseline in enrolled]
    return list(zip(enrolled, versions, strict=True))


def _imported(baseline: Baseline, key: ChannelKey, file: Path) -> Baseline:
    """Return a baseline as that of a channel here."""
    reason = f"imported from {file.name}, {baseline.key} version {baseline.version}"
    return replace(baseline, key=key, reason=f"{reason}: {baseline.reason}" if baseline.reason else reason)


def _unpack(file: Path, folder: Path) -> None:
    """Unpack an export: only names that it may have, and no more bytes than it may take."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            names = [PurePosixPath(entry.filename) for entry in entries]
            allowed = all(
                name.parts == (DATABASE_NAME,)
                or (len(name.parts) == 3 and name.parts[0] == BUNDLES and ".." not in name.parts)
                for name in names
            )
            if not allowed or DATABASE_NAME not in map(str, names) or len(entries) > MOST_FILES:
                raise BadInputError(f"{file} is no export of a baseline; write one with: fisher-edge baseline export")
            if sum(entry.file_size for entry in entries) > MOST_BYTES:
                raise BadInputError(f"{file} unpacks to more than {MOST_BYTES >> 20} MB; export one channel")
            archive.extractall(folder)
    except (OSError, zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError, RuntimeError) as error:
        raise BadInputError(f"{file} cannot be read as an export of a baseline ({error}); check the path") from error
