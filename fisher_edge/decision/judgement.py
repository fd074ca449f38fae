"""What is said about a window and about a channel, as plain data: seconds, numbers, enums.

`Judgement` is what the judge finds in one window. The alarm machine turns it into a `State`; `Result`, `Change` and
`Standing` are what the gateway stores and publishes. Names of the wire stand in `fisher_edge.publish.message` alone.
"""

from dataclasses import dataclass, replace
from enum import Enum

__all__ = [
    "FALSE_ALARM",
    "AlarmMemory",
    "BandShare",
    "BaselineName",
    "Change",
    "Evidence",
    "FaultVote",
    "Handling",
    "Judgement",
    "Level",
    "ModelName",
    "Nearest",
    "PlainMeasures",
    "Promise",
    "Realised",
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
    IDLE = "idle"
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

    `unjudged` says why a window of a sound sensor is not judged: nothing is enrolled, or with a model that is gone;
    `idle` why there is nothing to judge: the machine stands still; `passing` that it went from one operating state to
    another within the window.

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
    idle: str | None = None
    passing: str | None = None
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


FALSE_ALARM = "false alarm"
"""The cause of an alarm that was none."""


@dataclass(frozen=True)
class Promise:
    """How many false warnings and alarms a day are promised, and in which interval (90 %) the true rates lie."""

    warning_per_day: float
    alarm_per_day: float
    warning_interval: tuple[float, float]
    alarm_interval: tuple[float, float]


@dataclass(frozen=True)
class Realised:
    """What came of a promise while one baseline judged: days judged, and how often the state rose.

    `confirmed` alarms and warnings were acknowledged with a cause, `refuted` ones as false alarms. `baseline` is the
    version, enrolled at `created_s` (s UTC).
    """

    baseline: int
    created_s: float
    promise: Promise
    days: float = 0.0
    warnings: int = 0
    alarms: int = 0
    confirmed: int = 0
    refuted: int = 0

    def after(self, seconds: float, before: State, now: State) -> "Realised":
        """Count so many seconds more in which the worst severity since all was well went from one to another."""
        alarm = now is State.ALARM and before is not State.ALARM
        warning = now is State.WARNING and before is State.NORMAL
        return replace(
            self, days=self.days + seconds / 86_400, warnings=self.warnings + warning, alarms=self.alarms + alarm
        )

    def settled(self, before: str | None, cause: str | None) -> "Realised":
        """Count the cause of an alarm in place of what was taken for it before; None: not known."""
        refuted = (cause == FALSE_ALARM) - (before == FALSE_ALARM)
        known = (cause is not None) - (before is not None)
        return replace(self, confirmed=self.confirmed + known - refuted, refuted=self.refuted + refuted)


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
    realised: Realised | None = None


@dataclass(frozen=True)
class Handling:
    """What a person did about an alarm: acknowledged it with its cause (None: not known), or shelved it until a time.

    `until_s` is in seconds since 1970-01-01 UTC.
    """

    by: str = ""
    cause: str | None = None
    note: str = ""
    until_s: float | None = None


@dataclass(frozen=True)
class AlarmMemory:
    """What a restart must not forget: the severity, whether it was acknowledged, until when (s UTC) it is shelved.

    `worst` is the worst severity since all was well, and `unseen` that of an alarm that is over and that nobody has
    acknowledged; `cause` that of the acknowledgement, `reach_s` the length of the
    span that raised the severity.
    """

    severity: State = State.NORMAL
    worst: State = State.NORMAL
    unseen: State = State.NORMAL
    acknowledged: bool = False
    cause: str | None = None
    shelved_until_s: float | None = None
    reach_s: float = 0.0


@dataclass(frozen=True)
class Change:
    """A change of state of a channel, why, and the judgement that led to it (None: no window did).

    `kind` says which evidence spoke (sudden, persistent, drift, unfamiliar operating state), or what a person did:
    acknowledged, shelved, unshelved, with `handling`.
    """

    time_s: float
    before: State
    after: State
    reason: str
    kind: str | None = None
    judgement: Judgement | None = None
    handling: Handling | None = None


@dataclass(frozen=True)
class Standing:
    """The latest state of a channel, for the retained topic: since when, why, and the judgement behind it.

    `alarm` is what is known about its alarm, whatever the state is now; None: an earlier release did not say.
    `judged_by` is the version of the baseline and when it was enrolled (s UTC); None: there was none.
    """

    time_s: float
    state: State
    since_s: float
    reason: str | None = None
    judgement: Judgement | None = None
    unit: str = ""
    gaps: int = 0
    dropped: int = 0
    real_rate_hz: float | None = None
    alarm: AlarmMemory | None = None
    judged_by: tuple[int, float] | None = None
    realised: Realised | None = None
