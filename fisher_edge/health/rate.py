"""The rate at which samples really come, by the time stamps of their blocks. See `RateMeter`."""

from dataclasses import dataclass

from fisher_edge.dsp.blocks import Block

__all__ = ["PERIOD_S", "TOLERANCE", "RateMeter"]

# Seconds of signal over which the rate is measured once.
PERIOD_S = 60.0
# A rate that is further off than this share is not the configured one.
TOLERANCE = 0.005


@dataclass
class RateMeter:
    """Measures the rate of one unbroken source, a period at a time.

    `real_hz` is that of the last period, None before the first is over. A rate counts as wrong only when two periods in
    a row say so: a step of the clock spoils one.
    """

    nominal_hz: float
    real_hz: float | None = None
    _first: tuple[int, float] | None = None
    _periods_off: int = 0

    def push(self, block: Block) -> None:
        """Take the next block."""
        if self._first is None or block.time_s < self._first[1]:
            self._first = (block.index, block.time_s)
            return
        index, time_s = self._first
        if block.time_s - time_s >= PERIOD_S:
            self.real_hz = (block.index - index) / (block.time_s - time_s)
            self._first = (block.index, block.time_s)
            off = abs(self.real_hz / self.nominal_hz - 1) > TOLERANCE
            self._periods_off = self._periods_off + 1 if off else 0

    @property
    def fault(self) -> str | None:
        """Say why the samples cannot be trusted; None when the rate is right."""
        if self._periods_off < 2 or self.real_hz is None:
            return None
        return f"samples come at {self.real_hz:.1f} Hz, {self.nominal_hz:g} Hz are configured"
