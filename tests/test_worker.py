"""The worker without threads: work in, records out."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import RATE_HZ, machine_signal
from plain_source import FakeClock, blocks_of

from fisher_edge.config import Config
from fisher_edge.decision.alarm import AlarmMachine, AlarmRule
from fisher_edge.decision.judge import Unenrolled
from fisher_edge.decision.judgement import ModelName, Result, State
from fisher_edge.dsp.stream import PieceStream
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.errors import StateError
from fisher_edge.gateway.desk import Desk
from fisher_edge.gateway.monitored import Monitored, Plan
from fisher_edge.gateway.reader import Cutting
from fisher_edge.gateway.status import Counters
from fisher_edge.gateway.work import Interrupt, JudgePiece, Reload, WorkQueue
from fisher_edge.gateway.worker import Worker
from fisher_edge.names import ChannelKey
from fisher_edge.store.commands import Commands
from fisher_edge.store.database import Database
from fisher_edge.store.records import Limits, Records

KEY = ChannelKey("pump", "vib")
CONFIG = Config.model_validate({"channel": [{"asset": "pump", "name": "vib", "source": {"type": "simulator"}}]})
LIMITS = Limits(waiting_bytes=1 << 24, waiting_s=1e6, history_bytes=1 << 24, history_s=1e9)


class Bench:
    """A worker with one channel that is not enrolled, on a database of its own."""

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        self.database = Database(folder / "state")
        self.records = Records(self.database, self.database.new_boot(), limits=LIMITS)
        self.clock = FakeClock()
        cutting = Cutting(encoder.bundle.front_end, 0.32, 0.16)
        judge = Unenrolled(ModelName("nano", "0" * 64), "nothing is enrolled")
        self.plan = Plan(encoder, cutting, judge)
        machine = AlarmMachine(AlarmRule(), self.clock, State.NO_BASELINE)
        self.channel = Monitored(KEY, "g", self.plan, machine, Counters(self.clock()))
        self.queue = WorkQueue([KEY])
        self.reloaded: list[ChannelKey] = []
        channels = {KEY: self.channel}
        desk = Desk(CONFIG, Commands(self.database), channels, {})
        self.worker = Worker(
            self.queue, channels, self.records, self.reloaded.append, desk, monotonic=self.clock, clock=self.clock
        )
        self.stop = threading.Event()

    def pieces(self, seconds: float = 2.0) -> list[JudgePiece]:
        """Return the work of a stretch of signal."""
        grid = self.plan.cutting.grid(RATE_HZ)
        stream = PieceStream(self.plan.cutting.front_end, RATE_HZ, grid)
        cut = [piece for block in blocks_of(machine_signal(1, seconds), RATE_HZ) for piece in stream.push(block)]
        return [JudgePiece(KEY, piece, grid) for piece in cut]

    def results(self) -> list[Result]:
        """Results in the records."""
        return [kept.value for kept in self.records.history(KEY, "result")]


@pytest.fixture
def bench(tmp_path: Path, encoder: Encoder) -> Iterator[Bench]:
    """Return a worker to feed."""
    made = Bench(tmp_path, encoder)
    yield made
    made.database.close()


def test_every_window_is_a_result_with_plain_measures(bench: Bench) -> None:
    """A channel without a baseline gives measures and says why it is not judged."""
    work = bench.pieces()
    for piece in work:
        bench.worker.handle([piece], bench.stop)
    results = bench.results()
    assert len(results) == len(work)
    assert {result.state for result in results} == {State.NO_BASELINE}
    assert {result.judgement.unjudged for result in results} == {"nothing is enrolled"}
    assert all(result.judgement.measures and result.judgement.measures.rms > 0 for result in results)
    assert bench.channel.counters.results == len(work)
    assert bench.channel.counters.last_result_s == bench.clock()


def test_dropped_windows_are_counted_in_the_next_result(bench: Bench) -> None:
    """A hole of dropped pieces is said as windows skipped since the last result; a gap in the signal is not."""
    work = bench.pieces()
    bench.worker.handle([work[0]], bench.stop)
    bench.queue._lines[KEY].dropped = 3
    bench.worker.handle([work[4]], bench.stop)
    bench.worker.handle([work[5]], bench.stop)
    bench.worker.handle([work[8]], bench.stop)
    assert [result.skipped for result in bench.results()] == [0, 3, 0, 0]


def test_distrusted_piece_is_check_function_whatever_it_holds(bench: Bench) -> None:
    """What the reader knows about the sensor wins over the samples."""
    first = bench.pieces()[0]
    bench.worker.handle([JudgePiece(KEY, first.piece, first.grid, "samples come at 990 Hz")], bench.stop)
    (result,) = bench.results()
    assert (result.state, result.judgement.distrust) == (State.CHECK_FUNCTION, "samples come at 990 Hz")


def test_interruption_is_an_event_and_no_result(bench: Bench) -> None:
    """Why a channel has no data is written once, with the time of the clock."""
    bench.clock.advance(5)
    bench.worker.handle([Interrupt(KEY, State.NO_DATA, "unplugged")], bench.stop)
    bench.worker.handle([Interrupt(KEY, State.NO_DATA, "unplugged")], bench.stop)
    (event,) = [kept.value for kept in bench.records.history(KEY, "event")]
    assert (event.before, event.after, event.reason) == (State.NO_BASELINE, State.NO_DATA, "unplugged")
    assert event.time_s == bench.clock()
    assert bench.results() == []


def test_reload_is_handed_on(bench: Bench) -> None:
    """The command reaches whoever plans channels, in the thread of the worker."""
    bench.worker.handle([Reload(KEY)], bench.stop)
    assert bench.reloaded == [KEY]


def test_piece_that_cannot_be_read_interrupts_its_channel(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of the encoder is check_function, and the worker goes on."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr("fisher_edge.gateway.batch.read", fail)
    bench.worker.handle([bench.pieces()[0]], bench.stop)
    assert bench.channel.machine.state is State.CHECK_FUNCTION
    (event,) = [kept.value for kept in bench.records.history(KEY, "event")]
    assert event.reason == "internal error, RuntimeError: no such kernel"


def test_locked_database_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While another program holds the database nothing is lost; it is said once, and once when it is over."""
    monkeypatch.setattr("fisher_edge.gateway.worker.RETRY_S", 0.0)
    caplog.set_level("INFO")
    real, failures = bench.records.put, iter([StateError("locked"), StateError("locked"), None])

    def put(*arguments: object, **keys: object) -> int | None:
        failure = next(failures, None)
        if failure is not None:
            raise failure
        return real(*arguments, **keys)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.records, "put", put)
    bench.worker.handle([bench.pieces()[0]], bench.stop)
    assert len(bench.results()) == 1
    texts = [record.getMessage() for record in caplog.records]
    assert sum("locked" in text for text in texts) == 1
    assert sum("can be written again" in text for text in texts) == 1


def test_locked_database_ends_the_worker_when_it_is_to_stop(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stops the gateway does not wait for the lock."""

    def put(*_: object, **__: object) -> int | None:
        raise StateError("locked")

    monkeypatch.setattr(bench.records, "put", put)
    bench.stop.set()
    with pytest.raises(StateError):
        bench.worker.handle([bench.pieces()[0]], bench.stop)
