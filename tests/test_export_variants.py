"""The variants of a bundle: the same weights in another form for one runtime, written only when they are faithful."""

import os
import subprocess
import sys
from pathlib import Path

import micro
import numpy as np
import onnxruntime
import pytest

from fisher_edge.encoder.bundle import load_bundle, sha256
from fisher_edge.encoder.ort import OrtEncoder
from fisher_export import openvino_ir, precision
from fisher_export.pipeline import Exported, export


@pytest.fixture(scope="module")
def checkpoint_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a micro checkpoint."""
    return micro.save_micro(tmp_path_factory.mktemp("checkpoint") / "micro")


def assert_written(exported: Exported, names: set[str]) -> None:
    """Assert that the manifest names the variants, with the hashes of their files, and that there are no others."""
    variants = load_bundle(exported.path).manifest["variants"]
    assert variants.keys() == exported.variants.keys() == names
    files = {name: digest for variant in variants.values() for name, digest in variant["files"].items()}
    for name, digest in files.items():
        assert sha256((exported.path / name).read_bytes()) == digest
    others = {"encoder.onnx", "manifest.json", "selftest.npz"}
    assert {path.name for path in exported.path.iterdir()} == others | files.keys()
    for variant in variants.values():
        assert variant["parity"]["faithful_share"] >= 0.5


@pytest.mark.slow  # NNCF takes ten seconds to import and to run, twice
def test_int8_bundle_holds_int8_for_openvino_and_arm(checkpoint_path: Path, tmp_path: Path) -> None:
    """Both are written with their figures and embed what the model file embeds; a second export writes the same."""
    pytest.importorskip("nncf")
    found = export(checkpoint_path, tmp_path / "out", "int8", micro.signals())
    assert found.notes == ()
    assert_written(found, {"openvino-int8", "s8s8", "tensorrt-fp16"})
    bundle = load_bundle(found.path)
    bands = bundle.selftest.bands
    (expected,) = OrtEncoder(bundle).embed([bands])
    xml, weights = ((found.path / name).read_bytes() for name in openvino_ir.FILES)
    session = onnxruntime.InferenceSession(found.path / "s8s8.onnx", providers=["CPUExecutionProvider"])
    for rows in (openvino_ir.embedder(xml, weights)([bands])[0], session.run(None, {"bands": bands})[0]):
        a, b = rows - expected.mean(axis=0), expected - expected.mean(axis=0)
        assert ((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min() > 0.95
    again = export(checkpoint_path, tmp_path / "again", "int8", micro.signals())
    for name in (*openvino_ir.FILES, "s8s8.onnx", "encoder.onnx"):
        assert (again.path / name).read_bytes() == (found.path / name).read_bytes(), name


def test_half_precision_bundle_for_tensorrt_holds_int8(checkpoint_path: Path, tmp_path: Path) -> None:
    """Its model file is half precision, and its variant int8."""
    found = export(checkpoint_path, tmp_path / "out", "tensorrt", micro.signals())
    assert load_bundle(found.path).precision == "fp16"
    assert_written(found, {"tensorrt-int8"})
    plain = export(checkpoint_path, tmp_path / "plain", "fp16", micro.signals())
    int8 = export(checkpoint_path, tmp_path / "int8", "int8", micro.signals())
    assert (int8.path / "tensorrt-fp16.onnx").read_bytes() == (plain.path / "encoder.onnx").read_bytes()
    assert (plain.path / "encoder.onnx").read_bytes() == (found.path / "encoder.onnx").read_bytes()
    assert "variants" not in load_bundle(plain.path).manifest


def test_missing_package_leaves_its_variant_out(
    checkpoint_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without OpenVINO and NNCF the export says in one line what is left out and how to get it."""
    monkeypatch.setattr(openvino_ir, "available", lambda: False)
    found = export(checkpoint_path, tmp_path / "out", "int8", micro.signals())
    assert_written(found, {"s8s8", "tensorrt-fp16"})
    assert found.notes == (
        "openvino-int8: left out: OpenVINO and NNCF are not installed; run: pip install openvino nncf",
    )


def test_unfaithful_variant_is_left_out(checkpoint_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A form that does not pass the gate is not written; the rest of the bundle is."""
    monkeypatch.setattr(openvino_ir, "available", lambda: False)
    monkeypatch.setattr(precision, "calibrate", lambda graph, _: dict.fromkeys(sources(graph), 1.0))
    found = export(checkpoint_path, tmp_path / "out", "int8", micro.signals())
    assert_written(found, {"tensorrt-fp16"})
    assert found.notes[0].startswith("s8s8: left out, not faithful enough: faithful_share 0.")


def sources(graph: object) -> list[str]:
    """Tensors that products read."""
    return [product.source for product in precision.weight_products(graph)]  # type: ignore[arg-type,attr-defined]


@pytest.mark.slow  # NNCF takes ten seconds to import
def test_no_usage_data_is_sent() -> None:
    """NNCF would send what it is used for to its makers: what it sends with is a stand-in that sends nothing."""
    pytest.importorskip("nncf")
    code = (
        "from fisher_export.openvino_ir import load_nncf; load_nncf(); "
        "import nncf.telemetry.wrapper as w; print(type(w.telemetry).__name__)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in {"CI", "NNCF_CI"}}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "MagicMock"
