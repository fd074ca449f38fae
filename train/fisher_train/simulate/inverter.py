"""The converter: the remains of its switching in addition to the fundamental.

Source: Holmes and Lipo, Pulse Width Modulation for Power Converters (2003), chapter 4: naturally sampled sine-triangle
modulation has lines at m carrier + n line of size (2/(m pi)) J_n(m pi M / 2), for odd m at even n and the reverse; the
carrier itself and lines whose n is a multiple of three are the same in all wires and cancel between them.
"""

from functools import lru_cache

import numpy as np
from scipy import special

from fisher_edge.dsp.blocks import FloatArray
from fisher_train.simulate.motion import Drive
from fisher_train.simulate.shaft import cosine, phase_of

__all__ = ["draw_carrier", "ripple", "side_lines"]

LINES = ((1, 2), (1, 4), (2, 1), (2, 5))
"""(m, n) of the lines between two wires that are above a tenth of the largest."""
MODULATION = 0.8


def draw_carrier(rng: np.random.Generator) -> float:
    """Draw a usual switching frequency in Hz."""
    return float(rng.choice([2000.0, 4000.0, 5000.0, 8000.0, 16000.0]))


@lru_cache(maxsize=1)
def side_lines() -> dict[tuple[int, int], float]:
    """Amplitudes of LINES relative to the largest."""
    size = {(m, n): abs(2 / (m * np.pi) * special.jv(n, m * np.pi * MODULATION / 2)) for m, n in LINES}
    largest = max(size.values())
    return {line: float(amplitude / largest) for line, amplitude in size.items()}


def ripple(drive: Drive, carrier_hz: float, level: float, wire: int = 0) -> FloatArray:
    """Lines around the carrier (samples,), the largest of size `level`; those above half the rate are filtered."""
    total = np.zeros(drive.samples, np.float32)
    if not carrier_hz or not level:
        return total
    for (m, n), size in side_lines().items():
        if m * carrier_hz + n * drive.line_hz >= drive.rate_hz / 2:
            continue
        carrier = cosine(phase_of(drive.time_s * (m * carrier_hz)))
        carrier *= cosine(phase_of((drive.cycles - wire / 3) * n))
        total += np.float32(2 * level * size) * carrier  # one line of this size on either side
    return total
