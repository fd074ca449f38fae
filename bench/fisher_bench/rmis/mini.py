"""A small benchmark of the same protocol on a folder of labelled recordings: not the paper's sets.

Start at `run_mini`. Every dataset is a folder with a `meta.csv` (see `fisher_bench.judge.corpus`). Windows are
one second and at most eight a recording, since there are few recordings and several last no longer; samples are kept
as they are instead of rounded to 16 bits. Diagnosis is sealed by `split_unit`; where a healthy state exists, half
of its units are enrolled and all else is asked about, scored as DCASE 2020.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr

from fisher_bench.judge.corpus import Window, read_dataset
from fisher_bench.judge.tasks import HEALTHY
from fisher_bench.protocol import FIRST_SEED
from fisher_bench.rmis.catalogue import Modality, RmisSet
from fisher_bench.rmis.embed.run import embed_set
from fisher_bench.rmis.index import FILES_OF, INDEX_NAME, Index, Segment, read_index, write_index
from fisher_bench.rmis.report.rows import Row, measured_row
from fisher_bench.rmis.report.write import Report, write_report
from fisher_edge.errors import BadInputError

__all__ = ["MODALITIES", "MODELS", "prepare_mini", "run_mini"]

WINDOW_S = 1.0
MODALITIES: dict[str, Modality] = {
    "cwru_12k_de": "vibration",
    "cwru_12k_fe": "vibration",
    "uestc_bearing": "vibration",
    "hit_sm_self": "vibration",
    "hit_sm_mfs": "vibration",
    "mfpt": "vibration",
    "spectraquest_gearbox": "vibration",
    "itsc_motor_current": "current",
    "air_compressor_state": "sound",
    "esc50_machine_16k": "sound",
}
"""Folder and modality of the datasets; a class that was recorded once is left out."""
MINI = "mini-"
"""Begins the name of every set."""
ANOMALY = "-anomaly"
MODELS = (
    "default", "random:nano:0", "random:nano:1", "random:nano:2", "cheap:mean-log-stft", "cheap:mean-std",
    "cheap:log-mel", "cheap:envelope", "birdnet", "speech-embedding",
)  # fmt: skip
"""What is compared unless others are named: the shipped bundle, random weights, spectra, pretrained encoders."""
NOTES = (
    (
        "Not the paper's sets: the protocol of RMIS on small public sets of other machines. Windows of one second, at "
        "most eight a recording; ten sealed splits of the units, half of them enrolled, k = 5, macro accuracy; "
        "detection enrolls half of the healthy units, k = 1, mean of AUC and pAUC. Areas by Simpson's rule over the "
        "shares at which a split exists."
    ),
    (
        "CPU time is that of one thread for a second of signal, averaged over the sets and measured while embeddings "
        "were made, relative to the fastest encoder of this report."
    ),
)


def prepare_mini(data_dir: Path, out: Path, datasets: Sequence[str] = tuple(MODALITIES)) -> list[tuple[RmisSet, Path]]:
    """Cut the datasets into segments and return the sets, each with its folder below `out`; what exists is reused.

    Raises BadInputError when a dataset is not there.
    """
    sets: list[tuple[RmisSet, Path]] = []
    for name in datasets:
        folder = out / f"{MINI}{name}"
        if not (folder / INDEX_NAME).is_file():
            _cut(name, _recorded_twice(read_dataset(data_dir / name, WINDOW_S)), folder)
        index = read_index(folder)
        sets.append((_set(name, index), folder))
        beside = folder.with_name(folder.name + ANOMALY)
        healthy = _with_healthy_enrolled(index)
        if healthy:
            beside.mkdir(exist_ok=True)
            write_index(beside, Index(healthy, {"name": beside.name, FILES_OF: folder.name}))
            sets.append((_anomaly_set(name, index), beside))
    if not sets:
        raise BadInputError(f"no dataset of {data_dir} was asked for; known are {', '.join(MODALITIES)}")
    return sets


def run_mini(
    data_dir: Path,
    out: Path,
    models: Sequence[str],
    *,
    datasets: Sequence[str] = tuple(MODALITIES),
    workers: int = 1,
    report: Callable[[str, int, int], None] = lambda _name, _done, _total: None,
) -> tuple[list[Row], Path, Path]:
    """Prepare, embed with every model, score and report; return the rows and the paths of Markdown and HTML.

    Results of an earlier run into the same folder are reused.
    """
    sets = prepare_mini(data_dir, out / "sets", datasets)
    folders = [out / "runs" / _folder_name(number, spec) for number, spec in enumerate(models)]
    for spec, folder in zip(models, folders, strict=True):
        for number, (known, prepared) in enumerate(sets):
            report(spec, number, len(sets))
            embed_set(known, prepared, spec, folder / known.name, cache=out / "cache", workers=workers)
        report(spec, len(sets), len(sets))
    kinds = tuple(known for known, _ in sets)
    rows = [measured_row(folder, kinds) for folder in folders]
    markdown, page = write_report(out, Report("mini-RMIS", NOTES, kinds), rows)
    return rows, markdown, page


def _folder_name(number: int, spec: str) -> str:
    """Name the folder of a model's runs; the number keeps two models of one name apart."""
    return f"{number:02d}-" + "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in spec)[-40:]


def _recorded_twice(windows: Sequence[Window]) -> list[Window]:
    """Leave out classes of a single unit, which no sealed split can have on both sides."""
    units: dict[str, set[str]] = {}
    for window in windows:
        units.setdefault(window.label, set()).add(window.unit)
    return [window for window in windows if len(units[window.label]) > 1]


def _cut(name: str, windows: Sequence[Window], folder: Path) -> None:
    """Write every window as a file; a set recorded at a rate and its double is brought to the lower one."""
    rate_hz = min(window.rate_hz for window in windows)
    classes = sorted({window.label for window in windows})
    folder.mkdir(parents=True, exist_ok=True)
    segments = []
    for number, window in enumerate(windows):
        wave = window.wave
        if window.rate_hz != rate_hz:
            wave = soxr.resample(wave, window.rate_hz, rate_hz)
        file = f"{Path(window.facts['file']).with_suffix('')}_{window.start}.wav".replace("/", "_").replace(" ", "_")
        soundfile.write(folder / file, wave, rate_hz, subtype="FLOAT")
        segments.append(
            Segment(
                file, file, MODALITIES[name], rate_hz, len(wave), window.label, classes.index(window.label),
                window.unit, window.facts["file"], start_sample=window.start, segment=number,
            )
        )  # fmt: skip
    write_index(folder, Index(tuple(segments), {"name": folder.name}))


def _set(name: str, index: Index) -> RmisSet:
    """Describe the diagnosis of a dataset."""
    classes = dict(sorted({segment.class_id: segment.label for segment in index.segments}.items()))
    return RmisSet(
        f"{MINI}{name}", name, MODALITIES[name], index.segments[0].rate_hz, 0, WINDOW_S, "sealed",
        tuple(classes.values()), "the folder of recordings", "see the publisher of each",
        keys=len({segment.key for segment in index.segments}), segments=len(index.segments),
    )  # fmt: skip


def _anomaly_set(name: str, index: Index) -> RmisSet:
    return RmisSet(
        f"{MINI}{name}{ANOMALY}", f"{name} AD", MODALITIES[name], index.segments[0].rate_hz, 0, WINDOW_S,
        "anomaly", (), "the folder of recordings", "see the publisher of each", k=1, scored_as="dcase20",
    )  # fmt: skip


def _with_healthy_enrolled(index: Index) -> tuple[Segment, ...]:
    """Turn a diagnosis into the detection of what is not healthy; empty when no healthy state was recorded twice."""
    units = sorted({segment.key for segment in index.segments if segment.label in HEALTHY})
    if len(units) < 2:
        return ()
    drawn = np.random.RandomState(FIRST_SEED).permutation(len(units))[: len(units) // 2]
    enrolled = {units[number] for number in drawn}
    folder = f"../{index.facts['name']}"
    return tuple(
        Segment(
            segment.file, f"{folder}/{segment.path}", segment.modality, segment.rate_hz, segment.samples,
            segment.label, segment.class_id, segment.key, segment.source, subset="dev", machine="all", section="00",
            split="train" if segment.key in enrolled and segment.label in HEALTHY else "test", domain="source",
            anomalous=int(segment.label not in HEALTHY),
        )
        for segment in index.segments
    )  # fmt: skip
