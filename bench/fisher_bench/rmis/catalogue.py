"""Facts of every set of RMIS that need no data: modality, rate, classes, split, where to get it.

Start at `find`. Source: the released benchmark and the publishers' documentation.
"""

import difflib
from dataclasses import dataclass
from typing import Literal

from fisher_edge.errors import UsageError

__all__ = ["SETS", "RmisSet", "find"]

Split = Literal["anomaly", "official", "sealed"]
Modality = Literal["sound", "vibration", "voltage", "current"]


@dataclass(frozen=True)
class RmisSet:
    """One set of the benchmark."""

    name: str
    """As the released benchmark calls it."""
    title: str
    """As the paper's tables call it."""
    modality: Modality
    rate_hz: int
    hours: int
    window_s: float
    """Length of a window at embedding time; the hop is the same."""
    split: Split
    """`anomaly`: official train and test, only normals enrolled; `official`: one split; `sealed`: ten drawn ones."""
    classes: tuple[str, ...]
    """In the order of their ids, which decide ties; empty for anomaly detection."""
    get: str
    """Where the data is published."""
    licence: str
    """As stated by the publisher, or by others of whom we know."""
    k: int = 5
    """Neighbours that vote."""
    test_share: float = 0.5
    """Of the keys, in a sealed split."""
    sources: int = 0
    """Files of the publisher; 0: not fixed by what is published."""
    keys: int = 0
    """What a sealed split keeps together; 0: no such thing."""
    segments: int = 0
    """Segments of a complete set, if the recordings have their nominal length; 0: depends on their lengths."""

    scored_as: str = ""
    """Set whose rules apply, for one that is not the paper's; empty: its own."""

    @property
    def detects(self) -> bool:
        """Whether the task is anomaly detection rather than diagnosis."""
        return self.split == "anomaly"


UNKNOWN = "not stated here; read the publisher's page before passing anything on, segments included"
DCASE = "Zenodo records {}, {} and {} (dev, eval train, eval test); unpack to dev_data/MACHINE and eval_data/MACHINE"
IICA_CLASSES = (
    "tubeleak_noleak", "tubeleak_leak", "ventleak_noleak", "ventleak_leak", "ventlow_noleak", "ventlow_leak",
)  # fmt: skip
MAFAULDA_CLASSES = (
    "horizontal-misalignment", "imbalance", "normal", "overhang_ball_fault", "overhang_cage_fault",
    "overhang_outer_race", "underhang_ball_fault", "underhang_cage_fault", "underhang_outer_race",
    "vertical-misalignment",
)  # fmt: skip
SDUST_BEARING_CLASSES = ("IF0.2", "IF0.4", "IF0.6", "NC", "OF0.2", "OF0.4", "OF0.6", "RF0.2", "RF0.4", "RF0.6")
SDUST_GEAR_CLASSES = (
    "normal", "planetrayfracture", "planetraypitting", "planetraywear", "sunfracture", "sunpitting", "sunwear",
)  # fmt: skip
UMGED_CLASSES = tuple(f"E{eccentricity:02d}" for eccentricity in range(0, 21, 2))
PU_CLASSES = ("healthy", "IR", "OR")
MAFAULDA = "www02.smt.ufrj.br/~offshore/mfs/database/mafaulda/full.zip (13 GB)"
SDUST = "github.com/JRWang-SDUST/SDUST-Dataset; rename the two data folders to bearing and gear"
UMGED = "the links in the README of github.com/LeeJMJM/UM-GearEccDataset (the repository itself has no data)"
PU = "groups.uni-paderborn.de/kat/BearingDataCenter: 32 archives BEARING.rar, each unpacked to BEARING/"


def _dcase(year: int, hours: int, *records: int) -> RmisSet:
    return RmisSet(
        f"dcase{year}", f"DCASE{year}", "sound", 16_000, hours, 10, "anomaly", (), DCASE.format(*records),
        "differs by year and machine; read each Zenodo record", k=1,
    )  # fmt: skip


def _umged(part: str, title: str, modality: Modality, hours: int, channels: int) -> RmisSet:
    return RmisSet(
        f"umged_{part}", f"UMGED {title}", modality, 51_200, hours, 10, "sealed", UMGED_CLASSES, UMGED,
        "CC BY 4.0 for a part published on Mendeley; else " + UNKNOWN, test_share=0.2, sources=352,
        keys=352 * channels, segments=21_120 * channels,
    )  # fmt: skip


SETS: tuple[RmisSet, ...] = (
    _dcase(20, 153, 3678171, 3727685, 3841772),
    _dcase(21, 165, 4562016, 4660992, 4884786),
    _dcase(22, 139, 6355122, 6462969, 6586456),
    _dcase(23, 50, 7882613, 7830345, 7860847),
    _dcase(24, 49, 10902294, 11259435, 11363076),
    _dcase(25, 45, 15097779, 15392814, 15519362),
    RmisSet(
        "idmt_air", "IICA", "sound", 48_000, 47, 10, "sealed", IICA_CLASSES, "Zenodo record 7551606 (three zips)",
        UNKNOWN, sources=5592, keys=5592, segments=16_776,
    ),
    RmisSet(
        "idmt_engine", "IIEE", "sound", 44_100, 1, 3, "official", ("good", "broken", "heavyload"),
        "Zenodo record 7551261 (IDMT-ISA-ELECTRIC-ENGINE.zip)", "CC BY-NC-ND 4.0, as others state it",
    ),
    RmisSet(
        "wt_plane_gearbox", "WTPG", "vibration", 48_000, 14, 10, "sealed",
        ("broken", "healthy", "missing_tooth", "root_crack", "wear"),
        "github.com/Liudd-BJUT/WT-planetary-gearbox-dataset, cloned with Git LFS (37.6 GB)", UNKNOWN,
        sources=80, keys=160, segments=4874,
    ),
    RmisSet(
        "mafaulda_sound", "MaFaulDa sound", "sound", 50_000, 3, 5, "sealed", MAFAULDA_CLASSES, MAFAULDA, UNKNOWN,
        sources=1951, keys=1951, segments=1951,
    ),
    RmisSet(
        "mafaulda_vib", "MaFaulDa vib", "vibration", 50_000, 16, 5, "sealed", MAFAULDA_CLASSES, MAFAULDA, UNKNOWN,
        sources=1951, keys=11_706, segments=11_706,
    ),
    RmisSet(
        "sdust_bearing", "SDUST bearing", "vibration", 25_600, 25, 10, "sealed", SDUST_BEARING_CLASSES, SDUST, UNKNOWN,
        sources=381, keys=2286, segments=9144,
    ),
    RmisSet(
        "sdust_gear", "SDUST gear", "vibration", 25_600, 17, 10, "sealed", SDUST_GEAR_CLASSES, SDUST, UNKNOWN,
        sources=486, keys=2916, segments=5832,
    ),
    _umged("sound", "sound", "sound", 59, 1),
    _umged("vib", "vib", "vibration", 176, 3),
    _umged("vol", "vol", "voltage", 117, 2),
    _umged("cur", "cur", "current", 117, 2),
    RmisSet(
        "pu_vib", "PU vib", "vibration", 64_000, 3, 4, "sealed", PU_CLASSES, PU, "CC BY-NC 4.0, as others state it",
        sources=2560, keys=128, segments=2560,
    ),
    RmisSet(
        "pu_cur", "PU cur", "current", 64_000, 6, 4, "sealed", PU_CLASSES, PU, "CC BY-NC 4.0, as others state it",
        sources=2560, keys=128, segments=5120,
    ),
)  # fmt: skip
"""In the order of the published tables."""


def find(name: str) -> RmisSet:
    """Return the set of this name. Raises UsageError with the nearest names."""
    for known in SETS:
        if known.name == name:
            return known
    names = [known.name for known in SETS]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
    raise UsageError(f"there is no set {name!r} in RMIS; did you mean {', '.join(near)}? (fisher-edge rmis list)")
