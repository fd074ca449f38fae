"""Commands about what is enrolled: list, go back to an earlier version, remove."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fisher_edge.cli.options import AsJson, Asset, ChannelName, StateDir, print_json

if TYPE_CHECKING:
    from fisher_edge.store import Baseline

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
    """List every baseline with its versions and specimens, and by what faults are named.

    Example: fisher-edge baseline list --state-dir /var/lib/fisher-edge
    """
    from fisher_edge.cli.enroll import fusion_in_words
    from fisher_edge.decision.evidence import Fusion
    from fisher_edge.store import Store

    with Store(state_dir, set_aside=False, create=False) as store:
        baselines = store.baselines()
        rows = [_facts(row) for row in baselines]
        channels = dict.fromkeys((row.asset, row.channel) for row in baselines)
        fusions = {channel: store.fusion(*channel) for channel in channels}
    if as_json:
        print_json([row | {"fusion": fusions[row["asset"], row["channel"]]} for row in rows])
        return
    for channel, fusion in fusions.items():
        for row in rows:
            if (row["asset"], row["channel"]) == channel:
                print(_line(row))
        if fusion:
            print(f"  {fusion_in_words(Fusion.from_dict(fusion))}")
    if not rows:
        print(f"nothing is enrolled in {state_dir}; run: fisher-edge enroll FILES --asset A --channel C")


def _facts(row: "Baseline") -> dict[str, Any]:
    """What is told about a baseline."""
    from fisher_edge.decision.baselines import specimens_of
    from fisher_edge.dsp.blocks import rfc3339

    return {
        "asset": row.asset,
        "channel": row.channel,
        "label": row.label,
        "version": row.version,
        "active": row.active,
        "created": rfc3339(row.created_s),
        "windows": len(row.vectors),
        "rate_hz": row.facts["rate_hz"],
        "model": row.facts["model"]["name"],
        "recordings": row.facts["sources"],
        "specimens": specimens_of(row),
    }


def _line(row: dict[str, Any]) -> str:
    """One baseline in one line."""
    state = "active" if row["active"] else "replaced"
    specimens = sorted({name for name in row["specimens"] if name})
    count = len(row["recordings"])
    of_what = f"specimen {', '.join(specimens)}" if specimens else f"{count} recording{'s' * (count > 1)}"
    return (
        f"{row['asset']}/{row['channel']}  {row['label'] or 'normal'}  version {row['version']} ({state})  "
        f"{row['windows']} windows at {row['rate_hz']} Hz  {of_what}  {row['model']}  {row['created']}"
    )


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
    from fisher_edge.decision import baselines
    from fisher_edge.store import Store

    with Store(state_dir, set_aside=False, create=False) as store:
        baselines.activate(store, asset, channel, label, version)
    print(f"{asset}/{channel}: version {version} of {label or 'normal'} is active")


@baseline.command()
def remove(asset: Asset, channel: ChannelName, label: Label = None, state_dir: StateDir = Path("state")) -> None:
    """Remove a baseline with all its versions: the normal state, or with --label the examples of a fault.

    Example: fisher-edge baseline remove --asset pump-1 --channel vib-de --label misalignment
    """
    from fisher_edge.decision import baselines
    from fisher_edge.store import Store

    with Store(state_dir, set_aside=False, create=False) as store:
        count = baselines.remove(store, asset, channel, label)
    print(f"{asset}/{channel}: {count} version(s) of {label or 'normal'} removed")
