"""One sensor of a gateway: read on its own thread, cut into windows, put into the queue of the worker."""

import logging
import random
import threading
import time
from collections.abc import Iterator

from fisher_edge.config import ChannelConfig
from fisher_edge.daemon.work import Work, WorkQueue
from fisher_edge.decision.alarm import Interruption
from fisher_edge.decision.monitor import Monitor, Unenrolled
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.stream import WindowStream
from fisher_edge.errors import FisherEdgeError, SensorError
from fisher_edge.sources.open import Source

__all__ = ["Channel"]

TICK_S = 0.2
LONGEST_PAUSE_S = 60.0

log = logging.getLogger(__name__)


class Channel:
    """Reads one sensor on its own thread and cuts its blocks into windows."""

    def __init__(
        self, config: ChannelConfig, source: Source, monitor: Monitor | Unenrolled, front_end: FrontEnd, work: WorkQueue
    ) -> None:
        self.config = config
        self.monitor = monitor
        self.name = f"{config.asset}/{config.name}"
        self.ended = threading.Event()
        self.failed = False
        self._source = source
        self._front_end = front_end
        self._work = work
        self._last_block_s = time.monotonic()
        self._silent = False

    def start(self, stop: threading.Event) -> None:
        """Begin reading."""
        threading.Thread(target=self._read, args=(stop,), name=f"channel {self.name}", daemon=True).start()

    def check_silence(self, stop: threading.Event) -> None:
        """Report once when no block has come for `no_data_s`."""
        silent_s = time.monotonic() - self._last_block_s
        if silent_s > self.config.no_data_s and not self._silent and not self.ended.is_set():
            self._silent = True
            self._interrupt("no_data", f"no samples for {silent_s:.0f} s", stop)

    def _read(self, stop: threading.Event) -> None:
        """Read until the source ends; one that fails is started again after a growing pause."""
        failures = 0
        while not stop.is_set():
            try:
                for count in self._windows(stop):
                    failures = 0 if count else failures
                break
            except Exception as error:  # noqa: BLE001 -- reported; a thread that ends is a silent loss
                if failures == 0:
                    expected = isinstance(error, FisherEdgeError | OSError)
                    reason = str(error) if expected else f"internal error, {type(error).__name__}: {error}"
                    state: Interruption = "check_function" if isinstance(error, SensorError) else "no_data"
                    self._interrupt(state, reason, stop, None if expected else error)
                failures += 1
                stop.wait(random.uniform(0.5, 1) * min(LONGEST_PAUSE_S, 2.0**failures))  # noqa: S311 -- jitter
        self.ended.set()

    def _windows(self, stop: threading.Event) -> Iterator[int]:
        """Pass every window on; yield how many a block gave."""
        stream: WindowStream | None = None
        rate_hz = None
        for block in self._source.blocks(stop):
            self._last_block_s, self._silent = time.monotonic(), False
            if block.rate_hz != rate_hz:
                rate_hz = block.rate_hz
                stream = self._stream(rate_hz, stop)
            windows = stream.push(block) if stream else []
            for window in windows:
                self._work.put(Work(self, window), stop, patient=self._source.patient)
            self._last_block_s = time.monotonic()  # waiting for the worker is not silence of the sensor
            yield len(windows)

    def _stream(self, rate_hz: int, stop: threading.Event) -> WindowStream | None:
        """Begin a stream at the rate that arrives, unless the baseline was enrolled at another."""
        enrolled = self.monitor.rate_hz
        if enrolled is not None and enrolled != rate_hz:
            reason = f"samples come at {rate_hz} Hz, the baseline was enrolled at {enrolled} Hz"
            self._interrupt("check_function", reason, stop)
            return None
        return WindowStream(self._front_end, rate_hz, self.monitor.window_frames, self.monitor.hop_frames)

    def _interrupt(
        self, state: Interruption, reason: str, stop: threading.Event, trace: BaseException | None = None
    ) -> None:
        """Log why there is nothing to judge, and tell the worker."""
        log.error("channel %s: %s", self.name, reason, exc_info=trace)
        self._work.put(Work(self, None, state, reason), stop, patient=self._source.patient)
