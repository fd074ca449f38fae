"""The anomaly benchmark: its arithmetic, its split, and what it does with a dataset it cannot use."""

from pathlib import Path

import numpy as np
import pytest

from fisher_bench.anomaly import area_under_roc, areas_of
from fisher_edge.encoder.ort import EncoderSession
from fisher_edge.errors import BadInputError

RATE_HZ = 8000


def write_dataset(folder: Path, healthy: int) -> None:
    """Write a dataset: healthy units hum at 500 Hz, faulty ones have a second tone."""
    generator = np.random.default_rng(1)
    seconds = np.arange(3 * RATE_HZ) / RATE_HZ
    rows = ["file,class,split_unit,channel,sample_rate_hz,scale"]
    for number in range(healthy + 2):
        faulty = number >= healthy
        wave = np.sin(2 * np.pi * 500 * seconds) + 0.1 * generator.standard_normal(len(seconds))
        wave += faulty * np.sin(2 * np.pi * 3100 * seconds)
        np.save(folder / f"{number}.npy", np.round(8000 * wave).astype(np.int16))
        rows.append(f"{number}.npy,{'ball' if faulty else 'normal'},unit{number},A,{RATE_HZ},0.001")
        rows.append(f"missing.npy,normal,unit{number},B,{RATE_HZ},0.001")
    (folder / "meta.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def test_area_under_roc_counts_pairs() -> None:
    """The area is the share of pairs in the right order, ties counting half."""
    assert area_under_roc([0.1, 0.2], [0.3, 0.4]) == 1.0
    assert area_under_roc([0.3, 0.4], [0.1, 0.2]) == 0.0
    assert area_under_roc([0.1, 0.3], [0.2, 0.3]) == pytest.approx((1 + 0 + 1 + 0.5) / 4)


def test_areas_of_a_clear_fault_are_one(tmp_path: Path, encoder: EncoderSession) -> None:
    """Each healthy unit is held out once, and a tone that no healthy one has is always found."""
    write_dataset(tmp_path, healthy=3)
    assert areas_of(tmp_path, "A", encoder) == [1.0, 1.0, 1.0]


def test_areas_of_one_healthy_recording_are_refused(tmp_path: Path, encoder: EncoderSession) -> None:
    """With a single healthy unit nothing can be held out."""
    write_dataset(tmp_path, healthy=1)
    with pytest.raises(BadInputError, match="1 healthy recordings"):
        areas_of(tmp_path, "A", encoder)


def test_areas_of_a_folder_without_an_index_are_refused(tmp_path: Path, encoder: EncoderSession) -> None:
    """A folder that is no dataset is named."""
    with pytest.raises(BadInputError, match=r"meta\.csv"):
        areas_of(tmp_path, "A", encoder)
