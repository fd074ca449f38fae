"""The application of all commands, and the one place where an error becomes a line and an exit code.

The runtime's commands are registered here; `plugins` adds those of other packages.
"""

import logging
import os
import sys
from typing import Annotated, Any

import typer

from fisher_edge import __version__
from fisher_edge.cli import alarms, baseline, bench, config, demo, embed, enroll, export, live, outbox, run
from fisher_edge.cli.plugins import Commands
from fisher_edge.errors import FisherEdgeError

__all__ = ["app", "main"]

DEBUG = "--debug"
USAGE_ERROR: Any = typer.BadParameter.__mro__[1]
"""What typer raises for any command line it cannot read; it has no public name there."""

app = typer.Typer(
    cls=Commands,
    help="Edge monitoring of industrial machines with one encoder for every sensor.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 2 usage, 3 missing extra, 4 bad input, 5 bad artifact, 6 broker, 7 insensitive "
    "baseline (enroll --strict).",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"fisher-edge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[bool, typer.Option(DEBUG, help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    """Options of every command."""


for group in (demo, run, enroll, baseline, live, alarms, outbox, embed, export, bench, config):
    group.register(app)


def main(arguments: list[str] | None = None) -> None:
    """Run one command and leave; an expected error is one line on stderr and its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrix products gain nothing from more threads
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    debug = DEBUG in arguments
    try:
        words = [argument for argument in arguments if argument != DEBUG]
        code = app(words, prog_name="fisher-edge", standalone_mode=False)
        print(end="", flush=True)
        sys.exit(code)
    except USAGE_ERROR as error:
        if debug:
            raise
        sys.exit(_usage(error))
    except FisherEdgeError as error:
        if debug:
            raise
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has closed it
        sys.exit(0)


def _usage(error: Any) -> int:
    """Say in one line what is wrong with the command line; a group without a command has printed its help."""
    text = " ".join(error.format_message().split())
    if type(error).__name__ != "NoArgsIsHelpError":
        command = error.ctx.command_path if error.ctx else "fisher-edge"
        print(f"error: {text.rstrip('.')}; see: {command} --help", file=sys.stderr)
    return int(error.exit_code)
