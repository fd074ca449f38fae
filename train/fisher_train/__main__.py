"""`python -m fisher_train`: says what is missing before it imports what needs it. The commands are in `cli`."""

import sys

from fisher_edge.errors import MissingExtraError, require

__all__ = ["PACKAGES", "main"]

PACKAGES = ("torch", "safetensors", "scipy", "soxr")
"""Packages of the extra `train` that every run imports."""


def main() -> int:
    """Run the command line of pre-training and return its exit code."""
    try:
        require("train", *PACKAGES)
    except MissingExtraError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    from fisher_train import cli  # noqa: PLC0415 -- needs torch

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
