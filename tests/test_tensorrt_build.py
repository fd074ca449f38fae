"""What TensorRT says of our files: TensorRT-RTX parses and builds for Ampere on a machine without a GPU.

It shares parser and compiler with TensorRT. The nearest it offers to a Jetson Orin (SM 8.7) is SM 8.6; engines for it
cannot be run here.
"""

from pathlib import Path
from typing import Any

import micro
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.encoder.bundle import DEFAULT_BUNDLE
from fisher_export.graph import build_graph
from fisher_export.half import FLOAT32_PARTS, in_half
from fisher_export.pipeline import export
from fisher_export.products import weight_products
from fisher_export.quantise import quantise_dynamic_int8
from fisher_export.static import quantise_static_int8
from fisher_train.checkpoint import Checkpoint, save_checkpoint
from fisher_train.encoder import PRESETS, Encoder

trt = pytest.importorskip(
    "tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed (make nightly installs it on x86)"
)

pytestmark = pytest.mark.extras
NANO = Path(__file__).parents[1] / "train" / "checkpoints" / "nano"
FRAMES = (16, 96, 1024)
BANDS = (1, 4, 16)


class Log(trt.ILogger):  # type: ignore[misc,name-defined]  # the bindings have no types
    """Keeps what is wrong."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        """Take one message."""
        if severity <= trt.ILogger.Severity.ERROR:
            self.errors.append(message)


def build(model: bytes) -> str:
    """Build an engine for SM 8.6, pieces and whole windows in a profile each; return what is wrong, "" when nothing."""
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        return "; ".join([*(str(parser.get_error(index)) for index in range(parser.num_errors)), *log.errors])
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    width = network.get_input(0).shape[2]
    for usual in FRAMES[1:]:
        profile = builder.create_optimization_profile()
        shapes = zip(BANDS, (FRAMES[0], usual, usual), strict=True)
        profile.set_shape("bands", *[(bands, frames, width) for bands, frames in shapes])
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    return "; ".join(log.errors) or ("" if engine is not None and engine.nbytes else "no engine")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a micro bundle for TensorRT, its file and its variant."""
    folder = tmp_path_factory.mktemp("tensorrt")
    return export(micro.save_micro(folder / "micro"), folder / "out", "tensorrt", micro.signals()).path


@pytest.mark.parametrize("name", ["encoder.onnx", "tensorrt-int8.onnx"])
def test_bundle_for_tensorrt_builds(exported: Path, name: str) -> None:
    """What `export --tensorrt` writes, in half precision and in int8."""
    assert build((exported / name).read_bytes()) == ""


@pytest.mark.slow
@pytest.mark.skipif(not NANO.is_dir(), reason="the trained checkpoint is not in this checkout")
@pytest.mark.parametrize("precision", ["fp16", "tensorrt"])
def test_trained_checkpoint_builds(precision: Any, tmp_path: Path) -> None:
    """The project's own checkpoint, on 1 to 16 bands of 16 to 1024 frames."""
    folder = export(NANO, tmp_path / "out", precision, micro.signals(), force=True).path
    names = sorted(path.name for path in folder.glob("*.onnx"))
    assert names == ["encoder.onnx"] if precision == "fp16" else ["encoder.onnx", "tensorrt-int8.onnx"]
    assert {name: build((folder / name).read_bytes()) for name in names} == dict.fromkeys(names, "")


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "part"), [("tiny", 0), ("tiny", 1), ("small", 2)])
def test_published_shapes_build(preset: str, part: int) -> None:
    """Encoders of the published sizes, whatever stays in float32."""
    config = PRESETS[preset]
    checkpoint = Checkpoint(config, FrontEnd(band_width=config.band_width), Encoder(config).state_dict(), preset)
    graph = build_graph(checkpoint)
    steps = dict.fromkeys((product.source for product in weight_products(graph)), 0.01)
    kept = ("blocks.0.mlp.fc2.weight", "blocks.11.attn.value.weight")
    assert build(in_half(graph, FLOAT32_PARTS[part]).SerializeToString()) == ""
    int8 = quantise_static_int8(graph, steps, kept, tensorrt=True)
    assert build(in_half(int8, FLOAT32_PARTS[part]).SerializeToString()) == ""


def test_installed_bundle_builds() -> None:
    """The form for GPUs of the bundle that is installed with the package."""
    assert build((DEFAULT_BUNDLE / "tensorrt-fp16.onnx").read_bytes()) == ""


def test_float32_builds(exported: Path) -> None:
    """The graph itself, which the engines of float32 bundles are built from."""
    assert build(build_graph(micro.micro_checkpoint()).SerializeToString()) == ""
    assert exported.is_dir()


def test_dynamic_int8_is_refused() -> None:
    """TensorRT has no DynamicQuantizeLinear and no MatMulInteger."""
    assert build(quantise_dynamic_int8(build_graph(micro.micro_checkpoint())).SerializeToString()) != ""


def test_unsigned_zero_points_are_refused() -> None:
    """Activations in unsigned int8 with a zero point of their own, as quantisers for CPUs write them."""
    graph = build_graph(micro.micro_checkpoint())
    steps = dict.fromkeys((product.source for product in weight_products(graph)), 0.01)
    model = quantise_static_int8(graph, steps, tensorrt=True)
    assert build(model.SerializeToString()) == ""
    unsigned = np.array(117, np.uint8)
    for tensor in model.graph.initializer:
        if tensor.name.endswith("_zero_point") and not tensor.dims:
            tensor.CopyFrom(numpy_helper.from_array(unsigned, tensor.name))
    onnx.checker.check_model(model)
    assert "zero point" in build(model.SerializeToString()).lower()


def test_vendor_operators_are_refused() -> None:
    """A file for TensorRT holds standard operators alone."""
    graph = build_graph(micro.micro_checkpoint())
    first = next(node for node in graph.graph.node if node.op_type == "Erf")
    first.CopyFrom(
        helper.make_node("QuickGelu", list(first.input), list(first.output), first.name, domain="com.microsoft")
    )
    graph.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert build(graph.SerializeToString()) != ""


def test_whole_windows_do_not_fit_a_shorter_table(tmp_path: Path) -> None:
    """An encoder whose front-end ends at 512 frames has no engine for 1024: positions are cut there."""
    front_end = FrontEnd(band_width=50, max_frames=512)
    path = tmp_path / "short"
    save_checkpoint(path, micro.micro_checkpoint(front_end=front_end))
    assert build(build_graph(micro.micro_checkpoint(front_end=front_end)).SerializeToString()) != ""
