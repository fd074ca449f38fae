"""A machine for tests: harmonics in noise, to which a fault adds a ringing at a high frequency."""

from pathlib import Path

import numpy as np
import soundfile

from fisher_edge.dsp.blocks import FloatArray

__all__ = ["EXAMPLES", "RATE_HZ", "machine_signal", "sound_file"]

RATE_HZ = 16_000
EXAMPLES = Path(__file__).parents[1] / "examples"


def machine_signal(seed: int, seconds: float = 4.0, *, fault_hz: float = 0.0, gain: float = 1.0) -> FloatArray:
    """Return a signal (n,) at 16 kHz; with `fault_hz` a tone of that frequency comes and goes 20 times a second."""
    random = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    signal = 0.3 * random.standard_normal(len(time_s))
    for harmonic in (1, 2, 3):
        signal += np.sin(2 * np.pi * (97.0 * harmonic * time_s + random.random())) / harmonic
    if fault_hz:
        signal += np.sin(2 * np.pi * fault_hz * time_s) * (np.sin(2 * np.pi * 20 * time_s) > 0)
    return (0.1 * gain * signal).astype(np.float32)


def sound_file(path: Path, signal: FloatArray, rate_hz: int = RATE_HZ) -> Path:
    """Write a signal as float WAV and return the path."""
    soundfile.write(path, signal, rate_hz, subtype="FLOAT")
    return path
