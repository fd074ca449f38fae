"""What every encoder looks like to the benchmark. Start at `Adapter`."""

import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.errors import BadInputError

__all__ = ["Adapter", "digest_of", "file_digest", "package_folder"]

FORMAT = 1
"""Part of every digest: raise it when an adapter's own arithmetic changes, and cached embeddings are made again."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """An encoder that is ready to run; it computes on as many threads as its library is set to."""

    name: str
    """For tables; no key: two adapters may share it."""
    digest: str
    """SHA-256 over the weights and every setting that changes embeddings: the key of a cache."""
    parameters: int
    """Trained numbers of the network; 0 for spectra."""
    compute: Callable[[FloatArray, int], FloatArray] = field(repr=False)

    def embed(self, wave: FloatArray, rate_hz: int) -> FloatArray:
        """Embed one window of one channel (samples,), its mean removed: (dim,), float32.

        Raises BadInputError when it is not one-dimensional, is empty or holds NaN or Inf.
        """
        if wave.ndim != 1 or not len(wave) or rate_hz < 1:
            raise BadInputError(f"window of shape {wave.shape} at {rate_hz} Hz; give samples of one channel")
        if not np.isfinite(wave).all():
            raise BadInputError(f"window of {len(wave)} samples holds NaN or Inf; leave it out")
        samples = np.require(wave, np.float32, ["C", "W"])  # PyTorch warns of arrays that it could not write to
        return np.ascontiguousarray(self.compute(samples, rate_hz).ravel(), np.float32)


def digest_of(weights: str, settings: Mapping[str, Any]) -> str:
    """SHA-256 of the hash of some weights and of JSON settings."""
    text = json.dumps({"format": FORMAT, "weights": weights, **settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(*paths: Path) -> str:
    """SHA-256 of the content of files."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def package_folder(package: str) -> Path:
    """Folder of an installed package, which is not imported."""
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent
