"""The encoder against the authors' own: embeddings, names, token order, lengths."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fisher_edge.dsp.frontend import FrontEnd
from fisher_edge.errors import BadArtifactError, BadInputError
from fisher_train.checkpoint import build_encoder, load_checkpoint
from fisher_train.encoder import PRESETS, Encoder, EncoderConfig, sin_cos_positions

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).parents[2] / "shared" / "reference" / "model"
TOLERANCE = 1e-4
POSITIONS = "modality_encoders.IMAGE.fixed_positional_encoder.positions"
NANO = PRESETS["nano"]


def embed(path: Path, wave: np.ndarray, rate_hz: int, *, pad_frames: bool) -> np.ndarray:
    """Return the bands' embeddings, concatenated low to high."""
    encoder = build_encoder(load_checkpoint(path))
    bands = FrontEnd(band_width=encoder.config.band_width).sub_bands(wave, rate_hz, pad_frames=pad_frames)
    with torch.inference_mode():
        embedding: np.ndarray = encoder(torch.from_numpy(bands)).numpy().ravel()
    return embedding


@pytest.mark.parametrize("pad_frames", [False, True])
@pytest.mark.parametrize(
    ("checkpoint", "prefix"),
    [("official_micro_band100_trimmed.pt", "band100"), ("official_micro_band50_time.pt", "band50_time")],
)
def test_encoder_agrees_with_reference(checkpoint: str, prefix: str, pad_frames: bool) -> None:
    """Both token orders give the embeddings of the authors' code."""
    case = np.load(DATA / "official_micro_case01.npz")
    expected = case[f"{prefix}_embedding" + ("_padded_1024" if pad_frames else "")]
    found = embed(DATA / checkpoint, case["wave"], int(case["rate_hz"]), pad_frames=pad_frames)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the full reference vectors are not on this machine")
@pytest.mark.parametrize("pad_frames", [False, True])
@pytest.mark.parametrize("case", range(6))
@pytest.mark.parametrize("name", ["official_micro_band100", "official_micro_band50_time"])
def test_encoder_agrees_with_all_reference_cases(name: str, case: int, pad_frames: bool) -> None:
    """Six rates from 5 to 64 kHz give the embeddings of the authors' code."""
    vectors = np.load(SHARED / f"{name}.npz")
    expected = vectors[f"case{case:02}_embedding" + ("_padded_1024" if pad_frames else "")]
    rate_hz = int(vectors[f"case{case:02}_rate_hz"])
    found = embed(SHARED / f"{name}.pt", vectors[f"case{case:02}_wave"], rate_hz, pad_frames=pad_frames)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("preset", "millions"), [("tiny", 5.39), ("mini", 9.54), ("small", 21.39), ("nano", 1.22)])
def test_preset_has_the_published_size(preset: str, millions: float) -> None:
    """Trainable parameters are those of the paper; the positions table is not one of them."""
    with torch.device("meta"):
        encoder = Encoder(PRESETS[preset])
    count = sum(parameter.numel() for parameter in encoder.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.01)


def test_state_dict_has_official_keys_and_shapes() -> None:
    """The keys of FISHER-tiny are exactly the published ones."""
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in Encoder(PRESETS["tiny"]).state_dict().items()}
    image, block = "modality_encoders.IMAGE", "blocks.11"
    expected = {
        f"{image}.extra_tokens": (1, 1, 192),
        f"{image}.local_encoder.proj.weight": (192, 1, 16, 16),
        f"{image}.local_encoder.proj.bias": (192,),
        POSITIONS: (1, 6400, 192),
        f"{image}.context_encoder.norm.weight": (192,),
        f"{block}.attn.qkv.weight": (576, 192),
        f"{block}.attn.proj.weight": (192, 192),
        f"{block}.mlp.fc1.weight": (768, 192),
        f"{block}.mlp.fc2.weight": (192, 768),
        f"{block}.norm2.bias": (192,),
    }
    assert {key: shapes.get(key) for key in expected} == expected
    assert len(shapes) == 6 + 12 * 12


def test_positions_equal_the_official_table() -> None:
    """The sin-cos table is the one in the official file, row by row."""
    official = load_checkpoint(DATA / "official_micro_band50_time.pt")
    table = sin_cos_positions(32, official.config.max_length, official.config.max_freq)
    torch.testing.assert_close(table, official.state[POSITIONS], atol=1e-5, rtol=0)


def test_last_block_computes_only_what_is_read() -> None:
    """Leaving out the other queries of the last block changes nothing."""
    encoder = Encoder(NANO).eval()
    bands = torch.randn(3, 96, 50)
    with torch.inference_mode():
        tokens = encoder.modality_encoders["IMAGE"](bands)
        for block in encoder.blocks:
            tokens = block(tokens)
        torch.testing.assert_close(encoder(bands), tokens[:, 0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("frames", [16, 17, 96, 1023, 1024, 2048])
def test_any_number_of_frames_from_one_patch(frames: int) -> None:
    """Windows from 0.16 s up to the length of the table are embedded; frames past the last patch are not used."""
    encoder = Encoder(NANO).eval()
    bands = torch.randn(2, frames, 50)
    with torch.inference_mode():
        found = encoder(bands)
        whole = encoder(bands[:, : frames // 16 * 16])
    assert found.shape == (2, 128)
    torch.testing.assert_close(found, whole)


@pytest.mark.parametrize("shape", [(2, 15, 50), (2, 2064, 50), (2, 96, 100), (96, 50)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    """A shape the encoder was not made for is an error that names it."""
    with pytest.raises(BadInputError, match="sub-bands have"):
        Encoder(NANO)(torch.zeros(shape))


def test_bands_do_not_see_each_other() -> None:
    """A band's embedding is the same alone and among others."""
    encoder = Encoder(NANO).eval()
    bands = torch.randn(4, 96, 50)
    with torch.inference_mode():
        torch.testing.assert_close(encoder(bands)[2], encoder(bands[2:3])[0], atol=1e-5, rtol=1e-5)


def test_flatten_changes_the_token_order() -> None:
    """The same weights in the other token order give another embedding."""
    torch.manual_seed(0)
    state = Encoder(NANO).state_dict()
    bands = torch.randn(1, 96, 50)
    found = []
    for flatten in ("freq", "time"):
        encoder = Encoder(EncoderConfig(**{**vars(NANO), "flatten": flatten})).eval()
        encoder.load_state_dict(state)
        with torch.inference_mode():
            found.append(encoder(bands))
    assert (found[0] - found[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "values",
    [
        {"embed_dim": 0},
        {"embed_dim": 10**9},
        {"num_heads": 5},
        {"depth": 10**6},
        {"band_width": 8},
        {"max_length": 10**6},
        {"max_freq": -1},
        {"norm_eps": 0.0},
        {"norm_eps": float("nan")},
        {"mlp_ratio": 1e9},
        {"patch_size": 0},
        {"max_length": 1, "max_freq": 1},
    ],
)
def test_impossible_config_is_refused(values: dict[str, Any]) -> None:
    """Shapes that no encoder can have are refused before anything is allocated."""
    with pytest.raises(BadArtifactError):
        replace(EncoderConfig(), **values)
