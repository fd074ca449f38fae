"""The DCASE sets of 2020 to 2025: folders, names, and the ground truth of the evaluation. Start at `find_clips`.

Clips are used as published; only the index is made. The ground truth of the evaluation comes from one list a year,
`eval_data_list_<year>.csv`, published with the challenge's baseline code.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import soundfile

from fisher_bench.rmis.catalogue import RmisSet
from fisher_bench.rmis.index import Segment
from fisher_bench.rmis.prepare.source import DamagedError
from fisher_edge.errors import BadInputError

__all__ = ["Clip", "find_clips", "lacking_machines", "segment_of"]

SUBSETS = {"dev": "dev_data", "eval": "eval_data"}
FOLDERS = {"train": "train", "test": "test", "source_test": "test", "target_test": "test"}
LIST_FROM = "folder datasets of github.com/nttcslab/dcase2023_task2_baseline_ae"
LISTS = {2025: "folder datasets of the 2025 baseline code, same authors"}
SEVEN = "bearing fan gearbox slider ToyCar ToyTrain valve"
MACHINES = {
    20: ("fan pump slider valve ToyCar ToyConveyor",) * 2,
    21: ("fan gearbox pump slider ToyCar ToyTrain valve",) * 2,
    22: (SEVEN,) * 2,
    23: (SEVEN, "bandsaw grinder shaker ToyDrone ToyNscale ToyTank Vacuum"),
    24: (
        SEVEN,
        "3DPrinter AirCompressor BrushlessMotor HairDryer HoveringDrone RoboticArm Scanner ToothBrush ToyCircuit",
    ),
    25: (SEVEN, "AutoTrash BandSealer CoffeeGrinder HomeCamera Polisher ScrewFeeder ToyPet ToyRCCar"),
}
"""Machine types by year: development, evaluation."""
SECTIONS = {
    20: ({"*": "00 02 04 06", "ToyCar": "01 02 03 04", "ToyConveyor": "01 02 03"},
         {"*": "01 03 05", "ToyCar": "05 06 07", "ToyConveyor": "04 05 06"}),
    21: ({"*": "00 01 02"}, {"*": "03 04 05"}),
    22: ({"*": "00 01 02"}, {"*": "03 04 05"}),
}  # fmt: skip
"""Sections (2020: machine ids) by year and machine; from 2023 only 00."""
EVAL_CLIPS = {
    20: {"fan": 1342, "pump": 777, "slider": 834, "valve": 940, "ToyCar": 1545, "ToyConveyor": 1665},
    21: {"*": 1200, "gearbox": 1428, "slider": 1207},
    22: {"*": 600},
}
"""Test clips of the evaluation by machine; from 2023 200."""


@dataclass(frozen=True)
class Clip:
    """A clip and the facts in its true name."""

    path: Path
    file: str
    subset: str
    machine: str
    section: str
    split: str
    domain: str
    anomalous: int
    attributes: str


def find_clips(known: RmisSet, raw_dir: Path) -> list[Clip]:
    """Return all clips below dev_data/ and eval_data/ of a folder, or of one folder in it.

    Raises BadInputError when the list of the evaluation is missing or does not name a clip.
    """
    year = int(known.name[-2:])
    root = _root(raw_dir)
    truth = _truth(year, root) if (root / SUBSETS["eval"]).is_dir() else {}
    return [
        _clip(year, root, subset, path, truth)
        for subset, folder in SUBSETS.items()
        for path in sorted((root / folder).glob("*/*/*.wav"))
        if path.parent.name in FOLDERS
    ]


def lacking_machines(known: RmisSet, clips: list[Clip]) -> str:
    """Say in a few words what a complete download would hold besides; empty when nothing is missing."""
    year = int(known.name[-2:])
    parts: list[str] = []
    for subset, names, sections in zip(SUBSETS, MACHINES[year], SECTIONS.get(year, ({}, {})), strict=True):
        for machine in names.split():
            own = [clip for clip in clips if (clip.subset, clip.machine) == (subset, machine)]
            wanted = sections.get(machine, sections.get("*", "00")).split()
            empty = [
                f"{section} {split}"
                for section in wanted
                for split in ("train", "test")
                if not any((clip.section, clip.split) == (section, split) for clip in own)
            ]
            tests = sum(clip.split == "test" for clip in own)
            counts = EVAL_CLIPS.get(year, {})
            due = counts.get(machine, counts.get("*", 200)) if subset == "eval" else 0
            if empty:
                parts.append(f"{SUBSETS[subset]}/{machine} without {', '.join(empty[:3])}")
            elif tests < due:
                parts.append(f"{SUBSETS[subset]}/{machine} with {tests} of {due} test clips")
    return "; ".join(parts[:3]) + (f"; and {len(parts) - 3} more machines" if len(parts) > 3 else "")


def segment_of(known: RmisSet, clip: Clip) -> Segment:
    """Describe a clip, its length from its header. Raises DamagedError when it is not a mono file of the set's rate."""
    try:
        info = soundfile.info(clip.path)
    except (soundfile.SoundFileError, OSError) as error:
        raise DamagedError(f"cannot be read as WAV ({error})") from None
    if (info.channels, info.samplerate) != (1, known.rate_hz) or not info.frames:
        raise DamagedError(f"has {info.channels} channels, {info.frames} samples at {info.samplerate} Hz")
    return Segment(
        clip.file, str(clip.path.resolve()), known.modality, known.rate_hz, info.frames, source=clip.file,
        subset=clip.subset, machine=clip.machine, section=clip.section, split=clip.split, domain=clip.domain,
        anomalous=clip.anomalous, attributes=clip.attributes,
    )  # fmt: skip


def _root(raw_dir: Path) -> Path:
    """Find the folder that holds dev_data or eval_data."""
    for folder in (raw_dir, *sorted(path for path in raw_dir.iterdir() if path.is_dir())):
        if any((folder / name).is_dir() for name in SUBSETS.values()):
            return folder
    raise BadInputError(
        f"{raw_dir} has no dev_data or eval_data; unpack each zip to dev_data/MACHINE or eval_data/MACHINE"
    )


def _truth(year: int, root: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """True name and label (2020) of every test clip of the evaluation, by machine and anonymous name."""
    name = f"eval_data_list_20{year}.csv"
    places = [
        root / name,
        root / "eval_data" / name,
        root / "eval_data_list.csv",
        root / "eval_data/eval_data_list.csv",
    ]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        source = LISTS.get(2000 + year, LIST_FROM)
        raise BadInputError(
            f"{root / name} is not there; it says which test clips are anomalous: take it from the {source}"
        )
    truth: dict[tuple[str, str], tuple[str, str]] = {}
    machine = ""
    for line in path.read_text("utf-8").splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 1:
            machine = fields[0] or machine
        else:
            label = fields[2] if len(fields) > 2 else ""
            truth[machine, fields[0].removesuffix(".wav")] = (fields[1].removesuffix(".wav"), label)
    return truth


def _clip(year: int, root: Path, subset: str, path: Path, truth: dict[tuple[str, str], tuple[str, str]]) -> Clip:
    machine, split = path.parent.parent.name, FOLDERS[path.parent.name]
    name, label = path.name.removesuffix(".wav"), ""
    if subset == "eval" and split == "test":
        if (machine, name) not in truth:
            raise BadInputError(
                f"{path} is not in the list of the evaluation of 20{year}; is the list that of this year?"
            )
        name, label = truth[machine, name]
    describe = _of_2020 if year == 20 else _of_later
    section, domain, anomalous, attributes = describe(path, name, label)
    file = path.relative_to(root).as_posix()
    return Clip(path, file, subset, machine, section, split, domain, anomalous, attributes)


def _of_2020(path: Path, name: str, label: str) -> tuple[str, str, int, str]:
    """`normal_id_01_00000000`: status, machine id, serial; the list also says 1 for an anomaly."""
    found = re.fullmatch(r"(normal|anomaly)_id_(\d+)_\d+", name)
    if found is None or label not in {"", "0", "1"}:
        raise BadInputError(f"{path}: {name!r} is not a name of DCASE 2020, like normal_id_01_00000000.wav")
    return found[2], "source", int(label or found[1] == "anomaly"), ""


def _of_later(path: Path, name: str, _label: str) -> tuple[str, str, int, str]:
    """Find the section after its word, domain and status wherever they stand, and attributes after the serial."""
    tokens = name.split("_")
    domains, states = {"source", "target"} & set(tokens), {"normal", "anomaly"} & set(tokens)
    if "section" not in tokens[:-1] or len(domains) != 1 or len(states) != 1:
        raise BadInputError(
            f"{path}: {name!r} does not tell section, domain and status; is the list that of this year?"
        )
    state = states.pop()
    after = tokens[tokens.index(state) + 2 :]
    return tokens[tokens.index("section") + 1], domains.pop(), int(state == "anomaly"), "_".join(after)
