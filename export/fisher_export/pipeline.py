"""Export from start to end: checkpoint -> graph -> precision -> bundle -> verified, or refused. See `export`."""

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

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
from fisher_export.gate import Parity, cosines
from fisher_export.graph import OPSET, build_graph
from fisher_export.precision import VARIANT_FILES, Precision, Subject, Variant, convert, variants_of
from fisher_export.verify import Embed, Excerpts, Signal, cut, embed_with_torch, latency_ratio
from fisher_train.checkpoint import Checkpoint, build_encoder, load_checkpoint
from fisher_train.encoder import Encoder

__all__ = ["Exported", "Precision", "Signal", "bundle_front_end", "export"]

SELFTEST_WINDOWS = 6
SELFTEST_FRAMES = 64
SELFTEST_MIN_COSINE = {"fp32": 0.9999, "fp16": 0.99, "int8": 0.97}
"""Centred cosine the self-test must reach at load: int8 kernels round differently from CPU to CPU."""
SELFTEST_SLACK = {"fp32": 5e-5, "fp16": 0.005, "int8": 0.02}
"""What it may fall short of the figure measured here, where that asks for less (an export that was forced)."""
SELFTEST_USEFUL = 0.9
"""Centred cosine below which a self-test would tell nothing: its windows are as good as equal."""
BUNDLE_FILES = {ENCODER_NAME, MANIFEST_NAME, SELFTEST_NAME} | VARIANT_FILES


@dataclass(frozen=True)
class Exported:
    """What an export has produced."""

    path: Path
    name: str
    precision: str
    model_bytes: int
    parity: Parity
    variants: dict[str, int]
    """Bytes of the files of each variant."""
    notes: tuple[str, ...]
    """Variants that were left out, and why."""


def export(
    checkpoint_path: Path,
    out: Path,
    precision: Precision,
    signals: Sequence[Signal],
    *,
    force: bool = False,
    variants: bool = True,
) -> Exported:
    """Export a checkpoint as a bundle folder and verify it on windows of `signals`; `variants` for other runtimes too.

    Raises BadArtifactError when the parity is below the gate (see gate.py) unless `force`; nothing is written then. An
    existing bundle at `out` is replaced, any other folder is left alone.
    """
    _check_target(out)
    checkpoint = load_checkpoint(checkpoint_path)
    checkpoint = replace(checkpoint, front_end=bundle_front_end(checkpoint))
    encoder = build_encoder(checkpoint)
    _check_length(checkpoint, checkpoint_path)
    excerpts = cut(signals, checkpoint.front_end)
    subject = Subject(
        build_graph(checkpoint),
        checkpoint.front_end,
        excerpts,
        [embed_with_torch(encoder, bands) for bands in excerpts.bands],
        _tokens(checkpoint, excerpts),
    )
    converted = convert(subject, precision)
    beside = next(parent for parent in out.absolute().parents if parent.is_dir())
    with tempfile.TemporaryDirectory(dir=beside, prefix=f".{out.name}-") as scratch:
        folder = Path(scratch) / "bundle"
        folder.mkdir()
        kind = _write(folder, checkpoint, encoder, converted.model, precision, signals, excerpts)
        exported = OrtEncoder(load_bundle(folder))
        parity = replace(
            subject.parity(exported.embed, converted),
            latency_ratio=latency_ratio(encoder, exported),
        )
        reproduced = exported.self_test_cosine()
        failures = parity.failures(kind)
        if not reproduced >= SELFTEST_USEFUL:
            failures.append(f"self-test cosine {reproduced:.4f} < {SELFTEST_USEFUL} (are the recordings all alike?)")
        if failures and not force:
            raise BadArtifactError(
                f"the {precision} export of {checkpoint_path} is not faithful enough: {', '.join(failures)}; "
                "nothing was written (choose another precision, or --force to write it all the same)"
            )
        least = min(SELFTEST_MIN_COSINE[kind], reproduced - SELFTEST_SLACK[kind])
        others = variants_of(subject, precision, partial(_misses, exported, least)) if variants else []
        _finish(folder, parity, least, others, forced=bool(failures))
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.exists():
            out.rename(Path(scratch) / "replaced")
        folder.rename(out)
    return Exported(
        out,
        checkpoint.name,
        precision,
        (out / ENCODER_NAME).stat().st_size,
        parity,
        {each.name: sum(map(len, each.files.values())) for each in others if each.files},
        tuple(f"{each.name}: {each.note}" for each in others if each.note),
    )


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


def _tokens(checkpoint: Checkpoint, excerpts: Excerpts) -> int:
    """Tokens of a usual sub-band."""
    return 1 + math.prod(checkpoint.config.patch_grid(excerpts.bands[0].shape[1]))


def _misses(exported: OrtEncoder, least: float, embed: Embed) -> str:
    """Say by how much another form of the model misses the self-test; nothing when it passes."""
    test = exported.bundle.selftest
    centre = test.embeddings.mean(axis=0)
    found = float(cosines(embed([test.bands])[0] - centre, test.embeddings - centre).min())
    return "" if found >= least else f"self-test cosine {found:.4f} < {least:.4f}"


def _write(
    folder: Path,
    checkpoint: Checkpoint,
    encoder: Encoder,
    model: onnx.ModelProto,
    precision: Precision,
    signals: Sequence[Signal],
    excerpts: Excerpts,
) -> str:
    """Write model, self-test and manifest; return the precision of the model."""
    data = model.SerializeToString()
    kind = "fp16" if precision == "tensorrt" else precision
    (folder / ENCODER_NAME).write_bytes(data)
    _write_selftest(folder / SELFTEST_NAME, encoder, excerpts)
    manifest: dict[str, Any] = {
        "schema": BUNDLE_SCHEMA,
        "name": f"{checkpoint.name}-{precision}",
        "version": str(checkpoint.facts.get("version", "1")),
        "precision": kind,
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
    return kind


def _write_selftest(path: Path, encoder: Encoder, excerpts: Excerpts) -> None:
    """Keep the first band of a few windows, spread over the recordings, with their float32 embeddings."""
    windows = [excerpts.bands[index] for (index,) in excerpts.pieces]
    chosen = [windows[index] for index in np.linspace(0, len(windows) - 1, SELFTEST_WINDOWS).astype(int)]
    frames = min(SELFTEST_FRAMES, *(bands.shape[1] for bands in chosen))
    bands = np.stack([bands[0, :frames] for bands in chosen])
    np.savez_compressed(path, bands=bands, embeddings=embed_with_torch(encoder, bands))


def _finish(folder: Path, parity: Parity, min_cosine: float, variants: Sequence[Variant], *, forced: bool) -> None:
    """Write the variants; add them, the measured figures and the smallest cosine of the self-test to the manifest."""
    path = folder / MANIFEST_NAME
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["selftest"] = {"min_cosine": round(min_cosine, 6)}
    manifest["parity"] = asdict(parity) | {"forced": forced}
    found = [variant for variant in variants if variant.files and variant.parity is not None]
    if found:
        manifest["variants"] = {
            variant.name: {
                "files": {name: sha256(data) for name, data in variant.files.items()},
                "parity": asdict(variant.parity),
            }
            for variant in found
            if variant.parity is not None
        }
    for variant in found:
        for name, data in variant.files.items():
            (folder / name).write_bytes(data)
    path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
