"""What the demonstration looks like in a terminal: one panel for all sensors, and a summary at the end."""

import math
from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from fisher_edge.demo.play import Demonstration, Track

__all__ = ["draw", "line", "summary"]

CHART_WIDTH = 24
BLOCKS = " ▁▂▃▄▅▆▇█"
COLOURS = {
    "normal": "black on green",
    "warning": "black on yellow",
    "alarm": "bold white on red",
    "check_function": "magenta",
}
DECADES = 1.0
"""The chart reaches this many decades below and above the limit, which is its middle."""


def draw(demo: Demonstration) -> Panel:
    """Draw the present state of all sensors: three lines each, within 80 columns."""
    foot = Text(f"{demo.elapsed_s:5.1f} s   {demo.messages} MQTT messages   ", style="dim")
    foot.append("(chart: the whole replay, red above the limit of an alarm)")
    return Panel(
        Group(*(_card(track) for track in demo.tracks.values()), foot),
        title="fisher-edge: three sensors, one encoder",
        border_style="cyan",
        width=80,
    )


def line(demo: Demonstration) -> str:
    """Say the present state in one line, for output that is no terminal."""
    parts = [
        f"{track.sensor.asset} {_state(track)} {_ratio(track.results[-1]):.2f}" if track.results else track.sensor.asset
        for track in demo.tracks.values()
    ]
    return f"{demo.elapsed_s:5.1f} s  " + "  |  ".join(parts) + f"  |  {demo.messages} messages"


def summary(demo: Demonstration) -> str:
    """Sum up every sensor, and say how to continue."""
    tracks = list(demo.tracks.values())
    verdict = "as expected" if all(track.as_expected for track in tracks) else "NOT as expected"
    return (
        f"In {demo.elapsed_s:.0f} s one encoder that has never seen these machines judged three sensors against "
        f"healthy recordings alone, {verdict}:\n"
        + "".join(_outcome(track) for track in tracks)
        + f"{demo.messages} messages went over MQTT.\n\n"
        "Continue with your own machine:\n"
        "  enroll its normal state  fisher-edge enroll ok*.wav --asset A --channel C\n"
        "  judge a recording        fisher-edge score today.wav --asset A --channel C\n"
        "  monitor, over MQTT       fisher-edge run gateway.toml\n"
        "The README shows the configuration file and the topics."
    )


def _outcome(track: Track) -> str:
    """What was found at one sensor, in two lines."""
    outcome = "ALARM" if track.caught else "NO ALARM"
    return (
        f"  {track.sensor.asset:<9}{len(track.healthy)} healthy windows, {track.false_alarms} of them not normal\n"
        f"  {'':<9}{track.sensor.fault}: {outcome}, {_worst(track):.1f} x its limit\n"
    )


def _card(track: Track) -> Text:
    """One sensor: what it is, what is played, and how it is judged."""
    card = Text(f"{track.sensor.asset}/{track.sensor.channel}", style="bold")
    card.append(f"   {track.sensor.what}\n", style="not bold dim")
    playing = (track.sensor.fault, "red") if track.faulty else ("healthy, not enrolled", "green")
    card.append("  playing ", style="not bold dim")
    card.append(playing[0], style=f"not bold {playing[1]}")
    card.append(f", {track.speed:.1f} x real time, windows of {track.enrolled.window_s:g} s\n", style="not bold dim")
    if not track.results:
        return card.append("  waiting for the first window\n", style="not bold dim")
    last = track.results[-1]
    card.append("  ")
    card.append(f" {_state(track)} ".center(9), style=COLOURS.get(last["state"], ""))
    card.append("  ").append_text(_chart(track))
    card.append(f"  {_ratio(last):.2f} x its limit   ", style="not bold")
    return card.append(f"{_responsible(last)}\n", style="not bold cyan")


def _state(track: Track) -> str:
    """The state in capitals."""
    return str(track.results[-1]["state"]).upper()


def _ratio(result: dict[str, Any]) -> float:
    """The worse of shape and level over its limit; 0 for a window that could not be judged."""
    if result["evidence"] is None:
        return 0.0
    return max(_worst_of(result["evidence"]), _worst_of(result["level"]["evidence"]))


def _worst_of(evidence: dict[str, float | None]) -> float:
    """The worst of the spans of time over the limit of an alarm."""
    return max(evidence[kind] or 0.0 for kind in ("sudden", "persistent", "drift"))


def _chart(track: Track) -> Text:
    """Evidence over its limit in the whole replay, the worst of every column."""
    ratios = [_ratio(result) for result in track.results]
    columns = min(CHART_WIDTH, len(ratios))
    chart = Text()
    for column in range(columns):
        ratio = max(ratios[column * len(ratios) // columns : (column + 1) * len(ratios) // columns])
        height = (math.log10(max(ratio, 1e-6)) + DECADES) / (2 * DECADES)
        block = BLOCKS[min(len(BLOCKS) - 1, max(1, round(height * (len(BLOCKS) - 1))))]
        chart.append(block, style="red" if ratio > 1 else "green")
    return chart


def _responsible(result: dict[str, Any]) -> str:
    """What contributes most: the level, or the most unusual band."""
    if result["evidence"] is None:
        return ""
    if _worst_of(result["level"]["evidence"]) > max(1.0, _worst_of(result["evidence"])):
        factor = math.exp(math.copysign(result["level"]["deviation"], result["level"]["z"]))
        return f"level x {factor:.2f}"
    worst = max(result["bands"], key=lambda band: band["unusual"])
    return f"{worst['unusual']:+.1f} sd in {worst['low_hz'] / 1000:g}-{worst['high_hz'] / 1000:g} kHz"


def _worst(track: Track) -> float:
    """Median ratio of the faulty windows."""
    ratios = sorted(_ratio(result) for result in track.faulty)
    return ratios[len(ratios) // 2] if ratios else 0.0
