"""The queue of the worker: bounded, fair, and never in the way of a window."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fisher_edge.decision.judgement import State
from fisher_edge.dsp.grid import Grid
from fisher_edge.dsp.stream import Piece
from fisher_edge.gateway.work import Interrupt, JudgePiece, Reload, WorkQueue
from fisher_edge.names import ChannelKey

A, B = ChannelKey("pump", "a"), ChannelKey("pump", "b")
BYTES = 4000


def grid(window: int = 3, hop: int = 1) -> Grid:
    """Return a grid of pieces of 16 frames."""
    return Grid(16, 16, window, hop, 0.16 * window, 0.16 * hop)


def work(key: ChannelKey, number: int, on: Grid) -> JudgePiece:
    """Return a piece that takes 4000 bytes."""
    bands, amplitude, samples = (np.zeros(shape, np.float32) for shape in ((1, 16, 50), (16, 10), (40,)))
    return JudgePiece(key, Piece(bands, amplitude, samples, 1000, number, 160 * number, 0.16 * number, 0.16), on)


def numbers(queue: WorkQueue, key: ChannelKey) -> list[int]:
    """Take everything from the queue and return the numbers of the pieces of one channel."""
    taken = []
    while not queue.idle():
        item = queue.get()
        queue.done()
        if isinstance(item, JudgePiece) and item.key == key:
            taken.append(item.piece.number)
    return taken


def test_channel_beyond_its_share_loses_its_own_pieces_only(stop: threading.Event) -> None:
    """One channel floods the queue; the other, within its share, loses nothing."""
    queue, on = WorkQueue([A, B], capacity_bytes=20 * BYTES), grid()
    for number in range(5):
        queue.put(work(B, number, on), stop)
    for number in range(100):
        queue.put(work(A, number, on), stop)
    assert queue.dropped(A) == 90
    assert queue.dropped(B) == 0
    assert queue.waiting_bytes() <= 20 * BYTES
    assert numbers(queue, B) == [0, 1, 2, 3, 4]


def test_worker_serves_channels_in_turn(stop: threading.Event) -> None:
    """A channel with one piece waits for at most one piece of each other channel."""
    queue, on = WorkQueue([A, B]), grid()
    for number in range(10):
        queue.put(work(A, number, on), stop)
    queue.put(work(B, 0, on), stop)
    first = [queue.get() for _ in range(2)]
    assert {item.key for item in first if item} == {A, B}


@given(window=st.integers(1, 6), hop=st.integers(1, 3), served=st.integers(1, 4), share=st.integers(2, 20))
def test_windows_come_however_overloaded_the_worker_is(window: int, hop: int, served: int, share: int) -> None:
    """Even when the worker does one piece of five, it finds runs of consecutive pieces as long as a window."""
    queue, on, stop = WorkQueue([A], capacity_bytes=share * BYTES), grid(window, min(hop, window)), threading.Event()
    taken: list[int] = []
    for number in range(300):
        queue.put(work(A, number, on), stop)
        if number % 5 < served:
            item = queue.get()
            queue.done()
            assert isinstance(item, JudgePiece)
            taken.append(item.piece.number)
    longest, run = 0, 0
    for before, after in zip([None, *taken], taken, strict=False):
        run = run + 1 if before is not None and after == before + 1 else 1
        longest = max(longest, run)
    assert taken == sorted(set(taken))
    assert longest >= window
    assert queue.waiting_bytes() <= max(share, window + 1) * BYTES


def test_dropping_spares_the_window_under_way(stop: threading.Event) -> None:
    """The pieces that the window under way still needs stay; the oldest behind them go."""
    queue, on = WorkQueue([A], capacity_bytes=5 * BYTES), grid(window=3)
    queue.put(work(A, 0, on), stop)
    queue.get()
    for number in range(1, 8):
        queue.put(work(A, number, on), stop)
    assert numbers(queue, A) == [1, 2, 5, 6, 7]


def test_patient_producer_waits_and_loses_nothing(stop: threading.Event) -> None:
    """A recording without a clock fills the queue, waits for room, and every piece is judged."""
    queue, on = WorkQueue([A], capacity_bytes=5 * BYTES), grid(window=2)

    def produce() -> None:
        for number in range(30):
            queue.put(work(A, number, on), stop, patient=True)

    producer = threading.Thread(target=produce)
    producer.start()
    taken: list[int] = []
    while len(taken) < 30:
        item = queue.get()
        if isinstance(item, JudgePiece):
            taken.append(item.piece.number)
            queue.done()
    producer.join(5)
    assert taken == list(range(30))
    assert queue.dropped(A) == 0


def test_patient_producer_gives_up_when_stopped() -> None:
    """A producer that waits for room ends when the gateway does."""
    queue, on, stop = WorkQueue([A], capacity_bytes=1), grid(window=1), threading.Event()
    stop.set()
    for number in range(4):
        queue.put(work(A, number, on), stop, patient=True)
    assert numbers(queue, A) == [0, 1, 2, 3]


def test_interruptions_and_commands_are_never_dropped_and_keep_their_place(stop: threading.Event) -> None:
    """What a channel has to say comes after the pieces before it, however full the queue is."""
    queue, on = WorkQueue([A], capacity_bytes=3 * BYTES), grid(window=1)
    queue.put(work(A, 0, on), stop)
    queue.put(Interrupt(A, State.NO_DATA, "unplugged"), stop)
    queue.put(Reload(A), stop)
    for number in range(1, 20):
        queue.put(work(A, number, on), stop)
    kinds = []
    while not queue.idle():
        kinds.append(type(queue.get()).__name__)
        queue.done()
    assert [kind for kind in kinds if kind != "JudgePiece"] == ["Interrupt", "Reload"]


def test_overload_is_logged_at_the_first_piece_and_at_every_doubling(
    stop: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the channel, once for 1, 2, 4, 8, ... dropped pieces."""
    queue, on = WorkQueue([A], capacity_bytes=3 * BYTES), grid(window=1)
    for number in range(12):
        queue.put(work(A, number, on), stop)
    texts = [record.getMessage() for record in caplog.records]
    assert queue.dropped(A) == 9
    assert [text.split()[5] for text in texts] == ["1", "2", "4", "8"]
    assert all("pump/a" in text for text in texts)
