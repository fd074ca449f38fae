"""What all encoders have in common: checks of their input, calls of the right size, the self-test."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.grid import MIN_FRAMES
from fisher_edge.encoder.bundle import Bundle, first_line
from fisher_edge.encoder.forms import PLAIN, Form, forms_of
from fisher_edge.errors import BadArtifactError, BadInputError

__all__ = ["CALL_TOKENS", "PATCH", "BaseEncoder", "tokens_of"]

# Frames and bins of a patch: each becomes one token.
PATCH = 16
# Tokens of a call on a CPU: the activations of more do not fit its cache, and fewer cost more calls.
CALL_TOKENS = 288
# The same in frames of all bands, by which dynamic int8 models are cut: the cut is part of their arithmetic.
CALL_FRAMES = 1536


class BaseEncoder(ABC):
    """An encoder of one form of a bundle: see `fisher_edge.encoder.protocol.Encoder`.

    `kind` is the name of its provider in a configuration. Subclasses load the model, then call `check_self_test`.
    """

    kind = ""
    provider = ""
    min_frames = MIN_FRAMES
    max_frames: int | None = None
    """Frames of the longest piece that can be embedded; None: as many as the model has positions for."""
    max_rows: int | None = None
    """Most sub-bands of one call; None: any number."""

    def __init__(self, bundle: Bundle, form: str = PLAIN, *, call_tokens: int = CALL_TOKENS) -> None:
        self.bundle = bundle
        self.form: Form = forms_of(bundle)[form]
        self.call_tokens = call_tokens
        self.shares_calls = _shares_calls(bundle, form)
        """Whether one call may hold several pieces without a change of their embeddings."""

    @property
    def name(self) -> str:
        """Name of the model with the form it runs in, as baselines record it."""
        return self.form.name

    @property
    def sha256(self) -> str:
        """Hash of the model with the form it runs in: embeddings of different hashes must not be compared."""
        return self.form.sha256

    def forget_shapes(self) -> None:  # noqa: B027 -- most keep nothing
        """Forget what was prepared for shapes that have come so far."""

    @abstractmethod
    def _run(self, bands: FloatArray) -> FloatArray:
        """Run the model on contiguous sub-bands (bands, frames, band_width): (bands, dim)."""

    def embed(self, pieces: Sequence[FloatArray]) -> list[FloatArray]:
        """Embed the sub-bands (bands, frames, band_width) of every piece: (bands, dim) each, in order.

        Where pieces may share calls, those of the same frames do, `call_tokens` in each. Raises BadInputError for a
        piece that does not fit the model.
        """
        for bands in pieces:
            self._check(bands)
        if not self.shares_calls:
            return [self._embed(bands) for bands in pieces]
        places: dict[int, list[int]] = {}
        for place, bands in enumerate(pieces):
            places.setdefault(bands.shape[1], []).append(place)
        found: dict[int, FloatArray] = {}
        for alike in places.values():
            group = [pieces[place] for place in alike]
            rows = self._embed(group[0] if len(group) == 1 else np.concatenate(group))
            ends = np.cumsum([len(bands) for bands in group])[:-1]
            found |= zip(alike, np.split(rows, ends), strict=True)
        return [found[place] for place in range(len(pieces))]

    def _check(self, bands: FloatArray) -> None:
        """Refuse a piece that does not fit the model."""
        if bands.ndim != 3 or bands.shape[2] != self.bundle.front_end.band_width:
            raise BadInputError(
                f"sub-bands of shape {bands.shape} do not fit an encoder of {self.bundle.front_end.band_width} bins a "
                "band; cut them with the front-end of the bundle"
            )
        if not len(bands) or bands.shape[1] < self.min_frames:
            raise BadInputError(
                f"sub-bands of shape {bands.shape} hold no band or fewer than the {self.min_frames} frames of a patch; "
                "use a longer window"
            )
        positions = self.bundle.front_end.max_frames
        longest = positions if self.max_frames is None else min(positions, self.max_frames)
        if bands.shape[1] > longest:
            raise BadInputError(
                f"sub-bands of shape {bands.shape} hold more than the {longest} frames this encoder was built for; use "
                "a shorter window"
            )

    def _embed(self, bands: FloatArray) -> FloatArray:
        """Embed sub-bands, as many of them in a call as `call_tokens` allows."""
        step = self._rows_of_a_call(bands)
        parts = [np.ascontiguousarray(bands[start : start + step]) for start in range(0, len(bands), step)]
        return np.concatenate([self._run(part) for part in parts])

    def _rows_of_a_call(self, bands: FloatArray) -> int:
        """Return how many of these sub-bands go into one call."""
        if not self.shares_calls:
            return max(1, CALL_FRAMES // int(bands.shape[1]))
        rows = max(1, self.call_tokens // max(1, tokens_of(int(bands.shape[1]), int(bands.shape[2]))))
        return rows if self.max_rows is None else min(rows, self.max_rows)

    def self_test_cosine(self) -> float:
        """Return the smallest cosine to the embeddings of the bundle's self-test, their mean removed from both."""
        test = self.bundle.selftest
        try:
            (actual,) = self.embed([test.bands])
        except Exception as error:  # the errors of the libraries share no base but this
            raise BadArtifactError(f"{self.bundle.path}: the model does not run: {first_line(error)}") from error
        if actual.shape != test.embeddings.shape:
            raise BadArtifactError(
                f"{self.bundle.path}: the model gives shape {actual.shape}, its self-test {test.embeddings.shape}; "
                "export the bundle again"
            )
        centre = test.embeddings.mean(axis=0)
        return float(_cosines(actual - centre, test.embeddings - centre).min())

    def check_self_test(self) -> None:
        """Refuse a model that does not reproduce its own embeddings on this machine."""
        worst, least = self.self_test_cosine(), self.bundle.selftest.min_cosine
        if not worst >= least:
            raise BadArtifactError(
                f"{self.bundle.path}: self-test cosine {worst:.4f} of {self.name} is below {least:.4f} on this "
                f"machine with {self.provider}; its scores would be wrong: use the fp32 bundle or export again"
            )


def _shares_calls(bundle: Bundle, form: str) -> bool:
    """Whether what a form computes for a piece is the same beside others.

    Dynamic int8 models scale their activations by the largest of a call: a piece would depend on its neighbors. The
    parts in which such a piece is embedded matter too, so that they do not follow `call_tokens`. A model that computes
    slow sensors in float decides that for a whole call.
    """
    facts = bundle.manifest.get("variants", {}).get(form, bundle.manifest)
    dynamic = form == PLAIN and bundle.precision == "int8"
    return not dynamic and not facts.get("parity", {}).get("float_bins")


def tokens_of(frames: int, band_width: int) -> int:
    """Count the patches of one sub-band."""
    return (frames // PATCH) * (band_width // PATCH)


def _cosines(left: FloatArray, right: FloatArray) -> FloatArray:
    """Cosine of each row pair."""
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.asarray(np.sum(left * right, axis=1) / np.maximum(norms, 1e-12))
