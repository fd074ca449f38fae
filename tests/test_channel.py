"""A channel on its own: whatever its source does is reported once, and the channel lives on."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from fisher_edge.config import ChannelConfig
from fisher_edge.daemon.channel import Channel, Work, WorkQueue
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
    stop, queue, given = threading.Event(), WorkQueue(1000), []
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
