"""The command that measures how long a window takes on this machine."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fisher_edge.cli.options import AsJson, print_json
from fisher_edge.errors import require

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(bench)


def bench(
    bundle: Annotated[str, typer.Argument(help='Bundle folder, or "default".')] = "default",
    rate_hz: Annotated[int, typer.Option("--rate-hz", help="Sampling rate of the signal.")] = 16_000,
    seconds: Annotated[float, typer.Option("--seconds", min=0.2, max=10.24, help="Length of the window.")] = 10.0,
    provider: Annotated[str, typer.Option("--provider", help="auto or cpu.")] = "auto",
    against_official: Annotated[
        bool, typer.Option("--against-official", help="Run the published PyTorch code path in turn with ours.")
    ] = False,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="Its weights (default: random ones of the same shape).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the CPU time of a window, part by part, on one thread.

    Example: fisher-edge bench --rate-hz 48000 --json
    """
    from fisher_bench import latency
    from fisher_edge.errors import UsageError

    if provider not in {"auto", "cpu"}:
        raise UsageError(f"--provider {provider} is not known; use auto or cpu")
    if against_official:
        require("export", "torch", "safetensors")
    measured = latency.measure(bundle, rate_hz, seconds, against_official=against_official, checkpoint=checkpoint)
    if as_json:
        print_json(asdict(measured))
        return
    print(f"{measured.bundle} on {measured.provider}: {seconds:g} s at {rate_hz} Hz, {measured.bands} bands, CPU time")
    print(f"  front-end {measured.front_end_ms:.2f} ms, encoder {measured.encoder_ms:.2f} ms, ", end="")
    print(f"nearest of 1000 windows {measured.knn_ms:.2f} ms; signal to embedding {measured.total_ms:.2f} ms")
    print(f"  peak memory {measured.peak_memory_mb:.0f} MB")
    if measured.ratio is not None:
        print(f"  official code path {measured.official_ms:.2f} ms: {measured.ratio:.2f} times ours")
