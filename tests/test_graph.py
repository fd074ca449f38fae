"""The written graph: equal to the encoder, and exactly what old runtimes read."""

from dataclasses import replace
from typing import Any

import micro
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from fisher_edge.encoder.onnx_scan import has_external_data
from fisher_export.graph import build_graph
from fisher_train.checkpoint import build_encoder


def run(model: onnx.ModelProto, bands: np.ndarray) -> np.ndarray:
    """Run a model in memory."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"bands": bands})[0]
    return found


@pytest.mark.parametrize("flatten", ["freq", "time"])
@pytest.mark.parametrize("frames", [16, 31, 160, 1024])
def test_graph_equals_torch(flatten: Any, frames: int) -> None:
    """The written graph is the encoder: both token orders, any bands and frames, the stored positions."""
    checkpoint = micro.micro_checkpoint(replace(micro.CONFIG, flatten=flatten, max_freq=5, num_heads=4, depth=3))
    table = checkpoint.state["modality_encoders.IMAGE.fixed_positional_encoder.positions"]
    table += torch.randn(table.shape, generator=torch.Generator().manual_seed(1)) / 2
    bands = torch.randn(3, frames, 50, generator=torch.Generator().manual_seed(2))
    encoder = build_encoder(checkpoint)
    with torch.inference_mode():
        tokens = encoder.modality_encoders["IMAGE"](bands)
        for block in encoder.blocks:
            tokens = block(tokens)  # every query and every token's MLP
    model = build_graph(checkpoint)
    np.testing.assert_allclose(run(model, bands.numpy()), tokens[:, 0].numpy(), atol=1e-5, rtol=0)
    np.testing.assert_allclose(run(model, bands[:1].numpy()), tokens[:1, 0].numpy(), atol=1e-5, rtol=0)


def test_token_order_matters() -> None:
    """The same weights in the other token order are another graph with other embeddings."""
    bands = np.random.default_rng(0).standard_normal((1, 64, 50)).astype(np.float32)
    found = [
        run(build_graph(micro.micro_checkpoint(replace(micro.CONFIG, flatten=flatten))), bands)
        for flatten in ("freq", "time")
    ]
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_graph_is_what_old_runtimes_read() -> None:
    """Opset 17 and nothing but the standard domain, IR 8, any number of bands and frames, one file."""
    model = build_graph(micro.micro_checkpoint())
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
    assert {node.domain for node in model.graph.node} == {""}
    (bands,), (embedding,) = model.graph.input, model.graph.output
    dims = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in (bands, embedding)
    ]
    assert (bands.name, embedding.name) == ("bands", "embedding")
    assert dims == [["bands", "frames", 50], ["bands", 32]]
    assert not has_external_data(model.SerializeToString())


def test_graph_has_the_nodes_it_should() -> None:
    """LayerNorms are one node each, products those of the blocks, and nothing is quantised in float32."""
    found = micro.node_kinds(build_graph(micro.micro_checkpoint()))
    assert found["LayerNormalization"] == 1 + 2 * micro.CONFIG.depth
    assert found["MatMul"] == (micro.PRODUCTS_OF_A_BLOCK + 2) * micro.CONFIG.depth
    assert (found["Conv"], found["Softmax"], found["Erf"]) == (1, micro.CONFIG.depth, micro.CONFIG.depth)
    assert not found.keys() & {"Pow", "ReduceMean", "MatMulInteger", "QuantizeLinear"}


def test_last_block_computes_the_cls_token_alone() -> None:
    """The MLP of the last block sees one token of each band; that of the first sees all."""
    model = build_graph(micro.micro_checkpoint())
    products = {node.input[1]: node.output[0] for node in model.graph.node if node.op_type == "MatMul"}
    names = [products[f"blocks.{block}.mlp.fc1.weight"] for block in (0, 1)]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    first, last = session.run(names, {"bands": np.zeros((3, 64, 50), np.float32)})
    assert first.shape == (3, 1 + 4 * 3, 128)
    assert last.shape == (3, 1, 128)
