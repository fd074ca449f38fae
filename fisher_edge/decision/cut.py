"""The windows of an enrolment, embedded, and how far each is from the others. Start at `embed_all`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fisher_edge.decision.bank import MemoryBank
from fisher_edge.decision.baselines import NORMAL
from fisher_edge.decision.calibrate import HeldOut, held_out_distances
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.features import level_log_rms, sensor_fault
from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.dsp.stream import Window
from fisher_edge.dsp.views import View
from fisher_edge.encoder.ort import EncoderSession
from fisher_edge.errors import BadInputError
from fisher_edge.sources.recording import Recording

__all__ = ["Calibration", "Cut", "calibrate", "embed_all", "level_facts"]

MIN_HELD_OUT = 4


@dataclass(frozen=True, eq=False)
class Cut:
    """The windows of all recordings: what is kept of them once they are embedded."""

    rate_hz: int
    embeddings: FloatArray
    """(windows, bands, dim)"""
    views: list[FloatArray]
    """Of each view (windows, bins)."""
    owner: npt.NDArray[np.int64]
    """Recording of each window."""
    start: npt.NDArray[np.int64]
    """First sample within the recording."""
    end_s: npt.NDArray[np.float64]
    level: npt.NDArray[np.float64]
    """Log RMS."""

    @property
    def views_side_by_side(self) -> FloatArray | None:
        """Vectors of all views in one array (windows, bins); None without views."""
        return np.concatenate(self.views, axis=1) if self.views else None


@dataclass(frozen=True, eq=False)
class Calibration:
    """How far normal windows are from the others when they are held out."""

    distances: npt.NDArray[np.float64]
    of_views: list[npt.NDArray[np.float64]]
    """The same by each view."""
    alone: tuple[int, ...]
    """Recordings unlike all others."""

    @classmethod
    def none(cls, views: Sequence[View]) -> "Calibration":
        """Return that of examples of a fault, which nothing is measured against."""
        return cls(np.zeros(0), [np.zeros(0) for _ in views], ())


def embed_all(session: EncoderSession, recordings: Sequence[Recording], cuts: Sequence[Iterator[Window]]) -> Cut:
    """Embed the windows of every recording, one at a time; a stretch of a dead sensor is nobody's normal state."""
    embeddings, views, rows = [], [], []
    front_end = session.bundle.front_end
    for number, windows in enumerate(cuts):
        for window in windows:
            fault = sensor_fault(window.samples)
            if fault:
                raise BadInputError(
                    f"{recordings[number].path}, {window.start / window.rate_hz:.2f} to {window.end_time_s:.2f} s: "
                    f"{fault}; cut that part out"
                )
            embeddings.append(session.embed(window.bands))
            views.append(front_end.view_vectors(window.samples, window.rate_hz))
            rows.append((number, window.start, window.end_time_s, level_log_rms(window.samples)))
    owner, start, end_s, level = (np.array(column) for column in zip(*rows, strict=True))
    of_view = [np.stack(vectors) for vectors in zip(*views, strict=True)]
    return Cut(recordings[0].rate_hz, np.stack(embeddings), of_view, owner, start, end_s, level)


def calibrate(cut: Cut, front_end: FrontEnd, window_frames: int) -> Calibration:
    """Hold out the windows of a normal state; too few of them are a BadInputError."""

    def held_out(vectors: FloatArray) -> HeldOut:
        bank = MemoryBank.of(vectors, [NORMAL] * len(vectors))
        return held_out_distances(bank, cut.owner, cut.start // front_end.hop(cut.rate_hz), window_frames)

    signal = held_out(cut.embeddings)
    if len(signal.distances) < MIN_HELD_OUT:
        raise BadInputError(
            f"{len(cut.owner)} windows leave {len(signal.distances)} that can be held out to calibrate a threshold, "
            f"{MIN_HELD_OUT} are needed; enrol several recordings, longer ones, or a shorter --window-s"
        )
    return Calibration(
        signal.distances, [held_out(vectors[:, None, :]).distances for vectors in cut.views], signal.alone
    )


def level_facts(cut: Cut) -> dict[str, Any]:
    """Log RMS of the enrolled windows: mean, standard deviation and deviations of each recording from the others."""
    levels, owner = cut.level, cut.owner
    mean = float(levels.mean())
    held_out = [
        float(abs(level - levels[owner != own].mean())) if (owner != own).any() else float(abs(level - mean))
        for level, own in zip(levels, owner, strict=True)
    ]
    return {"mean": mean, "std": float(levels.std()), "held_out": held_out}
