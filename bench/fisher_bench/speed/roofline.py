"""How fast single products with constant weights run on this machine: the ceiling of an int8 encoder.

Run: python -m fisher_bench.speed.roofline [--shape TOKENS WIDTH OUT]... [--gflops G]

Prints, for the products of nano and tiny and a large one (or for the shapes given), the rate of PyTorch, of ONNX
Runtime in float32 and in dynamic int8, each on one thread in CPU time. The ratio of the last to the first bounds the
speed-up of int8.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from fisher_export.graph import IR_VERSION, OPSET
from fisher_export.quantise import quantise_dynamic_int8

__all__ = ["SHAPES", "main", "product_model", "rates_gflops"]

# Tokens, width and output width of a product.
SHAPES = ((193, 128, 512), (385, 192, 768), (1024, 1024, 1024))
REPEATS = 7
GFLOPS_A_MEASUREMENT = 50.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line a shape."""
    parser = argparse.ArgumentParser(
        prog="python -m fisher_bench.speed.roofline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--shape", nargs=3, type=int, action="append", metavar=("TOKENS", "WIDTH", "OUT"))
    parser.add_argument(
        "--gflops", type=float, default=GFLOPS_A_MEASUREMENT, help="1e9 operations a measurement (default: %(default)g)"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for tokens, width, out in options.shape or SHAPES:
        rates = rates_gflops(tokens, width, out, options.gflops)
        shown = ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())
        ratio = rates["ONNX Runtime int8"] / rates["PyTorch fp32"]
        print(f"{tokens} x {width} by {out}: {shown} G/s; int8 over PyTorch {ratio:.2f}", flush=True)


def rates_gflops(tokens: int, width: int, out: int, gflops: float = GFLOPS_A_MEASUREMENT) -> dict[str, float]:
    """Rate of one product (tokens, width) @ (width, out) in 1e9 operations a second, by implementation.

    `gflops` is the work of one measurement in 1e9 operations, at least one product for each of its repeats.
    """
    generator = np.random.default_rng(0)
    left = generator.standard_normal((1, tokens, width)).astype(np.float32)
    right = generator.standard_normal((width, out)).astype(np.float32)
    model = product_model(right, tokens)
    plain, int8 = _session(model), _session(quantise_dynamic_int8(model))
    torch_left, torch_right = torch.from_numpy(left[0]), torch.from_numpy(right)
    flops = 2.0 * tokens * width * out
    calls: dict[str, Callable[[], object]] = {
        "PyTorch fp32": lambda: torch_left @ torch_right,
        "ONNX Runtime fp32": lambda: plain.run(None, {"left": left}),
        "ONNX Runtime int8": lambda: int8.run(None, {"left": left}),
    }
    count = max(1, round(gflops * 1e9 / REPEATS / flops))
    return {name: flops / _cpu_seconds(call, count) / 1e9 for name, call in calls.items()}


def product_model(right: np.ndarray, tokens: int) -> onnx.ModelProto:
    """Return a model of one product of `left` (1, tokens, width) with a constant (width, out)."""
    width, out = right.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["left", "right"], ["product"])],
        "product",
        [helper.make_tensor_value_info("left", TensorProto.FLOAT, [1, tokens, width])],
        [helper.make_tensor_value_info("product", TensorProto.FLOAT, [1, tokens, out])],
        [numpy_helper.from_array(right, "right")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Open a model on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _cpu_seconds(call: Callable[[], object], count: int) -> float:
    """Median CPU seconds of one call."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        for _ in range(count):
            call()
        times.append((time.process_time() - start) / count)
    return statistics.median(times)


if __name__ == "__main__":
    main()
