"""Google's speech_embedding, trained on spoken words: the models that come with openwakeword. Start at `open_adapter`.

Both are licensed Apache-2.0 and run in ONNX Runtime; the package itself is not imported.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from fisher_bench.rmis.adapters.adapter import Adapter, digest_of, file_digest, package_folder
from fisher_bench.rmis.adapters.resample import QUALITY, resampled
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.encoder.bundle import first_line
from fisher_edge.errors import BadArtifactError

__all__ = ["open_adapter", "open_models"]

FOLDER = Path("resources", "models")
MODELS = ("melspectrogram.onnx", "embedding_model.onnx")
RATE_HZ = 16_000
FULL_SCALE = 32_767
"""The spectra are made from samples in the range of 16-bit integers."""
FRAMES, HOP_FRAMES, MEL_BANDS = 76, 8, 32
"""Frames (10 ms each) that one embedding sees, and from one embedding to the next."""
DIM = 96
SHORTEST_SAMPLES = 160 * (FRAMES + 3)
"""Samples that surely make one embedding; shorter windows are filled with zeros."""
ERRORS_ONLY = 3


def open_adapter() -> Adapter:
    """Open the installed models: (96,), mean over pieces of 0.76 s; a wave of 1 is full scale."""
    return open_models(package_folder("openwakeword") / FOLDER)


def open_models(folder: Path) -> Adapter:
    """Open the two models of a folder; BadArtifactError when they are not there or not these."""
    paths = [folder / name for name in MODELS]
    mel, network = (_session(path) for path in paths)
    if list(network.get_inputs()[0].shape[1:]) != [FRAMES, MEL_BANDS, 1]:
        raise BadArtifactError(f"{paths[1]} takes other spectra than speech_embedding; install openwakeword 0.4 again")

    def compute(wave: FloatArray, rate_hz: int) -> FloatArray:
        wave = resampled(wave, rate_hz, RATE_HZ)
        wave = np.pad(wave, (0, max(0, SHORTEST_SAMPLES - len(wave)))) * np.float32(FULL_SCALE)
        spectra = mel.run(None, {"input": wave[None]})[0].reshape(-1, MEL_BANDS) / 10 + 2
        pieces = np.lib.stride_tricks.sliding_window_view(spectra, FRAMES, axis=0)[::HOP_FRAMES]
        inputs = np.ascontiguousarray(pieces.transpose(0, 2, 1)[..., None], np.float32)
        mean: FloatArray = network.run(None, {"input_1": inputs})[0].reshape(-1, DIM).mean(axis=0)
        return mean

    settings = {"rate_hz": RATE_HZ, "frames": FRAMES, "hop_frames": HOP_FRAMES, "resampling": QUALITY}
    weights = onnx.load(str(paths[1])).graph.initializer
    parameters = sum(int(np.prod(tensor.dims)) for tensor in weights)
    return Adapter("speech_embedding", digest_of(file_digest(*paths), settings), parameters, compute)


def _session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base but this
        raise BadArtifactError(
            f"{path} is not a model that ONNX Runtime can load ({first_line(error)}); install openwakeword 0.4 again"
        ) from error
