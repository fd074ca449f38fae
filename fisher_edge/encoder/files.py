"""Embeddings of whole recordings, and the files they are kept in."""

import zipfile
from pathlib import Path

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.encoder.ort import EncoderSession
from fisher_edge.errors import BadInputError

__all__ = ["embed_recording", "save_embeddings"]


def embed_recording(session: EncoderSession, wave: FloatArray, rate_hz: int, *, pad_frames: bool = False) -> FloatArray:
    """Embed a signal (n,) in consecutive segments of 1024 frames: (segments, bands * dim).

    What is left at the end makes a segment of its own when it is the only one or at least half as long. The
    shortest signal is one patch, 16 frames (175 ms), unless `pad_frames` fills it up.
    """
    front_end = session.bundle.front_end
    front_end.check_rate(rate_hz)
    if not len(wave) or not np.isfinite(wave).all():
        raise BadInputError(f"signal of {len(wave)} samples is empty or holds NaN or Inf; record it again")
    length = front_end.n_samples(front_end.max_frames, rate_hz)
    starts = [start for start in range(0, len(wave), length) if start == 0 or len(wave) - start >= length / 2]
    rows = []
    for start in starts:
        bands = front_end.sub_bands(wave[start : start + length], rate_hz, pad_frames=pad_frames)
        if bands.shape[1] < session.min_frames:
            raise BadInputError(
                f"{len(wave)} samples at {rate_hz} Hz make {bands.shape[1]} frames, the encoder needs "
                f"{session.min_frames}; record longer or use --pad-frames"
            )
        rows.append(session.embed(bands).ravel())
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
