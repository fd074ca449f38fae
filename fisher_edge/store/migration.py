"""How a database of an earlier release is brought up to date. Start at `migrate`."""

import json
import sqlite3
from datetime import datetime
from fractions import Fraction
from typing import Any

import numpy as np

from fisher_edge.store.schema import (
    DELIVERED,
    MESSAGE,
    NEUTRAL,
    SCHEMA_1,
    SCHEMA_2,
    SCHEMA_3,
    SCHEMA_4,
    SCHEMA_5,
    WAITING,
    row_bytes,
)

__all__ = ["VERSION", "migrate"]


def migrate(connection: sqlite3.Connection) -> bool:
    """Bring a database up to date in one transaction (two programs may start at once); tell whether it was old."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = before = connection.execute("PRAGMA user_version").fetchone()[0]
        for step in STEPS[version:]:
            step(connection)
            version += 1
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return bool(0 < before < VERSION)


def _script(connection: sqlite3.Connection, script: str) -> None:
    """Run statements inside the transaction under way, which `executescript` would end."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""
    if statement.strip():
        connection.execute(statement)


def _to_1(connection: sqlite3.Connection) -> None:
    _script(connection, SCHEMA_1)


def _to_2(connection: sqlite3.Connection) -> None:
    _script(connection, SCHEMA_2)


def _to_3(connection: sqlite3.Connection) -> None:
    """Baselines become columns and arrays; outbox and events become records; finished messages stay as they are."""
    _script(connection, SCHEMA_3)
    rows = connection.execute(
        "SELECT id, asset, channel, label, version, active, created_s, facts, vectors, times, views FROM baseline_2"
    ).fetchall()
    for row in rows:
        try:
            _typed_baseline(connection, *row)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise sqlite3.DatabaseError(f"baseline {row[0]} of {row[1]}/{row[2]} has no usable facts") from error
        _note_channel(connection, *row[1:3])
    connection.execute("DROP TABLE baseline_2")
    _move_events(connection)
    _move_outbox(connection)
    connection.execute(
        "INSERT INTO record_total (waiting, waiting_bytes, kept_bytes, standing_id, dropped_result, dropped_event)"
        " SELECT (SELECT count(*) FROM record WHERE status = 0),"
        " (SELECT coalesce(sum(size), 0) FROM record WHERE status = 0),"
        " (SELECT coalesce(sum(size), 0) FROM record WHERE status <> 0),"
        " (SELECT coalesce(max(id), 0) FROM standing), dropped_result, dropped_event FROM outbox_total"
    )
    connection.execute(
        "UPDATE baseline SET after_record = (SELECT coalesce(max(id), 0) FROM record WHERE kind = 'event' AND"
        " record.asset = baseline.asset AND record.channel = baseline.channel AND record.time_s <= baseline.created_s)"
    )
    for table in ("outbox", "outbox_total", "event"):
        connection.execute(f"DROP TABLE {table}")


def _to_4(connection: sqlite3.Connection) -> None:
    _script(connection, SCHEMA_4)


def _to_5(connection: sqlite3.Connection) -> None:
    _script(connection, SCHEMA_5)


def _move_events(connection: sqlite3.Connection) -> None:
    """Keep the events that were delivered, as neutral rows without the judgement that led to them."""
    waiting = set(connection.execute("SELECT boot, seq FROM outbox WHERE kind = 'event'"))
    for asset, channel, time_s, payload in connection.execute(
        "SELECT asset, channel, time_s, payload FROM event ORDER BY id"
    ):
        fields = json.loads(payload)
        if (fields["boot"], fields["seq"]) in waiting:
            continue
        change = {name: fields[name] for name in ("before", "after", "reason")} | {"time_s": time_s}
        body = json.dumps(change).encode()
        _insert_record(
            connection, "event", DELIVERED, (fields["boot"], fields["seq"], asset, channel, time_s), (NEUTRAL, body)
        )
        _note_channel(connection, asset, channel, fields["after"])


def _move_outbox(connection: sqlite3.Connection) -> None:
    """Keep what waits, as it was written: an event or a result as a record, a state as that of its channel."""
    rows = connection.execute("SELECT kind, boot, seq, payload, created_s FROM outbox ORDER BY id")
    for kind, boot, seq, payload, created_s in rows:
        fields = json.loads(payload)
        asset, channel = fields["asset"], fields["channel"]
        _note_channel(connection, asset, channel)
        if kind == "state":
            connection.execute(
                "UPDATE standing SET id = (SELECT max(id) + 1 FROM standing), status = ?, boot = ?, seq = ?,"
                " dialect = ?, body = ? WHERE asset = ? AND channel = ?",
                (WAITING, boot, seq, MESSAGE, payload, asset, channel),
            )
            continue
        time_s = _seconds(fields.get("time"), created_s)
        _insert_record(connection, kind, WAITING, (boot, seq, asset, channel, time_s), (MESSAGE, payload), created_s)
        if kind == "event":
            _note_channel(connection, asset, channel, fields.get("after"))


def _insert_record(
    connection: sqlite3.Connection,
    kind: str,
    status: int,
    identity: tuple[int, int, str, str, float],
    content: tuple[int, bytes],
    created_s: float | None = None,
) -> None:
    """Write one row of an earlier release; its age counts from now on."""
    _, _, asset, channel, time_s = identity
    connection.execute(
        "INSERT INTO record (kind, status, boot, seq, asset, channel, time_s, created_s, run_s, size, dialect, body)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?)",
        (
            kind,
            status,
            *identity,
            time_s if created_s is None else created_s,
            row_bytes(content[1], asset, channel),
            *content,
        ),
    )


def _note_channel(connection: sqlite3.Connection, asset: str, channel: str, after: str | None = None) -> None:
    """Note that an earlier release published states of a channel, and that its newest event led to a judgement."""
    connection.execute(
        "INSERT OR IGNORE INTO standing (asset, channel, id, status, boot, run_s, dialect)"
        " VALUES (?, ?, 0, ?, 0, 0, ?)",
        (asset, channel, DELIVERED, NEUTRAL),
    )
    if after in {"normal", "warning", "alarm"}:
        connection.execute(
            "UPDATE standing SET judged = (SELECT max(id) FROM record) WHERE asset = ? AND channel = ?",
            (asset, channel),
        )


def _seconds(stamp: str | None, otherwise: float) -> float:
    """Read the time stamp of an earlier release."""
    try:
        return datetime.fromisoformat((stamp or "").replace("Z", "+00:00")).timestamp()
    except ValueError:
        return otherwise


def _typed_baseline(
    connection: sqlite3.Connection,
    row_id: int,
    asset: str,
    channel: str,
    label: str | None,
    version: int,
    active: int,
    created_s: float,
    facts_text: str,
    vectors: bytes,
    times: bytes,
    views: bytes | None,
) -> None:
    """Write one baseline of schema 2 in the form of schema 3."""
    facts: dict[str, Any] = json.loads(facts_text)
    times_s = np.frombuffer(times, "<f8")
    frame_s = (facts.get("front_end") or {}).get("hop_ms", 10) / 1000
    offset_s = times_s - times_s[0] + facts["window_frames"] * frame_s if len(times_s) else times_s
    connection.execute(
        "INSERT INTO baseline (id, asset, channel, label, version, active, created_s, reason, after_record, model_name,"
        " model_sha256, front_end, rate, piece_frames, piece_hop_frames, window_pieces, hop_pieces, bands, windows,"
        " vectors, take, offset_s, level, views)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, '', 0, ?, ?, ?, ?, ?, ?, 1, 1, ?, ?, ?, ?, ?, ?, ?)",
        (
            row_id,
            asset,
            channel,
            label,
            version,
            active,
            created_s,
            facts["model"]["name"],
            facts["model"]["sha256"],
            json.dumps(facts["front_end"]) if facts.get("front_end") else None,
            str(Fraction(facts["rate_hz"])),
            facts["window_frames"],
            facts["hop_frames"],
            facts["bands"],
            len(times_s),
            vectors,
            np.asarray(facts["source_of_window"], "<i4").tobytes(),
            offset_s.astype("<f8").tobytes(),
            np.full(len(times_s), np.nan, "<f8").tobytes(),
            views,
        ),
    )
    _typed_parts(connection, row_id, facts)


def _typed_parts(connection: sqlite3.Connection, row_id: int, facts: dict[str, Any]) -> None:
    """Write recordings, operating state and views of one baseline of schema 2."""
    level = facts["level"]
    specimens = facts.get("specimens") or [None] * len(facts["sources"])
    connection.executemany(
        "INSERT INTO baseline_take VALUES (?, ?, ?, ?, NULL, 0)",
        [(row_id, number, *pair) for number, pair in enumerate(zip(facts["sources"], specimens, strict=True))],
    )
    connection.execute(
        "INSERT INTO baseline_state VALUES (?, 0, '', ?, ?, ?, ?, 1.0)",
        (
            row_id,
            np.asarray(facts.get("held_out", []), "<f8").tobytes(),
            level["mean"],
            level["std"],
            np.asarray(level["held_out"], "<f8").tobytes(),
        ),
    )
    connection.executemany(
        "INSERT INTO baseline_view VALUES (?, ?, ?, ?)",
        [
            (row_id, number, json.dumps(each["view"]), np.asarray(each["held_out"], "<f8").tobytes())
            for number, each in enumerate(facts.get("views", []))
        ],
    )


STEPS = (_to_1, _to_2, _to_3, _to_4, _to_5)
VERSION = len(STEPS)
