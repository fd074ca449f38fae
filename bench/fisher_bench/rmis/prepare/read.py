"""The publishers' file formats: the channels of one recording, as they are stored. Start at `read_channels`.

Whatever is wrong with a file is a DamagedError in one line.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import scipy.io
import soundfile

from fisher_bench.rmis.catalogue import RmisSet
from fisher_bench.rmis.prepare.source import Channel, DamagedError, Source

__all__ = ["read_channels"]

Wave = npt.NDArray[Any]
LFS_POINTER = b"version https://git-lfs"
MAFAULDA_COLUMNS, SDUST_COLUMNS, WTPG_COLUMNS = 8, 6, 4
UMGED_SENSORS, PU_ENTRIES = 11, 7


def read_channels(known: RmisSet, source: Source) -> Iterator[tuple[Channel, Wave]]:
    """Yield every used channel (samples,), float32 or as the set's arithmetic wants it, one in memory at a time.

    Raises DamagedError when the file is a Git LFS pointer, cannot be parsed, lacks a channel, has another rate or
    holds values that are not finite.
    """
    family = known.name.split("_", maxsplit=1)[0]
    try:
        _refuse_pointer(source.path)
        for channel, wave in READERS[family](known, source):
            if not len(wave):
                raise DamagedError("holds no samples")
            if not np.isfinite(wave).all():
                raise DamagedError(f"channel {channel.number} holds values that are not finite")
            yield channel, wave
    except DamagedError:
        raise
    except Exception as error:  # noqa: BLE001 -- a damaged file makes its parser raise whatever it likes
        text = next(iter(str(error).splitlines()), "")[:120]
        raise DamagedError(f"cannot be read as {source.path.suffix} ({type(error).__name__}: {text})") from None


def _wav(known: RmisSet, source: Source) -> Iterator[tuple[Channel, Wave]]:
    wave, rate_hz = soundfile.read(source.path, dtype="float32")
    if wave.ndim != 1:
        raise DamagedError(f"has {wave.shape[1]} channels, not one")
    if rate_hz != known.rate_hz:
        raise DamagedError(f"is at {rate_hz} Hz, not {known.rate_hz} Hz")
    yield source.channels[0], wave


def _csv(_known: RmisSet, source: Source) -> Iterator[tuple[Channel, Wave]]:
    table = pa.csv.read_csv(source.path, pa.csv.ReadOptions(autogenerate_column_names=True, use_threads=False))
    if table.num_columns != MAFAULDA_COLUMNS:
        raise DamagedError(f"has {table.num_columns} columns, not {MAFAULDA_COLUMNS}")
    for channel in source.channels:
        yield channel, table.column(channel.place).to_numpy().astype(np.float32)


def _wtpg(_known: RmisSet, source: Source) -> Iterator[tuple[Channel, Wave]]:
    data: Any = scipy.io.loadmat(source.path, variable_names=["Data"])["Data"]
    _columns(data, WTPG_COLUMNS)
    for channel in source.channels:
        yield channel, data[:, channel.place].astype(np.float64)


def _sdust(known: RmisSet, source: Source) -> Iterator[tuple[Channel, Wave]]:
    signal = scipy.io.loadmat(source.path, variable_names=["Signal"], squeeze_me=True, struct_as_record=False)["Signal"]
    data: Any = np.atleast_2d(signal.y_values.values)
    _columns(data, SDUST_COLUMNS)
    increment = getattr(getattr(signal, "x_values", None), "increment", None)
    if increment is not None and abs(1 / float(increment) / known.rate_hz - 1) > 1e-3:
        raise DamagedError(f"is at {1 / float(increment):.0f} Hz, not {known.rate_hz} Hz")
    for channel in source.channels:
        yield channel, data[:, channel.place].astype(np.float32)


def _umged(_known: RmisSet, source: Source) -> Iterator[tuple[Channel, Wave]]:
    """MAT v7.3 is HDF5; a column of MATLAB comes as a row."""
    with h5py.File(source.path, "r") as file:
        lacking = [name for n in range(1, UMGED_SENSORS + 1) if (name := f"DataSensor{n:02d}") not in file]
        if lacking:
            raise DamagedError(f"lacks {len(lacking)} of {UMGED_SENSORS} variables, the first is {lacking[0]}")
        for channel in source.channels:
            yield channel, np.asarray(file[channel.place]).ravel().astype(np.float32)


def _pu(_known: RmisSet, source: Source) -> Iterator[tuple[Channel, Wave]]:
    """A struct named like the file, with an array `Y` of seven; a repaired file has it one level deeper, below `a`."""
    content = scipy.io.loadmat(source.path, squeeze_me=True, struct_as_record=False)
    stem = source.path.stem
    outer = content.get(stem) if stem in content else getattr(content.get("a"), stem, None)
    if outer is None:
        raise DamagedError(f"has no variable {stem}")
    entries: Any = np.atleast_1d(outer.Y)
    if len(entries) != PU_ENTRIES:
        raise DamagedError(f"has {len(entries)} signals, not {PU_ENTRIES}")
    for channel in source.channels:
        yield channel, np.atleast_1d(entries[channel.place].Data).astype(np.float64).ravel()


def _refuse_pointer(path: Path) -> None:
    """Refuse the small text file that Git leaves in place of the data when LFS is not installed."""
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise DamagedError("is a Git LFS pointer, not the data; run `git lfs pull` in the clone")


def _columns(data: Wave, count: int) -> None:
    if data.ndim != 2 or data.shape[1] != count:
        raise DamagedError(f"has data of shape {data.shape}, not (samples, {count})")


READERS: dict[str, Callable[[RmisSet, Source], Iterator[tuple[Channel, Wave]]]] = {
    "idmt": _wav,
    "mafaulda": _csv,
    "pu": _pu,
    "sdust": _sdust,
    "umged": _umged,
    "wt": _wtpg,
}
