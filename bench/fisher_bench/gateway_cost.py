"""CPU time that a second of one channel's signal costs a gateway, whole and by its parts. See `cost_per_second`."""

import itertools
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from fisher_bench.pairs import cpu_seconds
from fisher_edge.decision.bank import MemoryBank
from fisher_edge.dsp.blocks import Block, Rate
from fisher_edge.dsp.grid import Grid
from fisher_edge.dsp.measures import Measures
from fisher_edge.dsp.stream import Piece, PieceStream
from fisher_edge.dsp.views import view_vector
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.windows import Reading, WindowJoiner, embed_window, read
from fisher_edge.health.signal import hum_share, signal_fault

__all__ = ["BANK_WINDOWS", "Cost", "cost_per_second", "noise_bank"]

BANK_WINDOWS = 1000
BLOCK_S = 0.1
LEAST_S = 4.0
REPEATS = 7


@dataclass(frozen=True)
class Cost:
    """CPU milliseconds that a second of signal costs on one thread, as a whole and by part.

    `whole` is one run over all parts. Each part is also measured alone, with warmer caches, so their sum is smaller.
    """

    whole: float
    stream: float
    health: float
    measures: float
    views: float
    encoder: float
    join: float
    knn: float


def cost_per_second(encoder: Encoder, grid: Grid, rate_hz: Rate) -> Cost:
    """Measure noise in blocks of 0.1 s on its way to the nearest of 1000 windows, as a gateway computes it."""
    front_end = encoder.bundle.front_end
    blocks, stream, joiner = _blocks(rate_hz), PieceStream(front_end, rate_hz, grid), WindowJoiner(grid)
    bank = noise_bank(front_end.n_bands(rate_hz), encoder.bundle.dim)
    seconds = max(LEAST_S, grid.hop_s * max(1, round(LEAST_S / grid.hop_s)))
    last: list[tuple[Piece, Reading]] = []

    def channel(duration_s: float) -> None:
        for block in itertools.islice(blocks, round(duration_s / BLOCK_S)):
            pieces = stream.push(block)
            readings = read(encoder, front_end, pieces)
            for window in filter(None, map(joiner.push, readings)):
                bank.nearest(window.embedding)
            last[:] = list(zip(pieces, readings, strict=True))[-1:] or last

    channel(grid.window_s + grid.hop_s + 1)
    whole = _ms(lambda: channel(seconds)) / seconds
    (piece, reading), pieces_per_s = last[0], 1 / last[0][0].seconds
    numbers = itertools.count(reading.number + 1)
    return Cost(
        whole=whole,
        stream=_ms(lambda: [stream.push(block) for block in itertools.islice(blocks, round(seconds / BLOCK_S))])
        / seconds,
        health=pieces_per_s * _ms(lambda: (signal_fault(piece.samples, rate_hz), hum_share(piece.samples, rate_hz))),
        measures=pieces_per_s * _ms(lambda: Measures.of(piece.samples)),
        views=pieces_per_s * _ms(lambda: [view_vector(view, piece.samples, rate_hz) for view in front_end.views]),
        encoder=pieces_per_s * _ms(lambda: embed_window(encoder, front_end, [piece.bands])),
        join=_ms(lambda: [joiner.push(replace(reading, number=next(numbers))) for _ in range(grid.hop_pieces)])
        / grid.hop_s,
        knn=_ms(lambda: bank.nearest(reading.embedding)) / grid.hop_s,
    )


def noise_bank(bands: int, dim: int) -> MemoryBank:
    """Return a bank of 1000 random windows."""
    return MemoryBank.of(np.random.default_rng(0).standard_normal((BANK_WINDOWS, bands, dim)).astype(np.float32))


def _blocks(rate_hz: Rate) -> Iterator[Block]:
    """Yield white noise without end, repeated every ten seconds."""
    samples = max(1, round(BLOCK_S * rate_hz))
    noise = np.random.default_rng(0).standard_normal((100, samples)).astype(np.float32)
    for number in itertools.count():
        yield Block(noise[number % len(noise)], rate_hz, number * samples, number * BLOCK_S)


def _ms(call: Callable[[], object]) -> float:
    """Return the median CPU milliseconds of some calls."""
    return 1000 * statistics.median(cpu_seconds(call) for _ in range(REPEATS))
