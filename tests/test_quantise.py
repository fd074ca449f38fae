"""The products of a bundle in dynamic int8: which ones, how they are stored, and that they run as int8."""

from pathlib import Path

import micro
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from fisher_bench.speed import roofline
from fisher_edge.dsp.frontend import FrontEnd
from fisher_export.gate import Group
from fisher_export.graph import build_graph
from fisher_export.half import in_half
from fisher_export.ort_runs import ort_embedder
from fisher_export.products import weight_products
from fisher_export.quantise import quantise_dynamic_int8
from fisher_export.slow import bins_of_slow, float_for_slow
from fisher_export.static import quantise_static_int8
from fisher_train.checkpoint import Checkpoint
from fisher_train.encoder import PRESETS, Encoder

PRODUCTS = micro.PRODUCTS_OF_A_BLOCK * micro.CONFIG.depth
KEPT = ("blocks.0.attn.value.weight", "blocks.1.mlp.fc1.weight")


def test_int8_quantises_the_weight_products_and_nothing_else() -> None:
    """Products with constant weights are int8, a scale a channel, but for the activations of those kept in float."""
    before = build_graph(micro.micro_checkpoint())
    products = {product.weight for product in weight_products(before)}
    after = quantise_dynamic_int8(before, KEPT)
    found = micro.node_kinds(after)
    assert len(products) == PRODUCTS
    assert found["MatMulInteger"] == PRODUCTS - len(KEPT)
    assert found["MatMul"] == 2 * micro.CONFIG.depth + len(KEPT)
    for kind in ("Conv", "LayerNormalization", "Softmax", "Erf"):
        assert found[kind] == micro.node_kinds(before)[kind]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in after.graph.initializer}
    for name in products:
        value = weights[f"{name}_quantized"]
        assert value.dtype == np.int8
        assert np.abs(value.astype(int)).max() == 127
        assert weights[f"{name}_scale"].shape == (value.shape[1],)
        assert not weights.get(f"{name}_zero_point", np.zeros(1)).any()
    assert [(opset.domain, opset.version) for opset in after.opset_import] == [("", 17)]
    assert after.ir_version == 8


def test_what_is_kept_in_float_differs_by_its_weights_alone() -> None:
    """With all products in float only the rounding of the weights is left, which is small and the same everywhere."""
    model = build_graph(micro.micro_checkpoint())
    bands = np.random.default_rng(0).standard_normal((3, 64, 50)).astype(np.float32)
    products = weight_products(model)
    (expected,), (found,), (rounded,) = (
        ort_embedder(each)([bands])
        for each in (
            model,
            quantise_dynamic_int8(model, {product.weight for product in products}),
            quantise_dynamic_int8(model),
        )
    )
    assert 0 < np.abs(found - expected).max() < np.abs(rounded - expected).max()
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_int8_quantises_the_product_of_a_model_without_blocks() -> None:
    """A single product, as the roofline measures it, becomes int8."""
    after = quantise_dynamic_int8(roofline.product_model(np.ones((16, 32), np.float32), 8))
    found = micro.node_kinds(after)
    assert found["MatMulInteger"] == 1
    assert "MatMul" not in found


def test_int8_products_all_run_in_int8_kernels(tmp_path: Path) -> None:
    """After ONNX Runtime's fusions every int8 product is one int8 kernel, and no weights are restored in a call."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        quantise_dynamic_int8(build_graph(micro.micro_checkpoint()), KEPT).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["SkipLayerNormFusion"],
    )
    found = micro.node_kinds(onnx.load(tmp_path / "optimised.onnx"))
    fused = found.get("MatMulIntegerToFloat", 0) + found.get("DynamicQuantizeMatMul", 0)
    assert fused == PRODUCTS - len(KEPT)
    assert not found.keys() & {"MatMulInteger", "Cast"}


@pytest.mark.parametrize("preset", ["nano", "tiny", "small"])
def test_int8_files_are_less_than_a_third(preset: str) -> None:
    """A file in int8 takes at most 0.3 of that in float32, whatever stays in float."""
    config = PRESETS[preset]
    before = build_graph(
        Checkpoint(config, FrontEnd(band_width=config.band_width), Encoder(config).state_dict(), preset)
    )
    size = len(before.SerializeToString())
    kept = {product.weight for product in weight_products(before)}
    steps = dict.fromkeys((product.source for product in weight_products(before)), 0.01)
    found = {
        "dynamic": quantise_dynamic_int8(before),
        "all in float": quantise_dynamic_int8(before, kept),
        "slow in float": float_for_slow(quantise_dynamic_int8(before), quantise_dynamic_int8(before, kept), 16),
        "S8S8": quantise_static_int8(before, steps),
        "for TensorRT": in_half(quantise_static_int8(before, steps, tensorrt=True)),
    }
    shares = {name: len(model.SerializeToString()) / size for name, model in found.items()}
    assert max(shares.values()) <= 0.3, shares


def test_positions_that_no_window_has_are_cut() -> None:
    """The table ends with the front-end's longest window: official checkpoints hold seventeen times as many rows."""
    config = PRESETS["tiny"]
    model = build_graph(Checkpoint(config, FrontEnd(), Encoder(config).state_dict(), "tiny"))
    (table,) = [tensor for tensor in model.graph.initializer if tensor.name == "positions"]
    assert tuple(table.dims) == (1, 1024 // 16 * 6, config.embed_dim)


def test_slow_sensors_are_computed_in_float() -> None:
    """A call of bands that are padding from a bin on gives what all in float gives, any other what int8 gives."""
    graph = build_graph(micro.micro_checkpoint())
    int8 = quantise_dynamic_int8(graph)
    in_float = quantise_dynamic_int8(graph, {product.weight for product in weight_products(graph)})
    bands = np.random.default_rng(0).standard_normal((3, 64, 50)).astype(np.float32)
    slow = bands[:1].copy()
    slow[:, :, 16:] = 0
    mixed = np.concatenate([slow, bands])
    found = ort_embedder(float_for_slow(int8, in_float, 16))([bands, slow, mixed])
    for one, model, expected in ((bands, int8, found[0]), (slow, in_float, found[1]), (mixed, int8, found[2])):
        np.testing.assert_array_equal(ort_embedder(model)([one])[0], expected)
    assert np.abs(ort_embedder(int8)([slow])[0] - found[1]).max() > 0


@pytest.mark.parametrize(
    ("rate_hz", "noise", "bins"), [(1000, 9.0, 16), (1000, 0.01, 0), (1500, 9.0, 32), (3000, 9.0, 0), (8000, 9.0, 0)]
)
def test_what_is_slow_follows_from_what_is_not_faithful(rate_hz: int, noise: float, bins: int) -> None:
    """Whole patches of the bins an unfaithful rate fills; nothing where it fills its band or has several."""
    group = Group(rate_hz, 0, rate_hz / 2, 9, 1.0, 1.0, noise)
    assert bins_of_slow([group], FrontEnd(band_width=50)) == bins
