"""The outbox: what is written is written whole, counted, bounded, and survives the death of the writer."""

import json
import logging
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fisher_edge.errors import BadInputError, StateError, UsageError
from fisher_edge.publish.message import Topics
from fisher_edge.publish.outbox import REPLAY_AFTER_S, SIZE, SMALLEST_BYTES, Outbox, Row
from fisher_edge.store import Store

TOPICS = Topics("fisher-edge", "line-3")
RESULT = {"time": "2026-01-31T09:30:00.250Z", "state": "normal", "distance": 0.25}
EVENT = {"time": "2026-01-31T09:30:00.250Z", "before": "normal", "after": "alarm"}
STATE = {"time": "2026-01-31T09:30:00.250Z", "state": "normal"}
BULKY = {"features": {"padding": "x" * 1000}}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return an open store."""
    with Store(tmp_path) as opened:
        yield opened


@pytest.fixture
def outbox(store: Store) -> Outbox:
    """Return an outbox of a first boot."""
    return Outbox(store, TOPICS, store.new_boot())


def rows(outbox: Outbox) -> list[Row]:
    """Return all that waits."""
    return outbox.next_rows(0, 1_000_000)


def seqs(outbox: Outbox, kind: str, boot: int | None = None) -> list[int | None]:
    """Return the waiting numbers of a kind."""
    return [row.seq for row in rows(outbox) if row.kind == kind and boot in {None, row.boot}]


def fields(row: Row) -> dict[str, Any]:
    """Return the message of a row."""
    decoded: dict[str, Any] = json.loads(row.payload)
    return decoded


def check_totals(outbox: Outbox) -> None:
    """Compare the running totals with a count of the table."""
    counted = outbox.store.query(f"SELECT count(*), ifnull(sum({SIZE}), 0) FROM outbox")[0]
    totals = outbox.totals()
    assert (totals.waiting, totals.bytes) == counted


def test_put_writes_result_event_and_state_of_one_window(outbox: Outbox) -> None:
    """One call writes three rows in the order result, event, state, each with its topic and identity."""
    assert outbox.put("pump-1", "vib-de", result=RESULT, event=EVENT, state=STATE) == 1
    assert outbox.put("pump-1", "vib-de", result=RESULT) == 2
    waiting = rows(outbox)
    assert [(row.kind, row.seq, bool(row.retain)) for row in waiting] == [
        ("result", 1, False),
        ("event", 1, False),
        ("state", 1, True),
        ("result", 2, False),
    ]
    assert waiting[0].topic == "fisher-edge/line-3/pump-1/vib-de/result"
    assert fields(waiting[0]) == {
        "schema": "fisher-edge/result/1",
        "gateway": "line-3",
        "asset": "pump-1",
        "channel": "vib-de",
        "boot": 1,
        "seq": 1,
        **RESULT,
    }
    assert fields(waiting[2])["seq"] == 1


def test_put_keeps_the_event_in_the_store(outbox: Outbox) -> None:
    """The event table has the message with the time of the event."""
    outbox.put_event("pump-1", "vib-de", EVENT)
    asset, channel, time_s, payload = outbox.store.query("SELECT asset, channel, time_s, payload FROM event")[0]
    assert (asset, channel, time_s) == ("pump-1", "vib-de", 1769851800.25)
    assert json.loads(payload) == fields(rows(outbox)[0])


def test_put_is_all_or_nothing(outbox: Outbox) -> None:
    """When one of the three cannot be written none is, and no number is lost."""
    with pytest.raises(BadInputError, match=r"state\.distance"):
        outbox.put("pump-1", "vib-de", result=RESULT, event=EVENT, state={"distance": float("nan")})
    assert rows(outbox) == []
    assert outbox.store.query("SELECT count(*) FROM event") == [(0,)]
    assert outbox.put("pump-1", "vib-de", result=RESULT, event=EVENT) == 1
    assert seqs(outbox, "event") == [1]


def test_seq_counts_per_boot_and_kind(store: Store) -> None:
    """Results and events have their own numbers, which begin at 1 with every boot."""
    first = Outbox(store, TOPICS, store.new_boot())
    second = Outbox(store, TOPICS, store.new_boot())
    for outbox, count in ((first, 3), (second, 2)):
        for _ in range(count):
            outbox.put_result("pump-1", "vib-de", RESULT)
        outbox.put_event("pump-1", "vib-de", EVENT)
    assert seqs(first, "result", boot=1) == [1, 2, 3]
    assert seqs(first, "result", boot=2) == [1, 2]
    assert seqs(first, "event") == [1, 1]


def test_seq_goes_on_after_delivery(outbox: Outbox) -> None:
    """Numbers of rows that were delivered are not given again."""
    outbox.put_result("pump-1", "vib-de", RESULT)
    outbox.delete([row.id for row in rows(outbox)])
    assert outbox.put_result("pump-1", "vib-de", RESULT) == 2


def test_unknown_boot_is_refused(store: Store) -> None:
    """A boot number that was not taken from the store cannot number messages."""
    with pytest.raises(UsageError, match="boot=9"):
        Outbox(store, TOPICS, 9).put_result("pump-1", "vib-de", RESULT)


def test_new_state_replaces_the_waiting_one(outbox: Outbox) -> None:
    """Of each channel only the newest state waits, in its place in the order; a state without result has no number."""
    outbox.put("pump-1", "vib-de", result=RESULT, state=STATE)
    outbox.put("pump-1", "vib-nde", result=RESULT, state=STATE)
    outbox.put("pump-1", "vib-de", result=RESULT, state=STATE)
    outbox.put_state("pump-1", "vib-nde", {"state": "no_data"})
    states = [(row.topic.split("/")[-2], row.seq, fields(row)["state"]) for row in rows(outbox) if row.kind == "state"]
    assert states == [("vib-de", 3, "normal"), ("vib-nde", None, "no_data")]
    assert [row.kind for row in rows(outbox)] == ["result", "result", "result", "state", "state"]
    check_totals(outbox)


def test_next_rows_pages_in_order(outbox: Outbox) -> None:
    """Reading goes on after an id, oldest first."""
    for _ in range(5):
        outbox.put_result("pump-1", "vib-de", RESULT)
    first = outbox.next_rows(0, 2)
    rest = outbox.next_rows(first[-1].id, 10)
    assert [row.seq for row in first] == [1, 2]
    assert [row.seq for row in rest] == [3, 4, 5]


def test_delete_twice_is_harmless(outbox: Outbox) -> None:
    """An acknowledgement for a row that is gone changes nothing."""
    outbox.put("pump-1", "vib-de", result=RESULT, state=STATE)
    first = rows(outbox)[0].id
    outbox.delete([first])
    outbox.delete([first, 12345])
    assert outbox.depth() == 1
    check_totals(outbox)


def test_is_late_after_an_earlier_boot_or_a_wait(store: Store) -> None:
    """A row is a replay when an earlier boot wrote it or when it waited for more than a few seconds."""
    now_s = 1000.0
    old = Outbox(store, TOPICS, store.new_boot(), clock=lambda: now_s)
    old.put_result("pump-1", "vib-de", RESULT)
    outbox = Outbox(store, TOPICS, store.new_boot(), clock=lambda: now_s)
    outbox.put_result("pump-1", "vib-de", RESULT)
    earlier, present = rows(outbox)
    assert outbox.is_late(earlier)
    now_s += REPLAY_AFTER_S
    assert not outbox.is_late(present)
    now_s += 0.1
    assert outbox.is_late(present)


def test_oldest_age(store: Store) -> None:
    """The age is that of the first row, and zero when nothing waits."""
    now_s = 1000.0
    outbox = Outbox(store, TOPICS, store.new_boot(), clock=lambda: now_s)
    assert outbox.oldest_age_s() == 0.0
    outbox.put_result("pump-1", "vib-de", RESULT)
    now_s += 30.0
    outbox.put_result("pump-1", "vib-de", RESULT)
    assert outbox.oldest_age_s() == 30.0


def test_full_outbox_drops_oldest_results_and_keeps_events(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Over the byte limit the oldest results go, counted; events and the states stay; one warning, one all-clear."""
    caplog.set_level(logging.INFO)
    outbox = Outbox(store, TOPICS, store.new_boot(), max_bytes=SMALLEST_BYTES)
    for _ in range(10):
        outbox.put_event("pump-1", "vib-de", EVENT)
    for _ in range(200):
        outbox.put("pump-1", "vib-de", result=BULKY, state=STATE)
    totals = outbox.totals()
    left = seqs(outbox, "result")
    assert totals.bytes <= SMALLEST_BYTES
    assert left == list(range(201 - len(left), 201))
    assert len(left) > 30
    assert seqs(outbox, "event") == list(range(1, 11))
    assert seqs(outbox, "state") == [200]
    assert (totals.dropped_results, totals.dropped_events, totals.dropped_states) == (200 - len(left), 0, 0)
    assert len(caplog.records) == 1
    assert "dropping the oldest results" in caplog.text
    outbox.delete([row.id for row in rows(outbox)])
    outbox.put_result("pump-1", "vib-de", RESULT)
    outbox.put_result("pump-1", "vib-de", RESULT)
    assert len(caplog.records) == 2
    assert f"dropped since the database began: {totals.dropped}" in caplog.text
    check_totals(outbox)


def test_dropped_count_survives_a_restart(tmp_path: Path) -> None:
    """The number of dropped messages is kept in the database."""
    with Store(tmp_path) as store:
        outbox = Outbox(store, TOPICS, store.new_boot(), max_bytes=SMALLEST_BYTES)
        for _ in range(100):
            outbox.put_result("pump-1", "vib-de", BULKY)
        dropped = outbox.totals().dropped
    with Store(tmp_path) as store:
        assert dropped > 0
        assert Outbox(store, TOPICS, store.new_boot()).totals().dropped_results == dropped


def test_events_alone_are_bounded_too(store: Store) -> None:
    """When only events are left the oldest of them go; a new result finds no room and is counted as dropped."""
    outbox = Outbox(store, TOPICS, store.new_boot(), max_bytes=SMALLEST_BYTES)
    for _ in range(100):
        outbox.put_event("pump-1", "vib-de", {**EVENT, **BULKY})
    left = seqs(outbox, "event")
    assert left[-1] == 100
    assert outbox.totals().dropped_events == 100 - len(left) > 0
    outbox.put_result("pump-1", "vib-de", BULKY)
    assert seqs(outbox, "result") == []
    assert outbox.totals().dropped_results == 1
    assert outbox.totals().bytes <= SMALLEST_BYTES


def test_old_results_are_dropped_and_events_are_not(store: Store) -> None:
    """Results of an earlier boot go when they are too old, the events of the same time stay."""
    now_s = 1000.0
    first = Outbox(store, TOPICS, store.new_boot(), clock=lambda: now_s)
    first.put("pump-1", "vib-de", result=RESULT, event=EVENT)
    second = Outbox(store, TOPICS, store.new_boot(), max_age_s=3600.0, clock=lambda: now_s)
    now_s += 3599.0
    second.put_result("pump-1", "vib-de", RESULT)
    assert seqs(second, "result", boot=1) == [1]
    now_s += 2.0
    second.put_result("pump-1", "vib-de", RESULT)
    assert seqs(second, "result", boot=1) == []
    assert seqs(second, "result", boot=2) == [1, 2]
    assert seqs(second, "event") == [1]
    assert second.totals().dropped_results == 1


def test_clock_that_is_set_after_the_start_ages_nothing(store: Store) -> None:
    """Results written before the clock was right are no older than the boot that wrote them."""
    now_s = 1000.0
    outbox = Outbox(store, TOPICS, store.new_boot(), max_age_s=3600.0, clock=lambda: now_s)
    outbox.put_result("pump-1", "vib-de", RESULT)
    now_s = 1.8e9
    outbox.put_result("pump-1", "vib-de", RESULT)
    assert seqs(outbox, "result") == [1, 2]


def test_age_limit_drops_results_of_a_long_boot(store: Store) -> None:
    """In a boot that has lasted longer than the limit, old results go as well."""
    now_s = 1000.0
    outbox = Outbox(store, TOPICS, store.new_boot(), max_age_s=3600.0, clock=lambda: now_s)
    outbox.put_result("pump-1", "vib-de", RESULT)
    now_s += 4000.0
    outbox._started_s -= 4000.0
    outbox.put_result("pump-1", "vib-de", RESULT)
    assert seqs(outbox, "result") == [2]


def test_byte_limit_below_a_few_rows_is_refused(store: Store) -> None:
    """A limit that no message fits in is an error, not a silent loss."""
    with pytest.raises(UsageError, match="max_bytes=100"):
        Outbox(store, TOPICS, 1, max_bytes=100)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(["pump-1", "fan-2"]), st.integers(1, 7), st.integers(0, 12_000)),
        st.tuples(st.just("delete"), st.integers(0, 10), st.integers(0, 30), st.just(0)),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(operations=OPERATIONS)
def test_totals_stay_in_step_whatever_happens(
    operations: list[tuple[str, Any, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """After any sequence of calls the totals match the table, the limit holds and no number is missing."""
    with Store(tmp_path_factory.mktemp("outbox")) as store:
        outbox = Outbox(store, TOPICS, store.new_boot(), max_bytes=SMALLEST_BYTES)
        written = delivered = withdrawn = 0
        for operation, where, what, size in operations:
            before = outbox.totals()
            if operation == "put":
                states = len(seqs(outbox, "state"))
                message = {"time": "2026-01-31T09:30:00.250Z", "padding": "x" * size}
                kinds = {kind: message for bit, kind in enumerate(("result", "event", "state")) if what & 1 << bit}
                outbox.put(where, "vib", **kinds)
                written += len(kinds)
                if "state" in kinds:
                    dropped = outbox.totals().dropped_states - before.dropped_states
                    withdrawn += states + 1 - dropped - len(seqs(outbox, "state"))
            else:
                doomed = [row.id for row in rows(outbox)[where : where + what]]
                outbox.delete(doomed)
                delivered += len(doomed)
            check_totals(outbox)
            assert outbox.totals().bytes <= SMALLEST_BYTES
        totals = outbox.totals()
        assert written == totals.waiting + totals.dropped + delivered + withdrawn
        for kind in ("result", "event"):
            last = store.query(f"SELECT {kind}_seq FROM boot")[0][0]
            assert last == sum(
                1 for op, _, what, _ in operations if op == "put" and what & (1 if kind == "result" else 2)
            )


def test_writers_in_two_threads_share_the_numbers(tmp_path: Path) -> None:
    """Two outboxes of one boot give every number once and in the order of the rows."""
    with Store(tmp_path) as store:
        boot = store.new_boot()

        def write() -> None:
            with Store(tmp_path) as own:
                outbox = Outbox(own, TOPICS, boot)
                for _ in range(100):
                    outbox.put("pump-1", "vib-de", result=RESULT, state=STATE)

        threads = [threading.Thread(target=write) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        outbox = Outbox(store, TOPICS, boot)
        assert seqs(outbox, "result") == list(range(1, 201))
        check_totals(outbox)


def test_full_disk_is_an_error_that_leaves_nothing_half_written(outbox: Outbox) -> None:
    """When the disk is full `put` says so and writes nothing; with room again it goes on with the next number."""
    (pages,) = outbox.store.query("PRAGMA page_count")[0]
    outbox.store.query(f"PRAGMA max_page_count = {pages + 20}")

    def fill() -> None:
        for _ in range(1000):
            outbox.put("pump-1", "vib-de", result=BULKY, event={**EVENT, **BULKY}, state=STATE)

    with pytest.raises(StateError, match="the disk is full; make room"):
        fill()
    written = len(seqs(outbox, "result"))
    check_totals(outbox)
    assert seqs(outbox, "event") == seqs(outbox, "result") == list(range(1, written + 1))
    outbox.store.query(f"PRAGMA max_page_count = {2**30}")
    assert outbox.put_result("pump-1", "vib-de", RESULT) == written + 1


WRITER = """
    import sys
    from pathlib import Path
    from fisher_edge.publish.message import Topics
    from fisher_edge.publish.outbox import Outbox
    from fisher_edge.store import Store

    with Store(Path(sys.argv[1])) as store:
        outbox = Outbox(store, Topics("fisher-edge", "line-3"), store.new_boot())
        message = {"time": "2026-01-31T09:30:00.250Z", "padding": "x" * 500}
        print("ready", flush=True)
        number = 0
        while True:
            number += 1
            event = message if number % 3 == 0 else None
            outbox.put("pump-1", "vib-de", result=message, event=event, state=message)
            if number % 5 == 0:
                outbox.delete([outbox.next_rows(0, 1)[0].id])
"""


def test_killed_writer_leaves_a_consistent_outbox(tmp_path: Path) -> None:
    """SIGKILL at a random moment leaves whole windows: numbers without gaps, totals and event table in step."""
    chance = random.Random(20260131)
    boots = 4
    for _ in range(boots):
        command = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(chance.uniform(0.05, 0.3))
            process.send_signal(signal.SIGKILL)
    with Store(tmp_path) as store:
        outbox = Outbox(store, TOPICS, store.new_boot())
        check_totals(outbox)
        for boot, last_result, last_event in store.query(
            "SELECT boot, result_seq, event_seq FROM boot WHERE boot <= 4"
        ):
            assert last_result > 0
            assert last_event == last_result // 3
            for kind, last in (("result", last_result), ("event", last_event)):
                left = seqs(outbox, kind, boot)
                assert left == list(range(last - len(left) + 1, last + 1))
        kept = [json.loads(payload) for (payload,) in store.query("SELECT payload FROM event ORDER BY id")]
        assert [(event["boot"], event["seq"]) for event in kept] == [
            (boot, seq)
            for boot, last in store.query("SELECT boot, event_seq FROM boot ORDER BY boot")
            for seq in range(1, last + 1)
        ]
        assert [row.boot for row in rows(outbox) if row.kind == "state"] == [boots]
