"""What is said about a window and about a channel, as plain data: seconds, numbers, enums.

`Judgement` is what the judge finds in one window. The alarm machine turns it into a `State`; `Result`, `Change` and
`Standing` are what the gateway stores and publishes. Names of the wire stand in `fisher_edge.publish.message` alone.
"""

from dataclasses import dataclass
from enum import Enum

__all__ = [
    "BandShare",
    "BaselineName",
    "Change",
    "Evidence",
    "FaultVote",
    "Judgement",
    "Level",
    "ModelName",
    "Nearest",
    "PlainMeasures",
    "Result",
    "Standing",
    "State",
    "ViewScore",
]


class State(str, Enum):
    """State of a channel; the words follow NAMUR NE 107 where it has one (check_function)."""

    NORMAL = "normal"
    WARNING = "warning"
    ALARM = "alarm"
    CHECK_FUNCTION = "check_function"
    NO_DATA = "no_data"
    NO_BASELINE = "no_baseline"

    @property
    def judged(self) -> bool:
        """Whether the state says something about the machine, not about the sensor or the gateway."""
        return self in {State.NORMAL, State.WARNING, State.ALARM}


@dataclass(frozen=True)
class ModelName:
    """The encoder that made an embedding: its name, and the SHA-256 of its model file."""

    name: str
    sha256: str


@dataclass(frozen=True)
class BaselineName:
    """The baseline that judged a window: its version and how many windows it holds.

    Where the sensor has another rate, `rate_hz` is the enrolled one, and `common_bands` of the `bands` of the baseline
    were compared; None where it has the same.
    """

    version: int
    windows: int
    rate_hz: float | None = None
    common_bands: int | None = None
    bands: int | None = None


@dataclass(frozen=True)
class BandShare:
    """Part of the distance that one sub-band contributes, and how unusual it is in this band.

    `unusual` counts standard deviations above what is normal there; None where that is not known.
    """

    low_hz: float
    high_hz: float
    share: float
    unusual: float | None = None


@dataclass(frozen=True)
class Evidence:
    """How much speaks for a change, over the limit of an alarm each: above 1 is an alarm.

    `sudden` (up to a minute), `persistent` and `drift` (12 hours and more) are the worst of their spans of time; None
    while no span of that kind is full. `warning` is the worst over the limit of a warning. `span_s` is the length of
    the span that says most, `reach_s` that of the longest full one.
    """

    sudden: float | None = None
    persistent: float | None = None
    drift: float | None = None
    warning: float = 0.0
    span_s: float = 0.0
    reach_s: float = 0.0

    @property
    def alarm(self) -> float:
        """The worst over the limit of an alarm."""
        return max(each or 0.0 for each in (self.sudden, self.persistent, self.drift))

    @property
    def kind(self) -> str:
        """Which kind says most."""
        return max(("sudden", "persistent", "drift"), key=lambda name: getattr(self, name) or 0.0)


@dataclass(frozen=True)
class Nearest:
    """The enrolled window nearest to a window: recording, end of the window in it, and when it was recorded.

    `time_s` is None when the recording does not say when it was made.
    """

    version: int
    recording: str
    offset_s: float
    time_s: float | None


@dataclass(frozen=True)
class FaultVote:
    """The enrolled fault a window resembles most, and how many of the k nearest examples show it, which may be none."""

    label: str
    votes: int
    k: int


@dataclass(frozen=True)
class Level:
    """Level of a window: natural log of its RMS, and how far it is from the level of its operating state.

    `deviation` is absolute, `z` counts standard deviations of the level of takes of that state; None without a
    baseline.
    """

    log_rms: float
    z: float | None = None
    deviation: float | None = None
    evidence: Evidence | None = None


@dataclass(frozen=True)
class ViewScore:
    """How far a window is from normal in one view (`z`), and how much the view counts when faults are named."""

    name: str
    weight: float
    z: float


@dataclass(frozen=True)
class PlainMeasures:
    """Measures that need no baseline, in the unit of the channel: RMS, peak, crest factor, kurtosis."""

    rms: float
    peak: float
    crest: float
    kurtosis: float


@dataclass(frozen=True)
class Judgement:
    """What one window shows. `distrust` says why its sensor cannot be trusted; nothing is judged then.

    `unjudged` says why a window of a sound sensor is not judged: nothing is enrolled, or with a model that is gone.

    `time_s` is the end of the window in seconds since 1970-01-01 UTC, by the clock of its samples. `distance` is the
    cosine distance to the nearest enrolled window and the exact sum of the shares of its `bands`; None: not judged.
    `score` says how unusual the window is by itself, in standard deviations of normal windows; `evidence` is that of
    the shape over time, and `unfamiliar` says that the change may be an operating state that was not enrolled.
    `latency_ms` is the time it took to judge, without the time the window waited.
    """

    time_s: float
    window_s: float
    rate_hz: float
    model: ModelName
    distrust: str | None = None
    unjudged: str | None = None
    baseline: BaselineName | None = None
    operating_state: str | None = None
    distance: float | None = None
    score: float | None = None
    evidence: Evidence | None = None
    unfamiliar: bool = False
    bands: tuple[BandShare, ...] = ()
    nearest: Nearest | None = None
    fault: FaultVote | None = None
    level: Level | None = None
    views: tuple[ViewScore, ...] = ()
    measures: PlainMeasures | None = None
    latency_ms: float | None = None

    @property
    def ratio(self) -> float | None:
        """The evidence of shape or level, whichever says more, over the limit of an alarm."""
        if self.evidence is None or self.level is None or self.level.evidence is None:
            return None
        return max(self.evidence.alarm, self.level.evidence.alarm)


@dataclass(frozen=True)
class Result:
    """One window of a channel: the judgement and the state after it.

    `skipped` counts the windows since the last result that were dropped because inference fell behind.
    """

    judgement: Judgement
    state: State
    unit: str
    reason: str | None = None
    skipped: int = 0


@dataclass(frozen=True)
class Change:
    """A change of state of a channel, why, and the judgement that led to it (None: no window did).

    `kind` says which evidence spoke: sudden, persistent, drift, or unfamiliar operating state.
    """

    time_s: float
    before: State
    after: State
    reason: str
    kind: str | None = None
    judgement: Judgement | None = None


@dataclass(frozen=True)
class Standing:
    """The latest state of a channel, for the retained topic: since when, why, and the judgement behind it."""

    time_s: float
    state: State
    since_s: float
    reason: str | None = None
    judgement: Judgement | None = None
    unit: str = ""
    gaps: int = 0
    dropped: int = 0
    real_rate_hz: float | None = None
