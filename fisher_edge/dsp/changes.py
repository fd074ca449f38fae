"""Changes that are injected into a stretch of signal to see whether they would be noticed. Start at `tried`.

A louder band, impulses as of a damaged bearing, and a tone. The overall level needs no injection.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fisher_edge.dsp.blocks import FloatArray

__all__ = ["Change", "Kind", "Spot", "Unit", "changed", "tried"]

Spot = tuple[FloatArray, ...]
"""A stretch of signal that makes one piece: one array (n,), or one for each burst."""
Kind = Literal["level", "band", "impulses", "tone"]
Unit = Literal["dB", "share"]
BAND_DB = (6.0, 3.0, 1.0)
SHARES = (0.3, 0.1, 0.03, 0.01)
"""Of the energy of the changed signal."""
IMPULSE_HZ = 90.0
"""Impulses a second, as of a rolling element bearing at 1500 to 1800 rpm."""
RING_HZ = 3000.0
# The resonance and the tone lie below this share of half the rate, where every front-end listens.
HIGHEST = 0.6
RING_PERIODS = 3.0
"""Periods of the resonance in which it decays to 1/e."""
TONE_SHARE = 0.37
"""Frequency of the tone as a share of half the rate: a line that no harmonic of a machine is likely to meet."""


@dataclass(frozen=True)
class Change:
    """One kind of change, the frequencies (Hz) it touches, and the sizes that are tried, the largest first."""

    kind: Kind
    unit: Unit
    low_hz: float
    high_hz: float
    sizes: tuple[float, ...]


def tried(edges_hz: Sequence[tuple[float, float]], rate_hz: float) -> list[Change]:
    """Return all changes that are tried at a rate: one for each sub-band, impulses, and a tone."""
    ring_hz = min(RING_HZ, HIGHEST * rate_hz / 2)
    tone_hz = TONE_SHARE * rate_hz / 2
    bands = [Change("band", "dB", low_hz, high_hz, BAND_DB) for low_hz, high_hz in edges_hz]
    return [
        *bands,
        Change("impulses", "share", ring_hz, ring_hz, SHARES),
        Change("tone", "share", tone_hz, tone_hz, SHARES),
    ]


def changed(spot: Spot, change: Change, size: float, rate_hz: float) -> Spot:
    """Return a spot as it would be with a change of one size."""
    if change.kind == "band":
        return tuple(_louder(part, change, size, rate_hz) for part in spot)
    wave = _impulses if change.kind == "impulses" else _tone
    added = [wave(len(part), change.low_hz, rate_hz) for part in spot]
    power = sum(float(np.var(part, dtype=np.float64)) * len(part) for part in spot)
    own = sum(float((part**2).sum()) for part in added)
    gain = np.sqrt(size / (1 - size) * power / own)
    return tuple((part + gain * extra).astype(np.float32) for part, extra in zip(spot, added, strict=True))


def _louder(part: FloatArray, change: Change, size_db: float, rate_hz: float) -> FloatArray:
    """Raise the level of one band."""
    spectrum = np.fft.rfft(part)
    hz = np.fft.rfftfreq(len(part), 1 / rate_hz)
    spectrum[(hz >= change.low_hz) & (hz < change.high_hz)] *= 10 ** (size_db / 20)
    return np.asarray(np.fft.irfft(spectrum, len(part)), np.float32)


def _impulses(samples: int, ring_hz: float, rate_hz: float) -> FloatArray:
    """Impulses behind a resonance."""
    since_s = np.mod(np.arange(samples) / rate_hz, 1 / IMPULSE_HZ)
    decay = np.exp(-since_s * ring_hz / RING_PERIODS)
    return np.asarray(decay * np.sin(2 * np.pi * ring_hz * since_s), np.float32)


def _tone(samples: int, tone_hz: float, rate_hz: float) -> FloatArray:
    """A sine of a frequency."""
    return np.asarray(np.sin(2 * np.pi * tone_hz * np.arange(samples) / rate_hz), np.float32)
