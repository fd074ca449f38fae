"""Half precision and static int8: the types that runtimes read, and how close they stay."""

from collections.abc import Callable

import micro
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from fisher_edge.encoder.onnx_scan import has_external_data
from fisher_export.graph import build_graph
from fisher_export.half import FLOAT32_PARTS, in_half
from fisher_export.ort_runs import ort_embedder
from fisher_export.products import weight_products
from fisher_export.static import calibrate, quantise_static_int8
from fisher_export.verify import cut

GRAPH = build_graph(micro.micro_checkpoint())
PIECES = cut(micro.signals(), micro.FRONT_END).bands[:6]
STEPS = calibrate(GRAPH, PIECES)
KEPT = ("blocks.0.attn.value.weight", "blocks.1.mlp.fc1.weight")


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """Type of every tensor of a model."""
    shown = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    values = [*shown.graph.value_info, *shown.graph.input, *shown.graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in shown.graph.initializer}


def centred_cosine(left: list[np.ndarray], right: list[np.ndarray]) -> float:
    """Smallest cosine of rows, their mean removed."""
    a, b = np.concatenate(left), np.concatenate(right)
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


@pytest.mark.parametrize(
    ("part", "wide"), [(0, ()), (1, ("LayerNormalization", "Softmax")), (2, ("LayerNormalization", "Softmax"))]
)
def test_everything_is_half_but_what_stays_float32(part: int, wide: tuple[str, ...]) -> None:
    """Types agree at every node, input and output stay float32, LayerNorms are whole, weights are half."""
    model = in_half(GRAPH, FLOAT32_PARTS[part])
    onnx.checker.check_model(model, full_check=True)
    types = types_of(model)
    assert (types["bands"], types["embedding"]) == (TensorProto.FLOAT, TensorProto.FLOAT)
    for node in model.graph.node:
        if node.op_type in {"MatMul", "Conv", "Erf", "LayerNormalization", "Softmax"}:
            expected = TensorProto.FLOAT if node.op_type in wide else TensorProto.FLOAT16
            assert types[node.input[0]] == expected, node.name
    found, before = micro.node_kinds(model), micro.node_kinds(GRAPH)
    for kind in ("LayerNormalization", "MatMul", "Softmax", "Add"):
        assert found[kind] == before[kind]
    weights = [tensor for tensor in model.graph.initializer if ".weight" in tensor.name and "norm" not in tensor.name]
    assert {tensor.data_type for tensor in weights} == {TensorProto.FLOAT16}


@pytest.mark.parametrize("part", range(3))
def test_half_runs_on_a_cpu_and_is_close(part: int) -> None:
    """ONNX Runtime runs the graph as it is and as it rewrites it."""
    before = ort_embedder(GRAPH)(PIECES)
    for as_written in (False, True):
        after = ort_embedder(in_half(GRAPH, FLOAT32_PARTS[part]), as_written=as_written)(PIECES)
        assert after[0].dtype == np.float32
        assert centred_cosine(before, after) > 0.9999


def test_static_int8_is_what_tensorrt_and_arm_read() -> None:
    """Q/DQ at the inputs of linears only, weights with a scale a channel, every zero point 0, opset 17."""
    model = quantise_static_int8(GRAPH, STEPS, KEPT)
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert not has_external_data(model.SerializeToString())
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    products = weight_products(GRAPH)
    made = {output: node for node in model.graph.node for output in node.output}
    read = {name: [node for node in model.graph.node if name in node.input] for name in made}
    quantised = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert {node.input[0] for node in quantised} == {p.source for p in products if p.weight not in KEPT}
    for node in model.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            zero = constants[node.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()
        if node.op_type == "DequantizeLinear":
            assert {user.op_type for user in read[node.output[0]]} == {"MatMul"}
    assert "MatMulInteger" not in micro.node_kinds(model)


@pytest.mark.parametrize("part", range(3))
def test_tensorrt_int8_computes_its_rest_in_half(part: int) -> None:
    """Linears between Q/DQ are typed as opset 17 asks, all else is half, weights of what is not quantised are int8."""
    model = in_half(quantise_static_int8(GRAPH, STEPS, KEPT, tensorrt=True), FLOAT32_PARTS[part])
    onnx.checker.check_model(model, full_check=True)
    types = types_of(model)
    made = {output: node.op_type for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.op_type == "MatMul":
            between = {made[name] for name in node.input} == {"DequantizeLinear"}
            assert types[node.input[0]] == (TensorProto.FLOAT if between else TensorProto.FLOAT16)
    int8 = [tensor for tensor in model.graph.initializer if tensor.name.endswith("_quantized")]
    assert len(int8) == len(weight_products(GRAPH))
    for tensor in int8:
        (user,) = [node for node in model.graph.node if tensor.name in node.input]
        assert user.op_type == "DequantizeLinear"
    assert {node.domain for node in model.graph.node} == {""}


@pytest.mark.parametrize(
    "build",
    [
        lambda: quantise_static_int8(GRAPH, STEPS),
        lambda: quantise_static_int8(GRAPH, STEPS, KEPT),
        lambda: in_half(quantise_static_int8(GRAPH, STEPS, KEPT, tensorrt=True)),
    ],
)
def test_static_int8_is_close(build: Callable[[], onnx.ModelProto]) -> None:
    """Embeddings keep their direction about the mean."""
    before = ort_embedder(GRAPH)(PIECES)
    assert centred_cosine(before, ort_embedder(build(), as_written=True)(PIECES)) > 0.98


def test_step_leaves_out_a_single_outlier() -> None:
    """A tensor's range is the one with the least error, not its largest value."""
    largest = {name: float(np.abs(values).max()) for name, values in shown(GRAPH).items()}
    for name, step in STEPS.items():
        assert 0.19 * largest[name] / 127 < step <= 1.001 * largest[name] / 127
    assert any(step < 0.95 * largest[name] / 127 for name, step in STEPS.items())


def shown(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Every value of the tensors that products read, over the pieces."""
    import onnxruntime  # noqa: PLC0415 -- for this helper alone

    names = sorted({product.source for product in weight_products(model)})
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    copied.graph.output.extend(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(copied.SerializeToString(), providers=["CPUExecutionProvider"])
    found = [session.run(names, {"bands": piece}) for piece in PIECES]
    return {name: np.concatenate([each[index].ravel() for each in found]) for index, name in enumerate(names)}
