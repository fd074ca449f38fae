"""The reader of a channel: pieces for the worker, and a reason whenever there are none."""

import threading
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from plain_source import FakeClock, PlainSource, blocks_of

from fisher_edge.decision.judgement import State
from fisher_edge.dsp.blocks import Block, FloatArray
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.errors import SensorError
from fisher_edge.gateway.reader import Cutting, Reader
from fisher_edge.gateway.status import Counters
from fisher_edge.gateway.work import Interrupt, JudgePiece, Work, WorkQueue
from fisher_edge.names import ChannelKey

KEY = ChannelKey("pump", "vib")
RATE_HZ = 1000
FRONT_END = FrontEnd(piece_frames=32, piece_rule="grid", top_band="pad", amplitude="standardise")


def noise(seconds: float) -> FloatArray:
    """Return noise of so many seconds."""
    return np.random.default_rng(1).standard_normal(round(seconds * RATE_HZ)).astype(np.float32)


def reader_of(
    source: PlainSource, clock: FakeClock, *, rate_hz: int | None = None, refused: str | None = None
) -> Reader:
    """Return a reader that was not started: `run` reads in the thread of the test."""
    cutting = Cutting(FRONT_END, 0.64, 0.32, rate_hz, refused)
    return Reader(KEY, source, cutting, WorkQueue([KEY]), Counters(clock()), monotonic=clock)


def work_of(reader: Reader) -> list[Work]:
    """Take all that the reader has put into the queue."""
    taken: list[Work] = []
    while not reader._queue.idle():
        item = reader._queue.get()
        assert item is not None
        taken.append(item)
        reader._queue.done()
    return taken


def last_round(reader: Reader, blocks: list[Block]) -> None:
    """Let the source yield blocks in the last round of the reader, which does not open it again."""

    def script(stop: threading.Event) -> Iterator[Block]:
        stop.set()
        yield from blocks

    source = reader._source
    assert isinstance(source, PlainSource)
    source.script = script


def stopping(reader: Reader, blocks: Iterable[Block], rounds: int = 1) -> None:
    """Let a source yield blocks, and ask the reader to stop when it was opened so many times."""
    source = reader._source
    assert isinstance(source, PlainSource)

    def script(stop: threading.Event) -> Iterable[Block]:
        yield from blocks
        if source.opened >= rounds:
            stop.set()

    source.script = script


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a reader open a failed source again at once."""
    monkeypatch.setattr("fisher_edge.gateway.reader.LONGEST_PAUSE_S", 0.0)


def test_finite_source_that_ends_is_done() -> None:
    """A recording is read once, closed, and counted as ended; its pieces are in the queue."""
    source = PlainSource(lambda _: blocks_of(noise(2.0), RATE_HZ), finite=True)
    reader = reader_of(source, FakeClock())
    reader.run()
    assert (source.opened, source.closed) == (1, 1)
    assert reader.counters.ended
    pieces = work_of(reader)
    assert [item.piece.number for item in pieces if isinstance(item, JudgePiece)] == list(range(6))
    assert len(pieces) == 6


def test_live_source_that_ends_is_a_failure_and_is_opened_again() -> None:
    """A source whose iterator returns is no_data with the reason, and is opened again."""
    reader = reader_of(PlainSource(lambda _: ()), FakeClock())
    stopping(reader, list(blocks_of(noise(0.1), RATE_HZ)), rounds=3)
    reader.run()
    source = reader._source
    assert isinstance(source, PlainSource)
    assert source.opened == source.closed == 3
    told = [item for item in work_of(reader) if isinstance(item, Interrupt)]
    assert told
    assert all(item.state is State.NO_DATA and "has ended" in item.reason for item in told)


def test_gaps_are_counted() -> None:
    """One sample lost every half second is counted as a gap, with its time, and begins a new run of pieces."""
    clock = FakeClock()
    source = PlainSource(lambda _: blocks_of(noise(3.0), RATE_HZ, block_s=0.1, lose_every_s=0.5), finite=True)
    reader = reader_of(source, clock)
    reader.run()
    assert reader.counters.gaps == 5
    assert reader.counters.gaps_in_last_minute(clock() + 59) == 5
    assert reader.counters.gaps_in_last_minute(clock() + 61) == 0


@pytest.mark.parametrize("time_s", [float("nan"), float("inf"), -1.0, 1.7e12])
def test_time_stamps_that_are_none_are_a_fault_of_the_sensor(time_s: float) -> None:
    """Milliseconds or NaN instead of seconds are named; nothing of it reaches the worker."""
    reader = reader_of(PlainSource(lambda _: ()), FakeClock())
    last_round(reader, [Block(noise(0.5), RATE_HZ, 0, time_s)])
    reader.run()
    (told,) = work_of(reader)
    assert isinstance(told, Interrupt)
    assert told.state is State.CHECK_FUNCTION
    assert "seconds since 1970" in told.reason


@pytest.mark.parametrize(
    ("error", "state"), [(SensorError("no clock"), State.CHECK_FUNCTION), (OSError("unplugged"), State.NO_DATA)]
)
def test_source_that_fails_says_why_once(error: Exception, state: State) -> None:
    """A fault of the sensor is check_function, any other failure no_data; the same reason is reported once."""
    source = PlainSource(lambda _: ())
    reader = reader_of(source, FakeClock())

    def script(stop: threading.Event) -> Iterable[Block]:
        if source.opened == 4:
            stop.set()
        raise error
        yield

    source.script = script
    reader.run()
    (told,) = work_of(reader)
    assert isinstance(told, Interrupt)
    assert (told.state, told.reason) == (state, str(error))
    assert source.closed == 4
    assert reader.counters.problem == str(error)


def test_source_that_recovers_has_no_problem_any_more() -> None:
    """Blocks after a failure clear it, and silence is counted from then on."""
    clock, source = FakeClock(), PlainSource(lambda _: ())
    reader = reader_of(source, clock)

    def script(stop: threading.Event) -> Iterable[Block]:
        if source.opened == 1:
            raise OSError("unplugged")
        clock.advance(40)
        yield from blocks_of(noise(0.2), RATE_HZ)
        stop.set()

    source.script = script
    reader.run()
    assert reader.counters.problem is None
    assert reader.counters.recovered_s == clock()


def test_other_rate_than_enrolled_is_a_fault_of_the_sensor() -> None:
    """Samples at another rate than that of the baseline are never judged."""
    reader = reader_of(PlainSource(lambda _: ()), FakeClock(), rate_hz=2000)
    last_round(reader, list(blocks_of(noise(1.0), RATE_HZ)))
    reader.run()
    (told,) = work_of(reader)
    assert isinstance(told, Interrupt)
    assert told.state is State.CHECK_FUNCTION
    assert "1000 Hz" in told.reason
    assert "2000 Hz" in told.reason


def test_rate_that_is_off_marks_the_pieces() -> None:
    """A sensor that really delivers 1 % fewer samples is not trusted once two minutes have shown it."""
    samples = noise(200.0)
    slow = [
        Block(block.samples, RATE_HZ, block.index, 1000.0 + block.index / (0.99 * RATE_HZ))
        for block in blocks_of(samples, RATE_HZ, block_s=1.0)
    ]
    reader = reader_of(PlainSource(lambda _: slow, finite=True), FakeClock())
    reader.run()
    pieces = [item for item in work_of(reader) if isinstance(item, JudgePiece)]
    assert pieces[0].distrust is None
    assert pieces[-1].distrust is not None
    assert "990.0 Hz" in pieces[-1].distrust
    assert reader.counters.real_rate_hz == pytest.approx(990, abs=0.5)


def test_cutting_may_be_replaced_while_reading() -> None:
    """After a new enrollment the stream restarts with its windows."""
    source = PlainSource(lambda _: (), finite=True)
    reader = reader_of(source, FakeClock())

    def script(_: threading.Event) -> Iterable[Block]:
        blocks = list(blocks_of(noise(4.0), RATE_HZ))
        yield from blocks[:4]
        reader.cutting = Cutting(FRONT_END, 0.16, 0.16, RATE_HZ)
        yield from blocks[4:]

    source.script = script
    reader.run()
    frames = [item.grid.piece_frames for item in work_of(reader) if isinstance(item, JudgePiece)]
    assert set(frames) == {32, 16}
    assert frames == sorted(frames, reverse=True)


def test_channel_refused_by_its_plan_is_not_read() -> None:
    """A channel that does not fit its baseline says so instead of being judged."""
    reader = reader_of(PlainSource(lambda _: ()), FakeClock(), refused="windows of 2 s, enrolled with 1 s")
    last_round(reader, list(blocks_of(noise(1.0), RATE_HZ)))
    reader.run()
    (told,) = work_of(reader)
    assert isinstance(told, Interrupt)
    assert told.reason == "windows of 2 s, enrolled with 1 s"


def test_pauses_grow_and_begin_again_after_a_source_has_worked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that fails at once waits longer each time; one that had worked for half a minute does not."""
    monkeypatch.setattr("fisher_edge.gateway.reader.LONGEST_PAUSE_S", 60.0)
    monkeypatch.setattr("random.uniform", lambda _, high: high)
    clock, pauses = FakeClock(), []
    source = PlainSource(lambda _: ())
    reader = reader_of(source, clock)

    def script(stop: threading.Event) -> Iterator[Block]:
        if source.opened == 5:
            clock.advance(31)
        if source.opened == 8:
            stop.set()
        raise OSError("unplugged")
        yield

    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        return reader._stop.is_set()

    source.script = script
    monkeypatch.setattr(reader._stop, "wait", wait)
    reader.run()
    assert pauses == [2, 4, 8, 16, 2, 4, 8, 16]
