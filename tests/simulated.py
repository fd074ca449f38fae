"""What the tests of simulated machines share: a steady drive, and estimators of lines that know nothing of theory."""

from typing import Any

import numpy as np
from scipy import signal

from fisher_train.simulate.damage import SOUND, Damage, draw_specimen
from fisher_train.simulate.motion import Drive, Run

RATE_HZ = 20_000
SAMPLES = 5 * RATE_HZ
SPEED_HZ = 30.0
FLAT = SOUND.specimen
"""A specimen whose added orders are those of the text book."""


def rng(seed: int = 0) -> np.random.Generator:
    """Return a generator of its own for each use."""
    return np.random.default_rng(seed)


def turning(
    speed_hz: float = SPEED_HZ,
    *,
    line_hz: float = 50.0,
    speed: float = 1.0,
    load: float = 1.0,
    samples: int = SAMPLES,
    rate_hz: int = RATE_HZ,
    seed: int = 0,
) -> Drive:
    """Return a nearly steady drive."""
    run = Run(rate_hz, rng(seed))
    return run.advance(samples, speed_hz=speed_hz, fluctuation=1e-5, line_hz=line_hz, speed=speed, load=load)


def damage(fault: str, size: float = 1.0, *, specimen: int | None = None) -> Damage:
    """Return a fault, of a drawn specimen or of the one of the text book."""
    return Damage(fault, size, FLAT if specimen is None else draw_specimen(1, "part", fault, specimen))


def amplitude_at(wave: Any, hz: float, *, within_hz: float = 0.4, rate_hz: int = RATE_HZ) -> float:
    """Return the largest amplitude of a spectral line near a frequency."""
    spectrum = np.abs(np.fft.rfft(wave * signal.windows.hann(len(wave), sym=False))) * 4 / len(wave)
    f = np.fft.rfftfreq(len(wave), 1 / rate_hz)
    return float(spectrum[np.abs(f - hz) <= within_hz].max())


def strongest_hz(wave: Any, low_hz: float, high_hz: float, *, rate_hz: int = RATE_HZ) -> float:
    """Return the frequency of the strongest line between two frequencies."""
    spectrum = np.abs(np.fft.rfft(wave * signal.windows.hann(len(wave), sym=False)))
    f = np.fft.rfftfreq(len(wave), 1 / rate_hz)
    spectrum[(f < low_hz) | (f > high_hz)] = 0
    return float(f[spectrum.argmax()])


def envelope(wave: Any) -> np.ndarray:
    """Return the envelope without its mean."""
    found = np.abs(signal.hilbert(wave))
    return np.asarray(found - found.mean())


def ringing(wave: Any, low_hz: float = 3000, high_hz: float = 5000) -> np.ndarray:
    """Return the wave behind a resonance."""
    return np.asarray(signal.sosfilt(signal.butter(2, (low_hz, high_hz), "bandpass", fs=RATE_HZ, output="sos"), wave))


def rms(wave: Any) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(wave))))
