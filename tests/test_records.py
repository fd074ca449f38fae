"""Records: what is written is written whole, counted and bounded; what was delivered is history."""

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judgements import AMPLE, TIME_S, change, judgement, noise, result, standing
from small_disk import fill, small_disk

from fisher_edge.decision.alarm import AlarmMachine, AlarmRule, remembered
from fisher_edge.decision.judgement import BandShare, Change, Level, Result, Standing, State
from fisher_edge.errors import BadInputError, DiskFullError, UsageError
from fisher_edge.names import ChannelKey
from fisher_edge.store.body import DamagedRowError, decode, encode
from fisher_edge.store.bounds import SMALLEST_BYTES, Limits
from fisher_edge.store.database import FREE_PAGES, LOG_BYTES, RESERVE_NAME, Database
from fisher_edge.store.records import REPLAY_AFTER_S, Records, Row
from fisher_edge.store.schema import PAGE_BYTES

PUMP = ChannelKey("pump-1", "vib-de")
FAN = ChannelKey("fan-2", "vib")
SMALL = replace(AMPLE, waiting_bytes=SMALLEST_BYTES)
NO_HISTORY = replace(AMPLE, history_bytes=0)


class Clock:
    """Time that a test sets: of the wall, and for how long the computer has run."""

    def __init__(self) -> None:
        self.now_s = TIME_S
        self.run_s = 100.0

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds
        self.run_s += seconds


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Return an open database."""
    with Database(tmp_path / "state") as opened:
        yield opened


@pytest.fixture
def records(database: Database) -> Records:
    """Return the records of a first boot."""
    return Records(database, database.new_boot(), limits=AMPLE)


def boot(database: Database, limits: Limits = AMPLE, clock: Clock | None = None) -> Records:
    """Return the records of one more start."""
    clock = clock or Clock()
    number = database.new_boot()
    return Records(database, number, limits=limits, clock=lambda: clock.now_s, running=lambda: clock.run_s)


def waiting(records: Records, kind: str = "") -> list[Row]:
    """Return all that waits, or all of a kind."""
    return [row for row in records.waiting(1_000_000) if kind in {"", row.kind}]


def seqs(records: Records, kind: str, of_boot: int | None = None) -> list[int | None]:
    """Return the waiting numbers of a kind."""
    return [row.seq for row in waiting(records, kind) if of_boot in {None, row.boot}]


def bulky(seed: int = 1, size: int = 2000) -> Result:
    """Return a result that takes half a page."""
    return result(noise(size, seed))


def on_disk(database: Database) -> int:
    """Size of the database file when the log is written into it."""
    database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return database.path.stat().st_size


def check_totals(records: Records) -> None:
    """Compare the running totals with a count of the table."""
    counted = records.database.query(
        "SELECT (SELECT count(*) FROM record WHERE status = 0) + (SELECT count(*) FROM standing WHERE status = 0),"
        " (SELECT ifnull(sum(size), 0) FROM record WHERE status <> 1),"
        " (SELECT ifnull(sum(size), 0) FROM record WHERE status = 1), (SELECT count(*) FROM record WHERE status = 2)"
        " + (SELECT count(*) FROM standing WHERE status = 2)"
    )[0]
    totals = records.totals()
    assert (totals.waiting, totals.waiting_bytes, totals.kept_bytes, totals.set_aside) == counted


def test_put_writes_result_event_and_state_of_one_window(records: Records) -> None:
    """One call writes three rows, which come back as they were with their identity."""
    assert records.put(PUMP, result=result(), change=change(), standing=standing()) == 1
    assert records.put(PUMP, result=result()) == 2
    rows = waiting(records)
    assert [(row.kind, row.key, row.boot, row.seq) for row in rows] == [
        ("result", PUMP, 1, 1),
        ("event", PUMP, 1, 1),
        ("result", PUMP, 1, 2),
        ("state", PUMP, 1, 1),
    ]
    assert [decode(row.kind, row.body) for row in rows] == [result(), change(), result(), standing()]
    check_totals(records)


def test_event_survives_a_power_cut(records: Records) -> None:
    """A change of state is flushed to the disk, a result is not: that would cost a flush a window."""
    for values, flushed in (({"change": change()}, 2), ({"result": result()}, 1), ({"change": change()}, 2)):
        records.put(PUMP, **values)
        assert records.database.query("PRAGMA synchronous") == [(flushed,)]


def test_state_without_a_result_has_no_number(records: Records) -> None:
    """A state that no window led to has no result to refer to."""
    assert records.put(PUMP, standing=standing(State.NO_DATA, judgement=None)) is None
    assert seqs(records, "state") == [None]


def test_rows_of_a_release_that_judged_by_thresholds_can_be_read() -> None:
    """What that release called threshold, ratio or p-value is left out; what both know is there."""
    level = '{"log_rms":-1.5,"z":0.5,"deviation":0.25,"threshold":0.75,"warning_threshold":0.5}'
    band = '{"low_hz":0.0,"high_hz":1000.0,"share":0.25}'
    found = (
        '{"time_s":1769851800.25,"window_s":10.24,"rate_hz":48000,"model":{"name":"nano","sha256":"ab"},'
        '"distance":0.25,"threshold":0.5,"warning_threshold":0.4,"p_value":0.04,'
        f'"bands":[{band}],"level":{level}}}'
    )
    read = decode("result", f'{{"judgement":{found},"state":"normal","unit":"g"}}'.encode())
    assert (read.state, read.judgement.distance, read.judgement.bands) == (
        State.NORMAL,
        0.25,
        (BandShare(0, 1e3, 0.25),),
    )
    assert (read.judgement.score, read.judgement.evidence, read.judgement.ratio) == (None, None, None)
    assert read.judgement.level == Level(-1.5, 0.5, 0.25)
    event = decode(
        "event",
        f'{{"time_s":1.5,"before":"normal","after":"alarm","reason":"shape at 1.50 times its threshold",'
        f'"judgement":{found}}}'.encode(),
    )
    assert event == Change(1.5, State.NORMAL, State.ALARM, "shape at 1.50 times its threshold", None, read.judgement)
    state = decode("state", f'{{"time_s":2.0,"state":"alarm","since_s":1.5,"judgement":{found},"unit":"g"}}'.encode())
    assert state == Standing(2.0, State.ALARM, 1.5, None, read.judgement, "g")
    machine = AlarmMachine(AlarmRule(), lambda: 0.0)
    machine.resume(remembered(event), event.time_s)
    assert machine.state is State.ALARM


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({"result": result(distance=float("nan"))}, r"result\.judgement\.distance is nan"),
        ({"change": change(judgement=judgement(score=float("inf")))}, r"event\.judgement\.score is inf"),
        ({"standing": standing(real_rate_hz=float("nan"))}, r"state\.real_rate_hz is nan"),
        (
            {"result": result(bands=(BandShare(0, 1, 0.5), BandShare(1, 2, float("-inf"))))},
            r"result\.judgement\.bands\[1\]\.share is -inf",
        ),
        ({"result": result(time_s=float("nan"))}, "time_s is nan"),
        ({"result": result(time_s=TIME_S * 1000)}, "time_s is 1769851800250.0, which is not a time"),
    ],
)
def test_put_refuses_what_is_no_number_and_names_it(bad: dict[str, Any], field: str, records: Records) -> None:
    """One number that is not finite and nothing of the window is written, no number is lost."""
    values: dict[str, Any] = {"result": result(), "change": change(), "standing": standing()}
    with pytest.raises(BadInputError, match=field):
        records.put(PUMP, **(values | bad))
    assert waiting(records) == []
    assert records.put(PUMP, result=result(), change=change()) == 1
    assert seqs(records, "event") == [1]


def test_names_that_break_a_topic_are_refused(records: Records) -> None:
    """What could not be published is not written."""
    with pytest.raises(BadInputError, match="channel name"):
        records.put(ChannelKey("pump-1", "a/b"), result=result())


def test_body_is_small_and_rounded() -> None:
    """Seven digits are kept, times to the millisecond, and text that is no Unicode does not stop a row."""
    value = result("recording \udcff", time_s=TIME_S + 1e-5 / 3, distance=1 / 3, rate_hz=15625 / 4)
    back = decode("result", encode({"result": value})["result"])
    assert back.judgement.distance == 0.3333333
    assert back.judgement.time_s == TIME_S
    assert back.judgement.rate_hz == 3906.25
    assert back.reason == "recording ?"
    many = tuple(BandShare(500.0 * band, 500.0 * band + 1000, 1 / (3 + band)) for band in range(48))
    assert len(encode({"result": result(bands=many)})["result"]) < 1500


def test_body_that_is_damaged_is_an_error_of_its_row() -> None:
    """Whatever stands in a body, decoding gives the value or one line."""
    whole = encode({"event": change()})["event"]
    for body in (b"", b"{", b"garbage", whole[:-3], b'{"before":"normal"}', encode({"result": result()})["result"]):
        with pytest.raises(DamagedRowError, match="event cannot be decoded"):
            decode("event", body)


def test_seq_counts_per_boot_and_kind(database: Database) -> None:
    """Results and events have their own numbers, which begin at 1 with every boot and are not given again."""
    first, second = boot(database), boot(database)
    for records, count in ((first, 3), (second, 2)):
        for _ in range(count):
            records.put(PUMP, result=result())
        records.put(PUMP, change=change())
    assert seqs(first, "result", of_boot=1) == [1, 2, 3]
    assert seqs(first, "result", of_boot=2) == [1, 2]
    assert seqs(first, "event") == [1, 1]
    first.delivered(waiting(first))
    assert second.put(PUMP, result=result()) == 3


def test_unknown_boot_is_refused(database: Database) -> None:
    """A boot number that was not taken from the database cannot number messages."""
    with pytest.raises(UsageError, match="boot=9"):
        Records(database, 9, limits=AMPLE).put(PUMP, result=result())


def test_new_state_replaces_the_waiting_one(records: Records) -> None:
    """Only the newest state of each channel waits; an acknowledgement of an older one does not count for it."""
    records.put(PUMP, result=result(), standing=standing())
    old = waiting(records, "state")
    records.put(FAN, result=result(), standing=standing())
    records.put(PUMP, result=result(), standing=standing(State.ALARM))
    records.delivered(old)
    states = [(row.key, row.seq, decode("state", row.body).state) for row in waiting(records, "state")]
    assert states == [(FAN, 2, State.NORMAL), (PUMP, 3, State.ALARM)]
    records.delivered(waiting(records))
    assert waiting(records) == []
    check_totals(records)


def test_events_and_states_are_taken_before_results(records: Records) -> None:
    """When more waits than may be sent, an alarm does not queue behind the results; each kind keeps its order."""
    for _ in range(5):
        records.put(PUMP, result=result(), standing=standing())
    records.put(PUMP, result=result(), change=change(), standing=standing(State.ALARM))
    assert [(row.kind, row.seq) for row in records.waiting(3)] == [("result", 1), ("event", 1), ("state", 6)]
    assert [row.kind for row in records.waiting(1)] == ["event"]
    sent = records.waiting(3)
    assert [(row.kind, row.seq) for row in records.waiting(2, sent)] == [("result", 2), ("result", 3)]
    assert len(records.waiting(100, sent)) == 5


def test_delivered_twice_is_harmless(records: Records) -> None:
    """An acknowledgement for rows that are done changes nothing."""
    records.put(PUMP, result=result(), standing=standing())
    rows = waiting(records)
    records.delivered(rows[:1])
    records.delivered(rows[:1])
    assert records.totals().waiting == 1
    check_totals(records)


def test_row_is_late_after_an_earlier_boot_or_a_wait(database: Database) -> None:
    """A row is a replay when an earlier boot wrote it or when it waited for more than a few seconds."""
    clock = Clock()
    boot(database, clock=clock).put(PUMP, result=result())
    records = boot(database, clock=clock)
    records.put(PUMP, result=result())
    earlier, present = waiting(records)
    assert records.is_late(earlier)
    clock.wait(REPLAY_AFTER_S)
    assert not records.is_late(present)
    clock.now_s += 1e9  # the clock is set
    assert not records.is_late(present)
    clock.wait(0.1)
    assert records.is_late(present)


def test_oldest_age_is_that_of_the_oldest_row_of_any_kind(database: Database) -> None:
    """The age is that of the first row, and zero when nothing waits."""
    clock = Clock()
    records = boot(database, clock=clock)
    assert records.oldest_age_s() == 0.0
    for writes in ({"standing": standing()}, {"change": change()}, {"result": result()}):
        records.put(PUMP, **writes)
        clock.wait(30.0)
        assert records.oldest_age_s() == 30.0
        records.put(PUMP, result=result(), change=change())
        records.delivered(waiting(records))
    assert records.oldest_age_s() == 0.0


def test_full_outbox_drops_oldest_results_and_keeps_events(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Over the byte limit the oldest results go, counted; events and the state stay; one warning, one all-clear."""
    caplog.set_level(logging.INFO)
    records = boot(database, SMALL)
    for _ in range(5):
        records.put(PUMP, change=change())
    for number in range(100):
        records.put(PUMP, result=bulky(number), standing=standing())
        assert records.totals().waiting_bytes <= SMALLEST_BYTES
    left = seqs(records, "result")
    assert left == list(range(101 - len(left), 101))
    assert len(left) > 20
    assert seqs(records, "event") == [1, 2, 3, 4, 5]
    assert seqs(records, "state") == [100]
    totals = records.totals()
    assert (totals.dropped_results, totals.dropped_events) == (100 - len(left), 0)
    assert len(caplog.records) == 1
    assert "over its limit of 0.1 MB" in caplog.text
    records.delivered(waiting(records))
    for _ in range(2):
        records.put(PUMP, result=result())
    assert len(caplog.records) == 2
    assert f"dropped since the database began: {totals.dropped}" in caplog.text
    check_totals(records)


def test_dropped_count_survives_a_restart(tmp_path: Path) -> None:
    """The number of dropped messages is kept in the database."""
    with Database(tmp_path) as database:
        records = boot(database, SMALL)
        for number in range(50):
            records.put(PUMP, result=bulky(number))
        dropped = records.totals().dropped
    with Database(tmp_path) as database:
        assert boot(database).totals().dropped_results == dropped > 0


def test_events_alone_are_bounded_too(database: Database) -> None:
    """When only events are left the oldest of them go; a new result finds no room and is counted as dropped."""
    records = boot(database, SMALL)
    for number in range(60):
        records.put(PUMP, change=change(State.NO_DATA, noise(2000, number)))
    left = seqs(records, "event")
    assert left == list(range(61 - len(left), 61))
    assert records.totals().dropped_events == 60 - len(left) > 0
    records.put(PUMP, result=bulky())
    assert seqs(records, "result") == []
    assert records.totals().dropped_results == 1
    assert records.totals().waiting_bytes <= SMALLEST_BYTES


def test_event_that_a_restart_resumes_from_is_never_dropped(database: Database) -> None:
    """However many follow, the last event into normal, warning or alarm of a channel stays."""
    records = boot(database, replace(SMALL, history_bytes=0))
    records.put(FAN, change=change(State.WARNING))
    records.put(PUMP, change=change(State.NORMAL))
    records.put(PUMP, change=change(State.ALARM))
    records.delivered(waiting(records)[:1])
    for number in range(60):
        records.put(PUMP, change=change(State.NO_DATA, noise(2000, number)))
    assert records.totals().dropped_events > 20
    for key, state in ((PUMP, State.ALARM), (FAN, State.WARNING)):
        last = records.last_change(key, judged=True)
        assert last is not None
        assert last.value.after is state


def test_old_results_are_dropped_and_events_are_not(database: Database) -> None:
    """Results go when the gateway has run for longer than the limit since, the events of the same time stay."""
    clock = Clock()
    boot(database, clock=clock).put(PUMP, result=result(), change=change())
    records = boot(database, replace(AMPLE, waiting_s=3600.0), clock)
    clock.wait(3599.0)
    records.put(PUMP, result=result())
    assert seqs(records, "result", of_boot=1) == [1]
    clock.wait(2.0)
    records.put(PUMP, result=result())
    assert seqs(records, "result", of_boot=1) == []
    assert seqs(records, "result", of_boot=2) == [1, 2]
    assert seqs(records, "event") == [1]
    assert records.totals().dropped_results == 1


def test_clock_that_is_set_ages_nothing(database: Database) -> None:
    """Without a clock battery a boot begins in 1970: neither setting the clock nor the next start drops its rows."""
    clock = Clock()
    clock.now_s = 1000.0
    limits = replace(AMPLE, waiting_s=3600.0, history_s=3600.0)
    before_ntp = boot(database, limits, clock)
    before_ntp.put(PUMP, result=result())
    before_ntp.delivered(waiting(before_ntp))
    before_ntp.put(PUMP, result=result())
    clock.now_s = TIME_S
    before_ntp.put(PUMP, result=result())
    clock.run_s = 5.0  # the computer starts again
    records = boot(database, limits, clock)
    records.put(PUMP, result=result())
    assert [(row.boot, row.seq) for row in waiting(records)] == [(1, 2), (1, 3), (2, 1)]
    assert len(records.history(PUMP, "result")) == 4


def test_running_time_adds_up_over_boots(database: Database) -> None:
    """Three starts of half an hour make a row old, whatever the clock of the computer counts from."""
    limits = replace(AMPLE, waiting_s=5000.0)
    for number, start_s in enumerate((100.0, 7.0, 1e6)):
        clock = Clock()
        clock.run_s = start_s
        records = boot(database, limits, clock)
        records.put(PUMP, result=result())
        clock.wait(1800.0)
        records.put(FAN, result=result()) if number else records.put(FAN, standing=standing())
        assert (1 in seqs(records, "result", of_boot=1)) == (number < 2)


def test_history_is_bounded_in_bytes_oldest_first(database: Database) -> None:
    """Delivered rows stay until the history is full, then the oldest go; what waits is not touched."""
    records = boot(database, replace(AMPLE, history_bytes=SMALLEST_BYTES))
    records.put(FAN, result=bulky())
    for number in range(100):
        records.put(PUMP, result=bulky(number))
        records.delivered([row for row in waiting(records) if row.key == PUMP])
        assert records.totals().kept_bytes <= SMALLEST_BYTES
    kept = [each.seq for each in records.history(PUMP, "result")]
    assert kept == list(range(102 - len(kept), 102))
    assert len(kept) > 20
    assert seqs(records, "result") == [1]
    assert records.totals().dropped == 0
    check_totals(records)


def test_history_is_bounded_in_time(database: Database) -> None:
    """Delivered rows go when the gateway has run for longer than the limit since."""
    clock = Clock()
    records = boot(database, replace(AMPLE, history_s=3600.0), clock)
    records.put(PUMP, result=result(), change=change(State.NO_DATA))
    records.delivered(waiting(records))
    clock.wait(3599.0)
    records.put(PUMP, result=result())
    assert [each.seq for each in records.history(PUMP, "result")] == [1, 2]
    clock.wait(2.0)
    records.put(PUMP, result=result())
    assert [each.seq for each in records.history(PUMP, "result")] == [2, 3]
    assert records.history(PUMP, "event") == []


def test_lowered_limit_deletes_a_limited_number_at_once(database: Database) -> None:
    """A history far over its limit is not deleted in one long transaction, but call by call."""
    records = boot(database)
    with database.transaction():
        for _ in range(600):
            records.put(PUMP, result=result())
    records.delivered(waiting(records))
    lowered = boot(database, NO_HISTORY)
    sizes = []
    for _ in range(3):
        lowered.put(PUMP, standing=standing())
        sizes.append(len(lowered.history(PUMP, "result")))
    assert sizes == [600 - 64, 600 - 128, 600 - 192]


def test_history_returns_the_newest_in_order(records: Records) -> None:
    """History has what waits and what was delivered, of one channel and kind, newest last, from a time on."""
    for number in range(6):
        records.put(PUMP, result=result(time_s=TIME_S + number), change=change(time_s=TIME_S + number))
        records.put(FAN, result=result())
    records.delivered(waiting(records)[:5])
    assert [each.value.judgement.time_s - TIME_S for each in records.history(PUMP, "result")] == [0, 1, 2, 3, 4, 5]
    newest = records.history(PUMP, "event", limit=2)
    assert [(each.boot, each.seq, each.value) for each in newest] == [
        (1, 5, change(time_s=TIME_S + 4)),
        (1, 6, change(time_s=TIME_S + 5)),
    ]
    assert [each.seq for each in records.history(PUMP, "event", since_s=TIME_S + 4)] == [5, 6]
    assert newest[0].id < newest[1].id


def test_last_change_is_the_newest_or_the_newest_judged(records: Records) -> None:
    """A loss of data does not hide the alarm before it."""
    assert records.last_change(PUMP) is None
    records.put(PUMP, change=change(State.ALARM))
    records.put(PUMP, change=change(State.NO_DATA))
    records.put(FAN, change=change(State.NORMAL))
    last, judged = records.last_change(PUMP), records.last_change(PUMP, judged=True)
    assert last is not None
    assert judged is not None
    assert (last.seq, last.value.after) == (2, State.NO_DATA)
    assert (judged.seq, judged.value.after) == (1, State.ALARM)
    assert judged.id < last.id


def test_damaged_row_is_left_out_of_the_history(records: Records) -> None:
    """One body that cannot be read hides no other."""
    for _ in range(3):
        records.put(PUMP, result=result(), change=change())
    records.database.query("UPDATE record SET body = x'00' WHERE seq = 3")
    assert [each.seq for each in records.history(PUMP, "result")] == [1, 2]
    last = records.last_change(PUMP)
    assert last is not None
    assert last.seq == 2


def test_set_aside_rows_are_kept_counted_and_can_be_sent_again(records: Records) -> None:
    """A row that is set aside is not sent, until it is asked for; then it has its place in the order again."""
    for _ in range(4):
        records.put(PUMP, result=result(), standing=standing())
    _, second, third, *_ = waiting(records, "result")
    records.set_aside(second, "too large")
    records.set_aside(third, "too large")
    records.set_aside(third, "twice")
    assert seqs(records, "result") == [1, 4]
    assert records.totals().set_aside == 2
    check_totals(records)
    aside = records.set_aside_rows()
    assert [(each.row, each.reason) for each in aside] == [(second, "too large"), (third, "too large")]
    assert records.set_aside_rows(1) == aside[:1]
    assert records.send_again([second.id]) == 1
    assert seqs(records, "result") == [1, 2, 4]
    assert records.delete_set_aside() == 1
    assert records.send_again() == 0
    assert records.set_aside_rows() == []
    check_totals(records)


def test_set_aside_state_is_not_renewed_but_replaced(records: Records) -> None:
    """A state that the broker refuses is not sent with every connection; the next one is tried."""
    records.put(PUMP, standing=standing())
    records.set_aside(waiting(records)[0], "too large")
    records.renew_states()
    assert waiting(records) == []
    assert records.totals().set_aside == 1
    records.put(PUMP, standing=standing())
    assert len(waiting(records)) == 1
    assert records.totals().set_aside == 0


def test_what_is_set_aside_is_dropped_first(database: Database) -> None:
    """Rows that the broker refuses take no room from those it may take."""
    records = boot(database, SMALL)
    for number in range(10):
        records.put(PUMP, result=bulky(number), change=change())
    for row in waiting(records)[4:8]:
        records.set_aside(row, "refused")
    for number in range(30):
        records.put(PUMP, result=bulky(number))
    totals = records.totals()
    assert totals.set_aside == 0
    assert (totals.dropped_results, totals.dropped_events) == (40 - len(seqs(records, "result")), 2)
    check_totals(records)


def test_renewed_states_wait_again(database: Database) -> None:
    """The latest state of each channel can be sent with every connection, also that of an earlier boot."""
    boot(database).put(PUMP, standing=standing(State.ALARM))
    records = boot(database)
    records.put(FAN, standing=standing())
    records.delivered(waiting(records))
    assert waiting(records) == []
    records.renew_states()
    rows = waiting(records)
    assert [(row.key, row.boot, records.is_late(row)) for row in rows] == [(PUMP, 1, True), (FAN, 2, False)]


def test_states_of_retired_channels_become_empty_until_delivered(records: Records) -> None:
    """A channel that is not configured any more gets one empty state, which clears the retained one."""
    records.put(PUMP, standing=standing())
    records.put(FAN, standing=standing())
    records.delivered(waiting(records))
    assert records.retire({PUMP}) == [FAN]
    assert records.retire({PUMP}) == []
    assert [(row.key, row.body) for row in waiting(records)] == [(FAN, b"")]
    records.delivered(waiting(records))
    records.renew_states()
    assert [row.key for row in waiting(records)] == [PUMP]
    records.put(FAN, standing=standing())
    assert len(waiting(records)) == 2


def test_byte_limit_below_a_few_rows_is_refused() -> None:
    """A limit that no message fits in is an error, not a silent loss."""
    with pytest.raises(UsageError, match="waiting_bytes=100"):
        replace(AMPLE, waiting_bytes=100)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from([PUMP, FAN]), st.integers(1, 7), st.integers(0, 12_000)),
        st.tuples(st.sampled_from(["deliver", "aside"]), st.integers(0, 10), st.integers(0, 30), st.just(0)),
        st.tuples(st.sampled_from(["again", "renew"]), st.just(0), st.just(0), st.just(0)),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=25, deadline=None)
@given(operations=OPERATIONS)
def test_totals_stay_in_step_whatever_happens(
    operations: list[tuple[str, Any, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """After any sequence of calls the totals match the table, the limits hold and no number is missing."""
    limits = replace(SMALL, history_bytes=SMALLEST_BYTES)
    with Database(tmp_path_factory.mktemp("records")) as database:
        records = boot(database, limits)
        written = {"result": 0, "event": 0}
        for operation, where, what, size in operations:
            match operation:
                case "put":
                    text = noise(size)
                    values: dict[str, Any] = {"result": result(text), "change": change(State.NO_DATA, text)}
                    chosen = {name: value for bit, (name, value) in enumerate(values.items()) if what & 1 << bit}
                    records.put(where, **chosen, standing=standing() if what & 4 else None)
                    written["result"] += what & 1
                    written["event"] += what >> 1 & 1
                case "deliver":
                    records.delivered(waiting(records)[where : where + what])
                case "aside":
                    for row in waiting(records)[where : where + what]:
                        records.set_aside(row, "a test")
                case "again":
                    records.send_again()
                case _:
                    records.renew_states()
            check_totals(records)
            assert records.totals().waiting_bytes <= SMALLEST_BYTES
            assert records.totals().kept_bytes <= SMALLEST_BYTES
        assert database.query("SELECT result_seq, event_seq FROM boot") == [(written["result"], written["event"])]


def test_writers_in_two_threads_share_the_numbers(tmp_path: Path) -> None:
    """Two connections of one boot give every number once and in the order of the rows."""
    with Database(tmp_path) as database:
        number = database.new_boot()

        def write() -> None:
            with Database(tmp_path) as own:
                records = Records(own, number, limits=AMPLE)
                for _ in range(100):
                    records.put(PUMP, result=result(), standing=standing())

        threads = [threading.Thread(target=write) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        records = Records(database, number, limits=AMPLE)
        assert seqs(records, "result") == list(range(1, 201))
        check_totals(records)


@pytest.mark.parametrize("size", [1, 1000, 3400, 5000, 25_000])
def test_counted_bytes_are_those_on_disk(size: int, database: Database) -> None:
    """What is counted is within a fifth of the growth of the file, for rows from small to several pages."""
    records = boot(database)
    before = on_disk(database)
    with database.transaction():
        for number in range(500):
            key = ChannelKey(f"pump-{number % 8}", "vib-de")
            records.put(key, result=result(noise(size, number), distance=number / 7), standing=standing())
    growth = on_disk(database) - before
    assert 0.8 < records.totals().waiting_bytes / growth < 1.2


def test_filled_database_shrinks_when_it_is_drained(database: Database) -> None:
    """A file that was filled to its limit becomes small when everything is delivered, and so does its log."""
    limits = Limits(waiting_bytes=8 << 20, waiting_s=1e9, history_bytes=0, history_s=1e9)
    records = boot(database, limits)
    while not records.totals().dropped:
        with database.transaction():
            for number in range(50):
                records.put(PUMP, result=bulky(number, 6000))
    assert on_disk(database) > 7 << 20
    while rows := records.waiting(50):
        records.delivered(rows)
    for _ in range(150):
        records.put(PUMP, standing=standing())
    log = database.path.with_name(database.path.name + "-wal")
    assert log.stat().st_size <= LOG_BYTES + (LOG_BYTES >> 1)
    assert on_disk(database) < 3 * FREE_PAGES * PAGE_BYTES


def small_pages(database: Database) -> None:
    """Let the file grow by a few pages only: a disk that is full as far as SQLite can see."""
    (pages,) = database.query("PRAGMA page_count")[0]
    database.query(f"PRAGMA max_page_count = {pages + 20}")


def test_full_disk_is_an_error_that_leaves_nothing_half_written(records: Records) -> None:
    """When no row can make room `put` says so and writes nothing; with room again it goes on with the next number."""
    small_pages(records.database)

    def fill_up() -> None:
        for number in range(1000):
            records.put(PUMP, result=bulky(number), change=change(reason=noise(2000, number)), standing=standing())

    with pytest.raises(DiskFullError, match="the disk is full"):
        fill_up()
    written = len(seqs(records, "result"))
    check_totals(records)
    assert seqs(records, "event") == seqs(records, "result") == list(range(1, written + 1))
    records.database.query(f"PRAGMA max_page_count = {2**30}")
    assert records.put(PUMP, result=result()) == written + 1


def fill_with(records: Records, until: Callable[[], bool], first: int = 0) -> int:
    """Write windows until something holds; return how many."""
    number = first
    while not until():
        number += 1
        records.put(PUMP, result=bulky(number), standing=standing())
        assert number < first + 10_000
    return number


def test_outbox_that_fills_the_disk_drops_results_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With limits larger than the disk the oldest results make place, events stay, and all of it can be delivered."""
    with small_disk(tmp_path / "disk") as folder, Database(folder) as database:
        records = boot(database)
        records.put(PUMP, change=change())
        fill_with(records, lambda: records.totals().dropped >= 300)
        assert "the disk is nearly full: dropping the oldest results" in caplog.text
        assert (folder / RESERVE_NAME).exists()
        left = seqs(records, "result")
        assert left == list(range(left[0] or 0, (left[-1] or 0) + 1))
        assert len(left) > 50
        assert seqs(records, "event") == [1]
        while rows := records.waiting(20):
            records.delivered(rows)
        check_totals(records)


def test_disk_that_others_fill_stops_neither_delivery_nor_a_restart(tmp_path: Path) -> None:
    """On a disk without a free byte rows are delivered, written in the place of others, and found by the next start."""
    with small_disk(tmp_path / "disk", 6) as folder:
        with Database(folder) as database:
            records = boot(database)
            fill_with(records, lambda: records.totals().waiting >= 200)
            hog = fill(folder)
            before = seqs(records, "result")
            for number in range(300):
                records.put(PUMP, result=bulky(number), standing=standing())
                records.delivered(records.waiting(2))
            check_totals(records)
            assert seqs(records, "result")[-1] == (before[-1] or 0) + 300
            fill(folder)
        with Database(folder, check=True) as database:
            again = boot(database)
            assert again.put(PUMP, result=bulky()) == 1
            while rows := again.waiting(20):
                again.delivered(rows)
            check_totals(again)
            hog.unlink()
            again.put(PUMP, result=bulky())
            assert (folder / RESERVE_NAME).exists()


def test_reserve_lets_a_gateway_start_and_deliver_on_a_full_disk(tmp_path: Path) -> None:
    """What a running gateway holds back is enough to open the database, and to deliver with an empty log."""
    with small_disk(tmp_path / "disk", 6) as folder:
        with Database(folder) as database:
            records = boot(database)
            fill_with(records, lambda: records.totals().waiting >= 200)
            assert (folder / RESERVE_NAME).exists()
        for open_first in (True, False):
            hog = None if open_first else fill(folder)
            with Database(folder) as database:
                hog = hog or fill(folder)
                records = Records(database, 1, limits=AMPLE)
                for _ in range(4):
                    records.delivered(records.waiting(20))
                assert not (folder / RESERVE_NAME).exists()
                check_totals(records)
                hog.unlink()
                records.put(PUMP, result=result())
                assert (folder / RESERVE_NAME).exists()


def test_start_on_a_full_disk_says_so_in_one_line(tmp_path: Path) -> None:
    """A first start without any room says that the disk is full, and never to move a database aside."""
    with small_disk(tmp_path / "disk") as folder:
        fill(folder)
        with pytest.raises(DiskFullError, match="the disk is full") as caught, Database(folder / "state"):
            pass
        assert "\n" not in str(caught.value)
        assert "aside" not in str(caught.value)


def test_lock_that_is_held_too_long_is_an_error(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that another program blocks fails with what to do, and nothing is written."""
    records.database.query("PRAGMA busy_timeout = 10")
    with sqlite3.connect(records.database.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Exception, match="another program holds it"):
            records.put(PUMP, result=result())
        other.execute("ROLLBACK")
    other.close()
    assert records.put(PUMP, result=result()) == 1


def test_values_round_trip() -> None:
    """Every kind of value comes back from its body as it was written."""
    values: list[tuple[Any, Any]] = [
        ("result", result()),
        (
            "result",
            Result(judgement(distrust="flat line", level=None, nearest=None), State.CHECK_FUNCTION, "g", "x", 3),
        ),
        ("event", Change(TIME_S, State.NORMAL, State.NO_DATA, "no data for 10 s")),
        ("state", Standing(TIME_S, State.NO_DATA, TIME_S, "no data", gaps=3, dropped=2, real_rate_hz=47990.5)),
    ]
    for kind, value in values:
        assert decode(kind, encode({kind: value})[kind]) == value
