"""Checkpoints: read the project's and the official ones, write the project's.

Start at `load_checkpoint` and `build_encoder`. A checkpoint comes from anywhere, so nothing in it is trusted:
no code is run, sizes are capped, and every fault is one `BadArtifactError` that names the file.
"""

import json
import os
import shutil
import warnings
import zipfile
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.errors import BadArtifactError
from fisher_train.encoder import Encoder, EncoderConfig

__all__ = ["Checkpoint", "build_encoder", "load_checkpoint", "save_checkpoint"]

MAX_BYTES = 1 << 30
MAX_CONFIG_BYTES = 1 << 20
ANCHOR = "modality_encoders.IMAGE.extra_tokens"
"""The key by which a common prefix (`model.`) is recognised."""
FIXED = {
    "layer_norm_first": False,
    "norm_affine": True,
    "qkv_bias": True,
    "in_chans": 1,
    "num_extra_tokens": 1,
    "prenet_depth": 0,
    "fixed_positions": True,
    "use_alibi_encoder": False,
}
"""Official settings of which this encoder implements one value; any other is refused, not ignored."""
FILES = {"config.json", "model.safetensors"}
GET_ANOTHER = "download or copy the checkpoint again"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """An encoder at rest: its shape, the front-end it was trained with and its weights (float32)."""

    config: EncoderConfig
    front_end: FrontEnd
    state: dict[str, Tensor]
    name: str
    facts: dict[str, Any] = field(default_factory=dict)
    """How it was trained, and the licence of the weights."""


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a project checkpoint folder, an official `.pt` file or an official-style safetensors folder.

    Raises BadArtifactError when the path is missing, damaged, larger than 1 GiB, holds code, non-finite or
    wrongly shaped weights, or asks for a setting that this encoder does not implement.
    """
    path = Path(path)
    if path.is_dir():
        return _load_folder(path)
    if not path.is_file():
        raise BadArtifactError(
            f"{path} is not there; give a project checkpoint folder, an official .pt file or a folder with "
            "config.json and model.safetensors"
        )
    return _load_official_file(path)


def build_encoder(checkpoint: Checkpoint) -> Encoder:
    """Return the encoder of a checkpoint, float32, in evaluation mode."""
    encoder = Encoder(checkpoint.config)
    encoder.load_state_dict(checkpoint.state)
    return encoder.eval()


def save_checkpoint(folder: str | Path, checkpoint: Checkpoint, *, half: bool = False) -> None:
    """Write `config.json` and `model.safetensors` into a folder, replacing a checkpoint that is there.

    The folder is written under another name and renamed, so a half-written one is never seen; `half` stores float16.
    Raises BadArtifactError when weights are not finite in the stored precision, or when
    the folder holds anything but a checkpoint.
    """
    folder = Path(folder)
    dtype = torch.float16 if half else torch.float32
    state = {key: value.detach().to("cpu", dtype).contiguous() for key, value in checkpoint.state.items()}
    _check_finite(state, folder)
    config = {
        "format": "fisher-edge checkpoint 1",
        "name": checkpoint.name,
        "encoder": asdict(checkpoint.config),
        "front_end": checkpoint.front_end.to_dict(),
        "facts": checkpoint.facts,
    }
    others = {path.name for path in folder.iterdir()} - FILES if folder.is_dir() else set()
    if others or (folder.exists() and not folder.is_dir()):
        raise BadArtifactError(
            f"{folder} holds {', '.join(sorted(others)) or 'a file'}, not a checkpoint; save elsewhere"
        )
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    _write(beside / "config.json", (json.dumps(config, indent=2) + "\n").encode())
    _write(beside / "model.safetensors", safetensors.torch.save(state))
    _swap(beside, folder)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _swap(beside: Path, folder: Path) -> None:
    """Replace `folder` by `beside`."""
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _load_folder(folder: Path) -> Checkpoint:
    values = _read_config(folder / "config.json")
    weights = folder / "model.safetensors"
    _check_size(weights, MAX_BYTES)
    try:
        state = safetensors.torch.load_file(weights)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise BadArtifactError(f"{weights} is not a whole safetensors file ({_line(error)}); {GET_ANOTHER}") from error
    if "front_end" not in values:
        config = _official_config(values, folder / "config.json")
        return _checkpoint(config, FrontEnd(band_width=config.band_width), state, weights, name=folder.name, facts={})
    config, front_end = _project_config(values, folder / "config.json")
    facts = values.get("facts", {})
    if not isinstance(facts, dict):
        raise BadArtifactError(f"{folder / 'config.json'} has facts that are not an object; {GET_ANOTHER}")
    return _checkpoint(config, front_end, state, weights, name=str(values.get("name", folder.name)), facts=facts)


def _load_official_file(path: Path) -> Checkpoint:
    content = _read_official(path)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise BadArtifactError(f"{path} has no 'model' with a state dict; it is not an official FISHER checkpoint")
    config = _official_config(content, path)
    return _checkpoint(config, FrontEnd(band_width=config.band_width), content["model"], path, name=path.stem, facts={})


def _read_official(path: Path) -> Any:
    """Unpickle plain data and tensors only; the archive's unpacked size is capped before anything is read."""
    _check_size(path, MAX_BYTES)
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise BadArtifactError(f"{path} is not a whole PyTorch file ({_line(error)}); {GET_ANOTHER}") from error
    if unpacked > MAX_BYTES:
        raise BadArtifactError(f"{path} unpacks to {unpacked} bytes, more than {MAX_BYTES}; {GET_ANOTHER}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on old storage types, not for the user
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile pickle raises whatever it likes
        raise BadArtifactError(
            f"{path} cannot be read as plain data and tensors ({_line(error)}); it is damaged or holds code, which "
            f"is never run: {GET_ANOTHER} from its authors"
        ) from error


def _read_config(path: Path) -> dict[str, Any]:
    _check_size(path, MAX_CONFIG_BYTES)
    try:
        values = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise BadArtifactError(f"{path} is not JSON ({_line(error)}); {GET_ANOTHER}") from error
    if not isinstance(values, dict):
        raise BadArtifactError(f"{path} holds no object; {GET_ANOTHER}")
    return values


def _check_size(path: Path, largest: int) -> None:
    if not path.is_file():
        raise BadArtifactError(f"{path} is not there; a checkpoint folder holds config.json and model.safetensors")
    size = path.stat().st_size
    if not 0 < size <= largest:
        raise BadArtifactError(f"{path} has {size} bytes, outside 1 to {largest}; {GET_ANOTHER}")


def _project_config(values: dict[str, Any], path: Path) -> tuple[EncoderConfig, FrontEnd]:
    encoder = values.get("encoder")
    if not isinstance(encoder, dict) or not isinstance(values["front_end"], dict):
        raise BadArtifactError(f"{path} lacks the objects 'encoder' and 'front_end'; {GET_ANOTHER}")
    known = {item.name for item in fields(EncoderConfig)}
    if encoder.keys() != known:
        raise BadArtifactError(
            f"{path} has encoder fields {sorted(encoder.keys() ^ known)} too many or too few; update fisher-edge"
        )
    config = _encoder_config(encoder, path)
    try:
        front_end = FrontEnd.from_dict(values["front_end"])
    except (TypeError, ValueError) as error:
        raise BadArtifactError(f"{path} has a front_end with a wrong type ({_line(error)}); {GET_ANOTHER}") from error
    if front_end.band_width != config.band_width:
        raise BadArtifactError(
            f"{path} has bands of {front_end.band_width} bins in the front-end and {config.band_width} in the encoder; "
            f"{GET_ANOTHER}"
        )
    return config, front_end


def _official_config(content: dict[str, Any], path: Path) -> EncoderConfig:
    """Find the model's settings in the official nesting; absent ones are those of FISHER-tiny."""
    model = content
    for key in ("cfg", "model"):
        if isinstance(model.get(key), dict) and not _is_state(model[key]):
            model = model[key]
    image = model.get("modalities", {})
    image = image.get("image", image.get("IMAGE", {})) if isinstance(image, dict) else None
    if not isinstance(image, dict):
        raise BadArtifactError(f"{path} has 'modalities' that are not a mapping; {GET_ANOTHER}")
    for name, implemented in FIXED.items():
        for part in (model, image):
            if part.get(name, implemented) != implemented:
                raise BadArtifactError(
                    f"{path} asks for {name}={part[name]!r}; this encoder implements {name}={implemented!r} only"
                )
    values: dict[str, Any] = {}
    for item in fields(EncoderConfig):
        found = [part[item.name] for part in (model, image) if item.name in part]
        if len(found) == 2 and found[0] != found[1]:
            raise BadArtifactError(f"{path} gives {item.name} twice, as {found[0]!r} and {found[1]!r}; {GET_ANOTHER}")
        if found:
            values[item.name] = found[0]
    return _encoder_config(values, path)


def _is_state(values: dict[str, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in values.values())


def _encoder_config(values: dict[str, Any], path: Path) -> EncoderConfig:
    for item in fields(EncoderConfig):
        value = values.get(item.name, item.default)
        allowed = (int, float) if item.type is float else (str,) if item.name == "flatten" else (int,)
        if not isinstance(value, allowed) or isinstance(value, bool):
            raise BadArtifactError(f"{path} has {item.name}={value!r}, which is of the wrong type; {GET_ANOTHER}")
    try:
        return EncoderConfig(**values)
    except BadArtifactError as error:
        raise BadArtifactError(f"{path}: {error}") from error


def _checkpoint(
    config: EncoderConfig,
    front_end: FrontEnd,
    found: dict[str, Any],
    path: Path,
    *,
    name: str,
    facts: dict[str, Any],
) -> Checkpoint:
    """Keep the encoder's weights, in float32, and leave the heads of pre-training (decoder, ...) behind."""
    with torch.device("meta"):
        expected = Encoder(config).state_dict()
    prefixes = (str(key)[: -len(ANCHOR)] for key in found if str(key).endswith(ANCHOR))
    prefix = min(prefixes, key=len, default="")  # the student's, where the file also holds the teacher
    if any(str(key).startswith(f"{prefix}blocks.{config.depth}.") for key in found):
        raise BadArtifactError(
            f"{path} has more blocks than depth={config.depth}; its config is not that of its weights"
        )
    state = {}
    for key, like in expected.items():
        value = found.get(prefix + key)
        if not isinstance(value, Tensor):
            raise BadArtifactError(f"{path} lacks the weights {key}; its config and its weights do not belong together")
        if value.shape != like.shape or not value.is_floating_point() or value.device.type != "cpu":
            raise BadArtifactError(
                f"{path} has {key} of shape {tuple(value.shape)} and type {value.dtype}, expected {tuple(like.shape)} "
                "of floats; its config and its weights do not belong together"
            )
        state[key] = value.to_dense().detach().to(torch.float32).contiguous()
    _check_finite(state, path)
    return Checkpoint(config, front_end, state, name, facts)


def _check_finite(state: dict[str, Tensor], path: Path) -> None:
    for key, value in state.items():
        if not bool(torch.isfinite(value).all()):
            raise BadArtifactError(f"{path} has values in {key} that are not finite; train or download it again")


def _line(error: Exception) -> str:
    """First line of an error's text, or its type where it has none."""
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__
