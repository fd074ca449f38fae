"""Recording from a device, probing it, and the commands for both, on a real pty."""

import contextlib
import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command import COMMAND, run, run_program
from compiler import NEEDS_COMPILER
from counting import consecutive
from mosquitto import wait_until
from test_bridge_device import descriptors

from fisher_bridge.emulator import Emulator, device_options, emulated
from fisher_bridge.port import PortSettings
from fisher_bridge.probe import probe
from fisher_bridge.record import record
from fisher_edge.errors import UsageError
from fisher_edge.sources.recording import read_recording

pytestmark = NEEDS_COMPILER


def test_recordings_have_the_values_the_gateway_sees(tmp_path: Path, stop: threading.Event) -> None:
    """What is recorded and enrolled, and what arrives live, are on one scale, in the unit of the sensor."""
    file = tmp_path / "take.wav"
    signal_sent = (0.5 * np.sin(np.arange(8000) / 7)).astype(np.float32)
    soundfile.write(file, signal_sent, 8000, subtype="PCM_16")
    with device_options(file, None, 1) as options, emulated([*options, "--unit", "g"]) as device:
        out = tmp_path / "out.flac"
        written = list(record(PortSettings(device.port), out, 0, None, 1.5, stop))[-1]
        device.stop()
    assert (written.samples, written.path) == (12_000, out)
    raw, rate_hz = soundfile.read(out, dtype="int16")
    assert rate_hz == 8000
    np.testing.assert_array_equal(raw, np.tile(soundfile.read(file, dtype="int16")[0], 2)[:12_000])
    np.testing.assert_allclose(read_recording(out).samples[:8000], soundfile.read(file)[0], rtol=1e-6)
    comment = json.loads(soundfile.SoundFile(out).comment)["fisher-edge"]
    assert comment["unit"] == "g"
    assert comment["full_scale"] == pytest.approx(1.0, rel=1e-8)


@pytest.mark.parametrize(("kind", "suffix"), [("int24", ".flac"), ("int32", ".wav"), ("float32", ".wav")])
def test_every_format_is_recorded_as_sent(kind: str, suffix: str, tmp_path: Path, stop: threading.Event) -> None:
    """24 and 32 bits and floats go to the file bit by bit."""
    with emulated(["--format", kind, "--rate", "2000", "--scale-exponent", "-3"]) as device:
        out = tmp_path / f"out{suffix}"
        list(record(PortSettings(device.port), out, 0, None, 0.5, stop))
        device.stop()
    values = read_recording(out).samples
    step = 1e-3 / (32_768 if kind == "float32" else 1)
    np.testing.assert_allclose(values, np.arange(1000) * step, rtol=1e-6, atol=step * 1e-3)


def test_a_gap_begins_a_new_file(tmp_path: Path, stop: threading.Event) -> None:
    """A recording has no hole: what follows a gap is in the next file."""
    with emulated(["--loss", "0.05", "--rate", "20000", "--frame", "200", "--seed", "3"]) as device:
        out = tmp_path / "out.wav"
        files = {one.path: one for one in record(PortSettings(device.port), out, 0, None, 2.0, stop)}
        device.stop()
    assert len(files) > 2
    assert out.with_name("out-2.wav") in files
    assert sum(one.samples for one in files.values()) == 40_000
    for path in files:
        assert consecutive(soundfile.read(path, dtype="int16")[0])


def test_many_gaps_leave_one_file_open(tmp_path: Path, stop: threading.Event) -> None:
    """Each file is closed when the next begins, however many there are."""
    before = descriptors()
    with emulated(["--loss", "0.3", "--rate", "20000", "--frame", "50", "--seed", "3"]) as device:
        most = 0
        for _ in record(PortSettings(device.port), tmp_path / "out.wav", 0, None, 1.0, stop):
            most = max(most, descriptors())
        device.stop()
    assert len(list(tmp_path.iterdir())) > 20
    assert most < before + 12


def test_a_recording_is_never_written_over(tmp_path: Path, stop: threading.Event) -> None:
    """What was recorded before stays, also the files behind its gaps."""
    (tmp_path / "out-2.wav").write_text("kept")
    with emulated(["--loss", "0.1", "--rate", "20000", "--frame", "200", "--seed", "3"]) as device:
        pieces = record(PortSettings(device.port), tmp_path / "out.wav", 0, None, 5.0, stop)
        with pytest.raises(UsageError, match=r"out-2\.wav is there already; choose another name"):
            list(pieces)
        first = (tmp_path / "out.wav").read_bytes()
        with pytest.raises(UsageError, match=r"out\.wav is there already"):
            list(record(PortSettings(device.port), tmp_path / "out.wav", 0, None, 5.0, stop))
        device.stop()
    assert len(first) > 400
    assert (tmp_path / "out.wav").read_bytes() == first
    assert (tmp_path / "out-2.wav").read_text() == "kept"


def test_pulled_cable_keeps_what_was_recorded(tmp_path: Path) -> None:
    """The file is whole, its line is printed, and the error says that the device is gone."""
    with emulated(["--rate", "8000"]) as device:
        command = [*COMMAND, "bridge", "record", device.port, str(tmp_path / "out.flac"), "--seconds", "60"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as recording:
            wait_until((tmp_path / "out.flac").exists, "the file", 20)
            time.sleep(2.0)
            device.process.kill()
            out, err = recording.communicate(timeout=20)
    assert recording.returncode == 4
    assert out.startswith(f"{tmp_path / 'out.flac'}: ")
    assert err.startswith("error: ")
    assert "is gone" in err
    assert len(err.splitlines()) == 1
    assert len(soundfile.read(tmp_path / "out.flac")[0]) == int(out.split()[1]) > 8000


def test_full_disk_is_one_line(tmp_path: Path) -> None:
    """A file that cannot grow ends the recording with what to do."""
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000));"
    program = [sys.executable, "-c", f"{limit} from fisher_edge.cli import main; main()"]
    with emulated(["--rate", "20000"]) as device:
        ended = run_program([*program, "bridge", "record", device.port, "out.wav", "--seconds", "20"], tmp_path)
        device.stop()
    assert ended.returncode == 4, ended.stderr
    assert "cannot be written any further" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "name", "said"),
    [
        (["--format", "int32"], "out.flac", "FLAC cannot hold 1 x int32 at 16000 Hz; name it .wav"),
        (["--channels", "9"], "out.flac", "FLAC cannot hold 9 x int16"),
        ([], "out.mp3", "out.mp3 has another ending than .flac or .wav; choose"),
        ([], "none/out.wav", "cannot be written"),
    ],
)
def test_file_that_cannot_hold_it_is_one_line(
    options: list[str], name: str, said: str, tmp_path: Path, stop: threading.Event
) -> None:
    """What a file cannot hold is said before anything is lost."""
    with emulated(options) as device:
        with pytest.raises(UsageError, match=said):
            list(record(PortSettings(device.port), tmp_path / name, 0, None, 0.5, stop))
        device.stop()


def test_probe_of_a_good_line_has_no_trouble(stop: threading.Event) -> None:
    """A device on a line that carries it: what it says, what was measured, no trouble."""
    with emulated(["--rate", "10000", "--channels", "3", "--unit", "g", "--sensor", "ADXL355"]) as device:
        found = probe(PortSettings(device.port), 2.0, stop)
        device.stop()
    assert found.troubles == []
    assert found.hello.streams[0].sensor == "ADXL355"
    assert abs(found.rates_ppm[0].value) < 200
    assert found.bytes_per_s == pytest.approx(found.needed_bytes_per_s, rel=0.1)
    json.dumps(found.as_dict(), allow_nan=False)
    (trouble,) = dataclasses.replace(found, pings_unanswered=True).troubles
    assert trouble.startswith("it has stopped answering pings")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--loss", "0.05"], "the line lost"),
        (["--drift-ppm", "8000"], "stream 0 delivers +0.8"),
        (["--tx-buffer", "4096", "--rate", "500000"], "the device left out"),
    ],
)
def test_probe_names_the_trouble(options: list[str], said: str, stop: threading.Event) -> None:
    """Loss, a wrong rate and a device that cannot keep up have a message each."""
    with emulated(["--rate", "20000", "--channels", "2", *options]) as device:
        probe_settings = PortSettings(device.port)
        pause = _paused(device) if "--tx-buffer" in options else contextlib.nullcontext()
        with pause:
            troubles = probe(probe_settings, 3.0, stop).troubles
        device.stop()
    assert any(said in trouble for trouble in troubles), troubles


@contextlib.contextmanager
def _paused(_device: Emulator) -> Iterator[None]:
    """Hold up every reader for a moment now and then, as a busy gateway would."""
    done = threading.Event()

    def hold() -> None:
        from fisher_bridge import reader  # noqa: PLC0415 -- looked at while it runs

        while not done.wait(0.3):
            for slot in list(reader._ports._slots.values()):
                with slot.device._lock if slot.device else contextlib.nullcontext():
                    time.sleep(0.2)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_commands_work_together(tmp_path: Path) -> None:
    """`emulate`, `probe`, `record`, `list` and `enroll` as the documentation shows them."""
    link, take = tmp_path / "board", tmp_path / "take.wav"
    soundfile.write(take, 0.3 * np.random.default_rng(0).standard_normal(16_000), 8000, subtype="PCM_16")
    command = [*COMMAND, "bridge", "emulate", "--file", str(take), "--link", str(link), "--drift-ppm", "80"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as board:
        assert board.stdout is not None
        assert json.loads(board.stdout.readline())["link"] == str(link)
        probed = run("bridge", "probe", link, "--seconds", "2")
        assert probed.returncode == 0, probed.stderr
        assert "1 x int16 at 8000 Hz, really +" in probed.stdout
        assert probed.stdout.splitlines()[-1] == "OK: the line carries what the device sends"
        found = json.loads(run("bridge", "probe", link, "--seconds", "1", "--json").stdout)
        assert found["hello"]["streams"][0]["sensor"] == "take"
        recorded = run("bridge", "record", link, tmp_path / "out.flac", "--seconds", "6")
        assert recorded.stdout.startswith(f"{tmp_path / 'out.flac'}: 48000 samples from 20"), recorded.stderr
        board.terminate()
        counted = json.loads(board.stdout.read())
        assert board.wait(10) == 0
    assert (counted["runs"], counted["frames_lost"]) == (3, 0)
    place = ["--asset", "a", "--channel", "b", "--window-s", "0.64", "--state-dir", tmp_path / "state"]
    assert run("enroll", tmp_path / "out.flac", *place).returncode == 0
    assert isinstance(json.loads(run("bridge", "list", "--json").stdout), list)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["probe", "/dev/none"], 4, "no serial port at /dev/none"),
        (["record", "/dev/none", "out.flac"], 4, "no serial port at /dev/none"),
        (["emulate", "--file", "/dev/none"], 4, "/dev/none cannot be read"),
        (["emulate", "--rate-hz", "0.5"], 2, "--rate 0.5 is not within 1 and 4e+06"),
        (["emulate", "--loss", "2"], 2, "'--loss': Input should be less than or equal to 1"),
    ],
)
def test_command_that_cannot_be_done_is_one_line(arguments: list[str], code: int, said: str) -> None:
    """Each mistake gets its exit code and one line."""
    ended = run("bridge", *arguments)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (code, 1), ended.stderr
    assert ended.stderr.startswith("error: ")
    assert said in ended.stderr


@pytest.mark.parametrize("package", ["serial", "cobs"])
def test_missing_extra_is_named(package: str, tmp_path: Path) -> None:
    """Without a package of the extra the commands and the source say what to install."""
    block = f"import sys; sys.modules[{package!r}] = None; from fisher_edge.cli import main; main()"
    expected = f"error: {package} is not installed; run: pip install 'fisher-edge[bridge]'\n"
    found = run_program([sys.executable, "-c", block, "bridge", "list"], tmp_path)
    assert (found.returncode, found.stderr) == (3, expected)
    (tmp_path / "g.toml").write_text(
        '[[channel]]\nasset = "a"\nname = "b"\nsource = { type = "serial", port = "/dev/ttyACM0" }\n'
    )
    checked = run_program([sys.executable, "-c", block, "config", "check", "g.toml"], tmp_path)
    assert (checked.returncode, checked.stderr) == (3, expected)
