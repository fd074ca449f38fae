"""The encoders others have published, from files with their names of weights: against slow forwards written here."""

import argparse
import importlib.util
import re
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from fisher_bench.rmis.adapters import FAMILIES, open_adapter, python_torchaudio
from fisher_bench.rmis.adapters.resample import resampled
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.errors import BadArtifactError, BadInputError, MissingExtraError

pytestmark = pytest.mark.extras  # transformers, speechbrain, dasheng and torchaudio are installed by `make nightly`

DIM, DEPTH, HEAD_DIM = 128, 2, 64
MEAN, STD = -4.2677393, 4.5689974
TOLERANCE = 2e-4
BASE_PARAMETERS = {
    "audiomae": 85_648_128,
    "beats": 90_311_792,
    "ced": 85_304_960,
    "dasheng": 85_447_808,
    "eat": 85_254_144,
}
"""Of the published sizes, heads of pre-training and tagging left out."""

State = dict[str, Tensor]
Make = Callable[..., Tensor]


class Numbers:
    """Random weights of a repeatable sequence; `spread` is their deviation."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, *shape: int, spread: float = 0.1, about: float = 0.0) -> Tensor:
        """Random numbers of a shape."""
        return about + spread * torch.randn(shape, generator=self._generator)


def same(*shape: int, spread: float = 0.1, about: float = 0.0) -> Tensor:
    """One number in a shape of any size: a file of the base model takes no room."""
    return torch.tensor(about + spread).expand(shape)


def linear(make: Make, name: str, *shape: int) -> State:
    """Weight and bias of a layer; a shape of one number is that of a norm."""
    about = 1.0 if len(shape) == 1 else 0.0
    return {f"{name}.weight": make(*shape, about=about), f"{name}.bias": make(shape[0])}


def timm_blocks(make: Make, dim: int, depth: int) -> State:
    """Weights of pre-norm blocks under timm's names (also those of EAT's post-norm blocks)."""
    state: State = {}
    for block in (f"blocks.{index}" for index in range(depth)):
        state |= linear(make, f"{block}.norm1", dim) | linear(make, f"{block}.attn.qkv", 3 * dim, dim)
        state |= linear(make, f"{block}.attn.proj", dim, dim) | linear(make, f"{block}.norm2", dim)
        state |= linear(make, f"{block}.mlp.fc1", 4 * dim, dim) | linear(make, f"{block}.mlp.fc2", dim, 4 * dim)
    return state


def audiomae_content(make: Make, dim: int, depth: int) -> dict[str, Any]:
    """What `pretrained.pth` holds: the encoder, a decoder and the settings of its training."""
    state = {"cls_token": make(1, 1, dim), "pos_embed": make(1, 513, dim), "mask_token": make(1, 1, 8)}
    state |= linear(make, "patch_embed.proj", dim, 1, 16, 16) | linear(make, "norm", dim)
    state |= timm_blocks(make, dim, depth) | linear(make, "decoder_embed", 8, dim)
    return {"model": state, "epoch": 31, "args": argparse.Namespace(model="mae_vit_base_patch16")}


def ced_content(make: Make, dim: int, depth: int) -> dict[str, Any]:
    """What `audiotransformer_base_mAP_4999.pt` holds: weights, the front-end's constants, a classifier."""
    state = {f"init_bn.1.{name}": value for name, value in linear(make, "x", 64).items()}
    state = {name.replace("x.", ""): value for name, value in state.items()}
    state |= {"init_bn.1.running_mean": make(64, about=-20.0), "init_bn.1.running_var": make(64, about=300.0)}
    state |= {"init_bn.1.num_batches_tracked": torch.tensor(7), "front_end.0.mel_scale.fb": make(257, 64)}
    state |= {"time_pos_embed": make(1, dim, 1, 63), "freq_pos_embed": make(1, dim, 4, 1)}
    state |= linear(make, "patch_embed.proj", dim, 1, 16, 16) | linear(make, "norm", dim)
    return state | timm_blocks(make, dim, depth) | linear(make, "outputlayer.1", 527, dim)


def eat_content(make: Make, dim: int, depth: int) -> dict[str, Any]:
    """What `EAT-base_epoch30_pt.pt` holds, as fairseq saves it: student, decoder, teacher, settings, progress."""
    image = "modality_encoders.IMAGE"
    state: dict[str, Any] = linear(make, f"{image}.local_encoder.proj", dim, 1, 16, 16)
    state |= {f"{image}.extra_tokens": make(1, 1, dim)} | linear(make, f"{image}.context_encoder.norm", dim)
    state |= {f"{image}.fixed_positional_encoder.positions": make(1, 512, dim)} | timm_blocks(make, dim, depth)
    state |= linear(make, f"{image}.decoder.proj", 8, 8)
    state["_ema"] = OrderedDict(linear(make, "blocks.0.norm1", dim))
    settings = {
        "depth": depth,
        "layer_norm_first": False,
        "modalities": {"image": {"prenet_depth": 0, "type": "IMAGE"}},
    }
    return {"args": None, "cfg": {"model": settings}, "model": state, "extra_state": {"loss": np.float64(1.5)}}


def beats_content(make: Make, dim: int, depth: int) -> dict[str, Any]:
    """What `BEATs_iter3.pt` holds: settings and weights; layers share their table of relative positions."""
    table = make(320, dim // HEAD_DIM)
    state = {"patch_embedding.weight": make(512, 1, 16, 16)} | linear(make, "layer_norm", 512)
    state |= linear(make, "post_extract_proj", dim, 512) | linear(make, "encoder.layer_norm", dim)
    state |= {"encoder.pos_conv.0.bias": make(dim), "encoder.pos_conv.0.weight_g": make(1, 1, 128, about=1.0)}
    state |= {"encoder.pos_conv.0.weight_v": make(dim, dim // 16, 128)}
    for layer in (f"encoder.layers.{index}" for index in range(depth)):
        attention = f"{layer}.self_attn"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            state |= linear(make, f"{attention}.{name}", dim, dim)
        state |= {f"{attention}.grep_a": make(1, dim // HEAD_DIM, 1, 1, about=1.0)}
        state |= linear(make, f"{attention}.grep_linear", 8, HEAD_DIM)
        state |= {f"{attention}.relative_attention_bias.weight": table}
        state |= linear(make, f"{layer}.self_attn_layer_norm", dim) | linear(make, f"{layer}.final_layer_norm", dim)
        state |= linear(make, f"{layer}.fc1", 4 * dim, dim) | linear(make, f"{layer}.fc2", dim, 4 * dim)
    settings = {
        "encoder_layers": depth,
        "encoder_embed_dim": dim,
        "encoder_ffn_embed_dim": 4 * dim,
        "encoder_attention_heads": dim // HEAD_DIM,
        "relative_position_embedding": True,
        "gru_rel_pos": True,
        "deep_norm": True,
        "max_distance": 800,
        "finetuned_model": False,
    }
    return {"cfg": settings, "model": state}


def dasheng_content(make: Make, dim: int, depth: int) -> dict[str, Any]:
    """What `dasheng_base.pt` holds: settings and weights, the front-end's constants among them."""
    from torchaudio.functional import melscale_fbanks  # noqa: PLC0415

    state = {"front_end.0.spectrogram.window": torch.hann_window(512)}
    state["front_end.0.mel_scale.fb"] = melscale_fbanks(257, 0.0, 8000.0, 64, 16_000)
    state |= {"init_bn.1.weight": make(64, about=1.0), "init_bn.1.bias": make(64)}
    state |= {"init_bn.1.running_mean": make(64, about=-20.0), "init_bn.1.running_var": make(64, about=300.0)}
    state |= {"init_bn.1.num_batches_tracked": torch.tensor(7)}
    state |= {"time_pos_embed": make(1, dim, 1, 252), "freq_pos_embed": make(1, dim, 1, 1)}
    state |= linear(make, "patch_embed.proj", dim, 1, 64, 4) | linear(make, "norm", dim)
    return {"model": state | timm_blocks(make, dim, depth), "config": {"target_length": 1008, "pooling": "mean"}}


CONTENTS = {
    "audiomae": audiomae_content,
    "beats": beats_content,
    "ced": ced_content,
    "dasheng": dasheng_content,
    "eat": eat_content,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute on one thread: on a busy machine two wait for each other. Import torchaudio before its users."""
    python_torchaudio.load()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small file of every model, with the names of weights of the published one."""
    folder, paths = tmp_path_factory.mktemp("weights"), {}
    for name, content in CONTENTS.items():
        paths[name] = folder / f"{name}.pt"
        torch.save(content(Numbers(), DIM, DEPTH), paths[name])
    return paths


def state_in(path: Path) -> State:
    """The weights in a file that a test has written."""
    content = torch.load(path, weights_only=False)
    state: State = content.get("model", content)
    return state


def wave(rate_hz: int = 16_000, seconds: float = 2.0) -> FloatArray:
    """Noise with a tone, its mean removed."""
    t = np.arange(round(rate_hz * seconds)) / rate_hz
    signal = 0.1 * np.random.default_rng(0).standard_normal(len(t)) + 0.3 * np.sin(2 * np.pi * 700 * t)
    return np.asarray(signal - signal.mean(), np.float32)


def attend(tokens: Tensor, state: Mapping[str, Tensor], name: str) -> Tensor:
    """Self-attention, one head at a time, with queries, keys and values in one matrix."""
    qkv = tokens @ state[f"{name}.qkv.weight"].T + state[f"{name}.qkv.bias"]
    dim, mixed = tokens.shape[1], []
    for head in range(dim // HEAD_DIM):
        q, k, v = (qkv[:, part * dim + head * HEAD_DIM :][:, :HEAD_DIM] for part in range(3))
        mixed.append(torch.softmax(q @ k.T / HEAD_DIM**0.5, dim=1) @ v)
    return torch.cat(mixed, dim=1) @ state[f"{name}.proj.weight"].T + state[f"{name}.proj.bias"]


def norm(tokens: Tensor, state: Mapping[str, Tensor], name: str) -> Tensor:
    """Layer norm with an epsilon of 1e-6."""
    centred = tokens - tokens.mean(-1, keepdim=True)
    scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-6)
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def mlp(tokens: Tensor, state: Mapping[str, Tensor], name: str) -> Tensor:
    """Two layers with an exact GELU between them."""
    hidden = tokens @ state[f"{name}.fc1.weight"].T + state[f"{name}.fc1.bias"]
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    return hidden @ state[f"{name}.fc2.weight"].T + state[f"{name}.fc2.bias"]


def pre_norm_blocks(tokens: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """The blocks of timm: norms before attention and before the MLP."""
    for block in (f"blocks.{index}" for index in range(DEPTH)):
        tokens = tokens + attend(norm(tokens, state, f"{block}.norm1"), state, f"{block}.attn")
        tokens = tokens + mlp(norm(tokens, state, f"{block}.norm2"), state, f"{block}.mlp")
    return tokens


def post_norm_blocks(tokens: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """The blocks of data2vec 2: norms after the sums."""
    for block in (f"blocks.{index}" for index in range(DEPTH)):
        tokens = norm(tokens + attend(tokens, state, f"{block}.attn"), state, f"{block}.norm1")
        tokens = norm(tokens + mlp(tokens, state, f"{block}.mlp"), state, f"{block}.norm2")
    return tokens


def patches_of(spectrum: Tensor, state: Mapping[str, Tensor], name: str) -> Tensor:
    """Project the 16 x 16 patches of a spectrum (rows, columns), row of patches by row of patches: (n, dim)."""
    rows, columns = spectrum.shape[0] // 16, spectrum.shape[1] // 16
    blocks = [spectrum[16 * r : 16 * r + 16, 16 * c : 16 * c + 16] for r in range(rows) for c in range(columns)]
    flat = torch.stack([block.reshape(-1) for block in blocks])
    return flat @ state[f"{name}.weight"].flatten(1).T + state[f"{name}.bias"]


def fbank_by_hand(samples: FloatArray, window: FloatArray) -> FloatArray:
    """Kaldi's filter bank: frames without offset, pre-emphasis, window, power of 512 points, 128 mel bands, log."""
    starts = range(0, len(samples) - 399, 160)
    frames = np.stack([samples[start : start + 400] for start in starts]).astype(np.float64)
    frames -= frames.mean(1, keepdims=True)
    frames -= 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    power = np.abs(np.fft.rfft(frames * window, 512)) ** 2
    edges = np.linspace(1127 * np.log(1 + 20 / 700), 1127 * np.log(1 + 8000 / 700), 130)
    mel = 1127 * np.log(1 + np.arange(256) * 16_000 / 512 / 700)[:, None]
    rise, fall = (mel - edges[:-2]) / np.diff(edges)[:-1], (edges[2:] - mel) / np.diff(edges)[1:]
    energy = power[:, :256] @ np.clip(np.minimum(rise, fall), 0, None)
    return np.asarray(np.log(np.maximum(energy, np.finfo(np.float32).eps)), np.float32)


def test_kaldi_mel_is_that_of_kaldi() -> None:
    """With either window the Python parts of torchaudio compute what the definition says."""
    from fisher_bench.rmis.adapters.mel import kaldi_mel  # noqa: PLC0415

    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)
    for name, window in (("hanning", hann), ("povey", hann**0.85)):
        expected = fbank_by_hand(wave(), window.astype(np.float32))
        actual = kaldi_mel(torch.from_numpy(wave()), window=name).numpy()
        assert actual.shape == expected.shape == (198, 128)
        assert np.abs(actual - expected).max() < 2e-3


@pytest.mark.parametrize("variant", ["", "?features=authors"])
def test_audiomae_equals_a_slow_forward(files: dict[str, Path], variant: str) -> None:
    """Names are mapped right: the original weights, by hand, give the same mean of patches."""
    state = state_in(files["audiomae"])
    mel = fbank_by_hand(wave(), np.hanning(400).astype(np.float32))
    spectrum = (torch.from_numpy(np.pad(mel, ((0, 1024 - len(mel)), (0, 0)))) - MEAN) / (2 * STD)
    patches = patches_of(spectrum, state, "patch_embed.proj")
    tokens = torch.cat([state["cls_token"][0], patches]) + state["pos_embed"][0]
    tokens = pre_norm_blocks(tokens, state)[1:]
    if variant:
        expected = norm(tokens, state, "norm").mean(0)
    else:
        expected = functional.layer_norm(tokens.mean(0), [DIM], eps=1e-6)
    actual = open_adapter(f"audiomae:{files['audiomae']}{variant}").embed(wave(), 16_000)
    np.testing.assert_allclose(actual, expected.numpy(), atol=5 * TOLERANCE)


def test_beats_leaves_no_module_behind_that_fails_when_looked_at(files: dict[str, Path]) -> None:
    """Python's own inspection walks over all modules; those of speechbrain that import k2 when touched are gone."""
    open_adapter(f"beats:{files['beats']}")
    seen = [hasattr(module, "__file__") for module in list(sys.modules.values())]
    assert len(seen) > 100


@pytest.mark.parametrize(("variant", "frames"), [("", 198), ("?features=authors", 1024)])
def test_eat_equals_a_slow_forward(files: dict[str, Path], variant: str, frames: int) -> None:
    """Time-major patches, their positions, a [CLS] without one, post-norm blocks; filled up to 1024 frames or not."""
    state, image = state_in(files["eat"]), "modality_encoders.IMAGE"
    mel = torch.from_numpy(fbank_by_hand(wave(), np.hanning(400).astype(np.float32)))
    mel = torch.cat([mel, torch.zeros(frames - len(mel), 128)])
    patches = patches_of((mel - MEAN) / (2 * STD), state, f"{image}.local_encoder.proj")
    patches = patches + state[f"{image}.fixed_positional_encoder.positions"][0, : len(patches)]
    tokens = torch.cat([state[f"{image}.extra_tokens"][0], patches])
    expected = post_norm_blocks(norm(tokens, state, f"{image}.context_encoder.norm"), state)[0]
    actual = open_adapter(f"eat:{files['eat']}{variant}").embed(wave(), 16_000)
    np.testing.assert_allclose(actual, expected.numpy(), atol=5 * TOLERANCE)


def ced_mel_by_hand(samples: FloatArray) -> Tensor:
    """Mel spectrum (64, frames) in dB: centred frames of 512, HTK's mel up to 8 kHz, at most 120 dB deep."""
    frames = np.pad(samples, 256, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(frames, 512)[::160]
    power = np.abs(np.fft.rfft(frames * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)))) ** 2
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 66) / 2595) - 1)
    hz = np.linspace(0, 8000, 257)[:, None]
    rise, fall = (hz - edges[:-2]) / np.diff(edges)[:-1], (edges[2:] - hz) / np.diff(edges)[1:]
    decibels = 10 * np.log10(np.maximum(power @ np.clip(np.minimum(rise, fall), 0, None), 1e-10))
    return torch.from_numpy(np.maximum(decibels, decibels.max() - 120).T.astype(np.float32))


def test_ced_equals_a_slow_forward(files: dict[str, Path]) -> None:
    """Mel bands normalised by their statistics, positions in time and in frequency, a norm, the mean of patches."""
    state = state_in(files["ced"])
    scale = state["init_bn.1.weight"] / torch.sqrt(state["init_bn.1.running_var"] + 1e-5)
    offset = state["init_bn.1.bias"] - state["init_bn.1.running_mean"] * scale
    mel = ced_mel_by_hand(wave()) * scale[:, None] + offset[:, None]
    patches = patches_of(mel, state, "patch_embed.proj").view(4, -1, DIM)
    time, frequency = state["time_pos_embed"][0, :, 0].T, state["freq_pos_embed"][0, :, :, 0].T
    patches = patches + time[: patches.shape[1]] + frequency[:, None]
    expected = norm(pre_norm_blocks(patches.flatten(0, 1), state), state, "norm").mean(0)
    actual = open_adapter(f"ced:{files['ced']}").embed(wave(), 16_000)
    np.testing.assert_allclose(actual, expected.numpy(), atol=5 * TOLERANCE)


def test_ced_reads_the_names_of_transformers(files: dict[str, Path], tmp_path: Path) -> None:
    """The same weights as a safetensors file with the prefix "encoder." give the same embedding."""
    renamed = {
        f"encoder.{key.replace('init_bn.1', 'init_bn')}": value.contiguous()
        for key, value in state_in(files["ced"]).items()
        if not key.startswith(("front_end", "outputlayer"))
    }
    safetensors.torch.save_file(renamed, tmp_path / "model.safetensors")
    first, second = (open_adapter(f"ced:{path}") for path in (files["ced"], tmp_path / "model.safetensors"))
    np.testing.assert_array_equal(first.embed(wave(), 16_000), second.embed(wave(), 16_000))


def test_ced_does_not_see_past_its_positions(files: dict[str, Path]) -> None:
    """Only the first 10 s of a longer window are used."""
    adapter, long = open_adapter(f"ced:{files['ced']}"), wave(seconds=12.0)
    assert np.isfinite(adapter.embed(long, 16_000)).all()


def test_dasheng_equals_its_own_forward(files: dict[str, Path]) -> None:
    """The authors' package, built by hand, gives the same mean of outputs."""
    from dasheng.pretrained.pretrained import Dasheng  # noqa: PLC0415

    model: nn.Module = Dasheng(embed_dim=DIM, depth=DEPTH, num_heads=DIM // HEAD_DIM).eval()
    model.load_state_dict(state_in(files["dasheng"]))
    with torch.inference_mode():
        expected = model(torch.from_numpy(wave())[None])[0].mean(0)
    actual = open_adapter(f"dasheng:{files['dasheng']}").embed(wave(), 16_000)
    np.testing.assert_allclose(actual, expected.numpy(), atol=TOLERANCE)


def test_beats_equals_its_own_network(files: dict[str, Path]) -> None:
    """Spectra made by hand (Povey's window, 16 bit full scale), put through the parts of the network, averaged."""
    from speechbrain.lobes.models.beats import BEATs  # noqa: PLC0415

    model: Any = BEATs(ckp_path=str(files["beats"]))
    povey = np.hanning(400) ** 0.85
    mel = torch.from_numpy(fbank_by_hand(wave() * np.float32(2**15), povey.astype(np.float32)))
    state = state_in(files["beats"])
    spectrum = (mel - 15.41663) / (2 * 6.55582)
    weights = {"p.weight": state["patch_embedding.weight"], "p.bias": torch.zeros(512)}
    scale, offset = state["layer_norm.weight"], state["layer_norm.bias"]
    tokens = functional.layer_norm(patches_of(spectrum, weights, "p"), [512], scale, offset)
    tokens = tokens @ state["post_extract_proj.weight"].T + state["post_extract_proj.bias"]
    with torch.inference_mode():
        expected = model.encoder(tokens[None])[0][0].mean(0)
    actual = open_adapter(f"beats:{files['beats']}").embed(wave(), 16_000)
    np.testing.assert_allclose(actual, expected.numpy(), atol=5 * TOLERANCE)


@pytest.mark.parametrize("name", CONTENTS)
def test_published_adapter_keeps_the_protocol(files: dict[str, Path], name: str) -> None:
    """Any rate gives a vector of the model's width, the same one every time, and nearly that of the rate it knows."""
    adapter = open_adapter(f"{name}:{files[name]}")
    rates_hz = (16_000, 16_000, 48_000)
    embeddings = [adapter.embed(resampled(wave(), 16_000, rate_hz), rate_hz) for rate_hz in rates_hz]
    for embedding in embeddings:
        assert embedding.shape == (DIM,)
        assert embedding.dtype == np.float32
        assert np.isfinite(embedding).all()
    fixed = wave()
    fixed.flags.writeable = False  # as samples of a memory-mapped file are
    for again in (embeddings[1], adapter.embed(fixed, 16_000)):
        np.testing.assert_array_equal(again, embeddings[0])
    assert np.abs(embeddings[0] - embeddings[2]).max() < np.abs(embeddings[0]).max()
    with pytest.raises(BadInputError, match="shorter than one patch"):
        adapter.embed(wave()[:2000], 16_000)


@pytest.mark.parametrize("name", CONTENTS)
def test_digest_changes_with_one_weight(files: dict[str, Path], tmp_path: Path, name: str) -> None:
    """The same file has the same digest, wherever it lies; with another number, or another variant, it has another."""
    content = torch.load(files[name], weights_only=False)
    copy, changed = tmp_path / "copy.pt", tmp_path / "changed.pt"
    copy.write_bytes(files[name].read_bytes())
    state = content.get("model", content)
    key = next(key for key in state if key.endswith("norm.weight"))
    state[key] = state[key] + 0.01
    torch.save(content, changed)
    specs = [f"{name}:{path}" for path in (files[name], copy, changed)]
    if FAMILIES[name].variant:
        specs.append(f"{specs[0]}?{FAMILIES[name].variant}")
    first, second, *others = [open_adapter(spec).digest for spec in specs]
    assert first == second
    assert len({first, *others}) == 1 + len(others)


@pytest.mark.parametrize("name", CONTENTS)
def test_base_model_has_its_published_size(tmp_path: Path, name: str) -> None:
    """Twelve layers of 768 numbers are read from a file; their width, depth and heads are found in it."""
    torch.save(CONTENTS[name](same, 768, 12), tmp_path / "base.pt")
    adapter = open_adapter(f"{name}:{tmp_path / 'base.pt'}")
    assert adapter.parameters == BASE_PARAMETERS[name]


class Hostile:
    """Something that would run code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code was run",)


def with_weights(content: dict[str, Any], change: Callable[[State], State]) -> dict[str, Any]:
    """What a file holds, with other weights."""
    nested = "model" in content
    state = {key: value for key, value in content.get("model", content).items() if isinstance(value, Tensor)}
    return {**content, "model": change(state)} if nested else {**change(state)}


def on_norms(change: Callable[[Tensor], Tensor]) -> Callable[[State], State]:
    """Change the offset of every norm."""
    return lambda state: {key: change(value) if key.endswith("norm.bias") else value for key, value in state.items()}


def without_one_layer(state: State) -> State:
    """Leave a layer out that every model has."""
    return {key: value for key, value in state.items() if not re.search(r"(blocks|layers)\.1\.(mlp\.)?fc1", key)}


def bad_files(folder: Path, name: str) -> dict[str, Path]:
    """Files that are not the weights of a model, by what is wrong with them."""
    good = CONTENTS[name](Numbers(), DIM, DEPTH)
    contents: dict[str, Any] = {
        "lacking": with_weights(good, without_one_layer),
        "not finite": with_weights(good, on_norms(lambda value: value * np.nan)),
        "misshapen": with_weights(good, on_norms(lambda value: value[:-8])),
        "sparse": with_weights(good, on_norms(Tensor.to_sparse)),
        "without values": with_weights(good, on_norms(lambda value: value.to("meta"))),
        "a list": [1, 2],
        "empty": {},
        "hostile": {**good, "args": Hostile()},
    }
    paths = {fault: folder / f"{index}.pt" for index, fault in enumerate(contents)}
    for fault, content in contents.items():
        torch.save(content, paths[fault])
    paths["text"], paths["cut"] = folder / "text.pt", folder / "cut.pt"
    paths["text"].write_text("not weights\n" * 100)
    paths["cut"].write_bytes(paths["misshapen"].read_bytes()[:5000])
    return {**paths, "missing": folder / "missing.pt", "folder": folder}


@pytest.mark.parametrize("name", CONTENTS)
def test_wrong_file_is_refused_in_one_line(
    files: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    """Missing, damaged, hostile, incomplete and other models' files are named, with where to get the right one."""
    wrong = bad_files(tmp_path, name) | {other: path for other, path in files.items() if other != name}
    assert len(wrong) == 16
    for path in wrong.values():
        with pytest.raises(BadArtifactError, match=re.escape(str(path))) as caught:
            open_adapter(f"{name}:{path}")
        assert "\n" not in str(caught.value)
        assert re.search(r"published weights of .*(github\.com|zenodo\.org)/", str(caught.value))
        assert len(str(caught.value)) < 600
        assert "weights_only" not in str(caught.value)
    assert "code was run" not in capfd.readouterr().out


@pytest.mark.parametrize("setting", [{"layer_norm_first": True}, {"modalities": {"image": {"prenet_depth": 4}}}])
def test_eat_of_other_settings_is_refused(tmp_path: Path, setting: dict[str, Any]) -> None:
    """A network that this one is not is not run with its weights."""
    content = eat_content(Numbers(), DIM, DEPTH)
    content["cfg"]["model"].update(setting)
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(BadArtifactError, match="which the base model does not have"):
        open_adapter(f"eat:{tmp_path / 'other.pt'}")


def test_eat_reads_a_fine_tuned_file(files: dict[str, Path], tmp_path: Path) -> None:
    """Weights under the prefix "model." are the same weights."""
    content = {"model": {f"model.{key}": value for key, value in state_in(files["eat"]).items() if key != "_ema"}}
    torch.save(content, tmp_path / "tuned.pt")
    first, second = (open_adapter(f"eat:{path}") for path in (files["eat"], tmp_path / "tuned.pt"))
    np.testing.assert_array_equal(first.embed(wave(), 16_000), second.embed(wave(), 16_000))


def test_eat_reads_the_names_of_transformers(files: dict[str, Path], tmp_path: Path) -> None:
    """The file for transformers has shorter names and more positions, of which the first are the same."""
    state, image = state_in(files["eat"]), "modality_encoders.IMAGE."
    renamed = {
        "model." + key.removeprefix(image).replace("context_encoder.norm", "pre_norm"): value.contiguous()
        for key, value in state.items()
        if isinstance(value, Tensor) and "decoder" not in key
    }
    positions = "model.fixed_positional_encoder.positions"
    renamed[positions] = torch.cat([renamed[positions], Numbers()(1, 704 * 8, DIM)], dim=1)
    safetensors.torch.save_file(renamed, tmp_path / "model.safetensors")
    first, second = (open_adapter(f"eat:{path}") for path in (files["eat"], tmp_path / "model.safetensors"))
    np.testing.assert_array_equal(first.embed(wave(), 16_000), second.embed(wave(), 16_000))


def test_missing_library_is_named(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without speechbrain the message says how to get it; the file is not even looked at."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "speechbrain" else find(name))
    with pytest.raises(MissingExtraError, match=r"speechbrain is not installed.*fisher-edge\[encoders\]"):
        open_adapter("beats:missing.pt")


def test_spec_of_a_file_is_enough_for_another_process(files: dict[str, Path]) -> None:
    """A fresh process opens the same adapter: nothing need have been imported before."""
    spec = f"audiomae:{files['audiomae']}"
    code = f"from fisher_bench.rmis.adapters import open_adapter; print(open_adapter({spec!r}).digest)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [open_adapter(spec).digest], done.stderr


def test_torchaudio_without_its_compiled_part_is_imported(tmp_path: Path) -> None:
    """A package whose extension cannot be loaded is imported with a placeholder for it."""
    package = tmp_path / "torchaudio"
    (package / "_extension").mkdir(parents=True)
    (package / "__init__.py").write_text("from . import _extension\nfrom .part import has\n")
    (package / "part.py").write_text("import torchaudio\nhas = torchaudio._extension._IS_TORCHAUDIO_EXT_AVAILABLE\n")
    (package / "_extension" / "__init__.py").write_text("raise OSError('Could not load this library')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from fisher_bench.rmis.adapters import python_torchaudio\n"
        "python_torchaudio.load(); python_torchaudio.load()\n"
        "import torchaudio; print(torchaudio.__file__, torchaudio.has)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(package / "__init__.py"), "False"], done.stderr
