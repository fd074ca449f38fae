"""Commands about what is enrolled: list, go back to an earlier version, remove."""

from pathlib import Path
from typing import Annotated

import typer

from fisher_edge.cli.options import AsJson, Asset, ChannelName, StateDir, print_json

__all__ = ["register"]

baseline = typer.Typer(
    help="Look at what is enrolled, go back to an earlier version, or remove it.", no_args_is_help=True
)

Label = Annotated[str | None, typer.Option("--label", help="Fault the baseline shows; none: normal.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(baseline, name="baseline")


@baseline.command("list")
def list_baselines(state_dir: StateDir = Path("state"), as_json: AsJson = False) -> None:
    """List every baseline with its versions.

    Example: fisher-edge baseline list --state-dir /var/lib/fisher-edge
    """
    from fisher_edge.dsp.blocks import rfc3339
    from fisher_edge.store import Store

    with Store(state_dir, set_aside=False, create=False) as store:
        rows = [
            {
                "asset": row.asset,
                "channel": row.channel,
                "label": row.label,
                "version": row.version,
                "active": row.active,
                "created": rfc3339(row.created_s),
                "windows": len(row.vectors),
                "rate_hz": row.facts["rate_hz"],
                "model": row.facts["model"]["name"],
            }
            for row in store.baselines()
        ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        state = "active" if row["active"] else "replaced"
        print(
            f"{row['asset']}/{row['channel']}  {row['label'] or 'normal'}  version {row['version']} ({state})  "
            f"{row['windows']} windows at {row['rate_hz']} Hz  {row['model']}  {row['created']}"
        )
    if not rows:
        print(f"nothing is enrolled in {state_dir}; run: fisher-edge enroll FILES --asset A --channel C")


@baseline.command()
def activate(
    asset: Asset,
    channel: ChannelName,
    version: Annotated[int, typer.Option("--version", help="Number of the version, see: baseline list.")],
    label: Label = None,
    state_dir: StateDir = Path("state"),
) -> None:
    """Go back to an earlier version of a baseline; a running daemon uses it after a restart.

    Example: fisher-edge baseline activate --asset pump-1 --channel vib-de --version 1
    """
    from fisher_edge.store import Store

    with Store(state_dir, set_aside=False, create=False) as store:
        store.activate(asset, channel, label, version)
    print(f"{asset}/{channel}: version {version} of {label or 'normal'} is active")


@baseline.command()
def remove(asset: Asset, channel: ChannelName, label: Label = None, state_dir: StateDir = Path("state")) -> None:
    """Remove a baseline with all its versions: the normal state, or with --label the examples of a fault.

    Example: fisher-edge baseline remove --asset pump-1 --channel vib-de --label misalignment
    """
    from fisher_edge.store import Store

    with Store(state_dir, set_aside=False, create=False) as store:
        count = store.remove(asset, channel, label)
    print(f"{asset}/{channel}: {count} version(s) of {label or 'normal'} removed")
