"""The state directory as commands use it: opening its records, and asking the gateway that runs on it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fisher_edge.errors import BadInputError, StateError

if TYPE_CHECKING:
    from fisher_edge.names import ChannelKey
    from fisher_edge.store.commands import Command
    from fisher_edge.store.database import Database
    from fisher_edge.store.records import Records

__all__ = ["ask_gateway", "open_database", "open_records"]

POLL_S = 0.1
ANSWER_S = 30.0
"""A gateway that has not taken a command after so long does not work."""


def open_database(state_dir: Path) -> "Database":
    """Open a database that is there."""
    from fisher_edge.store.database import Database

    return Database(state_dir, set_aside=False, create=False)


def open_records(database: "Database") -> "Records":
    """Return the records, for reading and releasing: nothing is written, so no limit is reached."""
    from fisher_edge.store.records import Limits, Records

    most = 1 << 40
    return Records(database, 0, limits=Limits(most, most, most, most))


def ask_gateway(
    state_dir: Path,
    verb: str,
    key: "ChannelKey",
    arguments: dict[str, Any],
    *,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Ask the gateway of a state directory for something, and return its answer when it is done.

    Raises StateError when no gateway runs or it does not answer, and BadInputError with the reason when it refuses.
    """
    from fisher_edge.store.commands import Commands
    from fisher_edge.store.database import daemon_runs

    key.check()
    with open_database(state_dir) as database:
        if not daemon_runs(state_dir):
            raise StateError(f"no gateway runs on {state_dir}; start it with: fisher-edge run CONFIG.toml")
        commands = Commands(database)
        number, asked_s = commands.ask(verb, key, arguments), time.monotonic()
        while not (command := commands.get(number)).ended:
            late = command.status == "waiting" and time.monotonic() - asked_s > ANSWER_S
            if late and commands.give_up(number):
                raise StateError(f"the gateway on {state_dir} has not answered for {ANSWER_S:g} s; see its log")
            if command.status == "running" and command.answer and on_progress is not None:
                on_progress(command.answer)
            if command.status == "running" and not daemon_runs(state_dir):
                raise StateError(f"the gateway on {state_dir} has ended before it was done; start it and ask again")
            time.sleep(POLL_S)
    return _answer_of(command)


def _answer_of(command: "Command") -> dict[str, Any]:
    """Return what came of a command; what was refused is an error."""
    if command.status == "failed":
        raise BadInputError(str(command.answer.get("error", "the gateway refuses without a reason")))
    return command.answer
