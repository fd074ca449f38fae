"""The command that exports a checkpoint as a bundle."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fisher_edge.cli.options import AsJson, RateHz, print_json
from fisher_edge.errors import require

if TYPE_CHECKING:
    from fisher_edge.sources.recording import Recording

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(export)


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Project checkpoint, official .pt, or safetensors folder.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the bundle.")],
    fp32: Annotated[bool, typer.Option("--fp32", help="Keep float32.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Dynamic int8, the default: fastest on CPUs.")] = False,
    calibration: Annotated[
        list[Path] | None, typer.Option("--calibration", help="Recordings to verify on (default: the examples).")
    ] = None,
    rate_hz: RateHz = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write the bundle even if it is not faithful to the checkpoint.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Export a checkpoint as a bundle, verified against it on real recordings.

    Example: fisher-edge export train/checkpoints/nano --int8 --out nano-int8
    """
    from fisher_edge.errors import UsageError

    if fp32 and int8:
        raise UsageError("--fp32 cannot be used with --int8; choose one")
    require("export", "torch", "onnx", "safetensors")
    from fisher_export import pipeline

    signals = [
        pipeline.Signal(recording.path.name, recording.samples, recording.rate_hz)
        for recording in _recordings(calibration, rate_hz)
    ]
    exported = pipeline.export(checkpoint, out, "fp32" if fp32 else "int8", signals, force=force)
    print_json(asdict(exported) | {"path": str(exported.path)}) if as_json else _print_exported(exported)


def _recordings(files: list[Path] | None, rate_hz: str | None) -> "list[Recording]":
    """Read the recordings to verify on."""
    from fisher_edge.example_files import example_files
    from fisher_edge.sources.recording import read_recording

    return [read_recording(path, rate_hz=rate_hz) for path in files or example_files()]


def _print_exported(exported: Any) -> None:
    """Print what was measured."""
    parity = exported.parity
    print(f"{exported.path}: {exported.name} as {exported.precision}, {exported.model_bytes / 1e6:.2f} MB")
    print(f"  cosine to the checkpoint  {parity.cosine:.6f} (smallest of all sub-bands)")
    print(f"  the same, mean-centred    {parity.centred_cosine:.6f} (mean)")
    print(f"  nearest neighbour kept    {parity.neighbour_agreement:.1%} of {parity.windows} windows")
    print(f"  speed against PyTorch     {parity.latency_ratio:.2f} times (10 s at 16 kHz, one thread)")
