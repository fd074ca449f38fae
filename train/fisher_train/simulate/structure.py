"""From forces to samples: modal paths of the structure, background noise, the sensor."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = [
    "PATHS",
    "Sensor",
    "Structure",
    "background",
    "draw_sensor",
    "draw_structure",
    "path_response",
    "sensor_response",
]

PATHS = ("rotor", "bearing", "gear", "motor", "flow", "background")
Response = npt.NDArray[np.complex64]


@dataclass(frozen=True)
class Structure:
    """Modes that all paths share, and how strongly each path drives them."""

    mode_hz: tuple[float, ...]
    damping: tuple[float, ...]
    participation: tuple[tuple[float, ...], ...]
    """One row for each of PATHS, signed."""
    direct: tuple[float, ...]
    """What reaches the sensor without resonance, per path."""
    contact_hz: tuple[float, ...]
    """Frequency above which a path's force falls off, because contacts are not infinitely short."""


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


def draw_structure(rng: np.random.Generator) -> Structure:
    """Draw 6 to 24 modes between 30 Hz and 30 kHz."""
    count = int(rng.integers(6, 25))
    mode_hz = np.sort(np.exp(rng.uniform(np.log(30), np.log(30_000), count)))
    participation = rng.standard_normal((len(PATHS), count)) * rng.lognormal(0, 0.5, count)
    return Structure(
        mode_hz=tuple(mode_hz.tolist()),
        damping=tuple(np.exp(rng.uniform(np.log(0.005), np.log(0.12), count)).tolist()),
        participation=tuple(tuple(row) for row in participation.tolist()),
        direct=tuple((10 ** rng.uniform(-1.5, 0.3, len(PATHS))).tolist()),
        contact_hz=tuple(np.exp(rng.uniform(np.log(1500), np.log(25_000), len(PATHS))).tolist()),
    )


def draw_sensor(rng: np.random.Generator) -> Sensor:
    """Draw a sensor, good or poor."""
    return Sensor(
        high_pass_hz=float(10 ** rng.uniform(-0.5, 1.3)),
        pass_share=float(rng.uniform(0.75, 1.0)),
        noise_db=float(rng.uniform(-60, -15)),
        tilt_db=float(rng.uniform(0, 9)),
        hum_hz=float(rng.choice([50.0, 60.0])),
        hum_db=float(rng.uniform(-70, -25)),
    )


@lru_cache(maxsize=12)
def path_response(structure: Structure, path: str, samples: int, rate_hz: int) -> Response:
    """Frequency response (samples // 2 + 1,) of a path: direct share plus modes, 1 on average over the band.

    Modes are those of acceleration over force: `f^2 / (f_m^2 - f^2 + 2 i damping f f_m)`.
    """
    row = PATHS.index(path)
    f = np.fft.rfftfreq(samples, 1 / rate_hz).astype(np.float32)
    squared = f * f
    response = np.full(len(f), structure.direct[row], np.complex64)
    for mode_hz, damping, weight in zip(
        structure.mode_hz, structure.damping, structure.participation[row], strict=True
    ):
        if mode_hz > rate_hz:
            continue
        below = np.empty(len(f), np.complex64)
        below.real = np.float32(mode_hz**2) - squared
        below.imag = np.float32(2 * damping * mode_hz) * f + np.float32(1e-3)
        response += np.float32(weight * 2 * damping**0.5) * squared / below
    if path != "rotor":
        response /= 1 + squared / np.float32(structure.contact_hz[row] ** 2)
    return response / np.float32(np.sqrt(np.mean(np.abs(response) ** 2)))


@lru_cache(maxsize=4)
def sensor_response(sensor: Sensor, samples: int, rate_hz: int) -> npt.NDArray[np.float32]:
    """Amplitude response (samples // 2 + 1,) of AC coupling and anti-aliasing."""
    f = np.fft.rfftfreq(samples, 1 / rate_hz)
    high_pass = f**2 / (f**2 + sensor.high_pass_hz**2)
    edge_hz = sensor.pass_share * rate_hz / 2
    low_pass = 1 / np.sqrt(1 + (f / edge_hz) ** 24)
    return np.asarray(high_pass * low_pass, np.float32)


@lru_cache(maxsize=4)
def background(sensor: Sensor, samples: int, rate_hz: int) -> npt.NDArray[np.float32]:
    """Amplitude spectrum (samples // 2 + 1,) of background noise, 1 on average."""
    f = np.fft.rfftfreq(samples, 1 / rate_hz)
    shape = (1 + (f / 20) ** 2) ** (-sensor.tilt_db / 12.04)
    return np.asarray(shape / np.sqrt(np.mean(shape**2)), np.float32)
