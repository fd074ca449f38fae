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
    """Check a configuration file, its model and its recordings; with --json show it, defaults filled in.

    Example: fisher-edge config check gateway.toml
    """
    from fisher_edge.config import RecordingSourceConfig, load_config
    from fisher_edge.daemon.gateway import window_and_hop
    from fisher_edge.encoder.bundle import load_bundle
    from fisher_edge.publish.address import BrokerAddress
    from fisher_edge.sources.open import open_source

    loaded = load_config(file)
    if loaded.mqtt.url != "embedded":
        BrokerAddress.parse(loaded.mqtt.url, password_file=loaded.mqtt.password_file, ca_file=loaded.mqtt.ca_file)
    front_end = load_bundle(loaded.model.bundle).front_end
    for channel in loaded.channel:
        window_and_hop(loaded, channel, front_end)
        open_source(channel)
    if as_json:
        print_json(loaded.model_dump(mode="json"))
        return
    channels = ", ".join(f"{channel.asset}/{channel.name}" for channel in loaded.channel)
    print(f"{file} is valid: gateway {loaded.gateway.name!r}, {len(loaded.channel)} channel(s): {channels}")
    for channel in loaded.channel:
        files = channel.source.files if isinstance(channel.source, RecordingSourceConfig) else ()
        for path in files:
            if not path.is_file():
                print(f"note: {channel.asset}/{channel.name} has no data until there is a file at {path}")


@config.command()
def schema() -> None:
    """Print the JSON schema of the file, for editors.

    Example: fisher-edge config schema > fisher-edge.schema.json
    """
    from fisher_edge.config import Config

    print_json(Config.model_json_schema())
