"""The encoder in OpenVINO, on one thread of the CPU (x86 or ARM)."""

import ctypes
import io
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.encoder.base import CALL_TOKENS, BaseEncoder
from fisher_edge.encoder.bundle import Bundle, first_line
from fisher_edge.encoder.engines import open_engine
from fisher_edge.encoder.forms import PLAIN
from fisher_edge.errors import BadArtifactError, FisherEdgeError, MissingExtraError, ProviderError

__all__ = ["OpenVinoEncoder", "keeping_signal_stack"]

# A model compiled for one shape is a tenth faster, and costs a compilation and memory: it is worth it for the few
# shapes that come all the time. The rest runs in the model for any shape.
OWN_AFTER_CALLS = 8
MOST_OWN = 3
# One thread and one stream, as everywhere in the runtime; float32 wherever the model itself says nothing else.
PROPERTIES = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_PRECISION_HINT": "f32",
}


LIBC = ctypes.CDLL(None)

log = logging.getLogger(__name__)


class OpenVinoEncoder(BaseEncoder):
    """A loaded encoder: see `fisher_edge.encoder.protocol.Encoder`.

    It runs float32 bundles and the variant `openvino-int8`. `cache_dir` keeps compiled models for the next start.
    Raises MissingExtraError when OpenVINO is not installed, BadArtifactError when the model does not run.
    """

    kind = "openvino"

    def __init__(
        self,
        bundle: Bundle,
        form: str = PLAIN,
        *,
        cache_dir: Path | None = None,
        call_tokens: int = CALL_TOKENS,
    ) -> None:
        super().__init__(bundle, form, call_tokens=call_tokens)
        library = _library()
        self.provider = f"openvino {library.__version__.partition('-')[0]} CPU"
        files = [bundle.model] if form == PLAIN else bundle.variants[form].read()
        with keeping_signal_stack():
            self._core = library.Core()
            device = self._core.get_property("CPU", "FULL_DEVICE_NAME")
        self._engines = None if cache_dir is None else cache_dir / "engines"
        self._key = {
            "runtime": "openvino",
            "version": library.__version__,
            "device": device,
            "model": self.sha256,
        }
        try:
            self._model = self._core.read_model(*files)
            self._any = self._compile(self._model)
        except FisherEdgeError:
            raise
        except Exception as error:  # OpenVINO's errors share no base but this
            raise BadArtifactError(
                f"{bundle.path}: {self.provider} cannot load {self.name}: {first_line(error)}; export it again"
            ) from error
        self._own: dict[tuple[int, ...], Any] = {}
        self._calls: Counter[tuple[int, ...]] = Counter()
        self.check_self_test()

    def _run(self, bands: FloatArray) -> FloatArray:
        return np.asarray(self._request(bands.shape).infer([bands], share_inputs=True)[0], np.float32)

    def _request(self, shape: tuple[int, ...]) -> Any:
        """Return what runs a shape: a model of its own for one that comes often."""
        own = self._own.get(shape)
        if own is not None or len(self._own) >= MOST_OWN:
            return own or self._any
        self._calls[shape] += 1
        if self._calls[shape] < OWN_AFTER_CALLS:
            return self._any
        model = self._model.clone()
        model.reshape(list(shape))
        try:
            self._own[shape] = self._compile(model)
        except Exception as error:  # noqa: BLE001 -- OpenVINO's errors share no base; the model for any shape goes on
            log.warning("%s: no model of its own for sub-bands of shape %s: %s", self.name, shape, first_line(error))
            self._own[shape] = self._any
        return self._own[shape]

    def forget_shapes(self) -> None:
        """Forget what was compiled for shapes that a trial used."""
        self._own.clear()
        self._calls.clear()

    def _compile(self, model: Any) -> Any:
        """Compile a model, or take the compiled one that an earlier start has kept."""
        if self._engines is None:
            return self._core.compile_model(model, "CPU", PROPERTIES).create_infer_request()
        shape = str(model.input(0).get_partial_shape())
        return open_engine(self._engines, self._key | {"shape": shape}, partial(self._build, model), self._load)

    def _build(self, model: Any) -> bytes:
        """Compile a model to bytes."""
        stream = io.BytesIO()
        self._core.compile_model(model, "CPU", PROPERTIES).export_model(stream)
        return stream.getvalue()

    def _load(self, data: bytes) -> Any:
        """Return what runs a compiled model; None where OpenVINO refuses it."""
        try:
            return self._core.import_model(data, "CPU", PROPERTIES).create_infer_request()
        except RuntimeError:
            return None


class _SignalStack(ctypes.Structure):
    """`stack_t` of sigaltstack(2)."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def keeping_signal_stack() -> Iterator[None]:
    """Keep the stack on which this thread handles signals.

    On processors with AMX the CPU plug-in of OpenVINO, which every core loads for itself, puts a stack of its own there
    and at its end puts back the one that it found: where cores do not end in the order opposite to their beginning,
    that is one which is gone, and the next signal, such as SIGTERM, kills the process.
    """
    before = _SignalStack()
    known = LIBC.sigaltstack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known:
            LIBC.sigaltstack(ctypes.byref(before), None)


def _library() -> Any:
    """Import OpenVINO; MissingExtraError where it is not installed, ProviderError where it is broken."""
    try:
        import openvino  # noqa: PLC0415 -- an extra, and slow to import
    except ModuleNotFoundError as error:
        raise MissingExtraError("openvino", "openvino") from error
    except (ImportError, OSError) as error:
        raise ProviderError(f"openvino cannot be imported ({first_line(error)}); install it again") from error
    return openvino
