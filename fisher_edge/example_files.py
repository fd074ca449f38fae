"""The recordings that ship as examples: what the demonstration replays and exports are verified on by default."""

from pathlib import Path

from fisher_edge.errors import BadInputError

__all__ = ["example_files", "find_examples"]

INSTALLED = Path(__file__).parent / "examples"
CHECKOUT = Path(__file__).parents[1] / "examples"


def find_examples() -> Path:
    """Folder of the examples, installed or in a checkout. Raises BadInputError when the package lacks them."""
    for folder in (INSTALLED, CHECKOUT):
        if folder.is_dir():
            return folder
    raise BadInputError(f"{INSTALLED} is missing; install a copy of the package that holds the example recordings")


def example_files() -> list[Path]:
    """Every example recording, sorted by name."""
    return sorted(find_examples().glob("*/*.flac"))
