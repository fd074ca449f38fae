"""Reading a bundle: as it was written, and every way it can be damaged or hostile."""

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import micro
import numpy as np
import onnx
import pytest

from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.encoder import bundle as module
from fisher_edge.encoder.bundle import DEFAULT_BUNDLE, load_bundle, sha256
from fisher_edge.errors import BadArtifactError
from fisher_export.pipeline import export

FILES = ["encoder.onnx", "manifest.json", "selftest.npz"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a bundle that must not be changed."""
    folder = tmp_path_factory.mktemp("bundle")
    return export(micro.save_micro(folder / "micro"), folder / "exported", "fp32", micro.signals()).path


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """Return a copy of the bundle, to be damaged."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite the manifest with a change."""
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")


def replace_file(folder: Path, name: str, data: bytes) -> None:
    """Write other bytes, with their hash in the manifest: what somebody with intent would do."""
    (folder / name).write_bytes(data)
    change_manifest(folder, lambda manifest: manifest["files"].update({name: sha256(data)}))


def selftest_of(folder: Path) -> dict[str, Any]:
    """Return the arrays of the self-test."""
    with np.load(folder / "selftest.npz") as arrays:
        return dict(arrays)


def npz(**arrays: Any) -> bytes:
    """Write arrays as .npz."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def assert_refused(folder: Path, name: str, match: str = ".") -> None:
    """Assert that loading gives one clear line that names the file."""
    with pytest.raises(BadArtifactError, match=match) as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)
    assert str(folder / name) in str(caught.value)
    assert ";" in str(caught.value) or "never loaded" in str(caught.value)


def test_bundle_is_read_as_it_was_written(exported: Path) -> None:
    """Name, version, precision, hash, dim, front-end and self-test are those of the export."""
    bundle = load_bundle(exported)
    assert (bundle.name, bundle.version, bundle.precision, bundle.dim) == ("micro-fp32", "7", "fp32", 32)
    assert bundle.front_end == micro.FRONT_END
    assert bundle.model == (exported / "encoder.onnx").read_bytes()
    assert bundle.sha256 == sha256(bundle.model) == bundle.manifest["files"]["encoder.onnx"]
    assert bundle.selftest.bands.shape == (6, 64, 50)
    assert bundle.selftest.embeddings.shape == (6, 32)
    assert bundle.selftest.min_cosine == 0.9999


def test_path_may_be_text_and_default_is_the_one_that_ships(exported: Path) -> None:
    """A path as text works; "default" reads the package's own bundle when it is there."""
    assert load_bundle(str(exported)).path == exported
    if not (DEFAULT_BUNDLE / "manifest.json").is_file():
        pytest.skip("this checkout has no default bundle yet")
    assert load_bundle().path == load_bundle("default").path == DEFAULT_BUNDLE


@pytest.mark.parametrize("name", ["nowhere", "a-file"])
def test_path_without_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    """A missing folder and a plain file are refused with their path."""
    (tmp_path / "a-file").write_text("no bundle")
    with pytest.raises(BadArtifactError, match=f"no bundle folder at .*{name}; give a folder made by"):
        load_bundle(tmp_path / name)


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_refused(folder: Path, name: str) -> None:
    """Each of the three files is needed."""
    (folder / name).unlink()
    assert_refused(folder, name, "cannot read .* No such file")


@pytest.mark.parametrize("name", ["encoder.onnx", "selftest.npz"])
@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda _: b""])
def test_file_that_does_not_match_its_hash_is_refused(
    folder: Path, name: str, change: Callable[[bytes], bytes]
) -> None:
    """A byte more or less is refused before anything is parsed."""
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    assert_refused(folder, name, "does not match the SHA-256")


@pytest.mark.parametrize("name", ["encoder.onnx", "selftest.npz"])
@pytest.mark.parametrize("digest", [None, "", "0" * 64, 7, ["0"]])
def test_wrong_hash_is_refused(folder: Path, name: str, digest: Any) -> None:
    """A hash of any other kind is a mismatch: null does not switch the check off."""
    change_manifest(folder, lambda manifest: manifest["files"].update({name: digest}))
    assert_refused(folder, name, "does not match the SHA-256")


@pytest.mark.parametrize("name", FILES)
def test_oversized_file_is_refused(folder: Path, name: str) -> None:
    """A file above its cap is refused by its size, not by its hash."""
    os.truncate(folder / name, module.MAX_BYTES[name] + 1)  # a hole: no disk is used
    assert_refused(folder, name, f"has {module.MAX_BYTES[name] + 1} bytes, more than")


@pytest.mark.parametrize("name", FILES)
def test_other_things_than_files_are_refused(folder: Path, name: str) -> None:
    """A folder or a pipe in the place of a file is refused, and nothing waits for a writer."""
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert_refused(folder, name, "not a plain file")
    (folder / name).unlink()
    (folder / name).mkdir()
    assert_refused(folder, name, "not a plain file")


def test_truncated_model_with_a_matching_hash_is_refused(folder: Path) -> None:
    """A model cut short before its hash was taken is not a whole ONNX file."""
    replace_file(folder, "encoder.onnx", (folder / "encoder.onnx").read_bytes()[:-1000])
    assert_refused(folder, "encoder.onnx", "not a whole ONNX file")


def test_model_with_external_data_is_refused(folder: Path) -> None:
    """A model that names another file, wherever that is, is refused although its hash is right."""
    model = onnx.load(folder / "encoder.onnx")
    onnx.external_data_helper.convert_model_to_external_data(model, location="../w.bin", size_threshold=0)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    replace_file(folder, "encoder.onnx", model.SerializeToString())
    assert_refused(folder, "encoder.onnx", "refers to external data files")


class Bomb:
    """Unpickles by making a folder."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """Return the call that a careless reader would make."""
        return (os.mkdir, ("unpickled",))


def test_pickled_selftest_is_refused_and_not_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects in the .npz, or a bare pickle in its place, run no code."""
    monkeypatch.chdir(tmp_path)
    arrays = selftest_of(folder)
    bomb = np.array([Bomb(), Bomb()], dtype=object)
    for data in (npz(**arrays | {"bands": bomb}), npz(**arrays | {"embeddings": bomb}), pickle.dumps(Bomb())):
        replace_file(folder, "selftest.npz", data)
        assert_refused(folder, "selftest.npz", "not a self-test")
    assert not (tmp_path / "unpickled").exists()


def test_selftest_that_unpacks_to_too_much_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small archive of many zeros is refused before it is unpacked."""
    monkeypatch.setitem(module.MAX_BYTES, "selftest.npz", 2**20)
    arrays = selftest_of(folder)
    data = npz(bands=np.zeros((6, 10_000, 50), np.float32), embeddings=arrays["embeddings"])
    assert len(data) < 2**16
    replace_file(folder, "selftest.npz", data)
    assert_refused(folder, "selftest.npz", "unpacks to")


def test_selftest_whose_header_lies_is_refused(folder: Path) -> None:
    """An array that claims more values than it has is refused, however many it claims."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("bands", "embeddings"):
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, {"descr": "<f4", "fortran_order": False, "shape": (10**15, 64, 50)}
            )
            archive.writestr(f"{name}.npy", header.getvalue())
    replace_file(folder, "selftest.npz", file.getvalue())
    assert_refused(folder, "selftest.npz", "not a self-test")


def test_damaged_selftest_is_refused(folder: Path) -> None:
    """Flipped bytes in the archive, with a matching hash, raise nothing else: not zlib's errors, not zipfile's."""
    data = (folder / "selftest.npz").read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(60):
        altered = bytearray(data)
        for position in generator.integers(0, len(data), 20):
            altered[position] ^= int(generator.integers(1, 256))
        replace_file(folder, "selftest.npz", bytes(altered))
        with pytest.raises(BadArtifactError) as caught:
            load_bundle(folder)
        assert "selftest.npz" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"bands": np.zeros((6, 64, 100), np.float32)},
        {"bands": np.zeros((5, 64, 50), np.float32)},
        {"bands": np.zeros((6, 50), np.float32)},
        {"bands": np.array("text")},
        {"embeddings": np.zeros((6, 31), np.float32)},
        {"embeddings": np.zeros((6, 1, 32), np.float32)},
        {"bands": np.zeros((1, 64, 50), np.float32), "embeddings": np.zeros((1, 32), np.float32)},
        {"bands": np.zeros((0, 64, 50), np.float32), "embeddings": np.zeros((0, 32), np.float32)},
    ],
)
def test_selftest_of_other_shapes_is_refused(folder: Path, change: dict[str, Any]) -> None:
    """Windows and embeddings that do not fit the manifest, or are too few to compare, are refused."""
    replace_file(folder, "selftest.npz", npz(**selftest_of(folder) | change))
    assert_refused(folder, "selftest.npz")


@pytest.mark.parametrize("data", [b"", b"PK\x05\x06" + b"\0" * 18, b"\x93NUMPY", b"no archive at all"])
def test_selftest_of_other_kinds_is_refused(folder: Path, data: bytes) -> None:
    """Nothing, an empty archive and other bytes are not a self-test."""
    replace_file(folder, "selftest.npz", data)
    assert_refused(folder, "selftest.npz", "not a self-test")


def test_selftest_as_a_bare_array_is_refused(folder: Path) -> None:
    """A .npy under the name of an .npz is not a self-test."""
    file = io.BytesIO()
    np.save(file, np.zeros((6, 64, 50), np.float32))
    replace_file(folder, "selftest.npz", file.getvalue())
    assert_refused(folder, "selftest.npz", "not a self-test")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"text"', "7", "\xff", "[" * 100_000, '{"schema": "fisher-edge/bundle/1", "files": []}'],
)
def test_malformed_manifest_is_refused(folder: Path, text: str) -> None:
    """A manifest that is no JSON object, in UTF-8 and of a sane depth, is refused with its path."""
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    assert_refused(folder, "manifest.json", "malformed")


@pytest.mark.parametrize("name", ["schema", "files", "name", "version", "precision", "dim", "front_end", "selftest"])
def test_manifest_without_a_field_is_refused(folder: Path, name: str) -> None:
    """A field that is missing is named."""
    change_manifest(folder, lambda manifest: manifest.pop(name))
    assert_refused(folder, "manifest.json", f"field '{name}' is missing")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dim", "many"),
        ("dim", None),
        ("dim", float("inf")),
        ("dim", float("nan")),
        ("files", None),
        ("selftest", 0.9),
        ("selftest", {"min_cosine": "high"}),
        ("selftest", {"min_cosine": None}),
    ],
)
def test_manifest_with_a_value_of_the_wrong_kind_is_refused(folder: Path, name: str, value: Any) -> None:
    """A value of the wrong kind, Infinity and NaN too, is malformed."""
    change_manifest(folder, lambda manifest: manifest.update({name: value}))
    assert_refused(folder, "manifest.json", "malformed")


@pytest.mark.parametrize("least", [-5, 1.5, float("nan")])
def test_selftest_with_a_limit_that_is_no_cosine_is_refused(folder: Path, least: float) -> None:
    """A smallest cosine outside -1 to 1 is a mistake."""
    change_manifest(folder, lambda manifest: manifest["selftest"].update(min_cosine=least))
    assert_refused(folder, "selftest.npz", "min_cosine")


@pytest.mark.parametrize("schema", ["fisher-edge/bundle/2", "", None, 1])
def test_other_schema_is_refused(folder: Path, schema: Any) -> None:
    """A bundle of another version says which one it is and which is wanted."""
    change_manifest(folder, lambda manifest: manifest.update({"schema": schema}))
    assert_refused(folder, "manifest.json", f"schema {schema!r} is not 'fisher-edge/bundle/1'")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"wavelets": 3}, "does not know: wavelets"),
        ({"views": ["envelope"]}, "view .envelope. does not have the fields"),
        ({"band_width": 0}, "band_width=0"),
        ({"band_width": 50.5}, "band_width=50.5"),
        ({"top_band": "keep"}, "top_band='keep'"),
        ({"piece_rule": "mosaic"}, "piece_rule='mosaic'"),
        ({"piece_frames": 1025}, "piece_frames=1025 above max_frames=1024"),
        ({"std": "wide"}, "malformed"),
        ({"mean": 1e308}, "normalise nothing"),
        ({"mean": float("nan")}, "normalise nothing"),
        ({"std": 1e-5}, "normalise nothing"),
    ],
)
def test_front_end_this_version_cannot_run_is_refused(folder: Path, change: dict[str, Any], match: str) -> None:
    """A front-end with an unknown field or an impossible value is refused, and the manifest is named."""
    change_manifest(folder, lambda manifest: manifest["front_end"].update(change))
    assert_refused(folder, "manifest.json", match)


def test_bundle_of_the_release_before_has_its_rule(folder: Path) -> None:
    """A manifest that lacks the rule of pieces means whole windows, spread: what its baselines were enrolled with."""
    change_manifest(folder, lambda manifest: manifest["front_end"].pop("piece_rule"))
    change_manifest(folder, lambda manifest: manifest["front_end"].update(piece_frames=96))
    found = load_bundle(folder).front_end
    assert (found.piece_frames, found.piece_rule, found.on_grid) == (96, "spread", False)


@pytest.mark.parametrize("front_end", [None, [], "official", {}])
def test_front_end_of_another_kind_is_refused(folder: Path, front_end: Any) -> None:
    """A front-end that is not an object with all fields never becomes the default one."""
    change_manifest(folder, lambda manifest: manifest.update({"front_end": front_end}))
    assert_refused(folder, "manifest.json", "front-end")


def test_band_width_that_is_not_the_models_is_refused(folder: Path) -> None:
    """A model with 50-bin bands cannot be fed with 100-bin bands."""
    change_manifest(folder, lambda manifest: manifest.update(front_end=FrontEnd(band_width=100).to_dict()))
    assert_refused(folder, "selftest.npz", "do not fit bands of 100 bins")
