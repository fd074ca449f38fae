"""Cut a recording into segments and write them as 16-bit PCM. Start at `write_segments`.

Source: the released benchmark. Samples of a scaled set are divided by the one peak of the set when that is above 1;
the rounding to 16 bits is libsndfile's.
"""

from pathlib import Path
from typing import Any

import numpy.typing as npt
import soundfile

from fisher_bench.rmis.catalogue import RmisSet
from fisher_bench.rmis.index import Segment
from fisher_bench.rmis.prepare.source import Channel, Source

__all__ = ["AUDIO", "CUT_S", "pieces_of", "write_segments"]

CUT_S = 10
AUDIO = "audio"
"""Folder of the segments, below that of the index."""
WHOLE = ("mafaulda", "pu")
"""Begins the name of sets that are not cut: a source and channel is a clip."""
FLAC = "wt_plane_gearbox"


def pieces_of(samples: int, rate_hz: int) -> list[tuple[int, int]]:
    """Start and length of the 10 s pieces of a recording.

    More than 5 s left over give the last 10 s of the recording as one more piece, or the whole of a recording
    shorter than 10 s; 5 s or less are dropped.
    """
    length = CUT_S * rate_hz
    whole, rest = divmod(samples, length)
    pieces = [(piece * length, length) for piece in range(whole)]
    if 2 * rest > length:
        pieces.append((samples - length, length) if whole else (0, samples))
    return pieces


def write_segments(
    known: RmisSet, source: Source, channel: Channel, wave: npt.NDArray[Any], scale: float, out: Path
) -> list[Segment]:
    """Write the segments of one channel (samples,) below `out`, each at once, and describe them."""
    uncut = known.name.startswith(WHOLE)
    pieces = [(0, len(wave))] if uncut else pieces_of(len(wave), known.rate_hz)
    suffix = "flac" if known.name == FLAC else "wav"
    segments = []
    for number, (start, length) in enumerate(pieces):
        file = f"{_name(channel, number, uncut=uncut)}.{suffix}"
        path = out / AUDIO / file
        path.parent.mkdir(parents=True, exist_ok=True)
        piece = wave[start : start + length]
        beside = path.with_name(f".{path.name}.new")
        soundfile.write(beside, piece / piece.dtype.type(scale), known.rate_hz, "PCM_16", format=suffix.upper())
        beside.replace(path)
        segments.append(
            Segment(
                file, f"{AUDIO}/{file}", known.modality, known.rate_hz, length, source.label,
                known.classes.index(source.label), channel.key, source.file, channel.number, start, number,
                source.condition,
            )
        )  # fmt: skip
    return segments


def _name(channel: Channel, number: int, *, uncut: bool) -> str:
    if uncut:
        return channel.name
    return f"{channel.name}_ch0_{number}" if channel.number else f"{channel.name}_{number}"
