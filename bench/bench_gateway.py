"""Cost of a second of signal in a gateway, against windows that are each computed by themselves.

    pytest bench/bench_gateway.py -s

Seconds depend on the machine and are only shown; what is asserted are ratios.
"""

from typing import Any

import numpy as np
import pytest

from fisher_bench.speed.gateway_cost import cost_per_second
from fisher_bench.speed.pairs import cpu_ratio
from fisher_edge.dsp.blocks import Block
from fisher_edge.dsp.grid import grid_of
from fisher_edge.dsp.stream import PieceStream
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.select import open_encoder
from fisher_edge.encoder.windows import WindowJoiner, read


@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_stream_against_windows_afresh(benchmark: Any, rate_hz: int) -> None:
    """A window of 11 pieces every 2 reads 2 pieces: several times cheaper than reading all of it again."""
    encoder = open_encoder(load_bundle())
    front_end = encoder.bundle.front_end
    grid = grid_of(front_end, 10.24, 2.0, rate_hz)
    samples = front_end.n_samples((grid.window_pieces + 2 * grid.hop_pieces) * grid.piece_frames, rate_hz)
    wave = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    pieces = PieceStream(front_end, rate_hz, grid).push(Block(wave, rate_hz, 0, 0.0))
    starts = range(0, len(pieces) - grid.window_pieces + 1, grid.hop_pieces)

    def windows(chunks: list[int]) -> int:
        joiner, found = WindowJoiner(grid), 0
        for number in chunks:
            found += joiner.push(read(encoder, front_end, [pieces[number]])[0]) is not None
        return found

    def stream() -> int:
        return windows(list(range(len(pieces))))

    def afresh() -> int:
        return sum(windows(list(range(start, start + grid.window_pieces))) for start in starts)

    assert stream() == afresh() == len(starts) == 3
    ratio = cpu_ratio(afresh, stream, pairs=5)
    benchmark.pedantic(cost_per_second, (encoder, grid, rate_hz), rounds=1)
    benchmark.extra_info["windows afresh take"] = f"{ratio:.2f} times as long"
    print(f"\n{rate_hz} Hz: three windows computed afresh take {ratio:.2f} times as long as their stream")
    assert ratio > 1.8
