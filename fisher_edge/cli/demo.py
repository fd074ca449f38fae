"""The command that demonstrates the gateway on the example recordings."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fisher_edge.cli.options import AsJson, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from fisher_edge.demo.play import Demonstration

__all__ = ["register"]

LINE_EVERY_S = 2.0


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(demo)


def demo(
    seconds: Annotated[float, typer.Option("--seconds", min=5, max=600, help="Length of the replay.")] = 40.0,
    window_s: Annotated[
        float | None,
        typer.Option("--window-s", min=0.16, max=0.9, help="Window of all sensors (default: each its own)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Replay recordings of three real sensors, healthy and then faulty, and show how they are judged.

    The recordings are short, so the windows are short. Each is replayed at the speed that fills the time.

    Example: fisher-edge demo --seconds 20
    """
    import logging

    from fisher_edge.demo.play import Demonstration

    logging.getLogger().setLevel(logging.WARNING)  # the screen shows the states
    with tempfile.TemporaryDirectory(prefix="fisher-edge-demo-") as folder:
        demonstration = Demonstration(Path(folder), seconds, window_s)
        if as_json:
            demonstration.enroll(lambda _: None)
            demonstration.play(lambda: None)
            print_json(_facts(demonstration))
        else:
            _show(demonstration)
    if not all(track.as_expected for track in demonstration.tracks.values()):
        raise typer.Exit(1)


def _show(demonstration: "Demonstration") -> None:
    """Play on the terminal, or in lines where there is none."""
    from rich.console import Console
    from rich.live import Live

    from fisher_edge.demo import screen

    console = Console()
    demonstration.enroll(lambda sensor: console.print(f"enrolling {len(sensor.enrolled)} recordings: {sensor.what}"))
    if console.is_terminal:
        with Live(screen.draw(demonstration), console=console, auto_refresh=False) as live:
            demonstration.play(lambda: live.update(screen.draw(demonstration), refresh=True))
    else:
        demonstration.play(_Lines(console, demonstration))
    console.print()
    console.print(screen.summary(demonstration), highlight=False)


class _Lines:
    """Prints one line every two seconds."""

    def __init__(self, console: "Console", demonstration: "Demonstration") -> None:
        self._console = console
        self._demonstration = demonstration
        self._next_s = 0.0

    def __call__(self) -> None:
        from fisher_edge.demo import screen

        if self._demonstration.elapsed_s >= self._next_s:
            self._next_s = self._demonstration.elapsed_s + LINE_EVERY_S
            self._console.print(screen.line(self._demonstration), highlight=False, soft_wrap=True)


def _facts(demonstration: "Demonstration") -> dict[str, Any]:
    """The outcome as JSON."""
    return {
        "seconds": round(demonstration.elapsed_s, 1),
        "messages": demonstration.messages,
        "sensors": [
            {
                "asset": track.sensor.asset,
                "channel": track.sensor.channel,
                "enrolled_windows": track.enrolled.windows,
                "window_s": track.enrolled.window_s,
                "speed": round(track.speed, 2),
                "healthy_windows": len(track.healthy),
                "healthy_not_normal": track.false_alarms,
                "faulty_windows": len(track.faulty),
                "alarm": track.caught,
                "states": sorted({result["state"] for result in track.results}),
            }
            for track in demonstration.tracks.values()
        ],
    }
