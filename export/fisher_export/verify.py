"""How close an exported bundle is to its checkpoint, measured with the runtime's own loader.

Start at `measure`: parity on real recordings, in pieces and in windows of the gateway's own length, and the time of
both side by side.
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fisher_edge.dsp.blocks import FloatArray, Rate
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import pieces_of
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.windows import embed_window
from fisher_edge.errors import BadInputError
from fisher_export.gate import FEWEST_WINDOWS, Group, Parity, cosines, groups_of, neighbour_agreement
from fisher_train.encoder import Encoder as TorchEncoder

__all__ = ["Embed", "Excerpts", "Signal", "cut", "embed_with_torch", "latency_ratio", "measure", "worst_of"]

Embed = Callable[[Sequence[FloatArray]], list[FloatArray]]
"""Sub-bands (bands, frames, band_width) of pieces to their embeddings (bands, dim)."""
PIECE_S = 1.28
WINDOW_S = 10.24
MIN_WINDOWS = 8
LATENCY_RATE_HZ = 16_000
LATENCY_SECONDS = 10
REPEATS = 5


@dataclass(frozen=True, eq=False)
class Signal:
    """A recording used to verify an export: its name, samples (n,) and rate."""

    name: str
    wave: FloatArray
    rate_hz: Rate


@dataclass(frozen=True, eq=False)
class Excerpts:
    """Recordings as the encoder sees them.

    `bands` (bands, frames, band_width) is what goes in at a time. `pieces` and `windows` list which of them make one
    embedding together: pieces one each, windows of 10.24 s (or a whole shorter recording) all of theirs. Of every
    entry of `bands`: its recording `take` and `rate_hz`. `edges` (Hz) are those of the bands of each rate.
    """

    bands: list[FloatArray]
    take: list[int]
    rate_hz: list[Rate]
    pieces: list[list[int]]
    windows: list[list[int]]
    edges: dict[Rate, list[tuple[float, float]]]

    def groups(self, before: Sequence[FloatArray], after: Sequence[FloatArray]) -> list[Group]:
        """Compare embeddings of `bands` by rate and band: of pieces and of windows, whichever is changed more."""
        levels = [self._groups(parts, before, after) for parts in (self.pieces, self.windows)]
        return worst_of([group for level in levels for group in level])

    def agreement(self, before: Sequence[FloatArray], after: Sequence[FloatArray], groups: Sequence[Group]) -> float:
        """Share of pieces that keep their nearest neighbour, over the bands of faithful `groups`."""
        kept = {(group.rate_hz, group.low_hz) for group in groups if group.faithful}
        faithful = {
            rate: [band for band, (low, _) in enumerate(edges) if (float(rate), low) in kept]
            for rate, edges in self.edges.items()
        }
        parts = [index for (index,) in self.pieces if faithful[self.rate_hz[index]]]
        rows = [[each[index][faithful[self.rate_hz[index]]] for index in parts] for each in (before, after)]
        return neighbour_agreement([self.rate_hz[index] for index in parts], *rows)

    def thinned(self, count: int) -> "Excerpts":
        """Return about so many pieces of each rate, evenly chosen over its recordings, and no windows."""
        kept: list[list[int]] = []
        for rate in self.edges:
            of_rate = [part for part in self.pieces if self.rate_hz[part[0]] == rate]
            kept += [of_rate[index] for index in sorted(set(np.linspace(0, len(of_rate) - 1, count).astype(int)))]
        return replace(self, pieces=kept, windows=[])

    def _groups(self, parts: list[list[int]], before: Sequence[FloatArray], after: Sequence[FloatArray]) -> list[Group]:
        """Compare the means over parts."""
        left, right = (
            [np.asarray(np.mean([rows[index] for index in part], axis=0, dtype=np.float64)) for part in parts]
            for rows in (before, after)
        )
        return groups_of(
            [self.rate_hz[part[0]] for part in parts], [self.take[part[0]] for part in parts], left, right, self.edges
        )


def worst_of(groups: Sequence[Group]) -> list[Group]:
    """Return one group for each rate and band, that which is changed most."""
    found: dict[tuple[float, float], Group] = {}
    for group in groups:
        key = group.rate_hz, group.low_hz
        if key not in found or group.load > found[key].load:
            found[key] = group
    return list(found.values())


def cut(signals: Sequence[Signal], front_end: FrontEnd) -> Excerpts:
    """Cut recordings into pieces on the grid and windows of 10.24 s; a shorter recording is one window.

    Where the encoder sees windows whole, pieces are windows of 1.28 s.
    """
    found = Excerpts([], [], [], [], [], {})
    for take, signal in enumerate(signals):
        front_end.check_rate(signal.rate_hz)
        found.edges[signal.rate_hz] = front_end.band_edges_hz(signal.rate_hz)
        pieces = _parts(front_end, signal, _piece_frames(front_end, signal.rate_hz))
        found.pieces.extend([len(found.bands) + index] for index in range(len(pieces)))
        joined = (
            max(1, round(front_end.frames_of(WINDOW_S, signal.rate_hz) / front_end.piece_frames))
            if front_end.on_grid
            else 1
        )
        windows = [] if front_end.on_grid else _parts(front_end, signal, front_end.max_frames)
        first = len(found.bands) if front_end.on_grid else len(found.bands) + len(pieces)
        count = len(windows) or len(pieces)
        found.windows.extend(
            list(range(first + start, first + min(start + joined, count)))
            for start in range(0, max(1, count - joined + 1), joined)
        )
        found.bands.extend([*pieces, *windows])
        found.take.extend([take] * (len(pieces) + len(windows)))
        found.rate_hz.extend([signal.rate_hz] * (len(pieces) + len(windows)))
    _check(found)
    return found


def _check(excerpts: Excerpts) -> None:
    """Refuse recordings that verify nothing."""
    rates = [excerpts.rate_hz[index] for (index,) in excerpts.pieces]
    if len(rates) < MIN_WINDOWS:
        raise BadInputError(
            f"{len(rates)} windows are too few to verify an export ({MIN_WINDOWS} needed); "
            f"give more or longer recordings with --calibration"
        )
    if max(Counter(rates).values()) < FEWEST_WINDOWS:
        raise BadInputError(
            f"no rate has {FEWEST_WINDOWS} windows, so nearest neighbours cannot be compared; give more recordings "
            "of one rate with --calibration"
        )


def _parts(front_end: FrontEnd, signal: Signal, frames: int) -> list[FloatArray]:
    """Sub-bands of as many stretches of so many frames as fit on a grid; of the whole of a shorter recording."""
    length = front_end.n_samples(frames, signal.rate_hz)
    starts = range(0, max(1, len(signal.wave) - length + 1), frames * front_end.hop(signal.rate_hz))
    return [front_end.sub_bands(signal.wave[start : start + length], signal.rate_hz) for start in starts]


def _piece_frames(front_end: FrontEnd, rate_hz: Rate) -> int:
    return front_end.piece_frames if front_end.on_grid else front_end.frames_of(PIECE_S, rate_hz)


def embed_with_torch(encoder: TorchEncoder, bands: FloatArray) -> FloatArray:
    """Embed the sub-bands (bands, frames, band_width) of one piece with PyTorch: (bands, dim)."""
    with torch.inference_mode():
        embedding: FloatArray = encoder(torch.from_numpy(np.ascontiguousarray(bands))).numpy()
    return embedding


def measure(excerpts: Excerpts, before: Sequence[FloatArray], after: Sequence[FloatArray]) -> Parity:
    """Compare the embeddings of `excerpts.bands` before and after an export."""
    groups = excerpts.groups(before, after)
    rows_before, rows_after = np.concatenate(before), np.concatenate(after)
    return Parity(
        windows=len(excerpts.pieces),
        cosine=float(cosines(rows_before.astype(np.float64), rows_after.astype(np.float64)).min()),
        centred_cosine=float(np.median([group.centred_cosine for group in groups])),
        neighbour_agreement=excerpts.agreement(before, after, groups),
        faithful_share=float(np.mean([group.faithful for group in groups])),
        worst=max(groups, key=lambda group: group.load),
        unfaithful=tuple(group for group in groups if not group.faithful),
    )


def latency_ratio(encoder: TorchEncoder, exported: Encoder) -> float:
    """Median CPU time of PyTorch over that of the bundle, run in turn on one thread, front-end included."""
    front_end = exported.bundle.front_end
    wave = np.random.default_rng(0).standard_normal(LATENCY_SECONDS * LATENCY_RATE_HZ).astype(np.float32)
    rate_hz = LATENCY_RATE_HZ
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ratios = [
            _cpu_seconds(lambda: [embed_with_torch(encoder, bands) for bands in pieces_of(front_end, wave, rate_hz)])
            / _cpu_seconds(lambda: embed_window(exported, front_end, pieces_of(front_end, wave, rate_hz)))
            for _ in range(REPEATS)
        ]
    finally:
        torch.set_num_threads(threads)
    return statistics.median(ratios)


def _cpu_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start
