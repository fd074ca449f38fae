"""How a sensor of another rate than the enrolled one is judged, beside a sensor of the same rate.

Run: python -m fisher_bench.other_rate DATA_DIR

Healthy recordings kept out by time, and the faulty ones, as in (b) of `fisher_bench.quiet`. Every recording also exists
as a slower sensor would have made it, with one of three anti-alias filters that are not the gateway's. Enrolled, asked:

- `same`: slow, slow.
- `slower sensor`: fast and resampled by the gateway, slow.
- `faster sensor`: slow, fast and resampled by the gateway.
- `stored vectors`: fast as enrolled, slow. The gateway refuses this.

Judged by the common bands, and by all bands at the lower rate.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from fisher_bench.channel import Channel, made_with, windows_of
from fisher_bench.quiet import LEAST_WINDOWS, SHORT_WINDOW_S, WINDOW_S, Split, recordings_of, splits_of, worst_of
from fisher_edge.decision.common import common_of
from fisher_edge.dsp.blocks import Block, FloatArray
from fisher_edge.dsp.grid import at_rate, grid_of
from fisher_edge.dsp.resample import Downsampler
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.select import open_encoder
from fisher_edge.encoder.windows import EmbeddedWindow
from fisher_edge.errors import FisherEdgeError, MissingExtraError, require

__all__ = ["main"]

# Datasets and the rate of the slower sensor.
SETS = {
    "cwru_48k_de": 16_000,
    "hit_sm_self": 16_000,
    "hit_sm_mfs": 16_000,
    "mfpt": 16_000,
    "uestc_bearing": 8_000,
    "ims_set1_first50": 8_000,
}
# How a recording is heard: as it is, lowered by the gateway, or by the slower sensor.
FAST, LOWERED, SLOW = "fast", "lowered", "slow"
# How those are heard that are enrolled, and those that are asked about.
PAIRS = {
    "same": (SLOW, SLOW),
    "slower sensor": (LOWERED, SLOW),
    "faster sensor": (SLOW, LOWERED),
    "stored vectors": (FAST, SLOW),
}
# Anti-alias filters of the slower sensor: order and pass band over half its rate; None: the steep one of soxr alone.
FILTERS: dict[str, tuple[str, int, float] | None] = {
    "steep": None,
    "chebyshev": ("cheby1", 8, 0.8),
    "butterworth": ("butter", 4, 0.8),
}
RIPPLE_DB = 0.05


@dataclass(frozen=True)
class Row:
    """Recordings of one kind (`same`: healthy, kept out; `faulty`) by the worst state they reached."""

    dataset: str
    sensor: str
    pair: str
    bands: str
    kind: str
    recordings: int
    normal: int
    warning: int
    alarm: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table, or one JSON object a row."""
    parser = argparse.ArgumentParser(
        prog="python -m fisher_bench.other_rate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data_dir", type=Path, help="folder of datasets, one folder with a meta.csv each")
    parser.add_argument("--dataset", nargs="*", choices=SETS, default=list(SETS), help="datasets")
    parser.add_argument("--bundle", default="default", help="bundle of the encoder")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(arguments)
    try:
        require("train", "scipy")
        require("train", "soxr")
        encoder = open_encoder(load_bundle(options.bundle))
        rows = [row for name in options.dataset for row in _rows(encoder, options.data_dir / name, SETS[name])]
    except (FisherEdgeError, MissingExtraError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(json.dumps(asdict(row)) for row in rows) if options.json else "\n".join(_table(rows)))
    return 0


class _Sensors:
    """One dataset as a fast sensor recorded it and a slower one would have, embedded once in each way."""

    def __init__(self, encoder: Encoder, folder: Path, slow_hz: int) -> None:
        recordings = list(recordings_of(folder))
        front_end, fast_hz = encoder.bundle.front_end, recordings[0].rate_hz
        shortest_s = min(len(each.wave) / each.rate_hz for each in recordings)
        window_s = WINDOW_S if shortest_s > LEAST_WINDOWS / 2 * WINDOW_S else SHORT_WINDOW_S
        self._encoder, self._rates_hz = encoder, (fast_hz, slow_hz)
        self._fast = grid_of(front_end, window_s, None, fast_hz)
        self.made = made_with(encoder, at_rate(front_end, self._fast, slow_hz), slow_hz)
        self.bands = {"common": common_of(front_end, fast_hz, slow_hz).bands, "all": front_end.n_bands(slow_hz)}
        self.splits = [split for split in splits_of(recordings, window_s) if split.name.endswith("time")]
        self._known: dict[tuple[int, str, str], list[EmbeddedWindow]] = {}

    def heard(self, wave: FloatArray, how: str, filter_name: str) -> list[EmbeddedWindow]:
        """Windows of a recording heard in one way."""
        key = (id(wave), how, filter_name if how == SLOW else "")
        if key not in self._known:
            fast_hz, slow_hz = self._rates_hz
            if how == FAST:
                windows = windows_of(self._encoder, wave, fast_hz, self._fast)
            else:
                lower = _slow if how == SLOW else _lowered
                windows = windows_of(self._encoder, lower(wave, fast_hz, slow_hz, filter_name), slow_hz, self.made.grid)
            self._known[key] = windows
        return self._known[key]


def _rows(encoder: Encoder, folder: Path, slow_hz: int) -> Iterator[Row]:
    """Put one dataset to the decision, with every sensor, by the common bands and by all."""
    sensors = _Sensors(encoder, folder, slow_hz)
    for filter_name, (pair, hearing), (name, bands) in product(FILTERS, PAIRS.items(), sensors.bands.items()):
        found: dict[str, Counter[str]] = {}
        for split in sensors.splits:
            for kind, worst in _asked(sensors, split, hearing, filter_name, bands):
                found.setdefault(kind, Counter())[worst] += 1
        for kind, worst_of_kind in found.items():
            normal, alarm = worst_of_kind["normal"], worst_of_kind["alarm"]
            total = worst_of_kind.total()
            yield Row(folder.name, filter_name, pair, name, kind, total, normal, total - normal - alarm, alarm)


def _asked(
    sensors: _Sensors, split: Split, hearing: tuple[str, str], filter_name: str, bands: int
) -> Iterator[tuple[str, str]]:
    """Kind and worst state of every recording that is asked about."""

    def heard(wave: FloatArray, how: str) -> list[EmbeddedWindow]:
        windows = sensors.heard(wave, how, filter_name)
        return [replace(window, embedding=window.embedding[:bands]) for window in windows]

    enrolled, asked = hearing
    takes = [(f"take {number}", heard(wave, enrolled)) for number, wave in enumerate(split.enrolled)]
    channel = Channel.enrolled([take for take in takes if take[1]], sensors.made)
    for kind, wave in split.asked:
        worst = worst_of(channel, heard(wave, asked))
        if worst is not None:
            yield kind, worst


def _lowered(wave: FloatArray, fast_hz: int, slow_hz: int, _: str) -> FloatArray:
    """Lower the rate of a recording as the gateway does."""
    return Downsampler(fast_hz, slow_hz).push(Block(wave, fast_hz, 0, 0.0)).samples


def _slow(wave: FloatArray, fast_hz: int, slow_hz: int, filter_name: str) -> FloatArray:
    """Record with a slower sensor."""
    import soxr  # noqa: PLC0415 -- of the extra
    from scipy import signal  # noqa: PLC0415

    design = FILTERS[filter_name]
    if design is not None:
        kind, order, passed = design
        sections = signal.iirfilter(order, passed * slow_hz / fast_hz, RIPPLE_DB, 60, "low", ftype=kind, output="sos")
        wave = signal.sosfilt(sections, wave).astype(np.float32)
    return np.asarray(soxr.resample(wave, fast_hz, slow_hz, quality="HQ"), np.float32)


def _table(rows: Sequence[Row]) -> Iterator[str]:
    """Sums over the datasets as Markdown: recordings by the worst state they reached."""
    yield "| filter | sensor | bands | healthy | warning | alarm | faulty | alarm |"
    yield "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for key in dict.fromkeys((row.sensor, row.pair, row.bands) for row in rows):
        own = [row for row in rows if (row.sensor, row.pair, row.bands) == key]
        healthy, faulty = ([row for row in own if row.kind == kind] for kind in ("same", "faulty"))
        sums = [sum(getattr(row, name) for row in healthy) for name in ("recordings", "warning", "alarm")]
        sums += [sum(getattr(row, name) for row in faulty) for name in ("recordings", "alarm")]
        yield f"| {' | '.join([*key, *map(str, sums)])} |"


if __name__ == "__main__":
    sys.exit(main())
