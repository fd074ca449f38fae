"""Embeddings of whole recordings, and the files they are kept in."""

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fisher_edge.dsp.blocks import FloatArray, Rate, rate_text
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.grid import pieces_of
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.windows import embed_window
from fisher_edge.errors import BadInputError

__all__ = ["embed_recording", "save_embeddings", "segment_samples"]


def segment_samples(front_end: FrontEnd, rate_hz: Rate) -> int:
    """Samples of a segment: 1024 frames."""
    front_end.check_rate(rate_hz)
    return front_end.n_samples(front_end.max_frames, rate_hz)


def embed_recording(
    encoder: Encoder, segments: Iterable[FloatArray], rate_hz: Rate, *, pad_frames: bool = False
) -> FloatArray:
    """Embed a recording, given in consecutive segments of `segment_samples`: (segments, bands * dim).

    The embedding of a segment is the mean of those of its pieces. What is left at the end makes a segment of its own
    when it is the only one or at least half as long. The shortest recording is one patch, 16 frames (175 ms), unless
    `pad_frames` fills it up.
    """
    front_end = encoder.bundle.front_end
    length = segment_samples(front_end, rate_hz)
    rows: list[FloatArray] = []
    for segment in segments:
        if rows and len(segment) < length / 2:
            break
        if not np.isfinite(segment).all():
            raise BadInputError(f"segment {len(rows)} of the signal holds NaN or Inf; record it again")
        pieces = pieces_of(front_end, segment, rate_hz, pad_frames=pad_frames)
        if pieces[0].shape[1] < encoder.min_frames:
            raise BadInputError(
                f"{len(segment)} samples at {rate_text(rate_hz)} Hz make {pieces[0].shape[1]} frames, the encoder "
                f"needs {encoder.min_frames}; record longer or use --pad-frames"
            )
        rows.append(embed_window(encoder, front_end, pieces).ravel())
    if not rows:
        raise BadInputError("signal of 0 samples is empty; record it again")
    return np.stack(rows)


def save_embeddings(out: Path, embeddings: dict[str, FloatArray]) -> None:
    """Write one array as .npy, or several as .npz with the names as keys."""
    try:
        if out.suffix == ".npy":
            (rows,) = embeddings.values()
            np.save(out, rows)
            return
        with zipfile.ZipFile(out, "w") as archive:
            for name, rows in embeddings.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, np.ascontiguousarray(rows), allow_pickle=False)
    except OSError as error:
        raise BadInputError(f"cannot write {out}: {error.strerror}; choose another --out") from error
