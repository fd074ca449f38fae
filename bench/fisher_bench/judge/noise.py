"""Noise of other machines, mixed into recordings at a given ratio. Start at `noise_of`.

A recording gets the sum of the signals of two other machines, of equal RMS. Each split unit has a pair of its own.
"""

import csv
import math
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.errors import BadInputError, UsageError

__all__ = ["NOISE", "Mix", "noise_of"]

# Sets whose recordings serve as noise, but never in a recording of the same set.
NOISE = ("gear0_27ch", "ims_set1_first50", "drone_propeller_16k", "air_compressor_state", "esc50_machine_16k")
# Rates are resampled by a ratio of integers up to this one.
LARGEST_RATIO = 1000

Mix = Callable[[FloatArray, dict[str, str]], FloatArray]
"""Samples (n,) of a recording and its row of `meta.csv` to samples (n,) with noise, in the same unit."""


def noise_of(data_dir: Path, dataset: str, noise_db: float) -> Mix:
    """Build what mixes noise into recordings of a dataset; `noise_db` is their RMS over that of the noise.

    Which signals and which part of them depends on the names of split unit and recording only, so all channels of a
    recording get the same noise. Raises BadInputError when fewer than two other sets are there, UsageError for a ratio
    that is no number.
    """
    if not math.isfinite(noise_db):
        raise UsageError(f"noise_db={noise_db} is no ratio; give decibels of signal over noise, e.g. 0 or -6")
    others = [name for name in NOISE if name != dataset and (data_dir / name / "meta.csv").is_file()]
    if len(others) < 2:
        raise BadInputError(
            f"{data_dir} has {len(others)} sets of noise for {dataset}; give a folder with two or more of "
            f"{', '.join(NOISE)} that are not {dataset} itself, or leave --noise-db out"
        )
    rows = {name: _rows(data_dir / name) for name in others}

    def mix(wave: FloatArray, row: dict[str, str]) -> FloatArray:
        of_unit = _random(dataset, row["split_unit"])
        names = of_unit.permutation(others)[:2]
        chosen = [(name, rows[name][int(of_unit.integers(len(rows[name])))]) for name in names]
        of_recording = _random(dataset, row["split_unit"], row["class"], row["recording"])
        rate_hz = int(row["sample_rate_hz"])
        noise = sum(
            _standardised(_part(_resampled(data_dir / name, facts, rate_hz), len(wave), of_recording))
            for name, facts in chosen
        )
        signal = wave.astype(np.float64)
        mixed: FloatArray = signal + signal.std() * 10 ** (-noise_db / 20) * _standardised(np.asarray(noise))
        return mixed

    return mix


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "meta.csv").open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def _random(*names: str) -> np.random.Generator:
    """Random numbers that the names determine, on any machine."""
    return np.random.default_rng(zlib.crc32("\n".join(names).encode()))


def _resampled(folder: Path, row: dict[str, str], rate_hz: int) -> FloatArray:
    """Samples of a recording at another rate."""
    wave = np.load(folder / row["file"], allow_pickle=False).astype(np.float64)
    ratio = Fraction(rate_hz, int(row["sample_rate_hz"])).limit_denominator(LARGEST_RATIO)
    resampled: FloatArray = resample_poly(wave - wave.mean(), ratio.numerator, ratio.denominator)
    return resampled


def _part(wave: FloatArray, length: int, random: np.random.Generator) -> FloatArray:
    """Take so many samples from a random one on, starting over at the end of the recording."""
    return np.resize(np.roll(wave, -int(random.integers(len(wave)))), length)


def _standardised(wave: FloatArray) -> FloatArray:
    """Mean 0, standard deviation 1; silence stays silence."""
    centered: FloatArray = wave - wave.mean()
    return centered / max(float(centered.std()), 1e-12)
