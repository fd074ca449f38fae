"""Export: faithful to the authors' vectors, and refused when it is not good enough."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import micro
import numpy as np
import onnx
import pytest
import soundfile
from onnx import numpy_helper

from fisher_edge.encoder.bundle import load_bundle, sha256
from fisher_edge.encoder.ort import OrtEncoder
from fisher_edge.errors import BadArtifactError, BadInputError, UsageError
from fisher_export import pipeline
from fisher_export.graph import build_graph
from fisher_export.pipeline import Exported, Precision, Signal, bundle_front_end, export
from fisher_export.verify import cut
from fisher_train.checkpoint import Checkpoint, load_checkpoint

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).parents[2] / "shared" / "reference" / "model"
NANO = Path(__file__).parents[1] / "train" / "checkpoints" / "nano"
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def checkpoint_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a micro checkpoint."""
    return micro.save_micro(tmp_path_factory.mktemp("checkpoint") / "micro")


def encoder_of(path: Path, out: Path, precision: Precision = "fp32") -> OrtEncoder:
    """Export a checkpoint and open the bundle."""
    return OrtEncoder(load_bundle(export(path, out, precision, micro.signals(), variants=False).path))


@pytest.mark.parametrize(
    ("checkpoint", "prefix"),
    [("official_micro_band100_trimmed.pt", "band100"), ("official_micro_band50_time.pt", "band50_time")],
)
def test_fp32_bundle_reproduces_the_reference(checkpoint: str, prefix: str, tmp_path: Path) -> None:
    """Official checkpoints of both token orders give the authors' embeddings, padded to 1024 frames or not."""
    encoder = encoder_of(DATA / checkpoint, tmp_path / "out")
    case = np.load(DATA / "official_micro_case01.npz")
    for pad_frames, suffix in ((False, ""), (True, "_padded_1024")):
        bands = encoder.bundle.front_end.sub_bands(case["wave"], int(case["rate_hz"]), pad_frames=pad_frames)
        expected = case[f"{prefix}_embedding{suffix}"]
        np.testing.assert_allclose(encoder.embed([bands])[0].ravel(), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the full reference vectors are not on this machine")
@pytest.mark.parametrize("name", ["official_micro_band100", "official_micro_band50_time"])
def test_fp32_bundle_reproduces_all_reference_cases(name: str, tmp_path: Path) -> None:
    """Six rates from 5 to 64 kHz, padded or not, give the authors' embeddings from the bundle."""
    encoder = encoder_of(SHARED / f"{name}.pt", tmp_path / "out")
    vectors = np.load(SHARED / f"{name}.npz")
    for case in range(6):
        wave, rate_hz = vectors[f"case{case:02}_wave"], int(vectors[f"case{case:02}_rate_hz"])
        for pad_frames, suffix in ((False, ""), (True, "_padded_1024")):
            bands = encoder.bundle.front_end.sub_bands(wave, rate_hz, pad_frames=pad_frames)
            expected = vectors[f"case{case:02}_embedding{suffix}"]
            np.testing.assert_allclose(encoder.embed([bands])[0].ravel(), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.skipif(not NANO.is_dir(), reason="the trained checkpoint is not in this checkout")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_trained_checkpoint_exports(precision: Precision, tmp_path: Path) -> None:
    """The project's own checkpoint gives fp32 embeddings equal to PyTorch, and the others close to them."""
    exported = export(NANO, tmp_path / "out", precision, micro.signals(), force=True, variants=False)
    assert exported.parity.cosine > {"fp32": 0.999999, "fp16": 0.9999, "int8": 0.99}[precision]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_manifest_says_what_the_bundle_is(checkpoint_path: Path, tmp_path: Path, precision: Precision) -> None:
    """Schema, shape, front-end, licence, training, recordings, figures and hashes stand in the manifest."""
    exported = export(checkpoint_path, tmp_path / "deep" / "er" / "out", precision, micro.signals(), variants=False)
    manifest = json.loads((exported.path / "manifest.json").read_text("utf-8"))
    files = {name: sha256((exported.path / name).read_bytes()) for name in ("encoder.onnx", "selftest.npz")}
    parity = manifest.pop("parity")
    least = manifest.pop("selftest")["min_cosine"]
    assert manifest == {
        "schema": "fisher-edge/bundle/1",
        "name": f"micro-{precision}",
        "version": "7",
        "precision": precision,
        "opset": 17,
        "model_bytes": (exported.path / "encoder.onnx").stat().st_size,
        "dim": 32,
        "depth": 2,
        "heads": 2,
        "front_end": micro.FRONT_END.to_dict(),
        "licence": "Apache-2.0",
        "training": {"licence": "Apache-2.0", "version": "7"},
        "verified_on": ["micro-0.wav", "micro-1.wav"],
        "files": files,
    }
    assert parity == json.loads(json.dumps(asdict(exported.parity))) | {"forced": False}
    assert parity["windows"] == 18
    assert 0.99 < parity["centred_cosine"] <= 1.000001
    assert parity["latency_ratio"] > 0
    assert parity["faithful_share"] == 1
    assert parity["unfaithful"] == []
    assert least == {"fp32": 0.9999, "fp16": 0.99, "int8": 0.97}[precision]
    assert {path.name for path in exported.path.iterdir()} == {"encoder.onnx", "manifest.json", "selftest.npz"}
    assert exported.model_bytes == (exported.path / "encoder.onnx").stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert [path.name for path in exported.path.parent.iterdir()] == ["out"]


@pytest.fixture
def unfaithful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every export wrong: one weight matrix is not the checkpoint's."""

    def spoilt(checkpoint: Checkpoint) -> onnx.ModelProto:
        model = build_graph(checkpoint)
        (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == "blocks.0.mlp.fc2.weight"]
        tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
        return model

    monkeypatch.setattr(pipeline, "build_graph", spoilt)


@pytest.mark.usefixtures("unfaithful")
@pytest.mark.parametrize(("precision", "figure"), [("fp32", "cosine"), ("int8", "faithful_share")])
def test_export_below_the_gate_is_refused(
    checkpoint_path: Path, tmp_path: Path, precision: Precision, figure: str
) -> None:
    """An unfaithful export names the figure and the gate, writes nothing, and leaves an older bundle as it was."""
    (tmp_path / "older").mkdir()
    for name in ("encoder.onnx", "manifest.json", "selftest.npz"):
        (tmp_path / "older" / name).write_text(name)
    for out in (tmp_path / "older", tmp_path / "new", tmp_path / "deep" / "er"):
        with pytest.raises(BadArtifactError, match=rf"not faithful enough: {figure} 0\.\d+ < 0\.\d+") as caught:
            export(checkpoint_path, out, precision, micro.signals())
        assert "nothing was written" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["older"]
    assert (tmp_path / "older" / "encoder.onnx").read_text() == "encoder.onnx"


@pytest.mark.usefixtures("unfaithful")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_force_writes_it_and_says_so(checkpoint_path: Path, tmp_path: Path, precision: Precision) -> None:
    """A forced bundle loads, says that it was forced, and its self-test asks for little less than was measured."""
    exported = export(checkpoint_path, tmp_path / "out", precision, micro.signals(), force=True, variants=False)
    bundle = load_bundle(exported.path)
    assert bundle.manifest["parity"]["forced"] is True
    assert bundle.manifest["parity"]["cosine"] == exported.parity.cosine < 0.9999
    slack = OrtEncoder(bundle).self_test_cosine() - bundle.selftest.min_cosine
    assert 0 < slack < 0.03


def test_force_on_a_faithful_export_is_not_forced(checkpoint_path: Path, tmp_path: Path) -> None:
    """`--force` that was not needed leaves no mark."""
    exported = export(checkpoint_path, tmp_path / "out", "fp32", micro.signals(), force=True)
    assert load_bundle(exported.path).manifest["parity"]["forced"] is False


def test_a_bundle_is_replaced(checkpoint_path: Path, tmp_path: Path) -> None:
    """An older bundle and an empty folder make room for the new one, and no temporary folder is left."""
    out = tmp_path / "out"
    out.mkdir()
    found: list[Exported] = [
        export(checkpoint_path, out, kind, micro.signals(), variants=kind == "tensorrt")
        for kind in ("fp32", "tensorrt", "int8")
    ]
    assert found[0].path == found[1].path == found[2].path == out
    assert load_bundle(out).precision == "int8"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "names",
    [
        ["thesis.txt"],
        ["manifest.json"],  # of something else
        ["encoder.onnx", "manifest.json", "selftest.npz", "notes.txt"],
        ["encoder.onnx", "manifest.json", "selftest.npz", "more/"],
    ],
)
def test_a_folder_that_is_not_a_bundle_is_left_alone(checkpoint_path: Path, tmp_path: Path, names: list[str]) -> None:
    """A folder with anything of the user's in it is refused and untouched, with `force` too."""
    out = tmp_path / "out"
    out.mkdir()
    for name in names:
        (out / name).mkdir() if name.endswith("/") else (out / name).write_text(name)
    for force in (False, True):
        with pytest.raises(UsageError, match="is not a bundle; choose another --out"):
            export(checkpoint_path, out, "fp32", micro.signals(), force=force)
    assert sorted(path.name for path in out.iterdir()) == sorted(name.rstrip("/") for name in names)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_or_a_link_is_left_alone(checkpoint_path: Path, tmp_path: Path) -> None:
    """A file is not replaced, nor a link, wherever it leads."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("file", "link"):
        with pytest.raises(UsageError, match="is not a bundle"):
            export(checkpoint_path, tmp_path / name, "fp32", micro.signals())
    assert (tmp_path / "file").read_text() == "mine"
    assert (tmp_path / "link").is_symlink()


def test_export_into_the_working_folder_by_name(
    checkpoint_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bare name is a folder in the working directory."""
    monkeypatch.chdir(tmp_path)
    assert export(checkpoint_path, Path("out"), "fp32", micro.signals()).path == Path("out")
    assert load_bundle(tmp_path / "out").name == "micro-fp32"


@pytest.mark.parametrize(
    ("signals", "match"),
    [
        ([], "0 windows are too few"),
        (micro.signals((8000,), 10), "7 windows are too few"),
        (micro.signals(tuple(range(4000, 4009)), 3), "no rate has 3 windows"),
        ([Signal("short.wav", np.zeros(10, np.float32), 8000)] * 8, "shorter than one frame"),
        ([Signal("slow.wav", np.zeros(100, np.float32), 1)], "below 100 Hz"),
    ],
)
def test_recordings_that_verify_nothing_are_refused(
    checkpoint_path: Path, tmp_path: Path, signals: list[Signal], match: str
) -> None:
    """Too few windows, none to compare, too short and too slow: each says so, and nothing is written."""
    with pytest.raises(BadInputError, match=match):
        export(checkpoint_path, tmp_path / "out", "fp32", signals)
    assert not any(tmp_path.iterdir())


def test_windows_of_10_s_are_runs_of_pieces() -> None:
    """A window is as many pieces as the gateway's, one after the other; what is left at the end is left out."""
    front_end = replace(micro.FRONT_END, piece_frames=96, piece_rule="grid")
    found = cut(micro.signals((8000,), 32), front_end)
    assert len(found.pieces) == 33
    assert found.windows == [list(range(start, start + 11)) for start in (0, 11, 22)]


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_silent_recordings_prove_nothing(checkpoint_path: Path, tmp_path: Path, value: float) -> None:
    """Windows that are all alike make no self-test: the export is refused, without a division by zero."""
    silence = [Signal("silence.wav", np.full(8 * 2**15, value, np.float32), 8000)]
    for precision in ("fp32", "int8"):
        with pytest.raises(BadArtifactError, match=r"self-test cosine .* < 0\.9 \(are the recordings all alike\?\)"):
            export(checkpoint_path, tmp_path / "out", precision, silence)


def test_windows_are_cut_whole(tmp_path: Path) -> None:
    """Recordings become windows of 128 frames without overlap; a shorter one is one window."""
    front_end = micro.FRONT_END
    signals = [*micro.signals((8000,), 24), *micro.signals((16_000,), 1.0)]
    found = cut(signals, front_end)
    shapes = [(found.rate_hz[index], found.bands[index].shape) for (index,) in found.pieces]
    assert shapes == [(8000, (2, 128, 50))] * 18 + [(16_000, (4, 98, 50))]
    start, length = 128 * front_end.hop(8000), front_end.n_samples(128, 8000)
    np.testing.assert_array_equal(found.bands[1], front_end.sub_bands(signals[0].wave[start : start + length], 8000))
    wholes = [found.bands[index].shape for (index,) in found.windows]
    assert wholes == [(2, 1024, 50)] * 2 + [(4, 98, 50)]
    assert [found.take[index] for (index,) in found.windows] == [0, 0, 1]


def test_encoder_with_too_few_positions_is_refused(tmp_path: Path) -> None:
    """An encoder that cannot see its own front-end's longest window would fail in the field: it is not exported."""
    path = micro.save_micro(tmp_path / "micro", micro.micro_checkpoint(replace(micro.CONFIG, max_length=32)))
    with pytest.raises(BadArtifactError, match="positions for 512 frames"):
        export(path, tmp_path / "out", "fp32", micro.signals())
    short = replace(micro.FRONT_END, max_frames=512)
    path = micro.save_micro(tmp_path / "short", micro.micro_checkpoint(replace(micro.CONFIG, max_length=32), short))
    assert load_bundle(export(path, tmp_path / "out", "fp32", micro.signals()).path).front_end.max_frames == 512


def test_exported_checkpoint_keeps_its_front_end(tmp_path: Path) -> None:
    """The bundle's front-end is the checkpoint's, not the default one."""
    front_end = replace(micro.FRONT_END, top_band="drop", amplitude="raw", mean=-1.5)
    path = micro.save_micro(tmp_path / "micro", micro.micro_checkpoint(front_end=front_end))
    assert load_checkpoint(path).front_end == front_end
    assert encoder_of(path, tmp_path / "out").bundle.front_end == front_end


@pytest.mark.parametrize("rule", ["spread", "grid"])
def test_checkpoint_trained_on_pieces_runs_on_the_grid(tmp_path: Path, rule: Any) -> None:
    """Checkpoints written before the grid existed have no other rule; whole windows stay whole."""
    front_end = replace(micro.FRONT_END, piece_frames=48, piece_rule=rule)
    path = micro.save_micro(tmp_path / "micro", micro.micro_checkpoint(front_end=front_end))
    bundle = encoder_of(path, tmp_path / "out").bundle
    assert bundle.front_end == replace(front_end, piece_rule="grid")
    assert bundle.manifest["front_end"]["piece_rule"] == "grid"
    assert bundle.selftest.bands.shape == (6, 48, 50)
    assert bundle_front_end(micro.micro_checkpoint()).piece_rule == "spread"


def test_export_on_the_grid_is_verified_on_its_pieces(tmp_path: Path) -> None:
    """What is compared is what the gateway will embed: whole pieces, each standardised by itself."""
    front_end = replace(micro.FRONT_END, piece_frames=48, piece_rule="grid")
    signals = micro.signals((8000,), 6)
    found = cut(signals, front_end)
    assert {bands.shape for bands in found.bands} == {(2, 48, 50)}
    assert found.pieces == [[index] for index in range(12)]
    assert found.windows == [list(range(12))]
    start, length = 48 * front_end.hop(8000), front_end.n_samples(48, 8000)
    np.testing.assert_array_equal(found.bands[1], front_end.sub_bands(signals[0].wave[start : start + length], 8000))
    path = micro.save_micro(tmp_path / "micro", micro.micro_checkpoint(front_end=front_end))
    assert export(path, tmp_path / "out", "int8", signals, variants=False).parity.windows == 12


@pytest.mark.skipif(not NANO.is_dir(), reason="the trained checkpoint is not in this checkout")
def test_shipped_bundle_is_the_checkpoints_export() -> None:
    """The default bundle runs on the grid, its model is the one that baselines name, and it is faithful everywhere."""
    bundle = load_bundle()
    assert bundle.front_end.on_grid
    assert bundle.sha256 == "deb0c927603aca3bf7f901f7cf47ea231c2f2ebacca6d955c5decf92b74b4c52"
    assert bundle.front_end == bundle_front_end(load_checkpoint(NANO))
    assert bundle.manifest["parity"]["unfaithful"] == []
    variants = bundle.manifest["variants"]
    assert variants.keys() == {"openvino-int8", "s8s8", "tensorrt-fp16"}
    for variant in variants.values():
        for name, digest in variant["files"].items():
            assert sha256((bundle.path / name).read_bytes()) == digest


def command(*arguments: str, before: str = "", cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, after some code."""
    code = f"import sys; {before}\nfrom fisher_edge.cli import main; main(sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_command_exports_and_prints_json(checkpoint_path: Path, tmp_path: Path) -> None:
    """`fisher-edge export ... --json` prints one JSON line that agrees with the bundle it wrote."""
    for signal in micro.signals():
        soundfile.write(tmp_path / signal.name, signal.wave / 10, signal.rate_hz)
    recordings = [argument for n in (0, 1) for argument in ("--calibration", f"micro-{n}.wav")]
    found = command("export", str(checkpoint_path), "--fp32", "--out", "out", "--json", *recordings, cwd=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    (line,) = found.stdout.splitlines()
    values = json.loads(line)
    manifest = load_bundle(tmp_path / "out").manifest
    assert values["parity"] | {"forced": False} == manifest["parity"]
    assert (values["variants"], values["notes"]) == ({}, [])
    assert (values["path"], values["name"], values["precision"]) == ("out", "micro", "fp32")
    assert values["model_bytes"] == (tmp_path / "out" / "encoder.onnx").stat().st_size
    assert manifest["verified_on"] == ["micro-0.wav", "micro-1.wav"]


@pytest.mark.parametrize("package", ["torch", "onnx", "safetensors"])
def test_missing_extra_is_one_line_and_code_3(checkpoint_path: Path, tmp_path: Path, package: str) -> None:
    """Without a package of the extra the command says what to install, and nothing else."""
    block = f"sys.modules[{package!r}] = None"
    found = command("export", str(checkpoint_path), "--out", "out", before=block, cwd=tmp_path)
    assert found.returncode == 3
    assert found.stderr == f"error: {package} is not installed; run: pip install 'fisher-edge[export]'\n"
    assert found.stdout == ""
    assert not any(tmp_path.iterdir())


def test_both_precisions_at_once_are_a_usage_error(checkpoint_path: Path, tmp_path: Path) -> None:
    """--fp32 and --int8 exclude each other."""
    found = command("export", str(checkpoint_path), "--out", "out", "--fp32", "--int8", cwd=tmp_path)
    assert (found.returncode, found.stderr) == (2, "error: --fp32 cannot be used with --int8; choose one\n")
    found = command("export", str(checkpoint_path), "--out", "out", "--tensorrt", "--fp16", cwd=tmp_path)
    assert (found.returncode, found.stderr) == (2, "error: --fp16 cannot be used with --tensorrt; choose one\n")
