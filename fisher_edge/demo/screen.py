"""What the demonstration looks like in a terminal: one panel for all sensors, and a summary at the end."""

import math
from typing import Any

from rich import box
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fisher_edge.demo.play import Demonstration, Track

__all__ = ["draw", "line", "summary"]

CHART_WIDTH = 36
BLOCKS = " ▁▂▃▄▅▆▇█"
COLOURS = {"normal": "green", "warning": "yellow", "alarm": "bold white on red", "check_function": "magenta"}
DECADES = 1.0
"""The chart reaches this many decades below and above the threshold, which is its middle."""


def draw(demo: Demonstration) -> Panel:
    """Draw the present state of all sensors."""
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False)
    table.add_column("sensor", ratio=3)
    table.add_column("playing", ratio=2)
    table.add_column("state", justify="center", min_width=9)
    table.add_column("distance : threshold", min_width=CHART_WIDTH)
    table.add_column("ratio", justify="right")
    table.add_column("bands responsible", ratio=3)
    for track in demo.tracks.values():
        table.add_row(*_row(track))
    foot = Text(
        f"{demo.elapsed_s:5.1f} s   {demo.messages} MQTT messages received from the embedded broker   "
        "(chart: logarithmic, the threshold is where it turns red)",
        style="dim",
    )
    return Panel(Group(table, foot), title="fisher-edge: three sensors, one encoder", border_style="cyan")


def line(demo: Demonstration) -> str:
    """Say the present state in one line, for output that is no terminal."""
    parts = [
        f"{track.sensor.asset} {_state(track)} {_ratio(track.results[-1]):.2f}" if track.results else track.sensor.asset
        for track in demo.tracks.values()
    ]
    return f"{demo.elapsed_s:5.1f} s  " + "  |  ".join(parts) + f"  |  {demo.messages} messages"


def summary(demo: Demonstration) -> str:
    """Sum up in one paragraph, and say how to go on."""
    told = []
    for track in demo.tracks.values():
        kept = f"{len(track.healthy)} healthy windows, {track.false_alarms} of them not normal"
        caught = f"{track.sensor.fault}: {'ALARM' if track.caught else 'NOT CAUGHT'}"
        told.append(f"{track.sensor.asset} ({track.sensor.what}): {kept}; {caught} ({_worst(track):.1f} x threshold)")
    verdict = "as it should be" if all(track.as_expected for track in demo.tracks.values()) else "NOT as it should be"
    return (
        f"In {demo.elapsed_s:.0f} s one encoder that has never seen these machines judged three sensors against "
        f"healthy recordings alone, {verdict}. {'. '.join(told)}. {demo.messages} messages went over MQTT.\n\n"
        "Go on with your own machine:\n"
        "  fisher-edge enroll healthy-*.wav --asset pump-1 --channel vib-de   learn its normal state\n"
        "  fisher-edge score today.wav --asset pump-1 --channel vib-de        judge a recording\n"
        "  fisher-edge run gateway.toml                                       monitor, results on your MQTT broker\n"
        "The README shows the configuration file and the topics."
    )


def _row(track: Track) -> tuple[str | Text, ...]:
    """One sensor's line of the table."""
    name = f"{track.sensor.asset}/{track.sensor.channel}\n[dim]{track.sensor.what}[/dim]"
    how = f"x{track.speed:.1f}, {track.enrolled.window_s:g} s windows"
    if not track.results:
        return name, f"starting\n[dim]{how}[/dim]", "", "", "", ""
    last = track.results[-1]
    playing = f"[red]{track.sensor.fault}[/red]" if track.faulty else "[green]healthy, kept out[/green]"
    state = Text(f" {_state(track)} ", style=COLOURS.get(last["state"], ""))
    return name, f"{playing}\n[dim]{how}[/dim]", state, _chart(track), f"{_ratio(last):.2f}", _bands(last)


def _state(track: Track) -> str:
    """The state in capitals."""
    return str(track.results[-1]["state"]).upper()


def _ratio(result: dict[str, Any]) -> float:
    """The worse of shape and level over its threshold; 0 for a window that could not be judged."""
    return max(float(result["ratio"]), float(result["level"]["ratio"])) if result["ratio"] is not None else 0.0


def _chart(track: Track) -> Text:
    """Distances against the threshold, the newest at the right."""
    chart = Text()
    for result in track.results[-CHART_WIDTH:]:
        ratio = _ratio(result)
        height = (math.log10(max(ratio, 1e-6)) + DECADES) / (2 * DECADES)
        block = BLOCKS[min(len(BLOCKS) - 1, max(1, round(height * (len(BLOCKS) - 1))))]
        chart.append(block, style="red" if ratio > 1 else "green")
    return chart


def _bands(result: dict[str, Any]) -> str:
    """The two bands that contribute most, when there is a distance to explain."""
    if not result["bands"] or not result["distance"]:
        return ""
    if result["level"]["ratio"] > max(1.0, result["ratio"]):
        return f"level: {math.exp(result['level']['deviation']):.2f} times\nas strong or as weak"
    worst = sorted(result["bands"], key=lambda band: -band["share"])[:2]
    return "\n".join(
        f"{band['low_hz'] / 1000:g}-{band['high_hz'] / 1000:g} kHz  {band['share'] / result['distance']:.0%}"
        for band in worst
    )


def _worst(track: Track) -> float:
    """Median ratio of the faulty windows."""
    ratios = sorted(_ratio(result) for result in track.faulty)
    return ratios[len(ratios) // 2] if ratios else 0.0
