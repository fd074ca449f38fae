"""Judge encoders against cheap spectra on labelled recordings, none of which they were trained on.

Run: python -m fisher_bench.judge DATA_DIR --encoder default --encoder ours=runs/a/final,runs/b/final

Every encoder and every cheap representation gets the same windows, the same amplitude and the same splits. An
encoder is NAME=PATH or PATH (a checkpoint, a bundle or "default"); several paths are seeds of one recipe.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from fisher_bench.judge.judge import BY_BAND, evaluate
from fisher_bench.judge.report import table
from fisher_bench.judge.represent import (
    CHEAP,
    Represent,
    concatenated,
    embedder,
    encoded,
    exact_target,
    random_encoder,
    viewed,
)
from fisher_bench.judge.tasks import DATASETS
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import MIN_FRAMES
from fisher_edge.dsp.views import ENVELOPE, MODULATION, View
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.select import open_encoder
from fisher_edge.encoder.windows import embed_window
from fisher_edge.errors import FisherEdgeError, UsageError
from fisher_export.pipeline import bundle_front_end
from fisher_train.checkpoint import build_encoder, load_checkpoint
from fisher_train.encoder import PRESETS

__all__ = ["main"]

BEST_CHEAP = "mean + std"
TARGET = "exact target"
VIEWS = {"envelope": ENVELOPE, "modulation": MODULATION, "slow": View("slow")}
OUR_FRONT_END = FrontEnd(band_width=50, top_band="pad", amplitude="standardise")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or one JSON object a result."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    started = time.monotonic()
    try:
        representations, seeds, dims = _representations(options)
        if not representations or not options.dataset:
            raise UsageError("there is nothing to judge; name an --encoder or --cheap spectra, and a --dataset")
        if options.random < 0 or (options.piece_frames is not None and options.piece_frames < MIN_FRAMES):
            raise UsageError(
                f"random={options.random}, piece_frames={options.piece_frames} cannot be judged; give a number of "
                f"seeds from 0 and pieces of {MIN_FRAMES} frames or more"
            )
        results = []
        pieces = load_bundle().front_end
        views = {name: viewed(VIEWS[name], pieces) for name in options.view}
        for result in evaluate(
            options.data_dir,
            representations,
            views,
            window_s=options.window_s,
            datasets=tuple(options.dataset),
            dims=dims,
            noise_db=options.noise_db,
        ):
            results.append(result)
            if options.json:
                print(json.dumps(asdict(result) | {"mean": result.mean}), flush=True)
    except FisherEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if not options.json:
        print(table(results, seeds))
    print(f"{len(results)} results in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return 0


def _representations(options: argparse.Namespace) -> tuple[dict[str, Represent], dict[str, str], dict[str, int]]:
    """Return representations by name, the column of the table that each belongs to, and the dims of encoders."""
    seeds: dict[str, str] = {}
    dims: dict[str, int] = {}
    representations: dict[str, Represent] = {}
    front_end = replace(OUR_FRONT_END, amplitude=options.amplitude)
    for name in options.cheap:
        representations[name], seeds[name] = CHEAP[name](front_end), name
    if options.target:
        representations[TARGET] = encoded(exact_target(PRESETS["nano"]), front_end)
        seeds[TARGET] = TARGET
    for seed in range(options.random):
        name = f"random {options.random_preset} {seed}"
        encoder = random_encoder(PRESETS[options.random_preset], seed)
        shaped = replace(front_end, band_width=encoder.config.band_width)
        representations[name] = encoded(embedder(encoder, shaped), shaped)
        seeds[name] = f"random {options.random_preset}"
    for text in options.encoder:
        name, _, paths = text.rpartition("=")
        for path in paths.split(","):
            represent, dims[path] = _load(path, options)
            representations[path], seeds[path] = represent, name or path
            seeds[path + BY_BAND] = (name or path) + BY_BAND
            if options.concatenate:
                beside = concatenated(represent, CHEAP[BEST_CHEAP](front_end))
                representations[f"{path} + {BEST_CHEAP}"] = beside
                seeds[f"{path} + {BEST_CHEAP}"] = f"{name or path} with {BEST_CHEAP}"
    return representations, seeds, dims


def _load(path: str, options: argparse.Namespace) -> tuple[Represent, int]:
    """An encoder from a checkpoint (PyTorch, float32) or a bundle (as the gateway runs it), and its dim."""
    changes = {
        name: getattr(options, name)
        for name in ("amplitude", "top_band", "piece_frames", "piece_rule")
        if getattr(options, name)
    }
    if path == "default" or (Path(path) / "manifest.json").is_file():
        bundle = load_bundle(path)
        encoder, front_end = open_encoder(bundle), replace(bundle.front_end, **changes)
        return encoded(lambda pieces: embed_window(encoder, front_end, pieces), front_end), bundle.dim
    checkpoint = load_checkpoint(path)
    front_end = replace(bundle_front_end(checkpoint), **changes)
    model = build_encoder(checkpoint)
    return encoded(embedder(model, front_end), front_end), model.config.embed_dim


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fisher_bench.judge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data_dir", type=Path, help="folder of datasets, one folder with a meta.csv each")
    parser.add_argument("--encoder", action="append", default=[], metavar="[NAME=]PATH[,PATH...]")
    parser.add_argument("--cheap", nargs="*", default=list(CHEAP), choices=list(CHEAP), help="cheap representations")
    parser.add_argument("--concatenate", action="store_true", help=f"also each encoder concatenated with {BEST_CHEAP}")
    parser.add_argument(
        "--target", action="store_true", help="also what encoders are trained to preserve, computed exactly"
    )
    parser.add_argument("--random", type=int, default=0, metavar="SEEDS", help="random weights of so many seeds")
    parser.add_argument("--random-preset", default="nano", choices=list(PRESETS))
    parser.add_argument(
        "--view",
        nargs="*",
        default=["envelope", "modulation"],
        choices=list(VIEWS),
        help="views to fuse; none: alone only",
    )
    parser.add_argument("--window-s", type=float, default=1.0, help="seconds of a window")
    parser.add_argument(
        "--noise-db",
        type=float,
        metavar="DB",
        help="mix in noise of two other machines, its RMS so many dB below that of the signal (-6: above)",
    )
    parser.add_argument("--piece-frames", type=int, help="frames of a piece, instead of the encoder's own")
    parser.add_argument(
        "--piece-rule", choices=["grid", "spread"], help="how windows become pieces, instead of its own"
    )
    parser.add_argument("--amplitude", default="standardise", choices=["standardise", "raw"])
    parser.add_argument("--top-band", choices=["drop", "pad", "overlap"], help="instead of the encoder's own")
    parser.add_argument("--dataset", nargs="*", default=list(DATASETS), choices=list(DATASETS))
    parser.add_argument("--json", action="store_true", help="one JSON object a result")
    return parser
