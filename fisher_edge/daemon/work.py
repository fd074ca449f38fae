"""What waits for the worker: windows to judge, and word of channels that have none. See `WorkQueue`."""

import logging
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fisher_edge.decision.alarm import Interruption
from fisher_edge.dsp.stream import Window

if TYPE_CHECKING:
    from fisher_edge.daemon.channel import Channel

__all__ = ["Work", "WorkQueue"]

CAPACITY_BYTES = 96 << 20
TICK_S = 0.2

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Work:
    """One thing for the worker: a window to judge, or why a channel has none."""

    channel: "Channel"
    window: Window | None = None
    interruption: Interruption = "no_data"
    reason: str = ""

    @property
    def bytes(self) -> int:
        """Memory that it holds while it waits."""
        return self.window.bands.nbytes + self.window.samples.nbytes if self.window else 0


class WorkQueue:
    """A queue bounded in bytes: when it is full the oldest window is dropped and counted, never an interruption.

    One window always fits, however large.
    """

    def __init__(self, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self.dropped = 0
        self._capacity_bytes = capacity_bytes
        self._items: deque[Work] = deque()
        self._bytes = 0
        self._under_way = 0
        self._changed = threading.Condition()

    def put(self, work: Work, stop: threading.Event, *, patient: bool) -> None:
        """Add work; a patient producer waits for room, a live one pushes the oldest windows out."""
        with self._changed:
            while patient and self._is_full(work) and not stop.is_set():
                self._changed.wait(TICK_S)
            while not patient and self._is_full(work):
                self._drop_oldest_window()
            self._items.append(work)
            self._bytes += work.bytes
            self._changed.notify_all()

    def get(self) -> Work | None:
        """Take the oldest work; None when there is none for a moment."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._items, TICK_S):
                return None
            work = self._items.popleft()
            self._bytes -= work.bytes
            self._under_way += 1
            self._changed.notify_all()
            return work

    def done(self) -> None:
        """Note that the work taken last is finished."""
        with self._changed:
            self._under_way -= 1

    def idle(self) -> bool:
        """Tell whether nothing waits and nothing is being worked on."""
        with self._changed:
            return not self._items and not self._under_way

    def _is_full(self, work: Work) -> bool:
        """Whether there is no room for one more beside what waits."""
        return self._bytes > 0 and self._bytes + work.bytes > self._capacity_bytes

    def _drop_oldest_window(self) -> None:
        """Make room."""
        oldest = next(work for work in self._items if work.window)
        self._items.remove(oldest)
        self._bytes -= oldest.bytes
        self.dropped += 1
        if self.dropped & (self.dropped - 1) == 0:  # 1, 2, 4, 8, ...: said, not shouted
            log.warning("inference falls behind: %d windows dropped so far; choose a longer hop_s", self.dropped)
