"""The encoder in ONNX Runtime: on one thread of the CPU, or on a GPU through CUDA or TensorRT."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.encoder.base import CALL_TOKENS, BaseEncoder
from fisher_edge.encoder.bundle import Bundle, first_line
from fisher_edge.encoder.engines import private_folder
from fisher_edge.encoder.forms import FP16, PLAIN
from fisher_edge.encoder.profiles import profiles_of
from fisher_edge.errors import BadArtifactError, ProviderError

__all__ = ["EXECUTION_PROVIDERS", "OrtEncoder", "check_execution_provider"]

ERRORS_ONLY = 3
INPUT = "bands"
# What ONNX Runtime calls its providers, by their names in a configuration.
EXECUTION_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "ort-tensorrt": "TensorrtExecutionProvider",
}


class OrtEncoder(BaseEncoder):
    """A loaded encoder: see `fisher_edge.encoder.protocol.Encoder`.

    Loading runs the bundle's self-test: a model that does not reproduce its embeddings is refused. `cache_dir` is where
    the engines of the TensorRT execution provider are kept.
    """

    def __init__(
        self,
        bundle: Bundle,
        form: str = PLAIN,
        *,
        kind: str = "cpu",
        cache_dir: Path | None = None,
        call_tokens: int = CALL_TOKENS,
    ) -> None:
        super().__init__(bundle, form, call_tokens=call_tokens)
        self.kind = kind
        self.provider = f"onnxruntime {EXECUTION_PROVIDERS[kind]}"
        if kind == "ort-tensorrt":
            longest = profiles_of(bundle.front_end)[-1]
            self.max_rows, self.max_frames = longest.rows[-1], longest.frames[-1]
        model = bundle.model if form in {PLAIN, FP16} else bundle.variants[form].read()[0]
        self._session = _session(bundle, model, kind, _provider_options(bundle, form, kind, cache_dir))
        self.check_self_test()

    def _run(self, bands: FloatArray) -> FloatArray:
        return np.asarray(self._session.run(None, {INPUT: bands})[0], np.float32)


def check_execution_provider(kind: str) -> None:
    """Raise ProviderError when the installed ONNX Runtime lacks an execution provider."""
    wanted = EXECUTION_PROVIDERS[kind]
    if wanted not in onnxruntime.get_available_providers():
        raise ProviderError(
            f"provider {kind!r}: ONNX Runtime {onnxruntime.__version__} here has no {wanted}; install onnxruntime-gpu "
            "in place of onnxruntime (on a Jetson the build for its JetPack), or choose another provider"
        )


def _session(bundle: Bundle, model: bytes, kind: str, providers: list[Any]) -> Any:
    """Open the model: one thread, no spinning, no SkipLayerNorm fusion (it costs int8 models a fifth)."""
    check_execution_provider(kind)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            model, options, providers=providers, disabled_optimizers=["SkipLayerNormFusion"]
        )
    except Exception as error:  # ONNX Runtime's errors share no base but this
        raise BadArtifactError(
            f"{bundle.path}: ONNX Runtime {onnxruntime.__version__} cannot load the model: {first_line(error)}; "
            "export it again"
        ) from error
    _check_in_use(session, kind)
    return session


def _check_in_use(session: Any, kind: str) -> None:
    """Refuse a session in which ONNX Runtime has replaced a provider by the CPU, which it does without an error."""
    used, wanted = session.get_providers()[0], EXECUTION_PROVIDERS[kind]
    if used != wanted:
        raise ProviderError(
            f"provider {kind!r}: ONNX Runtime could not start {wanted} and fell back to {used}; check the driver and "
            "the CUDA and TensorRT libraries, or choose another provider"
        )
    session.disable_fallback()


def _provider_options(bundle: Bundle, form: str, kind: str, cache_dir: Path | None) -> list[Any]:
    """Return the execution providers of a session, the wanted one first, with their options."""
    cuda = (EXECUTION_PROVIDERS["cuda"], {"use_tf32": "0"})
    if kind == "cpu":
        return [EXECUTION_PROVIDERS["cpu"]]
    if kind == "cuda":
        return [cuda]
    options = {
        "trt_fp16_enable": str(form == FP16),
        **{f"trt_profile_{name}_shapes": f"{INPUT}:{shape}" for name, shape in _profile_shapes(bundle).items()},
    }
    if cache_dir is not None:
        folder = str(private_folder(cache_dir / "ort-tensorrt"))
        options |= {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": folder,
            "trt_engine_cache_prefix": bundle.sha256[:16] + form,
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": folder,
        }
    return [(EXECUTION_PROVIDERS[kind], options), cuda]


def _profile_shapes(bundle: Bundle) -> dict[str, str]:
    """Return the one range of shapes that the engine of this provider is built for."""
    short, long = profiles_of(bundle.front_end)
    width = bundle.front_end.band_width
    return {
        "min": f"{short.rows[0]}x{short.frames[0]}x{width}",
        "opt": f"{short.rows[1]}x{short.frames[1]}x{width}",
        "max": f"{long.rows[2]}x{long.frames[2]}x{width}",
    }
