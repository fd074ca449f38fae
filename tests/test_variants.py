"""Variants of a bundle: checked as its other files are, and every way they can be damaged or hostile."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from variants import add_variant, micro_bundle

from fisher_edge.encoder import bundle as module
from fisher_edge.encoder.bundle import VARIANT_FILES, load_bundle, sha256
from fisher_edge.errors import BadArtifactError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a bundle with two variants; it must not be changed."""
    path = micro_bundle(tmp_path_factory.mktemp("bundle"))
    model = (path / "encoder.onnx").read_bytes()
    add_variant(path, "s8s8", {"s8s8.onnx": model})
    return add_variant(path, "openvino-int8", {"openvino-int8.xml": b"<net/>", "openvino-int8.bin": b"weights"})


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """Return a copy, to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def change(folder: Path, alter: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite the variants in the manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    alter(manifest["variants"])
    (folder / "manifest.json").write_text(json.dumps(manifest))


def refusal(folder: Path) -> str:
    """Return the one line with which a bundle is refused."""
    with pytest.raises(BadArtifactError) as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_variants_are_read_as_they_were_written(made: Path) -> None:
    """Their names, and the contents of their files in a fixed order."""
    variants = load_bundle(made).variants
    assert set(variants) == {"s8s8", "openvino-int8"}
    assert variants["openvino-int8"].read() == [b"<net/>", b"weights"]
    assert variants["s8s8"].read() == [(made / "encoder.onnx").read_bytes()]


def test_bundle_without_the_key_has_none(folder: Path) -> None:
    """A bundle of the release before has no variants."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["variants"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert load_bundle(folder).variants == {}


def test_variant_of_a_newer_export_is_left_alone(folder: Path) -> None:
    """Its files are not even looked at."""
    change(folder, lambda variants: variants.update(npu={"files": {"../../etc/passwd": "0"}}))
    assert set(load_bundle(folder).variants) == {"s8s8", "openvino-int8"}


@pytest.mark.parametrize("name", ["s8s8.onnx", "openvino-int8.xml", "openvino-int8.bin"])
def test_file_of_a_variant_is_checked(folder: Path, name: str) -> None:
    """Altered, missing, too large, or a pipe in its place: one line with its path."""
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1] + b"?")
    assert f"{folder / name} does not match the SHA-256" in refusal(folder)
    os.truncate(folder / name, module.MAX_BYTES[name] + 1)
    assert f"{folder / name} has {module.MAX_BYTES[name] + 1} bytes, more than" in refusal(folder)
    (folder / name).unlink()
    assert f"cannot read {folder / name}: No such file" in refusal(folder)
    os.mkfifo(folder / name)
    assert f"{folder / name} is not a plain file" in refusal(folder)


def test_file_that_changes_after_the_check_is_refused(folder: Path) -> None:
    """A variant is read when it is used, and checked again then."""
    variant = load_bundle(folder).variants["s8s8"]
    (folder / "s8s8.onnx").write_bytes(b"other")
    with pytest.raises(BadArtifactError, match="does not match the SHA-256"):
        variant.read()


@pytest.mark.parametrize(
    "name",
    ["../outside.onnx", "/etc/passwd", "encoder.onnx", "manifest.json", "s8s8.onnx/../s8s8.onnx", "", "S8S8.ONNX"],
)
def test_other_names_of_files_are_refused(folder: Path, name: str) -> None:
    """A manifest cannot make the runtime read a path of its choice, though the hash be right."""
    (folder.parent / "outside.onnx").write_bytes((folder / "s8s8.onnx").read_bytes())
    digest = sha256((folder / "s8s8.onnx").read_bytes())
    change(folder, lambda variants: variants["s8s8"].update(files={name: digest}))
    assert "variant s8s8 names the files" in refusal(folder)
    change(folder, lambda variants: variants["s8s8"]["files"].update({"s8s8.onnx": digest}))
    assert "variant s8s8 names the files" in refusal(folder)


@pytest.mark.parametrize(
    "variants", [[], None, "s8s8", {"s8s8": None}, {"s8s8": {}}, {"s8s8": {"files": ["s8s8.onnx"]}}]
)
def test_variants_of_other_kinds_are_refused(folder: Path, variants: Any) -> None:
    """What is no table of variants is malformed, unless it is empty."""
    manifest = json.loads((folder / "manifest.json").read_text()) | {"variants": variants}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    if variants == []:
        assert load_bundle(folder).variants == {}
        return
    assert "export the bundle again" in refusal(folder)


@pytest.mark.parametrize("digest", [None, "", 7, ["0"], "0" * 64])
def test_wrong_hash_is_refused(folder: Path, digest: Any) -> None:
    """A hash of any other kind is a mismatch: null does not switch the check off."""
    change(folder, lambda variants: variants["s8s8"]["files"].update({"s8s8.onnx": digest}))
    assert "does not match the SHA-256" in refusal(folder)


@pytest.mark.parametrize("name", [name for name, files in VARIANT_FILES.items() if files[0].endswith(".onnx")])
def test_variant_with_external_data_is_refused(folder: Path, name: str) -> None:
    """As the model itself, it is one file, and a whole one."""
    model = onnx.load(folder / "encoder.onnx")
    onnx.external_data_helper.convert_model_to_external_data(model, location="../w.bin", size_threshold=0)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    add_variant(folder, name, {f"{name}.onnx": model.SerializeToString()})
    assert f"{folder / name}.onnx refers to external data files" in refusal(folder)
    add_variant(folder, name, {f"{name}.onnx": (folder / "encoder.onnx").read_bytes()[:-100]})
    assert "is not a whole ONNX file" in refusal(folder)
