"""The commands of pre-training: `python -m fisher_train contrastive --preset nano --minutes 60 --out runs/nano`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fisher_edge.errors import FisherEdgeError
from fisher_train.encoder import PRESETS
from fisher_train.loop import train
from fisher_train.run import Settings

__all__ = ["main"]

EXAMPLE = "example: python -m fisher_train contrastive --preset nano --minutes 60 --seed 0 --out runs/nano"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code (errors are one line on standard error)."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings(
            preset=options.preset,
            seed=options.seed,
            minutes=options.minutes,
            steps=options.steps,
            peak_rate=options.peak_rate,
        )
        final = train(settings, options.out, workers=options.workers)
    except FisherEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"interrupted; the same command continues the run in {options.out}", file=sys.stderr)
        return 130
    print(final)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fisher_train", description="Pre-train an encoder.", epilog=EXAMPLE)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "contrastive",
        help="contrastive pre-training on simulated machines; a run in --out is continued",
        epilog=EXAMPLE,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_argument("--preset", default="nano", choices=list(PRESETS), help="shape of the encoder")
    command.add_argument("--minutes", type=float, default=60.0, help="training time")
    command.add_argument("--steps", type=int, default=0, help="steps instead of minutes: the run repeats exactly")
    command.add_argument("--seed", type=int, default=0, help="seed of weights and data")
    command.add_argument("--peak-rate", type=float, default=1e-3, help="highest learning rate")
    command.add_argument("--workers", type=int, default=1, choices=[0, 1], help="processes that render batches")
    command.add_argument("--out", type=Path, required=True, help="folder of the run")
    return parser
