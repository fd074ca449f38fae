"""The tasks: which recordings are enrolled and which are asked about. Start at `tasks_of`.

Accuracy follows the RMIS protocol (sealed by unit, half enrolled, 10 splits); the tasks named `unseen ...` and the
crossings hold out a fault size, a speed, a load or a rig instead. Areas enroll healthy recordings only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fisher_bench.judge.corpus import Window
from fisher_bench.protocol import FIRST_SEED, sealed_splits
from fisher_edge.errors import BadInputError

__all__ = ["DATASETS", "HEALTHY", "JOINT", "Split", "Task", "tasks_of"]

Indices = npt.NDArray[np.int64]
HEALTHY = ("normal", "healthy")

DATASETS: dict[str, tuple[str, ...]] = {
    "cwru_12k_de": ("cwru_12k_de",),
    "cwru_12k_fe": ("cwru_12k_fe",),
    "cwru_48k_de": ("cwru_48k_de",),
    "uestc": ("uestc_bearing",),
    "hit_self": ("hit_sm_self",),
    "hit_mfs": ("hit_sm_mfs",),
    "hit_rigs": ("hit_sm_self", "hit_sm_mfs"),
    "mfpt": ("mfpt",),
    "spectraquest": ("spectraquest_gearbox",),
    "air_compressor": ("air_compressor_state",),
    "esc": ("esc50_machine_16k",),
    "itsc": ("itsc_motor_current",),
}
"""Name in the report, and the folders it is made of."""
JOINT = ("itsc",)
"""Sets whose channels are one measurement: the vectors of the three phases stand side by side."""
ONE_SPECIMEN_A_CLASS = ("cwru", "hit", "uestc", "mfpt", "spectraquest")
"""Sets in which one physical part was recorded for each class."""


@dataclass(frozen=True, eq=False)
class Split:
    """Indices of the enrolled and of the asked windows of a task."""

    enrolled: Indices
    asked: Indices
    label: str = ""
    """The one class that is enrolled, where an area is asked for."""


@dataclass(frozen=True, eq=False)
class Task:
    """What is enrolled and what is asked, in every split; `windows` are indices into the dataset's."""

    name: str
    kind: str
    """`accuracy`, `honest` (accuracy, outside the mean), `area` or `one class` (an area for each class)."""
    labels: npt.NDArray[np.str_]
    """One for each window of the dataset."""
    specimens: npt.NDArray[np.str_]
    splits: tuple[Split, ...]


def tasks_of(dataset: str, windows: Sequence[Window]) -> list[Task]:
    """Return the tasks of a dataset. Raises BadInputError when its table lacks what it is split by."""
    labels = np.asarray([window.label for window in windows])
    units = np.asarray([window.unit for window in windows])
    one_each = dataset.startswith(ONE_SPECIMEN_A_CLASS)
    whole = Task(f"{dataset}, other recordings", "accuracy", labels, labels if one_each else units, ())
    if dataset == "hit_rigs":
        return _cross_rig(whole, windows)
    tasks = []
    if dataset != "cwru_48k_de":  # one recording a class
        tasks.append(replace(whole, splits=_halves(labels, units)))
    if dataset in {"cwru_12k_de", "cwru_12k_fe"}:
        tasks.append(_unseen_size(whole, dataset))
    if dataset in {"uestc", "hit_self", "hit_mfs"}:
        tasks.append(_leaving_out(whole, f"{dataset}, unseen speed", _known(windows, "speed_rpm")))
    if dataset == "spectraquest":
        heavy = [str(int(load.rstrip("%")) >= 50) for load in _known(windows, "load")]
        tasks.append(_leaving_out(whole, f"{dataset}, unseen load", heavy))
    if dataset == "air_compressor":
        days = [window.unit[4:12] for window in windows]
        tasks.append(replace(_leaving_out(whole, f"{dataset}, unseen day", days), kind="honest"))
    one_class = tuple(split for label in np.unique(labels) for split in _enrolling(str(label), labels, units))
    tasks.append(replace(whole, name=f"{dataset}, any one class", kind="one class", splits=one_class))
    healthy = tuple(split for split in one_class if split.label in HEALTHY)
    if healthy:
        tasks.append(replace(whole, name=f"{dataset}, healthy", kind="area", splits=healthy))
    return tasks


def _known(windows: Sequence[Window], name: str) -> list[str]:
    """Return what the dataset says of every window; raises BadInputError when it does not."""
    if any(name not in window.facts for window in windows):
        raise BadInputError(f"meta.csv lacks the column {name}, by which this dataset is split; add it to the table")
    return [window.facts[name] for window in windows]


def _halves(labels: npt.NDArray[np.str_], units: npt.NDArray[np.str_]) -> tuple[Split, ...]:
    """Ten splits of the protocol over the classes that have two units at least."""
    single = [label for label in np.unique(labels) if len(np.unique(units[labels == label])) < 2]
    kept = np.flatnonzero(~np.isin(labels, single))
    drawn = sealed_splits(labels[kept], units[kept])
    return tuple(Split(kept[np.sort(split.enrolled)], kept[np.sort(split.asked)]) for split in drawn)


def _enrolling(label: str, labels: npt.NDArray[np.str_], units: npt.NDArray[np.str_]) -> list[Split]:
    """Ten times half of the units of one class; none when it has only one."""
    own = np.unique(units[labels == label])
    splits = []
    for run in range(10 if len(own) > 1 else 0):
        kept = np.random.default_rng([FIRST_SEED, run]).permutation(own)[: len(own) // 2]
        enrolled = (labels == label) & np.isin(units, kept)
        splits.append(Split(np.flatnonzero(enrolled), np.flatnonzero(~np.isin(units, kept)), label))
    return splits


def _leaving_out(task: Task, name: str, values: Sequence[str]) -> Task:
    """Hold out each value of a condition in turn."""
    column = np.asarray(values)
    splits = [Split(np.flatnonzero(column != value), np.flatnonzero(column == value)) for value in np.unique(column)]
    known = [_only(split, lambda index: task.labels[index]) for split in splits]
    return replace(task, name=name, splits=tuple(split for split in known if len(split.asked)))


def _only(split: Split, label_of: Callable[[Indices], npt.NDArray[np.str_]]) -> Split:
    """Ask about enrolled classes only."""
    return Split(split.enrolled, split.asked[np.isin(label_of(split.asked), label_of(split.enrolled))])


def _unseen_size(task: Task, dataset: str) -> Task:
    """Enroll two sizes of each kind of fault and ask about the third."""
    kinds = np.asarray([label.split("_")[0] for label in task.labels])
    sizes = np.asarray([label.partition("_")[2].split("@")[0] for label in task.labels])
    three = ("007", "014", "021")
    splits = tuple(
        Split(np.flatnonzero(np.isin(sizes, three) & (sizes != size)), np.flatnonzero(sizes == size)) for size in three
    )
    return replace(task, name=f"{dataset}, unseen fault size", labels=kinds, splits=splits)


def _cross_rig(task: Task, windows: Sequence[Window]) -> list[Task]:
    """Enroll one rig and ask about the other."""
    rig = np.asarray(_known(windows, "dataset"))
    first, second = np.flatnonzero(rig == "hit_sm_self"), np.flatnonzero(rig == "hit_sm_mfs")
    specimens = np.char.add(rig, task.labels)
    return [
        replace(task, name=name, kind="honest", specimens=specimens, splits=(split,))
        for name, split in (
            ("hit, self to mfs", Split(first, second)),
            ("hit, mfs to self", Split(second, first)),
        )
    ]
