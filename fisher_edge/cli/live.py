"""Commands that enroll from a running sensor: record takes, review them, accept or discard them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fisher_edge.cli.baseline import baseline
from fisher_edge.cli.options import AsJson, AssetName, SensorName, StateDir, print_json
from fisher_edge.cli.state import ask_gateway, open_database

if TYPE_CHECKING:
    from fisher_edge.gateway.live import Reviewed

__all__ = ["register"]

# Limits this much wider than the best there can be are good enough: a change must be a quarter larger to be noticed.
ENOUGH = 1.25

LeaveOut = Annotated[
    list[int] | None, typer.Option("--leave-out", help="Number of a take that is not to be enrolled; may be repeated.")
]
Extend = Annotated[bool, typer.Option("--extend", help="Keep what is enrolled already, and add the takes.")]


def register(_app: typer.Typer) -> None:
    """Add the commands of this file to those on baselines."""
    for command in (record, stop, review, accept, discard):
        baseline.command()(command)


def record(
    asset: AssetName,
    channel: SensorName,
    minutes: Annotated[float, typer.Option("--minutes", min=0.0, help="Minutes to record.")] = 30.0,
    state: Annotated[
        str | None,
        typer.Option("--state", help="Operating state of the machine. Default: the one it is in, where that is known."),
    ] = None,
    state_dir: StateDir = Path("state"),
    as_json: AsJson = False,
) -> None:
    """Record takes of the normal state from the running sensor; Ctrl-C ends early and keeps what there is.

    The gateway goes on monitoring. Record every normal condition, then review and accept the takes.

    Example: fisher-edge baseline record pump-1 vib-de --minutes 30
    """
    from rich.console import Console
    from rich.progress import BarColumn as Bar
    from rich.progress import Progress, TextColumn, TimeRemainingColumn

    from fisher_edge.names import ChannelKey

    key = ChannelKey(asset, channel)
    columns = (TextColumn("{task.description}"), Bar(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as shown:

        def tell(answer: dict[str, Any]) -> None:
            task = shown.task_ids[0] if shown.task_ids else shown.add_task("", total=60 * minutes)
            shown.update(task, completed=answer["seconds"], description=f"recording {key}: {_so_far(answer)}")

        arguments = {"minutes": minutes, "state": state}
        try:
            answer = ask_gateway(state_dir, "record", key, arguments, on_progress=tell)
        except KeyboardInterrupt:
            answer = ask_gateway(state_dir, "stop", key, {})
    if as_json:
        print_json(answer)
        return
    print(f"{key}: {answer['seconds'] / 60:.1f} minutes recorded, {_so_far(answer)}")
    if answer.get("severity", "normal") != "normal":
        print(f"  the channel is in {answer['severity']}: accept them only if this is the normal state of the machine")
    print(f"  look at them: fisher-edge baseline review {asset} {channel}")


def stop(asset: AssetName, channel: SensorName, state_dir: StateDir = Path("state")) -> None:
    """End a recording early, whoever began it; what was recorded stays.

    Example: fisher-edge baseline stop pump-1 vib-de
    """
    from fisher_edge.names import ChannelKey

    key = ChannelKey(asset, channel)
    answer = ask_gateway(state_dir, "stop", key, {})
    print(f"{key}: {answer['seconds'] / 60:.1f} minutes recorded, {_so_far(answer)}")


def review(
    asset: AssetName,
    channel: SensorName,
    leave_out: LeaveOut = None,
    extend: Extend = False,
    state_dir: StateDir = Path("state"),
    as_json: AsJson = False,
) -> None:
    """Show the takes that wait, which of them stand out, and what enrolling them would promise; nothing is enrolled.

    Example: fisher-edge baseline review pump-1 vib-de --leave-out 3
    """
    from dataclasses import asdict

    from fisher_edge.cli.enroll import print_promise
    from fisher_edge.gateway import live
    from fisher_edge.names import ChannelKey

    key = ChannelKey(asset, channel)
    with open_database(state_dir) as database:
        reviewed = live.review(database, key, leave_out=leave_out or (), extend=extend)
    rows = _rows(reviewed)
    if as_json:
        print_json({"takes": rows, "enrolled": asdict(reviewed.enrolled)})
        return
    print(f"{key}: {len(rows)} takes wait")
    for row in rows:
        state = f"  {row['state']}" if row["state"] else ""
        print(
            f"  {row['number']:3d}  {row['recorded']}  {row['seconds']:7.1f} s{state}  {row['remark']}  {row['file']}"
        )
    print_promise(reviewed.enrolled)
    print(f"  enroll them: fisher-edge baseline accept {asset} {channel}{' --extend' * extend}")


def accept(
    asset: AssetName,
    channel: SensorName,
    leave_out: LeaveOut = None,
    extend: Extend = False,
    reason: Annotated[str, typer.Option("--reason", help="Why; stored with the version.")] = "",
    keep_mb: Annotated[
        int, typer.Option("--keep-mb", min=0, help="Megabytes that kept recordings of all channels may take.")
    ] = 256,
    state_dir: StateDir = Path("state"),
    as_json: AsJson = False,
) -> None:
    """Enroll the takes that wait as the normal state; a running gateway judges by them within seconds.

    Example: fisher-edge baseline accept pump-1 vib-de --leave-out 3 --reason "after the overhaul"
    """
    from dataclasses import asdict

    from fisher_edge.cli.enroll import print_enrolled
    from fisher_edge.gateway import live
    from fisher_edge.names import ChannelKey

    with open_database(state_dir) as database:
        enrolled = live.accept(
            database,
            ChannelKey(asset, channel),
            leave_out=leave_out or (),
            extend=extend,
            reason=reason,
            audio_bytes=keep_mb << 20,
        )
    print_json(asdict(enrolled)) if as_json else print_enrolled(enrolled)


def discard(
    asset: AssetName,
    channel: SensorName,
    numbers: Annotated[list[int] | None, typer.Argument(metavar="[NUMBER]...", help="Which; all without one.")] = None,
    state_dir: StateDir = Path("state"),
) -> None:
    """Delete takes that wait.

    Example: fisher-edge baseline discard pump-1 vib-de 3
    """
    from fisher_edge.names import ChannelKey
    from fisher_edge.store.takes import PendingTakes

    key = ChannelKey(asset, channel)
    with open_database(state_dir) as database:
        count = PendingTakes(database.state_dir, key).drop(numbers)
    print(f"{key}: {count} take(s) deleted")


def _so_far(answer: dict[str, Any]) -> str:
    """Say how many takes there are, and how far they are from enough."""
    takes = f"{answer['takes']} take{'s' * (answer['takes'] != 1)}"
    slack = answer.get("slack")
    if slack is None:
        return takes
    enough = ", enough" if slack < ENOUGH else ""
    return f"{takes}, limits {slack:.2f} times what many would allow{enough}"


def _rows(reviewed: "Reviewed") -> list[dict[str, Any]]:
    """What is shown of each take."""
    from fisher_edge.publish.message import rfc3339

    aside = {each.name: each.reason for each in reviewed.enrolled.set_aside}
    for take, name in zip(reviewed.takes, reviewed.names, strict=True):
        if take.number in reviewed.unusable:
            aside[name] = reviewed.unusable[take.number]
    kept = [name for name in reviewed.names if name not in aside]
    of_takes = reviewed.enrolled.state_of_take[-len(kept) :] if kept else ()
    states = dict(zip(kept, of_takes, strict=True))
    return [
        {
            "number": take.number,
            "recorded": rfc3339(take.facts.recorded_s),
            "seconds": take.facts.signal_s,
            "state": states.get(name, take.facts.state),
            "file": str(take.file),
            "remark": _remark(reviewed, name, aside),
        }
        for take, name in zip(reviewed.takes, reviewed.names, strict=True)
    ]


def _remark(reviewed: "Reviewed", name: str, aside: dict[str, str]) -> str:
    """Say in what a take stands out."""
    if name in aside:
        return f"set aside: {aside[name]}"
    if name in reviewed.enrolled.odd:
        return "unlike the others of its state: listen to it"
    if name in reviewed.enrolled.alone:
        return "the only one of its state: record it again"
    return "ok"
