"""Baselines taken to another gateway in one file: everything is there, and no file does harm."""

import shutil
import sqlite3
import zipfile
from pathlib import Path

import numpy as np
import pytest
from command import run_here
from gateways import HOP_S, WINDOW_S
from machine import machine_signal, sound_file

from fisher_edge.config import Config
from fisher_edge.errors import BadInputError, StateError
from fisher_edge.gateway.wiring import Encoders, Planner
from fisher_edge.names import ChannelKey
from fisher_edge.store import bundles
from fisher_edge.store.baselines import Baselines
from fisher_edge.store.database import DATABASE_NAME, Database
from fisher_edge.store.exchange import export_channel, import_channel

KEY = ChannelKey("pump-1", "vib")
PLACE = ("--asset", KEY.asset, "--channel", KEY.channel, "--window-s", WINDOW_S, "--hop-s", HOP_S)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the state of a gateway and an export of its channel: a normal state and a fault."""
    folder = tmp_path_factory.mktemp("exported")
    state = ("--state-dir", folder / "state")
    normal = [sound_file(folder / f"n{seed}.wav", machine_signal(seed, 2.0)) for seed in range(3)]
    fault = sound_file(folder / "f.wav", machine_signal(9, 2.0, fault_hz=5000.0))
    assert run_here("enroll", *normal, *PLACE, *state, "--reason", "first", "--state", "fast").returncode == 0
    assert run_here("enroll", fault, *PLACE, *state, "--label", "gear tooth").returncode == 0
    done = run_here("baseline", "export", *KEY, "--out", folder / "pump.zip", *state)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("pump.zip: normal, gear tooth of pump-1/vib\n")
    return folder


def test_everything_arrives_under_another_name(exported: Path, tmp_path: Path) -> None:
    """Vectors, takes, states, views, weights and the model; the reason says where it is from."""
    place = ("--asset", "pump-2", "--channel", "vib", "--state-dir", tmp_path)
    done = run_here("baseline", "import", exported / "pump.zip", *place)
    assert done.stdout.splitlines() == [
        "pump-2/vib: version 1 of normal is active",
        "pump-2/vib: version 1 of gear tooth is active",
    ]
    with Database(exported / "state") as first, Database(tmp_path) as second:
        before, after = Baselines(first).active(KEY), Baselines(second).active(ChannelKey("pump-2", "vib"))
        assert Baselines(second).fusion(ChannelKey("pump-2", "vib")) == Baselines(first).fusion(KEY)
    for one, other in zip(before, after, strict=True):
        for name in ("vectors", "take", "offset_s", "level", "views"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
        for name in ("label", "takes", "grid", "rate_hz", "front_end", "model_sha256", "sensitivity"):
            assert getattr(one, name) == getattr(other, name), name
        assert [(state.name, state.given) for state in one.states] == [
            (state.name, state.given) for state in other.states
        ]
    assert after[0].reason == "imported from pump.zip, pump-1/vib version 1: first"
    assert bundles.find(tmp_path, after[0].model_sha256) is not None
    sound = sound_file(tmp_path / "new.wav", machine_signal(20, 2.0))
    scored = run_here("score", sound, *place, "--state", "fast")
    assert scored.returncode == 0
    assert "alarm" not in scored.stdout.splitlines()[-1].split(";")[0]


@pytest.mark.parametrize(("state", "have"), [("hot", "there are: fast"), ("", "there are: fast")])
def test_score_refuses_a_state_that_is_not_enrolled(exported: Path, tmp_path: Path, state: str, have: str) -> None:
    """A misspelt name is not silently left out."""
    sound = sound_file(tmp_path / "new.wav", machine_signal(20, 2.0))
    scored = run_here("score", sound, *PLACE[:4], "--state-dir", exported / "state", "--state", state)
    assert (scored.returncode, scored.stdout) == (4, "")
    assert scored.stderr == f"error: pump-1/vib has no operating state {state!r}; {have}\n"


def test_import_adds_a_version(exported: Path, tmp_path: Path) -> None:
    """What was enrolled here stays, to go back to."""
    with Database(tmp_path) as database:
        assert [version for _, version in import_channel(database, exported / "pump.zip")] == [1, 1]
        assert [version for _, version in import_channel(database, exported / "pump.zip")] == [2, 2]
    undone = run_here("baseline", "undo", *KEY, "--state-dir", tmp_path)
    assert undone.stdout == "pump-1/vib: version 1 of normal is active again\n"


def test_nothing_enrolled_is_no_export(exported: Path, tmp_path: Path) -> None:
    """The line says where to look; no file is begun."""
    with Database(exported / "state") as database:
        with pytest.raises(BadInputError, match="nothing is enrolled for pump-9/vib"):
            export_channel(database, ChannelKey("pump-9", "vib"), tmp_path / "out.zip")
        with pytest.raises(StateError, match="is a folder; give the name of a file"):
            export_channel(database, KEY, tmp_path)
        with pytest.raises(StateError, match=r"cannot write .* No such file or directory"):
            export_channel(database, KEY, tmp_path / "nowhere" / "out.zip")
    assert list(tmp_path.iterdir()) == []


def archive(path: Path, **contents: bytes) -> Path:
    """Write an archive."""
    with zipfile.ZipFile(path, "w") as file:
        for name, content in contents.items():
            file.writestr(name.replace("__", "/").replace("DOTS", ".."), content)
    return path


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ({}, "is no export of a baseline"),
        ({"readme.txt": b"hello"}, "is no export of a baseline"),
        ({"fisher-edge.sqlite3": b"x" * 5000}, "is damaged"),
        ({"fisher-edge.sqlite3": b"", "DOTS__outside": b"x"}, "is no export of a baseline"),
        ({"fisher-edge.sqlite3": b"", "bundles__DOTS__outside": b"x"}, "is no export of a baseline"),
        ({"fisher-edge.sqlite3": b"", "bundles__a__b__c": b"x"}, "is no export of a baseline"),
        ({"fisher-edge.sqlite3": b""}, "holds baselines of 0 channels"),
        ({"fisher-edge.sqlite3": b""} | {f"bundles__a__{number}": b"" for number in range(100)}, "is no export"),
    ],
)
def test_file_that_is_no_export_is_refused(tmp_path: Path, contents: dict[str, bytes], reason: str) -> None:
    """One line; nothing is written, inside the state directory or outside."""
    file = archive(tmp_path / "x.zip", **contents)
    with Database(tmp_path / "state") as database:
        with pytest.raises(BadInputError, match=reason):
            import_channel(database, file)
        assert Baselines(database).channels() == []
    assert not list(tmp_path.rglob("outside"))


def test_export_whose_bytes_were_changed_is_refused(exported: Path, tmp_path: Path) -> None:
    """Whatever is wrong inside is one line."""
    good = (exported / "pump.zip").read_bytes()
    random = np.random.default_rng(0)
    for _ in range(20):
        bad = bytearray(good)
        for place in random.integers(0, len(bad), 50):
            bad[place] ^= 255
        (tmp_path / "bad.zip").write_bytes(bad)
        with Database(tmp_path / "state") as database, pytest.raises(BadInputError, match=r"bad\.zip"):
            import_channel(database, tmp_path / "bad.zip")


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM baseline_take",
        "DELETE FROM baseline_state",
        "UPDATE baseline SET take = zeroblob(length(take) - 4)",
        "UPDATE baseline SET windows = windows - 1",
        "UPDATE baseline SET level = zeroblob(8)",
        "UPDATE baseline_take SET state = 9",
    ],
)
def test_export_whose_parts_do_not_fit_is_refused(exported: Path, tmp_path: Path, change: str) -> None:
    """A gateway that reads such a baseline anyway says so, and goes on."""
    changed = tmp_path / DATABASE_NAME
    shutil.copy(exported / "state" / DATABASE_NAME, changed)
    connection = sqlite3.connect(changed)
    connection.execute(change)
    connection.commit()
    connection.close()
    bad = archive(tmp_path / "x.zip", **{DATABASE_NAME: changed.read_bytes()})
    with Database(tmp_path / "state") as database, pytest.raises(BadInputError, match=r"x\.zip is damaged"):
        import_channel(database, bad)
    with Database(tmp_path) as database:
        channel = {"asset": KEY.asset, "name": KEY.channel, "window_s": WINDOW_S, "source": {"type": "simulator"}}
        config = Config.model_validate({"gateway": {"state_dir": str(tmp_path)}, "channel": [channel]})
        plan = Planner(config, Baselines(database), Encoders(tmp_path)).plan(config.channel[0])
    assert plan.reason is not None
    assert "what is enrolled is damaged" in plan.reason


def test_export_without_an_active_baseline_is_refused(exported: Path, tmp_path: Path) -> None:
    """There is nothing to judge by in it."""
    with zipfile.ZipFile(exported / "pump.zip") as file:
        file.extract(DATABASE_NAME, tmp_path)
    connection = sqlite3.connect(tmp_path / DATABASE_NAME)
    connection.execute("UPDATE baseline SET active = 0")
    connection.commit()
    connection.close()
    empty = archive(tmp_path / "x.zip", **{DATABASE_NAME: (tmp_path / DATABASE_NAME).read_bytes()})
    with Database(tmp_path / "state") as database, pytest.raises(BadInputError, match="holds no active baseline"):
        import_channel(database, empty)


def test_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    """Missing, or something else."""
    (tmp_path / "noise.zip").write_bytes(b"noise")
    with Database(tmp_path / "state") as database:
        for name in ("noise.zip", "missing.zip"):
            with pytest.raises(BadInputError, match="cannot be read as an export"):
                import_channel(database, tmp_path / name)


def test_archive_that_unpacks_to_too_much_is_refused(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is unpacked then."""
    monkeypatch.setattr("fisher_edge.store.exchange.MOST_BYTES", 1 << 20)
    with Database(tmp_path) as database, pytest.raises(BadInputError, match="unpacks to more than 1 MB"):
        import_channel(database, exported / "pump.zip")


def test_half_of_an_import_is_none(exported: Path, tmp_path: Path) -> None:
    """Both names or neither; a name that cannot be is refused before anything is written."""
    done = run_here("baseline", "import", exported / "pump.zip", "--asset", "x", "--state-dir", tmp_path)
    assert (done.returncode, done.stderr) == (2, "error: give both --asset and --channel, or neither\n")
    with Database(tmp_path) as database:
        with pytest.raises(BadInputError, match="asset name"):
            import_channel(database, exported / "pump.zip", ChannelKey("a/b", "c"))
        assert Baselines(database).channels() == []
