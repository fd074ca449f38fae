"""CPU time that a second of one channel's signal costs a gateway, whole and by its parts. See `cost_per_second`."""

import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fisher_bench.speed.pairs import cpu_seconds
from fisher_edge.decision.bank import MemoryBank
from fisher_edge.decision.evidence import Rates
from fisher_edge.decision.judge import Judge
from fisher_edge.dsp.blocks import Block, Rate
from fisher_edge.dsp.grid import Grid
from fisher_edge.dsp.measures import Measures
from fisher_edge.dsp.segment import Segment
from fisher_edge.dsp.stream import Piece, PieceStream
from fisher_edge.dsp.views import View, view_of
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.windows import EmbeddedWindow, Reading, WindowJoiner, embed_window, read
from fisher_edge.health.signal import hum_share, signal_fault
from fisher_edge.names import ChannelKey
from fisher_edge.store.baselines import Baseline, OperatingState, Take, ViewCalibration

__all__ = ["BANK_WINDOWS", "Cost", "cost_per_second", "noise_bank", "noise_judge", "views_and_hum"]

BANK_WINDOWS = 1000
TAKES = 10
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
    judge: float


def cost_per_second(encoder: Encoder, grid: Grid, rate_hz: Rate) -> Cost:
    """Measure noise in blocks of 0.1 s on its way to a judgement by 1000 windows, as a gateway computes it."""
    front_end = encoder.bundle.front_end
    blocks, stream, joiner = _blocks(rate_hz), PieceStream(front_end, rate_hz, grid), WindowJoiner(grid)
    judge = noise_judge(encoder, grid, rate_hz)
    seconds = max(LEAST_S, grid.hop_s * max(1, round(LEAST_S / grid.hop_s)))
    last: list[tuple[Piece, Reading]] = []
    judged: list[EmbeddedWindow] = []

    def channel(duration_s: float) -> None:
        for block in itertools.islice(blocks, round(duration_s / BLOCK_S)):
            pieces = stream.push(block)
            readings = read(encoder, front_end, pieces)
            for window in filter(None, map(joiner.push, readings)):
                judged[:] = [window]
                judge.judge(window)
            last[:] = list(zip(pieces, readings, strict=True))[-1:] or last

    channel(grid.window_s + grid.hop_s + 1)
    whole = _ms(lambda: channel(seconds)) / seconds
    (piece, reading), pieces_per_s = last[0], 1 / last[0][0].seconds
    numbers = itertools.count(reading.number + 1)
    return Cost(
        whole=whole,
        stream=_ms(lambda: [stream.push(block) for block in itertools.islice(blocks, round(seconds / BLOCK_S))])
        / seconds,
        health=pieces_per_s * _ms(lambda: signal_fault(piece.samples, rate_hz)),
        measures=pieces_per_s * _ms(lambda: Measures.of(piece.samples)),
        views=pieces_per_s * _ms(lambda: views_and_hum(piece, front_end.views)),
        encoder=pieces_per_s * _ms(lambda: embed_window(encoder, front_end, [piece.bands])),
        join=_ms(lambda: [joiner.push(replace(reading, number=next(numbers))) for _ in range(grid.hop_pieces)])
        / grid.hop_s,
        judge=_ms(lambda: judge.judge(judged[0])) / grid.hop_s,
    )


def views_and_hum(piece: Piece, views: Sequence[View]) -> None:
    """Compute all that is made of the transforms that views share."""
    segment = Segment(piece.samples, piece.rate_hz, piece.amplitude)
    hum_share(segment)
    for view in views:
        view_of(view, segment)


def noise_judge(encoder: Encoder, grid: Grid, rate_hz: Rate) -> Judge:
    """Return a judge by 1000 random windows of ten recordings, with the views of the encoder."""
    front_end, rng = encoder.bundle.front_end, np.random.default_rng(0)
    take = np.repeat(np.arange(TAKES, dtype=np.int32), BANK_WINDOWS // TAKES)
    held_out = rng.uniform(0.01, 0.02, BANK_WINDOWS)
    bins = sum(view.bins for view in front_end.views)
    normal = Baseline(
        key=ChannelKey("bench", "noise"),
        label=None,
        model_name=encoder.name,
        model_sha256=encoder.sha256,
        front_end=replace(front_end, views=()),
        rate_hz=rate_hz,
        grid=grid,
        vectors=noise_bank(front_end.n_bands(rate_hz), encoder.bundle.dim).vectors,
        take=take,
        offset_s=np.tile(grid.window_s + grid.hop_s * np.arange(BANK_WINDOWS // TAKES), TAKES),
        level=0.01 * rng.standard_normal(BANK_WINDOWS),
        takes=tuple(Take(f"take {number}") for number in range(TAKES)),
        states=(OperatingState("1", held_out, 0.0, 0.01),),
        view_calibrations=tuple(ViewCalibration(view, held_out) for view in front_end.views),
        views=rng.random((BANK_WINDOWS, bins)).astype(np.float32) if bins else None,
    )
    return Judge([normal], front_end, Rates(), grid.hop_s)


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
