"""How a stream is cut: pieces on a grid, and the windows that are runs of them. Start at `grid_of`.

A piece is what the encoder sees at a time. Where the front-end's rule is `grid`, pieces follow each other without
overlap from the first sample of an unbroken run on, and a window is a run of whole pieces.
"""

import math
from dataclasses import dataclass, replace

from fisher_edge.dsp.blocks import FloatArray, Rate, rate_text
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.errors import BadInputError

__all__ = ["MIN_FRAMES", "Grid", "at_rate", "grid_of", "over_bursts", "pieces_of", "stretches"]

# Frames of the shortest piece: one patch of the encoder.
MIN_FRAMES = 16
# A window of at least so many pieces is a run of whole ones; a shorter one is a single piece of its own length.
SEVERAL = 1.5
LONGEST_HOP_S = 2.0
HOP_SHARE = 0.25
# A window that exceeds the encoder's longest by less, because its hops are rounded down, is the longest.
ROUNDING = 0.01


@dataclass(frozen=True)
class Grid:
    """Frames of a piece and from one piece to the next; pieces of a window and from one window to the next.

    `window_s` and `hop_s` are the lengths that follow: frames * hop / rate, which may differ from those asked for.
    With `bursts` frames are those of consecutive bursts (see bursts.py): `time_factor` seconds pass while a second of
    signal is heard, and both lengths include the silence.
    """

    piece_frames: int
    piece_hop_frames: int
    window_pieces: int
    hop_pieces: int
    window_s: float
    hop_s: float
    bursts: bool = False
    time_factor: float = 1.0

    @property
    def signal_window_s(self) -> float:
        """Length of a window without the silence between bursts: what `grid_of` is asked for."""
        return self.window_s / self.time_factor

    @property
    def signal_hop_s(self) -> float:
        """Time from one window to the next without the silence between bursts."""
        return self.hop_s / self.time_factor


def grid_of(front_end: FrontEnd, window_s: float, hop_s: float | None, rate_hz: Rate) -> Grid:
    """Return the grid for windows of `window_s` seconds, a new one every `hop_s` (None: a quarter, 2 s at most).

    Raises BadInputError for lengths that are not positive finite numbers, windows shorter than a patch, and windows
    longer than the encoder sees where it sees them whole.
    """
    front_end.check_rate(rate_hz)
    hop_s = min(HOP_SHARE * window_s, LONGEST_HOP_S) if hop_s is None else hop_s
    for name, seconds in (("window_s", window_s), ("hop_s", hop_s)):
        if not (math.isfinite(seconds) and seconds > 0):
            raise BadInputError(f"{name}={seconds:g} is not a time above 0; choose seconds, e.g. 10.24")
    frames, hop_frames = (front_end.frames_of(seconds, rate_hz) for seconds in (window_s, hop_s))
    if frames < MIN_FRAMES:
        shortest = front_end.seconds_of(MIN_FRAMES, rate_hz)
        raise BadInputError(
            f"window_s={window_s:g} at {rate_text(rate_hz)} Hz is {frames} frames, the encoder needs {MIN_FRAMES}; "
            f"choose window_s of at least {shortest:.4g}"
        )
    piece = front_end.piece_frames
    if front_end.on_grid:
        if frames >= SEVERAL * piece:
            pieces, hop_pieces = round(frames / piece), max(1, round(hop_frames / piece))
            return _grid(front_end, rate_hz, piece, piece, pieces, hop_pieces)
        return _grid(front_end, rate_hz, min(piece, frames), hop_frames)
    return _grid(front_end, rate_hz, _whole(front_end, frames, window_s, rate_hz), hop_frames)


def at_rate(front_end: FrontEnd, grid: Grid, rate_hz: Rate) -> Grid:
    """Return a grid of unbroken signal with the same frames at another rate."""
    return _grid(front_end, rate_hz, grid.piece_frames, grid.piece_hop_frames, grid.window_pieces, grid.hop_pieces)


def over_bursts(grid: Grid, time_factor: float = 1.0) -> Grid:
    """Return a grid for bursts: its lengths include the silence between them."""
    return replace(
        grid, window_s=grid.window_s * time_factor, hop_s=grid.hop_s * time_factor, bursts=True, time_factor=time_factor
    )


def stretches(front_end: FrontEnd, samples: int, rate_hz: Rate) -> list[slice]:
    """Return where the pieces lie in one stretch of so many samples.

    By the rule `grid` those are the whole pieces in its first `max_frames` frames, or one short piece where it holds
    no whole one. Otherwise there is one, the whole stretch.
    """
    length = front_end.piece_frames
    frames = min(front_end.n_frames(samples, rate_hz), front_end.max_frames)
    if not front_end.on_grid or frames < length:
        return [slice(0, samples)]
    step, span = length * front_end.hop(rate_hz), front_end.n_samples(length, rate_hz)
    return [slice(start, start + span) for start in range(0, frames // length * step, step)]


def pieces_of(front_end: FrontEnd, wave: FloatArray, rate_hz: Rate, *, pad_frames: bool = False) -> list[FloatArray]:
    """Return the sub-bands (bands, frames, band_width) of the pieces of one stretch of signal (n,), in order.

    See `stretches` for where they lie. `pad_frames` fills a single short one with zeros after normalisation.
    """
    parts = stretches(front_end, len(wave), rate_hz)
    return [front_end.sub_bands(wave[part], rate_hz, pad_frames=pad_frames) for part in parts]


def _whole(front_end: FrontEnd, frames: int, window_s: float, rate_hz: Rate) -> int:
    """Frames of a window that the encoder sees whole."""
    longest = front_end.max_frames
    if frames > (1 + ROUNDING) * longest:
        raise BadInputError(
            f"window_s={window_s:g} at {rate_text(rate_hz)} Hz is {frames} frames, more than the {longest} that this "
            f"model sees at a time; choose window_s of at most {front_end.seconds_of(longest, rate_hz):.4g}"
        )
    return min(frames, longest)


def _grid(
    front_end: FrontEnd, rate_hz: Rate, frames: int, hop_frames: int, pieces: int = 1, hop_pieces: int = 1
) -> Grid:
    """Add the lengths in seconds."""
    return Grid(
        piece_frames=frames,
        piece_hop_frames=hop_frames,
        window_pieces=pieces,
        hop_pieces=hop_pieces,
        window_s=front_end.seconds_of(pieces * frames, rate_hz),
        hop_s=front_end.seconds_of(hop_pieces * hop_frames, rate_hz),
    )
