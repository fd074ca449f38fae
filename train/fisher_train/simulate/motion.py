"""How a machine moves while it is recorded: angles that go on from block to block, and what is drawn once.

Start at `Run.advance`. Everything that must not jump where one block of a recording ends and the next begins is
kept here: the angle of the shaft and of the line, slow drifts, the strength of every numbered event.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_train.simulate.shaft import DoubleArray, cosine, phase_of

__all__ = ["KNOT_S", "Drive", "Run", "Wander"]

KNOT_S = 0.15
"""Speed wanders between random knots this far apart."""
EVENTS = 2048
"""After so many events their random strengths repeat."""
LINE_FLUCTUATION = 2e-4


class Wander:
    """A slow random drift in seconds: the integral of a relative speed error of this standard deviation."""

    def __init__(self, fluctuation: float, rng: np.random.Generator) -> None:
        self._fluctuation = fluctuation
        self._rng = rng
        (self._knot,) = self._knots(1)
        self._before, self._now = 0.0, 0.0

    def advance(self, samples: int, rate_hz: int) -> DoubleArray:
        """Drift (samples + 2,) from the sample before the next block to the sample after it."""
        count = max(2, int(samples / rate_hz / KNOT_S) + 1)
        knots = np.concatenate([[self._knot], self._knots(count)])
        error = np.interp(np.linspace(0, count, samples + 1)[1:], np.arange(count + 1), knots)
        drift = np.empty(samples + 2)
        drift[:2] = self._before, self._now
        np.cumsum(error, out=drift[2:])
        drift[2:] /= rate_hz
        drift[2:] += self._now
        self._knot, self._before, self._now = knots[-1], float(drift[-2]), float(drift[-1])
        return drift

    def _knots(self, count: int) -> DoubleArray:
        return np.asarray(self._fluctuation * np.clip(self._rng.standard_normal(count), -3, 3))


@dataclass(frozen=True, eq=False)
class Drive:
    """Motion of a machine during one block of `samples`; `edge_` arrays hold one more sample on either side."""

    run: "Run"
    first: int
    """Index of the first sample in the recording."""
    edge_turns: DoubleArray
    """Revolutions of the shaft (samples + 2,), increasing."""
    edge_cycles: DoubleArray
    """Cycles of the line (samples + 2,), increasing; zeros where nothing is connected to it."""
    speed_hz: float
    line_hz: float
    speed: float
    """Fraction of rated speed."""
    load: float
    """Fraction of rated load."""

    @property
    def rate_hz(self) -> int:
        """Sampling rate in Hz."""
        return self.run.rate_hz

    @property
    def rng(self) -> np.random.Generator:
        """Generator of whatever is new at every sample."""
        return self.run.rng

    @property
    def of_fault(self) -> "Drive":
        """The same motion for what a fault adds: its draws leave those of the healthy machine as they are."""
        return replace(self, run=self.run.of_fault)

    @property
    def samples(self) -> int:
        """Length of the block."""
        return len(self.edge_turns) - 2

    @property
    def turns(self) -> DoubleArray:
        """Revolutions of the shaft (samples,)."""
        return self.edge_turns[1:-1]

    @property
    def cycles(self) -> DoubleArray:
        """Cycles of the line (samples,)."""
        return self.edge_cycles[1:-1]

    @cached_property
    def phase(self) -> FloatArray:
        """Angle of the shaft (samples,) in revolutions, 0 to 1."""
        return phase_of(self.turns)

    @cached_property
    def shaft(self) -> FloatArray:
        """Cosine of the angle of the shaft (samples,)."""
        return cosine(self.phase)

    @property
    def time_s(self) -> DoubleArray:
        """Time since the recording began (samples,)."""
        return np.arange(self.first, self.first + self.samples) / self.rate_hz

    def top_order(self, hz: float) -> float:
        """Highest order of a rotation that a sensor at this rate passes: what is above is filtered before sampling."""
        return self.rate_hz / 2 / hz

    def white(self) -> FloatArray:
        """White noise (samples,) of variance 1."""
        return self.rng.standard_normal(self.samples, np.float32)

    def edge_drift(self, name: str, fluctuation: float) -> DoubleArray:
        """Drift (samples + 2,) in seconds of something that slips, such as the cage of a bearing."""
        return self.run.wander(name, fluctuation).advance(self.samples, self.rate_hz)


class Run:
    """One recording: its generator, and whatever is drawn once and kept from block to block.

    A fault draws from `of_fault`, never from the generator of the recording. So a fault of any size, 0 included, is
    added to one and the same recording of the healthy machine.
    """

    def __init__(self, rate_hz: int, rng: np.random.Generator) -> None:
        self.rate_hz = rate_hz
        self.rng = rng
        self._first = 0
        self._wanders: dict[str, Wander] = {}
        self._uniforms: dict[str, float] = {}
        self._tables: dict[str, DoubleArray] = {}
        self._tails: dict[str, FloatArray] = {}

    @cached_property
    def of_fault(self) -> "Run":
        """The draws of a fault: a generator and a memory of their own."""
        return Run(self.rate_hz, self.rng.spawn(1)[0])

    def advance(
        self,
        samples: int,
        *,
        speed_hz: float,
        fluctuation: float,
        line_hz: float,
        speed: float = 1.0,
        load: float = 1.0,
    ) -> Drive:
        """Let the machine run for the next block of samples; rates of rotation are those of this operating point.

        A `line_hz` of 0 is a machine without a line.
        """
        time_s = np.arange(self._first - 1, self._first + samples + 1) / self.rate_hz

        def angle(name: str, hz: float, error: float) -> DoubleArray:
            drift = self.wander(name, error).advance(samples, self.rate_hz)
            drift += time_s
            drift *= hz
            drift += self.uniform(name)
            return drift

        drive = Drive(
            run=self,
            first=self._first,
            edge_turns=angle("shaft", speed_hz, fluctuation),
            edge_cycles=angle("line", line_hz, LINE_FLUCTUATION) if line_hz else np.zeros(samples + 2),
            speed_hz=speed_hz,
            line_hz=line_hz,
            speed=speed,
            load=load,
        )
        self._first += samples
        return drive

    def wander(self, name: str, fluctuation: float) -> Wander:
        """Drift of this name, begun when it is first asked for."""
        if name not in self._wanders:
            self._wanders[name] = Wander(fluctuation, self.rng)
        return self._wanders[name]

    def uniform(self, name: str) -> float:
        """Random number of this name between 0 and 1, drawn once."""
        if name not in self._uniforms:
            self._uniforms[name] = float(self.rng.uniform())
        return self._uniforms[name]

    def scatter(self, name: str, number: DoubleArray) -> DoubleArray:
        """Standard normal number for each numbered event, the same whenever it is asked for."""
        if name not in self._tables:
            self._tables[name] = self.rng.standard_normal(EVENTS)
        return self._tables[name][number.astype(np.int64) % EVENTS]

    def continued_white(self, name: str, samples: int, before: int) -> FloatArray:
        """White noise (before + samples,) that begins with the last `before` samples of the block before it."""
        if name not in self._tails:
            self._tails[name] = self.rng.standard_normal(before, np.float32)
        noise = np.concatenate([self._tails[name], self.rng.standard_normal(samples, np.float32)])
        self._tails[name] = noise[len(noise) - before :]
        return noise
