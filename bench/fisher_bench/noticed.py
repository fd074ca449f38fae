"""Whether what an enrollment says it would notice is noticed: changes injected into recordings that were kept out.

Run: python -m fisher_bench.noticed DATA_DIR

Healthy recordings are enrolled in part, as in `fisher_bench.quiet`. Those kept out are changed by the size that the
enrollment names, by two thirds of it and by one and a half times as much, played again and again for an hour, and
judged. Where it says that not even the largest size would raise an alarm, the largest is injected.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from fisher_bench.channel import Channel, made_with, windows_of
from fisher_bench.quiet import Split, recordings_of, splits_of
from fisher_edge.decision.evidence import Rates
from fisher_edge.decision.judgement import State
from fisher_edge.decision.sensitivity import Noticed
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.changes import Change, Spot, changed
from fisher_edge.dsp.grid import Grid, grid_of
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.select import open_encoder
from fisher_edge.encoder.spots import embed_spots
from fisher_edge.errors import BadInputError, FisherEdgeError

__all__ = ["main"]

SETS = ("spectraquest_gearbox", "uestc_bearing", "ims_set1_first50", "hit_sm_mfs", "cwru_48k_de")
WINDOW_S = 0.96
MOST_KEPT = 3
SPOTS = 6
HORIZONS_S = {"minute": 60.0, "hour": 3600.0}
FACTORS = (2 / 3, 1.0, 1.5)
MOST_SHARE = 0.9


@dataclass(frozen=True)
class Tried:
    """One change of one size in one recording: what was said of it, and what happened within the horizon."""

    dataset: str
    split: str
    change: str
    horizon: str
    said: float | None
    unfamiliar: bool
    factor: float
    """Of the size that was said; 0 where none was and the largest was tried."""
    happened: str
    """`alarm`, `unfamiliar`, `warning` or `normal`: the worst state."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or one JSON object for each change of one size in one recording."""
    parser = argparse.ArgumentParser(
        prog="python -m fisher_bench.noticed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data_dir", type=Path, help="folder of datasets, one folder with a meta.csv each")
    parser.add_argument("--bundle", default="default", help="bundle of the encoder")
    parser.add_argument("--dataset", nargs="*", default=list(SETS), help="datasets")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(arguments)
    try:
        encoder = open_encoder(load_bundle(options.bundle))
        tried = [found for name in options.dataset for found in _dataset(encoder, options.data_dir, name)]
    except FisherEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join([json.dumps(asdict(each)) for each in tried] if options.json else _table(tried)))
    return 0


def _dataset(encoder: Encoder, data_dir: Path, name: str) -> Iterator[Tried]:
    """Try every split of a dataset that keeps recordings of enrolled states out."""
    recordings = [each for each in recordings_of(data_dir / name) if each.healthy]
    if not recordings:
        raise BadInputError(f"{data_dir / name} has no healthy recordings to enroll; leave it out of --dataset")
    rate_hz = recordings[0].rate_hz
    grid = grid_of(encoder.bundle.front_end, WINDOW_S, WINDOW_S, rate_hz)
    for split in splits_of(recordings, WINDOW_S):
        if "without" not in split.name:
            yield from _split(encoder, name, split, grid, rate_hz)


def _split(encoder: Encoder, dataset: str, split: Split, grid: Grid, rate_hz: int) -> Iterator[Tried]:
    """Enroll one part, and change the other."""
    channel = _enrolled(encoder, split.enrolled, grid, rate_hz)
    assert channel.facts.sensitivity is not None
    kept = [wave for kind, wave in split.asked if kind != "faulty"]
    kept = kept[:: max(1, len(kept) // MOST_KEPT)][:MOST_KEPT]
    # A recording that raises an alarm as it is says nothing about changes.
    kept = [wave for wave in kept if _worst(channel, encoder, wave, grid, rate_hz)["hour"] != "alarm"]
    for noticed in channel.facts.sensitivity.noticed:
        for (horizon, said), wave in itertools.product(_said(noticed), kept):
            for factor in FACTORS if said is not None else (0.0,):
                size = noticed.largest if said is None else factor * said
                if size is not None and (noticed.unit == "dB" or size < MOST_SHARE):
                    happened = _worst(channel, encoder, _with(wave, noticed, size, rate_hz), grid, rate_hz)[horizon]
                    yield Tried(
                        dataset, split.name, noticed.change, horizon, said, noticed.unfamiliar, factor, happened
                    )


def _enrolled(encoder: Encoder, waves: Sequence[FloatArray], grid: Grid, rate_hz: int) -> Channel:
    """Enroll recordings with a spot from the middle of some."""
    front_end = encoder.bundle.front_end
    takes = {f"take {number}": wave for number, wave in enumerate(waves)}
    length = front_end.n_samples(grid.piece_frames, rate_hz)
    spots: dict[str, Spot] = {
        name: (wave[(len(wave) - length) // 2 :][:length],)
        for name, wave in list(takes.items())[:: max(1, len(takes) // SPOTS)]
        if len(wave) >= length
    }
    windows = [(name, windows_of(encoder, wave, rate_hz, grid)) for name, wave in takes.items()]
    made = made_with(encoder, grid, rate_hz)
    embed = partial(embed_spots, encoder, made.front_end, grid, rate_hz)
    return Channel.enrolled([take for take in windows if take[1]], made, spots=spots, embed=embed)


def _said(noticed: Noticed) -> list[tuple[str, float | None]]:
    """Size within each horizon that is tried."""
    return [("minute", noticed.minute), ("hour", noticed.hour)]


def _with(wave: FloatArray, noticed: Noticed, size: float, rate_hz: int) -> FloatArray:
    """Inject a change into a whole recording."""
    if noticed.low_hz is None or noticed.high_hz is None:
        return wave * 10 ** (size / 20)
    change = Change(noticed.change, noticed.unit, noticed.low_hz, noticed.high_hz, ())
    return changed((wave,), change, size, float(rate_hz))[0]


def _worst(channel: Channel, encoder: Encoder, wave: FloatArray, grid: Grid, rate_hz: int) -> dict[str, str]:
    """Worst state within each horizon when a recording is played again and again."""
    windows = windows_of(encoder, wave, rate_hz, grid)
    worst, seen = {}, {"normal"}
    ranks = ("alarm", "unfamiliar", "warning", "normal")
    judged = channel.run(itertools.cycle(windows), Rates(), grid.hop_s)
    end_s = grid.window_s
    for horizon, horizon_s in HORIZONS_S.items():
        while end_s <= horizon_s and "alarm" not in seen:
            each = next(judged)
            if each.state is not State.NORMAL:
                seen.add(
                    "unfamiliar" if each.judgement.unfamiliar and each.state is State.WARNING else each.state.value
                )
            end_s += grid.hop_s
        worst[horizon] = next(rank for rank in ranks if rank in seen)
    return worst


def _table(tried: Sequence[Tried]) -> Iterator[str]:
    """Markdown: how often each size raised an alarm, by dataset and horizon."""
    yield "| dataset | within | alarm at 2/3 of it | at it | at 1.5 times | said no: alarm | said unfamiliar: is |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for dataset in [*dict.fromkeys(each.dataset for each in tried), "all"]:
        for horizon in HORIZONS_S:
            here = [each for each in tried if each.horizon == horizon and dataset in {each.dataset, "all"}]
            counts = [_share([each for each in here if each.factor == factor], "alarm") for factor in FACTORS]
            largest = [each for each in here if not each.factor]
            counts.append(_share([each for each in largest if not each.unfamiliar], "alarm"))
            counts.append(_share([each for each in largest if each.unfamiliar], "unfamiliar"))
            yield f"| {dataset} | {horizon} | {' | '.join(counts)} |"


def _share(tried: Sequence[Tried], happened: str) -> str:
    """How many of these ended in one state."""
    return f"{sum(each.happened == happened for each in tried)} of {len(tried)}"


if __name__ == "__main__":
    sys.exit(main())
