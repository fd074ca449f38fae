"""Bundles with variants, as an export writes them: files beside the model, named with their hashes in the manifest."""

import json
from pathlib import Path

import micro

from fisher_edge.encoder.bundle import sha256
from fisher_export.pipeline import export

__all__ = ["add_variant", "micro_bundle", "openvino_ir"]


def micro_bundle(folder: Path, **changes: object) -> Path:
    """Export the micro encoder in float32 into a folder; `changes` go into its manifest."""
    path = export(micro.save_micro(folder / "micro"), folder / "bundle", "fp32", micro.signals()).path
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | changes))
    return path


def add_variant(bundle: Path, name: str, files: dict[str, bytes]) -> Path:
    """Add a variant to a bundle folder."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    digests = {file: sha256(data) for file, data in files.items()}
    manifest.setdefault("variants", {})[name] = {"files": digests}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    for file, data in files.items():
        (bundle / file).write_bytes(data)
    return bundle


def openvino_ir(bundle: Path, scratch: Path) -> dict[str, bytes]:
    """Return the bundle's model in OpenVINO's own form with weights in half precision, in the place of int8 by NNCF."""
    import openvino  # noqa: PLC0415 -- an extra

    model = openvino.Core().read_model((bundle / "encoder.onnx").read_bytes())
    openvino.save_model(model, scratch / "ir.xml", compress_to_fp16=True)
    return {f"openvino-int8.{kind}": (scratch / f"ir.{kind}").read_bytes() for kind in ("xml", "bin")}
