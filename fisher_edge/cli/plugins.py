"""Commands of other packages, found by their entry point. Start at `Commands`.

A package adds a command through the entry-point group `fisher_edge.commands`. The entry's name is the name of the
command. The entry's object is a function that takes a `typer.Typer` and adds the command, or the group of commands, of
that name to it. Such a module imports at its top only what `--help` needs: typer, `fisher_edge.errors` and
`fisher_edge.cli.options`, the part of this package that other packages may use.
"""

import logging
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from fisher_edge.errors import FisherEdgeError, MissingPackageError, PluginError

__all__ = ["GROUP", "Commands"]

GROUP = "fisher_edge.commands"
OURS = "fisher-edge"

log = logging.getLogger(__name__)


class Commands(TyperGroup):
    """The runtime's commands in their order, then those of other packages by name.

    Other packages are imported only for a command that the runtime does not have, and for the list of all commands.
    What fails there fails for its own command alone.
    """

    _complete = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands."""
        self._add_plugins()
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of this name, or None."""
        if cmd_name not in self.commands:
            self._add_plugins()
        return super().get_command(ctx, cmd_name)

    def _add_plugins(self) -> None:
        if self._complete:
            return
        self._complete = True
        for entry in sorted(entry_points(group=GROUP), key=_order):
            if entry.name in self.commands:
                log.warning("command %r of %s is ignored: another package has that name", entry.name, _package(entry))
            else:
                self.commands[entry.name] = _load(entry)


def _order(entry: EntryPoint) -> tuple[str, bool, str]:
    """Order by name; where several packages have one name, this project's comes first."""
    package = _package(entry)
    return entry.name, package != OURS, package


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value


def _load(entry: EntryPoint) -> Any:
    """Return the command of an entry point, or one that says why it cannot be loaded."""
    package, app = _package(entry), typer.Typer()
    try:
        entry.load()(app)
        commands = get_group(app).commands
    except ModuleNotFoundError as error:
        wanted = f"'{package}[{','.join(entry.extras)}]'" if entry.extras else f"--force-reinstall {package}"
        why = f"{error.name or error} is not installed; run: pip install {wanted}"
        return _failing(entry, MissingPackageError, why, error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- another package may fail in any way
        return _failing(entry, PluginError, f"{error!r}; update or uninstall {package}", error)
    if entry.name not in commands:
        return _failing(entry, PluginError, f"{entry.value} does not add it; update or uninstall {package}", None)
    return commands[entry.name]


def _failing(entry: EntryPoint, kind: type[FisherEdgeError], why: str, cause: BaseException | None) -> Any:
    """Return a command that takes any arguments and only says why it cannot be loaded."""
    app = typer.Typer()

    @app.command(
        entry.name,
        help="Cannot be loaded; run it to see why.",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def fail() -> None:
        raise kind(f"command {entry.name!r} of {_package(entry)} cannot be loaded: {why}") from cause

    return get_group(app).commands[entry.name]
