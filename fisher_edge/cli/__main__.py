"""Makes `python -m fisher_edge.cli` the same as the command `fisher-edge`."""

from fisher_edge.cli import main

main()
