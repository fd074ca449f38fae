"""The command that measures what the runtime costs on this machine."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fisher_edge.cli.options import AsJson, HopS, Provider, print_json
from fisher_edge.errors import UsageError, require

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
    provider: Provider = "auto",
    against_official: Annotated[
        bool, typer.Option("--against-official", help="Run the published PyTorch code path in turn with ours.")
    ] = False,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="Its weights (default: random ones of the same shape).")
    ] = None,
    channels: Annotated[
        int, typer.Option("--channels", min=0, help="Also run so many channels on one core, in a real gateway.")
    ] = 0,
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="How long the channels run.")] = 1.0,
    acceptance: Annotated[
        bool, typer.Option("--acceptance", help="Also try every provider there is: the report of a new kind of board.")
    ] = False,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option("--compare", help="Compare two files of --json; nothing is measured.")
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the stages into a .png or .svg file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the CPU time of a window, of every stage of a gateway and of whole channels, on one thread.

    Example: fisher-edge bench --rate-hz 48000 --channels 80 --minutes 10 --json
    """
    if plot is not None:
        require("bench", "matplotlib")
        _check_picture(plot)
    if compare is not None:
        _compare(compare, plot, as_json=as_json)
        return
    if checkpoint is not None and not against_official:
        raise UsageError("--checkpoint is for --against-official; give both")
    if channels:
        require("bench", "psutil")
    from fisher_bench.speed.compare import draw
    from fisher_bench.speed.report import Asked, lines, report
    from fisher_bench.speed.report import acceptance as accept
    from fisher_edge.dsp.blocks import as_rate

    if against_official:
        require("export", "torch", "safetensors")
    asked = Asked(bundle, as_rate(rate_hz), seconds, hop_s, provider, against_official, checkpoint, channels, minutes)
    found = (accept if acceptance else report)(asked, _tell)
    print_json(found) if as_json else print(*lines(found), sep="\n")
    if plot is not None:
        draw([(found["bundle"], found)], plot)


def _tell(what: str) -> None:
    """Tell a person who waits what is being measured."""
    if sys.stderr.isatty():
        print(f"measuring {what} ...", file=sys.stderr)


def _check_picture(path: Path) -> None:
    """Refuse a name for a picture that cannot be written, before anything is measured."""
    if path.suffix not in {".png", ".svg"} or not path.parent.is_dir():
        raise UsageError(f"--plot {path}: choose a name that ends in .png or .svg, in a folder that exists")


def _compare(files: tuple[Path, Path], plot: Path | None, *, as_json: bool) -> None:
    """Print the ratios of two measurements."""
    from fisher_bench.speed.compare import draw, ratios, read_measurement

    before, after = (read_measurement(file) for file in files)
    found = ratios(before, after)
    if not found:
        raise UsageError(f"{files[0]} and {files[1]} have no figure in common; measure them with the same version")
    if plot is not None:
        draw([(file.stem, measurement) for file, measurement in zip(files, (before, after), strict=True)], plot)
    if as_json:
        values: dict[str, Any] = {
            each.name: {"before": each.before, "after": each.after, "ratio": each.ratio} for each in found
        }
        print_json(values)
        return
    for each in found:
        print(f"{each.ratio:7.3f}  {each.name}  {each.before:.4g} -> {each.after:.4g}")
