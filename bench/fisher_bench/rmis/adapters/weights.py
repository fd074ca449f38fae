"""Other people's weights files: read without running code, checked before use. Start at `read_weights` and `fill`."""

import argparse
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from fisher_edge.encoder.bundle import first_line
from fisher_edge.errors import BadArtifactError

__all__ = ["Origin", "count_parameters", "fill", "read_weights", "state_of"]

MAX_BYTES = 8 << 30
LONGEST_FAULT = 200
SCALAR = np.float64(0).__reduce__()[0]
"""NumPy's constructor of single numbers."""
HARMLESS: list[Any] = [
    argparse.Namespace,  # settings of a training run
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)),
    (SCALAR, "numpy.core.multiarray.scalar"),  # losses of a training run, by NumPy's name before and after 2.0
    (SCALAR, "numpy._core.multiarray.scalar"),
]
"""Constructors in published files, besides tensors and plain data, that only store values."""


@dataclass(frozen=True)
class Origin:
    """Whose file it is, and where it is published."""

    model: str
    published: str

    def refuse(self, path: Path, fault: str) -> BadArtifactError:
        """Say in one line what is wrong with a file and what to do."""
        return BadArtifactError(f"{path} {fault}; give the published weights of {self.model}: {self.published}")

    def misfit(self, path: Path, error: Exception) -> BadArtifactError:
        """Say that a network could not be built from the settings and weights of a file."""
        return self.refuse(path, f"does not fit the network ({' '.join(str(error).split())[:LONGEST_FAULT]})")


def read_weights(path: Path, origin: Origin) -> dict[str, Any]:
    """Read a PyTorch or safetensors file; BadArtifactError when it is missing, damaged or holds code."""
    if not path.is_file():
        raise origin.refuse(path, "is not there")
    if not 0 < path.stat().st_size <= MAX_BYTES:
        raise origin.refuse(path, f"has {path.stat().st_size} bytes, outside 1 to {MAX_BYTES}")
    try:
        content = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    except pickle.UnpicklingError as error:  # PyTorch's text would have the user run the code
        raise origin.refuse(path, "is damaged, no PyTorch file or holds code, which is never run") from error
    except Exception as error:  # a hostile file raises whatever it likes
        raise origin.refuse(path, f"cannot be read ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise origin.refuse(path, f"holds {type(content).__name__}, not a dictionary of weights")
    return content


def state_of(content: Mapping[str, Any], path: Path, origin: Origin, anchor: str) -> dict[str, Tensor]:
    """Return the tensors of a file, whether or not under "model", without the prefix that `anchor` has there.

    BadArtifactError when no key ends with `anchor`: then it is another model's file.
    """
    nested = content.get("model")
    found = nested if isinstance(nested, Mapping) else content
    tensors = {str(key): value for key, value in found.items() if _is_plain(value)}
    prefixes = [key[: -len(anchor)] for key in tensors if key == anchor or key.endswith("." + anchor)]
    if not prefixes:
        raise origin.refuse(path, f"has no weights {anchor}")
    prefix = min(prefixes, key=len)
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def fill(module: nn.Module, state: Mapping[str, Tensor], path: Path, origin: Origin) -> None:
    """Put weights into a module that was built on the device "meta", for evaluation; others are left out.

    BadArtifactError when one is missing, has another shape or is not finite.
    """
    chosen = {}
    for name, like in module.state_dict().items():
        value = state.get(name)
        if value is None:
            raise origin.refuse(path, f"lacks the weights {name}")
        if value.shape != like.shape:
            raise origin.refuse(path, f"has {name} of shape {tuple(value.shape)}, expected {tuple(like.shape)}")
        if not bool(torch.isfinite(value).all()):
            raise origin.refuse(path, f"has values in {name} that are not finite")
        # A copy lies where sums come out the same every time, which a part of a file need not.
        chosen[name] = value.detach().to(like.dtype).clone(memory_format=torch.contiguous_format)
    module.load_state_dict(chosen, assign=True)
    module.eval().requires_grad_(requires_grad=False)


def count_parameters(module: nn.Module) -> int:
    """Number of trained parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def _is_plain(value: Any) -> bool:
    """Whether something is a tensor that computing can be done with."""
    if not isinstance(value, Tensor):
        return False
    return value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized


def _safetensors(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = safetensors.torch.load_file(path)
    return state


def _pickled(path: Path) -> Any:
    """Unpickle plain data and tensors only, of an archive that does not unpack to more than it may."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAX_BYTES:
            raise ValueError(f"unpacks to {unpacked} bytes")
    with warnings.catch_warnings(), torch.serialization.safe_globals(HARMLESS):
        warnings.simplefilter("ignore")  # remarks on old storage types, not for the user
        return torch.load(path, map_location="cpu", weights_only=True)
