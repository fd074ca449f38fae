"""When whole bearing lives are warned of and alarmed, by the judge and the alarm machine of the gateway.

Run: python -m fisher_bench.lives DATA_DIR [--plots FOLDER]

A life is a row of short bursts until destruction (PRONOSTIA, IEEE PHM 2012). Twelve bursts are one window: their frames
are joined, their samples never. Each life is enrolled on 6 to 28 % of itself, its run-in left out, with the default
rates. Beside it: an alarm of the level alone (three windows in a row above the median by six MAD), and mean log-spectra
in place of the encoder, with the same decision.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from fisher_bench.channel import Channel, Judged, made_with
from fisher_edge.decision.assess import Made
from fisher_edge.decision.coreset import MOST_WINDOWS
from fisher_edge.decision.evidence import Rates
from fisher_edge.decision.judgement import State
from fisher_edge.dsp.blocks import Block, FloatArray
from fisher_edge.dsp.bursts import BurstStream
from fisher_edge.dsp.grid import Grid, grid_of, over_bursts
from fisher_edge.dsp.stream import Piece
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.select import open_encoder
from fisher_edge.encoder.windows import EmbeddedWindow, WindowJoiner, read
from fisher_edge.errors import BadInputError, FisherEdgeError, MissingExtraError, UsageError, require

__all__ = ["main"]

DATASETS = ("femto_life_c1", "femto_life_c2")
ENROLLED = (0.06, 0.28)
BURSTS, HOP_BURSTS = 12, 4
LEVEL_MADS, LEVEL_ROW = 6.0, 3
NEVER = 1.0
"""What a life without an alarm counts in a median."""


@dataclass(frozen=True)
class Life:
    """Fractions of the life at which it was first warned of and alarmed; None: never.

    `kind` is the evidence of the first alarm; `level_alarm` is that of the level alone, `spectrum_alarm` that of mean
    log-spectra.
    """

    life: str
    channel: str
    first_warning: float | None
    first_alarm: float | None
    kind: str | None
    level_alarm: float | None
    spectrum_alarm: float | None


@dataclass(frozen=True, eq=False)
class Recorded:
    """One life on one channel: `bursts` (n, samples), when each was taken (s) and at which fraction of the life."""

    name: str
    channel: str
    rate_hz: int
    bursts: FloatArray
    time_s: FloatArray
    fraction: FloatArray


@dataclass(frozen=True, eq=False)
class Course:
    """A life as it was judged: fraction of every window after the enrollment, and what was said."""

    fractions: list[float]
    judged: list[Judged]

    def first(self, *states: State) -> float | None:
        """Fraction of the first window in one of these states."""
        pairs = zip(self.fractions, self.judged, strict=True)
        return next((fraction for fraction, judged in pairs if judged.state in states), None)

    @property
    def kind(self) -> str | None:
        """Evidence that raised the first alarm."""
        return next((each.kind for each in self.judged if each.state is State.ALARM and each.kind), None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table, or one JSON object a life and channel."""
    parser = argparse.ArgumentParser(
        prog="python -m fisher_bench.lives", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data_dir", type=Path, help="folder of datasets, one folder with a meta.csv each")
    parser.add_argument("--dataset", nargs="*", default=list(DATASETS), help="datasets of lives")
    parser.add_argument("--bundle", default="default", help="bundle of the encoder")
    parser.add_argument("--hop-bursts", type=int, default=HOP_BURSTS, help="bursts from one window to the next")
    parser.add_argument("--most", type=int, default=MOST_WINDOWS, help="windows of the coreset at most")
    parser.add_argument("--plots", type=Path, help="folder for a picture (SVG) of every life")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(arguments)
    lives = []
    try:
        if options.plots:
            require("bench", "matplotlib")
            _make_folder(options.plots)
        encoder = open_encoder(load_bundle(options.bundle))
        for name in options.dataset:
            for recorded in _lives(options.data_dir / name):
                life, course = _judged(encoder, recorded, options.most, options.hop_bursts)
                lives.append(life)
                if options.json:
                    print(json.dumps(asdict(life)), flush=True)
                if options.plots:
                    _plot(options.plots, life, course)
    except (FisherEdgeError, MissingExtraError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if not options.json:
        print("\n".join(_table(lives)))
    return 0


def _judged(encoder: Encoder, recorded: Recorded, most: int, hop_bursts: int) -> tuple[Life, Course]:
    """Enroll a life on its first part and judge the rest."""
    grid = _grid(encoder, recorded, hop_bursts)
    windows, spectra = _windows(encoder, recorded, grid)
    fractions = np.interp([window.end_time_s for window in windows], recorded.time_s, recorded.fraction).tolist()
    low, high = ENROLLED
    early = [index for index, fraction in enumerate(fractions) if low <= fraction <= high]
    enrolled = slice(early[0], early[-1] + 1)
    made = made_with(encoder, grid, recorded.rate_hz)
    course = _course(made, windows, fractions, enrolled, most)
    life = Life(
        life=recorded.name,
        channel=recorded.channel,
        first_warning=course.first(State.WARNING, State.ALARM),
        first_alarm=course.first(State.ALARM),
        kind=course.kind,
        level_alarm=_level_alarm(windows, fractions, enrolled),
        spectrum_alarm=_course(made, spectra, fractions, enrolled, most).first(State.ALARM),
    )
    return life, course


def _course(
    made: Made, windows: Sequence[EmbeddedWindow], fractions: Sequence[float], enrolled: slice, most: int
) -> Course:
    """Enroll some windows and judge those after them."""
    channel = Channel.enrolled([("start of life", windows[enrolled])], made, most=most)
    judged = channel.run(windows[enrolled.stop :], Rates(), made.grid.hop_s)
    return Course(list(fractions[enrolled.stop :]), list(judged))


def _grid(encoder: Encoder, recorded: Recorded, hop_bursts: int) -> Grid:
    """Twelve bursts a window, so many to the next, and as much time as there was between those that are enrolled."""
    front_end, rate_hz = encoder.bundle.front_end, recorded.rate_hz
    burst_s = front_end.seconds_of(front_end.n_frames(recorded.bursts.shape[1], rate_hz), rate_hz)
    apart_s = float(np.median(np.diff(recorded.time_s[recorded.fraction <= ENROLLED[1]])))
    return over_bursts(grid_of(front_end, BURSTS * burst_s, hop_bursts * burst_s, rate_hz), apart_s / burst_s)


def _windows(encoder: Encoder, recorded: Recorded, grid: Grid) -> tuple[list[EmbeddedWindow], list[EmbeddedWindow]]:
    """Windows of bursts with the embedding of the encoder, and the same with mean log-spectra."""
    front_end, rate_hz = encoder.bundle.front_end, recorded.rate_hz
    stream, joiner = BurstStream(front_end, rate_hz, grid), WindowJoiner(grid)
    length = recorded.bursts.shape[1]
    embedded: list[EmbeddedWindow] = []
    spectral: list[EmbeddedWindow] = []

    def take(pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            (reading,) = read(encoder, front_end, [piece], views=())
            window = joiner.push(reading)
            assert window is not None, "a window of bursts is one piece"
            embedded.append(window)
            spectral.append(replace(window, embedding=piece.bands.mean(axis=1)))

    for number, (burst, time_s) in enumerate(zip(recorded.bursts, recorded.time_s, strict=True)):
        take(stream.push(Block(burst, rate_hz, number * (length + 1), float(time_s))))
    take(stream.end())
    return embedded, spectral


def _level_alarm(windows: Sequence[EmbeddedWindow], fractions: Sequence[float], enrolled: slice) -> float | None:
    """Fraction at which log RMS was above the median of the enrolled windows by six MAD three times in a row."""
    levels = np.array([window.measures.log_rms for window in windows])
    usual = float(np.median(levels[enrolled]))
    spread = float(np.median(np.abs(levels[enrolled] - usual)))
    beyond = levels > usual + LEVEL_MADS * spread
    for index in range(enrolled.stop + LEVEL_ROW - 1, len(levels)):
        if beyond[index - LEVEL_ROW + 1 : index + 1].all():
            return fractions[index]
    return None


def _lives(folder: Path) -> Iterator[Recorded]:
    """Read the lives of a dataset; raises BadInputError when the folder holds none."""
    try:
        with (folder / "meta.csv").open(newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
        for unit, channel in sorted({(row["split_unit"], row["channel"]) for row in rows}):
            own = [row for row in rows if (row["split_unit"], row["channel"]) == (unit, channel)]
            own.sort(key=lambda row: float(row["time_s"]))
            bursts = np.load(folder / own[0]["file"], mmap_mode="r", allow_pickle=False)
            yield Recorded(
                name=unit,
                channel=channel,
                rate_hz=int(own[0]["sample_rate_hz"]),
                bursts=np.stack([bursts[int(row["array_row"])] * np.float32(row["scale"]) for row in own]),
                time_s=np.array([float(row["time_s"]) for row in own]),
                fraction=np.array([float(row["life_fraction"]) for row in own]),
            )
    except (OSError, KeyError, ValueError) as error:
        raise BadInputError(
            f"{folder} is no dataset of lives ({error}); give the folder that holds them, or name those there with "
            "--dataset"
        ) from None


def _table(lives: Sequence[Life]) -> Iterator[str]:
    """The lives as Markdown, with medians by channel."""
    yield "| life | channel | warning | alarm | evidence | level alone | log-spectrum |"
    yield "| --- | --- | ---: | ---: | --- | ---: | ---: |"
    for life in lives:
        figures = (life.first_warning, life.first_alarm, life.kind, life.level_alarm, life.spectrum_alarm)
        yield f"| {life.life} | {life.channel} | {' | '.join(map(_figure, figures))} |"
    for channel in sorted({life.channel for life in lives}):
        own = [life for life in lives if life.channel == channel]
        for name in ("first_warning", "first_alarm", "level_alarm", "spectrum_alarm"):
            found = [getattr(life, name) for life in own]
            median = float(np.median([NEVER if each is None else each for each in found]))
            yield f"{channel}, {name}: median {median:.2f}, never {found.count(None)} of {len(own)}"


def _figure(value: float | str | None) -> str:
    """A cell of the table."""
    return value if isinstance(value, str) else "never" if value is None else f"{value:.2f}"


def _make_folder(folder: Path) -> None:
    """Make the folder of the pictures before the work begins; raises UsageError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made ({error}); give --plots a folder that can be written") from None


def _plot(folder: Path, life: Life, course: Course) -> None:
    """Draw evidence over the life with the limit, the warning and the alarm, as SVG."""
    from matplotlib import pyplot as plt  # noqa: PLC0415 -- of the extra

    plt.switch_backend("svg")
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    shape = [each.judgement.evidence.alarm if each.judgement.evidence else 0.0 for each in course.judged]
    level = [
        each.judgement.level.evidence.alarm if each.judgement.level and each.judgement.level.evidence else 0.0
        for each in course.judged
    ]
    axes.plot(course.fractions, shape, color="#0072b2", label="shape")
    axes.plot(course.fractions, level, color="#999999", label="level")
    axes.axhline(1.0, color="#d55e00", linestyle="--", linewidth=1, label="limit of an alarm")
    axes.axvspan(*ENROLLED, color="#009e73", alpha=0.2, label="enrolled")
    for fraction, name in ((life.first_warning, "warning"), (life.first_alarm, "alarm")):
        if fraction is not None:
            axes.axvline(fraction, color="black", linewidth=0.8)
            axes.text(fraction, axes.get_ylim()[1], name, rotation=90, va="top", ha="right", fontsize=8)
    axes.set(xlim=(0, 1), ylim=(0, None), xlabel="fraction of the life", ylabel="evidence over the limit")
    axes.set_title(f"{life.life}, {life.channel}")
    axes.legend(loc="upper left", fontsize=8)
    figure.savefig(folder / f"{life.life}-{life.channel}.svg")
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
