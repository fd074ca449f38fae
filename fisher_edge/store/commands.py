"""What users ask of a running gateway, and what came of it: a queue in the database. Start at `Commands`.

Whoever asks writes a row, the gateway answers in it: both may be any process with the state directory. Rows stay as a
record of who asked for what, up to `KEPT` of them.
"""

import json
import time
from dataclasses import dataclass
from typing import Any, Literal

from fisher_edge.errors import BadInputError
from fisher_edge.names import ChannelKey
from fisher_edge.store.database import Database

__all__ = ["Command", "Commands", "Status"]

Status = Literal["waiting", "running", "done", "failed"]

KEPT = 1000
"""Commands that are kept."""
COLUMNS = "id, verb, asset, channel, arguments, created_s, status, answer"


@dataclass(frozen=True)
class Command:
    """One command: what is asked of which channel, and the answer so far; `created_s` is in seconds UTC.

    The answer of a failed command has the key `error`.
    """

    id: int
    verb: str
    key: ChannelKey
    arguments: dict[str, Any]
    created_s: float
    status: Status
    answer: dict[str, Any]

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.status in {"done", "failed"}


class Commands:
    """The commands in a database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def ask(self, verb: str, key: ChannelKey, arguments: dict[str, Any]) -> int:
        """Ask the gateway for something and return the number of the command."""
        with self.database.transaction(durable=True) as connection:
            cursor = connection.execute(
                "INSERT INTO command (verb, asset, channel, arguments, created_s, status, answer)"
                " VALUES (?, ?, ?, ?, ?, 'waiting', '{}')",
                (verb, *key, json.dumps(arguments), time.time()),
            )
            number = int(cursor.lastrowid or 0)
            connection.execute("DELETE FROM command WHERE id <= ? AND status IN ('done', 'failed')", (number - KEPT,))
        return number

    def get(self, number: int) -> Command:
        """Return a command as it is now."""
        rows = self.database.query(f"SELECT {COLUMNS} FROM command WHERE id = ?", (number,))
        if not rows:
            raise BadInputError(f"there is no command {number}; ask again")
        return _command(rows[0])

    def waiting(self) -> list[Command]:
        """Return the commands nobody has taken, in the order in which they were asked."""
        rows = self.database.query(f"SELECT {COLUMNS} FROM command WHERE status = 'waiting' ORDER BY id")
        return [_command(row) for row in rows]

    def answer(self, number: int, status: Status, answer: dict[str, Any]) -> None:
        """Note how far a command is, or what came of it."""
        with self.database.transaction(durable=status != "running") as connection:
            connection.execute(
                "UPDATE command SET status = ?, answer = ? WHERE id = ?", (status, json.dumps(answer), number)
            )

    def give_up(self, number: int) -> bool:
        """Take back a command that nobody has taken; tell whether it could be."""
        with self.database.transaction(durable=True) as connection:
            cursor = connection.execute(
                "UPDATE command SET status = 'failed', answer = json_set(answer, '$.error', 'taken back')"
                " WHERE id = ? AND status = 'waiting'",
                (number,),
            )
            return cursor.rowcount > 0

    def abandon(self, reason: str) -> None:
        """Let every command fail that has not ended: the gateway that had taken it is gone."""
        with self.database.transaction(durable=True) as connection:
            connection.execute(
                "UPDATE command SET status = 'failed', answer = json_set(answer, '$.error', ?)"
                " WHERE status IN ('waiting', 'running')",
                (reason,),
            )


def _command(row: tuple[Any, ...]) -> Command:
    """Build a command from its columns."""
    number, verb, asset, channel, arguments, created_s, status, answer = row
    return Command(
        number, verb, ChannelKey(asset, channel), json.loads(arguments), created_s, status, json.loads(answer)
    )
