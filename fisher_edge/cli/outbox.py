"""Commands about messages that the broker refuses: list, send again, delete."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fisher_edge.cli.options import AsJson, StateDir, print_json
from fisher_edge.cli.state import open_database, open_records

if TYPE_CHECKING:
    from fisher_edge.store.records import Records
    from fisher_edge.store.rows import SetAside

__all__ = ["register"]

outbox = typer.Typer(
    help="Messages that the broker refuses: they are set aside, so that others are delivered.", no_args_is_help=True
)

Which = Annotated[list[int] | None, typer.Argument(metavar="[NUMBER]...", help="Which, by number; all without one.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(outbox, name="outbox")


@outbox.command("list")
def list_messages(state_dir: StateDir = Path("state"), as_json: AsJson = False) -> None:
    """List the messages that are set aside, and why.

    Example: fisher-edge outbox list --state-dir /var/lib/fisher-edge
    """
    with open_database(state_dir) as database:
        rows = [_facts(each) for each in open_records(database).set_aside_rows()]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        print(f"{row['number']}  {row['asset']}/{row['channel']}  {row['kind']}  {row['written']}  {row['reason']}")
    if not rows:
        print("no message is set aside")


@outbox.command()
def resend(numbers: Which = None, state_dir: StateDir = Path("state")) -> None:
    """Let messages that are set aside wait for the broker again; a running gateway sends them.

    Example: fisher-edge outbox resend
    """
    with open_database(state_dir) as database:
        records = open_records(database)
        _check_there(records, numbers)
        count = records.send_again(numbers)
    print(f"{count} message(s) wait for the broker again")


@outbox.command()
def discard(numbers: Which = None, state_dir: StateDir = Path("state")) -> None:
    """Delete messages that are set aside.

    Example: fisher-edge outbox discard 4711
    """
    with open_database(state_dir) as database:
        records = open_records(database)
        _check_there(records, numbers)
        count = records.delete_set_aside(numbers)
    print(f"{count} message(s) deleted")


def _check_there(records: "Records", numbers: list[int] | None) -> None:
    """Refuse numbers that no message has which is set aside."""
    from fisher_edge.errors import BadInputError

    known = {each.row.id for each in records.set_aside_rows(limit=1 << 40)}
    missing = sorted(set(numbers or ()) - known)
    if missing:
        listed = ", ".join(map(str, missing))
        raise BadInputError(f"no message that is set aside has the number {listed}; see: fisher-edge outbox list")


def _facts(each: "SetAside") -> dict[str, Any]:
    """What is shown of a message."""
    from fisher_edge.publish.message import rfc3339

    return {
        "number": each.row.id,
        "asset": each.row.key.asset,
        "channel": each.row.key.channel,
        "kind": each.row.kind,
        "boot": each.row.boot,
        "seq": each.row.seq,
        "written": rfc3339(each.created_s),
        "reason": each.reason,
    }
