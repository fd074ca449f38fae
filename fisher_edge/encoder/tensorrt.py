"""The encoder in TensorRT by itself: JetPack's package, or the wheel. The engine is built on the device and kept.

Written for TensorRT 10.3 (JetPack 6) to 11, which share every call below but two. From 11 on all networks are strongly
typed: a float32 model stays float32, and half precision needs the variant `tensorrt-fp16`. Before, half precision is a
flag of the builder, which a strongly typed network excludes.
"""

import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.encoder.base import CALL_TOKENS, BaseEncoder
from fisher_edge.encoder.bundle import Bundle, first_line, sha256
from fisher_edge.encoder.cuda import Device
from fisher_edge.encoder.engines import Key, open_engine
from fisher_edge.encoder.forms import FP16, PLAIN
from fisher_edge.encoder.profiles import Profile, profiles_of
from fisher_edge.errors import BadArtifactError, MissingExtraError, ProviderError

__all__ = ["TensorRtEncoder", "build_engine", "default_form", "load_library"]

INPUT = "bands"
OUTPUT = "embedding"
# Device memory that the builder may use while it tries kernels; a Jetson shares its memory with everything else.
WORKSPACE_BYTES = 1 << 30

log = logging.getLogger(__name__)


class TensorRtEncoder(BaseEncoder):
    """A loaded encoder: see `fisher_edge.encoder.protocol.Encoder`.

    `cache_dir` keeps engines; without it every start builds one, which takes minutes. Raises MissingExtraError when
    TensorRT is not installed, ProviderError when the GPU cannot be used, BadArtifactError for a model that TensorRT
    cannot run.
    """

    kind = "tensorrt"

    def __init__(
        self,
        bundle: Bundle,
        form: str = FP16,
        *,
        cache_dir: Path | None = None,
        call_tokens: int = CALL_TOKENS,
    ) -> None:
        super().__init__(bundle, form, call_tokens=call_tokens)
        library = load_library()
        self._device = Device()
        self._profiles = profiles_of(bundle.front_end)
        self.max_frames = max(profile.frames[-1] for profile in self._profiles)
        precision = bundle.precision if form == PLAIN else form.removeprefix("tensorrt-")
        self.provider = f"tensorrt {library.__version__} {self._device.name} {precision}"
        self._logger = library.Logger(library.Logger.ERROR)
        self._runtime = library.Runtime(self._logger)
        self._engine = self._open(library, cache_dir)
        self._contexts = [self._context(index) for index in range(len(self._profiles))]
        self._memory = {INPUT: _Memory(self._device), OUTPUT: _Memory(self._device)}
        self._types = {name: library.nptype(self._engine.get_tensor_dtype(name)) for name in (INPUT, OUTPUT)}
        self.check_self_test()

    def _run(self, bands: FloatArray) -> FloatArray:
        """Copy in, run, copy out; the calling thread waits."""
        device, values = self._device, bands.astype(self._types[INPUT], copy=False)
        shape = (len(bands), self.bundle.dim)
        device.use()
        context = self._contexts[self._profile_of(len(bands), bands.shape[1])]
        source = self._memory[INPUT].of(values.nbytes)
        target = self._memory[OUTPUT].of(int(np.prod(shape)) * np.dtype(self._types[OUTPUT]).itemsize)
        device.upload(values, source)
        ready = (
            context.set_input_shape(INPUT, bands.shape)
            and context.set_tensor_address(INPUT, source)
            and context.set_tensor_address(OUTPUT, target)
        )
        if not ready or tuple(context.get_tensor_shape(OUTPUT)) != shape or not context.execute_async_v3(device.stream):
            raise ProviderError(f"{self.provider} refuses sub-bands of shape {bands.shape}; see its messages above")
        return np.asarray(device.download(target, shape, self._types[OUTPUT]), np.float32)

    def _rows_of_a_call(self, bands: FloatArray) -> int:
        """Return how many of these sub-bands go into one call: no more than the largest profile for them holds."""
        fitting = [profile.rows[-1] for profile in self._profiles if profile.holds(1, bands.shape[1])]
        return min(super()._rows_of_a_call(bands), max(fitting))

    def _profile_of(self, rows: int, frames: int) -> int:
        """Return the number of the first profile that holds a call."""
        return next(index for index, profile in enumerate(self._profiles) if profile.holds(rows, frames))

    def _context(self, profile: int) -> Any:
        """Return an execution context for one profile."""
        context = self._engine.create_execution_context()
        if context is None or not context.set_optimization_profile_async(profile, self._device.stream):
            raise ProviderError(f"{self.provider} has no memory for the engine; stop other programs that use the GPU")
        return context

    def _open(self, library: Any, cache_dir: Path | None) -> Any:
        """Return the engine: the kept one, or one that is built now."""
        model = _model(self.bundle, self.form.key)
        key: Key = {
            "runtime": "tensorrt",
            "version": library.__version__,
            "device": f"{self._device.name} SM {self._device.sm}",
            "model": sha256(model),
            "precision": self.form.key,
            "shapes": repr(self._profiles),
        }
        build = partial(self._build, library, model)
        if cache_dir is not None:
            return open_engine(cache_dir / "engines", key, build, self._runtime.deserialize_cuda_engine)
        return self._runtime.deserialize_cuda_engine(build())

    def _build(self, library: Any, model: bytes) -> bytes:
        """Build the engine; it tries every kernel on this GPU, which takes minutes."""
        log.info(
            "building the TensorRT engine of %s for %s: this takes minutes, once for each version of TensorRT",
            self.name,
            self._device.name,
        )
        started_s = time.monotonic()
        engine = build_engine(library, self._logger, model, self._profiles, self.bundle, half=self.form.key == FP16)
        log.info("the TensorRT engine of %s was built in %.0f s", self.name, time.monotonic() - started_s)
        return engine


class _Memory:
    """A buffer on the device that grows with what it must hold."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._address = 0
        self._bytes = 0

    def of(self, n_bytes: int) -> int:
        """Return the address of at least so many bytes."""
        if n_bytes > self._bytes:
            if self._bytes:
                self._device.free(self._address)
                self._bytes = 0
            self._address, self._bytes = self._device.allocate(n_bytes), n_bytes
        return self._address


def default_form(bundle: Bundle) -> str | None:
    """Return the form that TensorRT runs unless int8 proves better: half precision where it can be had, None if none.

    Raises MissingExtraError when TensorRT is not installed.
    """
    if "tensorrt-fp16" in bundle.variants:
        return "tensorrt-fp16"
    if bundle.precision == "int8":
        return None
    return FP16 if bundle.precision == "fp32" and hasattr(load_library().BuilderFlag, "FP16") else PLAIN


def load_library() -> Any:
    """Import TensorRT; MissingExtraError where it is not installed, ProviderError where it is broken."""
    try:
        import tensorrt  # noqa: PLC0415 -- an extra, and slow to import
    except ModuleNotFoundError as error:
        raise MissingExtraError("tensorrt", "tensorrt") from error
    except (ImportError, OSError) as error:
        raise ProviderError(f"tensorrt cannot be imported ({first_line(error)}); install it again") from error
    return tensorrt


def build_engine(
    library: Any, logger: Any, model: bytes, profiles: tuple[Profile, ...], bundle: Bundle, *, half: bool
) -> bytes:
    """Build the engine of an ONNX model; with `half` a float32 model is rounded to half precision.

    Raises BadArtifactError with what TensorRT says first, ProviderError where it cannot round.
    """
    if half and not hasattr(library.BuilderFlag, "FP16"):
        raise ProviderError(
            f"TensorRT {library.__version__} rounds no float32 model to half precision any more; use a bundle with the "
            "variant tensorrt-fp16"
        )
    builder = library.Builder(logger)
    typed = 0 if half else 1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = library.OnnxParser(network, logger)
    if not parser.parse(model):
        what = parser.get_error(0).desc() if parser.num_errors else "no reason is given"
        raise BadArtifactError(
            f"{bundle.path}: TensorRT {library.__version__} cannot read the model: {what}; export it again"
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    if half:
        config.set_flag(library.BuilderFlag.FP16)
    else:
        config.clear_flag(library.BuilderFlag.TF32)
    for rows, frames in profiles:
        profile = builder.create_optimization_profile()
        profile.set_shape(
            INPUT, *((row, frame, bundle.front_end.band_width) for row, frame in zip(rows, frames, strict=True))
        )
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise BadArtifactError(
            f"{bundle.path}: TensorRT {library.__version__} cannot build an engine; see its messages above, and free "
            "memory of the GPU or export the bundle again"
        )
    return bytes(engine)


def _model(bundle: Bundle, form: str) -> bytes:
    """Return the ONNX model of a form."""
    return bundle.model if form in {PLAIN, FP16} else bundle.variants[form].read()[0]
