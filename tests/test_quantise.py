"""The products of a bundle in int8: which ones, how they are stored, and that they run as int8."""

import math
from dataclasses import replace
from pathlib import Path

import micro
import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from fisher_bench.speed import roofline
from fisher_export.graph import build_graph
from fisher_export.pipeline import export
from fisher_export.quantise import quantise_dynamic_int8

INT8_PRODUCTS = 6
"""Of micro: five of the first block, the keys of the last."""


def test_int8_quantises_the_weight_products_and_nothing_else() -> None:
    """Products with constant weights are int8, a scale a channel, but for values and what [CLS] alone goes through."""
    before = build_graph(micro.micro_checkpoint())
    products = {node.input[1] for node in before.graph.node if node.op_type == "MatMul" and "blocks" in node.input[1]}
    depth = micro.CONFIG.depth
    wanted = {name for name in products if "value" not in name and f".{depth - 1}." not in name}
    wanted.add(f"blocks.{depth - 1}.attn.key.weight")
    after = quantise_dynamic_int8(build_graph(micro.micro_checkpoint()))
    found = micro.node_kinds(after)
    assert len(products) == micro.PRODUCTS_OF_A_BLOCK * depth
    assert found["MatMulInteger"] == len(wanted) == INT8_PRODUCTS
    assert found["MatMul"] == 2 * depth + len(products) - len(wanted)
    for kind in ("Conv", "LayerNormalization", "Softmax", "Erf"):
        assert found[kind] == micro.node_kinds(before)[kind]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in after.graph.initializer}
    int8 = {name.removesuffix("_quantized") for name, value in weights.items() if name.endswith("_quantized")}
    assert int8 == wanted
    for name in wanted:
        value = weights[f"{name}_quantized"]
        assert value.dtype == np.int8
        assert weights[f"{name}_scale"].shape == (value.shape[1],)
        assert not weights[f"{name}_zero_point"].any()
    assert [opset.version for opset in after.opset_import if opset.domain == ""] == [17]
    assert after.ir_version == 8


def test_int8_quantises_the_product_of_a_model_without_blocks() -> None:
    """A single product, as the roofline measures it, becomes int8."""
    after = quantise_dynamic_int8(roofline.product_model(np.ones((16, 32), np.float32), 8))
    found = micro.node_kinds(after)
    assert found["MatMulInteger"] == 1
    assert "MatMul" not in found


def test_int8_products_all_run_in_int8_kernels(tmp_path: Path) -> None:
    """After ONNX Runtime's fusions every int8 product is one int8 kernel: a silent fallback is much slower."""
    export(micro.save_micro(tmp_path / "micro"), tmp_path / "out", "int8", micro.signals(), force=True)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        tmp_path / "out" / "encoder.onnx",
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["SkipLayerNormFusion"],
    )
    found = micro.node_kinds(onnx.load(tmp_path / "optimised.onnx"))
    fused = found.get("MatMulIntegerToFloat", 0) + found.get("DynamicQuantizeMatMul", 0)
    assert fused == INT8_PRODUCTS
    assert "MatMulInteger" not in found


def test_int8_weights_take_a_byte_each() -> None:
    """Three of four bytes of every quantised weight are saved; scales and nodes take back less than a twentieth."""
    config = replace(micro.CONFIG, embed_dim=128, num_heads=4)
    before = build_graph(micro.micro_checkpoint(config))
    size = len(before.SerializeToString())
    after = quantise_dynamic_int8(before)
    quantised = sum(math.prod(tensor.dims) for tensor in after.graph.initializer if tensor.name.endswith("_quantized"))
    assert size - len(after.SerializeToString()) > 0.95 * 3 * quantised > 0
