"""Copies of the default bundle that differ from it: damaged ones, and one that is another model by its hash."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from fisher_edge.encoder.bundle import DEFAULT_BUNDLE

__all__ = ["other_model", "write_bundle"]

# One more entry of the metadata of an ONNX file (field 14 of the model): key "a", value "b".
METADATA = b"\x72\x06\x0a\x01a\x12\x01b"


def write_bundle(folder: Path, *, model: bytes | None = None, rehash: bool = True, **manifest: Any) -> Path:
    """Copy the default bundle with another model file or other facts in its manifest."""
    shutil.copytree(DEFAULT_BUNDLE, folder)
    facts = json.loads((folder / "manifest.json").read_text()) | manifest
    if model is not None:
        (folder / "encoder.onnx").write_bytes(model)
        if rehash:
            facts["files"]["encoder.onnx"] = hashlib.sha256(model).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(facts))
    return folder


def other_model(folder: Path, name: str = "other") -> Path:
    """Write a bundle whose model file has another hash: nothing tells that its embeddings are those of the default."""
    return write_bundle(folder, model=(DEFAULT_BUNDLE / "encoder.onnx").read_bytes() + METADATA, name=name)
