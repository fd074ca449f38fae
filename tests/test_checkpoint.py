"""Reading and writing checkpoints: every form, and every way one can be damaged."""

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.errors import BadArtifactError
from fisher_train import checkpoint as module
from fisher_train.checkpoint import Checkpoint, build_encoder, load_checkpoint, save_checkpoint
from fisher_train.encoder import Encoder, EncoderConfig

DATA = Path(__file__).parent / "data"
OFFICIAL = DATA / "official_micro_band50_time.pt"
CONFIG = EncoderConfig(embed_dim=16, depth=1, num_heads=2, band_width=50, max_length=8, max_freq=3)
FRONT_END = FrontEnd(band_width=50, top_band="pad", amplitude="standardise")
CLS = "modality_encoders.IMAGE.extra_tokens"


@pytest.fixture
def checkpoint() -> Checkpoint:
    """Return a small checkpoint with random weights."""
    torch.manual_seed(0)
    return Checkpoint(CONFIG, FRONT_END, Encoder(CONFIG).state_dict(), "micro", {"licence": "Apache-2.0"})


@pytest.fixture
def folder(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """Return the folder of a saved checkpoint."""
    save_checkpoint(tmp_path / "micro", checkpoint)
    return tmp_path / "micro"


def official() -> dict[str, Any]:
    """Return the content of the small official file."""
    content: dict[str, Any] = torch.load(OFFICIAL, weights_only=True)
    return content


def write_official(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Write an official file with a change."""
    content = official()
    change(content)
    torch.save(content, path)
    return path


def assert_refused(path: Path, match: str = ".") -> None:
    """Assert that loading gives one clear line that names the file."""
    with pytest.raises(BadArtifactError, match=match) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


def test_saved_checkpoint_loads_as_it_was(checkpoint: Checkpoint, folder: Path) -> None:
    """Config, front-end, name, facts and weights survive exactly."""
    found = load_checkpoint(folder)
    assert (found.config, found.front_end, found.name, found.facts) == (
        CONFIG,
        FRONT_END,
        "micro",
        {"licence": "Apache-2.0"},
    )
    assert found.state.keys() == checkpoint.state.keys()
    for key, value in checkpoint.state.items():
        torch.testing.assert_close(found.state[key], value, atol=0, rtol=0)


def test_half_precision_is_half_the_size_and_close(checkpoint: Checkpoint, folder: Path, tmp_path: Path) -> None:
    """`half` stores float16 and loads as float32 near the original."""
    save_checkpoint(tmp_path / "half", checkpoint, half=True)
    sizes = [(path / "model.safetensors").stat().st_size for path in (folder, tmp_path / "half")]
    assert sizes[1] < 0.6 * sizes[0]
    bands = torch.randn(3, 32, 50)
    found = [build_encoder(load_checkpoint(path))(bands) for path in (folder, tmp_path / "half")]
    assert found[1].dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(*found).min() > 0.9999


def test_save_replaces_and_leaves_nothing_beside(checkpoint: Checkpoint, folder: Path) -> None:
    """Saving over a checkpoint replaces it whole and leaves no temporary folder."""
    save_checkpoint(folder, Checkpoint(CONFIG, FRONT_END, checkpoint.state, "second"))
    assert load_checkpoint(folder).name == "second"
    assert os.listdir(folder.parent) == ["micro"]  # noqa: PTH208 - hidden files count


def test_save_refuses_what_overflows_in_half_precision(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A weight beyond float16 is refused and the folder is not touched."""
    state = {**checkpoint.state, CLS: torch.full((1, 1, 16), 1e6)}
    with pytest.raises(BadArtifactError, match="not finite"):
        save_checkpoint(tmp_path / "half", Checkpoint(CONFIG, FRONT_END, state, "big"), half=True)
    assert list(tmp_path.iterdir()) == []


def test_save_refuses_a_folder_of_something_else(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A folder that holds other files than a checkpoint is never replaced."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BadArtifactError, match=r"thesis\.txt"):
        save_checkpoint(tmp_path, checkpoint)
    assert (tmp_path / "thesis.txt").exists()


def test_build_encoder_is_ready_to_run(folder: Path) -> None:
    """The encoder is float32 and in evaluation mode."""
    encoder = build_encoder(load_checkpoint(folder))
    assert not encoder.training
    assert {value.dtype for value in encoder.state_dict().values()} == {torch.float32}


def test_official_file_has_official_front_end() -> None:
    """Official checkpoints keep the raw level and drop the incomplete top band."""
    found = load_checkpoint(OFFICIAL)
    assert found.front_end == FrontEnd(band_width=50, top_band="drop", amplitude="raw")
    assert (found.config.flatten, found.config.max_length, found.config.max_freq) == ("time", 64, 12)


def test_absent_settings_are_those_of_tiny(tmp_path: Path) -> None:
    """A config with nothing but the width and depth falls back to FISHER-tiny's other values."""
    state = Encoder(EncoderConfig(depth=1)).state_dict()
    torch.save({"cfg": {"model": {"depth": 1}}, "model": state}, tmp_path / "bare.pt")
    assert load_checkpoint(tmp_path / "bare.pt").config == EncoderConfig(depth=1)


def test_heads_of_pretraining_are_left_behind(tmp_path: Path) -> None:
    """Weights of decoder and teacher are ignored."""
    path = write_official(tmp_path / "a.pt", lambda c: c["model"].update({"decoder.0.weight": torch.zeros(3)}))
    assert "decoder.0.weight" not in load_checkpoint(path).state


def test_copy_of_the_teacher_is_left_behind(tmp_path: Path) -> None:
    """Where a file holds a second encoder under a longer prefix, the plain one is read."""

    def change(content: dict[str, Any]) -> None:
        student = content["model"]
        content["model"] = {"_ema." + key: value + 1 for key, value in student.items()} | student

    found = load_checkpoint(write_official(tmp_path / "both.pt", change))
    torch.testing.assert_close(found.state[CLS], official()["model"][CLS], atol=0, rtol=0)


@pytest.mark.parametrize("prefix", ["", "model.", "module.encoder."])
@pytest.mark.parametrize("nesting", ["cfg", "model", "flat"])
def test_official_folder_loads(tmp_path: Path, prefix: str, nesting: str) -> None:
    """config.json + model.safetensors with any nesting and key prefix give the embeddings of the .pt file."""
    content = official()
    config = {"cfg": content["cfg"], "model": content["cfg"], "flat": content["cfg"]["model"]}[nesting]
    (tmp_path / "config.json").write_text(json.dumps({"cfg": config} if nesting == "cfg" else config))
    state = {prefix + key: value for key, value in content["model"].items()}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    bands = torch.randn(2, 64, 50)
    found, expected = (build_encoder(load_checkpoint(path))(bands) for path in (tmp_path, OFFICIAL))
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("model", "layer_norm_first", True),
        ("model", "norm_affine", False),
        ("model", "qkv_bias", False),
        ("image", "in_chans", 3),
        ("image", "num_extra_tokens", 2),
        ("image", "use_alibi_encoder", True),
        ("image", "fixed_positions", False),
        ("image", "prenet_depth", 4),
        ("image", "flatten", "diagonal"),
        ("image", "embed_dim", 64),
        ("model", "embed_dim", "32"),
        ("model", "depth", 3),
        ("model", "depth", 1),
        ("model", "depth", True),
        ("model", "num_heads", 10**12),
        ("image", "max_length", 2**62),
        ("model", "modalities", 3),
    ],
)
def test_setting_that_is_not_implemented_is_refused(tmp_path: Path, part: str, name: str, value: object) -> None:
    """A setting this encoder cannot honour is named, not ignored; one layer less than the weights is one."""

    def change(content: dict[str, Any]) -> None:
        model = content["cfg"]["model"]
        (model if part == "model" else model["modalities"]["image"])[name] = value

    assert_refused(write_official(tmp_path / "odd.pt", change), name if name != "depth" else ".")


def _drop(content: dict[str, Any]) -> None:
    del content["model"]["blocks.1.attn.qkv.bias"]


def _reshape(content: dict[str, Any]) -> None:
    content["model"]["blocks.1.attn.qkv.bias"] = torch.zeros(95)


def _nan(content: dict[str, Any]) -> None:
    content["model"]["blocks.0.mlp.fc1.weight"][3, 5] = float("nan")


def _integers(content: dict[str, Any]) -> None:
    content["model"]["blocks.1.attn.qkv.bias"] = torch.zeros(96, dtype=torch.int64)


def _no_tensor(content: dict[str, Any]) -> None:
    content["model"][CLS] = [0.0] * 32


def _no_model(content: dict[str, Any]) -> None:
    del content["model"]


def _list_model(content: dict[str, Any]) -> None:
    content["model"] = [1, 2]


def _empty_model(content: dict[str, Any]) -> None:
    content["model"] = {}


@pytest.mark.parametrize("change", [_drop, _reshape, _nan, _integers, _no_tensor, _no_model, _list_model, _empty_model])
def test_damaged_official_content_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Missing, misshapen, non-finite and misplaced weights are each one clear line."""
    assert_refused(write_official(tmp_path / "damaged.pt", change))


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        """Ask for a file to be made."""
        return (os.mkdir, (str(self.marker),))


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    """A pickle with a call in it is refused and the call is not made."""
    marker = tmp_path / "it-ran"
    path = write_official(tmp_path / "evil.pt", lambda content: content.update(extra=Evil(marker)))
    assert_refused(path, "never run")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil(marker)))
    assert_refused(tmp_path / "plain.pt")
    assert not marker.exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated_official_file_is_refused(tmp_path: Path, share: float) -> None:
    """A download that broke off is one clear line, wherever it broke off."""
    content = OFFICIAL.read_bytes()
    (tmp_path / "part.pt").write_bytes(content[: int(share * len(content))])
    assert_refused(tmp_path / "part.pt")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_truncated_folder_is_refused(folder: Path, name: str, share: float) -> None:
    """A half-copied folder is one clear line that names the damaged file."""
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(share * (len(content) - 2))])
    with pytest.raises(BadArtifactError, match=name):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"\x00" * 64, b"\xff" * 64, b"[" * 100_000, b"null", b'"text"', b"3"])
def test_garbage_in_a_folder_is_refused(folder: Path, name: str, content: bytes) -> None:
    """Whatever the bytes are, the error is the same kind."""
    (folder / name).write_bytes(content)
    with pytest.raises(BadArtifactError, match=name):
        load_checkpoint(folder)


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"PK\x03\x04" + b"\x00" * 64, b"not a checkpoint"])
def test_garbage_as_official_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """Whatever the bytes are, the error is the same kind."""
    (tmp_path / "garbage.pt").write_bytes(content)
    assert_refused(tmp_path / "garbage.pt")


def test_zip_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    """Any other archive is refused."""
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert_refused(tmp_path / "other.pt")


def test_archive_that_unpacks_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small archive that unpacks to more than the cap is refused unread."""
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", b"\x00" * 1_000_000)
    monkeypatch.setattr(module, "MAX_BYTES", 100_000)
    assert_refused(tmp_path / "bomb.pt", "unpacks to")


def test_file_above_the_cap_is_refused(tmp_path: Path) -> None:
    """A file of more than 1 GiB (sparse here) is refused unread."""
    with (tmp_path / "large.pt").open("wb") as file:
        file.truncate((1 << 30) + 1)
    assert_refused(tmp_path / "large.pt", "bytes")


@pytest.mark.parametrize("missing", ["", "config.json", "model.safetensors"])
def test_missing_path_is_refused(folder: Path, missing: str) -> None:
    """A missing folder or file is named."""
    if not missing:
        assert_refused(folder / "nowhere", "not there")
        return
    (folder / missing).unlink()
    with pytest.raises(BadArtifactError, match=f"{missing} is not there"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("front_end", "band_width", 100),
        ("front_end", "band_width", "50"),
        ("front_end", "std", 0),
        ("front_end", "std", None),
        ("front_end", "top_band", "mirror"),
        ("front_end", "later_field", 1),
        ("encoder", "depth", 2),
        ("encoder", "depth", 1.0),
        ("encoder", "later_field", 1),
        ("encoder", "flatten", 3),
    ],
)
def test_damaged_project_config_is_refused(folder: Path, table: str, key: str, value: object) -> None:
    """A value that does not fit, or that a later version wrote, is refused."""
    config = json.loads((folder / "config.json").read_text())
    config[table][key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadArtifactError):
        load_checkpoint(folder)


@pytest.mark.parametrize(("key", "value"), [("encoder", None), ("front_end", []), ("facts", "none")])
def test_project_config_without_its_tables_is_refused(folder: Path, key: str, value: object) -> None:
    """A table of the wrong kind is refused."""
    config = json.loads((folder / "config.json").read_text())
    config[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadArtifactError):
        load_checkpoint(folder)


def test_non_finite_weights_in_a_folder_are_refused(checkpoint: Checkpoint, folder: Path) -> None:
    """An infinity in the weights is refused at load."""
    state = {**checkpoint.state, CLS: torch.full((1, 1, 16), float("inf"))}
    safetensors.torch.save_file(state, folder / "model.safetensors")
    with pytest.raises(BadArtifactError, match="not finite"):
        load_checkpoint(folder)
