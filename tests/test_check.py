"""`config check` as a user sees it: what is refused, and what keeps a channel from being judged."""

import json
import os
from pathlib import Path

import pytest
from command import run_here
from machine import RATE_HZ, machine_signal, sound_file
from other_bundle import other_model, write_bundle

CHANNEL = '[[channel]]\nasset = "pump-1"\nname = "vib-de"\nsource = { type = "recording", files = ["normal-0.wav"] }\n'
FITS = "[model]\nwindow_s = 0.64\n" + CHANNEL
PLACE = ("--asset", "pump-1", "--channel", "vib-de")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with recordings and a state directory in which they are enrolled."""
    made = tmp_path_factory.mktemp("check")
    for seed in range(2):
        sound_file(made / f"normal-{seed}.wav", machine_signal(seed))
    sound_file(made / "other-rate.wav", machine_signal(0), RATE_HZ // 2)
    (made / "text.wav").write_text("time;value\n")
    os.mkfifo(made / "pipe.wav")
    files = ("normal-0.wav", "normal-1.wav")
    assert run_here("enroll", *files, *PLACE, "--window-s", "0.64", cwd=made).returncode == 0
    return made


def notes(folder: Path, text: str) -> list[str]:
    """Return the notes on a configuration that is valid."""
    (folder / "gateway.toml").write_text(text)
    checked = run_here("config", "check", "gateway.toml", cwd=folder)
    assert (checked.returncode, checked.stderr) == (0, "")
    first, second, *rest = checked.stdout.splitlines()
    assert " runs on " in second
    assert first.startswith("gateway.toml is valid: gateway '")
    assert all(line.startswith("note: ") for line in rest)
    return [line.removeprefix("note: ") for line in rest]


def refusal(folder: Path, text: str) -> str:
    """Return the one line on a configuration that is refused as such."""
    (folder / "gateway.toml").write_text(text)
    checked = run_here("config", "check", "gateway.toml", cwd=folder)
    assert (checked.returncode, checked.stdout) == (2, "")
    assert checked.stderr.count("\n") == 1
    return checked.stderr


def test_configuration_that_fits_has_no_notes(folder: Path) -> None:
    """What is configured as it was enrolled is summed up in one line."""
    (folder / "gateway.toml").write_text('[gateway]\nname = "line-3"\n' + FITS)
    checked = run_here("config", "check", "gateway.toml", cwd=folder)
    first, second = checked.stdout.splitlines()
    assert first == "gateway.toml is valid: gateway 'line-3', 1 channel(s): pump-1/vib-de"
    assert second.startswith("nano-int8")
    assert " runs on " in second


def test_nothing_enrolled_is_a_note(folder: Path) -> None:
    """A channel without a baseline is named, whether or not there is a state directory, and none is made."""
    (note,) = notes(folder, '[gateway]\nstate_dir = "nowhere"\n' + FITS)
    assert note == f"pump-1/vib-de: nothing is enrolled in {folder / 'nowhere'}"
    assert not (folder / "nowhere").exists()


def test_misspelt_asset_is_named_on_both_sides(folder: Path) -> None:
    """The channel has no baseline, and what is enrolled has no channel."""
    first, second = notes(folder, FITS.replace("pump-1", "pump-l"))
    assert first.startswith("pump-l/vib-de: nothing is enrolled for this channel; run: fisher-edge enroll FILES ")
    assert second == "pump-1/vib-de: enrolled, but no [[channel]] has this asset and name"


def test_other_window_is_a_note(folder: Path) -> None:
    """Windows that differ from those enrolled are named with both lengths and the way out."""
    (note,) = notes(folder, FITS.replace("0.64", "2.56"))
    assert "is enrolled with windows of 0.64 s, the configuration says 2.56 s; set window_s = 0.64" in note


STATES = 'operating_state = { topic = "plant/rpm", states = { slow = [1, 2], fast = [2, 3] } }\n'


@pytest.mark.parametrize(
    ("line", "note"),
    [
        (STATES, "operating state 'slow' is not enrolled (there are: fast); it will be said to be unfamiliar"),
        ('operating_state = { name = "hot" }\n', "operating state 'hot' is not enrolled (there are: fast); it"),
        ('operating_state = { name = "fast" }\n', None),
        ('operating_state = { topic = "plant/rpm" }\n', None),
    ],
)
def test_operating_state_that_is_not_enrolled_is_a_note(folder: Path, line: str, note: str | None) -> None:
    """Names of the configuration are compared with those given at enrollment."""
    state = folder / "named"
    if not state.exists():
        words = (*PLACE, "--window-s", "0.64", "--state", "fast", "--state-dir", state)
        assert run_here("enroll", folder / "normal-0.wav", folder / "normal-1.wav", *words).returncode == 0
    said = notes(folder, f'[gateway]\nstate_dir = "{state}"\n' + FITS + line)
    assert [each.startswith(f"pump-1/vib-de: {note}") for each in said] == ([True] if note else [])


def test_operating_state_without_names_is_a_note(folder: Path) -> None:
    """States that were found cannot be told by name."""
    (note,) = notes(folder, FITS + STATES)
    assert note == "pump-1/vib-de: operating_state counts only with states named at enrollment; enroll with --state"


def test_same_grid_by_another_length_is_no_note(folder: Path) -> None:
    """Lengths are rounded to pieces: 1.28 s enrolled and 0.96 s configured are the same windows."""
    options = (*PLACE, "--window-s", "1.28", "--state-dir", "rounded")
    assert run_here("enroll", "normal-0.wav", "normal-1.wav", *options, cwd=folder).returncode == 0
    for window_s in ("1.28", "0.96"):
        assert notes(folder, '[gateway]\nstate_dir = "rounded"\n' + FITS.replace("0.64", window_s)) == []


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("other-rate.wav", "other-rate.wav has 8000 Hz, the baseline was enrolled at 16000 Hz"),
        ("nowhere.wav", "no data until there is a file at "),
        ("pipe.wav", "no data until there is a file at "),
        ("text.wav", "text.wav is not a sound file"),
    ],
)
def test_recording_that_gives_no_data_is_a_note(folder: Path, file: str, reason: str) -> None:
    """A recording may come later: it is a note, with nothing enrolled as well."""
    (note,) = notes(folder, FITS.replace("normal-0.wav", file))
    assert note.startswith("pump-1/vib-de: ")
    assert reason in note
    if file != "other-rate.wav":
        assert note in notes(folder, '[gateway]\nstate_dir = "nowhere"\n' + FITS.replace("normal-0.wav", file))


def test_other_model_is_a_note(folder: Path) -> None:
    """A baseline of another model is judged by that while it is kept, and is no longer judged when it is gone."""
    other = other_model(folder / "other")
    text = FITS.replace("[model]\n", '[model]\nbundle = "other"\n')
    (note,) = notes(folder, text)
    assert "judged by the model it was enrolled with, nano-int8 (" in note
    assert note.endswith("run: fisher-edge baseline reembed pump-1 vib-de --provider auto")
    kept = folder / "state" / "bundles"
    kept.rename(folder / "away")
    try:
        (note,) = notes(folder, text)
    finally:
        (folder / "away").rename(kept)
    assert "is not there any more; run: fisher-edge baseline reembed" in note
    assert other.is_dir()


@pytest.mark.parametrize(("rate_hz", "noted"), [(RATE_HZ, True), (1.05 * RATE_HZ, True), (1000, False)])
def test_rate_at_which_the_model_rounds_too_much_is_a_note(folder: Path, rate_hz: float, noted: bool) -> None:
    """What the export measured is said of channels of about this rate, and of no other."""
    name = f"rounded-{rate_hz:g}"
    group = {"rate_hz": rate_hz, "low_hz": 6000.0, "high_hz": 8000.0, "centred_cosine": 0.6, "noise": 10.4}
    write_bundle(folder / name, parity={"unfaithful": [group]})
    found = notes(folder, FITS.replace("[model]\n", f'[model]\nbundle = "{name}"\n'))
    said = (
        "pump-1/vib-de: nano-int8 rounds too much at 16000 Hz (6000 to 8000 Hz): recordings that are nearly alike "
        "cannot be told apart; export the model with --fp32 for this channel"
    )
    assert found == ([said] if noted else [])


def test_hop_above_the_window_is_refused(folder: Path) -> None:
    """A hop that leaves out part of the signal is refused, of the model or of a channel."""
    for text in (
        FITS.replace("0.64\n", "0.64\nhop_s = 5.0\n"),
        FITS.replace('name = "vib-de"\n', 'name = "vib-de"\nhop_s = 5\n'),
    ):
        assert "channel pump-1/vib-de: hop_s = 5 is above window_s = 0.64" in refusal(folder, text)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ('type = "recordin"', "recordin"),
        ('type = "recording", fils = ["a"]', "fils"),
        ('type = "recording", speed = "fast"', "speed"),
    ],
)
def test_source_that_cannot_be_is_refused(folder: Path, changed: str, reason: str) -> None:
    """Types and keys of sources are checked without opening anything."""
    assert reason in refusal(folder, FITS.replace('type = "recording"', changed))


def test_json_shows_the_configuration_without_secrets(folder: Path) -> None:
    """Defaults are filled in, notes are there, and a password in a URL is not shown."""
    (folder / "password").write_text("hunter2")
    broker = '[mqtt]\nurl = "mqtts://user@broker"\npassword_file = "password"\n'
    (folder / "gateway.toml").write_text(broker + FITS)
    checked = run_here("config", "check", "gateway.toml", "--json", cwd=folder)
    assert (checked.returncode, checked.stderr) == (0, "")
    facts = json.loads(checked.stdout)
    assert "hunter2" not in checked.stdout
    assert facts["notes"] == []
    assert facts["model"]["window_s"] == 0.64
    assert facts["mqtt"]["password_file"] == str(folder / "password")
    assert facts["channel"][0]["source"] == {"type": "recording", "files": ["normal-0.wav"]}


def test_password_in_a_url_is_not_printed(folder: Path) -> None:
    """Whatever is said about a URL with a password, the password is not part of it."""
    (folder / "gateway.toml").write_text('[mqtt]\nurl = "mqtt://user:hunter2@broker"\n' + FITS)
    checked = run_here("config", "check", "gateway.toml", "--json", cwd=folder)
    assert "hunter2" not in checked.stdout + checked.stderr
    assert checked.stdout + checked.stderr
