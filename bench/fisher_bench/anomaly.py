"""How well healthy and faulty recordings are told apart when only healthy ones are enrolled.

Run: python -m fisher_bench.anomaly DATA_DIR --model default

DATA_DIR holds one folder a dataset with a `meta.csv` (file, class, split_unit, channel, sample_rate_hz, scale).
Each healthy recording is held out in turn, the others are enrolled (k = 1, cosine): the area under the ROC
curve is that of the held-out healthy windows against all faulty ones. No recording is on both sides.
"""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fisher_edge.decision.bank import MemoryBank
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.ort import EncoderSession
from fisher_edge.errors import BadInputError

__all__ = ["AREAS", "area_under_roc", "areas_of"]

AREAS = (("hit_sm_self", ""), ("cwru_12k_de", "DE"), ("uestc_bearing", ""))
"""Datasets of the report and the channel they are judged on (empty: the only one)."""
SEGMENT_S = 1.0


@dataclass(frozen=True, eq=False)
class _Recording:
    unit: str
    healthy: bool
    embeddings: FloatArray


def area_under_roc(normal: Sequence[float], anomalous: Sequence[float]) -> float:
    """Probability that an anomalous score exceeds a normal one, ties counting half (Mann-Whitney)."""
    if not normal or not anomalous:
        raise BadInputError("an area under the curve needs scores of both kinds; check the dataset")
    a, n = np.asarray(anomalous)[:, None], np.asarray(normal)[None, :]
    return float(((a > n) + 0.5 * (a == n)).mean())


def areas_of(folder: Path, channel: str, session: EncoderSession) -> list[float]:
    """Area for each held-out healthy unit of one dataset."""
    recordings = _embed(folder, channel, session)
    units = sorted({recording.unit for recording in recordings if recording.healthy})
    if len(units) < 2:
        raise BadInputError(f"{folder} has {len(units)} healthy recordings; two are needed to hold one out")
    return [_area_holding_out(unit, recordings) for unit in units]


def _area_holding_out(unit: str, recordings: list[_Recording]) -> float:
    """Area with one healthy unit held out and the others enrolled."""
    enrolled = [row for r in recordings if r.healthy and r.unit != unit for row in r.embeddings]
    bank = MemoryBank.of(np.stack(enrolled), ["normal"] * len(enrolled))
    scores: dict[bool, list[float]] = {True: [], False: []}
    for recording in recordings:
        if not recording.healthy or recording.unit == unit:
            scores[recording.healthy] += [bank.nearest(row).distance for row in recording.embeddings]
    return area_under_roc(scores[True], scores[False])


def _embed(folder: Path, channel: str, session: EncoderSession) -> list[_Recording]:
    """Embed one channel of every recording in segments of 1 s."""
    try:
        with (folder / "meta.csv").open(newline="", encoding="utf-8") as handle:
            rows = [row for row in csv.DictReader(handle) if not channel or row["channel"] == channel]
    except OSError as error:
        raise BadInputError(f"cannot read {folder / 'meta.csv'}: {error.strerror}; check the data folder") from error
    return [
        _Recording(
            row["split_unit"], row["class"] in {"normal", "healthy"}, _segments(folder / row["file"], row, session)
        )
        for row in rows
    ]


def _segments(path: Path, row: dict[str, str], session: EncoderSession) -> FloatArray:
    """Embeddings (segments, bands, dim) of one file."""
    front_end = session.bundle.front_end
    rate_hz = int(row["sample_rate_hz"])
    wave = np.load(path, allow_pickle=False).astype(np.float32) * np.float32(row["scale"])
    length = front_end.n_samples(front_end.frames_of(SEGMENT_S), rate_hz)
    return np.stack(
        [
            session.embed(front_end.sub_bands(wave[start : start + length], rate_hz))
            for start in range(0, len(wave) - length + 1, length)
        ]
    )


def _spread(areas: list[float]) -> str:
    """Mean and range in per cent."""
    values: npt.NDArray[np.float64] = 100 * np.asarray(areas)
    return f"{values.mean():.1f} ({values.min():.1f} to {values.max():.1f} over {len(values)} held-out recordings)"


def main() -> None:
    """Print one line a dataset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--model", default="default", help='bundle folder, or "default"')
    arguments = parser.parse_args()
    session = EncoderSession(load_bundle(arguments.model))
    for name, channel in AREAS:
        print(f"{name:16} AUC {_spread(areas_of(arguments.data_dir / name, channel, session))}", flush=True)


if __name__ == "__main__":
    main()
