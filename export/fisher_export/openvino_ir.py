"""The encoder in int8 for OpenVINO: quantised by NNCF, in OpenVINO's own format. Start at `quantise_for_openvino`.

NNCF needs `openvino` and `nncf`, which the extra `export` brings where Python is new enough for them.
"""

import contextlib
import importlib.util
import io
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.encoder.openvino import keeping_signal_stack
from fisher_export.verify import Embed

if TYPE_CHECKING:
    import openvino

__all__ = ["FILES", "available", "embedder", "load_nncf", "quantise_for_openvino", "save"]

FILES = ("openvino-int8.xml", "openvino-int8.bin")
# One thread, and float32 wherever the model says nothing else: as the runtime opens it.
PROPERTIES = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
CALL_FRAMES = 1536


def available() -> bool:
    """Whether OpenVINO and NNCF are installed."""
    return all(importlib.util.find_spec(package) is not None for package in ("openvino", "nncf"))


def load_nncf() -> Any:
    """Import NNCF, which is slow, without the usage data that it would send to its makers."""
    os.environ["NNCF_CI"] = "1"  # read when it is imported: how NNCF is told to send nothing
    import nncf  # noqa: PLC0415

    return nncf


def quantise_for_openvino(model: onnx.ModelProto, pieces: Sequence[FloatArray]) -> "openvino.Model":
    """Return the model with 8-bit weights and activations, calibrated on some pieces.

    NNCF itself moves what activations lose into the weights (SmoothQuant), so that no product has to stay in float.
    """
    nncf = load_nncf()
    import openvino  # noqa: PLC0415
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet  # noqa: PLC0415

    logging.getLogger("nncf").setLevel(logging.ERROR)
    with (
        keeping_signal_stack(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        read = openvino.Core().read_model(model.SerializeToString(), b"")
        return nncf.quantize(
            read,
            nncf.Dataset([np.ascontiguousarray(piece) for piece in pieces]),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(pieces),
            # The usual mean of ranges over pieces cuts off what only a few recordings reach.
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
            ),
        )


def embedder(xml: bytes, weights: bytes) -> Embed:
    """Return what embeds pieces with the two files of a model, as the runtime does."""
    import openvino  # noqa: PLC0415

    with keeping_signal_stack():
        core = openvino.Core()
        request = core.compile_model(core.read_model(xml, weights), "CPU", PROPERTIES).create_infer_request()

    def one(bands: FloatArray) -> FloatArray:
        step = max(1, CALL_FRAMES // bands.shape[1])
        parts = [np.ascontiguousarray(bands[start : start + step]) for start in range(0, len(bands), step)]
        return np.concatenate([np.array(request.infer([part])[0], np.float32) for part in parts])

    return lambda pieces: [one(bands) for bands in pieces]


def save(model: "openvino.Model", folder: Path) -> None:
    """Write the model as two files, what is not int8 in half precision.

    The names of nodes are numbers, so that the same model makes the same files, and spaces between tags are left out.
    """
    import openvino  # noqa: PLC0415

    for index, node in enumerate(model.get_ordered_ops()):
        if node.get_type_name() not in {"Parameter", "Result"}:
            node.set_friendly_name(f"n{index}")
        for output in node.outputs():
            if output.get_names() and not output.get_names() & {"bands", "embedding"}:
                output.set_names(set())
    openvino.save_model(model, folder / FILES[0], compress_to_fp16=True)
    lines = (folder / FILES[0]).read_text(encoding="utf-8").splitlines()
    (folder / FILES[0]).write_text("\n".join(line.strip() for line in lines), encoding="utf-8")
