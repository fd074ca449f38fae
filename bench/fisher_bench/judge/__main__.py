"""`python -m fisher_bench.judge`: says what is missing before it imports what needs it. The command is in `cli`."""

import sys

from fisher_edge.errors import MissingExtraError, require

__all__ = ["main"]


def main() -> int:
    """Run the command of the judge and return its exit code."""
    try:
        require("bench", "torch", "onnx", "safetensors", "scipy")
    except MissingExtraError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    from fisher_bench.judge import cli  # noqa: PLC0415 -- needs torch

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
