"""From segments to embeddings: windows, the cache, several processes, a killed run, a cluster."""

import json
import os
import signal
import sqlite3
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
from command import COMMAND, run

from fisher_bench.rmis.adapters import open_adapter
from fisher_bench.rmis.catalogue import find
from fisher_bench.rmis.embed.cache import EmbeddingCache
from fisher_bench.rmis.embed.clip import embed_clip, windows_of
from fisher_bench.rmis.embed.run import embed_set, read_facts
from fisher_bench.rmis.index import Index, Segment, read_index, write_index
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.errors import BadInputError, UsageError

KNOWN = find("pu_vib")


def _set(folder: Path, count: int, samples: int = 6400) -> Path:
    """Prepare a set of `count` short clips of three classes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    segments = []
    for number in range(count):
        label = KNOWN.classes[number % 3]
        file = f"{label}_{number:04d}.wav"
        wave = rng.standard_normal(samples) * 0.05 + 0.2 * np.sin(np.arange(samples) * (0.1 + 0.2 * (number % 3)))
        soundfile.write(folder / file, wave, KNOWN.rate_hz)
        segments.append(
            Segment(file, file, "vibration", KNOWN.rate_hz, samples, label, number % 3, f"{label}_{number // 6}")
        )
    write_index(folder, Index(tuple(segments), {"name": KNOWN.name}))
    return folder


def _lengths(samples: int, rate_hz: int, window_s: float) -> list[int]:
    return [len(window) for window in windows_of(np.ones(samples, np.float32), rate_hz, window_s)]


def test_windows_follow_the_protocol() -> None:
    """One padded window, or consecutive ones and one more that ends with the signal when 5 % are left."""
    assert _lengths(500, 100, 10) == [1000]
    assert _lengths(1000, 100, 10) == [1000]
    assert _lengths(1049, 100, 10) == [1000]
    assert _lengths(1050, 100, 10) == [1000, 1000]
    assert _lengths(2000, 100, 10) == [1000, 1000]
    ramp = np.arange(2500, dtype=np.float32)
    windows = list(windows_of(ramp, 100, 10))
    assert [window[0] - window[-1] for window in windows] == [-999.0] * 3
    for window, start in zip(windows, (0, 1000, 1500), strict=True):
        assert window.tolist() == pytest.approx(
            (ramp[start : start + 1000] - ramp[start : start + 1000].mean()).tolist()
        )
    (short,) = windows_of(np.full(600, 3.0, np.float32), 100, 10)
    assert not short.any()  # the mean goes before the zeros come


def test_embedding_of_a_clip_is_the_mean_of_its_windows() -> None:
    """Three windows of a clip weigh alike."""
    adapter = open_adapter("cheap:mean-std")
    wave = np.random.default_rng(0).standard_normal(16_000 * 3).astype(np.float32)
    parts = [adapter.embed(window, 16_000) for window in windows_of(wave, 16_000, 1.0)]
    assert len(parts) == 3
    assert embed_clip(adapter, wave, 16_000, 1.0) == pytest.approx(np.mean(parts, axis=0), abs=1e-6)


def test_command_makes_what_score_reads(tmp_path: Path) -> None:
    """Embed, then score: rows in the order of the index, classes found, facts in `embed.json`."""
    folder = _set(tmp_path / "set", 60)
    out = tmp_path / "runs" / "log-mel" / "pu_vib"
    done = run("rmis", "embed", folder, "--model", "cheap:log-mel", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["clips"], facts["new_clips"], facts["set_name"]) == (60, 60, "pu_vib")
    assert facts["hours_per_hour"] > 0
    vectors = np.load(out / "embeddings.npy")
    index = read_index(folder)
    adapter = open_adapter("cheap:log-mel")
    for row in (0, 31, 59):
        wave, rate_hz = soundfile.read(folder / index.segments[row].path, dtype="float32")
        assert vectors[row] == pytest.approx(embed_clip(adapter, wave, rate_hz, KNOWN.window_s), abs=1e-6)
    scored = run(
        "rmis", "score", "--dataset", "pu_vib", "--files", out / "files.csv", "--embeddings", out / "embeddings.npy",
        "--curve", "--rule", "trapezoid", "--json",
    )  # fmt: skip
    result = json.loads(scored.stdout)
    assert result["mean_macro_accuracy"] == 100.0
    assert result["rule"] == "trapezoid"
    assert result["area"] > 90


def test_what_is_in_the_cache_is_not_embedded_again(tmp_path: Path) -> None:
    """A second run computes nothing; a changed file, another model or another window length does."""
    folder, cache = _set(tmp_path / "set", 12), tmp_path / "cache"
    first = embed_set(KNOWN, folder, "cheap:mean-std", tmp_path / "a", cache=cache)
    again = embed_set(KNOWN, folder, "cheap:mean-std", tmp_path / "b", cache=cache)
    assert (first.new_clips, again.new_clips) == (12, 0)
    assert (tmp_path / "a/embeddings.npy").read_bytes() == (tmp_path / "b/embeddings.npy").read_bytes()
    path = folder / read_index(folder).segments[4].path
    soundfile.write(path, np.random.default_rng(9).standard_normal(6400) * 0.1, KNOWN.rate_hz)
    changed = embed_set(KNOWN, folder, "cheap:mean-std", tmp_path / "c", cache=cache)
    assert changed.new_clips == 1
    before, after = np.load(tmp_path / "a/embeddings.npy"), np.load(tmp_path / "c/embeddings.npy")
    assert np.flatnonzero((before != after).any(axis=1)).tolist() == [4]
    assert embed_set(KNOWN, folder, "cheap:log-mel", tmp_path / "d", cache=cache).new_clips == 12
    assert read_facts(tmp_path / "d").digest != first.digest


def _write_twins(folder: Path, names: tuple[str, str]) -> None:
    """Write two different clips of one size and one time of change, as archives unpack them."""
    for number, name in enumerate(names):
        wave = np.random.default_rng(number).standard_normal(6400) * 0.1
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, wave, KNOWN.rate_hz)
        os.utime(folder / name, (315_532_800, 315_532_800))  # 1980-01-01, where an archive has no time


def test_files_of_one_name_in_two_folders_have_embeddings_of_their_own(tmp_path: Path) -> None:
    """DCASE names the files of every machine alike; size and time may be alike too."""
    names = ("fan/normal_id_00_00000000.wav", "pump/normal_id_00_00000000.wav")
    _write_twins(tmp_path / "set", names)
    segments = tuple(Segment(name, name, "vibration", KNOWN.rate_hz, 6400, "OR", 2, name) for name in names)
    write_index(tmp_path / "set", Index(segments, {"name": KNOWN.name}))
    facts = embed_set(KNOWN, tmp_path / "set", "cheap:mean-std", tmp_path / "out", cache=tmp_path / "cache")
    fan, pump = np.load(tmp_path / "out/embeddings.npy")
    assert facts.new_clips == 2
    assert not np.array_equal(fan, pump)
    adapter = open_adapter("cheap:mean-std")
    for row, name in ((fan, names[0]), (pump, names[1])):
        wave, rate_hz = soundfile.read(tmp_path / "set" / name, dtype="float32")
        assert row == pytest.approx(embed_clip(adapter, wave, rate_hz, KNOWN.window_s), abs=1e-6)


def test_two_sets_of_one_layout_share_a_cache_but_no_embedding(tmp_path: Path) -> None:
    """The name of the set belongs to the key: equal paths, sizes and times in two sets are two recordings."""
    rows = []
    for number, known in enumerate((KNOWN, find("sdust_bearing"))):
        folder = tmp_path / known.name
        _write_twins(folder, ("a.wav", "b.wav"))
        file = "ab"[number] + ".wav"
        (folder / file).replace(folder / "0.wav")
        segment = Segment("0.wav", "0.wav", "vibration", KNOWN.rate_hz, 6400, known.classes[0], 0, "k")
        write_index(folder, Index((segment,), {"name": known.name}))
        same_window = replace(known, window_s=KNOWN.window_s)
        embed_set(same_window, folder, "cheap:mean-std", tmp_path / "out", cache=tmp_path / "cache")
        rows.append(np.load(tmp_path / "out/embeddings.npy")[0])
    assert not np.array_equal(*rows)


def test_cache_whose_keys_were_names_alone_is_emptied(tmp_path: Path) -> None:
    """An entry of the first format may belong to another file; what it cost to make is still counted."""
    with EmbeddingCache(tmp_path, "a" * 64, 10) as cache:
        cache.add([("x", np.zeros(4, np.float32))], 0.5, 10.0)
        path = cache.path
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 0")  # as the first format left it
    database.close()
    with EmbeddingCache(tmp_path, "a" * 64, 10) as cache:
        assert cache.known(["x"]) == set()
        assert cache.spent() == (0.5, 10.0)


def test_several_processes_give_what_one_gives(tmp_path: Path) -> None:
    """The number of workers changes nothing, and progress is reported to the end."""
    folder = _set(tmp_path / "set", 24)
    told: list[int] = []
    embed_set(KNOWN, folder, "cheap:mean-std", tmp_path / "a", cache=tmp_path / "one")
    embed_set(
        KNOWN, folder, "cheap:mean-std", tmp_path / "b", cache=tmp_path / "two", workers=2,
        report=lambda done, total: told.append(done * 100 // total),
    )  # fmt: skip
    assert (tmp_path / "a/embeddings.npy").read_bytes() == (tmp_path / "b/embeddings.npy").read_bytes()
    assert told[-1] == 100
    assert len(told) == 24


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_loses_seconds_and_leaves_nobody_behind(workers: int, tmp_path: Path) -> None:
    """After SIGKILL the same command embeds only what is missing; worker processes end with their parent."""
    folder = _set(tmp_path / "set", 140)
    command = [*COMMAND, "rmis", "embed", str(folder), "--model", "default", "--workers", str(workers), "--json"]
    command += ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while _kept(tmp_path / "cache") < 20:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    kept = _kept(tmp_path / "cache")
    done = run(*command[len(COMMAND) :])
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["new_clips"] == 140 - kept < 140
    assert np.isfinite(np.load(tmp_path / "out/embeddings.npy")).all()


def _kept(cache: Path) -> int:
    """Count the embeddings in a cache as another process sees them."""
    for path in cache.glob("*.sqlite3"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            try:
                return int(database.execute("SELECT count(*) FROM embedding").fetchone()[0])
            except sqlite3.OperationalError:  # not made yet
                return 0
    return 0


@pytest.mark.extras
def test_ray_gives_what_one_process_gives(tmp_path: Path) -> None:
    """A Ray cluster of this machine embeds the same numbers."""
    folder = _set(tmp_path / "set", 20)
    embed_set(KNOWN, folder, "cheap:mean-std", tmp_path / "a", cache=tmp_path / "one")
    arguments = ["--out", str(tmp_path / "b"), "--cache", str(tmp_path / "two"), "--ray", "local", "--json"]
    command = [*COMMAND, "rmis", "embed", str(folder), "--model", "cheap:mean-std", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["new_clips"] == 20
    assert np.load(tmp_path / "a/embeddings.npy") == pytest.approx(np.load(tmp_path / "b/embeddings.npy"), abs=1e-6)


def test_a_clip_that_cannot_be_embedded_does_not_stop_the_others(tmp_path: Path) -> None:
    """A damaged file is named at the end; the rest is kept and not computed again."""
    folder, cache = _set(tmp_path / "set", 9), tmp_path / "cache"
    path = folder / read_index(folder).segments[2].path
    good = path.read_bytes()
    path.write_bytes(b"RIFF")
    with pytest.raises(BadInputError, match=rf"1 clips cannot be embedded \(the others are kept\).*{path.name}"):
        embed_set(KNOWN, folder, "cheap:mean-std", tmp_path / "out", cache=cache)
    assert not (tmp_path / "out/embeddings.npy").exists()
    path.write_bytes(good)
    assert embed_set(KNOWN, folder, "cheap:mean-std", tmp_path / "out", cache=cache).new_clips == 1
    path.unlink()
    with pytest.raises(BadInputError, match=r"is not there .*prepare the set again"):
        embed_set(KNOWN, folder, "cheap:mean-std", tmp_path / "out", cache=cache)


def test_a_full_disk_ends_with_one_line_and_loses_nothing(tmp_path: Path) -> None:
    """Where no more can be written the command says so with exit code 4; with room again it continues."""
    folder = _set(tmp_path / "set", 60)
    arguments = ["--model", "cheap:mean-log-stft", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    command = " ".join([*COMMAND, "rmis", "embed", str(folder), *arguments])
    limited = ["sh", "-c", f"trap '' XFSZ; ulimit -f 100; exec {command}"]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert "make room" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    embed_set(KNOWN, folder, "cheap:mean-log-stft", tmp_path / "out", cache=tmp_path / "cache")
    assert len(np.load(tmp_path / "out/embeddings.npy")) == 60


def test_a_set_of_two_rates_is_refused(tmp_path: Path) -> None:
    """Embeddings of different widths are not put into one table."""
    folder = _set(tmp_path / "set", 4)
    index = read_index(folder)
    soundfile.write(folder / "other.wav", np.random.default_rng(0).standard_normal(3200) * 0.1, 32_000)
    other = Segment("other.wav", "other.wav", "vibration", 32_000, 3200, "OR", 2, "x")
    write_index(folder, Index((*index.segments, other), index.facts))
    with pytest.raises(BadInputError, match=r"its rate of .* differs from theirs"):
        embed_set(KNOWN, folder, "cheap:mean-std", tmp_path / "out", cache=tmp_path / "cache")


def test_cache_has_one_writer_and_survives_damage_with_a_message(tmp_path: Path) -> None:
    """A second process gets an error that says to wait; a damaged file says what to do."""
    vector: FloatArray = np.arange(4, dtype=np.float32)
    with EmbeddingCache(tmp_path, "a" * 64, 10) as cache:
        cache.add([("x", vector)], 0.5, 10.0)
        with pytest.raises(UsageError, match="is in use by another"):
            EmbeddingCache(tmp_path, "a" * 64, 10)
    with EmbeddingCache(tmp_path, "a" * 64, 10) as cache:
        assert cache.vector("x").tolist() == vector.tolist()
        assert cache.known(["x", "y"]) == {"x"}
        assert cache.spent() == (0.5, 10.0)
        with pytest.raises(KeyError):
            cache.vector("y")
        path = cache.path
    path.write_bytes(b"not a database, but as long as its head " * 40)
    with pytest.raises(BadInputError, match=r"is damaged .*delete it"):
        EmbeddingCache(tmp_path, "a" * 64, 10)


def test_bad_input_of_the_command_is_one_line(tmp_path: Path) -> None:
    """No index, an index of no known set, an unknown encoder: one line and the documented code."""
    folder = _set(tmp_path / "set", 3)
    cases = [
        ((tmp_path, "--model", "default"), 4, "rmis prepare"),
        ((folder, "--model", "cheap:log-mell"), 2, "log-mel"),
        ((folder, "--model", "/nowhere.pt"), 5, "/nowhere.pt"),
    ]
    for arguments, code, text in cases:
        done = run("rmis", "embed", *arguments, "--out", tmp_path / "out")
        assert done.returncode == code, done.stderr
        assert text in done.stderr
        assert len(done.stderr.splitlines()) == 1
    (folder / "index.parquet").write_bytes(b"PAR1 no PAR1")
    done = run("rmis", "embed", folder, "--out", tmp_path / "out")
    assert done.returncode == 4
    assert "prepare the set again" in done.stderr
