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
    fp16: Annotated[bool, typer.Option("--fp16", help="Half precision, for GPUs.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Int8, the default: fastest on CPUs.")] = False,
    tensorrt: Annotated[
        bool, typer.Option("--tensorrt", help="Half precision, and int8 in the form that TensorRT reads.")
    ] = False,
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
    precision = _precision({"fp32": fp32, "fp16": fp16, "int8": int8, "tensorrt": tensorrt})
    require("export", "torch", "onnx", "safetensors")
    from fisher_export import pipeline

    signals = [
        pipeline.Signal(recording.path.name, recording.samples, recording.rate_hz)
        for recording in _recordings(calibration, rate_hz)
    ]
    exported = pipeline.export(checkpoint, out, precision, signals, force=force)
    print_json(asdict(exported) | {"path": str(exported.path)}) if as_json else _print_exported(exported)


def _precision(wanted: dict[str, bool]) -> Any:
    """Return the one precision asked for, or the default."""
    from fisher_edge.errors import UsageError

    named = [name for name, chosen in wanted.items() if chosen]
    if len(named) > 1:
        raise UsageError(f"--{named[0]} cannot be used with --{named[1]}; choose one")
    return named[0] if named else "int8"


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
    print(f"  centred by rate and band  {parity.centred_cosine:.6f} (median)")
    print(f"  nearest neighbour kept    {parity.neighbour_agreement:.1%} of {parity.windows} windows")
    print(f"  speed against PyTorch     {parity.latency_ratio:.2f} times (10 s at 16 kHz, one thread)")
    if parity.float_products:
        print(f"  activations in float      {', '.join(parity.float_products)}")
    if parity.float_bins:
        print(f"                            and all where a band ends below bin {parity.float_bins + 1}")
    print(f"  changed most              {_group(parity.worst)}")
    for group in parity.unfaithful:
        print(f"  not faithful              {_group(group)}")
    for name, size in exported.variants.items():
        print(f"  variant {name}, {size / 1e6:.2f} MB")
    for note in exported.notes:
        print(f"  {note}")


def _group(group: Any) -> str:
    """Name a rate and a band, and what the export changes there."""
    noise = "" if group.noise is None else f", noise {group.noise:.2g} of the nearest distance"
    return (
        f"{group.rate_hz:g} Hz, {group.low_hz:g} to {group.high_hz:g} Hz: "
        f"centred cosine {group.centred_cosine:.4f}{noise}"
    )
