"""A machine that runs without end: the wave of `machine.render`, block after block, without a seam.

Forces go on from block to block (`motion.Run` keeps angles, drifts and events), and the paths of the structure are
filters with a finite response, applied by overlap-save: what comes out is one linear convolution, wherever its
blocks end.
"""

import copy
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import fft, signal

from fisher_edge.dsp.blocks import FloatArray
from fisher_train.simulate.machine import Machine, OperatingPoint, State, begin, forces, measured
from fisher_train.simulate.motion import Run
from fisher_train.simulate.sensor import background, sensor_response
from fisher_train.simulate.structure import path_response

__all__ = ["MachineStream"]

NOISE = "noise"
RESPONSE_BLOCKS = 2
"""Length of the filters in blocks of a second: a mode of 30 Hz and 0.5 % damping has then fallen by 12 dB."""
TAPER = 0.1


class MachineStream:
    """Records one machine in blocks of a second; a fault begins at `onset_s` and grows to its size in `growth_s`.

    The fault's part rendered with the same draws at two sizes is mixed while it grows, so that nothing jumps but
    what a sudden fault (`growth_s` 0) makes jump.
    """

    def __init__(
        self,
        machine: Machine,
        state: State,
        point: OperatingPoint,
        rate_hz: int,
        seed: int,
        *,
        onset_s: float = 0.0,
        growth_s: float = 0.0,
    ) -> None:
        self.machine = machine
        self.state = state
        self.point = point
        self.rate_hz = rate_hz
        self._run = Run(rate_hz, np.random.default_rng([seed, 1]))
        self._taps = RESPONSE_BLOCKS * rate_hz
        self._delay = self._taps // 4
        self._fft = int(fft.next_fast_len(self._taps + rate_hz, real=True))
        self._filters: dict[str, npt.NDArray[np.complex64]] = {}
        self._history: dict[str, FloatArray] = {}
        self._done = 0
        self._always = onset_s == growth_s == 0
        self._onset = round((onset_s + RESPONSE_BLOCKS) * rate_hz) - self._delay
        self._growth = max(1, round(growth_s * rate_hz))
        for _ in range(RESPONSE_BLOCKS):  # until the structure rings as it does for ever after
            self.read()

    def read(self) -> FloatArray:
        """Record the next second: (rate_hz,) float32."""
        first = self._done
        at_sensor = self._filtered(self._forces(first))
        self._done += self.rate_hz
        time = np.arange(first, self._done) - self._delay
        sensor = self.machine.sensor
        if sensor.hum_hz < self.rate_hz / 2:
            hum = np.cos(2 * np.pi * ((time * (sensor.hum_hz / self.rate_hz)) % 1.0))
            at_sensor += (10 ** (sensor.hum_db / 20) * hum).astype(np.float32)
        return measured(self.machine, self.point, at_sensor)

    def _forces(self, first: int) -> dict[str, FloatArray]:
        """Forces of the next second by path, while a fault grows as a mixture of its two sizes."""
        time = np.arange(first, first + self.rate_hz)
        grown = np.clip((time - self._onset) / self._growth, 1 if self._always else 0, 1)
        low, high = float(grown[0]), float(grown[-1])
        before = copy.deepcopy(self._run) if low != high else None
        found = self._forces_at(high, self._run)
        if before is not None:
            mixture = ((grown - low) / (high - low)).astype(np.float32)
            for path, smaller in self._forces_at(low, before).items():
                found[path] = smaller + mixture * (found[path] - smaller)
        return found

    def _forces_at(self, grown: float, run: Run) -> dict[str, FloatArray]:
        drive = begin(self.machine, self.point, self.rate_hz, run)
        found = forces(self.machine, replace(self.state, size=self.state.size * grown), drive)
        found[NOISE] = drive.white()
        return found

    def _filtered(self, found: dict[str, FloatArray]) -> FloatArray:
        """Pass forces (rate_hz,) along their paths and add them up, `_delay` samples late."""
        total = np.zeros(self._fft // 2 + 1, np.complex64)
        for path, force in found.items():
            if path not in self._filters:
                self._filters[path] = np.asarray(fft.rfft(self._response(path), self._fft), np.complex64)
                self._history[path] = np.zeros(self._taps - 1, np.float32)
            joined = np.concatenate([self._history[path], force])
            total += self._filters[path] * fft.rfft(joined, self._fft)
            self._history[path] = joined[self.rate_hz :]
        wave = fft.irfft(total, self._fft)
        return np.asarray(wave[self._taps - 1 : self._taps - 1 + self.rate_hz], np.float32)

    def _response(self, path: str) -> FloatArray:
        """Impulse response (taps,) from a force to the converter, delayed for what rings before it (a zero phase)."""
        taps, sensor = self._taps, self.machine.sensor
        if path == NOISE:
            level = 10 ** (sensor.noise_db / 20)
            response = (level * background(sensor, taps, self.rate_hz)).astype(np.complex64)
        else:
            response = sensor_response(sensor, taps, self.rate_hz).copy()
            if path:
                response *= path_response(self.machine.structure, path, taps, self.rate_hz)
        rolled = np.roll(fft.irfft(response, taps), self._delay)
        return np.asarray(rolled * signal.windows.tukey(taps, TAPER), np.float32)
