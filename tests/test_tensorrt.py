"""The encoder in TensorRT, on the stand-in of `stand_in_gpu`: building, keeping, running, and what is refused."""

import logging
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stand_in_gpu import StandIn, install
from variants import add_variant, micro_bundle

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.encoder.bundle import Bundle, load_bundle
from fisher_edge.encoder.forms import FP16, PLAIN
from fisher_edge.encoder.ort import OrtEncoder
from fisher_edge.encoder.profiles import profiles_of
from fisher_edge.encoder.tensorrt import TensorRtEncoder, build_engine, default_form
from fisher_edge.errors import BadArtifactError, BadInputError, MissingExtraError, ProviderError


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a float32 bundle; rounding to half precision costs it little."""
    return micro_bundle(tmp_path_factory.mktemp("bundle"), selftest={"min_cosine": 0.999})


@pytest.fixture
def bundle(path: Path) -> Bundle:
    """Return that bundle."""
    return load_bundle(path)


@pytest.fixture
def gpu() -> Iterator[StandIn]:
    """Put the stand-in in the place of a GPU with TensorRT 10.3."""
    with pytest.MonkeyPatch.context() as patch:
        yield install(patch)


def bands_of(rows: int, frames: int, seed: int = 0) -> FloatArray:
    """Sub-bands of noise."""
    return np.random.default_rng(seed).standard_normal((rows, frames, 50)).astype(np.float32)


def test_engine_in_half_precision_embeds_as_the_model(bundle: Bundle, gpu: StandIn, tmp_path: Path) -> None:
    """A float32 model is rounded to half precision, and its embeddings are those of ONNX Runtime but for that."""
    encoder = TensorRtEncoder(bundle, cache_dir=tmp_path)
    bands = bands_of(7, 64)
    (expected,), (found,) = OrtEncoder(bundle).embed([bands]), encoder.embed([bands])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=5e-3, rtol=0)
    assert np.abs(found - expected).max() > 0
    assert gpu.builds[0]["half"]
    assert encoder.provider == "tensorrt 10.3.0 Orin fp16"
    assert encoder.kind == "tensorrt"
    assert encoder.name == "micro-fp32 (fp16)"
    assert encoder.sha256 != bundle.sha256


def test_float32_is_exactly_the_model(bundle: Bundle, gpu: StandIn, tmp_path: Path) -> None:
    """Without half precision the network is strongly typed, TF32 is off, and the model keeps its own name."""
    encoder = TensorRtEncoder(bundle, PLAIN, cache_dir=tmp_path)
    bands = bands_of(3, 32)
    np.testing.assert_allclose(encoder.embed([bands])[0], OrtEncoder(bundle).embed([bands])[0], atol=1e-6, rtol=0)
    assert (gpu.builds[0]["typed"], gpu.builds[0]["tf32"], gpu.builds[0]["half"]) == (True, False, False)
    assert (encoder.name, encoder.sha256) == (bundle.name, bundle.sha256)
    assert encoder.provider == "tensorrt 10.3.0 Orin fp32"


def test_profiles_hold_what_the_front_end_cuts(bundle: Bundle) -> None:
    """One profile for pieces, one for whole windows; the shortest piece is one patch."""
    front_end = replace(bundle.front_end, piece_frames=96)
    short, long = profiles_of(front_end)
    assert (short.rows, short.frames) == ((1, 16, 64), (16, 96, 96))
    assert (long.rows, long.frames) == ((1, 4, 16), (16, 1024, 1024))
    assert short.holds(1, 16)
    assert short.holds(64, 96)
    assert not short.holds(65, 96)
    assert not short.holds(1, 97)
    assert not long.holds(17, 1024)


@pytest.mark.parametrize(
    ("shape", "calls"),
    [
        ((7, 96), ["0 (7, 96, 50)"]),
        ((1, 16), ["0 (1, 16, 50)"]),
        ((20, 96), ["0 (16, 96, 50)", "0 (4, 96, 50)"]),
        ((2, 1024), ["1 (1, 1024, 50)", "1 (1, 1024, 50)"]),
        ((2, 97), ["1 (2, 97, 50)"]),
    ],
)
def test_call_takes_the_profile_of_its_shape(
    bundle: Bundle, gpu: StandIn, tmp_path: Path, shape: tuple[int, int], calls: list[str]
) -> None:
    """Pieces and whole windows run in the kernels that were chosen for them."""
    encoder = TensorRtEncoder(bundle, cache_dir=tmp_path)
    gpu.calls.clear()
    encoder.embed([bands_of(*shape)])
    assert [call for call in gpu.calls if call.startswith("set_input")] == [f"set_input_shape {call}" for call in calls]


def test_large_calls_stay_within_the_profile(bundle: Bundle, gpu: StandIn, tmp_path: Path) -> None:
    """However many tokens a call may have, no call is larger than what the engine was built for."""
    encoder = TensorRtEncoder(bundle, cache_dir=tmp_path, call_tokens=1_000_000)
    gpu.calls.clear()
    for rows, frames in ((70, 96), (20, 1024)):
        assert len(encoder.embed([bands_of(rows, frames)])[0]) == rows
    assert [call.split(" ", 1)[1] for call in gpu.calls if call.startswith("set_input")] == [
        "0 (64, 96, 50)",
        "0 (6, 96, 50)",
        "1 (16, 1024, 50)",
        "1 (4, 1024, 50)",
    ]


def test_longer_piece_is_refused(bundle: Bundle, gpu: StandIn, tmp_path: Path) -> None:
    """The error names the shape and the limit."""
    encoder = TensorRtEncoder(bundle, cache_dir=tmp_path)
    with pytest.raises(BadInputError, match=r"\(1, 1025, 50\) hold more than the 1024 frames"):
        encoder.embed([bands_of(1, 1025)])


def test_memory_is_reused_and_grows(bundle: Bundle, gpu: StandIn, tmp_path: Path) -> None:
    """Buffers are made once, and again only for a larger call; what they were is given back."""
    encoder = TensorRtEncoder(bundle, cache_dir=tmp_path)
    gpu.calls.clear()
    for _ in range(3):
        encoder.embed([bands_of(2, 64)])
    assert "cuMemAlloc_v2" not in gpu.calls
    encoder.embed([bands_of(16, 96)])
    assert gpu.calls.count("cuMemAlloc_v2") == gpu.calls.count("cuMemFree_v2") == 2
    assert len(gpu.memory) == 2


def test_other_thread_may_embed(bundle: Bundle, gpu: StandIn, tmp_path: Path) -> None:
    """The gateway opens an encoder in one thread and uses it in another."""
    encoder = TensorRtEncoder(bundle, cache_dir=tmp_path)
    bands, found = bands_of(2, 64), []
    thread = threading.Thread(target=lambda: found.extend(encoder.embed([bands])))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0], encoder.embed([bands])[0])


def test_engine_is_kept(bundle: Bundle, gpu: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The first start says that it will take long; the second takes what is there and says nothing."""
    caplog.set_level(logging.INFO)
    TensorRtEncoder(bundle, cache_dir=tmp_path)
    first, *_ = caplog.messages
    assert first.startswith("building the TensorRT engine of micro-fp32 (fp16) for Orin: this takes minutes")
    caplog.clear()
    TensorRtEncoder(bundle, cache_dir=tmp_path)
    assert (len(gpu.builds), caplog.messages) == (1, [])


def test_without_a_folder_every_start_builds(bundle: Bundle, gpu: StandIn) -> None:
    """An engine that cannot be kept is used all the same."""
    TensorRtEncoder(bundle)
    TensorRtEncoder(bundle)
    assert len(gpu.builds) == 2


@pytest.mark.parametrize("change", [{"version": "10.9.0"}, {"gpu": "Xavier"}, {"sm": (8, 9)}])
def test_update_builds_again(
    bundle: Bundle, tmp_path: Path, change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """Another TensorRT or another GPU has an engine of its own, and the identity of the model stays."""
    hashes = []
    for facts in ({}, change):
        with pytest.MonkeyPatch.context() as patch:
            record = install(patch, **facts)
            hashes.append(TensorRtEncoder(bundle, cache_dir=tmp_path).sha256)
            assert len(record.builds) == 1
    assert hashes[0] == hashes[1]
    assert len(list((tmp_path / "engines").glob("*.engine"))) == 1
    assert "refuses" not in caplog.text, "an engine of before the update was given to TensorRT"


def test_each_precision_has_its_own_engine(bundle: Bundle, gpu: StandIn, tmp_path: Path) -> None:
    """The same model in half precision and in float32 are two engines, which lie side by side."""
    for form in (FP16, PLAIN, FP16, PLAIN):
        TensorRtEncoder(bundle, form, cache_dir=tmp_path)
    assert [build["half"] for build in gpu.builds] == [True, False]


def test_damaged_engine_is_built_again(bundle: Bundle, gpu: StandIn, tmp_path: Path) -> None:
    """A cut engine is not given to TensorRT."""
    TensorRtEncoder(bundle, cache_dir=tmp_path)
    (engine,) = (tmp_path / "engines").glob("*.engine")
    engine.write_bytes(engine.read_bytes()[:-100])
    encoder = TensorRtEncoder(bundle, cache_dir=tmp_path)
    assert len(gpu.builds) == 2
    assert encoder.self_test_cosine() > 0.999


def test_int8_bundle_cannot_be_read(gpu: StandIn, tmp_path: Path) -> None:
    """Dynamic int8 is no form for TensorRT: it says what its parser says, in one line."""
    shipped = replace(load_bundle(), variants={})
    assert default_form(load_bundle()) == "tensorrt-fp16"
    assert default_form(shipped) is None
    with pytest.raises(BadArtifactError, match="cannot read the model: DynamicQuantizeLinear is not supported"):
        TensorRtEncoder(shipped, PLAIN, cache_dir=tmp_path)


def test_unfaithful_engine_is_refused(bundle: Bundle, gpu: StandIn, tmp_path: Path) -> None:
    """The self-test of the bundle counts for engines too."""
    strict = replace(bundle, selftest=replace(bundle.selftest, min_cosine=1.0))
    with pytest.raises(BadArtifactError, match=r"self-test cosine .* of micro-fp32 \(fp16\) is below 1\.0000"):
        TensorRtEncoder(strict, cache_dir=tmp_path)


def test_from_version_11_on_models_keep_their_types(path: Path, tmp_path: Path) -> None:
    """A float32 model runs in float32, unless the bundle holds it in half precision."""
    model = (path / "encoder.onnx").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        record = install(patch, version="11.4.0")
        bundle = load_bundle(path)
        assert default_form(bundle) == PLAIN
        with pytest.raises(ProviderError, match=r"TensorRT 11\.4\.0 rounds no float32 model"):
            TensorRtEncoder(bundle, FP16, cache_dir=tmp_path)
        folder = micro_bundle(tmp_path / "half")
        half = load_bundle(add_variant(folder, "tensorrt-fp16", {"tensorrt-fp16.onnx": model}))
        assert default_form(half) == "tensorrt-fp16"
        encoder = TensorRtEncoder(half, "tensorrt-fp16", cache_dir=tmp_path)
        assert encoder.provider == "tensorrt 11.4.0 Orin fp16"
        assert record.builds[-1]["typed"]


def test_without_tensorrt_the_extra_is_named(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what to install."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingExtraError, match=r"tensorrt is not installed; run: pip install 'fisher-edge\[tensorrt"):
        TensorRtEncoder(bundle)


def test_failing_driver_says_what_failed(bundle: Bundle, gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that returns an error is one line with its name, number and text."""
    monkeypatch.setattr("stand_in_gpu._Function._cuInit", lambda *_: 100)
    with pytest.raises(ProviderError, match=r"CUDA: cuInit failed with 100 \(error 100\)"):
        TensorRtEncoder(bundle)


def test_refused_call_is_an_error(bundle: Bundle, gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """An execution that TensorRT refuses never gives an embedding."""
    encoder = TensorRtEncoder(bundle)
    monkeypatch.setattr("stand_in_gpu._Context.execute_async_v3", lambda *_: False)
    with pytest.raises(ProviderError, match=r"refuses sub-bands of shape \(2, 64, 50\)"):
        encoder.embed([bands_of(2, 64)])


def test_real_builder_takes_the_model(bundle: Bundle) -> None:
    """TensorRT for RTX, which shares its builder and its parser, builds the engine without a GPU."""
    real = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")

    class ForAmpere:
        """The builder, told which GPU it builds for."""

        def __init__(self, logger: object) -> None:
            self._builder = real.Builder(logger)

        def __getattr__(self, name: str) -> object:
            return getattr(self._builder, name)

        def create_builder_config(self) -> object:
            config = self._builder.create_builder_config()
            config.num_compute_capabilities = 1
            config.set_compute_capability(real.ComputeCapability.SM86, 0)
            return config

    class Library:
        Builder = ForAmpere

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

    logger = real.Logger(real.Logger.ERROR)
    engine = build_engine(Library(), logger, bundle.model, profiles_of(bundle.front_end), bundle, half=False)
    assert len(engine) > 100_000
