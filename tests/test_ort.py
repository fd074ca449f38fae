"""The encoder in ONNX Runtime: equal to PyTorch, and a model that is not what it was is refused."""

from dataclasses import replace
from pathlib import Path

import micro
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.grid import pieces_of
from fisher_edge.encoder.bundle import Bundle, load_bundle
from fisher_edge.encoder.ort import OrtEncoder
from fisher_edge.encoder.select import open_encoder
from fisher_edge.encoder.windows import embed_window
from fisher_edge.errors import BadArtifactError, BadInputError, UsageError
from fisher_export.pipeline import export
from fisher_export.verify import embed_with_torch
from fisher_train.checkpoint import build_encoder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a float32 bundle."""
    folder = tmp_path_factory.mktemp("bundle")
    return load_bundle(export(micro.save_micro(folder / "micro"), folder / "out", "fp32", micro.signals()).path)


@pytest.fixture(scope="module")
def encoder(bundle: Bundle) -> OrtEncoder:
    """Return an encoder of that bundle."""
    return OrtEncoder(bundle)


def bands_of(rate_hz: int = 26_667, frames: int = 64) -> FloatArray:
    """Sub-bands of noise."""
    samples = micro.FRONT_END.n_samples(frames, rate_hz)
    wave = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    return micro.FRONT_END.sub_bands(wave, rate_hz)


@pytest.mark.parametrize(("rate_hz", "frames"), [(100, 16), (8000, 17), (26_667, 100), (64_000, 64), (16_000, 1024)])
def test_embedding_equals_torch(encoder: OrtEncoder, rate_hz: int, frames: int) -> None:
    """At any rate and length it gives the embeddings of the checkpoint in PyTorch."""
    bands = bands_of(rate_hz, frames)
    expected = embed_with_torch(build_encoder(micro.micro_checkpoint()), bands)
    (found,) = encoder.embed([bands])
    assert found.dtype == np.float32
    assert found.shape == (len(bands), 32)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_long_window_is_the_mean_of_its_pieces(encoder: OrtEncoder, tmp_path: Path) -> None:
    """A checkpoint with pieces of 48 frames embeds 100 frames as the mean of the two whole ones, as PyTorch does."""
    checkpoint = micro.micro_checkpoint(front_end=replace(micro.FRONT_END, piece_frames=48))
    folder = micro.save_micro(tmp_path / "micro", checkpoint)
    bundle = load_bundle(export(folder, tmp_path / "out", "fp32", micro.signals()).path)
    assert bundle.front_end.on_grid
    wave = np.random.default_rng(0).standard_normal(micro.FRONT_END.n_samples(100, 16_000)).astype(np.float32)
    pieces = pieces_of(bundle.front_end, wave, 16_000)
    assert len(pieces) == 2
    found = embed_window(OrtEncoder(bundle), bundle.front_end, pieces)
    np.testing.assert_allclose(found, np.mean(encoder.embed(pieces), axis=0), atol=1e-5, rtol=0)
    torch_encoder = build_encoder(checkpoint)
    by_torch = np.mean([embed_with_torch(torch_encoder, bands) for bands in pieces], axis=0)
    np.testing.assert_allclose(found, by_torch, atol=1e-5, rtol=0)


def test_pieces_of_any_shape_come_back_in_order(encoder: OrtEncoder) -> None:
    """Pieces of several rates and lengths go in together, and each has the embeddings it has alone."""
    pieces = [bands_of(26_667, 96), bands_of(100, 16), bands_of(16_000, 200), bands_of(26_667, 97)]
    found = encoder.embed(pieces)
    assert [rows.shape for rows in found] == [(7, 32), (1, 32), (4, 32), (7, 32)]
    for rows, bands in zip(found, pieces, strict=True):
        np.testing.assert_allclose(rows, encoder.embed([bands])[0], atol=1e-5, rtol=0)
    assert encoder.embed([]) == []


def test_bands_do_not_see_each_other(encoder: OrtEncoder) -> None:
    """Alone or in the model's own batch they are the same."""
    bands = bands_of()
    (together,) = encoder.embed([bands])
    assert len(together) == 7
    np.testing.assert_allclose(np.concatenate(encoder.embed([band[None] for band in bands])), together, atol=1e-6)
    np.testing.assert_allclose(encoder._session.run(None, {"bands": bands})[0], together, atol=1e-5, rtol=0)


def test_int8_embedding_of_a_piece_does_not_depend_on_its_neighbours(bundle: Bundle) -> None:
    """Activations are scaled by the largest of a call, so that a call never holds two pieces."""
    shipped = OrtEncoder(load_bundle())
    generator = np.random.default_rng(0)
    quiet, loud = (generator.standard_normal((4, 96, 50)).astype(np.float32) * gain for gain in (0.1, 9))
    found = shipped.embed([quiet, loud, quiet])
    np.testing.assert_array_equal(found[0], shipped.embed([quiet])[0])
    np.testing.assert_array_equal(found[0], found[2])
    mixed = shipped._session.run(None, {"bands": np.concatenate([quiet, loud])})[0]
    assert np.abs(mixed[:4] - found[0]).max() > 1e-3


@pytest.mark.parametrize(
    ("shape", "calls"),
    [
        ((12, 96, 50), [12]),
        ((24, 96, 50), [16, 8]),
        ((3, 1024, 50), [1, 1, 1]),
        ((11, 128, 50), [11]),
        ((13, 128, 50), [12, 1]),
    ],
)
def test_call_holds_what_fits_the_cache(
    encoder: OrtEncoder, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int], calls: list[int]
) -> None:
    """All bands of a piece go in at once, whole windows of ten seconds band by band, in order."""
    seen = []

    class Spy:
        def run(self, outputs: None, feeds: dict[str, FloatArray]) -> list[FloatArray]:
            assert outputs is None
            seen.append(feeds["bands"])
            return [feeds["bands"][:, 0, :32]]

    monkeypatch.setattr(encoder, "_session", Spy())
    bands = np.asfortranarray(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    (found,) = encoder.embed([bands])
    assert [len(part) for part in seen] == calls
    np.testing.assert_array_equal(found, bands[:, 0, :32])
    assert all(part.flags.c_contiguous for part in seen)


def test_encoder_uses_one_thread_that_does_not_spin(encoder: OrtEncoder) -> None:
    """A session uses one thread, no spinning and the CPU alone: a gateway has other work to do."""
    options = encoder._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert encoder._session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize("shape", [(2, 64, 100), (2, 64, 49), (64, 50), (1, 2, 64, 50)])
def test_other_band_width_is_refused(encoder: OrtEncoder, shape: tuple[int, ...]) -> None:
    """Bands that were cut by another front-end are refused with both widths."""
    with pytest.raises(BadInputError, match="do not fit an encoder of 50 bins a band"):
        encoder.embed([np.zeros(shape, np.float32)])


def test_piece_longer_than_the_positions_is_refused(encoder: OrtEncoder) -> None:
    """The longest window of the front-end goes in; a longer one is refused in words, not by the runtime."""
    longest = encoder.bundle.front_end.max_frames
    (found,) = encoder.embed([np.zeros((1, longest, 50), np.float32)])
    assert found.shape == (1, encoder.bundle.dim)
    with pytest.raises(BadInputError, match=f"hold more than the {longest} frames this encoder was built for"):
        encoder.embed([np.zeros((1, longest + 1, 50), np.float32)])


@pytest.mark.parametrize("shape", [(2, 15, 50), (2, 0, 50), (0, 64, 50)])
def test_window_without_a_patch_is_refused(encoder: OrtEncoder, shape: tuple[int, ...]) -> None:
    """No band, or fewer frames than one patch, is an error of ours that names the shape."""
    with pytest.raises(BadInputError, match="16 frames of a patch") as caught:
        encoder.embed([np.zeros(shape, np.float32)])
    assert str(shape) in str(caught.value)


def test_self_test_of_a_faithful_model_is_almost_one(encoder: OrtEncoder) -> None:
    """The model as exported reproduces its own embeddings."""
    assert encoder.self_test_cosine() > 0.99999


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
        OrtEncoder(altered(bundle, name, 0.8))
    assert str(bundle.path) in str(caught.value)
    assert OrtEncoder(altered(bundle, name, 1.0)).self_test_cosine() > 0.9999


def test_self_test_refuses_scaled_embeddings(bundle: Bundle) -> None:
    """The mean is removed from both with the same centre, so that a change of scale shows too."""
    with pytest.raises(BadArtifactError, match="self-test cosine"):
        OrtEncoder(altered(bundle, "blocks.1.norm2.bias", 1.5))


def test_self_test_refuses_numbers_that_are_not_finite(bundle: Bundle) -> None:
    """NaN compares with nothing and is refused, not let through."""
    with pytest.raises(BadArtifactError, match="self-test cosine nan"):
        OrtEncoder(altered(bundle, "blocks.0.norm1.weight", float("nan")))
    with pytest.raises(BadArtifactError, match="is below nan"):
        OrtEncoder(replace(bundle, selftest=replace(bundle.selftest, min_cosine=float("nan"))))


def test_self_test_refuses_an_embedding_of_another_shape(bundle: Bundle) -> None:
    """A model that gives more numbers than its self-test is not the one it was made with."""
    short = replace(bundle.selftest, embeddings=bundle.selftest.embeddings[:, :31])
    with pytest.raises(BadArtifactError, match=r"gives shape \(6, 32\), its self-test \(6, 31\)"):
        OrtEncoder(replace(bundle, selftest=short))


@pytest.mark.parametrize("model", [b"", b"\x08\x08"])
def test_model_that_does_not_load_is_refused(bundle: Bundle, model: bytes) -> None:
    """What ONNX Runtime cannot load is one line that names the bundle and the version."""
    with pytest.raises(BadArtifactError, match=r"ONNX Runtime .* cannot load the model") as caught:
        OrtEncoder(replace(bundle, model=model))
    assert "\n" not in str(caught.value)
    assert str(bundle.path) in str(caught.value)


def test_model_with_another_input_is_refused(bundle: Bundle) -> None:
    """A valid model of something else does not run: one line that names the bundle."""
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in "xy")
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y]), opset_imports=[opset], ir_version=8)
    with pytest.raises(BadArtifactError, match="the model does not run") as caught:
        OrtEncoder(replace(bundle, model=model.SerializeToString()))
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
    OrtEncoder(bundle)
    kinds = {node.op_type for node in onnx.load(target).graph.node}
    assert "LayerNormalization" in kinds
    assert "SkipLayerNormalization" not in kinds


def test_encoder_is_opened_by_its_provider(bundle: Bundle) -> None:
    """What is opened says who runs it, what it runs and how short a piece may be."""
    found = open_encoder(bundle, "cpu")
    assert found.provider == "onnxruntime CPUExecutionProvider"
    assert found.bundle is bundle
    assert found.min_frames == 16


@pytest.mark.parametrize("provider", ["gpu", "CPU", ""])
def test_provider_that_is_not_there_is_refused(bundle: Bundle, provider: str) -> None:
    """The error names those that are."""
    with pytest.raises(UsageError, match=f"provider '{provider}' is not in this build; choose one of: auto, cpu"):
        open_encoder(bundle, provider)
