"""Baselines in the database: everything comes back as it was, one version is active, changes are seen."""

from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from windows import KEY, VIEWS, baseline

from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import grid_of
from fisher_edge.errors import BadInputError
from fisher_edge.names import ChannelKey
from fisher_edge.store.baselines import Baselines, Take
from fisher_edge.store.database import Database

OTHER = ChannelKey("pump-2", "vib-de")


@pytest.fixture
def database(tmp_path: Any) -> Any:
    """Return an open database."""
    with Database(tmp_path) as opened:
        yield opened


@pytest.fixture
def baselines(database: Database) -> Baselines:
    """Return the baselines of an empty database."""
    return Baselines(database)


def assert_equal(left: Any, right: Any) -> None:
    """Compare dataclasses field by field, arrays with their type and every number."""
    assert type(left) is type(right)
    if isinstance(left, np.ndarray):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    elif isinstance(left, tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_equal(one, other)
    elif is_dataclass(left):
        for field in fields(left):
            assert_equal(getattr(left, field.name), getattr(right, field.name))
    else:
        assert left == right


def add_record(database: Database) -> int:
    """Write a record and return its number."""
    with database.transaction() as connection:
        cursor = connection.execute(
            "INSERT INTO record (kind, status, boot, seq, asset, channel, time_s, created_s, run_s, size, dialect,"
            " body) VALUES ('event', 1, 1, 1, 'pump-9', 'other', 0, 0, 0, 0, 0, '')"
        )
        return int(cursor.lastrowid or 0)


@pytest.mark.parametrize("label", [None, "inner race"])
@pytest.mark.parametrize("views", [(), VIEWS])
def test_baseline_comes_back_as_it_was(tmp_path: Any, label: str | None, views: Any) -> None:
    """Every array, column, recording, state and view survives closing and opening; version and time are added."""
    stored = baseline(3, label, views=views)
    with Database(tmp_path) as database:
        assert Baselines(database).add(stored) == 1
    with Database(tmp_path) as database:
        read = Baselines(database).get(KEY, label)
    assert read is not None
    assert read.created_s > 1.7e9
    assert_equal(replace(read, created_s=0.0), replace(stored, version=1))


def test_level_that_is_not_known_stays_unknown(baselines: Baselines) -> None:
    """A baseline of an earlier release has no level for its windows: NaN is kept."""
    baselines.add(replace(baseline(), level=np.full(6, np.nan), front_end=None))
    read = baselines.get(KEY, None)
    assert read is not None
    assert np.isnan(read.level).tolist() == [True] * 6
    assert read.front_end is None


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 150, Fraction(15625, 4), Fraction(100_000, 3)])
@pytest.mark.parametrize("window_s", [0.57, 0.64, 1.1, 3.33, 10.24])
@pytest.mark.parametrize("pieces", [{"piece_rule": "grid", "piece_frames": 96}, {}])
def test_rate_and_grid_come_back_exactly(
    baselines: Baselines, rate_hz: Any, window_s: float, pieces: dict[str, Any]
) -> None:
    """Fractional rates and lengths of windows are equal to those the same settings give again, to the last bit."""
    front_end = FrontEnd(**pieces, max_frames=4096)
    grid = grid_of(front_end, window_s, None, rate_hz)
    baselines.add(replace(baseline(), front_end=front_end, rate_hz=rate_hz, grid=grid))
    read = baselines.get(KEY, None)
    assert read is not None
    assert (type(read.rate_hz), read.rate_hz, read.grid) == (type(rate_hz), rate_hz, grid)
    assert baselines.facts()[0].rate_hz == rate_hz


def test_newest_version_is_active_and_the_old_ones_stay(baselines: Baselines) -> None:
    """Versions count per channel and label; enrolling again replaces only the one of the same label."""
    for seed, label, key in ((1, None, KEY), (2, None, KEY), (3, "inner", KEY), (4, None, OTHER), (5, None, KEY)):
        baselines.add(baseline(seed, label, key))
    known = [(each.reason, each.version, each.active) for each in baselines.facts()]
    assert known == [
        ("seed 1", 1, False),
        ("seed 2", 2, False),
        ("seed 3", 1, True),
        ("seed 4", 1, True),
        ("seed 5", 3, True),
    ]
    assert [each.reason for each in baselines.active(KEY)] == ["seed 3", "seed 5"]
    assert baselines.active(ChannelKey("nobody", "x")) == []
    assert baselines.channels() == [KEY, OTHER]
    older = baselines.get(KEY, None, 2)
    assert older is not None
    assert (older.reason, older.active) == ("seed 2", False)
    assert baselines.get(KEY, None, 7) is baselines.get(KEY, "outer") is None


def test_facts_are_read_without_vectors(database: Database, baselines: Baselines) -> None:
    """A list of baselines has names, rate, windows and recordings, and reads no array of theirs."""
    baselines.add(baseline(1))
    baselines.add(baseline(2, key=OTHER, windows=9))
    said: list[str] = []
    database.connection.set_trace_callback(said.append)
    first, second = baselines.facts()
    database.connection.set_trace_callback(None)
    assert said
    assert not [statement for statement in said if "vectors" in statement or "*" in statement]
    assert (first.key, first.label, first.model_name, first.model_sha256) == (KEY, None, "nano", "a" * 64)
    assert (first.windows, second.windows) == (6, 9)
    assert first.takes == (Take("Öl 1.flac", "6205-a", 1.7e9 + 0.25, 0), Take("b.wav", state=1))
    baselines.add(baseline(3))
    assert [each.reason for each in baselines.facts(KEY)] == ["seed 1", "seed 3"]
    assert [each.reason for each in baselines.facts(active_only=True)] == ["seed 2", "seed 3"]


def test_activating_an_earlier_version_replaces_the_newer(baselines: Baselines) -> None:
    """Going back makes the earlier version the only active one; a version that is not there is named."""
    for seed in (1, 2):
        baselines.add(baseline(seed))
    baselines.add(baseline(3, "inner"))
    baselines.activate(KEY, None, 1)
    assert [each.reason for each in baselines.active(KEY)] == ["seed 1", "seed 3"]
    with pytest.raises(BadInputError, match=r"pump-1/vib-de has no version 7 of normal; it has: 1, 2"):
        baselines.activate(KEY, None, 7)
    with pytest.raises(BadInputError, match="no version 1 of outer; it has: none"):
        baselines.activate(KEY, "outer", 1)
    assert [each.reason for each in baselines.active(KEY)] == ["seed 1", "seed 3"]


def test_removing_a_label_leaves_nothing_of_it_and_all_of_the_rest(database: Database, baselines: Baselines) -> None:
    """A mistaken label goes with all its versions and their parts; removing it again says there is nothing."""
    for seed, label in ((1, None), (2, "oops"), (3, "oops")):
        baselines.add(baseline(seed, label, views=VIEWS))
    baselines.add(baseline(4, "oops", OTHER))
    assert baselines.remove(KEY, "oops") == 2
    assert [each.reason for each in baselines.facts()] == ["seed 1", "seed 4"]
    for table, rows in (("baseline_take", 4), ("baseline_state", 4), ("baseline_view", 2)):
        assert database.query(f"SELECT count(*) FROM {table}") == [(rows,)], table
    with pytest.raises(BadInputError, match="no baseline for oops"):
        baselines.remove(KEY, "oops")


def test_every_change_of_what_is_active_is_seen(baselines: Baselines) -> None:
    """Adding, activating and removing change the generation of their channel and of no other, several at once too."""
    seen = [baselines.generation()]

    def changed() -> set[tuple[str, str]]:
        seen.append(baselines.generation())
        return {(asset, channel) for asset, channel, _ in set(seen[-1]) ^ set(seen[-2])}

    assert changed() == set()
    for seed, label in ((1, None), (2, None), (3, "inner"), (4, "inner")):
        baselines.add(baseline(seed, label))
        assert changed() == {KEY}
    baselines.add(baseline(5, key=OTHER))
    assert changed() == {OTHER}
    baselines.activate(KEY, None, 1)
    assert changed() == {KEY}
    baselines.activate(KEY, None, 2)
    baselines.activate(KEY, "inner", 1)
    seen.append(baselines.generation())
    # From rows 2 and 3 to rows 1 and 4: another set with the same sum.
    baselines.activate(KEY, None, 1)
    baselines.activate(KEY, "inner", 2)
    assert changed() == {KEY}
    baselines.remove(KEY, "inner")
    assert changed() == {KEY}
    assert changed() == set()


def test_active_baseline_knows_the_newest_record_before_it(database: Database, baselines: Baselines) -> None:
    """What was recorded before a baseline became active belongs to the one before; going back to a version is new."""
    baselines.add(baseline(1))
    record = add_record(database)
    baselines.add(baseline(2))
    latest = [add_record(database) for _ in range(3)][-1]
    first, second = (baselines.get(KEY, None, version) for version in (1, 2))
    assert first is not None
    assert second is not None
    assert (first.after_record, second.after_record) == (0, record)
    baselines.activate(KEY, None, 1)
    again = baselines.get(KEY, None)
    assert again is not None
    assert (again.version, again.after_record) == (1, latest)


def test_models_in_use_are_those_of_all_versions(baselines: Baselines) -> None:
    """A model is needed while any version of a baseline was made with it."""
    for seed, sha256 in ((1, "a" * 64), (2, "b" * 64), (3, "b" * 64)):
        baselines.add(replace(baseline(seed), model_sha256=sha256))
    assert baselines.models() == {"a" * 64, "b" * 64}


def test_weights_are_kept_and_replaced_per_channel(baselines: Baselines) -> None:
    """The last weights of a channel come back as they were; None forgets them, and only them."""
    baselines.set_fusion(KEY, {"weights": [1]})
    baselines.set_fusion(OTHER, {"weights": [2]})
    baselines.set_fusion(KEY, {"weights": [3], "name": "Öl"})
    assert baselines.fusion(KEY) == {"weights": [3], "name": "Öl"}
    baselines.set_fusion(KEY, None)
    assert (baselines.fusion(KEY), baselines.fusion(OTHER)) == (None, {"weights": [2]})


def test_enrollment_is_on_the_disk_when_it_is_reported(database: Database, baselines: Baselines) -> None:
    """An enrollment survives a power cut, not only the death of the process."""
    said: list[str] = []
    database.connection.set_trace_callback(said.append)
    baselines.add(baseline())
    assert said[0] == "PRAGMA synchronous = FULL"
    assert said[-1] == "COMMIT"


def test_front_end_of_an_old_baseline_is_the_first_one() -> None:
    """A baseline that names its front-end fits that one, views aside; one that does not fits the first release's."""
    front_end = FrontEnd(top_band="pad")
    assert replace(baseline(), front_end=front_end).has_front_end(replace(front_end, views=VIEWS))
    assert not replace(baseline(), front_end=front_end).has_front_end(FrontEnd())
    old = replace(baseline(), front_end=None)
    assert old.has_front_end(FrontEnd(top_band="pad", views=VIEWS))
    assert not old.has_front_end(FrontEnd(top_band="overlap"))
    assert not old.has_front_end(FrontEnd(piece_frames=96))


def test_state_of_a_window_is_that_of_its_recording() -> None:
    """Windows of the second recording belong to the state of the second recording."""
    assert baseline().state_of_window.tolist() == [0, 0, 0, 1, 1, 1]
