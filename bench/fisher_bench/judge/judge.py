"""Evaluates every representation on every task. Start at `evaluate`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fisher_bench.judge.bands import band_scores
from fisher_bench.judge.corpus import moments, read_dataset
from fisher_bench.judge.noise import noise_of
from fisher_bench.judge.represent import Represent
from fisher_bench.judge.tasks import DATASETS, JOINT, Task, tasks_of
from fisher_bench.protocol import area_under_roc, macro_accuracy
from fisher_edge.decision.fusion import SIGNAL, neighbors, vote
from fisher_edge.decision.weighing import weigh
from fisher_edge.dsp.blocks import FloatArray

__all__ = ["BY_BAND", "Result", "evaluate"]

BY_BAND = ", band score"
"""Added to the name of a representation whose areas are by band."""
AREAS = ("area", "one class")


@dataclass(frozen=True)
class Result:
    """Scores of one representation on one task: per cent in every split."""

    task: str
    kind: str
    representation: str
    fused: bool
    splits: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the splits."""
        return float(np.mean(self.splits))


def evaluate(
    data_dir: Path,
    representations: Mapping[str, Represent],
    views: Mapping[str, Represent],
    *,
    window_s: float = 1.0,
    datasets: tuple[str, ...] = tuple(DATASETS),
    dims: Mapping[str, int] | None = None,
    noise_db: float | None = None,
) -> Iterator[Result]:
    """Yield the results of one dataset after the other.

    Classes are named as in the gateway. With `views` every accuracy is measured twice: for the representation alone,
    and fused with the views by the weights that the enrolled windows give them. Representations that are in `dims`,
    with the length of the vector of a band, give every area once more, by `band_scores`. With `noise_db` recordings
    get noise of other machines (see `noise_of`).
    """
    for dataset in datasets:
        windows = [
            window
            for folder in DATASETS[dataset]
            for window in read_dataset(
                data_dir / folder, window_s, None if noise_db is None else noise_of(data_dir, folder, noise_db)
            )
        ]
        groups = moments(windows) if dataset in JOINT else [[index] for index in range(len(windows))]
        tasks = tasks_of(dataset, [windows[group[0]] for group in groups])
        units = np.asarray([windows[group[0]].unit for group in groups])
        view_vectors = {name: _unit(_joined(view(windows), groups)) for name, view in views.items()}
        for name, represent in representations.items():
            vectors = _unit(_joined(represent(windows), groups))
            for task in tasks:
                yield from _ask(task, name, vectors, view_vectors)
                if dims and name in dims and task.kind in AREAS:
                    by_band = tuple(_areas_by_band(task, vectors, units, dims[name]))
                    yield Result(task.name, task.kind, name + BY_BAND, fused=False, splits=by_band)


def _ask(task: Task, name: str, vectors: FloatArray, views: Mapping[str, FloatArray]) -> Iterator[Result]:
    """Results of one task, alone and fused."""
    if task.kind in AREAS:
        yield Result(task.name, task.kind, name, fused=False, splits=tuple(_areas(task, vectors)))
        return
    yield Result(task.name, task.kind, name, fused=False, splits=tuple(_accuracies(task, vectors, {})))
    if views:
        yield Result(task.name, task.kind, name, fused=True, splits=tuple(_accuracies(task, vectors, views)))


def _accuracies(task: Task, vectors: FloatArray, views: Mapping[str, FloatArray]) -> Iterator[float]:
    for split in task.splits:
        enrolled, asked = split.enrolled, split.asked
        labels = task.labels[enrolled]
        similarity = vectors[asked] @ vectors[enrolled].T
        if views:
            every = {SIGNAL: vectors, **views}
            fusion = weigh(
                {name: part[enrolled] for name, part in every.items()},
                labels.tolist(),
                task.specimens[enrolled].tolist(),
            )
            similarity = fusion.similarity([part[asked] @ part[enrolled].T for part in every.values()])
        names, classes = np.unique(labels, return_inverse=True)
        winners = vote(similarity, classes, neighbors(classes)).winners
        yield macro_accuracy(task.labels[asked], names[winners])


def _areas(task: Task, vectors: FloatArray) -> Iterator[float]:
    """Area under the ROC curve of the distance to the nearest enrolled window, in per cent."""
    for split in task.splits:
        distance = 1 - (vectors[split.asked] @ vectors[split.enrolled].T).max(axis=1)
        same = task.labels[split.asked] == split.label
        yield 100 * area_under_roc(distance[same], distance[~same])


def _areas_by_band(task: Task, vectors: FloatArray, units: npt.NDArray[np.str_], dim: int) -> Iterator[float]:
    """Area under the ROC curve of the score by band, in per cent."""
    for split in task.splits:
        scores = band_scores(vectors[split.enrolled], vectors[split.asked], units[split.enrolled], dim)
        same = task.labels[split.asked] == split.label
        yield 100 * area_under_roc(scores[same], scores[~same])


def _joined(vectors: FloatArray, groups: list[list[int]]) -> FloatArray:
    """Vectors (n, width) of the channels of one moment side by side: (moments, channels * width)."""
    return np.stack([np.concatenate(vectors[group]) for group in groups])


def _unit(vectors: FloatArray) -> FloatArray:
    lengths: npt.NDArray[np.float64] = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
