"""The commands `fisher-edge train-data`: prepare recordings for pre-training."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fisher_edge.cli.options import AsJson, print_json

if TYPE_CHECKING:
    from fisher_train.recordings.find import Bad
    from fisher_train.recordings.pack import Progress

__all__ = ["register"]

# Recordings left out that are printed; the report lists all of them.
MOST_LINES = 20

train_data = typer.Typer(help="Prepare recordings for pre-training.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this file; called by the entry point."""
    app.add_typer(train_data, name="train-data")


@train_data.callback()
def _group() -> None:
    """Prepare recordings for pre-training."""


@train_data.command()
def pack(
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Folders or files: WAV, FLAC and other audio, and .npy files listed in a meta.csv."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to write the shards into.")],
    shard_mb: Annotated[
        float, typer.Option("--shard-mb", min=0.001, max=1e6, help="Size of a shard in megabytes.")
    ] = 512.0,
    segment_s: Annotated[
        float, typer.Option("--segment-s", min=1, max=86_400, help="Longest piece of a recording in seconds.")
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Check recordings of any rate and pack them into WebDataset shards. Amplitudes are kept exactly.

    Recordings that cannot be used are named and left out: unreadable, empty, NaN, flat, clipped, or at a rate outside
    the limits. After an interruption the same command continues.

    Example: fisher-edge train-data pack recordings/ --out shards/
    """
    from fisher_train.recordings.find import find
    from fisher_train.recordings.pack import pack as pack_recordings
    from fisher_train.recordings.pack import summary

    bad = _follow(pack_recordings(inputs, out, shard_bytes=int(shard_mb * 1e6), segment_s=segment_s))
    counts = summary(find([out]).recordings)
    if as_json:
        print_json({"path": str(out), **counts, "bad": [{"file": str(one.path), "reason": one.reason} for one in bad]})
    else:
        _print_packed(out, counts)


def _follow(steps: "Iterator[Progress]") -> "list[Bad]":
    """Run a packing with a progress bar; name the recordings left out, also when it fails."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bad: list[Bad] = []
    columns = (TextColumn("packing"), BarColumn(), TextColumn("{task.fields[hours]}"), TimeRemainingColumn())
    try:
        console = Console(stderr=True)
        with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("packing", total=None, hours="")
            for state in steps:
                bad = state.bad
                hours = f"{state.done_s / 3600:.2f} of {state.total_s / 3600:.2f} h"
                bar.update(task, completed=state.done_s, total=state.total_s, hours=hours)
    finally:
        _print_left_out(bad)
    return bad


def _print_left_out(bad: "list[Bad]") -> None:
    for one in bad[:MOST_LINES]:
        print(f"left out: {one.reason}", file=sys.stderr)
    if len(bad) > MOST_LINES:
        print(f"left out: {len(bad) - MOST_LINES} more; bad.csv lists all", file=sys.stderr)


def _print_packed(out: Path, counts: dict[str, Any]) -> None:
    print(f"{out}: {counts['recordings']} signals in {counts['pieces']} pieces, {counts['seconds'] / 3600:.2f} h")
    for rate, seconds in counts["seconds_by_rate_hz"].items():
        print(f"  {int(rate):>7} Hz  {seconds / 3600:8.2f} h")
