"""What is read from the records: a row that waits, a result or an event of the history, the totals."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fisher_edge.decision.judgement import Change, Result, Standing, State
from fisher_edge.names import ChannelKey
from fisher_edge.store.body import DamagedRowError, Kind, decode
from fisher_edge.store.schema import MESSAGE, NEUTRAL

__all__ = ["Kept", "Row", "SetAside", "Totals", "change_of", "kept_changes", "kept_results", "row_of", "standing_of"]

Value = TypeVar("Value", bound=Result | Change)


@dataclass(frozen=True)
class Row:
    """One message that waits; `body` is neutral (see `fisher_edge.store.body`) or a message of an earlier release."""

    kind: Kind
    id: int
    key: ChannelKey
    boot: int
    seq: int | None
    run_s: float
    dialect: int
    body: bytes


@dataclass(frozen=True)
class SetAside:
    """A message that the broker refused, when it was written (s UTC) and why it was set aside."""

    row: Row
    created_s: float
    reason: str


@dataclass(frozen=True)
class Kept(Generic[Value]):
    """A result or an event of the history; ids grow with time, (boot, seq) is what the broker knows it by."""

    id: int
    boot: int
    seq: int
    value: Value


@dataclass(frozen=True)
class Totals:
    """How much waits, is kept and is set aside now, and how much was dropped since the database began.

    `resends` counts how often a user had rows sent again that were set aside.
    """

    waiting: int
    waiting_bytes: int
    kept_bytes: int
    set_aside: int
    dropped_results: int
    dropped_events: int
    resends: int = 0

    @property
    def dropped(self) -> int:
        """How many messages were dropped in all."""
        return self.dropped_results + self.dropped_events


def row_of(
    kind: Kind,
    row_id: int,
    asset: str,
    channel: str,
    boot: int,
    seq: int | None,
    run_s: float,
    dialect: int,
    body: bytes,
) -> Row:
    """Build a row from its columns."""
    return Row(kind, row_id, ChannelKey(asset, channel), boot, seq, run_s, dialect, body)


def result_of(dialect: int, body: bytes) -> Result | None:
    """Read a result; None when it cannot be read."""
    try:
        result: Result | None = decode("result", body) if dialect == NEUTRAL else None
    except DamagedRowError:
        return None
    return result


def standing_of(body: bytes) -> Standing | None:
    """Read the state of a channel; None when it cannot be read."""
    try:
        standing: Standing = decode("state", body)
    except DamagedRowError:
        return None
    return standing


def change_of(time_s: float, dialect: int, body: bytes) -> Change | None:
    """Read an event, also one that an earlier release wrote as a message; None when it cannot be read."""
    try:
        if dialect != MESSAGE:
            change: Change = decode("event", body)
            return change
        fields = json.loads(body)
        return Change(time_s, State(fields["before"]), State(fields["after"]), fields["reason"])
    except (DamagedRowError, ValueError, KeyError):
        return None


def kept_results(rows: Iterable[tuple[Any, ...]]) -> list[Kept[Result]]:
    """Build results from (id, boot, seq, time_s, dialect, body), without those that cannot be read."""
    found = ((row_id, boot, seq, result_of(dialect, body)) for row_id, boot, seq, _, dialect, body in rows)
    return [Kept(row_id, boot, seq, value) for row_id, boot, seq, value in found if value is not None]


def kept_changes(rows: Iterable[tuple[Any, ...]]) -> list[Kept[Change]]:
    """Build events from (id, boot, seq, time_s, dialect, body), without those that cannot be read."""
    found = ((row_id, boot, seq, change_of(*columns)) for row_id, boot, seq, *columns in rows)
    return [Kept(row_id, boot, seq, value) for row_id, boot, seq, value in found if value is not None]
