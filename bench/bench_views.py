"""Cost of the views of a window, against embedding it.

    pytest bench/bench_views.py -s

Seconds depend on the machine and are only shown; what is asserted are ratios.
"""

from typing import Any

import numpy as np
import pytest

from fisher_bench.pairs import cpu_ratio
from fisher_edge.dsp.views import ENVELOPE, MODULATION, View, view_vector
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.ort import EncoderSession


@pytest.mark.parametrize("rate_hz", [16_000, 51_200])
@pytest.mark.parametrize("seconds", [1.0, 10.24])
@pytest.mark.parametrize("view", [ENVELOPE, MODULATION, View("slow")], ids=lambda view: view.name)
def test_view_against_the_embedding(benchmark: Any, view: View, seconds: float, rate_hz: int) -> None:
    """A view takes less CPU time than front-end and encoder; a long envelope, out of the cache, up to 2.5 times it."""
    session = EncoderSession(load_bundle("default"))
    front_end = session.bundle.front_end
    wave = np.random.default_rng(0).standard_normal(round(seconds * rate_hz)).astype(np.float32)
    ratio = cpu_ratio(
        lambda: session.embed(front_end.sub_bands(wave, rate_hz)), lambda: view_vector(view, wave, rate_hz)
    )
    benchmark.pedantic(view_vector, (view, wave, rate_hz), rounds=5)
    benchmark.extra_info["the embedding takes"] = f"{ratio:.2f} times as long"
    print(f"\n{view.name}, {seconds} s at {rate_hz} Hz: the embedding takes {ratio:.2f} times as long")
    assert ratio > (0.4 if view is ENVELOPE and seconds > 1 else 1)
