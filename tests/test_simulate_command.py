"""The command that records and draws simulated machines."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from scipy import signal

from fisher_edge.cli import main
from fisher_train.simulate.catalogue import FAULTS_TOLD, KINDS
from fisher_train.simulate.machine import FAULTS_OF

PNG = b"\x89PNG\r\n\x1a\n"


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> str:
    """Run the command and return what it prints, or its error."""
    with pytest.raises(SystemExit) as left:
        main(["simulate", *map(str, arguments)])
    assert (left.value.code or 0) == code
    printed = capsys.readouterr()
    return printed.err if code else printed.out


def facts(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Any:
    """Run the command with --json."""
    return json.loads(said(capsys, *arguments, "--json"))


def test_wave_has_the_rate_the_length_and_the_line_it_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is what was ordered, and its envelope has the BPFO that the command names."""
    out = tmp_path / "outer.wav"
    found = facts(capsys, out, "--machine", "bearing", "--fault", "outer", "--seconds", "3.5", "--speed-hz", "25")
    wave, rate_hz = soundfile.read(out, dtype="float32")
    assert (rate_hz, len(wave)) == (20_000, 70_000)
    assert (found["machine"], found["fault"], found["speed_hz"], found["file"]) == ("bearing", "outer", 25.0, str(out))
    (bpfo,) = (line["hz"] for line in found["lines"] if line["name"] == "BPFO")
    band = signal.butter(4, 2500, "highpass", fs=rate_hz, output="sos")
    envelope = np.abs(signal.hilbert(signal.sosfiltfilt(band, wave)))
    spectrum = np.abs(np.fft.rfft((envelope - envelope.mean()) * np.hanning(len(wave))))
    f = np.fft.rfftfreq(len(wave), 1 / rate_hz)
    near = (f > 0.7 * bpfo) & (f < 1.3 * bpfo)
    assert f[near][spectrum[near].argmax()] == pytest.approx(bpfo, rel=0.01)
    assert spectrum[near].max() > 10 * np.median(spectrum[near])


def test_same_seed_writes_the_same_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Seed and specimen decide: the same give the same samples, others do not."""
    waves = []
    for name, *more in (("a",), ("b",), ("c", "--seed", "1"), ("d", "--specimen", "1")):
        said(capsys, tmp_path / f"{name}.wav", "--machine", "gear", "--fault", "tooth", "--seconds", "1", *more)
        waves.append(soundfile.read(tmp_path / f"{name}.wav")[0])
    np.testing.assert_array_equal(waves[0], waves[1])
    assert np.abs(waves[0] - waves[2]).max() > 0.01
    assert np.abs(waves[0] - waves[3]).max() > 0.01


def test_severity_0_writes_the_healthy_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same seed, speed and load without a size of the fault are the recording without a fault."""
    options = ("--machine", "bearing", "--seconds", "1.5", "--seed", "4", "--speed-hz", "25", "--load", "0.4")
    said(capsys, tmp_path / "healthy.wav", *options)
    said(capsys, tmp_path / "none.wav", *options, "--fault", "outer", "--severity", "0")
    said(capsys, tmp_path / "plain.wav", *options, "--fault", "outer")
    healthy, none, plain = (soundfile.read(tmp_path / f"{name}.wav")[0] for name in ("healthy", "none", "plain"))
    np.testing.assert_array_equal(none, healthy)
    assert np.abs(plain - healthy).max() > 0.1


def test_list_names_every_fault(capsys: pytest.CaptureFixture[str]) -> None:
    """The list, as text and as JSON, has every kind of machine with all its faults explained."""
    listed = facts(capsys, "--list")
    assert set(listed) == set(KINDS) == set(FAULTS_OF)
    text = said(capsys, "--list")
    for kind, faults in FAULTS_OF.items():
        assert tuple(listed[kind]["faults"]) == faults
        assert len(FAULTS_TOLD[kind]) == len(faults)
        assert all(fault in text for fault in faults)


@pytest.mark.parametrize(("name", "begins"), [("out.png", PNG), ("out.svg", b"<?xml")])
def test_plot_is_drawn_in_the_format_of_its_name(
    name: str, begins: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture needs no sound file; it has the four panels and, as SVG, the names of the lines."""
    picture = tmp_path / name
    said(capsys, "--machine", "motor", "--fault", "bars", "--rate-hz", "5000", "--plot", picture)
    content = picture.read_bytes()
    assert content.startswith(begins)
    assert len(content) > 20_000


def test_page_shows_every_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder gets one picture of each fault and an index that shows them all."""
    shown = {"bearing": FAULTS_OF["bearing"][:1], "supply": FAULTS_OF["supply"][2:3]}
    monkeypatch.setattr("fisher_train.simulate.plot.KINDS", {kind: KINDS[kind] for kind in shown})
    monkeypatch.setattr("fisher_train.simulate.plot.FAULTS_OF", shown)
    monkeypatch.setattr("fisher_train.simulate.plot.FAULTS_TOLD", {"bearing": ("a spall",), "supply": ("sags",)})
    monkeypatch.setattr("fisher_train.simulate.plot.SECONDS", 2)
    printed = said(capsys, "--plot", tmp_path / "page", "--rate-hz", "2000")
    assert "index.html" in printed
    index = (tmp_path / "page" / "index.html").read_text()
    for name, told in (("bearing-outer.png", "a spall"), ("supply-sag.png", "sags")):
        assert (tmp_path / "page" / name).read_bytes().startswith(PNG)
        assert f'src="{name}"' in index
        assert told in index


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["o.wav"], "--machine is missing; list the machines with: fisher-edge simulate --list"),
        ([], "--machine is missing"),
        (["--machine", "gear"], "no output is named; give a .wav file, or a picture with --plot"),
        (["o.mp3", "--machine", "gear"], "o.mp3: only .wav is supported; choose a name that ends in .wav"),
        (["--machine", "gear", "--plot", "o.txt"], "o.txt: only .pdf, .png, .svg are supported"),
        (["nowhere/o.wav", "--machine", "gear"], "nowhere does not exist; create it first"),
        (["o.wav", "--machine", "car"], "machine 'car' is not known; choose one of: rotor, bearing"),
        (["o.wav", "--machine", "gear", "--fault", "x"], "fault 'x' is not one of a gear"),
        (["o.wav", "--machine", "gear", "--rate-hz", "10"], "rate_hz=10 is outside 1000 to 200000 Hz"),
    ],
)
def test_wrong_order_is_one_line(
    arguments: list[str],
    error: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Settings that cannot be recorded or written are refused before anything is made; no file is left."""
    monkeypatch.chdir(tmp_path)
    printed = said(capsys, *arguments, code=2)
    assert printed.startswith("error: ")
    assert error in printed
    assert printed.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_file_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the file cannot be opened, the command says so and ends with 2."""
    (tmp_path / "o.wav").mkdir()
    printed = said(capsys, str(tmp_path / "o.wav"), "--machine", "gear", code=2)
    assert "o.wav cannot be written" in printed
    assert printed.count("\n") == 1
