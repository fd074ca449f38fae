"""The command that turns recordings into embeddings."""

from pathlib import Path
from typing import Annotated

import typer

from fisher_edge.cli.options import AsJson, Model, RateHz, print_json

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(embed)


def embed(
    files: Annotated[list[Path], typer.Argument(help="Recordings: WAV, FLAC, OGG or .npy.")],
    out: Annotated[Path, typer.Option("--out", help=".npy for one file, .npz for several.")],
    model: Model = "default",
    rate_hz: RateHz = None,
    channel: Annotated[int | None, typer.Option("--channel", help="Channel within a file of several, from 0.")] = None,
    pad_frames: Annotated[
        bool,
        typer.Option("--pad-frames/--no-pad-frames", help="Fill what is shorter than a piece of the model with zeros."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Embed recordings in segments of 10.24 s; the result is (segments, bands * dim) float32.

    Example: fisher-edge embed noise.wav --out noise.npy
    """
    from fisher_edge.encoder.bundle import load_bundle
    from fisher_edge.encoder.files import embed_recording, save_embeddings, segment_samples
    from fisher_edge.encoder.select import open_encoder
    from fisher_edge.errors import UsageError
    from fisher_edge.sources.recording import read_recording

    wanted = ".npy" if len(files) == 1 else ".npz"
    if out.suffix != wanted:
        raise UsageError(f"--out {out} for {len(files)} file(s) must end in {wanted}; rename it")
    encoder = open_encoder(load_bundle(model))
    embeddings = {}
    for file in files:
        recording = read_recording(file, rate_hz=rate_hz, channel=channel)
        segments = recording.blocks(segment_samples(encoder.bundle.front_end, recording.rate_hz))
        embeddings[str(file)] = embed_recording(encoder, segments, recording.rate_hz, pad_frames=pad_frames)
    save_embeddings(out, embeddings)
    facts = [{"file": name, "shape": list(rows.shape)} for name, rows in embeddings.items()]
    if as_json:
        print_json({"out": str(out), "model": encoder.name, "embeddings": facts})
        return
    for fact in facts:
        print(f"{fact['file']}: {fact['shape'][0]} segments of {fact['shape'][1]} numbers")
