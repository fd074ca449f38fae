"""Percentiles of each stage that a signal passes: read, spectra, views, encoder, distance, publish. See `measure`."""

import itertools
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from fisher_bench.speed.gateway_cost import noise_judge, views_and_hum
from fisher_edge.decision.judgement import Judgement, Result, Standing, State
from fisher_edge.dsp.blocks import Block, Rate
from fisher_edge.dsp.grid import Grid
from fisher_edge.dsp.measures import Measures
from fisher_edge.dsp.stream import Piece, PieceStream
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.windows import EmbeddedWindow, WindowJoiner, embed_window, read
from fisher_edge.health.signal import signal_fault
from fisher_edge.names import ChannelKey
from fisher_edge.publish.address import BrokerAddress
from fisher_edge.publish.broker import EmbeddedBroker
from fisher_edge.publish.message import Info, Topics
from fisher_edge.publish.mqtt import Publisher
from fisher_edge.sources.recording import RecordingSource
from fisher_edge.sources.source import SourceContext
from fisher_edge.store.database import Database
from fisher_edge.store.records import Limits, Records

__all__ = ["Stage", "encoder_stage", "measure", "to_dict"]

KEY = ChannelKey("bench", "noise")
LIMITS = Limits(waiting_bytes=1 << 28, waiting_s=86_400.0, history_bytes=1 << 28, history_s=86_400.0)
PERCENTILES = (50, 90, 99)
REPEATS = 100
DELIVERIES = 20
ROUNDS_TO_WARM_UP = 5


@dataclass(frozen=True)
class Stage:
    """Milliseconds of one stage, once: percentiles of wall time and of CPU time of the thread that does it.

    `what` says what once is: a block, a piece or a window. A stage that waits for others has no CPU time of its own.
    """

    name: str
    what: str
    wall_ms: dict[str, float]
    cpu_ms: dict[str, float] | None


def measure(encoder: Encoder, grid: Grid, rate_hz: Rate) -> list[Stage]:
    """Measure all stages with noise, as a gateway runs them, one after the other in this process.

    `publish` is writing a result into the records; `deliver` lasts from then until the broker has acknowledged it, most
    of which is the pause between two looks at the records.
    """
    front_end = encoder.bundle.front_end
    with tempfile.TemporaryDirectory(prefix="fisher-edge-bench-") as name:
        folder = Path(name)
        blocks = _blocks(folder, rate_hz)
        stages = [_timed("read", "a block of 0.1 s", lambda: next(blocks))]
        pieces, window = _pieces_and_window(encoder, grid, rate_hz, blocks)
        turns = itertools.cycle(pieces)
        fresh = _fresh_blocks(front_end.n_samples(grid.piece_frames, rate_hz), rate_hz)
        judge = noise_judge(encoder, grid, rate_hz)
        stages += [
            _timed("spectra", "a piece", lambda: PieceStream(front_end, rate_hz, grid).push(next(fresh))),
            _timed("views", "a piece", lambda: views_and_hum(next(turns), front_end.views)),
            _timed("health", "a piece", lambda: _health(next(turns))),
            _timed("encoder", "a piece", lambda: embed_window(encoder, front_end, [next(turns).bands])),
            _timed("distance", "a window", lambda: judge.judge(window)),
        ]
        with _records(folder) as (put, wait):
            judgement = judge.judge(window)
            stages.append(_timed("publish", "a window", lambda: put(judgement), after=wait))
            delivered = _timed("deliver", "a window", wait, before=lambda: put(judgement), repeats=DELIVERIES)
            stages.append(replace(delivered, cpu_ms=None))
        return stages


def encoder_stage(encoder: Encoder, grid: Grid, rate_hz: Rate) -> Stage:
    """Measure the encoder alone, with pieces of noise."""
    front_end, rng = encoder.bundle.front_end, np.random.default_rng(2)
    waves = rng.standard_normal((8, front_end.n_samples(grid.piece_frames, rate_hz)), np.float32)
    turns = itertools.cycle([front_end.sub_bands(wave, rate_hz) for wave in waves])
    return _timed("encoder", "a piece", lambda: embed_window(encoder, front_end, [next(turns)]))


def to_dict(stages: list[Stage]) -> dict[str, Any]:
    """Return stages by name as JSON values."""
    return {stage.name: {key: value for key, value in asdict(stage).items() if key != "name"} for stage in stages}


def _timed(
    name: str,
    what: str,
    call: Callable[[], object],
    *,
    before: Callable[[], object] = lambda: None,
    after: Callable[[], object] = lambda: None,
    repeats: int = REPEATS,
) -> Stage:
    """Time many calls; what happens before and after each does not count."""
    wall_ms, cpu_ms = [], []
    for number in range(ROUNDS_TO_WARM_UP + repeats):
        before()
        wall_s, cpu_s = time.perf_counter(), time.thread_time()
        call()
        cpu_s, wall_s = time.thread_time() - cpu_s, time.perf_counter() - wall_s
        after()
        if number >= ROUNDS_TO_WARM_UP:
            wall_ms.append(1000 * wall_s)
            cpu_ms.append(1000 * cpu_s)
    return Stage(name, what, _percentiles(wall_ms), _percentiles(cpu_ms))


def _percentiles(values: list[float]) -> dict[str, float]:
    return {f"p{share}": float(np.percentile(values, share)) for share in PERCENTILES}


def _blocks(folder: Path, rate_hz: Rate) -> Iterator[Block]:
    """Yield the blocks of a recording of noise, again and again, as its source reads them."""
    rate = round(rate_hz)
    noise = 0.1 * np.random.default_rng(0).standard_normal(30 * rate, np.float32)
    soundfile.write(folder / "noise.wav", noise, rate, subtype="PCM_16")
    source = RecordingSource(SourceContext(KEY), (folder / "noise.wav",), rate_hz, speed=0.0, loop=True)
    with source:
        yield from source.blocks(threading.Event())


def _fresh_blocks(samples: int, rate_hz: Rate) -> Iterator[Block]:
    """Yield blocks of one piece each, which follow each other."""
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((16, samples), np.float32)
    for number in itertools.count():
        yield Block(noise[number % len(noise)], rate_hz, 0, 0.0)


def _pieces_and_window(
    encoder: Encoder, grid: Grid, rate_hz: Rate, blocks: Iterator[Block]
) -> tuple[list[Piece], EmbeddedWindow]:
    """Read until a window is complete."""
    stream, joiner = PieceStream(encoder.bundle.front_end, rate_hz, grid), WindowJoiner(grid)
    pieces: list[Piece] = []
    for block in blocks:
        for piece in stream.push(block):
            pieces.append(piece)
            (reading,) = read(encoder, encoder.bundle.front_end, [piece])
            window = joiner.push(reading)
            if window is not None:
                return pieces, window
    raise AssertionError("a source that loops does not end")


def _health(piece: Piece) -> None:
    """Check and measure the samples of a piece."""
    signal_fault(piece.samples, piece.rate_hz)
    Measures.of(piece.samples)


@contextmanager
def _records(folder: Path) -> Iterator[tuple[Callable[[Judgement], None], Callable[[], None]]]:
    """Open a database and a publisher to a broker in this process: how to put a result, and to wait for delivery."""
    state, log = folder / "state", logging.getLogger("fisher_edge.publish")
    level = log.level
    log.setLevel(logging.WARNING)  # that it connects is no news here
    with EmbeddedBroker() as broker, Database(state) as database:
        boot = database.new_boot()
        records = Records(database, boot, limits=LIMITS)
        topics, info = Topics("fisher-edge", "bench"), Info("bench", "", "", "", ())
        address = BrokerAddress.parse(broker.url)
        publisher = Publisher(state, address, topics, boot, limits=LIMITS, channels=[KEY], info=info)
        publisher.start()

        def put(judgement: Judgement) -> None:
            standing = Standing(judgement.time_s, State.NORMAL, judgement.time_s, None, judgement, "", 0, 0)
            records.put(KEY, result=Result(judgement, State.NORMAL, ""), change=None, standing=standing)

        def wait() -> None:
            while records.totals().waiting:
                time.sleep(0.0005)

        try:
            yield put, wait
        finally:
            publisher.stop(1.0)
            log.setLevel(level)
