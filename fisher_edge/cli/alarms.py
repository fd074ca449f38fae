"""Commands about alarms: list them, acknowledge with a cause, shelve a channel for a time."""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fisher_edge.cli.options import AsJson, AssetName, SensorName, StateDir, print_json
from fisher_edge.cli.state import ask_gateway, open_database, open_records

if TYPE_CHECKING:
    from fisher_edge.decision.judgement import Standing
    from fisher_edge.names import ChannelKey

__all__ = ["register"]

alarms = typer.Typer(
    help="List alarms, acknowledge them with a cause, or shelve a channel for a time.", no_args_is_help=True
)

Note = Annotated[str, typer.Option("--note", help="What was seen or done.")]
By = Annotated[str | None, typer.Option("--by", help="Who does this. Default: the user of the computer.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(alarms, name="alarms")


@alarms.command("list")
def list_alarms(state_dir: StateDir = Path("state"), as_json: AsJson = False) -> None:
    """List the state of every channel, problems first, with promised and realised false alarms.

    Example: fisher-edge alarms list --state-dir /var/lib/fisher-edge
    """
    from fisher_edge.names import ChannelKey
    from fisher_edge.publish.message import state_fields

    with open_database(state_dir) as database:
        standings = open_records(database).standings()
    if as_json:
        print_json([{"asset": key.asset, "channel": key.channel, **state_fields(each)} for key, each in standings])
        return
    order = ["alarm", "warning", "normal"]
    for key, each in sorted(standings, key=lambda pair: order.index(_severity(pair[1]))):
        print(_line(ChannelKey(*key), each))
    if not standings:
        print(f"no channel has said anything yet in {state_dir}")


@alarms.command()
def history(
    asset: AssetName,
    channel: SensorName,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=100_000, help="Most events that are listed, the newest.")
    ] = 50,
    state_dir: StateDir = Path("state"),
    as_json: AsJson = False,
) -> None:
    """List the events of a channel, oldest first: changes of state, acknowledgements, shelving.

    Example: fisher-edge alarms history pump-1 vib-de
    """
    from fisher_edge.names import ChannelKey
    from fisher_edge.publish.message import event_fields, rfc3339

    with open_database(state_dir) as database:
        events = [
            kept.value for kept in open_records(database).history(ChannelKey(asset, channel), "event", limit=limit)
        ]
    if as_json:
        print_json([event_fields(event) for event in events])
        return
    for event in events:
        done = event.handling
        by = f"  by {done.by}" if done and done.by else ""
        note = f": {done.note}" if done and done.note else ""
        change = f"{event.before.value} -> {event.after.value}" if event.before is not event.after else event.kind
        print(f"{rfc3339(event.time_s)}  {change}  {event.reason}{by}{note}")
    if not events:
        print(f"no event of {asset}/{channel} is known")


@alarms.command()
def acknowledge(
    asset: AssetName,
    channel: SensorName,
    cause: Annotated[
        str | None,
        typer.Option(
            "--cause",
            help='What it was: a fault, of which the windows of the alarm become examples, or "false alarm". Default: '
            "not known yet; acknowledge again when it is.",
        ),
    ] = None,
    note: Note = "",
    by: By = None,
    state_dir: StateDir = Path("state"),
    as_json: AsJson = False,
) -> None:
    """Acknowledge the warning or alarm of a channel.

    Example: fisher-edge alarms acknowledge pump-1 vib-de --cause "inner race" --note "bearing changed"
    """
    from fisher_edge.decision.judgement import FALSE_ALARM
    from fisher_edge.names import ChannelKey

    arguments = {"cause": cause, "note": note, "by": by if by is not None else _user()}
    answer = ask_gateway(state_dir, "acknowledge", ChannelKey(asset, channel), arguments)
    if as_json:
        print_json(answer)
        return
    print(f"{asset}/{channel}: {answer['state']} acknowledged, {cause or 'cause not known'}")
    if answer["examples"]:
        print(f"  {answer['examples']} windows are examples of {cause!r} now")
    elif cause not in {None, FALSE_ALARM}:
        print(f"  no window became an example of {cause!r}: {answer['no_examples']}")


@alarms.command()
def shelve(
    asset: AssetName,
    channel: SensorName,
    minutes: Annotated[float, typer.Option("--minutes", min=0.0, help="Minutes until alarms are told again.")],
    note: Note = "",
    by: By = None,
    state_dir: StateDir = Path("state"),
    as_json: AsJson = False,
) -> None:
    """Tell no warning and no alarm of a channel for a time, while a machine is worked on. What stands then is told.

    Example: fisher-edge alarms shelve pump-1 vib-de --minutes 90 --note "new coupling"
    """
    from fisher_edge.names import ChannelKey
    from fisher_edge.publish.message import rfc3339

    arguments = {"minutes": minutes, "note": note, "by": by if by is not None else _user()}
    answer = ask_gateway(state_dir, "shelve", ChannelKey(asset, channel), arguments)
    if as_json:
        print_json(answer)
    else:
        print(f"{asset}/{channel}: shelved until {rfc3339(answer['until_s'])}")


@alarms.command()
def unshelve(
    asset: AssetName,
    channel: SensorName,
    by: By = None,
    state_dir: StateDir = Path("state"),
    as_json: AsJson = False,
) -> None:
    """Tell warnings and alarms of a channel again.

    Example: fisher-edge alarms unshelve pump-1 vib-de
    """
    from fisher_edge.names import ChannelKey

    arguments = {"by": by if by is not None else _user()}
    answer = ask_gateway(state_dir, "unshelve", ChannelKey(asset, channel), arguments)
    print_json(answer) if as_json else print(f"{asset}/{channel}: shelved no longer, {answer['state']}")


def _user() -> str:
    """Name of the user of the computer; empty where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _severity(standing: "Standing") -> str:
    """How serious the alarm of a channel is."""
    return standing.alarm.severity.value if standing.alarm else "normal"


def _line(key: "ChannelKey", standing: "Standing") -> str:
    """State of a channel in one line."""
    from fisher_edge.publish.message import rfc3339

    parts: list[Any] = [f"{key}  {standing.state.value} since {rfc3339(standing.since_s)}"]
    alarm, realised = standing.alarm, standing.realised
    if alarm and alarm.severity.value not in {"normal", standing.state.value}:
        parts.append(f"{alarm.severity.value} before")
    if alarm and alarm.severity.value != "normal":
        parts.append("acknowledged" if alarm.acknowledged else "not acknowledged")
    if alarm and alarm.unseen.value != "normal":
        parts.append(f"{alarm.unseen.value} that is over, not acknowledged")
    if alarm and alarm.shelved_until_s is not None:
        parts.append(f"shelved until {rfc3339(alarm.shelved_until_s)}")
    if standing.reason:
        parts.append(standing.reason)
    if realised:
        parts.append(
            f"{realised.alarms} alarms in {realised.days:.3g} days ({realised.promise.alarm_per_day:g} false ones a "
            f"day promised; {realised.confirmed} confirmed, {realised.refuted} false)"
        )
    return "  ".join(parts)
