"""The ceiling of an int8 encoder: the script runs as its docstring says."""

import re
import sys

from command import run_program


def test_roofline_prints_a_line_for_each_shape() -> None:
    """Every shape gets the rates of all three implementations and the ratio of int8 to PyTorch."""
    shapes = ["--shape", "8", "16", "32", "--shape", "64", "64", "64"]
    done = run_program([sys.executable, "-m", "fisher_bench.speed.roofline", *shapes, "--gflops", "0.05"])
    assert (done.returncode, done.stderr) == (0, "")
    rates = r"PyTorch fp32 \d+, ONNX Runtime fp32 \d+, ONNX Runtime int8 \d+ G/s; int8 over PyTorch \d+\.\d\d"
    first, second = done.stdout.splitlines()
    assert re.fullmatch(f"8 x 16 by 32: {rates}", first)
    assert re.fullmatch(f"64 x 64 by 64: {rates}", second)
