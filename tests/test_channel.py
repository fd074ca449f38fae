"""A channel on its own: whatever its source does is reported once, and the channel lives on."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from fisher_edge.config import ChannelConfig
from fisher_edge.daemon.channel import Channel
from fisher_edge.daemon.work import Work, WorkQueue
from fisher_edge.decision.monitor import Unenrolled
from fisher_edge.dsp.blocks import Block
from fisher_edge.encoder.ort import EncoderSession

CONFIG = ChannelConfig.model_validate(
    {"asset": "pump-1", "name": "vib-de", "source": {"type": "recording", "files": ["a.wav"]}}
)


class Sensor:
    """A source that delivers, each time it is started, the next of some lists of blocks; an error is raised."""

    patient = True

    def __init__(self, *starts: Sequence[Block | Exception]) -> None:
        self._starts = iter(starts)

    def blocks(self, _stop: threading.Event) -> Iterator[Block]:
        """Yield the blocks of the next start."""
        for block in next(self._starts):
            if isinstance(block, Exception):
                raise block
            yield block


def half_seconds(count: int, rate_hz: int) -> list[Block]:
    """Return consecutive blocks of half a second of noise."""
    step = rate_hz // 2
    noise = np.random.default_rng(0).standard_normal(step).astype(np.float32)
    return [Block(noise, rate_hz, number * step, number / 2) for number in range(count)]


@pytest.fixture
def monitor(encoder: EncoderSession) -> Unenrolled:
    """Return what watches a channel with windows of half a second."""
    return Unenrolled(encoder, 50, 50)


def read(sensor: Sensor, monitor: Any, encoder: EncoderSession) -> list[Work]:
    """Let a channel read a sensor to its end and return what it gave the worker."""
    stop, queue, given = threading.Event(), WorkQueue(), []
    channel = Channel(CONFIG, sensor, monitor, encoder.bundle.front_end, queue)
    channel.start(stop)
    deadline_s = time.monotonic() + 20
    while not (channel.ended.is_set() and queue.idle()) and time.monotonic() < deadline_s:
        work = queue.get()
        if work is not None:
            given.append(work)
            queue.done()
    stop.set()
    assert channel.ended.is_set()
    return given


def test_channel_survives_an_error_nobody_expected(
    monitor: Unenrolled, encoder: EncoderSession, caplog: pytest.LogCaptureFixture
) -> None:
    """A source that fails in any way is reported as no data, once, and started again."""
    broken: list[Block | Exception] = [*half_seconds(2, 1000), RuntimeError("driver bug")]
    given = read(Sensor(broken, half_seconds(4, 1000)), monitor, encoder)
    reasons = [(work.interruption, work.reason) for work in given if work.window is None]
    assert reasons == [("no_data", "internal error, RuntimeError: driver bug")]
    assert given[-1].window is not None
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_channel_at_a_rate_that_is_not_the_enrolled_one_says_so_once(
    monitor: Unenrolled, encoder: EncoderSession, caplog: pytest.LogCaptureFixture
) -> None:
    """Samples at another rate than the baseline's are a matter of the sensor, said once, not with every block."""
    monitor.rate_hz = 2000
    given = read(Sensor([*half_seconds(20, 1000)]), monitor, encoder)
    assert [(work.interruption, work.window) for work in given] == [("check_function", None)]
    assert given[0].reason == "samples come at 1000 Hz, the baseline was enrolled at 2000 Hz"
    assert len(caplog.records) == 1


def test_work_queue_of_a_live_sensor_drops_the_oldest_windows_and_counts_them(
    monitor: Unenrolled, encoder: EncoderSession
) -> None:
    """Memory is bounded by bytes: the newest windows stay, in order, and no word of a missing sensor is lost."""
    works = read(Sensor(half_seconds(9, 8000)), monitor, encoder)
    channel, size = works[0].channel, works[0].bytes
    queue, stop = WorkQueue(3 * size), threading.Event()
    queue.put(Work(channel, None, "no_data", "unplugged"), stop, patient=False)
    for work in works:
        queue.put(work, stop, patient=False)

    assert queue.dropped == len(works) - 3
    kept = [queue.get() for _ in range(4)]
    assert [work.reason for work in kept if work and work.window is None] == ["unplugged"]
    assert [work for work in kept if work and work.window] == works[-3:]
    assert not queue.idle()
    for _ in kept:
        queue.done()
    assert queue.idle()


def test_work_queue_makes_a_patient_producer_wait(monitor: Unenrolled, encoder: EncoderSession) -> None:
    """A recording without pace waits for room: nothing is dropped, and stopping frees it."""
    works = read(Sensor(half_seconds(6, 8000)), monitor, encoder)
    queue, stop = WorkQueue(2 * works[0].bytes), threading.Event()

    def produce() -> None:
        for work in works:
            queue.put(work, stop, patient=True)

    producer = threading.Thread(target=produce)
    producer.start()
    taken = [queue.get() for _ in range(len(works) - 2)]
    stop.set()
    producer.join(5)
    assert not producer.is_alive()
    assert taken == works[: len(works) - 2]
    assert queue.dropped == 0
