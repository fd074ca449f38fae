"""The command that measures what a window and a second of signal cost on this machine."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fisher_edge.cli.options import AsJson, HopS, print_json
from fisher_edge.errors import require

if TYPE_CHECKING:
    from fisher_bench.latency import Latency

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(bench)


def bench(
    bundle: Annotated[str, typer.Argument(help='Bundle folder, or "default".')] = "default",
    rate_hz: Annotated[
        str, typer.Option("--rate-hz", help="Sampling rate of the signal in Hz, such as 16000 or 3906.25.")
    ] = "16000",
    seconds: Annotated[float, typer.Option("--seconds", min=0.2, max=10.24, help="Length of the window.")] = 10.0,
    hop_s: HopS = None,
    provider: Annotated[
        str, typer.Option("--provider", help="auto, cpu, openvino, cuda, ort-tensorrt or tensorrt.")
    ] = "auto",
    against_official: Annotated[
        bool, typer.Option("--against-official", help="Run the published PyTorch code path in turn with ours.")
    ] = False,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="Its weights (default: random ones of the same shape).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the CPU time of a window by itself and of a second of signal in a gateway, on one thread.

    Example: fisher-edge bench --rate-hz 48000 --json
    """
    from fisher_bench import latency
    from fisher_edge.dsp.blocks import as_rate

    if against_official:
        require("export", "torch", "safetensors")
    measured = latency.measure(
        bundle,
        as_rate(rate_hz),
        seconds,
        hop_s=hop_s,
        provider=provider,
        against_official=against_official,
        checkpoint=checkpoint,
    )
    print_json(asdict(measured)) if as_json else _print_measured(measured)


def _print_measured(measured: "Latency") -> None:
    """Print the figures for a person."""
    print(f"{measured.bundle} on {measured.provider}, {measured.rate_hz:.12g} Hz, {measured.bands} bands, CPU time")
    print(f"  a window of {measured.seconds:g} s by itself: front-end {measured.front_end_ms:.2f} ms, ", end="")
    print(f"encoder {measured.encoder_ms:.2f} ms, nearest of 1000 windows {measured.knn_ms:.2f} ms; ", end="")
    print(f"signal to embedding {measured.total_ms:.2f} ms")
    print(f"  a second of signal, windows of {measured.window_s:.4g} s every {measured.hop_s:.4g} s: ", end="")
    print(f"{measured.cpu_ms_per_s:.2f} ms, at most {1000 / measured.cpu_ms_per_s:.0f} channels a core")
    print("    " + ", ".join(f"{name} {value:.2f}" for name, value in measured.parts_ms_per_s.items()))
    print(f"  peak memory {measured.peak_memory_mb:.0f} MB")
    if measured.ratio is not None:
        print(f"  official code path {measured.official_ms:.2f} ms a window: {measured.ratio:.2f} times ours")
