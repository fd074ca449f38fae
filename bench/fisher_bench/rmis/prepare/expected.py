"""What a complete download holds. Start at `lacking`.

Source: the publishers' own listings; where they give no counts by class, only that every class is there.
"""

from collections import Counter
from collections.abc import Iterable

from fisher_bench.rmis.catalogue import UMGED_CLASSES, RmisSet
from fisher_bench.rmis.prepare.source import Source

__all__ = ["KNOWN_BROKEN", "by_class", "lacking"]

MAFAULDA = {
    "horizontal-misalignment": 197, "imbalance": 333, "normal": 49, "overhang_ball_fault": 137,
    "overhang_cage_fault": 188, "overhang_outer_race": 188, "underhang_ball_fault": 186, "underhang_cage_fault": 188,
    "underhang_outer_race": 184, "vertical-misalignment": 301,
}  # fmt: skip
SDUST_BEARING = {
    "IF0.2": 37, "IF0.4": 37, "IF0.6": 37, "NC": 48, "OF0.2": 37, "OF0.4": 37, "OF0.6": 37, "RF0.2": 37, "RF0.4": 37,
    "RF0.6": 37,
}  # fmt: skip
SDUST_GEAR = {
    "normal": 72, "planetrayfracture": 72, "planetraypitting": 72, "planetraywear": 72, "sunfracture": 72,
    "sunpitting": 66, "sunwear": 60,
}  # fmt: skip
WTPG = dict.fromkeys(("broken", "healthy", "missing_tooth", "root_crack", "wear"), 16)
UMGED = dict.fromkeys(UMGED_CLASSES, 32)
PU = {"healthy": 480, "IR": 1040, "OR": 1040}
BY_FAMILY = {"mafaulda": MAFAULDA, "wt": WTPG, "umged": UMGED, "pu": PU}
KNOWN_BROKEN = "N15_M01_F10_KA08_2"
"""PU: published damaged; its key keeps 19 repetitions, so that the splits do not change."""


def by_class(known: RmisSet) -> dict[str, int]:
    """Number of files of every class of a complete set; empty where the publisher gives none."""
    if known.name.startswith("sdust"):
        return SDUST_BEARING if known.name == "sdust_bearing" else SDUST_GEAR
    return BY_FAMILY.get(known.name.split("_", maxsplit=1)[0], {})


def lacking(known: RmisSet, sources: Iterable[Source], damaged: Iterable[Source] = ()) -> str:
    """Say in a few words what is missing, damaged files included; empty when nothing is.

    The one file that was published damaged does not count as missing.
    """
    left_out = {source.file for source in damaged if source.path.stem != KNOWN_BROKEN}
    present = [source for source in sources if source.file not in left_out]
    wanted, found = by_class(known), Counter(source.label for source in present)
    parts = [f"{found[label]} of {count} files of {label}" for label, count in wanted.items() if found[label] < count]
    parts += [f"no file of {label}" for label in known.classes if label not in wanted and not found[label]]
    if not wanted and known.sources and len(present) < known.sources:
        parts.append(f"{len(present)} of {known.sources} files")
    if known.split == "official":
        sides = {(source.label, source.split) for source in present}
        pairs = [(label, side) for label in known.classes for side in ("train", "test")]
        parts += [f"no {side} file of {label}" for label, side in pairs if found[label] and (label, side) not in sides]
    return ", ".join(parts[:4]) + (f" and {len(parts) - 4} more" if len(parts) > 4 else "")
