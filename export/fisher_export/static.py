"""Static int8 with zero points of zero (S8S8): what TensorRT reads and what ONNX Runtime prefers on ARM.

Only the inputs of products with constant weights are quantised, each with one scale from calibration, and their
weights, with a scale a channel. Everything else stays as it is. Start at `calibrate`.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from fisher_edge.dsp.blocks import FloatArray
from fisher_export.products import INT8_MAX, Array, Product, constants_of, quantised_weight, rewritten, weight_products
from fisher_export.quantise import float_weight, store_half

__all__ = ["calibrate", "quantise_static_int8"]

# Where the range of a tensor may end, as shares of its largest value: cutting a few values off can cost less.
ENDS = np.linspace(0.2, 1.0, 33)
VALUES_OF_A_PIECE = 4096
"""Values of a tensor that are kept of one piece, evenly spread."""


def calibrate(model: onnx.ModelProto, pieces: Sequence[FloatArray]) -> dict[str, float]:
    """Return the step of every tensor that products read, the one with the least squared error on some pieces."""
    names = sorted({product.source for product in weight_products(model)})
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values: dict[str, list[Array]] = {name: [] for name in names}
    for piece in pieces:
        for name, found in zip(names, session.run(names, {"bands": np.ascontiguousarray(piece)}), strict=True):
            flat = found.ravel()
            values[name] += [flat[:: -(-len(flat) // VALUES_OF_A_PIECE)], np.array([np.abs(flat).max()], np.float32)]
    return {name: _step(np.concatenate(found)) for name, found in values.items()}


def quantise_static_int8(
    model: onnx.ModelProto, steps: Mapping[str, float], in_float: Collection[str] = (), *, tensorrt: bool = False
) -> onnx.ModelProto:
    """Return the model with Q/DQ before the products that are not `in_float`; all weights are stored in int8.

    TensorRT allows int8 constants before DequantizeLinear only. ONNX Runtime restores weights once, at load, if that
    is written as Cast and Mul.
    """
    products = {product.node: product for product in weight_products(model)}
    constants = constants_of(model)
    before, nodes, quantised = [], [], set[str]()
    for node in model.graph.node:
        product = products.get(node.name)
        if product is not None and product.weight not in in_float:
            nodes += _quantised(product, node.output[0], steps, constants, first=product.source not in quantised)
            quantised.add(product.source)
        elif product is not None:
            before += _dequantised(product, constants) if tensorrt else float_weight(product, constants)
            nodes.append(
                helper.make_node("MatMul", [product.source, f"{product.weight}_float"], node.output, node.name)
            )
        else:
            nodes.append(node)
    if not tensorrt:  # there the whole rest is in half precision
        before += store_half(model, constants)
    return rewritten(model, [*before, *nodes], constants)


def _quantised(
    product: Product, output: str, steps: Mapping[str, float], constants: dict[str, Array], *, first: bool
) -> list[onnx.NodeProto]:
    """Nodes of one product; the input of several is quantised at the `first` of them."""
    source = product.source
    constants[f"{source}_scale"] = np.array(steps[source], np.float32)
    constants[f"{source}_zero_point"] = np.array(0, np.int8)
    step = [f"{source}_scale", f"{source}_zero_point"]
    nodes = [
        helper.make_node("QuantizeLinear", [source, *step], [f"{source}_int8"], f"{source}_quantize"),
        helper.make_node("DequantizeLinear", [f"{source}_int8", *step], [f"{source}_steps"], f"{source}_dequantize"),
    ]
    return [
        *(nodes if first else []),
        *_dequantised(product, constants),
        helper.make_node("MatMul", [f"{source}_steps", f"{product.weight}_float"], [output], product.node),
    ]


def _dequantised(product: Product, constants: dict[str, Array]) -> list[onnx.NodeProto]:
    """Store the weights of a product in int8 and return the node that reads them, as WEIGHT_float."""
    name = product.weight
    constants[f"{name}_quantized"], constants[f"{name}_scale"] = quantised_weight(constants[name])
    constants[f"{name}_zero_point"] = np.zeros(product.shape[1], np.int8)
    parts = [f"{name}_{part}" for part in ("quantized", "scale", "zero_point")]
    return [helper.make_node("DequantizeLinear", parts, [f"{name}_float"], f"{name}_dequantize", axis=1)]


def _step(values: Array) -> float:
    """Step of 8 bits with the least squared error."""
    values = values.astype(np.float64)
    steps = np.maximum(np.abs(values).max(), 1e-6) * ENDS / INT8_MAX
    errors = [
        np.square(np.clip(np.round(values / step), -INT8_MAX - 1, INT8_MAX) * step - values).mean() for step in steps
    ]
    return float(steps[int(np.argmin(errors))])
