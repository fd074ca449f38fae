"""The encoder in ONNX Runtime, on one thread of the CPU."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.grid import MIN_FRAMES
from fisher_edge.encoder.bundle import Bundle, first_line
from fisher_edge.errors import BadArtifactError, BadInputError

__all__ = ["OrtEncoder"]

ERRORS_ONLY = 3
# Frames of all bands in one call: the activations of more do not fit the cache, and fewer cost more calls.
CALL_FRAMES = 1536


class OrtEncoder:
    """A loaded encoder: see `fisher_edge.encoder.protocol.Encoder`.

    Loading runs the bundle's self-test: a model that does not reproduce its embeddings is refused.
    """

    provider = "onnxruntime CPUExecutionProvider"
    min_frames = MIN_FRAMES

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._session = _session(bundle)
        self._self_test()

    def embed(self, pieces: Sequence[FloatArray]) -> list[FloatArray]:
        """Embed the sub-bands (bands, frames, band_width) of every piece: (bands, dim) each.

        A call never holds more than one piece: int8 models scale their activations by the largest of a call, so that
        a piece would depend on its neighbours.
        """
        return [self._embed(bands) for bands in pieces]

    def _embed(self, bands: FloatArray) -> FloatArray:
        """Embed one piece, as many of its bands in a call as fit the cache."""
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
        longest = self.bundle.front_end.max_frames
        if bands.shape[1] > longest:
            raise BadInputError(
                f"sub-bands of shape {bands.shape} hold more than the {longest} frames this model has positions for; "
                "use a shorter window"
            )
        step = max(1, CALL_FRAMES // bands.shape[1])
        parts = [np.ascontiguousarray(bands[start : start + step]) for start in range(0, len(bands), step)]
        return np.concatenate([self._session.run(None, {"bands": part})[0] for part in parts])

    def self_test_cosine(self) -> float:
        """Return the smallest cosine to the embeddings of the bundle's self-test, their mean removed from both."""
        test = self.bundle.selftest
        try:
            (actual,) = self.embed([test.bands])
        except Exception as error:  # ONNX Runtime's errors share no base but this
            raise BadArtifactError(f"{self.bundle.path}: the model does not run: {first_line(error)}") from error
        if actual.shape != test.embeddings.shape:
            raise BadArtifactError(
                f"{self.bundle.path}: the model gives shape {actual.shape}, its self-test {test.embeddings.shape}; "
                "export the bundle again"
            )
        centre = test.embeddings.mean(axis=0)
        return float(_cosines(actual - centre, test.embeddings - centre).min())

    def _self_test(self) -> None:
        """Refuse a model that does not reproduce its own embeddings on this machine."""
        worst, least = self.self_test_cosine(), self.bundle.selftest.min_cosine
        if not worst >= least:
            raise BadArtifactError(
                f"{self.bundle.path}: self-test cosine {worst:.4f} is below {least:.4f} on this machine; its scores "
                "would be wrong: use the fp32 bundle or export again"
            )


def _session(bundle: Bundle) -> Any:
    """Open the model: one thread, no spinning, no SkipLayerNorm fusion (it costs int8 models a fifth)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            bundle.model,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["SkipLayerNormFusion"],
        )
    except Exception as error:  # ONNX Runtime's errors share no base but this
        raise BadArtifactError(
            f"{bundle.path}: ONNX Runtime {onnxruntime.__version__} cannot load the model: {first_line(error)}; "
            "export it again"
        ) from error


def _cosines(left: FloatArray, right: FloatArray) -> FloatArray:
    """Cosine of each row pair."""
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.asarray(np.sum(left * right, axis=1) / np.maximum(norms, 1e-12))
