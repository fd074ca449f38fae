"""Writes docs/demo.svg: the terminal of a real run of the demonstration, at its end.

Run: python scripts/demo_picture.py
"""

import io
import tempfile
from pathlib import Path

from rich.console import Console

from fisher_edge.demo import screen
from fisher_edge.demo.play import Demonstration

TARGET = Path(__file__).parents[1] / "docs" / "demo.svg"
SECONDS = 20.0
WIDTH = 80


def main() -> None:
    """Play the demonstration and keep its last picture."""
    with tempfile.TemporaryDirectory() as folder:
        demonstration = Demonstration(Path(folder), SECONDS)
        demonstration.enroll(lambda _: None)
        demonstration.play(lambda: None)
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(screen.draw(demonstration))
    console.print(screen.summary(demonstration), highlight=False)
    console.save_svg(str(TARGET), title="make demo")


if __name__ == "__main__":
    main()
