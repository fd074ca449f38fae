"""Engines kept between starts: found again, built again when anything differs, and built once by two processes."""

import json
import logging
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from fisher_edge.encoder import engines
from fisher_edge.encoder.engines import Key, open_engine, private_folder
from fisher_edge.errors import StateError

KEY: Key = {"runtime": "tensorrt", "version": "10.3", "device": "Orin SM 8.7", "model": "ab", "precision": "fp16"}


class Builder:
    """Builds engines that say how many were built before, and loads those that it has built."""

    def __init__(self) -> None:
        self.built = 0

    def build(self) -> bytes:
        """Build the next engine."""
        self.built += 1
        return f"engine {self.built}".encode()

    def load(self, data: bytes) -> str | None:
        """Return what was built; None for anything else."""
        return data.decode() if data.startswith(b"engine ") else None


@pytest.fixture
def builder() -> Builder:
    """Return a builder."""
    return Builder()


def open_with(builder: Builder, folder: Path, **changes: str) -> str:
    """Open the engine of a key."""
    return open_engine(folder, KEY | changes, builder.build, builder.load)


def files(folder: Path, kind: str = "engine") -> list[Path]:
    """Return the files of a kind."""
    return sorted(folder.glob(f"*.{kind}"))


def test_engine_is_built_once(tmp_path: Path, builder: Builder) -> None:
    """The second start finds what the first has built, and nothing but whole files lie there."""
    folder = tmp_path / "cache" / "engines"
    assert [open_with(builder, folder) for _ in range(3)] == ["engine 1"] * 3
    (engine,), (facts,) = files(folder), files(folder, "json")
    assert json.loads(facts.read_text())["key"] == KEY
    assert {path.name for path in folder.iterdir()} == {engine.name, facts.name, "lock"}


@pytest.mark.parametrize("part", list(KEY))
def test_engine_of_another_key_is_another(tmp_path: Path, builder: Builder, part: str) -> None:
    """Another version, GPU, model or precision has an engine of its own."""
    open_with(builder, tmp_path)
    assert open_with(builder, tmp_path, **{part: "other"}) == "engine 2"


@pytest.mark.parametrize("part", ["version", "device"])
def test_engine_that_an_update_has_replaced_is_deleted(tmp_path: Path, builder: Builder, part: str) -> None:
    """After an update of the library or another GPU the old engine goes; that of another model stays."""
    open_with(builder, tmp_path, model="cd")
    open_with(builder, tmp_path)
    open_with(builder, tmp_path, **{part: "new"})
    kept = [json.loads(path.read_text())["key"] for path in files(tmp_path, "json")]
    assert sorted(key["model"] for key in kept) == ["ab", "cd"]
    assert (KEY | {part: "new"}) in kept
    assert len(files(tmp_path)) == 2


def test_oldest_engines_leave(tmp_path: Path, builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than a fixed number is kept: those used last."""
    monkeypatch.setattr(engines, "KEPT", 3)
    for number in range(3):
        open_with(builder, tmp_path, model=str(number))
        os.utime(files(tmp_path)[-1], (number, number))
    for path in files(tmp_path, "json"):
        os.utime(path.with_suffix(".engine"), (1000 + int(json.loads(path.read_text())["key"]["model"]),) * 2)
    open_with(builder, tmp_path, model="0")
    open_with(builder, tmp_path, model="3")
    kept = {json.loads(path.read_text())["key"]["model"] for path in files(tmp_path, "json")}
    assert kept == {"0", "2", "3"}


def flip(path: Path) -> None:
    """Change the last byte of a file."""
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip(files(folder)[0]),
        lambda folder: files(folder)[0].write_bytes(b""),
        lambda folder: files(folder)[0].write_bytes(files(folder)[0].read_bytes()[:-1]),
        lambda folder: files(folder, "json")[0].unlink(),
        lambda folder: files(folder, "json")[0].write_text("{"),
        lambda folder: files(folder, "json")[0].write_text("[]"),
        lambda folder: files(folder, "json")[0].write_text(
            files(folder, "json")[0].read_text().replace("10.3", "10.4")
        ),
    ],
)
def test_damaged_engine_is_built_again(
    tmp_path: Path, builder: Builder, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    """A changed byte, a cut file, a lost or foreign record: a line in the log and a new engine, which is then kept."""
    open_with(builder, tmp_path)
    damage(tmp_path)
    assert [open_with(builder, tmp_path) for _ in range(2)] == ["engine 2"] * 2
    assert caplog.text.count("it is built again") == 1


def test_engine_that_the_library_refuses_is_built_again(
    tmp_path: Path, builder: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    """What is there as it was written, but is no engine to the library, is replaced."""
    open_engine(tmp_path, KEY, lambda: b"of another time", bytes.decode)
    assert open_with(builder, tmp_path) == "engine 1"
    assert "the library refuses the engine" in caplog.text
    assert open_with(builder, tmp_path) == "engine 1"


def test_new_engine_that_cannot_be_loaded_is_an_error(tmp_path: Path) -> None:
    """It is not kept, and the error names the key."""
    with pytest.raises(StateError, match=r"just built for .*Orin SM 8\.7"):
        open_engine(tmp_path, KEY, lambda: b"nothing", lambda _: None)
    assert not files(tmp_path)


def test_failed_build_leaves_nothing(tmp_path: Path, builder: Builder) -> None:
    """An error of the build comes out as it is, and the next start builds."""

    def fail() -> bytes:
        raise MemoryError("no memory")

    with pytest.raises(MemoryError):
        open_engine(tmp_path, KEY, fail, builder.load)
    assert open_with(builder, tmp_path) == "engine 1"


def test_folder_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else may write engines, which are run; a folder of another user is refused."""
    folder = tmp_path / "engines"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    assert private_folder(folder).stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(StateError, match="belongs to another user"):
        private_folder(folder)


def test_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """A file in its place is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"cannot use the folder .*file/engines"):
        private_folder(tmp_path / "file" / "engines")


def test_full_disk_costs_only_the_next_build(
    tmp_path: Path, builder: Builder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The engine is used although it cannot be kept."""

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert open_with(builder, tmp_path) == "engine 1"
    assert "No space left on device" in caplog.text
    assert open_with(builder, tmp_path) == "engine 2"


def _start(folder: Path, pipe: Connection) -> None:
    """Open the engine in a process of its own; the build waits for the parent."""

    def build() -> bytes:
        pipe.send("building")
        pipe.recv()
        return f"engine of {os.getpid()}".encode()

    pipe.send(os.getpid())
    pipe.send(open_engine(folder, KEY, build, bytes.decode))


def waits_for_a_lock(process: int) -> bool:
    """Whether the kernel holds a process back at a lock of a file."""
    return any(f" {process} " in line for line in Path("/proc/locks").read_text().splitlines() if "->" in line)


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="no /proc/locks here")
def test_two_processes_build_one_engine(tmp_path: Path) -> None:
    """The second waits while the first builds, and then takes its engine."""
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(2):
        ours, theirs = spawn.Pipe()
        processes.append(spawn.Process(target=_start, args=(tmp_path, theirs), daemon=True))
        pipes.append(ours)
    first, second = pipes
    processes[0].start()
    number = first.recv()
    assert first.recv() == "building"
    processes[1].start()
    waiting = second.recv()
    while not waits_for_a_lock(waiting):
        assert not second.poll(), "the second process did not wait"
    first.send("go on")
    assert [pipe.recv() for pipe in pipes] == [f"engine of {number}"] * 2
    for process in processes:
        process.join(30)
        assert process.exitcode == 0


def test_log_says_what_was_deleted(tmp_path: Path, builder: Builder, caplog: pytest.LogCaptureFixture) -> None:
    """A deleted engine is named once."""
    caplog.set_level(logging.INFO)
    open_with(builder, tmp_path)
    open_with(builder, tmp_path, version="11.0")
    assert caplog.text.count("is no longer needed and was deleted") == 1
