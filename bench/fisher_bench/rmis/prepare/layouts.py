"""The publishers' folders and names, all sets but DCASE: which file is what. Start at `find_sources`.

A layout is one pattern over the path of a file; whatever folders lie above it do not matter. Names and keys are
spelt as the released benchmark spells them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fisher_bench.rmis.prepare.source import Channel, Source

__all__ = ["LAYOUTS", "Layout", "find_sources"]

Match = re.Match[str]
LIFETIME = (
    "KI04", "KI14", "KI16", "KI17", "KI18", "KI21", "KB23", "KB24", "KA04", "KA15", "KA16", "KA22", "KA30", "KB27",
)  # fmt: skip
"""PU: bearings damaged in service, among them those with combined damage; all other damage is artificial."""
OUTER = ("KA", "KB27")
"""PU: begins the name of bearings counted as outer-race damage; KB23 and KB24 count as inner."""
PU_CURRENTS, PU_VIBRATION = (2, 3), (7,)


@dataclass(frozen=True)
class Layout:
    """How the files of a set are named and what becomes of them."""

    suffix: str
    """Of data files, in the publisher's case."""
    pattern: str
    """Over the end of the path, from a folder name on."""
    describe: Callable[[Match], tuple[str, str, tuple[Channel, ...]]]
    """Label, condition and channels of a file whose path matches."""
    ignored: str = r"(?!)"
    """Data files that do not belong to the set and are passed over in silence."""


def find_sources(name: str, raw_dir: Path) -> tuple[list[Source], list[str]]:
    """Return the recordings of a set below a folder, by path, and data files whose names do not fit the layout."""
    layout = LAYOUTS[name]
    pattern, ignored = re.compile(rf"(?:.*?/)?{layout.pattern}"), re.compile(layout.ignored)
    sources: list[Source] = []
    strange: list[str] = []
    for path in sorted(raw_dir.rglob(f"*{layout.suffix}")):
        file = path.relative_to(raw_dir).as_posix()
        match = pattern.fullmatch(file)
        if ignored.search(file) or path.name.startswith("."):
            continue
        if match is None:
            strange.append(file)
            continue
        label, condition, channels = layout.describe(match)
        split = match.groupdict().get("split") or ""
        sources.append(Source(path, file, label, channels, condition, split))
    return sources, strange


def _flattened(*parts: str) -> str:
    return "_".join(parts).replace("/", "_").replace(" ", "_")


def _by_channel(stem: str, places: dict[int, int | str], width: int = 1) -> tuple[Channel, ...]:
    """Channels whose clip name is their key: recording and channel."""
    named = ((number, f"{stem}_channel{number:0{width}d}", place) for number, place in places.items())
    return tuple(Channel(number, name, name, place) for number, name, place in named)


def _iica(match: Match) -> tuple[str, str, tuple[Channel, ...]]:
    """Key and name by the source's path; the publisher's names end in an underscore, which some copies lack."""
    folder = "/".join((match["leak"], match["noise"], match["session"]))
    stem = match["name"].rstrip("_")
    label = f"{match['leak']}_{'leak' if 'niO' in stem.split('_') else 'noleak'}"
    return label, match["noise"], (Channel(0, f"{folder}/{stem}", f"{folder}/{stem}"),)


def _iiee(match: Match) -> tuple[str, str, tuple[Channel, ...]]:
    name = f"{match['split']}_cut/{match['engine']}/{match['name']}"
    return match["label"], "", (Channel(0, name, ""),)


def _wtpg(match: Match) -> tuple[str, str, tuple[Channel, ...]]:
    stem = _flattened(match["label"], match["run"], match["name"])
    return match["label"], f"{match['speed']} Hz", _by_channel(stem, {1: 0, 2: 1})


def _mafaulda(columns: range) -> Callable[[Match], tuple[str, str, tuple[Channel, ...]]]:
    """Columns counted from 1."""

    def describe(match: Match) -> tuple[str, str, tuple[Channel, ...]]:
        tree = match["tree"].split("/")
        label = _flattened(*tree[:2]) if tree[0] in {"overhang", "underhang"} else tree[0]
        stem = _flattened(match["tree"], match["name"])
        return label, f"{match['name']} Hz", _by_channel(stem, {column: column - 1 for column in columns})

    return describe


def _sdust_bearing(match: Match) -> tuple[str, str, tuple[Channel, ...]]:
    return match["label"], match["condition"], _sdust_channels(_flattened(match["label"], match["name"]))


def _sdust_gear(match: Match) -> tuple[str, str, tuple[Channel, ...]]:
    """Class by the Latin word in the file's name: folder names are Chinese and get mangled."""
    folder = "NC" if match["label"] == "normal" else match["label"]
    return match["label"], match["condition"], _sdust_channels(_flattened(folder, match["name"]))


def _sdust_channels(stem: str) -> tuple[Channel, ...]:
    """The benchmark counts the six columns backwards."""
    return _by_channel(stem, {6 - column: column for column in range(6)})


def _umged(*numbers: int) -> Callable[[Match], tuple[str, str, tuple[Channel, ...]]]:
    def describe(match: Match) -> tuple[str, str, tuple[Channel, ...]]:
        stem = _flattened(*(match["folders"] or "").split("/")[:-1], match["name"])
        places: dict[int, int | str] = {number: f"DataSensor{number:02d}" for number in numbers}
        condition = f"{match['gear']} {match['structure']} {match['speed']} rpm"
        return match["label"], condition, _by_channel(stem, places, width=2)

    return describe


def _pu(entries: tuple[int, ...]) -> Callable[[Match], tuple[str, str, tuple[Channel, ...]]]:
    """Key: bearing and working condition, over all repetitions and channels. Entries are counted from 1."""

    def describe(match: Match) -> tuple[str, str, tuple[Channel, ...]]:
        bearing = match["bearing"]
        label = "healthy" if bearing.startswith("K0") else "OR" if bearing.startswith(OUTER) else "IR"
        folders = [label] if label == "healthy" else [label, "lifetime" if bearing in LIFETIME else "artificial"]
        key = _flattened(*folders, bearing, match["condition"], bearing)
        channels = (Channel(entry, f"{key}_{match['repetition']}_channel{entry}", key, entry - 1) for entry in entries)
        return label, match["condition"], tuple(channels)

    return describe


def _mafaulda_layout(columns: range) -> Layout:
    tree = (
        r"normal|(?:horizontal-misalignment|vertical-misalignment|imbalance)/[^/]+"
        r"|(?:under|over)hang/(?:ball_fault|cage_fault|outer_race)/[^/]+"
    )
    return Layout(".csv", rf"(?P<tree>{tree})/(?P<name>[\d.]+)\.csv", _mafaulda(columns))


def _umged_layout(*numbers: int) -> Layout:
    name = r"N\d+_(?P<gear>G[12])_(?P<label>E\d\d)_(?P<structure>T\d)_S(?P<speed>\d+)"
    return Layout(".mat", rf"(?P<folders>G[12]/(?:[^/]+/)*)?(?P<name>{name})\.mat", _umged(*numbers))


def _pu_layout(entries: tuple[int, ...]) -> Layout:
    name = r"(?P<condition>N\d\d_M\d\d_F\d\d)_(?P=bearing)_(?P<repetition>\d+)"
    return Layout(".mat", rf"(?P<bearing>K[0ABI]\d\d)/(?P<name>{name})\.mat", _pu(entries))


LEAK, CLASS = r"(?P<leak>tubeleak|ventleak|ventlow)", r"(?P<label>broken|healthy|missing_tooth|root_crack|wear)"
ENGINE = r"(?P<engine>engine\d_(?P<label>good|broken|heavyload))"
BEARING = r"(?P<label>IF0\.[246]|NC|OF0\.[246]|RF0\.[246])"
GEAR = r"(?P<label>normal|planetray(?:fracture|pitting|wear)|sun(?:fracture|pitting|wear))"
LAYOUTS = {
    "idmt_air": Layout(".wav", rf"{LEAK}/(?P<noise>[^/]+)/(?P<session>[^/]+)/(?P<name>[^/]+)\.wav", _iica),
    "idmt_engine": Layout(
        ".wav", rf"(?P<split>train|test)_cut/{ENGINE}/(?P<name>[^/]+)\.wav", _iiee, r"(^|/)(train|test)/"
    ),
    "wt_plane_gearbox": Layout(
        ".MAT", rf"{CLASS}/(?P<run>[12])/(?P<name>[A-Z][12]_(?P<speed>\d+))\.MAT", _wtpg, "keyphase"
    ),
    "mafaulda_sound": _mafaulda_layout(range(8, 9)),
    "mafaulda_vib": _mafaulda_layout(range(2, 8)),
    "sdust_bearing": Layout(
        ".mat", rf"{BEARING}/(?P<name>(?P=label) (?P<condition>[^/]+))\.mat", _sdust_bearing, rf"/{GEAR} [^/]*$"
    ),
    "sdust_gear": Layout(
        ".mat", rf"[^/]+/(?P<name>{GEAR} (?P<condition>[^/]+))\.mat", _sdust_gear, r"/(IF|NC|OF|RF)[\d.]* [^/]*$"
    ),
    "umged_sound": _umged_layout(6),
    "umged_vib": _umged_layout(3, 4, 5),
    "umged_vol": _umged_layout(7, 8),
    "umged_cur": _umged_layout(1, 2),
    "pu_vib": _pu_layout(PU_VIBRATION),
    "pu_cur": _pu_layout(PU_CURRENTS),
}
