"""Which rate a batch has and which recordings it holds: only those recorded at that rate or above.

Start at `RateGroups`. Source: FISHER (arXiv 2507.16696), section II: per batch one rate out of the harmonics of the
base frequency, which is the width of a sub-band.
"""

from collections.abc import Sequence

import numpy as np

from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.errors import BadInputError, UsageError
from fisher_train.recordings.recording import Recording

__all__ = ["HIGHEST_HZ", "RateGroups", "base_frequency_hz", "harmonics_hz"]

HIGHEST_HZ = 32_000
MIN_FRAMES = 16
"""A recording must fill one patch."""


def base_frequency_hz(front_end: FrontEnd) -> int:
    """Width of a sub-band: 4 kHz for bands of 100 bins, 2 kHz for bands of 50."""
    return front_end.band_width * 1000 // front_end.win_ms


def harmonics_hz(front_end: FrontEnd, highest_hz: int = HIGHEST_HZ) -> list[int]:
    """Rates that batches may have: the multiples of the base frequency up to `highest_hz`."""
    base_hz = base_frequency_hz(front_end)
    return list(range(base_hz, highest_hz + 1, base_hz))


class RateGroups:
    """Recordings ordered by rate, so that those that may be in a batch of some rate are the first of them.

    A recording slower than the base frequency is in no batch of a harmonic. Such recordings get batches of their own
    at their own rate, all together as often as one harmonic.
    """

    def __init__(self, recordings: Sequence[Recording], front_end: FrontEnd, highest_hz: int = HIGHEST_HZ) -> None:
        """Group recordings.

        Raises BadInputError when none is long enough, UsageError when `highest_hz` leaves no rate for them.
        """
        usable = [one for one in recordings if front_end.n_frames(one.samples, one.rate_hz) >= MIN_FRAMES]
        if not usable:
            raise BadInputError(
                f"none of {len(recordings)} recordings spans {MIN_FRAMES} frames of {front_end.hop_ms} ms; record "
                "longer"
            )
        self.recordings = sorted(usable, key=lambda one: -one.rate_hz)  # stable: the order of the corpus within a rate
        self._rates = np.array([one.rate_hz for one in self.recordings])
        self._seconds = np.cumsum([one.seconds for one in self.recordings])
        fastest = min(highest_hz, int(self._rates[0]))
        self.rates_hz = [rate for rate in harmonics_hz(front_end, highest_hz) if rate <= fastest]
        """Harmonics for which there is a recording."""
        self._slow_from = self._count(base_frequency_hz(front_end))
        if not self.rates_hz and self._slow_from:
            raise UsageError(
                f"highest_hz={highest_hz} is below the base frequency of {base_frequency_hz(front_end)} Hz; raise it"
            )

    def draw_rate(self, rng: np.random.Generator) -> int:
        """Draw the rate (Hz) of a batch: evenly among the harmonics, and among them once the slow recordings."""
        slow = self._slow_from < len(self.recordings)
        place = int(rng.integers(len(self.rates_hz) + slow))
        if place < len(self.rates_hz):
            return self.rates_hz[place]
        return int(self._rates[self._draw(rng, self._slow_from, len(self.recordings))])

    def draw_recording(self, rng: np.random.Generator, rate_hz: int) -> Recording:
        """Draw a recording for a batch of some rate: every second recorded is as likely as any other."""
        end = self._count(rate_hz)
        first = int(np.searchsorted(-self._rates, -rate_hz)) if end > self._slow_from else 0
        return self.recordings[self._draw(rng, first, end)]

    def _count(self, rate_hz: int) -> int:
        """Count the recordings at `rate_hz` or above."""
        return int(np.searchsorted(-self._rates, -rate_hz, side="right"))

    def _draw(self, rng: np.random.Generator, first: int, end: int) -> int:
        """Draw one of the recordings [first, end) in proportion to its length."""
        before = self._seconds[first - 1] if first else 0.0
        wanted = before + rng.random() * (self._seconds[end - 1] - before)
        return min(int(np.searchsorted(self._seconds, wanted, side="right")), end - 1)
