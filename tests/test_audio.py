"""Kept recordings: exact, whole or not there, bounded in bytes, under names that stay in their folder."""

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from fisher_edge.dsp.blocks import FloatArray, Rate
from fisher_edge.errors import BadInputError, StateError
from fisher_edge.names import ChannelKey
from fisher_edge.store.audio import AudioArchive, KeptTake

KEY = ChannelKey("pump-1", "vib-de")


def samples(seed: int, count: int = 1000) -> FloatArray:
    """Return samples far beyond what integers could hold."""
    return (1e4 * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def take(seed: int, rate_hz: Rate = 16_000, count: int = 1000) -> KeptTake:
    """Return a recording in three blocks."""
    return KeptTake(np.array_split(samples(seed, count), 3), rate_hz, count)


def tree(folder: Path) -> list[str]:
    """Return all files below a folder."""
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())


def test_recordings_come_back_exactly_and_in_order(tmp_path: Path) -> None:
    """More than ten recordings are kept as float WAV at their rate, sample by sample, in the order given."""
    archive = AudioArchive(tmp_path)
    assert archive.keep(KEY, None, 3, [take(seed) for seed in range(12)])
    files = archive.files(KEY, None, 3)
    assert len(files) == 12
    for seed, file in enumerate(files):
        read, rate_hz = soundfile.read(file, dtype="float32")
        assert rate_hz == 16_000
        np.testing.assert_array_equal(read, samples(seed))
    assert archive.files(KEY, None, 2) == archive.files(KEY, "inner", 3) == []


def test_fractional_rate_is_kept_as_numpy(tmp_path: Path) -> None:
    """WAV has whole rates only: other recordings are arrays, exact too."""
    archive = AudioArchive(tmp_path)
    archive.keep(KEY, None, 1, [take(seed, Fraction(15_625, 4)) for seed in range(2)])
    read = [np.load(file) for file in archive.files(KEY, None, 1)]
    assert [each.dtype for each in read] == [np.float32] * 2
    for seed, each in enumerate(read):
        np.testing.assert_array_equal(each, samples(seed))


def test_oldest_enrollments_go_first(tmp_path: Path) -> None:
    """When the bytes are spent the oldest versions make room, whatever their channel, and no more of them than needed.

    The folders together never exceed the bytes.
    """
    archive = AudioArchive(tmp_path, max_bytes=13_000)
    names = [(KEY, 1), (ChannelKey("pump-2", "a"), 1), (KEY, 2)]
    for age, (key, version) in zip((10, 30, 20), names, strict=True):
        assert archive.keep(key, None, version, [take(version)])
        (folder,) = {file.parent for file in archive.files(key, None, version)}
        os.utime(folder, (1e9 - age, 1e9 - age))
    assert archive.keep(KEY, "inner", 1, [take(9)])
    assert archive.files(ChannelKey("pump-2", "a"), None, 1) == []
    assert len(archive.files(KEY, None, 1)) == len(archive.files(KEY, None, 2)) == 1
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) <= 13_000


@pytest.mark.parametrize("max_bytes", [1501, 1749, 1999, 2000])
def test_cap_counts_what_is_on_the_disk(tmp_path: Path, max_bytes: int) -> None:
    """Many short recordings do not exceed the bytes by their headers."""
    archive = AudioArchive(tmp_path, max_bytes=max_bytes)
    for version in range(1, 30):
        archive.keep(KEY, None, version, [take(version, count=30)])
        assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) <= max_bytes
    assert archive.files(KEY, None, 29)


def test_version_that_is_read_meanwhile_makes_room_afterwards(tmp_path: Path) -> None:
    """Recordings kept again from the version before are read to their end although both do not fit."""
    archive = AudioArchive(tmp_path, max_bytes=7000)
    archive.keep(KEY, None, 1, [take(1)])
    (before,) = archive.files(KEY, None, 1)

    def lazily() -> Iterator[FloatArray]:
        yield soundfile.read(before, dtype="float32")[0]

    assert archive.keep(KEY, None, 2, [KeptTake(lazily(), 16_000, 1000)])
    (after,) = archive.files(KEY, None, 2)
    np.testing.assert_array_equal(soundfile.read(after, dtype="float32")[0], samples(1))
    assert archive.files(KEY, None, 1) == []


def test_enrollment_larger_than_the_cap_is_not_kept(tmp_path: Path) -> None:
    """It says so, writes nothing and deletes nothing."""
    archive = AudioArchive(tmp_path, max_bytes=10_000)
    archive.keep(KEY, None, 1, [take(1)])
    assert archive.keep(KEY, None, 2, [take(2, count=3000)]) is False
    assert len(archive.files(KEY, None, 1)) == 1
    assert archive.files(KEY, None, 2) == []


def broken_after_one() -> Iterator[FloatArray]:
    """Yield a block, then fail as a damaged file does."""
    yield samples(1, 10)
    raise BadInputError("damaged")


def test_recording_that_cannot_be_read_leaves_nothing(tmp_path: Path) -> None:
    """When a recording fails halfway its error comes through and no half enrollment is kept."""
    archive = AudioArchive(tmp_path)
    with pytest.raises(BadInputError, match="damaged"):
        archive.keep(KEY, None, 1, [take(1), KeptTake(broken_after_one(), 16_000, 1000)])
    assert archive.files(KEY, None, 1) == []
    assert tree(tmp_path) == []


def test_recording_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """A disk that refuses gives one line with the folder, and no half enrollment is kept."""

    def full() -> Iterator[FloatArray]:
        yield samples(1, 10)
        raise OSError(28, "No space left on device")

    archive = AudioArchive(tmp_path)
    with pytest.raises(StateError, match=r"cannot keep the recordings in .*No space left.*make room") as caught:
        archive.keep(KEY, None, 1, [KeptTake(full(), 16_000, 1000)])
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == []


def test_version_that_is_kept_again_replaces_the_old_one(tmp_path: Path) -> None:
    """What a removed baseline or a killed process left under the same version is not mixed in."""
    archive = AudioArchive(tmp_path)
    archive.keep(KEY, None, 1, [take(seed) for seed in range(3)])
    left = archive.files(KEY, None, 1)[0].parent.with_name("1.partial")
    left.mkdir()
    (left / "0007.wav").touch()
    archive.keep(KEY, None, 1, [take(9)])
    (file,) = archive.files(KEY, None, 1)
    np.testing.assert_array_equal(soundfile.read(file, dtype="float32")[0], samples(9))
    assert len(tree(tmp_path)) == 1


def test_forgetting_a_baseline_deletes_all_its_versions_and_nothing_else(tmp_path: Path) -> None:
    """The normal state and a fault called like its folder are different things."""
    archive = AudioArchive(tmp_path)
    for label in (None, "_normal", "inner"):
        for version in (1, 2):
            archive.keep(KEY, label, version, [take(version)])
    archive.forget(KEY, "inner")
    archive.forget(KEY, "never enrolled")
    assert [len(archive.files(KEY, label, 2)) for label in (None, "_normal", "inner")] == [1, 1, 0]
    archive.forget(KEY, None)
    assert [len(archive.files(KEY, label, 1)) for label in (None, "_normal", "inner")] == [0, 1, 0]


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../../x", "innen außen", "%2f", "a.b", "Öl\\x", "~"])
def test_names_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    """Whatever a label, an asset or a channel is called, its recordings lie four folders down and are found again."""
    archive = AudioArchive(tmp_path)
    for key, label in ((KEY, name), (ChannelKey(name, "c"), None), (ChannelKey("a", name), None)):
        archive.keep(key, label, 1, [take(1)])
        (file,) = archive.files(key, label, 1)
        assert len(file.relative_to(tmp_path / "audio").parts) == 5
        assert file.resolve().is_relative_to(tmp_path.resolve() / "audio")
        archive.forget(key, label)
        assert tree(tmp_path) == []


@given(left=st.text("ab%;2f/\u02fa", max_size=4), right=st.text("ab%;2f/\u02fa", max_size=4))
def test_different_labels_have_different_folders(left: str, right: str) -> None:
    """No two labels share their recordings, however they are escaped."""
    archive = AudioArchive(Path("state"))
    assert (archive._of(KEY, left, 1) == archive._of(KEY, right, 1)) is (left == right)
