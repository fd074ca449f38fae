"""The inference session: equal to PyTorch, and a model that is not what it was is refused."""

from dataclasses import replace
from pathlib import Path

import micro
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.encoder.bundle import Bundle, load_bundle
from fisher_edge.encoder.ort import EncoderSession
from fisher_edge.errors import BadArtifactError, BadInputError
from fisher_export.pipeline import export
from fisher_export.verify import embed_with_torch
from fisher_train.checkpoint import build_encoder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a float32 bundle."""
    folder = tmp_path_factory.mktemp("bundle")
    return load_bundle(export(micro.save_micro(folder / "micro"), folder / "out", "fp32", micro.signals()).path)


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> EncoderSession:
    """Return a session of that bundle."""
    return EncoderSession(bundle)


def bands_of(rate_hz: int = 26_667, frames: int = 64) -> FloatArray:
    """Sub-bands of noise."""
    samples = micro.FRONT_END.n_samples(frames, rate_hz)
    wave = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    return micro.FRONT_END.sub_bands(wave, rate_hz)


@pytest.mark.parametrize(("rate_hz", "frames"), [(100, 16), (8000, 17), (26_667, 100), (64_000, 64), (16_000, 1024)])
def test_embedding_equals_torch(session: EncoderSession, rate_hz: int, frames: int) -> None:
    """At any rate and length the session gives the embeddings of the checkpoint in PyTorch."""
    bands = bands_of(rate_hz, frames)
    expected = embed_with_torch(build_encoder(micro.micro_checkpoint()), micro.FRONT_END, bands)
    found = session.embed(bands)
    assert found.dtype == np.float32
    assert found.shape == (len(bands), 32)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_long_window_is_the_mean_of_its_pieces(session: EncoderSession, tmp_path: Path) -> None:
    """A bundle with pieces of 48 frames embeds 100 frames as the mean of two, as PyTorch does."""
    front_end = replace(micro.FRONT_END, piece_frames=48)
    checkpoint = micro.micro_checkpoint(front_end=front_end)
    folder = micro.save_micro(tmp_path / "micro", checkpoint)
    pieced = EncoderSession(load_bundle(export(folder, tmp_path / "out", "fp32", micro.signals()).path))
    bands = bands_of(16_000, 100)
    by_hand = np.mean([session.embed(bands[:, start : start + 48]) for start in (0, 52)], axis=0)
    np.testing.assert_allclose(pieced.embed(bands), by_hand, atol=1e-5, rtol=0)
    expected = embed_with_torch(build_encoder(checkpoint), front_end, bands)
    np.testing.assert_allclose(pieced.embed(bands), expected, atol=1e-5, rtol=0)


def test_one_band_a_call_equals_all_bands(session: EncoderSession) -> None:
    """Bands do not see each other: alone, in a call of all, or in the model's own batch they are the same."""
    bands = bands_of()
    together = session.embed(bands)
    assert len(together) == 7
    np.testing.assert_allclose(np.concatenate([session.embed(band[None]) for band in bands]), together, atol=1e-6)
    np.testing.assert_allclose(session._session.run(None, {"bands": bands})[0], together, atol=1e-5, rtol=0)


def test_session_calls_the_model_once_a_band(session: EncoderSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """The activations of one band fit the cache: the model never sees two at once."""
    shapes = []

    class Spy:
        def run(self, outputs: None, feeds: dict[str, FloatArray]) -> list[FloatArray]:
            assert outputs is None
            shapes.append(feeds["bands"].shape)
            return [np.zeros((1, 32), np.float32)]

    monkeypatch.setattr(session, "_session", Spy())
    session.embed(bands_of(16_000))
    assert shapes == [(1, 64, 50)] * 4


def test_session_uses_one_thread_that_does_not_spin(session: EncoderSession) -> None:
    """A gateway has other things to do: one thread, no spinning, the CPU alone."""
    options = session._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert session._session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize("shape", [(2, 64, 100), (2, 64, 49), (64, 50), (1, 2, 64, 50)])
def test_other_band_width_is_refused(session: EncoderSession, shape: tuple[int, ...]) -> None:
    """Bands that were cut by another front-end are refused with both widths."""
    with pytest.raises(BadInputError, match="do not fit an encoder of 50 bins a band"):
        session.embed(np.zeros(shape, np.float32))


@pytest.mark.parametrize("shape", [(2, 15, 50), (2, 0, 50), (0, 64, 50)])
def test_window_without_a_patch_is_refused(session: EncoderSession, shape: tuple[int, ...]) -> None:
    """No band, or fewer frames than one patch, is an error of ours that names the shape."""
    with pytest.raises(BadInputError, match="16 frames of a patch") as caught:
        session.embed(np.zeros(shape, np.float32))
    assert str(shape) in str(caught.value)


def test_self_test_of_a_faithful_model_is_almost_one(session: EncoderSession) -> None:
    """The model as exported reproduces its own embeddings."""
    assert session.self_test_cosine() > 0.99999


def altered(bundle: Bundle, name: str, factor: float) -> Bundle:
    """Return the bundle with one weight of its model changed."""
    model = onnx.load_from_string(bundle.model)
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), name))
    return replace(bundle, model=model.SerializeToString())


@pytest.mark.parametrize("name", ["blocks.0.mlp.fc1.weight", "blocks.1.attn.proj.weight", "positions", "weight"])
def test_self_test_refuses_altered_weights(bundle: Bundle, name: str) -> None:
    """Weights that changed after the export give other embeddings, and the bundle is not used."""
    with pytest.raises(BadArtifactError, match=r"self-test cosine .* is below 0\.9999") as caught:
        EncoderSession(altered(bundle, name, 0.8))
    assert str(bundle.path) in str(caught.value)
    assert EncoderSession(altered(bundle, name, 1.0)).self_test_cosine() > 0.9999


def test_self_test_refuses_scaled_embeddings(bundle: Bundle) -> None:
    """The mean is removed from both with the same centre, so that a change of scale shows too."""
    with pytest.raises(BadArtifactError, match="self-test cosine"):
        EncoderSession(altered(bundle, "blocks.1.norm2.bias", 1.5))


def test_self_test_refuses_numbers_that_are_not_finite(bundle: Bundle) -> None:
    """NaN compares with nothing and is refused, not let through."""
    with pytest.raises(BadArtifactError, match="self-test cosine nan"):
        EncoderSession(altered(bundle, "blocks.0.norm1.weight", float("nan")))
    with pytest.raises(BadArtifactError, match="is below nan"):
        EncoderSession(replace(bundle, selftest=replace(bundle.selftest, min_cosine=float("nan"))))


def test_self_test_refuses_an_embedding_of_another_shape(bundle: Bundle) -> None:
    """A model that gives more numbers than its self-test is not the one it was made with."""
    short = replace(bundle.selftest, embeddings=bundle.selftest.embeddings[:, :31])
    with pytest.raises(BadArtifactError, match=r"gives shape \(6, 32\), its self-test \(6, 31\)"):
        EncoderSession(replace(bundle, selftest=short))


@pytest.mark.parametrize("model", [b"", b"\x08\x08"])
def test_model_that_does_not_load_is_refused(bundle: Bundle, model: bytes) -> None:
    """What ONNX Runtime cannot load is one line that names the bundle and the version."""
    with pytest.raises(BadArtifactError, match=r"ONNX Runtime .* cannot load the model") as caught:
        EncoderSession(replace(bundle, model=model))
    assert "\n" not in str(caught.value)
    assert str(bundle.path) in str(caught.value)


def test_model_with_another_input_is_refused(bundle: Bundle) -> None:
    """A valid model of something else does not run: one line that names the bundle."""
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in "xy")
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y]), opset_imports=[opset], ir_version=8)
    with pytest.raises(BadArtifactError, match="the model does not run") as caught:
        EncoderSession(replace(bundle, model=model.SerializeToString()))
    assert "\n" not in str(caught.value)
    assert str(bundle.path) in str(caught.value)


def test_skip_layer_norm_is_not_fused(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fusion that costs int8 models a fifth of their speed stays off."""
    made = onnxruntime.SessionOptions
    target = tmp_path / "optimised.onnx"

    def options() -> object:
        found = made()
        found.optimized_model_filepath = str(target)
        return found

    monkeypatch.setattr(onnxruntime, "SessionOptions", options)
    EncoderSession(bundle)
    kinds = {node.op_type for node in onnx.load(target).graph.node}
    assert "LayerNormalization" in kinds
    assert "SkipLayerNormalization" not in kinds
