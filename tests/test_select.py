"""Which encoder runs a bundle: trials and their memory, what is asked for by name, and what is refused."""

import importlib.abc
import importlib.util
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from command import run_here
from stand_in_gpu import StandIn, install
from variants import add_variant, micro_bundle, openvino_ir

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.encoder import trials
from fisher_edge.encoder.base import BaseEncoder
from fisher_edge.encoder.bundle import Bundle, load_bundle
from fisher_edge.encoder.forms import FP16, PLAIN, forms_of
from fisher_edge.encoder.ort import OrtEncoder
from fisher_edge.encoder.select import VARIABLE, open_encoder
from fisher_edge.encoder.tensorrt import TensorRtEncoder
from fisher_edge.errors import BadArtifactError, MissingExtraError, ProviderError, UsageError

OPENVINO_IS_HERE = importlib.util.find_spec("openvino") is not None
NEEDS_OPENVINO = pytest.mark.skipif(
    not OPENVINO_IS_HERE, reason="OpenVINO is not installed: pip install 'fisher-edge[openvino]'"
)


@pytest.fixture(autouse=True)
def free_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let "auto" choose."""
    monkeypatch.delenv(VARIABLE)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a float32 bundle whose self-test lets other precisions pass; it is not to be changed."""
    return micro_bundle(tmp_path_factory.mktemp("bundle"), selftest={"min_cosine": 0.999})


@pytest.fixture
def bundle(path: Path) -> Bundle:
    """Return that bundle."""
    return load_bundle(path)


@pytest.fixture
def only_ort(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide OpenVINO and TensorRT."""
    hide(monkeypatch, "openvino", "tensorrt")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Put the stand-in in the place of a GPU with TensorRT, and hide OpenVINO."""
    hide(monkeypatch, "openvino")
    return install(monkeypatch)


def hide(patch: pytest.MonkeyPatch, *names: str) -> None:
    """Let packages look as if they were not installed."""
    find = importlib.util.find_spec
    patch.setattr("importlib.util.find_spec", lambda name, *rest: None if name in names else find(name, *rest))
    for name in names:
        patch.setitem(sys.modules, name, None)


def set_times(patch: pytest.MonkeyPatch, **ms: float) -> list[str]:
    """Let trials take these times by provider and form, such as tensorrt_fp16; return the list of what was timed."""
    timed: list[str] = []

    def seconds(encoder: BaseEncoder, *_: object) -> float:
        name = f"{encoder.kind}_{encoder.form.key}".replace("-", "_")
        timed.append(name)
        return ms[name] / 1000

    patch.setattr(trials, "_seconds", seconds)
    return timed


def with_variant(tmp_path: Path, name: str, *, damaged: bool = False) -> Bundle:
    """Return a bundle with its own model as a variant too, or with one that gives other embeddings."""
    path = micro_bundle(tmp_path, selftest={"min_cosine": 0.999})
    model = (path / "encoder.onnx").read_bytes()
    if damaged:
        import onnx  # noqa: PLC0415 -- slow to import
        from onnx import numpy_helper  # noqa: PLC0415

        graph = onnx.load_from_string(model)
        tensor = next(each for each in graph.graph.initializer if each.name == "positions")
        tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), "positions"))
        model = graph.SerializeToString()
    return load_bundle(add_variant(path, name, {f"{name}.onnx": model}))


def test_quickest_faithful_provider_is_chosen(
    bundle: Bundle, gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was measured decides; the others are logged with their times."""
    caplog.set_level(logging.INFO)
    set_times(monkeypatch, cpu_plain=5.0, tensorrt_fp16=1.0)
    assert open_encoder(bundle, cache_dir=tmp_path).provider == "tensorrt 10.3.0 Orin fp16"
    assert "not onnxruntime CPUExecutionProvider (micro-fp32): 5.00 ms for what takes tensorrt" in caplog.text
    set_times(monkeypatch, cpu_plain=1.0, tensorrt_fp16=5.0)
    assert open_encoder(bundle, cache_dir=tmp_path / "other").provider == "onnxruntime CPUExecutionProvider"


def test_environment_says_what_auto_is(
    bundle: Bundle, gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One variable for every command on a machine; a provider that is named wins, a name that is none is refused."""
    set_times(monkeypatch, cpu_plain=5.0, tensorrt_fp16=1.0)
    monkeypatch.setenv(VARIABLE, "cpu")
    assert open_encoder(bundle, cache_dir=tmp_path).provider == "onnxruntime CPUExecutionProvider"
    assert open_encoder(bundle, "tensorrt", cache_dir=tmp_path).provider.startswith("tensorrt")
    with pytest.raises(UsageError, match="contradicts FISHER_EDGE_PROVIDER=cpu"):
        open_encoder(bundle, require="tensorrt", cache_dir=tmp_path)
    monkeypatch.setenv(VARIABLE, "gpu")
    with pytest.raises(UsageError, match="FISHER_EDGE_PROVIDER=gpu is not in this build"):
        open_encoder(bundle, cache_dir=tmp_path)


def test_candidate_that_fails_in_its_trial_is_left_out(
    bundle: Bundle, gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A GPU whose memory ends with a larger batch than the self-test's does not end the start."""
    real, frames = TensorRtEncoder.embed, bundle.selftest.bands.shape[1]

    def embed(encoder: TensorRtEncoder, pieces: Sequence[FloatArray]) -> list[FloatArray]:
        if pieces[0].shape[1] > frames:
            raise RuntimeError("out of memory")
        return real(encoder, pieces)

    monkeypatch.setattr(TensorRtEncoder, "embed", embed)
    assert open_encoder(bundle, cache_dir=tmp_path).kind == "cpu"  # type: ignore[attr-defined]
    assert "out of memory" in caplog.text


def test_difference_within_noise_changes_nothing(
    bundle: Bundle, gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few percent are no reason to enroll channels with other arithmetic."""
    set_times(monkeypatch, cpu_plain=1.0, tensorrt_fp16=0.97)
    assert open_encoder(bundle, cache_dir=tmp_path).sha256 == bundle.sha256


def test_choice_is_remembered(bundle: Bundle, gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second start measures nothing, whatever it would have measured, and calls are as large as at the first."""
    set_times(monkeypatch, cpu_plain=5.0, tensorrt_fp16=1.0)
    first = open_encoder(bundle, cache_dir=tmp_path)
    timed = set_times(monkeypatch, cpu_plain=1.0, tensorrt_fp16=5.0)
    second = open_encoder(bundle, cache_dir=tmp_path)
    assert (second.provider, second.call_tokens, timed) == (first.provider, first.call_tokens, [])
    (choice,) = json.loads((tmp_path / "providers.json").read_text()).values()
    assert choice["ms"] == {"cpu plain": 5.0, "tensorrt fp16": 1.0}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"KEY": 7}', '{"KEY": {}}', '{"KEY": {"provider": []}}'])
def test_damaged_memory_is_measured_again(
    bundle: Bundle, gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """A file that says nothing useful is replaced."""
    timed = set_times(monkeypatch, cpu_plain=5.0, tensorrt_fp16=1.0)
    open_encoder(bundle, cache_dir=tmp_path)
    file = tmp_path / "providers.json"
    (key,) = json.loads(file.read_text())
    file.write_text(text.replace("KEY", key))
    timed.clear()
    assert open_encoder(bundle, cache_dir=tmp_path).provider.startswith("tensorrt")
    assert timed
    assert json.loads(file.read_text())[key]["provider"] == "tensorrt"


def test_other_library_is_measured_again(
    bundle: Bundle, gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an update, or on another machine, what was measured does not count."""
    timed = set_times(monkeypatch, cpu_plain=5.0, tensorrt_fp16=1.0)
    open_encoder(bundle, cache_dir=tmp_path)
    for name, value in (("_version", lambda _: "99"), ("_machine", lambda: ["another"])):
        timed.clear()
        monkeypatch.setattr(trials, name, value)
        open_encoder(bundle, cache_dir=tmp_path)
        assert timed


def test_unfaithful_candidate_is_left_out(
    gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However quick: a form that does not pass the self-test is never used, and the log says why, once."""
    bundle = with_variant(tmp_path, "tensorrt-int8", damaged=True)
    set_times(monkeypatch, tensorrt_fp16=5.0, tensorrt_tensorrt_int8=1.0)
    for _ in range(2):
        assert open_encoder(bundle, "tensorrt", cache_dir=tmp_path).name == "micro-fp32 (fp16)"
    (warning,) = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert warning.startswith("not tensorrt with micro-fp32 (tensorrt int8): ")
    assert "self-test cosine" in warning


@pytest.mark.parametrize(("int8_ms", "form"), [(1.0, "tensorrt int8"), (5.0, "fp16"), (3.9, "fp16")])
def test_int8_on_tensorrt_must_prove_itself(
    gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, int8_ms: float, form: str
) -> None:
    """It is used where it was measured as faster on this device, else half precision is."""
    bundle = with_variant(tmp_path, "tensorrt-int8")
    set_times(monkeypatch, tensorrt_fp16=4.0, tensorrt_tensorrt_int8=int8_ms)
    assert open_encoder(bundle, "tensorrt", cache_dir=tmp_path).name == f"micro-fp32 ({form})"


@pytest.mark.parametrize(("machine", "timed"), [("aarch64", {"cpu_plain", "cpu_s8s8"}), ("x86_64", set())])
def test_static_int8_is_tried_on_arm(
    tmp_path: Path, only_ort: None, monkeypatch: pytest.MonkeyPatch, machine: str, timed: set[str]
) -> None:
    """ONNX Runtime takes it there when it is faster, and does not look at it elsewhere."""
    bundle = with_variant(tmp_path, "s8s8")
    monkeypatch.setattr("platform.machine", lambda: machine)
    found = set_times(monkeypatch, cpu_plain=2.0, cpu_s8s8=1.0)
    encoder = open_encoder(bundle, "cpu", cache_dir=tmp_path)
    assert set(found) == timed
    assert encoder.name == ("micro-fp32 (s8s8)" if timed else "micro-fp32")


def test_calls_are_as_large_as_is_quickest(
    bundle: Bundle, gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of tokens of a call is measured for the provider that was chosen."""
    set_times(monkeypatch, tensorrt_fp16=1.0)

    def seconds(encoder: BaseEncoder, *_: object) -> float:
        return 1 + abs(encoder.call_tokens - 2 * 288) / 100

    monkeypatch.setattr(trials, "_seconds", seconds)
    short = replace(bundle, front_end=replace(bundle.front_end, piece_frames=96))
    assert open_encoder(short, "tensorrt", cache_dir=tmp_path).call_tokens == 576


def test_dynamic_int8_is_never_cut_otherwise(only_ort: None, tmp_path: Path) -> None:
    """The shipped bundle scales activations by call, so that its calls are what they were when it was enrolled with."""
    shipped = load_bundle()
    bands = np.random.default_rng(0).standard_normal((24, 96, 50)).astype(np.float32)
    few, many = (OrtEncoder(shipped, call_tokens=tokens) for tokens in (18, 18_000))
    np.testing.assert_array_equal(few.embed([bands])[0], many.embed([bands])[0])
    assert not few.shares_calls
    assert not (tmp_path / "providers.json").exists()


@pytest.mark.parametrize(
    ("provider", "error", "text"),
    [
        ("openvino", MissingExtraError, r"openvino is not installed; run: pip install 'fisher-edge\[openvino\]'"),
        ("tensorrt", MissingExtraError, r"tensorrt is not installed; run: pip install 'fisher-edge\[tensorrt\]'"),
        ("cuda", ProviderError, "here has no CUDAExecutionProvider; install onnxruntime-gpu"),
        ("ort-tensorrt", ProviderError, "here has no TensorrtExecutionProvider; install onnxruntime-gpu"),
    ],
)
def test_provider_that_was_asked_for_is_never_replaced(
    bundle: Bundle, only_ort: None, provider: str, error: type[Exception], text: str
) -> None:
    """What cannot be used ends the start with one line, and exit code 3, instead of another provider."""
    with pytest.raises(error, match=text) as caught:
        open_encoder(bundle, provider)
    assert getattr(caught.value, "exit_code", None) == 3
    assert "\n" not in str(caught.value)


def test_tensorrt_without_a_driver_says_so(bundle: Bundle, gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package alone is not enough; with "auto" it is then no candidate."""

    def no_library(name: str, *rest: object) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", no_library)
    with pytest.raises(ProviderError, match=r"the CUDA driver cannot be loaded \(libcuda\.so\.1"):
        open_encoder(bundle, "tensorrt")
    assert open_encoder(bundle).provider == "onnxruntime CPUExecutionProvider"


def test_broken_tensorrt_is_no_candidate(
    bundle: Bundle, gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that is there and cannot be imported is said to be broken, not missing; "auto" goes on without it."""

    class Broken(importlib.abc.MetaPathFinder):
        """Finds TensorRT, which then lacks a library."""

        def find_spec(self, name: str, *_: object) -> None:
            if name == "tensorrt":
                raise ImportError("libnvinfer.so.10: cannot open shared object file")

    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name == "tensorrt" else find(name))
    monkeypatch.delitem(sys.modules, "tensorrt")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(
        ProviderError, match=r"tensorrt cannot be imported \(libnvinfer\.so\.10: .*\); install it again"
    ):
        open_encoder(bundle, "tensorrt", cache_dir=tmp_path)
    assert open_encoder(bundle, cache_dir=tmp_path).provider == "onnxruntime CPUExecutionProvider"


def test_any_error_of_a_library_leaves_a_candidate_out(
    bundle: Bundle, gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Libraries raise what they like: "auto" goes on with the rest, and a provider that was asked for fails."""
    monkeypatch.setattr("stand_in_gpu._Engine.create_execution_context", lambda _: int("no number"))
    assert open_encoder(bundle, cache_dir=tmp_path).provider == "onnxruntime CPUExecutionProvider"
    assert "not tensorrt with micro-fp32 (fp16): provider 'tensorrt' fails with" in caplog.text
    with pytest.raises(ProviderError, match="invalid literal for int"):
        open_encoder(bundle, "tensorrt", cache_dir=tmp_path)


def test_choice_that_does_not_start_any_more_is_measured_again(
    bundle: Bundle, gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With "auto" a GPU that fails does not end monitoring; the log says what happened."""
    set_times(monkeypatch, cpu_plain=5.0, tensorrt_fp16=1.0)
    open_encoder(bundle, cache_dir=tmp_path)
    monkeypatch.setattr("stand_in_gpu._Function._cuStreamCreate", lambda *_: 2)
    assert open_encoder(bundle, cache_dir=tmp_path).provider == "onnxruntime CPUExecutionProvider"
    assert "was chosen at an earlier start and is not as it was: CUDA: cuStreamCreate failed with 2" in caplog.text


def test_tensorrt_is_tried_once(bundle: Bundle, gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where TensorRT can be used by itself, its engine is not built a second time by ONNX Runtime."""
    available = ["TensorrtExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    timed = set_times(monkeypatch, cpu_plain=5.0, tensorrt_fp16=1.0)
    open_encoder(bundle, cache_dir=tmp_path)
    assert set(timed) == {"cpu_plain", "tensorrt_fp16"}


def test_bundle_without_a_form_for_a_provider_is_refused(gpu: StandIn) -> None:
    """The shipped dynamic int8 is for ONNX Runtime; the error says what to do."""
    with pytest.raises(BadArtifactError, match=r"\(nano-int8\) has no form that provider 'tensorrt' runs; use an fp32"):
        open_encoder(replace(load_bundle(), variants={}), "tensorrt")


def test_onnx_runtime_that_falls_back_to_the_cpu_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts without an error when a library of a GPU is missing, and only its session knows."""
    real = onnxruntime.InferenceSession

    def on_the_cpu(model: bytes, options: object, **_: Any) -> object:
        return real(model, options, providers=["CPUExecutionProvider"])

    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setattr(onnxruntime, "InferenceSession", on_the_cpu)
    for kind, name in (("cuda", "CUDA"), ("ort-tensorrt", "Tensorrt")):
        with pytest.raises(ProviderError, match=f"could not start {name}ExecutionProvider and fell back to CPUExec"):
            open_encoder(bundle, kind)


def test_execution_providers_get_their_options(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines and timings are kept in a private folder, half precision and the range of shapes are set."""
    asked: list[list[Any]] = []

    class Session:
        def __init__(self, model: bytes, _options: object, *, providers: list[Any], **_settings: Any) -> None:
            asked.append(providers)
            self._real = real(model)

        def get_providers(self) -> list[str]:
            return [asked[-1][0][0]]

        def disable_fallback(self) -> None:
            """Nothing to do."""

        def run(self, outputs: None, feeds: dict[str, FloatArray]) -> Any:
            return self._real.run(outputs, feeds)

    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [name for name, _ in KINDS.values()])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    for kind, (name, form) in KINDS.items():
        encoder = OrtEncoder(bundle, form, kind=kind, cache_dir=tmp_path)
        assert encoder.provider == f"onnxruntime {name}"
        assert asked[-1][0][0] == name
    (_, options), (fallback, cuda) = asked[-1]
    assert options["trt_fp16_enable"] == "True"
    assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"] == str(tmp_path / "ort-tensorrt")
    shapes = [options[f"trt_profile_{name}_shapes"] for name in ("min", "opt", "max")]
    assert shapes == ["bands:1x16x50", "bands:16x96x50", "bands:16x1024x50"]
    assert (tmp_path / "ort-tensorrt").stat().st_mode & 0o777 == 0o700
    assert (fallback, cuda) == ("CUDAExecutionProvider", {"use_tf32": "0"})


KINDS = {"cuda": ("CUDAExecutionProvider", PLAIN), "ort-tensorrt": ("TensorrtExecutionProvider", FP16)}


def test_require_is_met_or_the_start_fails(
    bundle: Bundle, gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts the required provider, and names the one in use where that is another."""
    set_times(monkeypatch, cpu_plain=5.0, tensorrt_fp16=1.0)
    assert open_encoder(bundle, require="tensorrt", cache_dir=tmp_path).provider.startswith("tensorrt")
    with pytest.raises(ProviderError, match=r"require = 'cpu', but tensorrt 10\.3\.0 Orin fp16 is in use: it was not"):
        open_encoder(bundle, require="cpu", cache_dir=tmp_path)


def test_require_says_what_is_missing(bundle: Bundle, only_ort: None) -> None:
    """Where the required provider cannot be used at all, the reason is what to do about it."""
    with pytest.raises(ProviderError, match=r"require = 'tensorrt', but onnx.* is in use: tensorrt is not installed"):
        open_encoder(bundle, require="tensorrt")


def test_require_of_a_provider_that_has_nothing_to_run(gpu: StandIn) -> None:
    """A bundle without a form for the required provider is named."""
    with pytest.raises(ProviderError, match="in use: nano-int8 has no form that it runs"):
        open_encoder(replace(load_bundle(), variants={}), require="tensorrt")


@pytest.mark.parametrize(
    ("provider", "require", "text"),
    [
        ("cpu", "tensorrt", "require = 'tensorrt' contradicts provider = 'cpu'"),
        ("auto", "gpu", "provider 'gpu' is not in this build; choose one of: cpu, openvino"),
        ("auto", "auto", "provider 'auto' is not in this build; choose one of: cpu, openvino"),
    ],
)
def test_require_that_cannot_be_is_a_usage_error(bundle: Bundle, provider: str, require: str, text: str) -> None:
    """Two settings that contradict each other, and names that do not exist."""
    with pytest.raises(UsageError, match=text):
        open_encoder(bundle, provider, require)


def test_form_is_found_by_its_hash(
    bundle: Bundle, gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A baseline goes on with the arithmetic it was made with, whichever provider is preferred now."""
    set_times(monkeypatch, cpu_plain=5.0, tensorrt_fp16=1.0, tensorrt_plain=1.0)
    forms = forms_of(bundle)
    for provider in ("auto", "cpu", "tensorrt"):
        found = open_encoder(bundle, provider, cache_dir=tmp_path, sha256=forms[FP16].sha256)
        assert found.sha256 == forms[FP16].sha256
    assert open_encoder(bundle, "cpu", cache_dir=tmp_path, sha256=bundle.sha256).sha256 == bundle.sha256


def test_form_of_a_baseline_costs_no_engine_that_is_not_needed(
    bundle: Bundle, gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plain model runs on the CPU, although TensorRT could build it in float32 too."""
    set_times(monkeypatch, cpu_plain=5.0)
    found = open_encoder(bundle, "tensorrt", cache_dir=tmp_path, sha256=bundle.sha256)
    assert (found.provider, gpu.builds) == ("onnxruntime CPUExecutionProvider", [])


def test_form_of_a_baseline_prefers_the_configured_provider(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the provider that is asked for runs the form, no other is tried."""
    hide(monkeypatch, "openvino")
    install(monkeypatch, version="11.4.0")
    timed = set_times(monkeypatch, cpu_plain=1.0, tensorrt_plain=5.0)
    found = open_encoder(bundle, "tensorrt", cache_dir=tmp_path, sha256=bundle.sha256)
    assert found.provider == "tensorrt 11.4.0 Orin fp32"
    assert "cpu_plain" not in timed


def test_form_of_another_machine_can_be_run(tmp_path: Path, only_ort: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A baseline that was enrolled on ARM with static int8 goes on with it on x86, where it is worth no trial."""
    bundle = with_variant(tmp_path, "s8s8")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    found = open_encoder(bundle, cache_dir=tmp_path, sha256=forms_of(bundle)["s8s8"].sha256)
    assert found.name == "micro-fp32 (s8s8)"


def test_form_that_nothing_here_runs_names_the_extra(bundle: Bundle, only_ort: None, tmp_path: Path) -> None:
    """It says what to install for it, or that the bundle has no such form."""
    with pytest.raises(ProviderError, match=r"micro-fp32 \(fp16\) cannot be run: .*'fisher-edge\[tensorrt\]'"):
        open_encoder(bundle, cache_dir=tmp_path, sha256=forms_of(bundle)[FP16].sha256)
    with pytest.raises(BadArtifactError, match="has no form with the hash ffffffff"):
        open_encoder(bundle, cache_dir=tmp_path, sha256="f" * 64)


def test_hash_of_a_form_follows_from_its_files_alone(tmp_path: Path) -> None:
    """It is the same wherever and with whatever it runs, and another for other files or another bundle."""
    one = load_bundle(add_variant(micro_bundle(tmp_path / "1"), "s8s8", {"s8s8.onnx": b""}))
    forms = forms_of(one)
    assert len({form.sha256 for form in forms.values()}) == len(forms) == 3
    assert forms[PLAIN].sha256 == one.sha256
    assert forms["s8s8"].sha256 == forms_of(replace(one, path=tmp_path / "elsewhere"))["s8s8"].sha256
    other = load_bundle(add_variant(micro_bundle(tmp_path / "2"), "s8s8", {"s8s8.onnx": b"\x08\x08"}))
    assert other.sha256 == one.sha256
    assert forms_of(other)["s8s8"].sha256 != forms["s8s8"].sha256
    assert forms_of(replace(one, sha256="0" * 64))["s8s8"].sha256 != forms["s8s8"].sha256


def test_folder_that_cannot_be_written_costs_only_the_next_start(
    bundle: Bundle, gpu: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything is measured and built again then, and the log says so."""
    (tmp_path / "file").write_text("")
    assert open_encoder(bundle, "tensorrt", cache_dir=tmp_path / "file" / "cache").provider.startswith("tensorrt")
    assert "nothing is remembered for the next start" in caplog.text


def test_cache_of_the_user_is_the_last_resort(
    bundle: Bundle, gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands without a state directory remember in the user's cache, or without a home in a private folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    open_encoder(bundle, "tensorrt")
    assert (tmp_path / "fisher-edge" / "providers.json").exists()
    monkeypatch.delenv("XDG_CACHE_HOME")

    def no_home() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    open_encoder(bundle, "tensorrt")
    (folder,) = (tmp_path / "tmp").iterdir()
    assert folder.name.startswith("fisher-edge-")


@pytest.mark.parametrize(("kinds", "clock"), [("cpu openvino", "process_time"), ("cpu tensorrt", "perf_counter")])
def test_trial_counts_cpu_time_unless_a_gpu_computes(kinds: str, clock: str) -> None:
    """Other programs take wall time from a trial, and a GPU takes no CPU time."""
    encoders: Any = [SimpleNamespace(kind=kind) for kind in kinds.split()]
    assert trials._clock(encoders) is getattr(time, clock)


@NEEDS_OPENVINO
def test_openvino_is_chosen_by_its_real_time(tmp_path: Path) -> None:
    """The real trial ends with one of the two, says so in the file, and the next start loads the same."""
    path = micro_bundle(tmp_path, selftest={"min_cosine": 0.999})
    bundle = load_bundle(add_variant(path, "openvino-int8", openvino_ir(path, tmp_path)))
    first = open_encoder(bundle, cache_dir=tmp_path / "cache")
    (choice,) = json.loads((tmp_path / "cache" / "providers.json").read_text()).values()
    assert {"cpu plain", "openvino openvino-int8", "openvino plain"} <= set(choice["ms"])
    assert min(choice["ms"].values()) > 0
    second = open_encoder(bundle, cache_dir=tmp_path / "cache")
    assert (second.provider, second.sha256) == (first.provider, first.sha256)


def test_bench_takes_the_names(only_ort: None) -> None:
    """The command line refuses a name that is none, and names those there are."""
    refused = run_here("bench", "--provider", "gpu", "--seconds", "0.2")
    assert refused.returncode == 2
    assert "choose one of: auto, cpu, openvino, cuda, ort-tensorrt, tensorrt" in refused.stderr
