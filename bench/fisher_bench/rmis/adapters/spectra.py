"""Plain spectra, what an encoder has to beat. Start at `open_adapter`."""

import numpy as np

from fisher_bench.judge.corpus import Window
from fisher_bench.judge.represent import CHEAP
from fisher_bench.rmis.adapters.adapter import Adapter, digest_of
from fisher_bench.rmis.adapters.fisher import OUR_FRONT_END
from fisher_bench.rmis.adapters.spec import nearest
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.errors import UsageError

__all__ = ["SPECTRA", "open_adapter"]

SPECTRA = {
    "mean-log-stft": "mean log-STFT",
    "mean-std": "mean + std",
    "log-mel": "log-mel",
    "envelope": "envelope spectrum",
}
"""From the name in a spec to the judge's; mel bands reach up to half the rate."""


def open_adapter(argument: str) -> Adapter:
    """Open a spectrum by name; windows are brought to one standard deviation first."""
    if argument not in SPECTRA:
        raise UsageError(f"no spectrum is called {argument!r}; {nearest(argument, list(SPECTRA))}")
    represent = CHEAP[SPECTRA[argument]](OUR_FRONT_END)

    def compute(wave: FloatArray, rate_hz: int) -> FloatArray:
        deviation = float(np.std(wave, dtype=np.float64))
        row: FloatArray = represent([Window(wave, rate_hz, deviation, facts={}, start=0)])[0]
        return row

    return Adapter(SPECTRA[argument], digest_of(argument, {"front_end": OUR_FRONT_END.to_dict()}), 0, compute)
