"""Baselines and the form of the model they were made with: a channel goes on with it whatever is preferred now."""

import json
import shutil
from pathlib import Path

import pytest
from command import run_here
from gateways import WINDOW_S, config_of
from machine import RATE_HZ, machine_signal, sound_file
from stand_in_gpu import StandIn, install
from test_select import hide, set_times
from variants import micro_bundle

from fisher_edge.config import Config
from fisher_edge.dsp.blocks import Block
from fisher_edge.encoder.bundle import Bundle, load_bundle
from fisher_edge.encoder.forms import FP16, PLAIN, forms_of
from fisher_edge.encoder.select import VARIABLE
from fisher_edge.errors import MissingExtraError, ProviderError
from fisher_edge.gateway import Gateway
from fisher_edge.gateway.check import findings
from fisher_edge.gateway.live import accept
from fisher_edge.gateway.monitored import Plan
from fisher_edge.gateway.recorder import Recorder
from fisher_edge.gateway.recordings import encoder_for
from fisher_edge.gateway.wiring import Encoders, Planner
from fisher_edge.names import ChannelKey
from fisher_edge.store import bundles
from fisher_edge.store.baselines import Baselines
from fisher_edge.store.database import Database
from fisher_edge.store.takes import PendingTakes, TakeFacts

A = ChannelKey("pump-1", "vib-de")
PLACE = ("--asset", A.asset, "--channel", A.channel)
PLAIN_QUICKER = {"cpu_plain": 1.0, "tensorrt_fp16": 5.0}
HALF_QUICKER = {"cpu_plain": 5.0, "tensorrt_fp16": 1.0}


@pytest.fixture(autouse=True)
def free_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let "auto" choose."""
    monkeypatch.delenv(VARIABLE)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Put the stand-in in the place of a GPU with TensorRT, and hide OpenVINO."""
    hide(monkeypatch, "openvino")
    return install(monkeypatch)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a float32 bundle; it is not to be changed."""
    return micro_bundle(tmp_path_factory.mktemp("bundle"), selftest={"min_cosine": 0.999})


@pytest.fixture
def bundle(model: Path) -> Bundle:
    """Return that bundle."""
    return load_bundle(model)


def enroll(folder: Path, model: Path, *words: str) -> None:
    """Enroll a machine on the command line, with a new recording each time."""
    number = len(list(folder.glob("*.wav")))
    files = [sound_file(folder / f"{seed}.wav", machine_signal(seed, 2.0)) for seed in range(number, number + 2)]
    options = (*PLACE, "--model", model, "--state-dir", folder / "state", "--window-s", WINDOW_S, *words)
    done = run_here("enroll", *files, *options)
    assert done.returncode == 0, done.stderr


def forget_choices(folder: Path) -> None:
    """Forget what was measured."""
    (folder / "state" / "cache" / "providers.json").unlink()


def configured(folder: Path, model: Path | str, **settings: str) -> Config:
    """Return a configuration with one channel."""
    return config_of(folder, "embedded", [A], model={"bundle": str(model), **settings})


def planned(folder: Path, config: Config) -> Plan:
    """Return the plan of the channel."""
    with Database(folder / "state") as database:
        encoders = Encoders(folder / "state", config.model.bundle, config.model.provider, config.model.require)
        return Planner(config, Baselines(database), encoders).plan(config.channel[0])


@pytest.mark.parametrize(("before", "after"), [(PLAIN_QUICKER, HALF_QUICKER), (HALF_QUICKER, PLAIN_QUICKER)])
def test_baseline_goes_on_with_its_own_form(
    tmp_path: Path,
    model: Path,
    gpu: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    before: dict[str, float],
    after: dict[str, float],
) -> None:
    """What was enrolled in one arithmetic is judged in it, though another is preferred now; `config check` says so."""
    set_times(monkeypatch, **before)
    enroll(tmp_path, model)
    forget_choices(tmp_path)
    set_times(monkeypatch, **after)
    config = configured(tmp_path, model)
    plan = planned(tmp_path, config)
    found = findings(config)
    half = "micro-fp32 (fp16)"
    enrolled, preferred = ("micro-fp32", half) if before is PLAIN_QUICKER else (half, "micro-fp32")
    assert plan.reason is None
    assert plan.encoder.name == plan.judge.model.name == enrolled
    assert plan.encoder.sha256 == plan.judge.model.sha256
    assert found.model == preferred
    (note,) = [note for note in found.notes if "judged by the model" in note]
    assert f"it was enrolled with, {enrolled} (" in note
    assert f"not {preferred} (" in note


def test_form_that_cannot_be_run_any_more_says_what_to_do(
    tmp_path: Path, model: Path, gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra was removed: the channel names it and the command that embeds the baseline again; others go on."""
    set_times(monkeypatch, **HALF_QUICKER)
    enroll(tmp_path, model)
    hide(monkeypatch, "openvino", "tensorrt")
    plan = planned(tmp_path, configured(tmp_path, model))
    assert plan.reason is not None
    assert "the model micro-fp32 (fp16) (" in plan.reason
    assert "pip install 'fisher-edge[tensorrt]'" in plan.reason
    assert "or run: fisher-edge baseline reembed pump-1 vib-de" in plan.reason
    assert plan.encoder.name == "micro-fp32"


def test_reembedding_takes_what_is_preferred_now(
    tmp_path: Path, model: Path, gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is the way from one arithmetic to another."""
    set_times(monkeypatch, **PLAIN_QUICKER)
    enroll(tmp_path, model)
    forget_choices(tmp_path)
    set_times(monkeypatch, **HALF_QUICKER)
    place = (A.asset, A.channel, "--model", model, "--state-dir", tmp_path / "state")
    done = run_here("baseline", "reembed", *place)
    assert done.returncode == 0, done.stderr
    assert planned(tmp_path, configured(tmp_path, model)).judge.model.name == "micro-fp32 (fp16)"


@pytest.mark.parametrize("words", [["--add"], ["--label", "imbalance"]])
def test_enrollment_goes_on_in_the_form_it_began_with(
    tmp_path: Path, model: Path, gpu: StandIn, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """Further takes, and examples of a fault, must be comparable with the normal state."""
    set_times(monkeypatch, **PLAIN_QUICKER)
    enroll(tmp_path, model)
    forget_choices(tmp_path)
    set_times(monkeypatch, **HALF_QUICKER)
    enroll(tmp_path, model, *words)
    with Database(tmp_path / "state") as database:
        names = {baseline.model_name for baseline in Baselines(database).active(A)}
        assert names == {"micro-fp32"}
        assert encoder_for(database, str(model), A).name == "micro-fp32 (fp16)"


@pytest.mark.parametrize(
    ("provider", "extend", "form"), [("auto", False, FP16), ("cpu", False, PLAIN), ("auto", True, PLAIN)]
)
def test_takes_are_enrolled_as_the_gateway_would_judge_them(
    tmp_path: Path,
    model: Path,
    bundle: Bundle,
    gpu: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    provider: str,
    extend: bool,
    form: str,
) -> None:
    """The provider of the configuration counts, and the form of the baseline that takes are added to."""
    set_times(monkeypatch, **PLAIN_QUICKER)
    enroll(tmp_path, model)
    forget_choices(tmp_path)
    set_times(monkeypatch, **HALF_QUICKER)
    facts = TakeFacts(WINDOW_S, None, str(model), "1", 0.0, provider=provider)
    recorder = Recorder(PendingTakes(tmp_path / "state", A), facts, 60.0)
    recorder.push(Block(machine_signal(99, 2.0), RATE_HZ, 0, 1e9))
    recorder.stop()
    with Database(tmp_path / "state") as database:
        accept(database, A, extend=extend, audio_bytes=0)
        normal = Baselines(database).get(A, None)
    assert normal is not None
    assert normal.model_sha256 == forms_of(bundle)[form].sha256


def test_bundle_is_kept_for_the_form_of_the_baseline(
    tmp_path: Path, model: Path, bundle: Bundle, gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another default model does not end monitoring, whichever form the baseline was made with."""
    set_times(monkeypatch, **HALF_QUICKER)
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    enroll(tmp_path, copy)
    shutil.rmtree(copy)
    half = forms_of(bundle)[FP16]
    assert bundles.find(tmp_path / "state", half.sha256) is not None
    plan = planned(tmp_path, configured(tmp_path, "default", provider="cpu"))
    assert (plan.reason, plan.encoder.name, plan.encoder.sha256) == (None, half.name, half.sha256)


def test_gateway_keeps_the_bundle_for_every_form_that_is_needed(
    tmp_path: Path, model: Path, bundle: Bundle, gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was deleted from the state directory is kept again while the configured bundle is still that one."""
    set_times(monkeypatch, **HALF_QUICKER)
    enroll(tmp_path, model)
    shutil.rmtree(tmp_path / "state" / "bundles")
    config = configured(tmp_path, model, provider="cpu")
    with Database(tmp_path / "state") as database:
        planner = Planner(config, Baselines(database), Encoders(tmp_path / "state", str(model), "cpu"))
        Gateway(config)._keep_bundle(planner)
    assert [folder.name for folder in (tmp_path / "state" / "bundles").iterdir()] == [forms_of(bundle)[FP16].sha256]


def test_kept_bundle_that_has_no_such_form_is_a_reason(
    tmp_path: Path, model: Path, gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kept bundle that was replaced by another is not taken for it."""
    set_times(monkeypatch, **HALF_QUICKER)
    enroll(tmp_path, model)
    (kept,) = (tmp_path / "state" / "bundles").iterdir()
    manifest = json.loads((kept / "manifest.json").read_text()) | {"precision": "fp16"}
    (kept / "manifest.json").write_text(json.dumps(manifest))
    plan = planned(tmp_path, configured(tmp_path, "default", provider="cpu"))
    assert plan.reason is not None
    assert "has no form with the hash" in plan.reason


def test_provider_in_use_is_announced(
    tmp_path: Path, model: Path, gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The `info` message names the provider, and the model with its form."""
    set_times(monkeypatch, **HALF_QUICKER)
    encoders = Encoders(tmp_path, str(model))
    info = Gateway(configured(tmp_path, model))._info(encoders)
    assert (info.model_name, info.provider) == ("micro-fp32 (fp16)", "tensorrt 10.3.0 Orin fp16")
    assert info.model_sha256 == encoders.default.sha256 != encoders.default.bundle.sha256


def test_channel_without_a_baseline_names_the_form(
    tmp_path: Path, model: Path, gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain measures too say which model would embed them."""
    set_times(monkeypatch, **HALF_QUICKER)
    judge = planned(tmp_path, configured(tmp_path, model)).judge
    assert (judge.model.name, judge.model.sha256) == ("micro-fp32 (fp16)", forms_of(load_bundle(model))[FP16].sha256)


def test_gateway_does_not_start_with_another_provider(
    tmp_path: Path, model: Path, gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`require` that is not met, or a provider that is not installed, ends the start before anything is monitored."""
    set_times(monkeypatch, **PLAIN_QUICKER)
    with pytest.raises(ProviderError, match="require = 'tensorrt', but onnxruntime CPUExecutionProvider is in use"):
        Gateway(configured(tmp_path, model, require="tensorrt")).run()
    with pytest.raises(MissingExtraError, match=r"'fisher-edge\[openvino\]'"):
        Gateway(configured(tmp_path, model, provider="openvino")).run()


def test_check_says_what_the_gateway_would_say(
    tmp_path: Path, model: Path, gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`config check` names the provider in use, and fails as the gateway would."""
    set_times(monkeypatch, **HALF_QUICKER)
    file = tmp_path / "gateway.toml"
    channel = '[[channel]]\nasset = "pump-1"\nname = "vib-de"\nsource = { type = "recording", files = ["x.wav"] }\n'
    file.write_text(f'[model]\nbundle = "{model}"\n{channel}')
    checked = run_here("config", "check", file, cwd=tmp_path)
    assert "micro-fp32 (fp16) runs on tensorrt 10.3.0 Orin fp16" in checked.stdout.splitlines()
    in_use = json.loads(run_here("config", "check", file, "--json", cwd=tmp_path).stdout)["in_use"]
    assert in_use == {"model": "micro-fp32 (fp16)", "provider": "tensorrt 10.3.0 Orin fp16"}
    file.write_text(f'[model]\nbundle = "{model}"\nrequire = "openvino"\n{channel}')
    refused = run_here("config", "check", file, cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "require = 'openvino', but tensorrt" in refused.stderr
    assert refused.stderr.count("\n") == 1
