"""One channel as the gateway has it, without a gateway: enroll windows, judge windows, follow the state.

Start at `Channel.enrolled`. Everything goes through a real database and the parts that the gateway uses.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fisher_edge.decision.alarm import AlarmMachine, AlarmRule
from fisher_edge.decision.assess import Enrolled, EnrolledTake, Made
from fisher_edge.decision.coreset import MOST_WINDOWS
from fisher_edge.decision.enroll import enroll
from fisher_edge.decision.evidence import Rates
from fisher_edge.decision.judge import Judge
from fisher_edge.decision.judgement import Judgement, ModelName, State
from fisher_edge.decision.reactions import Embed
from fisher_edge.dsp.blocks import Block, FloatArray
from fisher_edge.dsp.changes import Spot
from fisher_edge.dsp.grid import Grid
from fisher_edge.dsp.stream import PieceStream
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.windows import EmbeddedWindow, WindowJoiner, read
from fisher_edge.names import ChannelKey
from fisher_edge.store.baselines import Baseline, Baselines
from fisher_edge.store.database import Database

__all__ = ["Channel", "Judged", "made_with", "windows_of"]

KEY = ChannelKey("bench", "channel")


@dataclass(frozen=True)
class Judged:
    """A window that was judged, the state after it, and which evidence spoke when the state changed with it."""

    judgement: Judgement
    state: State
    kind: str | None


@dataclass(frozen=True)
class Channel:
    """A channel with its enrolled normal state; windows are compared with at most `most` enrolled ones."""

    baseline: Baseline
    facts: Enrolled
    made: Made
    most: int = MOST_WINDOWS
    _judges: dict[tuple[Rates, float], Judge] = field(default_factory=dict)

    @classmethod
    def enrolled(
        cls,
        takes: Sequence[tuple[str, Sequence[EmbeddedWindow]]],
        made: Made,
        *,
        spots: Mapping[str, Spot] | None = None,
        embed: Embed | None = None,
        most: int = MOST_WINDOWS,
    ) -> "Channel":
        """Enroll takes: names and windows, and spots of some by name. Raises BadInputError as `enroll` does."""
        with tempfile.TemporaryDirectory() as folder, Database(Path(folder)) as database:
            baselines = Baselines(database)
            enrolled = [
                EnrolledTake(name, windows, spots=(spots[name],) if spots and name in spots else ())
                for name, windows in takes
            ]
            facts = enroll(baselines, KEY, enrolled, made, embed=embed)
            (baseline,) = baselines.active(KEY)
        return cls(baseline, facts, made, most)

    def judge(self, rates: Rates, hop_s: float) -> Judge:
        """Return the judge of this channel; it is made once, which takes a moment."""
        if (rates, hop_s) not in self._judges:
            self._judges[rates, hop_s] = Judge([self.baseline], self.made.front_end, rates, hop_s, most=self.most)
        return self._judges[rates, hop_s]

    def run(
        self, windows: Iterable[EmbeddedWindow], rates: Rates, hop_s: float, rule: AlarmRule | None = None
    ) -> Iterator[Judged]:
        """Judge windows in order, by default with the gateway's rule, and follow the state."""
        judge, machine = self.judge(rates, hop_s), AlarmMachine(rule or AlarmRule(), clock=lambda: 0.0)
        judge.forget()
        for window in windows:
            judgement = judge.judge(window)
            change = machine.judge(judgement)
            yield Judged(judgement, machine.state, change.kind if change else None)


def windows_of(encoder: Encoder, wave: FloatArray, rate_hz: int, grid: Grid) -> list[EmbeddedWindow]:
    """Embed the windows of a recording (samples,) as its stream would give them; without views."""
    front_end = encoder.bundle.front_end
    stream, joiner = PieceStream(front_end, rate_hz, grid), WindowJoiner(grid)
    windows = []
    for first in range(0, len(wave), rate_hz):
        for piece in stream.push(Block(wave[first : first + rate_hz], rate_hz, first, first / rate_hz)):
            (reading,) = read(encoder, front_end, [piece], views=())
            window = joiner.push(reading)
            if window is not None:
                windows.append(window)
    return windows


def made_with(encoder: Encoder, grid: Grid, rate_hz: int) -> Made:
    """Say what windows without views were made with."""
    front_end = replace(encoder.bundle.front_end, views=())
    return Made(ModelName(encoder.name, encoder.sha256), front_end, grid, rate_hz)
