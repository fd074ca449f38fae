"""The command line on real recordings: what it prints, for people and for programs, and how much memory it takes."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer
from command import COMMAND, run_here, run_program, troubles
from machine import EXAMPLES, machine_signal, sound_file
from other_bundle import other_model

from fisher_edge import __version__
from fisher_edge.cli.app import app
from fisher_edge.dsp.frontend import FrontEnd

BEARING = EXAMPLES / "bearing"
HEALTHY = [BEARING / f"healthy-{rpm}rpm-{part}.flac" for rpm in (600, 900, 1200) for part in "ab"]
RESULT_FIELDS = {
    *("schema", "gateway", "asset", "channel", "boot", "seq", "replay", "time", "window_s", "rate_hz", "unit"),
    *("state", "skipped", "operating_state", "distance", "score", "evidence"),
    *("bands", "nearest", "fault", "level", "views", "features", "baseline", "promise", "model", "latency_ms"),
}
"""As documented in docs/mqtt.md."""
PLACE = ("--asset", "bearing", "--channel", "vibration")


def command_names(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command below a group."""
    context = typer.Context(command)
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        if hasattr(child, "list_commands"):
            yield from command_names(child, (*path, name))
        else:
            yield (*path, name)


COMMANDS = list(command_names(typer.main.get_command(app)))


def test_commands_of_the_design_are_there() -> None:
    """The commands that scripts rely on exist."""
    fixed: set[tuple[str, ...]] = {("demo",), ("run",), ("enroll",), ("score",), ("embed",), ("export",), ("bench",)}
    fixed |= {("baseline", "list"), ("baseline", "activate"), ("baseline", "reembed"), ("baseline", "remove")}
    fixed |= {("config", "check"), ("config", "schema")}
    fixed |= {("bridge", "probe"), ("rmis", "score"), ("simulate",), ("train-data", "pack")}
    assert fixed <= set(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_has_an_example(words: tuple[str, ...], option: str) -> None:
    """Every command explains itself, with an example that begins with its own words."""
    helped = run_here(*words, option)
    assert helped.returncode == 0
    assert f"Example: fisher-edge {' '.join(words)}" in " ".join(helped.stdout.split())


def test_groups_without_a_command_show_their_help() -> None:
    """A group without a command shows its help and exits with 2; `--version` prints the version."""
    for words in ((), ("config",), ("baseline",)):
        helped = run_here(*words)
        assert (helped.returncode, helped.stderr) == (2, "")
        assert "Usage: " in helped.stdout
    version = run_here("--version")
    assert (version.returncode, version.stdout) == (0, f"fisher-edge {__version__}\n")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a state directory in which a bearing and an example of its fault are enrolled."""
    folder = tmp_path_factory.mktemp("cli") / "new" / "state"
    options = (*PLACE, "--window-s", "0.64", "--state-dir", folder)
    enrolled = run_here("enroll", *HEALTHY, *options, "--reason", "after the overhaul", "--json")
    assert (enrolled.returncode, troubles(enrolled)) == (0, [])
    facts = json.loads(enrolled.stdout)
    assert (facts["asset"], facts["channel"], facts["label"], facts["version"]) == ("bearing", "vibration", None, 1)
    assert (facts["windows"], facts["window_s"], facts["hop_s"]) == (42, 0.64, 0.16)
    assert facts["promise"].keys() == {"1", "0.1"}
    for rate, (low, high) in facts["promise"].items():
        assert low < float(rate) < high
    assert (facts["takes"], facts["spans_s"][0], facts["set_aside"]) == (6, 0.16, [])
    fault = BEARING / "inner-5-900rpm.flac"
    labelled = run_here("enroll", fault, *options, "--label", "inner race", "--hop-s", "0.64")
    assert (labelled.returncode, labelled.stderr) == (0, "")
    assert "enrolled as examples of 'inner race', version 1" in labelled.stdout
    return folder


def test_score_prints_one_object_a_line(state: Path) -> None:
    """With `--json` every line is one window with all result fields, and a faulty bearing ends in an alarm."""
    scored = run_here(
        "score", BEARING / "inner-5-900rpm.flac", *PLACE, "--state-dir", state, "--hop-s", "0.48", "--json"
    )
    assert (scored.returncode, scored.stderr) == (0, "")
    results = [json.loads(line) for line in scored.stdout.splitlines()]
    assert [result["seq"] for result in results] == list(range(1, 11))
    for result in results:
        assert result.keys() == RESULT_FIELDS
        assert (result["gateway"], result["boot"], result["replay"]) == (None, None, False)
        assert (result["window_s"], result["baseline"]) == (0.64, {"version": 1, "windows": 42})
        assert sum(band["share"] for band in result["bands"]) == pytest.approx(result["distance"], abs=1e-6)
        assert result["fault"]["k"] == 3
    assert results[-1]["state"] == "alarm"
    assert results[-1]["fault"]["label"] == "inner race"
    assert results[-1]["nearest"]["recording"] in {path.name for path in HEALTHY}
    assert results[0]["time"] == "1970-01-01T00:00:00.655Z"


def test_score_speaks_to_people(state: Path) -> None:
    """Without `--json` there is a heading, a line a window with state and resemblance, and a summary."""
    scored = run_here("score", BEARING / "healthy-900rpm-c.flac", *PLACE, "--state-dir", state)
    assert (scored.returncode, scored.stderr) == (0, "")
    head, *lines, summary = scored.stdout.splitlines()
    assert head.split()[:4] == ["end", "state", "score", "evidence"]
    assert len(lines) == 7
    assert all(" normal " in line and line.endswith("kHz  normal (3 of 3)") for line in lines)
    assert max(map(len, lines)) <= 100
    assert summary.startswith("7 windows: 7 normal; most evidence: ")


def test_enroll_add_keeps_the_examples_there_are(tmp_path: Path) -> None:
    """`--add` says how many it joined; what is enrolled already is refused, and nothing changes."""
    options = (*PLACE, "--window-s", "0.64", "--state-dir", tmp_path)
    assert run_here("enroll", *HEALTHY, *options).returncode == 0
    for number, count in (("inner-5-900rpm", "7 windows"), ("outer-5-1200rpm", "7 windows")):
        told = run_here("enroll", BEARING / f"{number}.flac", *options, "--hop-s", "0.64", "--label", "worn", "--add")
        assert (told.returncode, told.stderr) == (0, "")
        assert count in told.stdout
    assert "enrolled as examples of 'worn', added to 7 earlier ones, version 2" in told.stdout
    refused = run_here("enroll", HEALTHY[0], *options, "--add")
    assert (refused.returncode, refused.stdout) == (4, "")
    assert refused.stderr.count("\n") == 1
    rows = json.loads(run_here("baseline", "list", "--state-dir", tmp_path, "--json").stdout)
    assert [(row["label"], row["windows"], row["active"]) for row in rows] == [
        (None, 42, True),
        ("worn", 7, False),
        ("worn", 14, True),
    ]


def test_baseline_takes_names_as_arguments_and_as_options(state: Path) -> None:
    """An earlier release had options; without names the line says what is missing."""
    place = ("--state-dir", state)
    shown = [run_here("baseline", "show", *words, *place) for words in (("bearing", "vibration"), PLACE)]
    assert shown[0].stdout == shown[1].stdout
    assert shown[0].stdout.startswith("bearing/vibration")
    missing = run_here("baseline", "show", "bearing", *place)
    assert (missing.returncode, missing.stderr) == (2, "error: name the machine and its sensor: ASSET CHANNEL\n")


def test_enroll_says_what_it_promises(tmp_path: Path) -> None:
    """People read the version, how many false alarms to expect, and which recording stands alone."""
    files = [sound_file(tmp_path / f"{seed}.wav", machine_signal(seed)) for seed in range(3)]
    odd = sound_file(tmp_path / "odd.wav", machine_signal(9, fault_hz=3000.0))
    enrolled = run_here("enroll", *files, odd, *PLACE, "--window-s", "0.64", "--state-dir", tmp_path / "state")
    assert (enrolled.returncode, troubles(enrolled)) == (0, [])
    assert "windows of 0.64 s enrolled as normal, version 1" in enrolled.stdout
    assert re.search(r"false warnings: 1 a day \([\d.e-]+ to [\d.e+]+\)\n", enrolled.stdout)
    assert re.search(r"false alarms: 0.1 a day \([\d.e-]+ to [\d.e+]+\)\n", enrolled.stdout)
    assert "odd.wav is unlike all other recordings" in enrolled.stdout


def test_enroll_names_operating_states(tmp_path: Path) -> None:
    """A machine that runs and stands still has two states with a level of its own each, and both are judged normal."""
    run_files = [sound_file(tmp_path / f"run-{seed}.wav", machine_signal(seed)) for seed in range(3)]
    noise = [1e-3 * np.random.default_rng(seed).standard_normal(64_000).astype(np.float32) for seed in range(5)]
    off_files = [sound_file(tmp_path / f"off-{seed}.wav", noise[seed]) for seed in range(3)]
    options = (*PLACE, "--state-dir", tmp_path / "state")
    enrolled = run_here("enroll", *run_files, *off_files, *options, "--window-s", "0.64")
    assert (enrolled.returncode, troubles(enrolled)) == (0, [])
    assert "2 operating states, each with a level of its own: 1 (3 recordings), 2 (3 recordings)" in enrolled.stdout
    states = set()
    for signal in (machine_signal(7), noise[4]):
        scored = run_here("score", sound_file(tmp_path / "new.wav", signal), *options, "--json")
        results = [json.loads(line) for line in scored.stdout.splitlines()]
        assert {result["state"] for result in results} == {"normal"}
        states |= {result["operating_state"] for result in results}
    assert len(states) == 2


def test_window_is_a_whole_number_of_pieces(tmp_path: Path) -> None:
    """The default model has pieces of 0.96 s: 1.28 s becomes one, 1.8 s two; a shorter window keeps its length."""
    files = [sound_file(tmp_path / f"{seed}.wav", machine_signal(seed, 8.0)) for seed in range(2)]
    lengths = []
    for wanted_s in ("0.5", "1.28", "1.8"):
        options = (*PLACE, "--window-s", wanted_s, "--state-dir", tmp_path / wanted_s)
        lengths.append(json.loads(run_here("enroll", *files, *options, "--json").stdout)["window_s"])
    assert lengths == [0.5, 0.96, 1.92]


def enrolled_in(folder: Path, *options: str) -> Path:
    """Enroll a healthy machine in `folder/state` and return that."""
    files = [sound_file(folder / f"{seed}.wav", machine_signal(seed)) for seed in range(2)]
    done = run_here("enroll", *files, *PLACE, "--window-s", "0.64", "--state-dir", folder / "state", *options)
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "state"


def models_of(folder: Path, *options: str) -> set[str]:
    """Score another recording; return the models that its results name."""
    file = sound_file(folder / "scored.wav", machine_signal(5))
    scored = run_here("score", file, *PLACE, "--state-dir", folder / "state", "--json", *options)
    assert (scored.returncode, scored.stderr) == (0, "")
    return {json.loads(line)["model"]["name"] for line in scored.stdout.splitlines()}


def test_baseline_is_judged_by_the_model_that_made_it(tmp_path: Path) -> None:
    """After the default model has changed, a baseline is judged by its own, which is kept in the state directory."""
    other = other_model(tmp_path / "other")
    state_dir = enrolled_in(tmp_path, "--model", str(other))
    shutil.rmtree(other)
    assert models_of(tmp_path) == {"other"}
    shutil.rmtree(state_dir / "bundles")
    file = sound_file(tmp_path / "scored.wav", machine_signal(5))
    refused = run_here("score", file, *PLACE, "--state-dir", state_dir)
    assert refused.returncode == 4
    assert "was enrolled with model other" in refused.stderr


def test_reembed_makes_a_version_of_another_model(tmp_path: Path) -> None:
    """The kept recordings become a new version, of the new model and with the same windows; going back is possible."""
    state_dir, other = enrolled_in(tmp_path), other_model(tmp_path / "other")
    place = (*PLACE, "--state-dir", state_dir)
    done = run_here("baseline", "reembed", *place, "--model", other, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert (json.loads(done.stdout)["version"], json.loads(done.stdout)["window_s"]) == (2, 0.64)
    rows = json.loads(run_here("baseline", "list", "--state-dir", state_dir, "--json").stdout)
    assert [(row["version"], row["active"], row["model"]) for row in rows] == [
        (1, False, "nano-int8"),
        (2, True, "other"),
    ]
    assert rows[0]["recordings"] == rows[1]["recordings"]
    assert rows[1]["reason"] == "embedded again with other"
    assert models_of(tmp_path) == {"other"}
    assert run_here("baseline", "activate", *place, "--version", "1").returncode == 0
    assert models_of(tmp_path) == {"nano-int8"}


def test_reembed_needs_the_recordings(tmp_path: Path) -> None:
    """With `--keep-mb 0` nothing is kept, and reembed says so."""
    state_dir = enrolled_in(tmp_path, "--keep-mb", "0")
    assert not list((state_dir / "audio").rglob("*.wav"))
    done = run_here("baseline", "reembed", *PLACE, "--state-dir", state_dir)
    assert (done.returncode, done.stdout) == (4, "")
    assert "were not kept" in done.stderr


def test_baseline_remove_deletes_the_recordings(tmp_path: Path) -> None:
    """All versions go, with what was kept of them."""
    state_dir = enrolled_in(tmp_path)
    enrolled_in(tmp_path)
    assert len(list((state_dir / "audio").rglob("*.wav"))) == 4
    done = run_here("baseline", "remove", *PLACE, "--state-dir", state_dir)
    assert (done.returncode, done.stdout) == (0, "bearing/vibration: 2 version(s) of normal removed\n")
    assert not list((state_dir / "audio").rglob("*.wav"))
    assert "nothing is enrolled" in run_here("baseline", "list", "--state-dir", state_dir).stdout


def test_baseline_list_shows_versions(state: Path, tmp_path: Path) -> None:
    """The list names channel, label, version and model, as JSON and as text; an empty one says what to run."""
    listed = run_here("baseline", "list", "--state-dir", state, "--json")
    assert (listed.returncode, listed.stderr) == (0, "")
    rows = json.loads(listed.stdout)
    assert [(row["label"], row["version"], row["active"], row["windows"]) for row in rows] == [
        (None, 1, True, 42),
        ("inner race", 1, True, 7),
    ]
    assert {row["rate_hz"] for row in rows} == {51_200}
    assert [row["reason"] for row in rows] == ["after the overhaul", ""]
    assert [row["recordings"] for row in rows] == [[path.name for path in HEALTHY], ["inner-5-900rpm.flac"]]
    assert [row["specimens"] for row in rows] == [[None] * 6, [None]]
    assert {row["fusion"]["classes_with_two_units"] for row in rows} == {1}
    shown = run_here("baseline", "list", "--state-dir", state)
    assert [line.split()[:2] for line in shown.stdout.splitlines()] == [
        ["bearing/vibration", "normal"],
        ["bearing/vibration", "inner"],
        ["faults", "are"],
    ]
    assert shown.stdout.splitlines()[0].endswith("  after the overhaul")
    assert "1 of 2 states come from two specimens or recordings, 2 are needed" in shown.stdout
    missing = run_here("baseline", "list", "--state-dir", tmp_path / "none")
    assert missing.returncode == 4
    assert missing.stderr.startswith(f"error: nothing is enrolled in {tmp_path / 'none'}")
    assert not (tmp_path / "none").exists()


def test_embed_writes_one_array_for_one_file(tmp_path: Path) -> None:
    """One file becomes segments x (bands * dim) float32; padding changes the numbers of a short one, not its shape."""
    file = sound_file(tmp_path / "a.wav", machine_signal(0, 25.0))
    embedded = run_here("embed", file, "--out", tmp_path / "a.npy", "--json")
    assert (embedded.returncode, embedded.stderr) == (0, "")
    facts = json.loads(embedded.stdout)
    rows = np.load(tmp_path / "a.npy", allow_pickle=False)
    assert facts["out"] == str(tmp_path / "a.npy")
    assert facts["embeddings"] == [{"file": str(file), "shape": list(rows.shape)}]
    assert rows.dtype == np.float32
    # 25 s are two segments of 10.255 s; the rest is shorter than half of one.
    assert len(rows) == 2
    assert rows.shape[1] % FrontEnd(band_width=50, top_band="pad").n_bands(16_000) == 0
    assert np.isfinite(rows).all()
    short = sound_file(tmp_path / "b.wav", machine_signal(0, 0.5))
    for option in ("--pad-frames", "--no-pad-frames"):
        assert run_here("embed", short, "--out", tmp_path / f"b{option}.npy", option).returncode == 0
    padded, plain = (np.load(tmp_path / f"b{option}.npy") for option in ("--pad-frames", "--no-pad-frames"))
    assert padded.shape == plain.shape
    assert not np.allclose(padded, plain, atol=1e-3)


def test_embed_writes_an_archive_for_several_files(tmp_path: Path) -> None:
    """The keys are the paths as given, relative or absolute, with folders and with any suffix."""
    (tmp_path / "in").mkdir()
    sound_file(tmp_path / "in" / "a.wav", machine_signal(0, 1.0))
    np.save(tmp_path / "b.npy", machine_signal(1, 1.0))
    absolute = sound_file(tmp_path / "c.flac.wav", machine_signal(0, 1.0))
    given = ["in/a.wav", "./in/a.wav", str(absolute)]
    embedded = run_here("embed", *given, "--out", "out.npz", cwd=tmp_path)
    assert (embedded.returncode, embedded.stderr) == (0, "")
    assert len(embedded.stdout.splitlines()) == 2 or embedded.stdout.count("in/a.wav") == 2
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        assert sorted(arrays.files) == sorted({str(Path(name)) for name in given})
        assert np.array_equal(arrays["in/a.wav"], arrays[str(absolute)])
    embedded = run_here("embed", "b.npy", "in/a.wav", "--rate-hz", "16000", "--out", "out2.npz", cwd=tmp_path)
    assert (embedded.returncode, embedded.stderr) == (0, "")
    with np.load(tmp_path / "out2.npz", allow_pickle=False) as arrays:
        assert sorted(arrays.files) == ["b.npy", "in/a.wav"]


def test_reader_that_leaves_early_is_no_error(state: Path) -> None:
    """`score ... | head -1` ends quietly."""
    command = [*COMMAND, "score", str(BEARING / "healthy-900rpm-c.flac"), *PLACE, "--state-dir", str(state), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == b""
        child.wait(30)


def peak_bytes(*arguments: object) -> tuple[list[str], int]:
    """Run a command; return the lines that it prints and the most memory that it had."""
    # A process begins with the peak of the one that forked it, so a small one stands between this and the command.
    code = """if True:
        import resource, subprocess, sys
        done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, check=True, text=True)
        print(done.stdout, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, sep="")
    """
    done = run_program([sys.executable, "-c", code, *COMMAND, *map(str, arguments)])
    assert (done.returncode, done.stderr) == (0, "")
    *lines, peak_kib = done.stdout.splitlines()
    return lines, int(peak_kib) * 1024


@pytest.mark.slow
def test_long_recordings_take_little_memory(tmp_path: Path) -> None:
    """Four minutes at 51.2 kHz, which are 49 MB of single precision, are enrolled in less than 145 MB at the peak."""
    rate_hz, seconds, files = 51_200, 120, [tmp_path / "a.flac", tmp_path / "b.npy"]
    noise = np.random.default_rng(0).integers(-9000, 9000, 20 * rate_hz, np.int16)
    with soundfile.SoundFile(files[0], "w", rate_hz, 1, "PCM_16") as file:
        for first in range(0, seconds * 997, 997):
            file.write(noise[first : first + rate_hz])
    array = np.lib.format.open_memmap(files[1], "w+", np.int16, (seconds * rate_hz,))
    array.reshape(-1, len(noise))[:] = noise[::-1]
    options = (*PLACE, "--state-dir", tmp_path / "state", "--rate-hz", rate_hz, "--hop-s", "20", "--json")
    lines, peak = peak_bytes("enroll", *files, *options)
    assert json.loads("".join(lines))["windows"] == 12
    assert 20e6 < peak < 145e6
