"""The command that runs the gateway."""

import signal
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(run)


def run(
    file: Annotated[Path, typer.Argument(metavar="CONFIG", help="TOML file.")],
) -> None:
    """Monitor the channels of a configuration until SIGTERM, SIGHUP or Ctrl-C.

    When all sources are recordings that do not loop, the gateway also stops after it has delivered every result.

    Example: fisher-edge run gateway.toml
    """
    from fisher_edge.config import load_config
    from fisher_edge.gateway import Gateway

    gateway = Gateway(load_config(file))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: gateway.stop())
    gateway.run()
