"""Dynamic int8: 8-bit weights with a scale a channel, activations quantised at run time.

The default for ONNX Runtime on CPUs: more accurate than static quantisation and as fast. Only products with
constant weights are quantised; attention, softmax, LayerNorm, GELU, residual sums and patches stay float32, and so
do the products whose rounding costs the most accuracy for the time it saves: those of the last block on [CLS] alone,
which are nearly free, and the values of attention.
"""

import logging
import tempfile
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from fisher_export.graph import IR_VERSION

__all__ = ["quantise_dynamic_int8"]

OF_CLS = ("attn.query.weight", "attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight")
"""Weights that only see [CLS] in the last block."""
VALUES = "attn.value.weight"


def quantise_dynamic_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with its weight products in int8 (weights symmetric, a scale per output channel)."""
    with tempfile.TemporaryDirectory() as folder, _quiet_root_logger():
        target = Path(folder) / "int8.onnx"
        quantize_dynamic(
            model,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_kept_in_float(model),
            extra_options={"MatMulConstBOnly": True},
        )
        quantised = onnx.load(target)
    quantised.ir_version = IR_VERSION
    return quantised


def _kept_in_float(model: onnx.ModelProto) -> list[str]:
    """Names of the products that stay float32; none in a model without blocks.

    Weights are named blocks.N.attn.value.weight by graph.py.
    """
    weights = {node.name: node.input[1] for node in model.graph.node if node.op_type == "MatMul"}
    blocks = [name for name in weights.values() if name.startswith("blocks.")]
    last = f"blocks.{max((int(name.split('.')[1]) for name in blocks), default=-1)}."
    return [
        node
        for node, name in weights.items()
        if name.endswith(VALUES) or (name.startswith(last) and name.endswith(OF_CLS))
    ]


class _quiet_root_logger:  # noqa: N801 -- used like a function
    """Silences the quantiser's advice on the root logger for a while."""

    def __enter__(self) -> None:
        self._level = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        logging.getLogger().setLevel(self._level)
