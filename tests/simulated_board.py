"""An example for a board, run in simulated time, and the session at the other end of its UART.

The program (`firmware_bridge/c/tests/run_*`, on `board.h`) and the session take turns of a millisecond. Bytes take
their time on the line, and nothing depends on how busy this machine is.
"""

import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fisher_bridge.continuity import Samples
from fisher_bridge.framing import FrameDecoder
from fisher_bridge.messages import Kind, parse_pong
from fisher_bridge.session import Session

__all__ = ["Talk", "talk"]

STEP_S = 0.001
LATEST_ANSWER_S = 0.1


@dataclass
class Talk:
    """What a session heard from a board: `pings` maps the token of each to when it was sent, `pongs` to its answer."""

    session: Session
    samples: list[Samples] = field(default_factory=list)
    pings: dict[int, float] = field(default_factory=dict)
    pongs: dict[int, float] = field(default_factory=dict)

    def unanswered(self, end_s: float) -> int:
        """Count the pings without an answer, except those of the last moment."""
        return sum(token not in self.pongs and sent_s < end_s - LATEST_ANSWER_S for token, sent_s in self.pings.items())

    def values(self) -> npt.NDArray[np.float64]:
        """Return all samples in the unit of the stream, shape (n, channels)."""
        return np.concatenate([piece.raw.astype(np.float64) * piece.stream.scale for piece in self.samples])


def talk(program: Sequence[str | Path], baud: int, seconds: float) -> Talk:
    """Run a board for so many simulated seconds, its first stream wanted by a session."""
    heard = Talk(Session(baud, 0.0))
    session, ours, theirs = heard.session, FrameDecoder(), FrameDecoder()
    session.want(0, None, 0.0)
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as board:
        assert board.stdin is not None
        assert board.stdout is not None
        assert board.stderr is not None
        for step in range(round(seconds / STEP_S)):
            now_s, then_s = step * STEP_S, (step + 1) * STEP_S
            said = session.due(now_s)
            pings = [one for one in ours.feed(said) if one.kind == Kind.PING]
            heard.pings |= {int.from_bytes(one.body, "little"): now_s for one in pings}
            board.stdin.write(struct.pack("<QI", round(then_s * 1e9), len(said)) + said)
            board.stdin.flush()
            length = board.stdout.read(4)
            assert len(length) == 4, f"the board ended: {board.stderr.read().decode()}"
            answer = board.stdout.read(int.from_bytes(length, "little"))
            pongs = [parse_pong(one.body) for one in theirs.feed(answer) if one.kind == Kind.PONG]
            heard.pongs |= {pong.token: then_s for pong in pongs if pong is not None}
            session.receive(answer, then_s)
            heard.samples += session.take(then_s)
        board.stdin.close()
        assert board.wait(10) == 0
    return heard
