"""The machine that figures are measured on: what it is, how hot it gets, what it draws. Start at `describe`."""

import math
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["Conditions", "describe", "watched"]

SYS = Path("/sys")
LIBRARIES = ("fisher-edge", "numpy", "onnxruntime", "openvino", "tensorrt", "torch")
SAMPLE_S = 1.0


@dataclass
class Conditions:
    """What was seen while something ran; None where the board does not say.

    `energy_j` is that of the processor package (RAPL), or of the whole board where power monitors of the INA3221 kind
    measure its supply. `throttled` counts how often a core was slowed down because of heat.
    """

    seconds: float = 0.0
    hottest_c: float | None = None
    lowest_mhz: float | None = None
    throttled: int | None = None
    energy_j: float | None = None
    _watts: list[float] = field(default_factory=list, repr=False)

    @property
    def watts(self) -> float | None:
        """Mean power."""
        return self.energy_j / self.seconds if self.energy_j is not None and self.seconds else None

    def to_dict(self) -> dict[str, Any]:
        """Return what was seen as JSON values."""
        return {
            "seconds": self.seconds,
            "hottest_c": self.hottest_c,
            "lowest_mhz": self.lowest_mhz,
            "throttled": self.throttled,
            "energy_j": self.energy_j,
            "watts": self.watts,
        }


def describe() -> dict[str, Any]:
    """Return what the machine is and which libraries it has, as JSON values."""
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "board": _first_line(Path("/proc/device-tree/model")),
        "python": platform.python_version(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
    }


@contextmanager
def watched() -> Iterator[Conditions]:
    """Watch temperature, frequency, throttling and energy for as long as the block lasts."""
    conditions, stop = Conditions(), threading.Event()
    throttled, counters, started_s = _throttled(), _energy_counters(), time.monotonic()

    def watch() -> None:
        while True:
            _sample(conditions)
            if stop.wait(SAMPLE_S):
                return

    thread = threading.Thread(target=watch, name="watch", daemon=True)
    thread.start()
    try:
        yield conditions
    finally:
        stop.set()
        thread.join()
        conditions.seconds = time.monotonic() - started_s
        after = _throttled()
        conditions.throttled = after - throttled if after is not None and throttled is not None else None
        conditions.energy_j = _energy_j(counters, conditions)


def _sample(conditions: Conditions) -> None:
    """Look once."""
    milli_c = _numbers("class/thermal/thermal_zone*/temp")
    if milli_c:
        conditions.hottest_c = max(max(milli_c) / 1e3, conditions.hottest_c or 0.0)
    kilohertz = _numbers("devices/system/cpu/cpu*/cpufreq/scaling_cur_freq")
    if kilohertz:
        conditions.lowest_mhz = min(min(kilohertz) / 1e3, conditions.lowest_mhz or math.inf)
    watts = _board_watts()
    if watts is not None:
        conditions._watts.append(watts)  # noqa: SLF001 -- its own kind of private


def _throttled() -> int | None:
    """How often cores were throttled since the machine started."""
    counts = _numbers("devices/system/cpu/cpu*/thermal_throttle/core_throttle_count")
    return int(sum(counts)) if counts else None


def _energy_counters() -> dict[Path, float]:
    """Microjoules of every processor package, where they may be read."""
    found = {path: _number(path) for path in SYS.glob("class/powercap/intel-rapl:*/energy_uj")}
    return {path: value for path, value in found.items() if value is not None and path.parent.name.count(":") == 1}


def _energy_j(before: dict[Path, float], conditions: Conditions) -> float | None:
    """Energy since `before`, from counters or from the mean of the board's power."""
    if before:
        total = 0.0
        for path, start in before.items():
            now = _number(path) or 0.0
            wrap = _number(path.with_name("max_energy_range_uj")) or 0.0
            total += now - start if now >= start else now - start + wrap
        return total / 1e6
    watts = conditions._watts  # noqa: SLF001
    return sum(watts) / len(watts) * conditions.seconds if watts else None


def _board_watts() -> float | None:
    """Power at the supply of the board: voltage times current of the first channel of an INA3221."""
    for monitor in SYS.glob("class/hwmon/hwmon*"):
        if _first_line(monitor / "name") == "ina3221":
            volts, amperes = _number(monitor / "in1_input"), _number(monitor / "curr1_input")
            if volts is not None and amperes is not None:
                return volts * amperes / 1e6
    return None


def _processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor() or "unknown"


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _numbers(pattern: str) -> list[float]:
    """The numbers in all files below /sys that match a pattern."""
    return [number for path in SYS.glob(pattern) if (number := _number(path)) is not None]


def _number(path: Path) -> float | None:
    """The number in a file of the kernel; None where there is none to read."""
    try:
        return float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").rstrip("\0\n")
    except OSError:
        return None
