"""Dynamic int8: 8-bit weights with a scale a channel, activations quantised at run time.

The default for ONNX Runtime on CPUs: more accurate than static quantisation and as fast. All weights of products are
int8, which costs little accuracy; what costs most of it are the 8 bits of activations. Products named `in_float`
(chosen by search.py) therefore take their activations in float32: their weights are brought back to float32 once,
when the file is loaded. Attention, softmax, LayerNorm, GELU and residual sums stay float32; patches and positions are
stored in half precision.
"""

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper

from fisher_export.products import (
    Array,
    Product,
    constants_of,
    quantised_weight,
    rewritten,
    weight_products,
)

__all__ = ["float_weight", "quantise_dynamic_int8", "store_half"]

# Values from which a constant is worth storing in half precision.
LARGE = 1024


def quantise_dynamic_int8(model: onnx.ModelProto, in_float: Collection[str] = ()) -> onnx.ModelProto:
    """Return the model with the weights of its products in int8, and their activations too but for `in_float`."""
    products = {product.node: product for product in weight_products(model)}
    constants = constants_of(model)
    before, nodes, quantised = [], [], set[str]()
    for node in model.graph.node:
        product = products.get(node.name)
        if product is None:
            nodes.append(node)
        elif product.weight in in_float:
            before += float_weight(product, constants)
            nodes.append(
                helper.make_node("MatMul", [product.source, f"{product.weight}_float"], node.output, node.name)
            )
        else:
            nodes += _in_int8(product, node.output[0], constants, first=product.source not in quantised)
            quantised.add(product.source)
    before += store_half(model, constants)
    return rewritten(model, [*before, *nodes], constants)


def float_weight(product: Product, constants: dict[str, Array]) -> list[onnx.NodeProto]:
    """Store the weights of a product in int8 and return the nodes that bring them back, as WEIGHT_float.

    Runtimes do that once, at load: the nodes read constants only.
    """
    name = product.weight
    constants[f"{name}_quantized"], constants[f"{name}_scale"] = quantised_weight(constants[name])
    return [
        helper.make_node("Cast", [f"{name}_quantized"], [f"{name}_wide"], f"{name}_cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}_wide", f"{name}_scale"], [f"{name}_float"], f"{name}_restore"),
    ]


def store_half(model: onnx.ModelProto, constants: dict[str, Array]) -> list[onnx.NodeProto]:
    """Store what else is large (patches, positions) in half precision; return the nodes that bring it back."""
    of_products = {product.weight for product in weight_products(model)}
    large = [
        name
        for name, value in constants.items()
        if value.dtype == np.float32 and value.size >= LARGE and name in {each.name for each in model.graph.initializer}
    ]
    nodes = []
    for name in large:
        if name not in of_products:
            constants[f"{name}_half"] = constants.pop(name).astype(np.float16)
            nodes.append(helper.make_node("Cast", [f"{name}_half"], [name], f"{name}_cast", to=TensorProto.FLOAT))
    return nodes


def _in_int8(product: Product, output: str, constants: dict[str, Array], *, first: bool) -> list[onnx.NodeProto]:
    """Nodes of one product, in the form that ONNX Runtime fuses to one kernel.

    The input of several products is quantised once, at the `first` of them.
    """
    name, source = product.weight, product.source
    constants[f"{name}_quantized"], constants[f"{name}_scale"] = quantised_weight(constants[name])
    constants[f"{name}_zero_point"] = np.zeros(product.shape[1], np.int8)
    parts = [f"{source}_quantized", f"{source}_scale", f"{source}_zero_point"]
    nodes = [helper.make_node("DynamicQuantizeLinear", [source], parts, f"{source}_quantize")] if first else []
    sums, wide, scale = f"{output}_sums", f"{output}_wide", f"{output}_scale"
    return [
        *nodes,
        helper.make_node(
            "MatMulInteger",
            [parts[0], f"{name}_quantized", parts[2], f"{name}_zero_point"],
            [sums],
            f"{product.node}_quant",
        ),
        helper.make_node("Cast", [sums], [wide], f"{product.node}_cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [parts[1], f"{name}_scale"], [scale], f"{product.node}_scale"),
        helper.make_node("Mul", [wide, scale], [output], f"{product.node}_scaled"),
    ]
