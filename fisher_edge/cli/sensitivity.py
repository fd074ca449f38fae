"""What a baseline would notice, in words: a table, what holds it back, and a warning. See `sensitivity_lines`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fisher_edge.decision.held_back import HeldBack
    from fisher_edge.decision.sensitivity import Noticed, Sensitivity

__all__ = ["missed_in_words", "sensitivity_lines"]

NAME_WIDTH = 45
CELL_WIDTH = 12
WARNING = "warning"


def sensitivity_lines(sensitivity: "Sensitivity", *, every_band: bool = False) -> list[str]:
    """Return the table of what would be noticed, and a line for each cause that holds it back.

    Of the bands only that of which the least is noticed has a row, and the one of which the most is, unless
    `every_band` asks for all.
    """
    bands = sensitivity.bands
    weakest, best = sensitivity.weakest, min(bands, key=lambda band: band.weakness)
    shown = {best: ", most noticed", weakest: ", least noticed"} if len(bands) > 1 else {weakest: ""}
    rows = [_row(_name(each, shown), each) for each in sensitivity.noticed if _is_shown(each, shown, every_band)]
    head = "what would be noticed (alarm) within"
    lines = [f"{head:<{NAME_WIDTH}}{'a minute':>{CELL_WIDTH}}{'an hour':>{CELL_WIDTH}}{'a day':>{CELL_WIDTH}}", *rows]
    if any(WARNING in row for row in rows):
        lines.append(f"  ({WARNING}: taken for an operating state that was not enrolled, which is no alarm)")
    return lines + [_cause(each, sensitivity) for each in sensitivity.held_back]


def missed_in_words(sensitivity: "Sensitivity | None") -> str | None:
    """Say which bands could change without anybody noticing; None where there is no such band."""
    if sensitivity is None or not sensitivity.missed:
        return None
    bands = ", ".join(f"{band.low_hz:.0f}-{band.high_hz:.0f} Hz" for band in sensitivity.missed)
    return f"a change of +{sensitivity.missed[0].largest:g} dB would not raise an alarm within a day in: {bands}"


def _is_shown(noticed: "Noticed", shown: "dict[Noticed, str]", every_band: bool) -> bool:
    return every_band or noticed.change != "band" or noticed in shown


def _name(noticed: "Noticed", shown: "dict[Noticed, str]") -> str:
    """What changes."""
    if noticed.change == "band":
        assert noticed.low_hz is not None
        assert noticed.high_hz is not None
        return f"one band louder{shown.get(noticed, '')}: {_khz(noticed.low_hz, noticed.high_hz)}"
    if noticed.change == "level":
        return "louder or quieter as a whole"
    assert noticed.low_hz is not None
    of = "impulses" if noticed.change == "impulses" else "a tone"
    return f"{of} at {noticed.low_hz / 1000:.3g} kHz, share of the energy"


def _khz(low_hz: float, high_hz: float) -> str:
    return f"{low_hz / 1000:.3g}-{high_hz / 1000:.3g} kHz"


def _row(name: str, noticed: "Noticed") -> str:
    """One change in one line."""
    cells = [_size(size, noticed) for size in (noticed.minute, noticed.hour, noticed.day)]
    return f"  {name:<{NAME_WIDTH - 2}}" + "".join(f"{cell:>{CELL_WIDTH}}" for cell in cells)


def _size(size: float | None, noticed: "Noticed") -> str:
    """A size with its unit; `-` where even the largest that was tried would not be noticed."""
    if size is None:
        return WARNING if noticed.unfamiliar else "-"
    return f"{size:.1f} dB" if noticed.unit == "dB" else f"{100 * size:.2g} %"


def _cause(held_back: "HeldBack", sensitivity: "Sensitivity") -> str:
    """Say what holds the sensitivity back, and what would be gained without it."""
    rate = sensitivity.alarm_per_day
    causes = {
        "few takes": "few recordings; with twice as many like these",
        "blocks": "operating states that were recorded once; with a second recording of each",
        "recorded once": f"{held_back.name}: recorded once; with a second recording of the same state",
        "one take": f"{held_back.name}: unlike the others of its state; without it",
        "alarm_per_day": f"{rate:g} false alarms a day; with {10 * rate:g}",
    }
    band, whole = _gain(held_back.band_db), _gain(held_back.level_db)
    gains = [f"{band} in {_khz(*held_back.band_hz)}"] * bool(band) + [f"{whole} as a whole"] * bool(whole)
    return f"  held back by {causes[held_back.cause]}: {', '.join(gains)}, within an hour"


def _gain(sizes: tuple[float | None, float | None]) -> str:
    """What is noticed before and after; nothing where it is the same."""
    before, after = ("not noticed" if size is None else f"{size:.2g} dB" for size in sizes)
    return "" if before == after else f"{before} -> {after}"
