"""What waits for the worker: pieces to judge, interruptions, commands. See `WorkQueue`.

Each channel has a line of its own, and the worker serves the lines in turn: a channel within its share is never held up
by one that overloads the worker.
"""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from fisher_edge.decision.alarm import Interruption
from fisher_edge.dsp.grid import Grid
from fisher_edge.dsp.stream import Piece
from fisher_edge.gateway.context import NOT_KNOWN, Situation
from fisher_edge.names import ChannelKey

__all__ = ["Interrupt", "JudgePiece", "Reload", "Work", "WorkQueue"]

CAPACITY_BYTES = 96 << 20
TICK_S = 0.2

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class JudgePiece:
    """The next piece of a channel, cut on `grid`, and the situation of the machine when it came.

    `distrust` says why its sensor cannot be trusted.
    """

    key: ChannelKey
    piece: Piece
    grid: Grid
    distrust: str | None = None
    situation: Situation = NOT_KNOWN

    @property
    def fits(self) -> bool:
        """Whether it was cut for its grid: not so when it comes from before a new plan."""
        return bool(self.piece.bands.shape[1] == self.grid.piece_frames)

    @property
    def bytes(self) -> int:
        """Memory that it holds while it waits."""
        piece = self.piece
        arrays = (piece.bands, piece.amplitude, piece.samples, piece.raw)
        return sum(array.nbytes for array in arrays if array is not None)


@dataclass(frozen=True)
class Interrupt:
    """A channel cannot be judged now, for a reason."""

    key: ChannelKey
    state: Interruption
    reason: str


@dataclass(frozen=True)
class Reload:
    """Command: the baselines of a channel have changed; judge against the new ones."""

    key: ChannelKey


Work = JudgePiece | Interrupt | Reload


@dataclass
class _Line:
    """What waits of one channel, in order."""

    items: deque[Work] = field(default_factory=deque)
    bytes: int = 0
    dropped: int = 0
    # Pieces that the window under way still needs: they are never dropped, so that windows come whatever the load.
    missing: int = 0
    last_number: int | None = None
    told_at: int = 1

    def take(self) -> Work:
        """Take the oldest work, noting what the next window needs after it."""
        work = self.items.popleft()
        if isinstance(work, JudgePiece):
            self.bytes -= work.bytes
            if self.last_number is None or work.piece.number != self.last_number + 1:
                self.missing = work.grid.window_pieces
            self.last_number = work.piece.number
            self.missing = self.missing - 1 or work.grid.hop_pieces
        return work

    def drop(self) -> None:
        """Drop the oldest piece that the window under way does not need; the oldest of all when there is none."""
        pieces = [index for index, work in enumerate(self.items) if isinstance(work, JudgePiece)]
        index = pieces[min(self.missing, len(pieces) - 1)] if self.missing < len(pieces) else pieces[0]
        work = self.items[index]
        assert isinstance(work, JudgePiece)
        del self.items[index]
        self.bytes -= work.bytes
        self.dropped += 1


class WorkQueue:
    """A queue bounded in bytes, shared evenly by the channels.

    A live channel beyond its share loses its own oldest pieces, counted; one that can wait does. An interruption or a
    command is never dropped. A window and one piece more always fit.
    """

    def __init__(self, keys: Sequence[ChannelKey], capacity_bytes: int | None = None) -> None:
        self._share_bytes = (CAPACITY_BYTES if capacity_bytes is None else capacity_bytes) // max(1, len(keys))
        self._lines = {key: _Line() for key in keys}
        self._turn: deque[ChannelKey] = deque(keys)
        self._under_way = 0
        self._changed = threading.Condition()

    def put(self, work: Work, stop: threading.Event, *, patient: bool = False) -> None:
        """Add work; a patient producer waits for room, a live one drops the oldest pieces of its channel."""
        line = self._lines[work.key]
        with self._changed:
            if isinstance(work, JudgePiece):
                while patient and self._is_full(line, work) and not stop.is_set():
                    self._changed.wait(TICK_S)
                while not patient and self._is_full(line, work):
                    line.drop()
                line.bytes += work.bytes
            line.items.append(work)
            self._changed.notify_all()
        self._tell(work.key, line)

    def get(self, *, wait: bool = True) -> Work | None:
        """Take the oldest work of the channel whose turn it is; None when there is none for a moment, or now."""
        with self._changed:
            if not self._has_work() and not (wait and self._changed.wait_for(self._has_work, TICK_S)):
                return None
            while not self._lines[self._turn[0]].items:
                self._turn.rotate(-1)
            work = self._lines[self._turn[0]].take()
            self._turn.rotate(-1)
            self._under_way += 1
            self._changed.notify_all()
            return work

    def done(self) -> None:
        """Note that the work taken last is finished."""
        with self._changed:
            self._under_way -= 1

    def idle(self) -> bool:
        """Tell whether nothing waits and nothing is being worked on."""
        with self._changed:
            return not self._under_way and not self._has_work()

    def dropped(self, key: ChannelKey) -> int:
        """Return how many pieces of a channel were dropped so far."""
        return self._lines[key].dropped

    def waiting_bytes(self) -> int:
        """Return how much memory the waiting pieces hold."""
        return sum(line.bytes for line in self._lines.values())

    def _has_work(self) -> bool:
        """Whether anything waits."""
        return any(line.items for line in self._lines.values())

    def _is_full(self, line: _Line, work: JudgePiece) -> bool:
        """Whether a channel has its share already, and more than a window."""
        pieces = sum(isinstance(each, JudgePiece) for each in line.items)
        return pieces > work.grid.window_pieces and line.bytes + work.bytes > self._share_bytes

    def _tell(self, key: ChannelKey, line: _Line) -> None:
        """Log dropped pieces at the first, and whenever their number has doubled."""
        if line.dropped >= line.told_at:
            line.told_at = 2 * line.dropped
            log.warning(
                "channel %s: inference falls behind, %d pieces of its signal dropped so far; choose a longer hop_s",
                key,
                line.dropped,
            )
