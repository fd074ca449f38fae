"""Which encoder runs a bundle: the one that is asked for, or the quickest faithful one. See `open_encoder`.

What runs a bundle is a candidate: a provider, and a form of the bundle that it can run. Where there are several, each
is opened, which runs the self-test, and timed on this machine; the choice is remembered (`trials`).
"""

import importlib.util
import logging
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

from fisher_edge.encoder.base import CALL_TOKENS, BaseEncoder
from fisher_edge.encoder.bundle import Bundle, first_line
from fisher_edge.encoder.cuda import load_driver
from fisher_edge.encoder.engines import private_folder
from fisher_edge.encoder.forms import FP16, PLAIN, Form, forms_of
from fisher_edge.encoder.openvino import OpenVinoEncoder
from fisher_edge.encoder.ort import OrtEncoder, check_execution_provider
from fisher_edge.encoder.protocol import Encoder
from fisher_edge.encoder.tensorrt import TensorRtEncoder, default_form, load_library
from fisher_edge.encoder.trials import Candidate, chosen
from fisher_edge.errors import (
    BadArtifactError,
    FisherEdgeError,
    MissingExtraError,
    MissingPackageError,
    ProviderError,
    StateError,
    UsageError,
)

__all__ = ["AUTO", "PROVIDERS", "VARIABLE", "open_encoder"]

AUTO = "auto"
# What "auto" means where this variable of the environment is set: one provider for every command on a machine.
VARIABLE = "FISHER_EDGE_PROVIDER"
# After "auto" in the order of preference among equals.
PROVIDERS = (AUTO, "cpu", "openvino", "cuda", "ort-tensorrt", "tensorrt")
ARM = ("aarch64", "arm64")
# The forms of a bundle that each provider is made for, best known first.
RUNS = {
    "cpu": (PLAIN, "s8s8"),
    "openvino": ("openvino-int8", PLAIN),
    "cuda": ("tensorrt-fp16", PLAIN),
    "ort-tensorrt": ("tensorrt-fp16", FP16, PLAIN),
    "tensorrt": ("tensorrt-fp16", FP16, PLAIN, "tensorrt-int8"),
}

log = logging.getLogger(__name__)


def open_encoder(
    bundle: Bundle,
    provider: str = AUTO,
    require: str | None = None,
    cache_dir: Path | None = None,
    *,
    sha256: str | None = None,
) -> Encoder:
    """Load a bundle with the provider that is asked for, or with "auto" the quickest one here that is faithful.

    `require` names the provider that must be the one in use. `cache_dir` keeps measurements and engines (None: the
    user's cache folder). `sha256` asks for the form of the bundle that has this hash, for a baseline that was made with
    it: where `provider` does not run this form, another one does.

    Raises UsageError for a provider that this build does not have, MissingExtraError for one that is not installed,
    ProviderError for one that cannot be used here or is not the required one, BadArtifactError for a model that does
    not run or does not pass its self-test. No other provider takes the place of one that was asked for.
    """
    variable = ""
    if provider == AUTO and os.environ.get(VARIABLE):
        provider, variable = os.environ[VARIABLE], f"{VARIABLE}={os.environ[VARIABLE]}"
    _check_names(provider, require, variable)
    folder = _usable(cache_dir or _user_cache())
    candidates = _candidates(bundle, provider, folder)
    if sha256 is not None:
        candidates = _with_hash(candidates, sha256) or _with_hash(_candidates(bundle, AUTO, folder), sha256)
        # A form that is worth no trial here may still be that of a baseline, which comes from another machine.
        candidates = candidates or _with_hash(_candidates(bundle, AUTO, folder, everything=True), sha256)
    if not candidates:
        raise _nothing_runs(bundle, provider, sha256)
    encoder = chosen(bundle, candidates, folder)
    if require is not None and encoder.kind != require:
        raise ProviderError(_why_not(require, encoder))
    return encoder


def _check_names(provider: str, require: str | None, variable: str) -> None:
    """Refuse what is not in this build, and two settings that contradict each other.

    `variable` is what the environment says, where the provider comes from there.
    """
    for name, names, text in (
        (provider, PROVIDERS, variable or f"provider {provider!r}"),
        (require, (None, *PROVIDERS[1:]), f"provider {require!r}"),
    ):
        if name not in names:
            known = ", ".join(filter(None, names))
            raise UsageError(f"{text} is not in this build; choose one of: {known}")
    if require is not None and provider not in {AUTO, require}:
        raise UsageError(
            f"require = {require!r} contradicts {variable or f'provider = {provider!r}'}; leave one of them out"
        )


def _candidates(bundle: Bundle, provider: str, folder: Path | None, *, everything: bool = False) -> list[Candidate]:
    """Return what is worth a trial, or `everything` that can run; raises what keeps a provider from being used."""
    if provider == AUTO:
        usable = [name for name in PROVIDERS[1:] if _obstacle(name) is None]
        if "tensorrt" in usable and not everything:
            usable = [name for name in usable if name != "ort-tensorrt"]  # the same engine, built a second time
        return [each for name in usable for each in _candidates(bundle, name, folder, everything=everything)]
    obstacle = _obstacle(provider)
    if obstacle is not None:
        raise obstacle
    forms = _forms(bundle, provider)
    wanted = forms if everything else _preferred(bundle, provider, forms)
    return [Candidate(provider, form, _opener(bundle, provider, form.key, folder)) for form in wanted]


def _with_hash(candidates: list[Candidate], sha256: str) -> list[Candidate]:
    """Return the candidates that run the form with this hash."""
    return [candidate for candidate in candidates if candidate.form.sha256 == sha256]


def _forms(bundle: Bundle, provider: str) -> list[Form]:
    """Return the forms of a bundle that a provider can run.

    Dynamic int8 belongs to ONNX Runtime's CPU provider: OpenVINO is three times slower with it, GPUs refuse it.
    """
    forms = forms_of(bundle)
    runs_plain = provider == "cpu" or bundle.precision != "int8"
    return [forms[key] for key in RUNS[provider] if key in forms and (key != PLAIN or runs_plain)]


def _preferred(bundle: Bundle, provider: str, forms: list[Form]) -> list[Form]:
    """Return the forms that are worth a trial: one of each width of numbers where a GPU has several."""
    if provider == "cpu" and platform.machine() not in ARM:
        return [form for form in forms if form.key != "s8s8"]
    if provider == "ort-tensorrt":
        return forms[:1]
    if provider == "tensorrt":
        return [form for form in forms if form.key in {default_form(bundle), "tensorrt-int8"}]
    return forms


def _opener(bundle: Bundle, provider: str, key: str, folder: Path | None) -> Callable[[int], BaseEncoder]:
    """Return what opens an encoder for calls of so many tokens."""

    def opened(call_tokens: int = CALL_TOKENS) -> BaseEncoder:
        try:
            if provider == "openvino":
                return OpenVinoEncoder(bundle, key, cache_dir=folder, call_tokens=call_tokens)
            if provider == "tensorrt":
                return TensorRtEncoder(bundle, key, cache_dir=folder, call_tokens=call_tokens)
            return OrtEncoder(bundle, key, kind=provider, cache_dir=folder, call_tokens=call_tokens)
        except FisherEdgeError:
            raise
        except Exception as error:  # the errors of the libraries share no base but this
            text = f"provider {provider!r} fails with {bundle.path}: {first_line(error)}; choose another provider"
            raise ProviderError(text) from error

    return opened


def _obstacle(provider: str) -> FisherEdgeError | None:
    """Return why a provider cannot be used here, as far as that shows before a model is loaded; None if nothing."""
    try:
        if provider in {"cuda", "ort-tensorrt"}:
            check_execution_provider(provider)
        elif provider != "cpu" and importlib.util.find_spec(provider) is None:
            return MissingExtraError(provider, provider)
        elif provider == "tensorrt":
            load_driver()
            load_library()
    except MissingPackageError as error:
        return error
    return None


def _nothing_runs(bundle: Bundle, provider: str, sha256: str | None) -> FisherEdgeError:
    """Say why there is nothing to run a bundle with, or the form with this hash."""
    if sha256 is None:
        return BadArtifactError(
            f"{bundle.path} ({bundle.name}) has no form that provider {provider!r} runs; use an fp32 bundle, export it "
            "again, or choose another provider"
        )
    form = next((form for form in forms_of(bundle).values() if form.sha256 == sha256), None)
    if form is None:
        return BadArtifactError(f"{bundle.path} has no form with the hash {sha256[:8]}; copy the bundle again")
    reasons = [str(_obstacle(name)) for name in PROVIDERS[1:] if form.key in RUNS[name] and _obstacle(name) is not None]
    return ProviderError(f"{form.name} cannot be run: {'; or '.join(reasons)}")


def _why_not(require: str, encoder: BaseEncoder) -> str:
    """Say why the required provider is not the one in use."""
    obstacle = _obstacle(require)
    if obstacle is not None:
        reason = str(obstacle)
    elif not _forms(encoder.bundle, require):
        reason = f"{encoder.bundle.name} has no form that it runs; use an fp32 bundle or export it again"
    else:
        reason = f"it was not faithful or not the quickest, see the log; provider = {require!r} tries no other"
    return f"require = {require!r}, but {encoder.provider} is in use: {reason}"


def _user_cache() -> Path:
    """Return the folder for what can be made again: the user's, or a private one where there is none."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"fisher-edge-{os.getuid()}"
    return Path(home) / "fisher-edge"


def _usable(folder: Path) -> Path | None:
    """Return a folder that can be used, else None: everything is then measured and built again at every start.

    What root makes in the folder of a service, the service could not use: nothing is made there.
    """
    try:
        if os.getuid() == 0 and folder.parent.exists() and folder.parent.stat().st_uid != 0:
            return None
        return private_folder(folder)
    except (OSError, StateError) as error:
        log.warning("%s: nothing is remembered for the next start", error)
        return None
