"""Packing: numbers, rates and names survive exactly; a killed packing continues; bad recordings are named."""

import csv
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from webdataset import tariterators

from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.errors import BadInputError, UsageError
from fisher_train.encoder import PRESETS
from fisher_train.recordings.batches import BatchPlan, loader
from fisher_train.recordings.find import Bad, find
from fisher_train.recordings.pack import BAD, pack
from fisher_train.recordings.pairs import crop_pairs
from fisher_train.recordings.recording import Recording
from fisher_train.recordings.shards import INDEX

RATES = (1000, 16_000, 48_828, 97_656, 800_000)


def noise(seed: int, samples: int, channels: int = 1) -> np.ndarray:
    """Return noise (samples, channels) as int16."""
    return np.random.default_rng(seed).normal(0, 3000, (samples, channels)).astype(np.int16)


def run(inputs: list[Path], out: Path, shard_bytes: int = 200_000, segment_s: float = 60.0) -> list[Bad]:
    """Pack and return what was left out."""
    bad: list[Bad] = []
    for state in pack(inputs, out, shard_bytes=shard_bytes, segment_s=segment_s):
        bad = state.bad
    return bad


def signals(recordings: tuple[Recording, ...]) -> dict[tuple[str, str], tuple[int, np.ndarray]]:
    """Return the rate and all samples of every signal, its pieces in order; the same piece twice is an error."""
    found: dict[tuple[str, str], list[Recording]] = {}
    for one in sorted(recordings, key=lambda one: one.first):
        found.setdefault((one.name, one.label or str(one.channel)), []).append(one)
    joined = {}
    for name, pieces in found.items():
        assert [piece.first for piece in pieces] == [0, *np.cumsum([piece.samples for piece in pieces])[:-1]], name
        joined[name] = (pieces[0].rate_hz, np.concatenate([piece.read() for piece in pieces]))
    return joined


def assert_same_signals(packed: Path, originals: Path) -> None:
    """Compare every sample of every signal."""
    expected, found = signals(find([originals]).recordings), signals(find([packed]).recordings)
    assert found.keys() == expected.keys() != set()
    for name, (rate_hz, samples) in expected.items():
        assert found[name][0] == rate_hz
        assert np.array_equal(found[name][1], samples), name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return recordings of all kinds of numbers, odd rates, several channels, some longer than a piece."""
    root = tmp_path / "plant"
    root.mkdir()
    for place, rate_hz in enumerate(RATES):
        soundfile.write(root / f"r{rate_hz}.wav", noise(place, 20_000, 2), rate_hz, subtype="PCM_16")
    wide = noise(7, 30_000, 3).astype(np.int32) * 65_536 + 256 * 77
    soundfile.write(root / "wide.flac", wide, 8000, subtype="PCM_24")
    soundfile.write(root / "word.wav", wide + 5, 8000, subtype="PCM_32")
    soundfile.write(root / "float.wav", noise(8, 20_000) / np.float32(7), 8000, subtype="FLOAT")
    soundfile.write(root / "double.wav", noise(9, 20_000) / np.float64(7e5), 8000, subtype="DOUBLE")
    soundfile.write(root / "byte.wav", noise(10, 20_000), 8000, subtype="PCM_U8")
    arrays = root / "arrays"
    arrays.mkdir()
    rows = ""
    for name, dtype in (("a16", np.int16), ("a32", np.int32), ("a64", np.float64), ("a8", np.int8), ("u16", np.uint16)):
        np.save(arrays / f"{name}.npy", (noise(11, 9000)[:, 0] >> (8 if dtype == np.int8 else 0)).astype(dtype))
        rows += f"{name}.npy,97656,3.7e-05,unit,lab,acc\n"
    np.save(arrays / "two.npy", np.asfortranarray(noise(12, 9000, 2)))
    rows += "two.npy,51200,0.25,unit,lab,\n"
    (arrays / "meta.csv").write_text("file,sample_rate_hz,scale,split_unit,dataset,channel\n" + rows)
    return root


def test_numbers_and_rates_survive_exactly(folder: Path, tmp_path: Path) -> None:
    """Integers of 8 to 32 bits, floats and scaled arrays come out of the shards bit by bit, at any rate."""
    assert run([folder], tmp_path / "out", segment_s=1.0) == []
    assert_same_signals(tmp_path / "out", folder)
    found = {Path(one.name).name: one for one in find([tmp_path / "out"]).recordings}
    assert (found["a16.npy"].dataset, found["a16.npy"].unit, found["a16.npy"].label) == ("lab", "unit", "acc")
    assert len({one.path for one in found.values()}) > 2
    pieces = [one.samples for one in find([tmp_path / "out"]).recordings if one.name == "plant/r1000.wav"]
    assert pieces == [1000] * 2 * 20


def test_sixteen_and_twentyfour_bits_are_flac(folder: Path, tmp_path: Path) -> None:
    """What FLAC can hold is FLAC; the rest, and rates that a FLAC stream cannot state, are arrays."""
    run([folder], tmp_path / "out")
    kinds = {Path(one.name).name: one.encoding for one in find([tmp_path / "out"]).recordings}
    sound = {"r1000.wav", "r16000.wav", "r48828.wav", "wide.flac", "byte.wav", "two.npy"}
    assert {name for name, kind in kinds.items() if kind == "sound"} == sound


def test_webdataset_reads_the_shards(folder: Path, tmp_path: Path) -> None:
    """The library of that name finds the same samples, by their keys."""
    run([folder], tmp_path / "out")
    samples = []
    for shard in sorted((tmp_path / "out").glob("*.tar")):
        with shard.open("rb") as file:  # WebDataset(shards) leaves its files open
            members = tariterators.tar_file_expander([{"url": str(shard), "stream": file}])
            samples += [sample for sample in tariterators.group_by_keys(members) if "__key__" in sample]
    assert len(samples) == len(find([tmp_path / "out"]).recordings)
    for sample in samples:
        assert sample["__key__"]
        facts = json.loads(sample["json"])
        assert facts["rate_hz"] in {*RATES, 8000, 97_656, 51_200}
        assert ("flac" in sample) == (facts["encoding"] == "sound")


def test_shards_of_others_are_read(tmp_path: Path) -> None:
    """A WebDataset shard of sounds without our JSON gives its channels; one of bare arrays is named as bad."""
    wave = noise(1, 4000, 2)
    soundfile.write(tmp_path / "0001.flac", wave, 22_050)
    np.save(tmp_path / "0002.npy", wave)
    with tarfile.open(tmp_path / "foreign.tar", "w") as tar:
        tar.add(tmp_path / "0001.flac", "0001.flac")
    with tarfile.open(tmp_path / "arrays.tar", "w") as tar:
        tar.add(tmp_path / "0002.npy", "0002.npy")
    for name in ("0001.flac", "0002.npy"):
        (tmp_path / name).unlink()
    corpus = find([tmp_path])
    assert [(one.rate_hz, one.samples) for one in corpus.recordings] == [(22_050, 4000)] * 2
    assert np.array_equal(corpus.recordings[1].read(100, 50), wave[100:150, 1] / np.float32(2**15))
    assert [("rate" in bad.reason, bad.path.name) for bad in corpus.bad] == [(True, "arrays.tar")]


def test_index_says_what_the_members_say(folder: Path, tmp_path: Path) -> None:
    """Recordings are the same with the index, without it, and with one that has fallen behind."""
    run([folder], tmp_path / "out")
    index = tmp_path / "out" / INDEX
    counts = json.loads(index.read_text())["summary"]
    with_index = find([tmp_path / "out"]).recordings
    assert counts["pieces"] == len(with_index)
    assert counts["seconds"] == pytest.approx(sum(one.seconds for one in with_index), abs=0.01)
    assert set(counts["seconds_by_rate_hz"]) == {str(one.rate_hz) for one in with_index}
    old = index.read_text()
    soundfile.write(folder / "later.wav", noise(20, 90_000), 8000)
    run([folder], tmp_path / "out")
    later = find([tmp_path / "out"]).recordings
    index.write_text(old)
    os.utime(index)
    assert find([tmp_path / "out"]).recordings == later
    index.unlink()
    assert find([tmp_path / "out"]).recordings == later
    index.write_text(old)
    first, second = sorted((tmp_path / "out").glob("*.tar"))[:2]
    first.rename(tmp_path / "out" / "third.tar")
    second.rename(first)
    (tmp_path / "out" / "third.tar").rename(second)
    assert_same_signals(tmp_path / "out", folder)
    assert len(later) == len(with_index) + 1


def test_killed_packing_continues_without_loss_or_repetition(tmp_path: Path) -> None:
    """After kill -9 in the middle of a shard, the same command ends with every signal once, bit by bit."""
    root, out = tmp_path / "plant", tmp_path / "out"
    root.mkdir()
    for place in range(15):
        soundfile.write(root / f"r{place:02d}.wav", noise(place, 160_000, 2), 16_000)
    command = [sys.executable, "-m", "fisher_edge.cli", "train-data", "pack", str(root), "--out", str(out)]
    command += ["--shard-mb", "0.7", "--segment-s", "4"]
    for shard in ("shard-000001.tar", "shard-000005.tar"):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as packing:
            deadline = time.monotonic() + 60
            while not (out / shard).exists() or not list(out.glob(".*.part")):
                assert packing.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.002)
            packing.send_signal(signal.SIGKILL)
        assert packing.returncode == -signal.SIGKILL
        assert not (out / INDEX).exists()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert before.items() <= after.items()
    assert len(after) > len(before)
    assert not list(out.glob(".*.part"))
    assert_same_signals(out, root)
    counts = Counter((one.name, one.label, one.first) for one in find([out]).recordings)
    assert len(counts) == 15 * 2 * 3
    assert set(counts.values()) == {1}


def test_bad_recordings_are_named_and_left_out(tmp_path: Path) -> None:
    """Every kind of unusable recording gives its own line in the report; the rest is packed."""
    root = tmp_path / "plant"
    root.mkdir()
    good = noise(1, 16_000)
    soundfile.write(root / "good.wav", good, 8000)
    (root / "unreadable.wav").write_bytes(b"RIFF" + bytes(60))
    (root / "empty.wav").touch()
    soundfile.write(root / "nothing.wav", good[:0], 8000)
    soundfile.write(root / "short.wav", good[:150], 8000)
    soundfile.write(root / "slow.wav", good, 50)
    soundfile.write(root / "flat.wav", np.full(16_000, 7, np.int16), 8000)
    soundfile.write(root / "clipped.wav", np.clip(good, -2000, 2000), 8000)
    broken = (good / np.float32(2**15)).repeat(2, axis=1)
    broken[5000, 1] = np.nan
    soundfile.write(root / "nan.wav", broken, 8000, subtype="FLOAT")
    np.save(root / "infinite.npy", np.array([1.0, np.inf] * 8000))
    np.save(root / "text.npy", np.array(["a", "b"]))
    (root / "meta.csv").write_text("file,sample_rate_hz\ninfinite.npy,8000\ntext.npy,8000\nabsent.npy,8000\n")
    soundfile.write(root / "cut.flac", noise(2, 160_000), 8000)
    os.truncate(root / "cut.flac", 100_000)
    bad = run([root], tmp_path / "out", segment_s=5.0)
    words = {
        "unreadable.wav": "cannot be read",
        "empty.wav": "cannot be read",
        "nothing.wav": "no samples",
        "short.wav": "too short: 150 samples",
        "slow.wav": "rate of 50 Hz, outside 100",
        "flat.wav": "flat line",
        "clipped.wav": "clipped",
        "nan.wav": "channel 1: 1 samples are not finite",
        "infinite.npy": "not finite",
        "text.npy": "not numbers",
        "absent.npy": "no file",
        "cut.flac": "cut.flac",
    }
    assert sorted(one.path.name for one in bad) == sorted(words)
    with (tmp_path / "out" / BAD).open(newline="") as file:
        report = {Path(row["file"]).name: row["reason"] for row in csv.DictReader(file)}
    for name, expected in words.items():
        assert expected in report[name]
        assert "\n" not in report[name]
    names = Counter(Path(one.name).name for one in find([tmp_path / "out"]).recordings)
    assert names.pop("cut.flac") < 4  # the pieces before the damage
    assert names == {"good.wav": 1, "nan.wav": 1}


def test_file_cut_short_while_packing_is_named(tmp_path: Path) -> None:
    """A file that has lost samples since it was found is left out from there on."""
    (tmp_path / "plant").mkdir()
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / "plant" / name, noise(1, 40_000), 8000)
    steps = pack([tmp_path / "plant"], tmp_path / "out", shard_bytes=10_000, segment_s=1.0)
    next(steps)
    os.truncate(tmp_path / "plant" / "b.wav", 44 + 2 * 21_000)
    *_, last = steps
    assert ["b.wav gives 5000 of 8000 samples from 16000 on" in one.reason for one in last.bad] == [True]
    kept = Counter(one.name for one in find([tmp_path / "out"]).recordings)
    assert kept == {"plant/a.wav": 5, "plant/b.wav": 2}


def test_flat_part_of_a_long_recording_is_left_out_alone(tmp_path: Path) -> None:
    """Only the pieces that are of no use are missing; the report says from when to when."""
    (tmp_path / "plant").mkdir()
    wave = noise(3, 80_000)
    wave[20_000:43_000] = 0  # the third piece loses too little to be of no use
    soundfile.write(tmp_path / "plant" / "long.wav", wave, 8000)
    bad = run([tmp_path / "plant"], tmp_path / "out", segment_s=2.5)
    assert [one.reason.split("long.wav")[1] for one in bad] == [", 2.500 to 5.000 s: flat line: every sample is 0"]
    assert [one.first for one in find([tmp_path / "out"]).recordings] == [0, 40_000, 60_000]


def test_nothing_usable_is_an_error_with_a_report(tmp_path: Path) -> None:
    """A folder of bad recordings makes no shards, one line and the report."""
    (tmp_path / "plant").mkdir()
    soundfile.write(tmp_path / "plant" / "flat.wav", np.zeros(16_000), 8000)
    with pytest.raises(BadInputError, match=r"no usable recording; the first of 1 is .*flat line"):
        run([tmp_path / "plant"], tmp_path / "out")
    assert "flat.wav" in (tmp_path / "out" / BAD).read_text()


def test_folder_that_cannot_be_continued_is_refused(folder: Path, tmp_path: Path) -> None:
    """Other pieces, a changed file, equal names, a second process and a file as folder are one line each."""
    out = tmp_path / "out"
    run([folder], out)
    with pytest.raises(UsageError, match=r"was packed with .*60.* not .*30"):
        run([folder], out, segment_s=30)
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="being packed by another process"):
            run([folder], out)
    soundfile.write(folder / "r16000.wav", noise(1, 40_000, 2), 16_000)
    with pytest.raises(BadInputError, match=r"r16000.wav had 80044 bytes .* has 160044 now"):
        run([folder], out)
    with pytest.raises(UsageError, match="cannot be used as a folder"):
        run([folder], folder / "wide.flac")
    (tmp_path / "elsewhere" / "plant").mkdir(parents=True)
    soundfile.write(tmp_path / "elsewhere" / "plant" / "r1000.wav", noise(1, 4000), 1000)
    with pytest.raises(BadInputError, match=r"would both be called plant/r1000.wav"):
        run([folder, tmp_path / "elsewhere" / "plant"], tmp_path / "other")


def test_full_disk_is_one_line_and_the_command_continues(folder: Path, tmp_path: Path) -> None:
    """When a shard can no longer be written, the complete ones stay, and a second run ends the work."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "fisher_edge.cli", "train-data", "pack", str(folder), "--out", str(out)]
    command += ["--shard-mb", "0.25"]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (280_000, 280_000))

    failed = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)
    assert failed.returncode == 4
    assert failed.stderr.splitlines()[-1].startswith("error: ")
    assert "cannot be read or written" in failed.stderr
    assert list(out.glob("*.tar"))
    assert run([folder], out) == []
    assert_same_signals(out, folder)


def test_training_draws_the_same_from_shards_and_files(tmp_path: Path) -> None:
    """Batches and pairs do not depend on where the recordings lie."""
    (tmp_path / "plant").mkdir()
    for place, rate_hz in enumerate((8000, 97_656)):
        soundfile.write(tmp_path / "plant" / f"r{place}.wav", noise(place, rate_hz), rate_hz)
    run([tmp_path / "plant"], tmp_path / "out")
    files, shards = find([tmp_path / "plant"]), find([tmp_path / "out"])
    front_end = FrontEnd(band_width=50, top_band="pad", amplitude="standardise")
    plan = BatchPlan(0, front_end, PRESETS["nano"], signals=3, frames=64, max_cloned_bands=16)
    from_files, from_shards = (loader(corpus, plan, workers=0) for corpus in (files, shards))
    for _ in range(6):
        assert torch.equal(next(from_files).bands, next(from_shards).bands)
    one, other = (crop_pairs(corpus, front_end, np.random.default_rng(1), 4, 24) for corpus in (files, shards))
    assert np.array_equal(one, other)
