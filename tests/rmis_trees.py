"""Small trees of files that are laid out, named and stored as the publishers of the benchmark's sets do."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import scipy.io
import soundfile

__all__ = [
    "PU_BEARINGS",
    "Wave",
    "complete_names",
    "dcase_clip",
    "mafaulda_csv",
    "pu_mat",
    "sdust_mat",
    "touch",
    "umged_mat",
    "wav",
    "wtpg_mat",
]

Wave = npt.NDArray[np.float64]
PU_BEARINGS = (
    *(f"K00{n}" for n in range(1, 7)),
    *(f"KI{n:02d}" for n in (1, 3, 4, 5, 7, 8, 14, 16, 17, 18, 21)),
    *("KB23", "KB24", "KB27"),
    *(f"KA{n:02d}" for n in (1, 3, 4, 5, 6, 7, 8, 9, 15, 16, 22, 30)),
)
PU_CONDITIONS = ("N15_M07_F10", "N09_M07_F10", "N15_M01_F10", "N15_M07_F04")
MATLAB_73_HEADER = b"MATLAB 7.3 MAT-file, Platform: PCWIN64, Created on: Mon Jan  1 00:00:00 2024 HDF5 schema 1.00 ."


def touch(root: Path, names: Iterable[str]) -> None:
    """Make empty files: enough where only names matter."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def wav(path: Path, wave: Wave, rate_hz: int, subtype: str = "PCM_16") -> None:
    """Write a WAV file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate_hz, subtype)


def wtpg_mat(path: Path, data: Wave) -> None:
    """MAT v5 with `Data` (samples, 4); the extension is in upper case."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"Data": data}, appendmat=False)


def mafaulda_csv(path: Path, data: Wave) -> None:
    """No header, commas, eight columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, data, fmt="%.5g", delimiter=",")


def sdust_mat(path: Path, data: Wave, increment_s: float | None = None) -> None:
    """MAT v5 with a struct `Signal` that holds `y_values.values` (samples, 6)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    signal: dict[str, Any] = {"y_values": {"values": data}}
    if increment_s is not None:
        signal["x_values"] = {"start_value": 0.0, "increment": increment_s, "number_of_values": float(len(data))}
    scipy.io.savemat(path, {"Signal": signal})


def umged_mat(path: Path, sensors: Sequence[Wave]) -> None:
    """MAT v7.3: HDF5 behind a block of 512 bytes, `DataSensor01` on, each a column of MATLAB and so (1, samples)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        for number, wave in enumerate(sensors, start=1):
            data = file.create_dataset(f"DataSensor{number:02d}", data=wave[None, :])
            data.attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as block:
        block.write(MATLAB_73_HEADER.ljust(124) + b"\x00\x02IM")


def pu_mat(path: Path, signals: Sequence[Wave], *, repaired: bool = False) -> None:
    """MAT v5 with a struct named like the file, `Y` a 1 x 7 struct array; a repaired one has it below `a`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ("force", "phase_current_1", "phase_current_2", "speed", "temp_2_bearing_module", "torque", "vibration_1")
    entries = np.zeros((1, len(signals)), dtype=[("Name", object), ("Data", object)])
    for place, wave in enumerate(signals):
        entries[0, place] = (names[place], wave[None, :])
    content: dict[str, Any] = {path.stem: {"Info": "a bearing", "Y": entries}}
    scipy.io.savemat(path, {"a": content} if repaired else content, long_field_names=True)


def dcase_clip(root: Path, name: str, samples: int = 160, rate_hz: int = 16_000) -> None:
    """Write a short clip; what is in it does not matter."""
    wav(root / name, np.zeros(samples), rate_hz)


def complete_names(name: str) -> list[str]:
    """Every file name of a complete download, by the publishers' listings."""
    return {
        "wt_plane_gearbox": _wtpg,
        "mafaulda_sound": _mafaulda,
        "mafaulda_vib": _mafaulda,
        "sdust_bearing": _sdust_bearing,
        "sdust_gear": _sdust_gear,
        "umged_sound": _umged,
        "umged_vib": _umged,
        "umged_vol": _umged,
        "umged_cur": _umged,
        "pu_vib": _pu,
        "pu_cur": _pu,
    }[name]()


def _wtpg() -> list[str]:
    letters = {"broken": "B", "healthy": "N", "missing_tooth": "M", "root_crack": "R", "wear": "W"}
    return [
        f"WT-planetary-gearbox-dataset/{label}/{run}/{letter}{run}_{speed}.MAT"
        for label, letter in letters.items()
        for run in (1, 2)
        for speed in range(20, 60, 5)
    ]


def _mafaulda() -> list[str]:
    folders = {
        "normal": 49, "horizontal-misalignment/0.5mm": 50, "horizontal-misalignment/2.0mm": 147,
        "vertical-misalignment/0.51mm": 51, "vertical-misalignment/1.90mm": 250, "imbalance/6g": 49,
        "imbalance/35g": 284, "underhang/ball_fault/0g": 49, "underhang/ball_fault/35g": 137,
        "underhang/cage_fault/6g": 188, "underhang/outer_race/20g": 184, "overhang/ball_fault/0g": 137,
        "overhang/cage_fault/6g": 188, "overhang/outer_race/20g": 188,
    }  # fmt: skip
    return [f"full/{folder}/{12 + n * 0.2048:.4f}.csv" for folder, count in folders.items() for n in range(count)]


def _sdust_bearing() -> list[str]:
    constant = [f"{speed} {load}" for speed in (1000, 1500, 1800, 2000, 2500, 3000) for load in (0, 20, 40, 60)]
    varying = [f"{speeds} {load}" for speeds in ("800~1500", "1000~2000", "1500~2500") for load in (0, 20, 40, 60)]
    repeated = [f"{condition} {repeat}" for condition in varying for repeat in (1, 2)][:23]
    names = ["SDUST-Dataset-main/轴承数据集/IF0.2/untitled.m"]
    for label in ("IF0.2", "IF0.4", "IF0.6", "NC", "OF0.2", "OF0.4", "OF0.6", "RF0.2", "RF0.4", "RF0.6"):
        conditions = [*constant, "1797 0", *(repeated if label == "NC" else varying)]
        if label == "OF0.6":
            conditions = [condition.replace("~", "-") for condition in conditions]
        names += [f"SDUST-Dataset-main/轴承数据集/{label}/{label} {condition}.mat" for condition in conditions]
    return [name.replace("IF0.6 800~1500 60.mat", "IF0.6 800~1500 60 0.mat") for name in names]


def _sdust_gear() -> list[str]:
    folders = {
        "NC": ("normal", 72), "太阳断裂": ("sunfracture", 72), "太阳点蚀": ("sunpitting", 66),
        "太阳磨损": ("sunwear", 60),
        "行星断裂": ("planetrayfracture", 72), "行星点蚀": ("planetraypitting", 72), "行星磨损": ("planetraywear", 72),
    }  # fmt: skip
    loads = ("0A", "0.2A", "0.35A", "0.5A", "0-0.2A", "0-0.35A", "0-0.5A")
    steady = [f"{speed} {load} {n}" for speed in (1000, 1500, 1800, 2000, 2500) for load in loads for n in (1, 2)]
    conditions = ["flu flu 1", "flu flu 2", *steady]
    return [
        f"SDUST-Dataset-main/齿轮数据集/{folder}/{label} {condition}.mat"
        for folder, (label, count) in folders.items()
        for condition in conditions[:count]
    ]


def _umged() -> list[str]:
    cases = [
        (gear, eccentricity, structure, speed)
        for gear in (1, 2)
        for eccentricity in range(0, 21, 2)
        for structure in range(1, 5)
        for speed in (300, 600, 900, 1200)
    ]
    return [
        f"GearEccDataset/G{gear}/E{eccentricity:02d}/N{n:03d}_G{gear}_E{eccentricity:02d}_T{structure}_S{speed}.mat"
        for n, (gear, eccentricity, structure, speed) in enumerate(cases, start=1)
    ]


def _pu() -> list[str]:
    return [
        f"{bearing}/{condition}_{bearing}_{repetition}.mat"
        for bearing in PU_BEARINGS
        for condition in PU_CONDITIONS
        for repetition in range(1, 21)
    ]
