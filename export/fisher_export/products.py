"""The products of a graph that have constant weights: what quantisation is about. Start at `weight_products`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

__all__ = ["Product", "constants_of", "multiply_adds", "quantised_weight", "rewritten", "weight_products"]

# Products of a block that see all tokens in the last block too, where the others see [CLS] alone.
OF_ALL_TOKENS = ("attn.key.weight", "attn.value.weight")
INT8_MAX = 127

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Product:
    """A MatMul with constant weights: its node, the tensor it reads, and its weights (in, out).

    `every_token` is false where it sees [CLS] alone.
    """

    node: str
    source: str
    weight: str
    shape: tuple[int, int]
    every_token: bool


def weight_products(model: onnx.ModelProto) -> list[Product]:
    """Return the products in the order of the graph; their weights are named blocks.N.attn.value.weight by graph.py."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in shapes]
    blocks = [int(node.input[1].split(".")[1]) for node in nodes if node.input[1].startswith("blocks.")]
    last = f"blocks.{max(blocks, default=-1)}."
    return [
        Product(
            node.name,
            node.input[0],
            node.input[1],
            (shapes[node.input[1]][0], shapes[node.input[1]][1]),
            not node.input[1].startswith(last) or node.input[1].endswith(OF_ALL_TOKENS),
        )
        for node in nodes
    ]


def multiply_adds(products: list[Product], tokens: int) -> dict[str, int]:
    """Multiply-adds of each product, by the name of its weights, for one sub-band of so many tokens."""
    return {each.weight: each.shape[0] * each.shape[1] * (tokens if each.every_token else 1) for each in products}


def constants_of(model: onnx.ModelProto) -> dict[str, Array]:
    """Return the constants of a model by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def quantised_weight(weight: Array) -> tuple[Array, Array]:
    """Round weights (in, out) to int8, symmetric, a scale for each output: (int8 weights, scales (out,))."""
    scales = np.maximum(np.abs(weight).max(axis=0), np.finfo(np.float32).tiny).astype(np.float32) / INT8_MAX
    return np.round(weight / scales).astype(np.int8), scales.astype(np.float32)


def rewritten(model: onnx.ModelProto, nodes: list[onnx.NodeProto], constants: Mapping[str, Array]) -> onnx.ModelProto:
    """Return a model with other nodes and constants, but the same input and output; unused constants are left out."""
    read = {name for node in nodes for name in node.input}
    tensors = [
        numpy_helper.from_array(np.array(value, order="C"), name) for name, value in constants.items() if name in read
    ]
    graph = model.graph
    found = helper.make_model(
        helper.make_graph(nodes, graph.name, graph.input, graph.output, tensors),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
    )
    onnx.checker.check_model(found)
    return found
