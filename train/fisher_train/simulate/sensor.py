"""The sensor and its electronics: response, noise floor, and a converter that clips and rounds."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from fisher_edge.dsp.blocks import FloatArray

__all__ = ["Modality", "Sensor", "background", "digitise", "draw_sensor", "sensor_response"]

Modality = Literal["vibration", "sound", "current", "voltage"]


@dataclass(frozen=True)
class Sensor:
    """A transducer with its electronics."""

    high_pass_hz: float
    pass_share: float
    """Share of half the sampling rate up to which the anti-aliasing filter passes."""
    noise_db: float
    """White noise relative to the signal of the healthy machine."""
    tilt_db: float
    """Background noise falls by so many dB per octave."""
    hum_hz: float
    hum_db: float
    gain_db: float = 0.0
    full_scale: float = np.inf
    """Largest value the converter gives, after the gain; infinite: it neither clips nor rounds."""
    bits: int = 24
    mount_hz: float = 0.0
    """Resonance of an accelerometer on its mounting; 0: none."""
    mount_damping: float = 0.05
    wire: int = 0
    """Which of three wires a current or voltage is measured on: 0, 1 or 2."""

    @property
    def step(self) -> float:
        """Smallest difference the converter resolves."""
        return float(self.full_scale / 2 ** (self.bits - 1))


def draw_sensor(rng: np.random.Generator, modality: Modality, healthy_rms: float) -> Sensor:
    """Draw a sensor, good or poor; its range is 10 to 100 times the RMS of the healthy machine."""
    gain_db = float(rng.uniform(-6, 6))
    sensor = Sensor(
        high_pass_hz=float(10 ** rng.uniform(-0.5, 1.3)),
        pass_share=float(rng.uniform(0.75, 1.0)),
        noise_db=float(rng.uniform(-60, -15)),
        tilt_db=float(rng.uniform(0, 9)),
        hum_hz=float(rng.choice([50.0, 60.0])),
        hum_db=float(rng.uniform(-70, -25)),
        gain_db=gain_db,
        full_scale=float(10 ** (rng.uniform(1, 2) + gain_db / 20) * healthy_rms),
        bits=int(rng.choice([12, 16, 16, 24])),
    )
    if modality == "sound":  # other machines and the room are always heard
        return replace(sensor, noise_db=float(rng.uniform(-35, -5)), high_pass_hz=float(rng.uniform(10, 60)))
    if modality == "vibration" and rng.uniform() < 0.5:  # a magnet or a long stud resonates within the band
        return replace(sensor, mount_hz=float(np.exp(rng.uniform(np.log(2e3), np.log(4e4)))))
    if modality in {"current", "voltage"}:
        return replace(sensor, wire=int(rng.integers(3)))
    return sensor


@lru_cache(maxsize=4)
def sensor_response(sensor: Sensor, samples: int, rate_hz: int) -> npt.NDArray[np.complex64]:
    """Response (samples // 2 + 1,) of AC coupling, mounting and anti-aliasing.

    The mounted accelerometer is an oscillator: `1 / (1 - x^2 + 2 i damping x)` with `x = f / mount_hz` (ISO 5348).
    """
    f = np.fft.rfftfreq(samples, 1 / rate_hz)
    high_pass = f**2 / (f**2 + sensor.high_pass_hz**2)
    edge_hz = sensor.pass_share * rate_hz / 2
    response = np.asarray(high_pass / np.sqrt(1 + (f / edge_hz) ** 24), np.complex64)
    if sensor.mount_hz:
        x = f / sensor.mount_hz
        response /= (1 - x**2 + 2j * sensor.mount_damping * x).astype(np.complex64)
    return response


@lru_cache(maxsize=4)
def background(sensor: Sensor, samples: int, rate_hz: int) -> npt.NDArray[np.float32]:
    """Amplitude spectrum (samples // 2 + 1,) of background noise, 1 on average."""
    f = np.fft.rfftfreq(samples, 1 / rate_hz)
    shape = (1 + (f / 20) ** 2) ** (-sensor.tilt_db / 12.04)
    return np.asarray(shape / np.sqrt(np.mean(shape**2)), np.float32)


def digitise(sensor: Sensor, wave: npt.NDArray[np.floating]) -> FloatArray:
    """What the converter makes of a wave: times the gain, clipped at full scale, rounded to its steps."""
    amplified = np.asarray(wave * 10 ** (sensor.gain_db / 20), np.float32)
    if not np.isfinite(sensor.full_scale):
        return amplified
    amplified /= np.float32(sensor.step)
    np.rint(amplified, out=amplified)
    half = 2.0 ** (sensor.bits - 1)
    np.clip(amplified, -half, half - 1, out=amplified)
    amplified *= np.float32(sensor.step)
    return amplified
