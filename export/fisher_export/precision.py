"""The graph of a precision, and the variants of a bundle for other runtimes: built, searched, measured. See `convert`.

A variant holds the same weights in another form for one runtime. One that is not faithful, or that a missing package
would have to make, is left out, with a line that says so.
"""

import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.frontend import FrontEnd
from fisher_export import openvino_ir
from fisher_export.gate import Parity
from fisher_export.half import FLOAT32_PARTS, in_half
from fisher_export.ort_runs import ort_embedder
from fisher_export.products import weight_products
from fisher_export.quantise import quantise_dynamic_int8
from fisher_export.search import search
from fisher_export.slow import bins_of_slow, float_for_slow
from fisher_export.static import calibrate, quantise_static_int8
from fisher_export.verify import Embed, Excerpts, measure

__all__ = ["VARIANT_FILES", "Converted", "Precision", "Subject", "Variant", "convert", "variants_of"]

Precision = Literal["fp32", "fp16", "int8", "tensorrt"]

# Files of every variant, of which an older bundle may be made.
VARIANT_FILES = {*openvino_ir.FILES, "s8s8.onnx", "tensorrt-fp16.onnx", "tensorrt-int8.onnx"}
CALIBRATION_PIECES = 24
"""Of each rate: what static quantisation takes its ranges from."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What is exported: the graph in float32, recordings to measure on, their embeddings in PyTorch.

    `tokens` are those of a usual sub-band.
    """

    graph: onnx.ModelProto
    front_end: FrontEnd
    excerpts: Excerpts
    before: list[FloatArray]
    tokens: int

    def calibration(self) -> list[FloatArray]:
        """Pieces of every rate that static quantisation is calibrated on."""
        return [self.excerpts.bands[part[0]] for part in self.excerpts.thinned(CALIBRATION_PIECES).pieces]

    def parity(self, embed: Embed, converted: "Converted | None" = None) -> Parity:
        """Measure a model; `converted` says what of it is in float."""
        found = measure(self.excerpts, self.before, embed(self.excerpts.bands))
        if converted is None:
            return found
        return replace(found, float_products=converted.float_products, float_bins=converted.float_bins)


@dataclass(frozen=True, eq=False)
class Converted:
    """The graph in a precision, and the products whose activations it leaves in float.

    Where a sub-band is padding from `float_bins` on, all are in float; 0: there is no such rule.
    """

    model: onnx.ModelProto
    float_products: tuple[str, ...] = ()
    float_bins: int = 0


@dataclass(frozen=True, eq=False)
class Variant:
    """Files of a variant and how faithful it is; `note` says why there are none."""

    name: str
    files: dict[str, bytes]
    parity: Parity | None = None
    note: str = ""


def convert(subject: Subject, precision: Precision) -> Converted:
    """Return the graph of the bundle's own model file."""
    if precision == "fp32":
        return Converted(subject.graph)
    if precision == "int8":
        quantise = partial(quantise_dynamic_int8, subject.graph)
        return _for_slow_too(subject, _searched(subject, quantise, ort_embedder), quantise)
    return Converted(_in_half(subject))


def variants_of(subject: Subject, precision: Precision, reproduces: Callable[[Embed], str]) -> list[Variant]:
    """Return the variants of a bundle; `reproduces` says by how much a model misses the self-test, "" if it passes."""
    if precision == "int8":
        s8s8 = _static(subject)
        return [_s8s8(subject, s8s8, reproduces), _openvino(subject, reproduces), _half(subject, reproduces)]
    return [_tensorrt(subject, reproduces)] if precision == "tensorrt" else []


def _in_half(subject: Subject) -> onnx.ModelProto:
    """Return the graph in half precision, with as little in float32 as is faithful."""
    candidates = [in_half(subject.graph, part) for part in FLOAT32_PARTS]
    loads = [subject.parity(ort_embedder(model, as_written=True)).worst.load for model in candidates]
    least = int(np.argmin(np.nan_to_num(loads, nan=np.inf)))
    return candidates[next((index for index, load in enumerate(loads) if load <= 1), least)]


def _searched(
    subject: Subject, quantise: Callable[[Collection[str]], onnx.ModelProto], run: Callable[[onnx.ModelProto], Embed]
) -> Converted:
    """Quantise what can be: see search.py."""
    kept = search(subject.graph, quantise, run, subject.excerpts, subject.before, subject.tokens)
    return Converted(quantise(kept), kept)


def _for_slow_too(
    subject: Subject, found: Converted, quantise: Callable[[Collection[str]], onnx.ModelProto]
) -> Converted:
    """Keep slow sensors in float where int8 is not faithful to them: see slow.py."""
    left = subject.parity(ort_embedder(found.model)).unfaithful
    bins = bins_of_slow(left, subject.front_end)
    if not bins:
        return found
    in_float = quantise([product.weight for product in weight_products(subject.graph)])
    return replace(found, model=float_for_slow(found.model, in_float, bins), float_bins=bins)


def _static(subject: Subject) -> Converted:
    steps = calibrate(subject.graph, subject.calibration())
    quantise = partial(quantise_static_int8, subject.graph, steps)
    return _for_slow_too(subject, _searched(subject, quantise, ort_embedder), quantise)


def _s8s8(subject: Subject, found: Converted, reproduces: Callable[[Embed], str]) -> Variant:
    """Static int8 for ONNX Runtime on ARM."""
    embed = ort_embedder(found.model)
    files = {"s8s8.onnx": found.model.SerializeToString()}
    return _gated("s8s8", files, subject.parity(embed, found), reproduces(embed))


def _tensorrt(subject: Subject, reproduces: Callable[[Embed], str]) -> Variant:
    """Static int8 for TensorRT, whose rest is in half precision."""
    steps = calibrate(subject.graph, subject.calibration())

    def quantise(in_float: Collection[str]) -> onnx.ModelProto:
        return in_half(quantise_static_int8(subject.graph, steps, in_float, tensorrt=True), FLOAT32_PARTS[1])

    found = _searched(subject, quantise, partial(ort_embedder, as_written=True))
    embed = ort_embedder(found.model, as_written=True)
    files = {"tensorrt-int8.onnx": found.model.SerializeToString()}
    return _gated("tensorrt-int8", files, subject.parity(embed, found), reproduces(embed))


def _half(subject: Subject, reproduces: Callable[[Embed], str]) -> Variant:
    """Half precision, for GPUs, which refuse dynamic int8."""
    model = _in_half(subject)
    embed = ort_embedder(model, as_written=True)
    files = {"tensorrt-fp16.onnx": model.SerializeToString()}
    return _gated("tensorrt-fp16", files, subject.parity(embed), reproduces(embed))


def _openvino(subject: Subject, reproduces: Callable[[Embed], str]) -> Variant:
    """Static int8 for OpenVINO."""
    name = "openvino-int8"
    if not openvino_ir.available():
        return Variant(name, {}, note="left out: OpenVINO and NNCF are not installed; run: pip install openvino nncf")
    model = openvino_ir.quantise_for_openvino(subject.graph, subject.calibration())
    with tempfile.TemporaryDirectory() as folder:
        openvino_ir.save(model, Path(folder))
        files = {file: (Path(folder) / file).read_bytes() for file in openvino_ir.FILES}
    embed = openvino_ir.embedder(*files.values())
    return _gated(name, files, subject.parity(embed), reproduces(embed))


def _gated(name: str, files: dict[str, bytes], parity: Parity, refused: str) -> Variant:
    """Leave a variant out that is not faithful."""
    wrong = [*parity.failures("int8"), *([refused] if refused else [])]
    if wrong:
        return Variant(name, {}, parity, f"left out, not faithful enough: {', '.join(wrong)}")
    return Variant(name, files, parity)
