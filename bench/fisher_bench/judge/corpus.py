"""Labelled recordings as windows: the same ones for every representation.

A dataset is a folder with a `meta.csv` (file, recording, channel, class, split_unit, sample_rate_hz, scale and
what the dataset knows of speed and load). Start at `read_dataset`.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from fisher_bench.judge.noise import Mix
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.errors import BadInputError, UsageError

__all__ = ["MOST_WINDOWS", "Window", "moments", "read_dataset"]

COLUMNS = ("file", "recording", "channel", "class", "split_unit", "sample_rate_hz", "scale")
"""Of every dataset; some tasks need speed or load too."""
SHORTEST_S = 0.025
"""One frame of the front-end."""
MOST_WINDOWS = 8
"""Windows taken of one recording, evenly spread: long recordings must not outvote short ones."""


@dataclass(frozen=True, eq=False)
class Window:
    """A window of one channel, and what is known about it."""

    wave: FloatArray
    """(samples,), mean removed."""
    rate_hz: int
    deviation: float
    """Standard deviation of all channels that were recorded at the same moment, together."""
    facts: dict[str, str]
    """The row of `meta.csv`."""
    start: int
    """First sample in its recording."""

    @property
    def unit(self) -> str:
        """Key of the split: all windows of a unit are on the same side."""
        return self.facts["split_unit"]

    @property
    def label(self) -> str:
        """Class of the recording."""
        return self.facts["class"]


def read_dataset(folder: Path, window_s: float, mix: Mix | None = None) -> list[Window]:
    """Cut every recording of a dataset into windows of `window_s` seconds (or of its own length, if shorter).

    `mix` changes each channel of each recording first. Raises BadInputError when the folder holds no dataset,
    UsageError when `window_s` is below a frame or not finite.
    """
    if not SHORTEST_S <= window_s < math.inf:
        raise UsageError(f"window_s={window_s} is no window; give {SHORTEST_S} seconds (a frame) or more")
    try:
        with (folder / "meta.csv").open(newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
        _check_columns(rows)
        by_recording = sorted(rows, key=lambda row: (row["class"], row["recording"]))
        groups = groupby(by_recording, lambda row: (row["class"], row["recording"]))
        windows = [window for _, group in groups for window in _windows(folder, list(group), window_s, mix)]
    except (OSError, KeyError, ValueError) as error:
        raise BadInputError(
            f"{folder} is not a dataset ({error}); give a folder with .npy files and a meta.csv "
            f"of the columns {', '.join(COLUMNS)}, or name the datasets that are there with --dataset"
        ) from None
    if not windows:
        raise BadInputError(f"{folder / 'meta.csv'} lists no recording; correct it or leave the dataset out")
    return windows


def _check_columns(rows: Sequence[dict[str, str]]) -> None:
    """Refuse a table without the columns that every task needs."""
    lacking = [name for name in COLUMNS if rows and name not in rows[0]]
    if lacking:
        raise ValueError(f"meta.csv lacks the column {', '.join(lacking)}")


def moments(windows: Sequence[Window]) -> list[list[int]]:
    """Indices of the windows that show one moment of one recording, channel by channel."""
    groups: dict[tuple[str, str, int], list[int]] = {}
    for index, window in enumerate(windows):
        groups.setdefault((window.label, window.facts["recording"], window.start), []).append(index)
    return list(groups.values())


def _windows(folder: Path, rows: list[dict[str, str]], window_s: float, mix: Mix | None) -> Iterator[Window]:
    waves = [np.load(folder / row["file"], mmap_mode="r", allow_pickle=False) for row in rows]
    rate_hz = int(rows[0]["sample_rate_hz"])
    available = min(len(wave) for wave in waves)
    if available < SHORTEST_S * rate_hz:
        raise ValueError(f"{rows[0]['file']} has {available} samples, less than a frame of {SHORTEST_S} s")
    if mix:
        waves = [mix(wave, row) for wave, row in zip(waves, rows, strict=True)]
    length = min(available, round(window_s * rate_hz))
    count = min(MOST_WINDOWS, available // length)
    for start in np.linspace(0, available - length, count).astype(int):
        cut = [_scaled(wave[start : start + length], row) for wave, row in zip(waves, rows, strict=True)]
        deviation = float(np.sqrt(np.mean([np.mean(channel**2) for channel in cut])))
        for channel, row in zip(cut, rows, strict=True):
            yield Window(channel.astype(np.float32), rate_hz, deviation, row, int(start))


def _scaled(wave: FloatArray, row: dict[str, str]) -> FloatArray:
    """Samples in their unit, mean removed, float64."""
    scaled = wave.astype(np.float64) * float(row["scale"])
    centred: FloatArray = scaled - scaled.mean()
    return centred
