"""The student encoder as an ONNX graph, written node by node from the weights of a checkpoint.

Written rather than traced, because every choice counts for the runtimes that read it: opset 17 (the newest
that ONNX Runtime 1.23 and TensorRT 10 share with LayerNormalization as one node), weights as right-hand
constants so that they quantise, any number of bands, any number of frames up to the front-end's longest window,
and a last block that computes the [CLS] token alone, which is all that is read. Start at `build_graph`.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from fisher_train.checkpoint import Checkpoint
from fisher_train.encoder import EncoderConfig

__all__ = ["OPSET", "build_graph"]

OPSET = 17
IR_VERSION = 8
"""The format version of that opset: old runtimes refuse newer ones."""

Array = npt.NDArray[Any]


def build_graph(checkpoint: Checkpoint) -> onnx.ModelProto:
    """Return the encoder as a model: `bands` (bands, frames, band_width) -> `embedding` (bands, dim)."""
    config = checkpoint.config
    weights = {name: tensor.detach().float().numpy() for name, tensor in checkpoint.state.items()}
    graph = _Graph()
    tokens = _embed_patches(graph, config, weights, math.prod(config.patch_grid(checkpoint.front_end.max_frames)))
    for index in range(config.depth):
        tokens = _block(graph, config, weights, f"blocks.{index}", tokens, cls_only=index == config.depth - 1)
    graph.node("Squeeze", [tokens, graph.constant(np.array([1]))], output="embedding")
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "fisher_encoder",
            [helper.make_tensor_value_info("bands", TensorProto.FLOAT, ["bands", "frames", config.band_width])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["bands", config.embed_dim])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="fisher-edge",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """Collects nodes and constants; every method returns the name of what it adds."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, value: Array, name: str = "") -> str:
        """Add a constant tensor."""
        name = name or f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, kind: str, inputs: list[str], *, output: str = "", **attributes: Any) -> str:
        """Add a node with one output."""
        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{kind}_{len(self.nodes)}", **attributes))
        return output

    def slice(self, data: str, start: int, end: int, axis: int) -> str:
        """Add data[start:end] along one axis."""
        bounds = [self.constant(np.array([value])) for value in (start, end, axis)]
        return self.node("Slice", [data, *bounds])

    def linear(self, data: str, weight: Array, bias: Array, name: str) -> str:
        """Add data @ weight.T + bias; `weight` has shape (out, in) as in a checkpoint."""
        product = self.node("MatMul", [data, self.constant(weight.T, f"{name}.weight")])
        return self.node("Add", [product, self.constant(bias, f"{name}.bias")])

    def layer_norm(self, data: str, weights: dict[str, Array], name: str, epsilon: float) -> str:
        """Add a LayerNorm over the last axis."""
        scale, bias = (self.constant(weights[f"{name}.{part}"], f"{name}.{part}") for part in ("weight", "bias"))
        return self.node("LayerNormalization", [data, scale, bias], axis=-1, epsilon=epsilon)

    def gelu(self, data: str) -> str:
        """Add the exact GELU: x / 2 * (1 + erf(x / sqrt 2))."""
        root, one, half = (self.constant(np.array(value, np.float32)) for value in (math.sqrt(2), 1, 0.5))
        erf = self.node("Erf", [self.node("Div", [data, root])])
        return self.node("Mul", [self.node("Mul", [data, self.node("Add", [erf, one])]), half])


def _embed_patches(graph: _Graph, config: EncoderConfig, weights: dict[str, Array], longest: int) -> str:
    """Add patches, their positions in token order, [CLS] in front, and the first LayerNorm.

    Positions past the `longest` row of patches are left out: no window has them.
    """
    prefix = "modality_encoders.IMAGE"
    size = config.patch_size
    image = graph.node("Unsqueeze", ["bands", graph.constant(np.array([1]))])
    kernel, bias = (graph.constant(weights[f"{prefix}.local_encoder.proj.{part}"], part) for part in ("weight", "bias"))
    patches = graph.node("Conv", [image, kernel, bias], kernel_shape=[size, size], strides=[size, size])
    order = [0, 2, 3, 1] if config.flatten == "freq" else [0, 3, 2, 1]
    grid = graph.node("Transpose", [patches], perm=order)
    tokens = graph.node("Reshape", [grid, graph.constant(np.array([0, -1, config.embed_dim]))])

    shape = graph.node("Shape", [tokens])
    table = graph.constant(weights[f"{prefix}.fixed_positional_encoder.positions"][:, :longest], "positions")
    bounds = [graph.constant(np.array([0])), graph.slice(shape, 1, 2, 0), graph.constant(np.array([1]))]
    placed = graph.node("Add", [tokens, graph.node("Slice", [table, *bounds])])

    one = graph.constant(np.array([1]))
    batch = graph.node("Concat", [graph.slice(shape, 0, 1, 0), one, graph.slice(shape, 2, 3, 0)], axis=0)
    extra = graph.constant(weights[f"{prefix}.extra_tokens"], "cls")
    with_cls = graph.node("Concat", [graph.node("Expand", [extra, batch]), placed], axis=1)
    return graph.layer_norm(with_cls, weights, f"{prefix}.context_encoder.norm", config.norm_eps)


def _block(
    graph: _Graph, config: EncoderConfig, weights: dict[str, Array], name: str, tokens: str, *, cls_only: bool
) -> str:
    """Add one post-norm block; with `cls_only` its queries and its MLP see token 0 alone."""
    queries = graph.slice(tokens, 0, 1, 1) if cls_only else tokens
    attended = _attention(graph, config, weights, f"{name}.attn", queries, tokens)
    residual = graph.node("Add", [queries, attended])
    normed = graph.layer_norm(residual, weights, f"{name}.norm1", config.norm_eps)
    hidden = graph.linear(normed, weights[f"{name}.mlp.fc1.weight"], weights[f"{name}.mlp.fc1.bias"], f"{name}.mlp.fc1")
    mlp = graph.linear(
        graph.gelu(hidden), weights[f"{name}.mlp.fc2.weight"], weights[f"{name}.mlp.fc2.bias"], f"{name}.mlp.fc2"
    )
    return graph.layer_norm(graph.node("Add", [normed, mlp]), weights, f"{name}.norm2", config.norm_eps)


def _attention(
    graph: _Graph, config: EncoderConfig, weights: dict[str, Array], name: str, queries: str, tokens: str
) -> str:
    """Add multi-head attention of `queries` over `tokens`; the 1/sqrt(d) scale is folded into the query weights."""
    dim, heads = config.embed_dim, config.num_heads
    scale = np.float32((dim // heads) ** -0.5)
    parts = []
    for index, (part, source) in enumerate((("query", queries), ("key", tokens), ("value", tokens))):
        rows = slice(index * dim, (index + 1) * dim)
        factor = scale if part == "query" else np.float32(1)
        projected = graph.linear(
            source, weights[f"{name}.qkv.weight"][rows] * factor, weights[f"{name}.qkv.bias"][rows] * factor,
            f"{name}.{part}",
        )  # fmt: skip
        split = graph.node("Reshape", [projected, graph.constant(np.array([0, 0, heads, dim // heads]))])
        parts.append(graph.node("Transpose", [split], perm=[0, 2, 3, 1] if part == "key" else [0, 2, 1, 3]))
    query, key, value = parts
    weights_of_tokens = graph.node("Softmax", [graph.node("MatMul", [query, key])], axis=-1)
    mixed = graph.node("Transpose", [graph.node("MatMul", [weights_of_tokens, value])], perm=[0, 2, 1, 3])
    merged = graph.node("Reshape", [mixed, graph.constant(np.array([0, 0, dim]))])
    return graph.linear(merged, weights[f"{name}.proj.weight"], weights[f"{name}.proj.bias"], f"{name}.proj")
