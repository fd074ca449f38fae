"""Options that several commands share, and the printing of JSON.

Commands of other packages may import this module, and of the command line nothing else.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fisher_edge.errors import UsageError

if TYPE_CHECKING:
    from fisher_edge.names import ChannelKey

__all__ = [
    "AsJson",
    "Asset",
    "AssetName",
    "BurstIntervalS",
    "ChannelName",
    "EitherAsset",
    "EitherChannel",
    "HopS",
    "InputChannel",
    "Model",
    "OldAsset",
    "OldChannel",
    "Provider",
    "RateHz",
    "SensorName",
    "StateDir",
    "WindowS",
    "channel_of",
    "print_json",
]

Asset = Annotated[str, typer.Option("--asset", help="Machine the sensor belongs to: one level of an MQTT topic.")]
ChannelName = Annotated[str, typer.Option("--channel", help="Sensor of the machine: one level of an MQTT topic.")]
AssetName = Annotated[str, typer.Argument(metavar="ASSET", help="Machine the sensor belongs to.")]
SensorName = Annotated[str, typer.Argument(metavar="CHANNEL", help="Sensor of the machine.")]
# Where the names were options in an earlier release; `channel_of` takes either.
EitherAsset = Annotated[str | None, typer.Argument(metavar="ASSET", help="Machine the sensor belongs to.")]
EitherChannel = Annotated[str | None, typer.Argument(metavar="CHANNEL", help="Sensor of the machine.")]
OldAsset = Annotated[str | None, typer.Option("--asset", hidden=True)]
OldChannel = Annotated[str | None, typer.Option("--channel", hidden=True)]
Model = Annotated[str, typer.Option("--model", help='Bundle folder, or "default".')]
Provider = Annotated[
    str, typer.Option("--provider", help="What runs the model: auto, cpu, openvino, cuda, ort-tensorrt or tensorrt.")
]
StateDir = Annotated[Path, typer.Option("--state-dir", help="Folder of the gateway's database.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RateHz = Annotated[
    str | None,
    typer.Option("--rate-hz", help="Sampling rate in Hz, such as 16000 or 3906.25; only .npy files need it."),
]
InputChannel = Annotated[int | None, typer.Option("--input-channel", help="Channel within a file of several, from 0.")]
WindowS = Annotated[
    float,
    typer.Option(
        "--window-s",
        help="Length of a window in seconds, rounded to whole pieces of the model (default model: 0.96 s); a shorter "
        "window is one piece of its own length.",
    ),
]
BurstIntervalS = Annotated[
    float | None,
    typer.Option(
        "--burst-interval-s",
        help="Seconds from the start of a burst to that of the next. Default: what the files say, else bursts follow "
        "each other at once. Times and expected false alarms a day count by it.",
    ),
]
HopS = Annotated[
    float | None,
    typer.Option("--hop-s", help="Seconds from one window to the next (default: a quarter of the window, 2 at most)."),
]


def channel_of(asset: str | None, channel: str | None, old_asset: str | None, old_channel: str | None) -> "ChannelKey":
    """Return the channel that a command line names, as arguments or as options."""
    from fisher_edge.names import ChannelKey

    asset, channel = asset or old_asset, channel or old_channel
    if asset is None or channel is None:
        raise UsageError("name the machine and its sensor: ASSET CHANNEL")
    return ChannelKey(asset, channel)


def print_json(value: Any) -> None:
    """Print one JSON value on one line."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False))
