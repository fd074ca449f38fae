"""The shapes TensorRT builds an engine for. See `profiles_of`."""

from typing import NamedTuple

from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import MIN_FRAMES

__all__ = ["Profile", "profiles_of"]

# Frames of the pieces that the short profile is for, where the front-end cuts no pieces of its own.
SHORT_FRAMES = 96
SHORT_ROWS = (1, 16, 64)
LONG_ROWS = (1, 4, 16)


class Profile(NamedTuple):
    """Smallest, usual and largest number of sub-bands (`rows`) and of frames of a call."""

    rows: tuple[int, int, int]
    frames: tuple[int, int, int]

    def holds(self, rows: int, frames: int) -> bool:
        """Whether a call of this shape lies within the profile."""
        return self.rows[0] <= rows <= self.rows[2] and self.frames[0] <= frames <= self.frames[2]


def profiles_of(front_end: FrontEnd) -> tuple[Profile, Profile]:
    """Return the profile of pieces and, after it, that of whole windows of up to `max_frames`."""
    usual = front_end.piece_frames or SHORT_FRAMES
    longest = max(front_end.max_frames, usual)
    return (
        Profile(SHORT_ROWS, (MIN_FRAMES, usual, usual)),
        Profile(LONG_ROWS, (MIN_FRAMES, longest, longest)),
    )
