"""One file with two computations of the same weights: int8, and float for sub-bands that are mostly padding.

The recordings of a slow sensor (motor current at 1 kHz) fill one band in part, and where they are nearly alike, what is
left between them is less than the steps of int8. Such a sub-band costs little, so that its activations stay in float.
See `float_for_slow`.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fisher_edge.dsp.frontend import FrontEnd
from fisher_export.gate import Group
from fisher_export.products import constants_of

__all__ = ["bins_of_slow", "float_for_slow"]

PATCH = 16


def bins_of_slow(groups: Sequence[Group], front_end: FrontEnd) -> int:
    """Return up to which bin the unfaithful groups fill their only band, in whole patches; 0 where none leaves any."""
    used = front_end.band_width // PATCH * PATCH
    filled = [
        -(-(front_end.n_fft(round(group.rate_hz)) // 2 + 1) // PATCH) * PATCH
        for group in groups
        if not group.faithful and front_end.n_bands(round(group.rate_hz)) == 1
    ]
    return max((bins for bins in filled if bins < used), default=0)


def float_for_slow(int8: onnx.ModelProto, in_float: onnx.ModelProto, bins: int) -> onnx.ModelProto:
    """Return a model that runs `in_float` where all bands of a call are zero from `bins` on, `int8` elsewhere.

    Both were made of the same graph: weights of the same name are stored once.
    """
    constants = constants_of(in_float) | constants_of(int8)
    constants["slow_bounds"] = np.array([bins])
    constants["slow_end"], constants["slow_axis"] = np.array([np.iinfo(np.int64).max]), np.array([2])
    nodes = [
        helper.make_node("Slice", ["bands", "slow_bounds", "slow_end", "slow_axis"], ["slow_rest"], "slow_slice"),
        helper.make_node("Abs", ["slow_rest"], ["slow_sizes"], "slow_abs"),
        helper.make_node("ReduceMax", ["slow_sizes"], ["slow_largest"], "slow_max", keepdims=0),
        helper.make_node("Cast", ["slow_largest"], ["slow_filled"], "slow_cast", to=TensorProto.BOOL),
        helper.make_node(
            "If",
            ["slow_filled"],
            ["embedding"],
            "slow_if",
            then_branch=_branch(int8, "fast"),
            else_branch=_branch(in_float, "slow"),
        ),
    ]
    tensors = [numpy_helper.from_array(np.array(value, order="C"), name) for name, value in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, int8.graph.name, int8.graph.input, int8.graph.output, tensors),
        opset_imports=int8.opset_import,
        ir_version=int8.ir_version,
        producer_name=int8.producer_name,
    )
    onnx.checker.check_model(model)
    return model


def _branch(model: onnx.ModelProto, prefix: str) -> onnx.GraphProto:
    """Return the nodes of a model as the body of a branch, their outputs renamed."""
    renamed = {name: f"{prefix}/{name}" for node in model.graph.node for name in node.output}
    nodes = []
    for node in model.graph.node:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.name = f"{prefix}/{node.name}"
        for names in (copied.input, copied.output):
            names[:] = [renamed.get(name, name) for name in names]
        nodes.append(copied)
    (output,) = model.graph.output
    found = helper.make_tensor_value_info(renamed[output.name], TensorProto.FLOAT, None)
    return helper.make_graph(nodes, prefix, [], [found])
