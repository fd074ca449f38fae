"""Export from start to end: checkpoint -> graph -> precision -> bundle -> verified, or refused. See `export`."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.encoder.bundle import (
    BUNDLE_SCHEMA,
    ENCODER_NAME,
    MANIFEST_NAME,
    SELFTEST_NAME,
    load_bundle,
    sha256,
)
from fisher_edge.encoder.ort import OrtEncoder
from fisher_edge.errors import BadArtifactError, UsageError
from fisher_export.graph import OPSET, build_graph
from fisher_export.quantise import quantise_dynamic_int8
from fisher_export.verify import Parity, Signal, cut_windows, embed_with_torch, measure
from fisher_train.checkpoint import Checkpoint, build_encoder, load_checkpoint
from fisher_train.encoder import Encoder

__all__ = ["Exported", "Precision", "Signal", "bundle_front_end", "export"]

Precision = Literal["fp32", "int8"]

SELFTEST_WINDOWS = 6
SELFTEST_FRAMES = 64
SELFTEST_MIN_COSINE = {"fp32": 0.9999, "int8": 0.97}
"""Centred cosine the self-test must reach at load: int8 kernels round differently from CPU to CPU."""
SELFTEST_SLACK = {"fp32": 5e-5, "int8": 0.02}
"""What it may fall short of the figure measured here, where that asks for less (an export that was forced)."""
SELFTEST_USEFUL = 0.9
"""Centred cosine below which a self-test would tell nothing: its windows are as good as equal."""
BUNDLE_FILES = {ENCODER_NAME, MANIFEST_NAME, SELFTEST_NAME}


@dataclass(frozen=True)
class Exported:
    """What an export has produced."""

    path: Path
    name: str
    precision: str
    model_bytes: int
    parity: Parity


def export(
    checkpoint_path: Path,
    out: Path,
    precision: Precision,
    signals: Sequence[Signal],
    *,
    force: bool = False,
) -> Exported:
    """Export a checkpoint as a bundle folder and verify it on windows of `signals`.

    Raises BadArtifactError when the parity is below the gate (see `verify.GATES`) unless `force`; nothing is
    written then. An existing bundle at `out` is replaced, any other folder is left alone.
    """
    _check_target(out)
    checkpoint = load_checkpoint(checkpoint_path)
    checkpoint = replace(checkpoint, front_end=bundle_front_end(checkpoint))
    encoder = build_encoder(checkpoint)
    _check_length(checkpoint, checkpoint_path)
    model = build_graph(checkpoint)
    if precision == "int8":
        model = quantise_dynamic_int8(model)
    beside = next(parent for parent in out.absolute().parents if parent.is_dir())
    with tempfile.TemporaryDirectory(dir=beside, prefix=f".{out.name}-") as scratch:
        folder = Path(scratch) / "bundle"
        folder.mkdir()
        _write(folder, checkpoint, encoder, model, precision, signals)
        exported = OrtEncoder(load_bundle(folder))
        parity = measure(encoder, exported, signals)
        reproduced = exported.self_test_cosine()
        failures = parity.failures(precision)
        if not reproduced >= SELFTEST_USEFUL:
            failures.append(f"self-test cosine {reproduced:.4f} < {SELFTEST_USEFUL} (are the recordings all alike?)")
        if failures and not force:
            raise BadArtifactError(
                f"the {precision} export of {checkpoint_path} is not faithful enough: {', '.join(failures)}; "
                "nothing was written (choose another precision, or --force to write it all the same)"
            )
        least = min(SELFTEST_MIN_COSINE[precision], reproduced - SELFTEST_SLACK[precision])
        _finish(folder, parity, least, forced=bool(failures))
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.exists():
            out.rename(Path(scratch) / "replaced")
        folder.rename(out)
    return Exported(out, checkpoint.name, precision, (out / ENCODER_NAME).stat().st_size, parity)


def bundle_front_end(checkpoint: Checkpoint) -> FrontEnd:
    """Return the front-end of a checkpoint's bundle: an encoder trained on pieces runs on their grid.

    Official checkpoints see whole windows.
    """
    front_end = checkpoint.front_end
    return replace(front_end, piece_rule="grid") if front_end.piece_frames else front_end


def _check_target(out: Path) -> None:
    """Refuse to replace anything but a bundle or an empty folder."""
    if not out.exists() and not out.is_symlink():
        return
    found = {path.name for path in out.iterdir()} if out.is_dir() and not out.is_symlink() else {out.name}
    if found and (ENCODER_NAME not in found or not found <= BUNDLE_FILES):
        raise UsageError(f"{out} exists and is not a bundle; choose another --out")


def _check_length(checkpoint: Checkpoint, path: Path) -> None:
    """Refuse an encoder whose positions end before the longest window of its own front-end."""
    longest, wanted = checkpoint.config.max_frames, checkpoint.front_end.max_frames
    if longest < wanted:
        raise BadArtifactError(
            f"{path} has positions for {longest} frames, its front-end cuts up to {wanted}; check the config"
        )


def _write(
    folder: Path,
    checkpoint: Checkpoint,
    encoder: Encoder,
    model: onnx.ModelProto,
    precision: str,
    signals: Sequence[Signal],
) -> None:
    """Write model, self-test and manifest."""
    data = model.SerializeToString()
    (folder / ENCODER_NAME).write_bytes(data)
    _write_selftest(folder / SELFTEST_NAME, encoder, checkpoint.front_end, signals)
    manifest: dict[str, Any] = {
        "schema": BUNDLE_SCHEMA,
        "name": f"{checkpoint.name}-{precision}",
        "version": str(checkpoint.facts.get("version", "1")),
        "precision": precision,
        "opset": OPSET,
        "model_bytes": len(data),
        "dim": checkpoint.config.embed_dim,
        "depth": checkpoint.config.depth,
        "heads": checkpoint.config.num_heads,
        "front_end": checkpoint.front_end.to_dict(),
        "licence": checkpoint.facts.get("licence", "unknown: as the checkpoint's"),
        "training": checkpoint.facts,
        "verified_on": [signal.name for signal in signals],
        "selftest": {"min_cosine": -1.0},
        "files": {
            ENCODER_NAME: sha256(data),
            SELFTEST_NAME: sha256((folder / SELFTEST_NAME).read_bytes()),
        },
    }
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _write_selftest(path: Path, encoder: Encoder, front_end: FrontEnd, signals: Sequence[Signal]) -> None:
    """Keep the first band of a few windows, spread over the recordings, with their float32 embeddings."""
    windows = [bands for _, bands in cut_windows(signals, front_end)]
    chosen = [windows[index] for index in np.linspace(0, len(windows) - 1, SELFTEST_WINDOWS).astype(int)]
    frames = min(SELFTEST_FRAMES, *(bands.shape[1] for bands in chosen))
    bands = np.stack([bands[0, :frames] for bands in chosen])
    np.savez_compressed(path, bands=bands, embeddings=embed_with_torch(encoder, bands))


def _finish(folder: Path, parity: Parity, min_cosine: float, *, forced: bool) -> None:
    """Add the measured figures and the smallest cosine of the self-test to the manifest."""
    path = folder / MANIFEST_NAME
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["selftest"] = {"min_cosine": round(min_cosine, 6)}
    manifest["parity"] = asdict(parity) | {"forced": forced}
    path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
