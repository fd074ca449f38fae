"""Baselines: the enrolled windows of a channel with everything they were made with. Start at `Baselines`.

A baseline is one enrollment of one label (None: the normal state) in one version; the tables `baseline*` and `fusion`
are read and written here alone.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray, Rate, as_rate
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import Grid
from fisher_edge.dsp.views import View
from fisher_edge.errors import BadInputError
from fisher_edge.names import ChannelKey
from fisher_edge.store.database import Database

__all__ = ["Baseline", "BaselineFacts", "Baselines", "OperatingState", "Take", "ViewCalibration"]

Doubles = npt.NDArray[np.float64]
FIRST_FRONT_END = ("band_width", "win_ms", "hop_ms", "max_frames", "mean", "std", "top_band", "amplitude")
# Columns of `baseline` that are fields of a `Baseline` as they are, and all that it is rebuilt from.
AS_THEY_ARE = ("label", "model_name", "model_sha256", "reason", "version", "created_s", "after_record")
GRID_COLUMNS = ("piece_frames", "piece_hop_frames", "window_pieces", "hop_pieces", "bursts", "time_factor")
ARRAY_COLUMNS = ("bands", "windows", "vectors", "take", "offset_s", "level", "views")
OWN_COLUMNS = ("id", "asset", "channel", "front_end", "rate", "active", "sensitivity")
COLUMNS = (*OWN_COLUMNS, *AS_THEY_ARE, *GRID_COLUMNS, *ARRAY_COLUMNS)
SAME = "asset = ? AND channel = ? AND label IS ?"


@dataclass(frozen=True)
class Take:
    """One enrolled recording: its name, what was recorded, when (s UTC, None: not known), its state's number."""

    name: str
    specimen: str | None = None
    recorded_s: float | None = None
    state: int = 0


@dataclass(frozen=True, eq=False)
class OperatingState:
    """One operating state of a normal baseline: how far its held-out windows are, and how loud it is.

    `held_out` (n,) are distances of windows that were held out, `level_mean` and `level_std` are of the log RMS of its
    windows, `hum_share` is the largest share of a window's power at mains frequency; `given` says whether the name was
    given at enrollment, else the state was found.
    """

    name: str
    held_out: Doubles
    level_mean: float
    level_std: float
    hum_share: float = 1.0
    given: bool = False


@dataclass(frozen=True, eq=False)
class ViewCalibration:
    """One view of a baseline, and how far (n,) its held-out windows are from the others in it."""

    view: View
    held_out: Doubles


@dataclass(frozen=True)
class BaselineFacts:
    """What is known about a baseline without its arrays, for lists."""

    key: ChannelKey
    label: str | None
    version: int
    active: bool
    created_s: float
    reason: str
    model_name: str
    model_sha256: str
    rate_hz: Rate
    windows: int
    takes: tuple[Take, ...]


@dataclass(frozen=True, eq=False)
class Baseline:
    """Enrolled windows of one channel in one version.

    `vectors` (windows, bands, dim) as the encoder gave them; `take` (windows,), `offset_s` (windows,) and `level`
    (windows,) say of each window which recording it is from, where in it the window ends and its log RMS; `views`
    (windows, bins of all views side by side), None without views. `front_end` has no views; None: a release that did
    not keep it. `sensitivity` says which changes would be noticed (see `fisher_edge.decision.sensitivity`).
    """

    key: ChannelKey
    label: str | None
    model_name: str
    model_sha256: str
    front_end: FrontEnd | None
    rate_hz: Rate
    grid: Grid
    vectors: FloatArray
    take: npt.NDArray[np.int32]
    offset_s: Doubles
    level: Doubles
    takes: tuple[Take, ...]
    states: tuple[OperatingState, ...]
    view_calibrations: tuple[ViewCalibration, ...] = ()
    views: FloatArray | None = None
    sensitivity: dict[str, Any] | None = None
    reason: str = ""
    version: int = 0
    active: bool = True
    created_s: float = 0.0
    after_record: int = 0

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def state_of_window(self) -> npt.NDArray[np.int64]:
        """Number of the operating state of each window (windows,)."""
        return np.array([take.state for take in self.takes], np.int64)[self.take]

    def only(self, windows: npt.NDArray[np.int64]) -> "Baseline":
        """Return this baseline with some of its windows (k,) only."""
        return replace(
            self,
            vectors=self.vectors[windows],
            take=self.take[windows],
            offset_s=self.offset_s[windows],
            level=self.level[windows],
            views=None if self.views is None else self.views[windows],
        )

    def check(self) -> None:
        """Raise ValueError when its parts do not belong together, as in a file that somebody has changed."""
        windows, takes, states = len(self.vectors), len(self.takes), len(self.states)
        of_windows = (self.take, self.offset_s, self.level, *(() if self.views is None else (self.views,)))
        fits = windows > 0 and all(len(each) == windows for each in of_windows)
        fits = fits and 0 <= int(self.take.min()) <= int(self.take.max()) < takes
        fits = fits and all(0 <= take.state < states for take in self.takes)
        if not (fits and np.isfinite(self.vectors).all()):
            raise ValueError(f"the parts of {self.label or 'normal'} do not belong together")

    def has_front_end(self, front_end: FrontEnd) -> bool:
        """Whether embeddings of a front-end can be compared with this baseline, given the same model.

        A baseline that does not say comes from a release that knew `FIRST_FRONT_END` only and did not overlap bands.
        """
        without_views = replace(front_end, views=())
        if self.front_end is not None:
            return self.front_end == without_views
        facts = front_end.to_dict()
        known = FrontEnd.from_dict({name: facts[name] for name in FIRST_FRONT_END})
        return known == without_views and front_end.top_band != "overlap"


class Baselines:
    """The baselines in a database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, baseline: Baseline) -> int:
        """Store a baseline as the newest, active version of its channel and label; return the version."""
        key = (*baseline.key, baseline.label)
        with self.database.transaction(durable=True) as connection:
            newest = connection.execute(f"SELECT max(version) FROM baseline WHERE {SAME}", key).fetchone()[0]
            version = (newest or 0) + 1
            connection.execute(f"UPDATE baseline SET active = 0 WHERE {SAME}", key)
            cursor = connection.execute(
                "INSERT INTO baseline (asset, channel, label, version, active, created_s, reason, after_record,"
                " model_name, model_sha256, front_end, rate, piece_frames, piece_hop_frames, window_pieces, hop_pieces,"
                " bursts, time_factor, bands, windows, vectors, take, offset_s, level, views, sensitivity)"
                " VALUES (?, ?, ?, ?, 1, ?, ?,"
                " (SELECT coalesce(max(id), 0) FROM record), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*key, version, time.time(), baseline.reason, *_columns(baseline)),
            )
            self._add_parts(int(cursor.lastrowid or 0), baseline)
        return version

    def _add_parts(self, row: int, baseline: Baseline) -> None:
        """Write recordings, states and views of a baseline."""
        connection = self.database.connection
        connection.executemany(
            "INSERT INTO baseline_take VALUES (?, ?, ?, ?, ?, ?)",
            [(row, n, each.name, each.specimen, each.recorded_s, each.state) for n, each in enumerate(baseline.takes)],
        )
        connection.executemany(
            "INSERT INTO baseline_state VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    row,
                    number,
                    state.name,
                    _doubles(state.held_out),
                    state.level_mean,
                    state.level_std,
                    state.hum_share,
                    int(state.given),
                )
                for number, state in enumerate(baseline.states)
            ],
        )
        connection.executemany(
            "INSERT INTO baseline_view VALUES (?, ?, ?, ?)",
            [
                (row, number, json.dumps(each.view.to_dict()), _doubles(each.held_out))
                for number, each in enumerate(baseline.view_calibrations)
            ],
        )

    def active(self, key: ChannelKey) -> list[Baseline]:
        """Return the active baselines of a channel, oldest first: its normal state and its labelled faults."""
        return self._read("asset = ? AND channel = ? AND active = 1", tuple(key))

    def get(self, key: ChannelKey, label: str | None, version: int | None = None) -> Baseline | None:
        """Return one version of a baseline, by default the active one; None when there is none."""
        which, parameters = ("active = 1", ()) if version is None else ("version = ?", (version,))
        found = self._read(f"{SAME} AND {which}", (*key, label, *parameters))
        return found[0] if found else None

    def channels(self) -> list[ChannelKey]:
        """Return the channels for which anything is enrolled."""
        rows = self.database.query("SELECT DISTINCT asset, channel FROM baseline ORDER BY asset, channel")
        return [ChannelKey(*row) for row in rows]

    def facts(self, key: ChannelKey | None = None, *, active_only: bool = False) -> list[BaselineFacts]:
        """Return what is known about every baseline, or about those of one channel, without reading any vector."""
        rows = self.database.query(
            "SELECT id, asset, channel, label, version, active, created_s, reason, model_name, model_sha256, rate,"
            " windows FROM baseline WHERE (?1 IS NULL OR asset = ?1) AND (?2 IS NULL OR channel = ?2) AND active >= ?3"
            " ORDER BY id",
            (*(key or (None, None)), int(active_only)),
        )
        return [
            BaselineFacts(
                key=ChannelKey(asset, channel),
                label=label,
                version=version,
                active=bool(active),
                created_s=created_s,
                reason=reason,
                model_name=model_name,
                model_sha256=sha256,
                rate_hz=as_rate(Fraction(rate)),
                windows=count,
                takes=self._takes(row),
            )
            for row, asset, channel, label, version, active, created_s, reason, model_name, sha256, rate, count in rows
        ]

    def generation(self) -> tuple[tuple[str, str, int], ...]:
        """Return asset, channel and row of every active baseline: other ones whenever another set becomes active."""
        rows = self.database.query("SELECT asset, channel, id FROM baseline WHERE active = 1 ORDER BY id")
        return tuple((asset, channel, row) for asset, channel, row in rows)

    def models(self) -> set[str]:
        """Return the SHA-256 of every model that a baseline was made with."""
        return {sha256 for (sha256,) in self.database.query("SELECT DISTINCT model_sha256 FROM baseline")}

    def activate(self, key: ChannelKey, label: str | None, version: int) -> None:
        """Make an earlier version of a baseline the active one again."""
        same = (*key, label)
        with self.database.transaction(durable=True) as connection:
            known = connection.execute(f"SELECT version FROM baseline WHERE {SAME} ORDER BY version", same).fetchall()
            if (version,) not in known:
                have = ", ".join(str(row[0]) for row in known) or "none"
                raise BadInputError(f"{key} has no version {version} of {label or 'normal'}; it has: {have}")
            connection.execute(
                "UPDATE baseline SET active = (version = ?), after_record = (SELECT coalesce(max(id), 0) FROM record)"
                f" WHERE {SAME}",
                (version, *same),
            )

    def remove(self, key: ChannelKey, label: str | None) -> int:
        """Delete all versions of a baseline and return how many there were."""
        with self.database.transaction(durable=True) as connection:
            cursor = connection.execute(f"DELETE FROM baseline WHERE {SAME}", (*key, label))
            if cursor.rowcount == 0:
                raise BadInputError(f"{key} has no baseline for {label or 'normal'}; see: fisher-edge baseline list")
            return cursor.rowcount

    def set_fusion(self, key: ChannelKey, weights: dict[str, Any] | None) -> None:
        """Keep how the signal and the views of a channel name its faults (see `fisher_edge.decision.fusion`)."""
        with self.database.transaction(durable=True) as connection:
            connection.execute("DELETE FROM fusion WHERE asset = ? AND channel = ?", tuple(key))
            if weights is not None:
                connection.execute("INSERT INTO fusion VALUES (?, ?, ?)", (*key, json.dumps(weights)))

    def fusion(self, key: ChannelKey) -> dict[str, Any] | None:
        """Return what `set_fusion` kept last; None while there is nothing to fuse."""
        rows = self.database.query("SELECT weights FROM fusion WHERE asset = ? AND channel = ?", tuple(key))
        return dict(json.loads(rows[0][0])) if rows else None

    def _read(self, where: str, parameters: tuple[Any, ...]) -> list[Baseline]:
        """Return whole baselines, oldest first."""
        rows = self.database.query(f"SELECT {', '.join(COLUMNS)} FROM baseline WHERE {where} ORDER BY id", parameters)
        return [self._baseline(dict(zip(COLUMNS, row, strict=True))) for row in rows]

    def _baseline(self, row: dict[str, Any]) -> Baseline:
        """Rebuild a baseline from its row and its parts."""
        front_end = FrontEnd.from_dict(json.loads(row["front_end"])) if row["front_end"] else None
        rate_hz, windows = as_rate(Fraction(row["rate"])), row["windows"]
        views = row["views"]
        return Baseline(
            key=ChannelKey(row["asset"], row["channel"]),
            front_end=front_end,
            rate_hz=rate_hz,
            grid=_grid(row, front_end or FrontEnd(), rate_hz),
            vectors=np.frombuffer(row["vectors"], "<f4").reshape(windows, row["bands"], -1),
            take=np.frombuffer(row["take"], "<i4"),
            offset_s=np.frombuffer(row["offset_s"], "<f8"),
            level=np.frombuffer(row["level"], "<f8"),
            takes=self._takes(row["id"]),
            states=self._states(row["id"]),
            view_calibrations=self._views(row["id"]),
            views=None if views is None else np.frombuffer(views, "<f4").reshape(windows, -1),
            sensitivity=json.loads(row["sensitivity"]) if row["sensitivity"] else None,
            active=bool(row["active"]),
            **{name: row[name] for name in AS_THEY_ARE},
        )

    def _takes(self, row: int) -> tuple[Take, ...]:
        """Return the recordings of a baseline, in their order."""
        rows = self.database.query(
            "SELECT name, specimen, recorded_s, state FROM baseline_take WHERE baseline = ? ORDER BY number", (row,)
        )
        return tuple(Take(*each) for each in rows)

    def _states(self, row: int) -> tuple[OperatingState, ...]:
        """Return the operating states of a baseline, in their order."""
        rows = self.database.query(
            "SELECT name, held_out, level_mean, level_std, hum_share, given FROM baseline_state"
            " WHERE baseline = ? ORDER BY number",
            (row,),
        )
        return tuple(
            OperatingState(name, np.frombuffer(held_out, "<f8"), mean, std, hum, bool(given))
            for name, held_out, mean, std, hum, given in rows
        )

    def _views(self, row: int) -> tuple[ViewCalibration, ...]:
        """Return the views of a baseline, in the order of their vectors."""
        rows = self.database.query(
            "SELECT view, held_out FROM baseline_view WHERE baseline = ? ORDER BY number", (row,)
        )
        return tuple(
            ViewCalibration(View.from_dict(json.loads(view)), np.frombuffer(held_out, "<f8")) for view, held_out in rows
        )


def _columns(baseline: Baseline) -> tuple[Any, ...]:
    """Values of the columns from `model_name` on."""
    front_end, grid = baseline.front_end, baseline.grid
    return (
        baseline.model_name,
        baseline.model_sha256,
        None if front_end is None else json.dumps(front_end.to_dict()),
        str(Fraction(baseline.rate_hz)),
        grid.piece_frames,
        grid.piece_hop_frames,
        grid.window_pieces,
        grid.hop_pieces,
        int(grid.bursts),
        grid.time_factor,
        baseline.vectors.shape[1],
        len(baseline),
        np.ascontiguousarray(baseline.vectors, "<f4").tobytes(),
        np.ascontiguousarray(baseline.take, "<i4").tobytes(),
        _doubles(baseline.offset_s),
        _doubles(baseline.level),
        None if baseline.views is None else np.ascontiguousarray(baseline.views, "<f4").tobytes(),
        None if baseline.sensitivity is None else json.dumps(baseline.sensitivity),
    )


def _doubles(values: npt.ArrayLike | Sequence[float]) -> bytes:
    """Return numbers as the bytes of a column."""
    return np.ascontiguousarray(values, "<f8").tobytes()


def _grid(row: dict[str, Any], front_end: FrontEnd, rate_hz: Rate) -> Grid:
    """Rebuild the grid of a baseline from its row."""
    frames, hop_frames, pieces, hop_pieces = (row[name] for name in GRID_COLUMNS[:4])
    window_frames = frames if pieces == 1 else pieces * hop_frames
    return Grid(
        piece_frames=frames,
        piece_hop_frames=hop_frames,
        window_pieces=pieces,
        hop_pieces=hop_pieces,
        window_s=front_end.seconds_of(window_frames, rate_hz) * row["time_factor"],
        hop_s=front_end.seconds_of(hop_pieces * hop_frames, rate_hz) * row["time_factor"],
        bursts=bool(row["bursts"]),
        time_factor=row["time_factor"],
    )
