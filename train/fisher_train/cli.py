"""The command of pre-training: `python -m fisher_train`, in one process or in many under `torchrun`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fisher_edge.errors import FisherEdgeError, UsageError
from fisher_train.encoder import PRESETS
from fisher_train.loop import train
from fisher_train.run.distributed import join
from fisher_train.run.settings import OBJECTIVES, PRECISIONS, Execution, Settings

__all__ = ["add_settings", "main", "settings_of"]

DESCRIPTION = """\
Pre-train an encoder, on simulated machines (no DATA) or on recordings. A run in --out is continued where its newest
checkpoint is, exactly: give the same command again. Under torchrun every process takes its share of each batch.
"""
EXAMPLES = """\
examples:
  python -m fisher_train --preset nano --minutes 60 --out runs/nano
  python -m fisher_train recordings/ shards/ --preset tiny --steps 400000 --precision bf16 --out runs/tiny
  torchrun --nproc-per-node 4 -m fisher_train shards/ --preset small --steps 400000 --precision bf16 --out runs/small
  python -m fisher_train --init train/checkpoints/nano --steps 2000 --peak-rate 2e-4 --out runs/longer
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code (errors are one line on standard error)."""
    options = _parser().parse_args(arguments)
    first = os.environ.get("RANK", "0") == "0"
    try:
        settings, execution = settings_of(options), _execution(options)
        with join(options.device, options.distributed_backend) as world:
            final = train(settings, options.out, execution, world)
    except FisherEdgeError as error:
        if first:
            print(f"error: {error}", file=sys.stderr)
        elif not isinstance(error, UsageError):  # wrong usage is the same in all processes: said once
            print(f"error in process {os.environ['RANK']}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        if first:
            print(f"interrupted; the same command continues the run in {options.out}", file=sys.stderr)
        return 130
    if first:
        print(final)
    return 0


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings that parsed options stand for. Raises UsageError for values that cannot be run."""
    return Settings(
        preset=options.preset,
        objective=options.objective or ("distillation" if options.data else "contrastive"),
        data=tuple(options.data),
        seed=options.seed,
        minutes=options.minutes,
        steps=options.steps,
        batch=options.batch,
        frames=options.frames,
        accumulate=options.accumulate,
        precision=options.precision,
        peak_rate=options.peak_rate,
        warmup_steps=options.warmup_steps,
        init=options.init,
    )


def _execution(options: argparse.Namespace) -> Execution:
    return Execution(
        workers=options.workers,
        threads=options.threads,
        keep=options.keep,
        save_every_min=options.save_every,
        log_every=options.log_every,
        tensorboard=options.tensorboard,
        compile=options.compile,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fisher_train",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    add_settings(parser.add_argument_group("what is trained (a continued run must have the same)"))
    _add_execution(parser.add_argument_group("how it is trained (a continued run may change it)"))
    return parser


def add_settings(group: argparse._ActionsContainer) -> None:
    """Add the options that say what is trained, and on which data."""
    group.add_argument("data", nargs="*", metavar="DATA", help="folders or shards of recordings")
    group.add_argument("--preset", default="nano", choices=list(PRESETS), help="shape of the encoder (nano)")
    group.add_argument(
        "--objective", choices=OBJECTIVES, help="what is learnt (distillation with DATA, contrastive without)"
    )
    group.add_argument("--steps", type=int, default=0, metavar="N", help="optimiser steps: the run repeats exactly")
    group.add_argument("--minutes", type=float, default=60.0, metavar="M", help="training time instead (60)")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="seed of weights, data and masks (0)")
    group.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="pairs (contrastive, 96) or recordings (distillation, 16) of a step, over all processes",
    )
    group.add_argument("--frames", type=int, default=1024, metavar="N", help="frames (10 ms) of a recording (1024)")
    group.add_argument(
        "--accumulate",
        type=int,
        default=1,
        metavar="N",
        help="parts into which each process divides its share of a batch, to save memory; the result is the same (1)",
    )
    group.add_argument("--precision", default="fp32", choices=PRECISIONS, help="of activations; weights stay fp32")
    group.add_argument("--peak-rate", type=float, metavar="R", help="highest learning rate (5e-4)")
    group.add_argument(
        "--warmup-steps", type=int, metavar="N", help="steps of warm-up (100; distillation a tenth of the run)"
    )
    group.add_argument("--init", metavar="CHECKPOINT", help="start with the weights of a checkpoint, half or float")


def _add_execution(group: argparse._ArgumentGroup) -> None:
    usual = Execution()
    group.add_argument(
        "--workers",
        type=int,
        default=usual.workers,
        metavar="N",
        help="processes that make batches (1; 0: none); at most one for simulated machines",
    )
    group.add_argument(
        "--threads",
        type=int,
        default=usual.threads,
        metavar="N",
        help="threads of a process; others round otherwise (1)",
    )
    group.add_argument("--keep", type=int, default=usual.keep, metavar="N", help="newest checkpoints kept (3)")
    group.add_argument(
        "--save-every", type=float, default=usual.save_every_min, metavar="M", help="minutes between checkpoints (5)"
    )
    group.add_argument(
        "--log-every", type=int, default=usual.log_every, metavar="N", help="steps between lines of the log (20)"
    )
    group.add_argument(
        "--tensorboard",
        action=argparse.BooleanOptionalAction,
        default=usual.tensorboard,
        help="write event files for TensorBoard (yes)",
    )
    group.add_argument("--compile", action="store_true", help="compile the model (torch.compile)")
    group.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="a GPU where there is one")
    group.add_argument(
        "--distributed-backend", default="auto", choices=["auto", "nccl", "gloo"], help="nccl on GPUs, else gloo"
    )
