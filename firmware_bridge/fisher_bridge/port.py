"""Serial ports: which there are, by the name that stays, and one opened for us alone."""

import os
from dataclasses import dataclass
from pathlib import Path

import serial
from serial.tools import list_ports

from fisher_edge.errors import BadInputError

__all__ = ["ListedPort", "PortSettings", "open_port", "ports"]

BY_ID = Path("/dev/serial/by-id")


@dataclass(frozen=True)
class PortSettings:
    """A port and how it is opened; USB devices and ptys take any `baud`."""

    path: str
    baud: int = 921_600
    rtscts: bool = False


@dataclass(frozen=True)
class ListedPort:
    """A port of this machine: `path` is the name that stays the same when the device is plugged in elsewhere."""

    path: str
    device: str
    description: str


def ports() -> list[ListedPort]:
    """Return the serial ports of this machine."""
    by_device = {os.path.realpath(link): str(link) for link in sorted(BY_ID.glob("*"))} if BY_ID.is_dir() else {}
    return [
        ListedPort(by_device.get(os.path.realpath(port.device), port.device), port.device, port.description)
        for port in sorted(list_ports.comports())
    ]


def open_port(settings: PortSettings) -> serial.Serial:
    """Open a port exclusively; reads do not wait. Raises BadInputError for one that is missing, in use or refused."""
    if not Path(settings.path).exists():
        raise BadInputError(f"no serial port at {settings.path}; plug the device in, or see: fisher-edge bridge list")
    try:
        return serial.Serial(settings.path, settings.baud, timeout=0, rtscts=settings.rtscts, exclusive=True)
    except (OSError, ValueError) as error:  # pyserial's own errors are OSErrors
        raise BadInputError(f"{settings.path} cannot be opened: {_reason(error, settings)}") from error


def _reason(error: Exception, settings: PortSettings) -> str:
    """Say why and what to do, without the layers of the library around it."""
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == 13:
        return "permission denied; add the user to the group dialout"
    if "lock" in str(error):
        return "another program has it open; close that first"
    if "ioctl" in str(error):
        return "it is no serial port; see: fisher-edge bridge list"
    if isinstance(error, ValueError):
        return f"it does not take {settings.baud} baud; choose another"
    text = os.strerror(error.errno) if getattr(error, "errno", None) else str(error)  # type: ignore[attr-defined]
    return f"{text.lower()}; check that it is a serial port"
