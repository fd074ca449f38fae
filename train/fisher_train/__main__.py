"""`python -m fisher_train`: says what is missing before it imports what needs it. The commands are in `cli`."""

import importlib.util
import sys

from fisher_edge.errors import MissingExtraError


def main() -> int:
    """Run the command line of pre-training and return its exit code."""
    for package in ("torch", "safetensors", "scipy"):
        if importlib.util.find_spec(package) is None:
            error = MissingExtraError(package, "train")
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
    from fisher_train import cli  # noqa: PLC0415 -- needs torch

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
