"""How quiet the decision is, and what it catches at the same policy.

Run: python -m fisher_bench.quiet DATA_DIR

(a) Ten simulated machines run for 24 hours each, a window a minute, while speed, load, temperature and background
wander; enrolled on twelve short recordings of the day before. Counted: changes to `alarm`, against what was promised.
(b) Recordings of every dataset that has several speeds, loads or days: healthy ones kept out of the enrollment, of
enrolled states and of states never enrolled, and the faulty ones.
"""

import argparse
import csv
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from fisher_bench.channel import Channel, made_with, windows_of
from fisher_edge.decision.alarm import UNFAMILIAR
from fisher_edge.decision.assess import Made
from fisher_edge.decision.coreset import MOST_WINDOWS
from fisher_edge.decision.evidence import Rates
from fisher_edge.decision.judgement import State
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.grid import grid_of
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.select import open_encoder
from fisher_edge.encoder.windows import EmbeddedWindow
from fisher_edge.errors import BadInputError, FisherEdgeError, MissingExtraError, UsageError, require

__all__ = [
    "LEAST_WINDOWS",
    "SHORT_WINDOW_S",
    "WINDOW_S",
    "Recording",
    "Split",
    "main",
    "recordings_of",
    "splits_of",
    "worst_of",
]

MACHINES = ("bearing", "gear", "motor", "flow", "rotor", "planetary", "compressor", "bearing", "gear", "flow")
RATE_HZ = 16_000
DAY_S = 86_400
STEP_S = 60.0
TAKES, WINDOWS_OF_TAKE = 12, 5
TAKE_WINDOW_S = 0.96
RATES = (0.1, 1.0)
WARNINGS_PER_ALARM = 10
# Wandering: mean, standard deviation and correlation time (s) of speed and load (fractions of rated), background (dB).
SPEED, LOAD, BACKGROUND = (0.85, 0.005, 600.0), (0.6, 0.05, 1800.0), (0.0, 1.0, 3600.0)
DAILY_DB = 0.3
"""Amplitude of the sensor's gain over a day, as temperature takes it."""
HEALTHY = ("normal", "healthy", "normal_start_of_life")
SETS = (
    "cwru_12k_de",
    "cwru_12k_fe",
    "cwru_48k_de",
    "uestc_bearing",
    "hit_sm_self",
    "hit_sm_mfs",
    "mfpt",
    "spectraquest_gearbox",
    "itsc_motor_current",
    "ims_set1_first50",
)
BY_DAY = "air_compressor_state"
FEWEST_STATES = 3
MANY = 6
WINDOW_S = 1.28
SHORT_WINDOW_S = 0.5
KEPT_SHARE = 0.6
LEAST_WINDOWS = 3
"""Windows that a recording must hold to be cut by time."""

Embedded = Callable[[FloatArray], list[EmbeddedWindow]]
"""Windows of a recording, embedded once."""


@dataclass(frozen=True)
class Machine:
    """A simulated machine of (a): false alarms in a day at one promised rate."""

    machine: str
    seed: int
    promised: float
    interval: tuple[float, float]
    most: int
    """The largest count in a day that the upper end of the interval explains (95 %)."""
    alarms: int
    warnings: int

    @property
    def within(self) -> bool:
        """Whether the day went as promised."""
        return self.alarms <= self.most


@dataclass(frozen=True)
class Kept:
    """Recordings of one kind in one split of (b), by the worst state they reached."""

    dataset: str
    split: str
    kind: str
    """`same` (a state that is enrolled), `day` (the same on another day), `unseen` (a state that is not), `faulty`."""
    recordings: int
    normal: int
    warning: int
    unfamiliar: int
    alarm: int


@dataclass(frozen=True, eq=False)
class Recording:
    """One channel of a recording, and what is known about it."""

    facts: dict[str, str]
    wave: FloatArray
    rate_hz: int

    @property
    def healthy(self) -> bool:
        """Whether the machine was healthy."""
        return self.facts["class"] in HEALTHY

    @property
    def state(self) -> tuple[str, str]:
        """Speed and load."""
        return self.facts["speed_rpm"], self.facts["load"]

    def part(self, first: float, last: float) -> FloatArray:
        """Samples from one share of the recording to another."""
        return self.wave[int(first * len(self.wave)) : int(last * len(self.wave))]


@dataclass(frozen=True, eq=False)
class Split:
    """What is enrolled, and what is asked: kind and samples."""

    name: str
    enrolled: list[FloatArray]
    asked: list[tuple[str, FloatArray]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, or one JSON object a machine and a split."""
    parser = argparse.ArgumentParser(
        prog="python -m fisher_bench.quiet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data_dir", type=Path, help="folder of datasets, one folder with a meta.csv each")
    parser.add_argument("--bundle", default="default", help="bundle of the encoder")
    parser.add_argument("--dataset", nargs="*", default=[*SETS, BY_DAY], help="datasets of (b)")
    parser.add_argument("--most", type=int, default=MOST_WINDOWS, help="windows of the coreset at most")
    parser.add_argument("--machines", type=int, default=len(MACHINES), help="simulated machines of (a)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(arguments)
    try:
        if options.machines < 0:
            raise UsageError(f"machines={options.machines} is no number of machines; give 0 or more")
        require("train", "scipy")
        encoder = open_encoder(load_bundle(options.bundle))
        kept = [found for name in options.dataset for found in _kept_out(encoder, options.data_dir, name, options.most)]
        machines = [found for number in range(options.machines) for found in _quiet_day(encoder, number, options.most)]
    except (FisherEdgeError, MissingExtraError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if options.json:
        for machine in machines:
            print(json.dumps(asdict(machine) | {"within": machine.within}))
        for each in kept:
            print(json.dumps(asdict(each)))
    else:
        print("\n".join([*_machine_table(machines), "", *_kept_table(kept)]))
    return 0


def _quiet_day(encoder: Encoder, number: int, most: int = MOST_WINDOWS) -> Iterator[Machine]:
    """Let one simulated machine wander for a day at every promised rate."""
    kind = MACHINES[number % len(MACHINES)]
    rng = np.random.default_rng([number, 1])
    front_end = encoder.bundle.front_end
    grid = grid_of(front_end, TAKE_WINDOW_S, TAKE_WINDOW_S, RATE_HZ)
    minutes = 2 * DAY_S // round(STEP_S)
    walk = _Wandering(kind, number, minutes, rng)
    window = front_end.n_samples(grid.piece_frames, RATE_HZ)
    take = window + (WINDOWS_OF_TAKE - 1) * round(grid.hop_s * RATE_HZ)

    def windows(minute: int, samples: int) -> list[EmbeddedWindow]:
        return windows_of(encoder, walk.record(minute, samples), RATE_HZ, grid)

    starts = np.sort(rng.choice(minutes // 2 - 1, TAKES, replace=False))
    takes = [(f"take {index}", windows(int(minute), take)) for index, minute in enumerate(starts)]
    channel = Channel.enrolled(takes, made_with(encoder, grid, RATE_HZ), most=most)
    day = [windows(minute, window)[0] for minute in range(minutes // 2, minutes)]
    for rate in RATES:
        rates = Rates(WARNINGS_PER_ALARM * rate, rate)
        yield _counted(channel, day, rates, kind, number)


def _counted(channel: Channel, day: Sequence[EmbeddedWindow], rates: Rates, kind: str, seed: int) -> Machine:
    """Count changes to alarm and to warning in a day."""
    judge = channel.judge(rates, STEP_S)
    interval = judge.promise.alarm_interval
    states = [judged.state for judged in channel.run(day, rates, STEP_S)]
    rises = Counter(after for before, after in zip([State.NORMAL, *states], states, strict=False) if before != after)
    return Machine(
        machine=kind,
        seed=seed,
        promised=rates.alarm_per_day,
        interval=interval,
        most=_most(interval[1] * len(day) * STEP_S / DAY_S),
        alarms=rises[State.ALARM],
        warnings=rises[State.WARNING],
    )


def _most(expected: float) -> int:
    """Smallest count that a Poisson variable does not exceed with 95 %."""
    count, probability = 0, math.exp(-expected)
    total = probability
    while total < 0.95:
        count += 1
        probability *= expected / count
        total += probability
    return count


class _Wandering:
    """A simulated machine whose conditions wander, minute by minute."""

    def __init__(self, kind: str, seed: int, minutes: int, rng: np.random.Generator) -> None:
        from fisher_train.simulate.catalogue import machine_of  # noqa: PLC0415 -- needs scipy

        self._machine = machine_of(kind, RATE_HZ, seed)
        self._speed, self._load, self._background = (_wander(*of, minutes, rng) for of in (SPEED, LOAD, BACKGROUND))
        self._gain_db = DAILY_DB * np.sin(2 * np.pi * np.arange(minutes) * STEP_S / DAY_S)
        self._seed = seed

    def record(self, minute: int, samples: int) -> FloatArray:
        """Record the machine in one minute."""
        from fisher_train.simulate.machine import OperatingPoint, render  # noqa: PLC0415
        from fisher_train.simulate.machine import State as Condition  # noqa: PLC0415

        sensor = self._machine.sensor
        machine = replace(self._machine, sensor=replace(sensor, noise_db=sensor.noise_db + self._background[minute]))
        point = OperatingPoint(
            speed=float(self._speed[minute]), load=float(self._load[minute]), gain_db=float(self._gain_db[minute])
        )
        return render(machine, Condition(), point, RATE_HZ, samples, np.random.default_rng([self._seed, 2, minute]))


def _wander(mean: float, sd: float, correlation_s: float, minutes: int, rng: np.random.Generator) -> FloatArray:
    """Draw a stationary first-order process, one value a minute."""
    keep = math.exp(-STEP_S / correlation_s)
    value, values = rng.normal(), []
    for shock in rng.normal(size=minutes):
        value = keep * value + math.sqrt(1 - keep * keep) * shock
        values.append(mean + sd * value)
    return np.array(values)


def _kept_out(encoder: Encoder, data_dir: Path, name: str, most: int) -> Iterator[Kept]:
    """Put the splits of one dataset to the decision."""
    recordings = list(recordings_of(data_dir / name))
    shortest_s = min(len(each.wave) / each.rate_hz for each in recordings)
    window_s = WINDOW_S if shortest_s > LEAST_WINDOWS / 2 * WINDOW_S else SHORT_WINDOW_S
    rate_hz = recordings[0].rate_hz
    grid = grid_of(encoder.bundle.front_end, window_s, None, rate_hz)
    made = made_with(encoder, grid, rate_hz)
    known: dict[int, tuple[FloatArray, list[EmbeddedWindow]]] = {}

    def embedded(wave: FloatArray) -> list[EmbeddedWindow]:
        if id(wave) not in known:
            known[id(wave)] = (wave, windows_of(encoder, wave, rate_hz, grid))
        return known[id(wave)][1]

    splits = list(_day_splits(recordings) if name == BY_DAY else splits_of(recordings, window_s))
    if not splits:
        raise BadInputError(f"{data_dir / name} has no healthy recordings to enroll; leave it out of --dataset")
    for split in splits:
        found = _asked(made, split, embedded, most)
        for kind, worst in found.items():
            yield Kept(
                dataset=name,
                split=split.name,
                kind=kind,
                recordings=worst.total(),
                normal=worst["normal"],
                warning=worst["warning"],
                unfamiliar=worst[UNFAMILIAR],
                alarm=worst["alarm"],
            )


def _asked(made: Made, split: Split, embedded: Embedded, most: int) -> dict[str, Counter[str]]:
    """Count the worst state of every recording that is asked about, by kind."""
    takes = [(f"take {number}", embedded(wave)) for number, wave in enumerate(split.enrolled)]
    channel = Channel.enrolled([take for take in takes if take[1]], made, most=most)
    found: dict[str, Counter[str]] = {}
    for kind, wave in split.asked:
        worst = worst_of(channel, embedded(wave))
        if worst is not None:
            found.setdefault(kind, Counter())[worst] += 1
    return found


def worst_of(channel: Channel, windows: Sequence[EmbeddedWindow]) -> str | None:
    """Worst state of the windows of a recording; None: it has none."""
    judged = list(channel.run(windows, Rates(), channel.made.grid.hop_s))
    states = {each.state for each in judged}
    if State.ALARM in states:
        return "alarm"
    if State.WARNING in states:
        return UNFAMILIAR if any(each.judgement.unfamiliar for each in judged) else "warning"
    return "normal" if judged else None


def splits_of(recordings: Sequence[Recording], window_s: float) -> Iterator[Split]:
    """Kept out by time, and each speed or load in turn, channel by channel."""
    for channel in sorted({each.facts["channel"] for each in recordings}):
        here = [each for each in recordings if each.facts["channel"] == channel]
        healthy = [each for each in here if each.healthy]
        if not healthy:
            continue
        here = [each for each in here if each.rate_hz == healthy[0].rate_hz]
        faulty = [("faulty", each.wave) for each in here if not each.healthy]
        states = sorted({each.state for each in healthy})
        shortest_s = min(len(each.wave) / each.rate_hz for each in healthy)
        if len(healthy) >= MANY and len(states) == 1:
            half = len(healthy) // 2
            enrolled, kept = [each.wave for each in healthy[:half]], [("same", each.wave) for each in healthy[half:]]
        elif len(healthy) > 1 and shortest_s < LEAST_WINDOWS * window_s:
            enrolled, kept = [each.wave for each in healthy[:-1]], [("same", healthy[-1].wave)]
        else:
            enrolled = [each.part(low, low + KEPT_SHARE / 2) for each in healthy for low in (0.0, KEPT_SHARE / 2)]
            kept = [("same", each.part(KEPT_SHARE, 1.0)) for each in healthy]
        yield Split(f"{channel} time", enrolled, kept + faulty)
        for state in states if len(states) >= FEWEST_STATES else ():
            others = [each for each in healthy if each.state != state]
            unseen = [("unseen", each.wave) for each in healthy if each.state == state]
            halves = [each.part(low, low + 0.5) for each in others for low in (0.0, 0.5)]
            name = " ".join(part for part in state if part)
            yield Split(f"{channel} without {name}", halves, unseen + faulty)


def _day_splits(recordings: Sequence[Recording]) -> Iterator[Split]:
    """The last two days kept out, for each state of the machine."""
    for label in sorted({each.facts["class"] for each in recordings}):
        here = [each for each in recordings if each.facts["class"] == label]
        days = sorted({each.facts["recording"][:6] for each in here})
        last = days[-2:] if len(days) > 2 else days[-1:]
        enrolled = [each.wave for each in here if each.facts["recording"][:6] not in last]
        yield Split(label, enrolled, [("day", each.wave) for each in here if each.facts["recording"][:6] in last])


def recordings_of(folder: Path) -> Iterator[Recording]:
    """Read a dataset; raises BadInputError when the folder holds none."""
    try:
        with (folder / "meta.csv").open(newline="", encoding="utf-8") as handle:
            rows = sorted(csv.DictReader(handle), key=lambda row: row["recording"])
        for row in rows:
            wave = np.load(folder / row["file"], allow_pickle=False).astype(np.float32) * np.float32(row["scale"])
            yield Recording(row, wave, int(row["sample_rate_hz"]))
    except (OSError, KeyError, ValueError) as error:
        raise BadInputError(
            f"{folder} is not a dataset ({error}); give the folder of the datasets, or name those there with --dataset"
        ) from None


def _machine_table(machines: Sequence[Machine]) -> Iterator[str]:
    """(a) as Markdown."""
    yield "| machine | promised a day | 90 % interval | alarms in 24 h | most that fits | warnings |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for each in machines:
        low, high = each.interval
        yield (
            f"| {each.machine} {each.seed} | {each.promised:g} | {low:.1g} to {high:.1g} | {each.alarms} | {each.most} "
            f"| {each.warnings} |"
        )
    for rate in RATES:
        days = [each for each in machines if each.promised == rate]
        yield f"within the promise at {rate:g} a day: {sum(each.within for each in days)} of {len(days)} machines"


def _kept_table(kept: Sequence[Kept]) -> Iterator[str]:
    """(b) as Markdown, all splits and sums by dataset and kind."""
    yield "| dataset | split | kind | recordings | normal | warning | unfamiliar | alarm |"
    yield "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for each in kept:
        counts = (each.recordings, each.normal, each.warning, each.unfamiliar, each.alarm)
        yield f"| {each.dataset} | {each.split} | {each.kind} | {' | '.join(map(str, counts))} |"
    for kind in dict.fromkeys(each.kind for each in kept):
        of_kind = [each for each in kept if each.kind == kind]
        names = ("recordings", "normal", "warning", "unfamiliar", "alarm")
        sums = [str(sum(getattr(each, name) for each in of_kind)) for name in names]
        yield f"| all | | {kind} | {' | '.join(sums)} |"


if __name__ == "__main__":
    sys.exit(main())
