"""The command line. `main` is its entry point; the commands lie in one file per group."""

from fisher_edge.cli.app import main

__all__ = ["main"]
