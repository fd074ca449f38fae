"""The sensors of the demonstration, and which of the example recordings each of them replays."""

from dataclasses import dataclass

__all__ = ["SENSORS", "Sensor"]


@dataclass(frozen=True)
class Sensor:
    """One sensor of the demonstration: where its recordings are and how its signal is cut.

    The three tuples name files within `folder`: enrolled, healthy but kept out of the enrollment, faulty.
    """

    asset: str
    channel: str
    unit: str
    folder: str
    window_s: float
    enrolled: tuple[str, ...]
    kept_out: tuple[str, ...]
    faulty: tuple[str, ...]
    what: str
    fault: str


SENSORS = (
    Sensor(
        asset="gearbox",
        channel="vibration",
        unit="a.u.",
        folder="gearbox",
        window_s=1.28,
        enrolled=tuple(f"healthy-load{load:02d}.flac" for load in (0, 10, 30, 40, 60, 70, 90)),
        kept_out=tuple(f"healthy-load{load:02d}.flac" for load in (20, 50, 80)),
        faulty=tuple(f"broken-tooth-load{load:02d}.flac" for load in (10, 50, 90)),
        what="gearbox vibration, 12.8 kHz, ten loads",
        fault="broken tooth",
    ),
    Sensor(
        asset="bearing",
        channel="vibration",
        unit="a.u.",
        folder="bearing",
        window_s=0.64,
        enrolled=tuple(f"healthy-{rpm}rpm-{part}.flac" for rpm in (600, 900, 1200) for part in "ab"),
        kept_out=tuple(f"healthy-{rpm}rpm-c.flac" for rpm in (600, 900, 1200)),
        faulty=("inner-5-900rpm.flac", "outer-5-1200rpm.flac"),
        what="bearing vibration, 51.2 kHz, three speeds",
        fault="inner and outer race",
    ),
    Sensor(
        asset="motor",
        channel="current",
        unit="A",
        folder="motor",
        window_s=0.32,
        enrolled=tuple(f"healthy-{take}.flac" for take in (1, 2, 3)),
        kept_out=tuple(f"healthy-{take}.flac" for take in (4, 5)),
        faulty=tuple(f"short-40pct-{take}.flac" for take in (1, 2, 3, 4, 5)),
        what="motor current, 1 kHz, one phase",
        fault="inter-turn short, 40 %",
    ),
)
