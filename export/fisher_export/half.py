"""A graph in half precision: weights and what is computed are float16, input and output stay float32.

For TensorRT, which takes the types of a strongly typed network from the file; ONNX Runtime on a CPU runs it too, by
way of float32. Start at `in_half`.
"""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from fisher_export.products import Array, constants_of, rewritten

__all__ = ["FLOAT32_PARTS", "in_half"]

InFloat = Callable[[onnx.NodeProto], bool]
NUMBERS = {np.dtype(np.float32): TensorProto.FLOAT}
# Their outputs are no numbers of the encoder's.
KEEP_TYPES = {"Shape", "DequantizeLinear", "QuantizeLinear", "Cast"}


def _norms(node: onnx.NodeProto) -> bool:
    """Tell what loses most in half precision: sums over many numbers, exponentials."""
    return node.op_type in {"LayerNormalization", "Softmax"}


def _norms_and_residuals(node: onnx.NodeProto) -> bool:
    """Tell those and the sums of two tensors, biases excluded: the stream that all blocks add to."""
    return _norms(node) or (node.op_type == "Add" and not node.input[1].endswith(("bias", "positions")))


FLOAT32_PARTS: tuple[InFloat, ...] = (lambda _: False, _norms, _norms_and_residuals)
"""What may stay in float32, from nothing on: the first that passes the gate is taken."""


def in_half(model: onnx.ModelProto, in_float: InFloat = FLOAT32_PARTS[0]) -> onnx.ModelProto:
    """Return the model in float16, but for the nodes that `in_float` names and for quantised products.

    A product between DequantizeLinear nodes stays float32, as do these: opset 17 has no other form.
    """
    return _Half(model, in_float).converted()


class _Half:
    """Goes through the nodes once, knows the type of every tensor, and casts where two types meet."""

    def __init__(self, model: onnx.ModelProto, in_float: InFloat) -> None:
        self._model = model
        self._in_float = in_float
        self._before = constants_of(model)
        self._constants: dict[str, Array] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._name = {True: {"bands": "bands"}, False: dict[str, str]()}
        """By type (float32 or not): what a tensor of the old graph is called in it."""
        self._dequantised: set[str] = set()

    def converted(self) -> onnx.ModelProto:
        """Return the new model."""
        for node in self._model.graph.node:
            self._convert(node)
        output = self._model.graph.output[0].name
        found = [each for each in self._nodes if output in each.output]
        if output not in self._name[True]:
            found[0].output[0] = f"{output}_half"
            self._nodes.append(helper.make_node("Cast", [f"{output}_half"], [output], "cast_out", to=TensorProto.FLOAT))
        return rewritten(self._model, self._nodes, self._constants)

    def _convert(self, node: onnx.NodeProto) -> None:
        """Copy one node, its float inputs in its own type."""
        quantised = node.op_type in {"QuantizeLinear", "DequantizeLinear"} or (
            node.op_type == "MatMul" and set(node.input) <= self._dequantised
        )
        wide = quantised or self._in_float(node)
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        del copied.input[:]
        copied.input.extend(self._input(name, wide=wide) for name in node.input)
        self._nodes.append(copied)
        if node.op_type == "DequantizeLinear":
            self._dequantised.update(node.output)
        if node.op_type not in {"Shape", "QuantizeLinear"} and self._is_float(node):
            self._name[wide].update({name: name for name in node.output})

    def _is_float(self, node: onnx.NodeProto) -> bool:
        """Whether a node computes numbers of the encoder: it reads some."""
        read = [*self._name[True], *self._name[False]]
        return node.op_type == "DequantizeLinear" or any(
            name in read or (name in self._before and self._before[name].dtype == np.float32) for name in node.input
        )

    def _input(self, name: str, *, wide: bool) -> str:
        """Name of a tensor in float32 or float16; integers stay as they are."""
        if name in self._before:
            return self._constant(name, wide=wide)
        if name in self._name[wide] or name not in self._name[not wide]:
            return self._name[wide].get(name, name)
        other = self._name[wide][name] = f"{name}_float" if wide else f"{name}_half"
        kind = TensorProto.FLOAT if wide else TensorProto.FLOAT16
        self._nodes.append(helper.make_node("Cast", [name], [other], f"{other}_cast", to=kind))
        return other

    def _constant(self, name: str, *, wide: bool) -> str:
        """Name of a constant in float32 or float16."""
        value = self._before[name]
        if value.dtype != np.float32 or wide:
            self._constants[name] = value
            return name
        self._constants[f"{name}_half"] = value.astype(np.float16)
        return f"{name}_half"
