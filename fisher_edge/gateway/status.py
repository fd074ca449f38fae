"""One snapshot of everything a page, metrics and the `info` message need. See `GatewayStatus`.

Readers and the worker write their own `Counters`; a snapshot reads them without locks.
"""

import ctypes
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from fisher_edge.decision.judgement import AlarmMemory, Judgement, Realised, State
from fisher_edge.names import ChannelKey
from fisher_edge.publish.mqtt import Condition

__all__ = ["ChannelStatus", "Counters", "GatewayStatus", "clock_is_synchronised"]

MINUTE_S = 60.0
CLOCK_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)
TIMEX_BYTES = 256  # more than struct timex takes anywhere


@dataclass
class Counters:
    """What is counted about one channel. The reader writes the first part, the worker the second; times are monotonic.

    `problem` is why its source gives nothing now; `told` whether silence was reported already.
    """

    started_s: float
    gaps: int = 0
    gap_times_s: deque[float] = field(default_factory=lambda: deque(maxlen=1000))
    last_block_s: float | None = None
    recovered_s: float = 0.0
    real_rate_hz: float | None = None
    problem: str | None = None
    ended: bool = False

    results: int = 0
    last_result_s: float | None = None
    latency_ms: float | None = None
    told: bool = False

    def gaps_in_last_minute(self, now_s: float) -> int:
        """Count the gaps of the last minute."""
        return sum(now_s - each <= MINUTE_S for each in list(self.gap_times_s))


@dataclass(frozen=True)
class ChannelStatus:
    """One channel: its state since when and why, its last judgement, and what was counted since the start.

    `alarm` is what is known of its alarm, `realised` what came of the promise about false alarms. `hop_s` is None
    before any signal has come: it depends on the rate.
    """

    key: ChannelKey
    unit: str
    state: State
    since_s: float
    reason: str | None
    last: Judgement | None
    alarm: AlarmMemory
    realised: Realised | None
    results: int
    gaps: int
    dropped: int
    real_rate_hz: float | None
    latency_ms: float | None
    window_s: float
    hop_s: float | None
    baseline_version: int | None
    model_sha256: str


@dataclass(frozen=True)
class GatewayStatus:
    """The gateway at `time_s`: versions, what waits, delivery, disk, clock, and all channels."""

    name: str
    version: str
    boot: int
    started_s: float
    time_s: float
    model_name: str
    model_sha256: str
    provider: str
    queue_bytes: int
    delivery: Condition
    disk_free_bytes: int
    database_bytes: int
    clock_synchronised: bool | None
    channels: tuple[ChannelStatus, ...]


def clock_is_synchronised() -> bool | None:
    """Whether the kernel says that its clock follows a reference; None where it cannot be asked."""
    adjtimex = _adjtimex()
    if adjtimex is None:
        return None
    state: int = adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    return None if state < 0 else state != CLOCK_UNSYNCHRONISED


@cache
def _adjtimex() -> Callable[[Any], int] | None:
    """The kernel's function about its clock; None where there is none."""
    try:
        function: Callable[[Any], int] = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError):
        return None
    return function
