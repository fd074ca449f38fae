"""Commands about the configuration file."""

from pathlib import Path
from typing import Annotated

import typer

from fisher_edge.cli.options import AsJson, print_json

__all__ = ["register"]

config = typer.Typer(help="Check a configuration file.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(config, name="config")


@config.command()
def check(
    file: Annotated[Path, typer.Argument(help="TOML file.")],
    as_json: AsJson = False,
) -> None:
    """Check a configuration file against its model, its recordings and the enrolled baselines.

    A note says what keeps a channel from being judged. The gateway still starts; the channel publishes the reason.
    --json prints the configuration with defaults and without secrets.

    Example: fisher-edge config check gateway.toml
    """
    from fisher_edge.config import load_config
    from fisher_edge.gateway.check import findings

    loaded = load_config(file)
    found = findings(loaded)
    if as_json:
        in_use = {"model": found.model, "provider": found.provider}
        print_json(loaded.model_dump(mode="json") | {"in_use": in_use, "notes": found.notes})
        return
    channels = ", ".join(str(channel.key) for channel in loaded.channel)
    print(f"{file} is valid: gateway {loaded.gateway.name!r}, {len(loaded.channel)} channel(s): {channels}")
    print(f"{found.model} runs on {found.provider}")
    for note in found.notes:
        print(f"note: {note}")


@config.command()
def schema() -> None:
    """Print the JSON schema of the file, for editors.

    Example: fisher-edge config schema > fisher-edge.schema.json
    """
    from fisher_edge.config import Config

    print_json(Config.model_json_schema())
