"""Runs graphs in ONNX Runtime while they are being chosen, one thread, as the runtime does. See `ort_embedder`."""

import numpy as np
import onnx
import onnxruntime

from fisher_edge.dsp.blocks import FloatArray
from fisher_export.verify import Embed

__all__ = ["ort_embedder"]

ERRORS_ONLY = 3
# Frames of all bands in one call: dynamic int8 scales its activations by the largest of a call (see encoder/ort.py).
CALL_FRAMES = 1536


def ort_embedder(model: onnx.ModelProto, *, as_written: bool = False) -> Embed:
    """Return what embeds pieces with a graph.

    `as_written` leaves every node as it is: ONNX Runtime's own rewrites say nothing of how TensorRT will compute, and
    some of them round activations to int8 where the graph does not.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["SkipLayerNormFusion"],
    )

    def one(bands: FloatArray) -> FloatArray:
        step = max(1, CALL_FRAMES // bands.shape[1])
        parts = [np.ascontiguousarray(bands[start : start + step]) for start in range(0, len(bands), step)]
        return np.concatenate([session.run(None, {"bands": part})[0] for part in parts])

    return lambda pieces: [one(bands) for bands in pieces]
