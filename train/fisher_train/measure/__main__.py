"""`python -m fisher_train.measure TOOL`: says what is missing before it imports what needs it."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from fisher_edge.errors import MissingExtraError, require
from fisher_train.__main__ import PACKAGES

__all__ = ["main"]

TOOLS = {
    "cost": "parameters, operations and memory of one step of self-distillation, preset by preset",
    "throughput": "sub-bands a second of what feeds training and of a step, each alone on one core",
    "loader": "sub-bands a second of recordings with several numbers of workers",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one tool and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fisher_train.measure",
        description="Measure what training costs; each tool has a --help of its own.",
        epilog="\n".join(f"{name:10}  {text}" for name, text in TOOLS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tool", choices=list(TOOLS))
    parser.add_argument("options", nargs=argparse.REMAINDER, help="options of the tool")
    given = parser.parse_args(arguments)
    try:
        require("train", *PACKAGES)
    except MissingExtraError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    code: int = import_module(f"fisher_train.measure.{given.tool}").main(given.options)
    return code


if __name__ == "__main__":
    sys.exit(main())
