"""The errors a user can do something about, each with the exit code of the command line."""

import importlib.util


class FisherEdgeError(Exception):
    """Base of all expected errors: the text says what is wrong with the values, then what to do."""

    exit_code = 1


class UsageError(FisherEdgeError):
    """The command line or the configuration file is not valid."""

    exit_code = 2


class MissingPackageError(FisherEdgeError):
    """A package that a command needs is not installed."""

    exit_code = 3


class MissingExtraError(MissingPackageError):
    """A package of an optional extra is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'fisher-edge[{extra}]'")
        self.package = package
        self.extra = extra


class ProviderError(MissingPackageError):
    """A runtime that was asked for cannot run the model on this machine."""


class PluginError(FisherEdgeError):
    """A command of another package is broken."""


class BadInputError(FisherEdgeError):
    """A recording, a signal or a rate cannot be used."""

    exit_code = 4


class SensorError(BadInputError):
    """A sensor delivers, but what it delivers cannot be trusted: its channel becomes check_function."""


class StateError(FisherEdgeError):
    """The state directory or its database cannot be used."""

    exit_code = 4


class DamagedStateError(StateError):
    """The database is damaged: trying again is of no use."""


class DiskFullError(StateError):
    """The disk of the state directory is full: nothing is damaged, and trying again helps once there is room."""


class BadArtifactError(FisherEdgeError):
    """A checkpoint or a bundle is damaged, incomplete or not what it claims to be."""

    exit_code = 5


class BrokerError(FisherEdgeError):
    """The MQTT broker cannot be reached or refuses the connection."""

    exit_code = 6


class InsensitiveError(FisherEdgeError):
    """A baseline was stored that would miss large changes, and the caller asked to be told (`enroll --strict`)."""

    exit_code = 7


def require(extra: str, *packages: str) -> None:
    """Say how to get the packages of an extra when one is not installed; nothing is imported."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, extra)
