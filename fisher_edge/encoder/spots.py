"""Embeddings of spots: short stretches of signal, each of the length of a piece. See `embed_spots`."""

from collections.abc import Sequence

import numpy as np

from fisher_edge.dsp.blocks import Block, FloatArray, Rate
from fisher_edge.dsp.bursts import BurstStream
from fisher_edge.dsp.changes import Spot
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import Grid
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.windows import embed_window

__all__ = ["embed_spots"]


def embed_spots(encoder: Encoder, front_end: FrontEnd, grid: Grid, rate_hz: Rate, spots: Sequence[Spot]) -> FloatArray:
    """Embed each stretch as a piece: (spots, bands, dim)."""
    return np.stack([embed_window(encoder, front_end, [_bands(front_end, grid, rate_hz, spot)]) for spot in spots])


def _bands(front_end: FrontEnd, grid: Grid, rate_hz: Rate, spot: Spot) -> FloatArray:
    """Sub-bands of a stretch, cut as its stream would be."""
    if not grid.bursts:
        return front_end.sub_bands(spot[0], rate_hz)
    stream, index, pieces = BurstStream(front_end, rate_hz, grid), 0, []
    for burst in spot:
        pieces += stream.push(Block(burst, rate_hz, index, 0.0))
        index += len(burst) + 1
    pieces += stream.end()
    return pieces[0].bands
