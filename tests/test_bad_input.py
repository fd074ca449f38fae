"""Bad input of every kind: one line on stderr that begins with `error: `, the right exit code, nothing changed."""

import hashlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from command import run, run_here, run_program, troubles
from machine import RATE_HZ, machine_signal, sound_file
from other_bundle import write_bundle

from fisher_edge.encoder.bundle import DEFAULT_BUNDLE
from fisher_edge.store.baselines import Baselines
from fisher_edge.store.database import DATABASE_NAME, Database

USAGE, MISSING_EXTRA, BAD_INPUT, BAD_ARTIFACT, BROKER = 2, 3, 4, 5, 6
PLACE = ("--asset", "pump-1", "--channel", "vib-de")
ENROLL = ("enroll", *PLACE, "--window-s", "0.64")
SCORE = ("score", *PLACE)
EMBED = ("embed", "--out", "out.npy")
CONFIG = '[[channel]]\nasset = "a"\nname = "c"\nsource = { type = "recording", files = ["normal-0.wav"] }\n'


def write_recordings(folder: Path) -> None:
    """Write two good recordings and every bad one."""
    for seed in range(2):
        sound_file(folder / f"normal-{seed}.wav", machine_signal(seed, 3.0))
    good = machine_signal(0, 3.0)
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        sound_file(folder / f"{name}.wav", np.where(np.arange(len(good)) == 5, np.float32(value), good))
    (folder / "empty.wav").touch()
    (folder / "folder.wav").mkdir()
    os.mkfifo(folder / "pipe.wav")
    (folder / "text.wav").write_text("time;value\n" * 100)
    (folder / "text.raw").write_text("time;value\n" * 100)
    sound_file(folder / "constant.wav", np.full(3 * RATE_HZ, 0.5, np.float32))
    sound_file(folder / "one.wav", good[:1])
    sound_file(folder / "short.wav", good[:5000])
    sound_file(folder / "slow.wav", good[:5000], 50)
    soundfile.write(folder / "stereo.wav", np.stack([good, good], axis=1), RATE_HZ)
    np.save(folder / "signal.npy", good)
    np.save(folder / "huge.npy", good.astype(np.float64) * 1e300)
    np.save(folder / "object.npy", np.array([{}], object), allow_pickle=True)


def write_bundles(folder: Path) -> None:
    """Write every bad bundle."""
    model = (DEFAULT_BUNDLE / "encoder.onnx").read_bytes()
    write_bundle(folder / "altered", model=model[:-1] + bytes([model[-1] ^ 1]), rehash=False)
    write_bundle(folder / "cut", model=model[: len(model) // 2], rehash=False)
    write_bundle(folder / "truncated", model=model[: len(model) // 2])
    # One more initializer (graph 7, tensor 5) whose data_location (14) is EXTERNAL.
    write_bundle(folder / "external", model=model + b"\x3a\x04\x2a\x02\x70\x01")
    write_bundle(folder / "nonsense", model=b"\x00" * 100)
    write_bundle(folder / "future", schema="fisher-edge/bundle/99")
    write_bundle(folder / "incomplete")
    (folder / "incomplete" / "selftest.npz").unlink()


def write_states(folder: Path) -> None:
    """Enroll the good recordings in `state`, and copy that into states that cannot be used."""
    enrolled = run_here(*ENROLL, "normal-0.wav", "normal-1.wav", cwd=folder)
    assert (enrolled.returncode, troubles(enrolled)) == (0, [])
    for name in ("corrupt", "newer"):
        shutil.copytree(folder / "state", folder / name)
    (folder / "corrupt" / DATABASE_NAME).write_bytes(b"SQLite format 3\x00" + os.urandom(20_000))
    connection = sqlite3.connect(folder / "newer" / DATABASE_NAME)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    (folder / "occupied").touch()


def write_configs(folder: Path) -> None:
    """Write every bad configuration."""
    (folder / "unknown.toml").write_text("[gateway]\nstate_dri = 'x'\n" + CONFIG)
    (folder / "broken.toml").write_text("[gateway\n")
    (folder / "url.toml").write_text("[mqtt]\nurl = 'http://localhost'\n" + CONFIG)
    (folder / "hop.toml").write_text("[model]\nwindow_s = 0.64\nhop_s = 5\n" + CONFIG)
    (folder / "short.toml").write_text("[model]\nwindow_s = 0.01\n" + CONFIG)
    (folder / "bundle.toml").write_text("[model]\nbundle = 'nowhere'\n" + CONFIG)
    os.mkfifo(folder / "pipe.toml")
    (folder / "host.toml").write_text(f"[mqtt]\nurl = 'mqtt://{'h' * 300}'\n" + CONFIG)
    (folder / "text.toml").write_text("[model]\nwindow_s = '1.28'\n" + CONFIG)
    (folder / "brackets.toml").write_text(CONFIG.replace("[[channel]]", "[channel]"))
    (folder / "source.toml").write_text(CONFIG.replace("files", "fils"))
    (folder / "alsa.toml").write_text(CONFIG.replace("recording", "alsa"))
    os.mkfifo(folder / "pipe")
    (folder / "password.toml").write_text("[mqtt]\nurl = 'mqtt://me@localhost'\npassword_file = 'pipe'\n" + CONFIG)
    (folder / "ca.toml").write_text("[mqtt]\nurl = 'mqtts://localhost'\nca_file = '/dev/zero'\n" + CONFIG)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with good and bad recordings, bundles, configurations and states."""
    made = tmp_path_factory.mktemp("bad")
    write_recordings(made)
    write_bundles(made)
    write_configs(made)
    write_states(made)
    return made


def snapshot(folder: Path) -> dict[str, Any]:
    """Return every file that a command could change, by its content, and what is enrolled."""
    files = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in {".sqlite3-wal", ".sqlite3-shm"}
    }
    return {**files, "enrolled": enrolled_in(folder / "state")}


def enrolled_in(state_dir: Path) -> list[tuple[Any, ...]]:
    """Return what is enrolled in a state directory."""
    with Database(state_dir, set_aside=False, create=False) as database:
        return [(row.version, row.active, row.takes) for row in Baselines(database).facts()]


def error_of(done: subprocess.CompletedProcess[str], code: int) -> str:
    """Return the one line of a command that failed as it should."""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert done.returncode == code
    assert done.stdout == ""
    return lines[0].removeprefix("error: ")


TABLE: list[tuple[tuple[str, ...], int, str]] = [
    # Recordings.
    ((*ENROLL, "nowhere.wav"), BAD_INPUT, "no file at nowhere.wav"),
    ((*SCORE, "nowhere.wav"), BAD_INPUT, "no file at nowhere.wav"),
    ((*EMBED, "nowhere.wav"), BAD_INPUT, "no file at nowhere.wav"),
    ((*ENROLL, "normal-0.wav", "empty.wav"), BAD_INPUT, "empty.wav is empty"),
    ((*ENROLL, "folder.wav"), BAD_INPUT, "folder.wav"),
    ((*SCORE, "folder.wav"), BAD_INPUT, "folder.wav"),
    ((*EMBED, "pipe.wav"), BAD_INPUT, "pipe.wav"),
    ((*ENROLL, "normal-0.wav", "normal-0.wav"), BAD_INPUT, "hold the same samples"),
    ((*EMBED, "text.wav"), BAD_INPUT, "text.wav is not a sound file"),
    ((*SCORE, "text.raw"), BAD_INPUT, "text.raw is not a sound file"),
    ((*ENROLL, "nan.wav"), BAD_INPUT, "1 samples that are not finite"),
    ((*SCORE, "nan.wav"), BAD_INPUT, "1 samples that are not finite"),
    ((*EMBED, "inf.wav"), BAD_INPUT, "1 samples that are not finite"),
    ((*ENROLL, "constant.wav"), BAD_INPUT, "constant.wav: flat line"),
    ((*SCORE, "constant.wav"), BAD_INPUT, "constant.wav: flat line"),
    ((*ENROLL, "one.wav"), BAD_INPUT, "one.wav has 1 samples"),
    ((*EMBED, "one.wav"), BAD_INPUT, "shorter than one frame"),
    ((*SCORE, "short.wav"), BAD_INPUT, "short.wav has 5000 samples at 16000 Hz, a window of 0.64 s takes 10480"),
    ((*ENROLL, "slow.wav"), BAD_INPUT, "rate_hz=50 is below 100 Hz"),
    ((*EMBED, "slow.wav"), BAD_INPUT, "rate_hz=50 is below 100 Hz"),
    ((*EMBED, "signal.npy"), BAD_INPUT, "signal.npy carries no sampling rate; give it with --rate-hz"),
    ((*EMBED, "signal.npy", "--rate-hz", "0"), BAD_INPUT, "rate_hz=0 is not above 0; give samples per second"),
    ((*SCORE, "signal.npy", "--rate-hz", "8000"), BAD_INPUT, "signal.npy has 8000 Hz, the baseline of pump-1/vib-de"),
    ((*EMBED, "signal.npy", "--rate-hz", "fast"), BAD_INPUT, "fast"),
    ((*EMBED, "huge.npy", "--rate-hz", "16000"), BAD_INPUT, "not finite"),
    ((*EMBED, "object.npy", "--rate-hz", "16000"), BAD_INPUT, "not a plain NumPy array"),
    ((*ENROLL, "normal-0.wav", "--rate-hz", "8000"), BAD_INPUT, "says 16000 Hz but rate_hz=8000 was given"),
    ((*ENROLL, "stereo.wav"), BAD_INPUT, "2 channels; choose one of 0 to 1"),
    ((*ENROLL, "stereo.wav", "--input-channel", "2"), BAD_INPUT, "channel 2 is out of range"),
    ((*EMBED, "stereo.wav", "--channel", "-1"), BAD_INPUT, "channel -1 is out of range"),
    (("embed", "normal-0.wav", "--out", "nowhere/out.npy"), BAD_INPUT, "cannot write nowhere/out.npy"),
    # Bundles.
    ((*EMBED, "normal-0.wav", "--model", "nowhere"), BAD_ARTIFACT, "no bundle folder at nowhere"),
    ((*EMBED, "normal-0.wav", "--model", "altered"), BAD_ARTIFACT, "does not match the SHA-256"),
    ((*SCORE, "normal-0.wav", "--model", "cut"), BAD_ARTIFACT, "does not match the SHA-256"),
    ((*ENROLL, "normal-0.wav", "--model", "truncated"), BAD_ARTIFACT, "not a whole ONNX file"),
    ((*EMBED, "normal-0.wav", "--model", "external"), BAD_ARTIFACT, "external data"),
    ((*EMBED, "normal-0.wav", "--model", "nonsense"), BAD_ARTIFACT, "ONNX"),
    ((*EMBED, "normal-0.wav", "--model", "future"), BAD_ARTIFACT, "fisher-edge/bundle/99"),
    ((*EMBED, "normal-0.wav", "--model", "incomplete"), BAD_ARTIFACT, "selftest.npz"),
    # Configurations.
    (("config", "check", "unknown.toml"), USAGE, "unknown key 'state_dri' in [gateway]; did you mean 'state_dir'?"),
    (("run", "unknown.toml"), USAGE, "unknown.toml: unknown key 'state_dri' in [gateway]"),
    (("config", "check", "broken.toml"), USAGE, "broken.toml is not valid TOML"),
    (("config", "check", "nowhere.toml"), USAGE, "cannot read the configuration nowhere.toml"),
    (("config", "check", "pipe.toml"), USAGE, "pipe.toml"),
    (("config", "check", "."), USAGE, "cannot read the configuration"),
    (("config", "check", "/dev/zero"), USAGE, "/dev/zero"),
    (("config", "check", "hop.toml"), USAGE, "hop_s = 5 is above window_s = 0.64"),
    (("config", "check", "short.toml"), USAGE, "window_s=0.01"),
    (("config", "check", "bundle.toml"), BAD_ARTIFACT, "no bundle folder at"),
    (("config", "check", "pipe"), USAGE, "cannot read the configuration pipe: it is a pipe or a device; give a file"),
    (("run", "/dev/zero"), USAGE, "cannot read the configuration /dev/zero: it is a pipe or a device; give a file"),
    (("config", "check", "."), USAGE, "cannot read the configuration .: Is a directory; check the path"),
    (("run", "host.toml"), USAGE, "[mqtt], url: a part of the host's name is empty or longer than 63 letters"),
    (("config", "check", "text.toml"), USAGE, "[model], window_s = '1.28': must be a number, without quotes"),
    (("config", "check", "brackets.toml"), USAGE, "channel must be written [[channel]], with two brackets"),
    (("run", "source.toml"), USAGE, "unknown key 'fils' in [[channel]] 1, source; did you mean 'files'?"),
    (("run", "alsa.toml"), USAGE, "[[channel]] 1, source, type = 'alsa': no installed package brings this type"),
    (("run", "password.toml"), USAGE, "pipe is not a small file; give the path of a text file"),
    (("config", "check", "ca.toml"), USAGE, "[mqtt], ca_file: /dev/zero is not a small file"),
    (("config", "check", "url.toml"), USAGE, "the scheme 'http', not mqtt or mqtts"),
    # The state.
    ((*SCORE, "normal-0.wav", "--state-dir", "corrupt"), BAD_INPUT, "is damaged"),
    ((*ENROLL, "normal-0.wav", "normal-1.wav", "--state-dir", "corrupt"), BAD_INPUT, "is damaged"),
    (("baseline", "list", "--state-dir", "corrupt"), BAD_INPUT, "is damaged"),
    ((*SCORE, "normal-0.wav", "--state-dir", "newer"), BAD_INPUT, "written by a newer fisher-edge"),
    (
        (*ENROLL, "normal-0.wav", "--state-dir", "occupied"),
        BAD_INPUT,
        "occupied: File exists; choose another with --state-dir",
    ),
    (("score", "normal-0.wav", "--asset", "pump-2", "--channel", "x"), BAD_INPUT, "nothing is enrolled for asset"),
    # Names and numbers.
    (("enroll", "normal-0.wav", "--asset", "a/b", "--channel", "c"), BAD_INPUT, "asset name 'a/b' contains '/'"),
    (("enroll", "normal-0.wav", "--asset", "a+", "--channel", "c"), BAD_INPUT, "asset name 'a+' contains '+'"),
    (("enroll", "normal-0.wav", "--asset", "a", "--channel", "#"), BAD_INPUT, "channel name '#' contains '#'"),
    ((*ENROLL, "normal-0.wav", "--label", ""), BAD_INPUT, "label '' names no fault"),
    ((*ENROLL, "normal-0.wav", "--window-s", "nan"), BAD_INPUT, "window_s=nan is not a time above 0"),
    ((*SCORE, "normal-0.wav", "--hop-s", "-1"), BAD_INPUT, "hop_s=-1 is not a time above 0"),
    ((*ENROLL, "normal-0.wav", "--keep-mb", "nan"), USAGE, "--keep-mb"),
    ((*ENROLL, "normal-0.wav", "--keep-mb", "inf"), USAGE, "--keep-mb"),
    ((*ENROLL, "normal-0.wav", "--keep-mb", "-1"), USAGE, "--keep-mb"),
    ((*ENROLL, "normal-0.wav", "normal-1.wav", "--specimen", " "), USAGE, "specimen ' ' names nothing"),
    (
        (*ENROLL, "normal-0.wav", "--specimen", "a", "--specimen", "b"),
        USAGE,
        "2 names for the specimen of 1 recordings",
    ),
    (("baseline", "activate", *PLACE, "--version", "7"), BAD_INPUT, "7"),
    (("baseline", "reembed", "--asset", "pump-2", "--channel", "x"), BAD_INPUT, "has no baseline for normal"),
    (("baseline", "remove", *PLACE, "--label", "worn"), BAD_INPUT, "worn"),
    # The command line itself.
    (("enrole",), USAGE, "No such command 'enrole'"),
    (("enroll", "normal-0.wav", "--asset", "a"), USAGE, "Missing option '--channel'; see: fisher-edge enroll --help"),
    (("enroll", *PLACE), USAGE, "Missing argument"),
    ((*ENROLL, "normal-0.wav", "--window-s", "long"), USAGE, "Invalid value for '--window-s'"),
    ((*ENROLL, "normal-0.wav", "--windows", "1"), USAGE, "No such option: --windows"),
    (("--nonsense",), USAGE, "No such option: --nonsense"),
    (("embed", "normal-0.wav", "normal-1.wav", "--out", "out.npy"), USAGE, "must end in .npz"),
    (("embed", "normal-0.wav", "--out", "out.npz"), USAGE, "must end in .npy"),
    (("export", "nowhere", "--out", "x", "--fp32", "--int8"), USAGE, "--fp32 cannot be used with --int8"),
]


def test_every_bad_input_is_one_line_and_changes_nothing(folder: Path) -> None:
    """Each row gives exactly one line with its reason and exit code; no file of the folder has changed after all."""
    before = snapshot(folder)
    wrong = []
    for arguments, code, reason in TABLE:
        done = run_here(*arguments, cwd=folder)
        lines = done.stderr.splitlines()
        if len(lines) != 1 or not lines[0].startswith("error: ") or reason not in lines[0]:
            wrong.append(f"{' '.join(arguments)}: {done.stderr[-500:]!r} is not one line about {reason!r}")
        if done.returncode != code or done.stdout:
            wrong.append(f"{' '.join(arguments)}: exit code {done.returncode}, not {code}, stdout {done.stdout!r}")
    assert not wrong, "\n".join(wrong)
    assert snapshot(folder) == before


def test_bad_input_is_one_line_of_the_process(folder: Path) -> None:
    """A process prints that line and nothing else: no warning and no log of a library."""
    assert "1 samples that are not finite" in error_of(run(*SCORE, "nan.wav", cwd=folder), BAD_INPUT)


def test_locked_database_is_one_line(folder: Path) -> None:
    """While another program holds the database exclusively a command waits a while and then says so."""
    other = sqlite3.connect(folder / "state" / DATABASE_NAME, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    other.execute("DELETE FROM boot")
    try:
        said = error_of(run(*SCORE, "normal-0.wav", cwd=folder), BAD_INPUT)
    finally:
        other.close()
    assert "locked; another program holds it" in said


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody without permission")
def test_read_only_state_directory_is_one_line(folder: Path, tmp_path: Path) -> None:
    """Every command that opens a state directory without write permission says so."""
    shutil.copytree(folder / "state", tmp_path / "state")
    before = enrolled_in(tmp_path / "state")
    shutil.copy(folder / "normal-0.wav", tmp_path / "normal-0.wav")
    for path in (*tmp_path.parents, tmp_path, *tmp_path.rglob("*")):
        if path.is_relative_to("/tmp/"):
            path.chmod(0o755)
    code = """if True:
        import contextlib, os, sys
        from fisher_edge.cli import main
        # Everything is imported while we may: the interpreter can lie where nobody else reads.
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(None):
            main([*sys.argv[1:], "--state-dir", "writable"])
        os.setgid(65534)
        os.setuid(65534)
        main(sys.argv[1:])
    """
    for arguments in ((*ENROLL, "normal-0.wav"), ("baseline", "list")):
        done = run_program([sys.executable, "-c", code, *arguments], tmp_path)
        assert "correct the state directory or choose another --state-dir" in error_of(done, BAD_INPUT)
    assert enrolled_in(tmp_path / "state") == before


def test_missing_extra_is_one_line(folder: Path) -> None:
    """Without torch an export names the extra to install."""
    code = "import sys; sys.modules['torch'] = None; from fisher_edge.cli import main; main(sys.argv[1:])"
    arguments = ("export", "nowhere", "--out", "x", "--calibration", "normal-0.wav")
    said = error_of(run_program([sys.executable, "-c", code, *arguments], folder), MISSING_EXTRA)
    assert said == "torch is not installed; run: pip install 'fisher-edge[export]'"


def test_occupied_port_of_the_broker_is_an_error(folder: Path) -> None:
    """The embedded broker cannot have a port that somebody listens on: one `error: ` line, after the daemon's log."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (folder / "port.toml").write_text(
            f"[gateway]\nstate_dir = 'run-state'\n[model]\nwindow_s = 0.64\n[mqtt]\nembedded_port = {port}\n" + CONFIG
        )
        done = run("run", "port.toml", cwd=folder)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == BROKER
    assert len(errors) == 1
    assert str(port) in errors[0]
    assert done.stderr.splitlines()[-1] == errors[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("incomplete",), BAD_ARTIFACT, "selftest.npz"),
        (("--provider", "gpu"), USAGE, "provider 'gpu' is not in this build"),
    ],
)
def test_bench_of_what_is_not_there_is_one_line(
    folder: Path, arguments: tuple[str, ...], code: int, reason: str
) -> None:
    """A bundle that lacks a file and a provider that this build does not have are refused."""
    assert reason in error_of(run_here("bench", *arguments, cwd=folder), code)


def test_debug_shows_the_traceback(folder: Path) -> None:
    """With `--debug`, anywhere on the line, the same error comes with its traceback."""
    done = run(*EMBED, "nowhere.wav", "--debug", cwd=folder)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "BadInputError: no file at nowhere.wav" in done.stderr
