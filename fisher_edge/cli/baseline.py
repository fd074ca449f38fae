"""Commands on baselines: list, show, activate an earlier version, embed with another model, remove."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fisher_edge.cli.options import (
    AsJson,
    AssetName,
    EitherAsset,
    EitherChannel,
    Model,
    OldAsset,
    OldChannel,
    Provider,
    SensorName,
    StateDir,
    channel_of,
    print_json,
)
from fisher_edge.cli.state import open_database

if TYPE_CHECKING:
    from fisher_edge.store.baselines import Baseline, BaselineFacts

__all__ = ["baseline", "register"]

baseline = typer.Typer(
    help="List and show baselines, activate an earlier version, embed with another model, or remove.",
    no_args_is_help=True,
)

Label = Annotated[str | None, typer.Option("--label", help="Fault the baseline shows; none: normal.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(baseline, name="baseline")


@baseline.command("list")
def list_baselines(state_dir: StateDir = Path("state"), as_json: AsJson = False) -> None:
    """List every baseline with its versions and specimens, and what the names of faults are based on.

    Example: fisher-edge baseline list --state-dir /var/lib/fisher-edge
    """
    from fisher_edge.cli.enroll import fusion_in_words
    from fisher_edge.decision.fusion import Fusion
    from fisher_edge.store.baselines import Baselines
    from fisher_edge.store.database import Database

    with Database(state_dir, set_aside=False, create=False) as database:
        baselines = Baselines(database)
        found = baselines.facts()
        fusions = {key: baselines.fusion(key) for key in dict.fromkeys(facts.key for facts in found)}
    rows = [_facts(facts) for facts in found]
    if as_json:
        print_json([row | {"fusion": fusions[facts.key]} for row, facts in zip(rows, found, strict=True)])
        return
    for key, fusion in fusions.items():
        for row, facts in zip(rows, found, strict=True):
            if facts.key == key:
                print(_line(row))
        if fusion:
            print(f"  {fusion_in_words(Fusion.from_dict(fusion))}")
    if not rows:
        print(f"nothing is enrolled in {state_dir}; run: fisher-edge enroll FILES --asset A --channel C")


@baseline.command()
def show(
    asset: EitherAsset = None,
    channel: EitherChannel = None,
    label: Label = None,
    state_dir: StateDir = Path("state"),
    as_json: AsJson = False,
    old_asset: OldAsset = None,
    old_channel: OldChannel = None,
) -> None:
    """Show the active baseline of a channel: its recordings, what it promises, and which changes it would notice.

    Example: fisher-edge baseline show pump-1 vib-de
    """
    from fisher_edge.errors import BadInputError
    from fisher_edge.store.baselines import Baselines

    key = channel_of(asset, channel, old_asset, old_channel)
    with open_database(state_dir) as database:
        baselines = Baselines(database)
        found = baselines.get(key, label)
        rows = [row for row in baselines.facts(key, active_only=True) if row.label == label]
    if found is None:
        raise BadInputError(f"{key} has no baseline for {label or 'normal'}; see: fisher-edge baseline list")
    shown = _shown(found, rows[0])
    print_json(shown) if as_json else print("\n".join(_shown_lines(shown)))


def _shown(found: "Baseline", row: "BaselineFacts") -> dict[str, Any]:
    """All that is known of a baseline, but its windows, as JSON."""
    from fisher_edge.publish.message import rfc3339

    takes = [
        {
            "name": take.name,
            "specimen": take.specimen,
            "recorded": None if take.recorded_s is None else rfc3339(take.recorded_s),
            "operating_state": found.states[take.state].name,
        }
        for take in found.takes
    ]
    return _facts(row) | {
        "window_s": found.grid.window_s,
        "hop_s": found.grid.hop_s,
        "bursts": found.grid.bursts,
        "takes": takes,
        "promise": _promise(found),
        "sensitivity": found.sensitivity,
    }


def _promise(found: "Baseline") -> dict[str, tuple[float, float]]:
    """Interval of the true number of false warnings and alarms a day by the number that was asked for, as `enroll`."""
    from fisher_edge.decision.calibrate import calibrate
    from fisher_edge.decision.evidence import Rates, promise
    from fisher_edge.decision.judge import enrollment_of

    if found.label is not None:
        return {}
    calibration = calibrate(enrollment_of(found), [take.state for take in found.takes])
    assert calibration is not None
    promised = promise(calibration, Rates(), calibration.step_s)
    return {f"{rate:g}": interval for rate, interval in promised.items()}


def _shown_lines(shown: dict[str, Any]) -> list[str]:
    """A baseline for people."""
    from fisher_edge.cli.sensitivity import sensitivity_lines
    from fisher_edge.decision.sensitivity import Sensitivity

    lines = [_line(shown), f"  windows of {shown['window_s']:g} s, a new one every {shown['hop_s']:g} s"]
    for take in shown["takes"]:
        known = [take["specimen"] and f"specimen {take['specimen']}", take["recorded"]]
        lines.append("  ".join([f"  {take['name']}", f"state {take['operating_state']}", *filter(None, known)]))
    for kind, (rate, (low, high)) in zip(("warnings", "alarms"), shown["promise"].items(), strict=False):
        lines.append(f"  false {kind}: {rate} a day ({low:.1g} to {high:.1g})")
    if shown["sensitivity"]:
        found = Sensitivity.from_dict(shown["sensitivity"])
        lines += [f"  {line}" for line in sensitivity_lines(found, every_band=True)]
    elif shown["label"] is None:
        lines.append("  what would be noticed is not known: this version was enrolled without; enroll again")
    return lines


def _facts(row: "BaselineFacts") -> dict[str, Any]:
    """Facts of a baseline as JSON."""
    from fisher_edge.publish.message import rfc3339

    return {
        "asset": row.key.asset,
        "channel": row.key.channel,
        "label": row.label,
        "version": row.version,
        "active": row.active,
        "created": rfc3339(row.created_s),
        "reason": row.reason,
        "windows": row.windows,
        "rate_hz": row.rate_hz if isinstance(row.rate_hz, int) else float(row.rate_hz),
        "model": row.model_name,
        "recordings": [take.name for take in row.takes],
        "specimens": [take.specimen for take in row.takes],
    }


def _line(row: dict[str, Any]) -> str:
    """One baseline in one line."""
    state = "active" if row["active"] else "replaced"
    specimens = sorted({name for name in row["specimens"] if name})
    count = len(row["recordings"])
    of_what = f"specimen {', '.join(specimens)}" if specimens else f"{count} recording{'s' * (count > 1)}"
    why = f"  {row['reason']}" if row["reason"] else ""
    return (
        f"{row['asset']}/{row['channel']}  {row['label'] or 'normal'}  version {row['version']} ({state})  "
        f"{row['windows']} windows at {row['rate_hz']:g} Hz  {of_what}  {row['model']}  {row['created']}{why}"
    )


@baseline.command()
def activate(
    version: Annotated[int, typer.Option("--version", help="Number of the version, see: baseline list.")],
    asset: EitherAsset = None,
    channel: EitherChannel = None,
    label: Label = None,
    state_dir: StateDir = Path("state"),
    old_asset: OldAsset = None,
    old_channel: OldChannel = None,
) -> None:
    """Activate an earlier version of a baseline; a running gateway uses it within a few seconds.

    Example: fisher-edge baseline activate pump-1 vib-de --version 1
    """
    from fisher_edge.decision import enroll
    from fisher_edge.store.baselines import Baselines

    key = channel_of(asset, channel, old_asset, old_channel)
    with open_database(state_dir) as database:
        enroll.activate(Baselines(database), key, label, version)
    print(f"{key}: version {version} of {label or 'normal'} is active")


@baseline.command()
def undo(asset: AssetName, channel: SensorName, label: Label = None, state_dir: StateDir = Path("state")) -> None:
    """Activate the version before the active one.

    Example: fisher-edge baseline undo pump-1 vib-de
    """
    from fisher_edge.decision import enroll
    from fisher_edge.names import ChannelKey
    from fisher_edge.store.baselines import Baselines

    with open_database(state_dir) as database:
        version = enroll.undo(Baselines(database), ChannelKey(asset, channel), label)
    print(f"{asset}/{channel}: version {version} of {label or 'normal'} is active again")


@baseline.command("export")
def export_baselines(
    asset: AssetName,
    channel: SensorName,
    out: Annotated[Path, typer.Option("--out", help="File to write.")],
    state_dir: StateDir = Path("state"),
) -> None:
    """Write what is enrolled for a channel into one file, with the model it was made with, for another gateway.

    Example: fisher-edge baseline export pump-1 vib-de --out pump-1.zip
    """
    from fisher_edge.names import ChannelKey
    from fisher_edge.store.exchange import export_channel

    with open_database(state_dir) as database:
        enrolled = export_channel(database, ChannelKey(asset, channel), out)
    print(f"{out}: {', '.join(each.label or 'normal' for each in enrolled)} of {asset}/{channel}")


@baseline.command("import")
def import_baselines(
    file: Annotated[Path, typer.Argument(help="File written by baseline export.")],
    asset: Annotated[str | None, typer.Option("--asset", help="Machine here. Default: that of the file.")] = None,
    channel: Annotated[str | None, typer.Option("--channel", help="Sensor here. Default: that of the file.")] = None,
    state_dir: StateDir = Path("state"),
) -> None:
    """Add what was enrolled on another gateway as the newest versions; a running gateway uses them at once.

    Example: fisher-edge baseline import pump-1.zip --asset pump-2 --channel vib-de
    """
    from fisher_edge.decision.enroll import relearn
    from fisher_edge.errors import UsageError
    from fisher_edge.names import ChannelKey
    from fisher_edge.store.baselines import Baselines
    from fisher_edge.store.database import Database
    from fisher_edge.store.exchange import import_channel

    if (asset is None) != (channel is None):
        raise UsageError("give both --asset and --channel, or neither")
    key = None if asset is None or channel is None else ChannelKey(asset, channel)
    with Database(state_dir, set_aside=False) as database:
        with database.transaction(durable=True):
            added = import_channel(database, file, key)
            relearn(Baselines(database), key or added[0][0].key)
        for imported, version in added:
            print(f"{key or imported.key}: version {version} of {imported.label or 'normal'} is active")


@baseline.command()
def reembed(
    asset: EitherAsset = None,
    channel: EitherChannel = None,
    label: Label = None,
    model: Model = "default",
    provider: Provider = "auto",
    state_dir: StateDir = Path("state"),
    as_json: AsJson = False,
    old_asset: OldAsset = None,
    old_channel: OldChannel = None,
) -> None:
    """Embed the kept recordings of a baseline with another model, as a new version.

    The normal state and each labelled fault are separate baselines: run it for each.

    Example: fisher-edge baseline reembed pump-1 vib-de --model nano-int8
    """
    from dataclasses import asdict

    from fisher_edge.cli.enroll import print_enrolled
    from fisher_edge.gateway.recordings import encoder_for
    from fisher_edge.gateway.recordings import reembed as embed_again

    key = channel_of(asset, channel, old_asset, old_channel)
    with open_database(state_dir) as database:
        enrolled = embed_again(database, encoder_for(database, model, key, provider), key, label)
    print_json(asdict(enrolled)) if as_json else print_enrolled(enrolled)


@baseline.command()
def remove(
    asset: EitherAsset = None,
    channel: EitherChannel = None,
    label: Label = None,
    state_dir: StateDir = Path("state"),
    old_asset: OldAsset = None,
    old_channel: OldChannel = None,
) -> None:
    """Remove a baseline with all its versions: the normal state, or with --label the examples of a fault.

    Example: fisher-edge baseline remove pump-1 vib-de --label misalignment
    """
    from fisher_edge.decision import enroll
    from fisher_edge.store.audio import AudioArchive
    from fisher_edge.store.baselines import Baselines

    key = channel_of(asset, channel, old_asset, old_channel)
    with open_database(state_dir) as database:
        count = enroll.remove(Baselines(database), key, label)
        AudioArchive(database.state_dir).forget(key, label)
    print(f"{key}: {count} version(s) of {label or 'normal'} removed")
