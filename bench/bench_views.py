"""Cost of the views of a piece, against embedding it.

    pytest bench/bench_views.py -s

Seconds depend on the machine and are only shown; what is asserted are ratios.
"""

from typing import Any

import numpy as np
import pytest

from fisher_bench.speed.pairs import cpu_ratio
from fisher_edge.dsp.grid import pieces_of
from fisher_edge.dsp.views import ENVELOPE, MODULATION, View, view_vector
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.select import open_encoder
from fisher_edge.encoder.windows import embed_window


@pytest.mark.parametrize("rate_hz", [16_000, 51_200])
@pytest.mark.parametrize("view", [ENVELOPE, MODULATION, View("slow")], ids=lambda view: view.name)
def test_view_of_a_piece_against_its_embedding(benchmark: Any, view: View, rate_hz: int) -> None:
    """A view of a piece takes less CPU time than its front-end and encoder."""
    encoder = open_encoder(load_bundle("default"))
    front_end = encoder.bundle.front_end
    samples = front_end.n_samples(front_end.piece_frames, rate_hz)
    wave = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    ratio = cpu_ratio(
        lambda: embed_window(encoder, front_end, pieces_of(front_end, wave, rate_hz)),
        lambda: view_vector(view, wave, rate_hz),
        pairs=25,
    )
    benchmark.pedantic(view_vector, (view, wave, rate_hz), rounds=5)
    benchmark.extra_info["the embedding takes"] = f"{ratio:.2f} times as long"
    print(f"\n{view.name}, a piece at {rate_hz} Hz: the embedding takes {ratio:.2f} times as long")
    assert ratio > 1
