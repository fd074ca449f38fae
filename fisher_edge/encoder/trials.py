"""Chooses between candidates by trying them on this machine, and remembers the choice. Start at `chosen`."""

import hashlib
import importlib.metadata
import json
import logging
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fisher_edge.dsp.blocks import FloatArray
from fisher_edge.encoder.base import CALL_TOKENS, BaseEncoder, tokens_of
from fisher_edge.encoder.bundle import Bundle, first_line
from fisher_edge.encoder.forms import Form
from fisher_edge.errors import FisherEdgeError, ProviderError

__all__ = ["Candidate", "chosen"]

FILE_NAME = "providers.json"
# Choices kept in the file: those made last.
KEPT = 32
LIBRARIES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt")
# Providers that compute on the CPU, on one thread.
ON_CPU = ("cpu", "openvino")
# The shapes of a trial: the bands of a 48 kHz sensor where pieces are short, few of whole windows.
ROWS, LONG_ROWS, LONG_FRAMES = 12, 2, 256
ROUNDS = 7
# Calls before the rounds: a library may prepare itself for a shape that comes often.
WARM_UP = 10
# A candidate must be so much quicker than one before it in the list: less is noise, and another form means that
# channels are enrolled with other arithmetic.
QUICKER = 0.95
# Numbers of tokens of a call that are tried, as multiples of the usual one.
MULTIPLES = (1, 2, 4, 8)

Clock = Callable[[], float]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A provider with a form of the bundle; `open` loads it for calls of so many tokens."""

    provider: str
    form: Form
    open: Callable[[int], BaseEncoder]

    def __str__(self) -> str:
        """Return the provider and what it would run."""
        return f"{self.provider} with {self.form.name}"


def chosen(bundle: Bundle, candidates: list[Candidate], folder: Path | None) -> BaseEncoder:
    """Return the encoder of the quickest candidate that passes the self-test; one candidate on the CPU is not timed.

    `folder` keeps the choice for the next start (None: it is not kept). Raises what the last candidate raised when
    none passes.
    """
    if len(candidates) == 1 and candidates[0].provider == "cpu":
        return candidates[0].open(CALL_TOKENS)
    key = _key(bundle, candidates)
    known = _remembered(folder).get(key)
    encoder = _again(candidates, known) if isinstance(known, dict) else None
    if encoder is not None:
        return encoder
    encoders = _faithful(candidates)
    batch = _noise(bundle)
    clock = _clock(encoders)
    times_s = _times(encoders, batch, clock)
    encoders = list(times_s)
    encoder = min(encoders, key=lambda each: times_s[each] * (1 if each is encoders[0] else 1 / QUICKER))
    for other in encoders:
        if other is not encoder:
            log.info("not %s (%s): %.2f ms for what takes %s %.2f ms", other.provider, other.name,
                     1000 * times_s[other], encoder.provider, 1000 * times_s[encoder])  # fmt: skip
    if encoder.shares_calls:
        encoder.call_tokens = _best_call_tokens(encoder, batch, clock)
    encoder.forget_shapes()
    log.info("%s runs %s, %d tokens a call", encoder.provider, encoder.name, encoder.call_tokens)
    facts = {"provider": encoder.kind, "form": encoder.form.key, "call_tokens": encoder.call_tokens}
    measured = {f"{each.kind} {each.form.key}": round(1000 * times_s[each], 3) for each in encoders}
    _remember(folder, key, facts | {"ms": measured})
    return encoder


def _faithful(candidates: list[Candidate]) -> list[BaseEncoder]:
    """Open all candidates and return those that pass the self-test; the others are logged with their reason."""
    encoders, failure = [], None
    for candidate in candidates:
        try:
            encoders.append(candidate.open(CALL_TOKENS))
        except FisherEdgeError as error:
            failure = error
            if len(candidates) > 1:
                log.warning("not %s: %s", candidate, error)
    if failure is not None and not encoders:
        raise failure
    return encoders


def _clock(encoders: list[BaseEncoder]) -> Clock:
    """Return the clock of a trial: CPU time, which other programs do not change, unless a GPU computes."""
    return time.process_time if all(encoder.kind in ON_CPU for encoder in encoders) else time.perf_counter


def _times(encoders: list[BaseEncoder], batch: FloatArray, clock: Clock) -> dict[BaseEncoder, float]:
    """Return the shortest time of each for a batch, tried in turn so that a busy moment meets all of them."""
    working = [encoder for encoder in encoders if _warmed_up(encoder, batch)]
    if not working:
        raise ProviderError("no provider runs a batch of the model; see the log, or choose provider = 'cpu'")
    rounds = [[_seconds(encoder, batch, clock) for encoder in working] for _ in range(ROUNDS)]
    return {encoder: min(times) for encoder, times in zip(working, zip(*rounds, strict=True), strict=True)}


def _warmed_up(encoder: BaseEncoder, batch: FloatArray) -> bool:
    """Run an encoder a few times; one that fails at that is no candidate."""
    try:
        for _ in range(WARM_UP):
            encoder.embed([batch])
    except Exception as error:  # noqa: BLE001 -- the errors of the libraries share no base
        log.warning("not %s (%s): %s", encoder.provider, encoder.name, first_line(error))
        return False
    return True


def _best_call_tokens(encoder: BaseEncoder, batch: FloatArray, clock: Clock) -> int:
    """Return the number of tokens of a call that costs least for each sub-band."""
    usual = max(CALL_TOKENS, tokens_of(*batch.shape[1:]))
    rows = max(1, MULTIPLES[-1] * usual // max(1, tokens_of(*batch.shape[1:])))
    many = np.resize(batch, (rows, *batch.shape[1:]))
    best, least_s = CALL_TOKENS, np.inf
    for multiple in MULTIPLES:
        encoder.call_tokens = multiple * usual
        try:
            encoder.embed([many])
            taken_s = min(_seconds(encoder, many, clock) for _ in range(3))
        except Exception as error:  # noqa: BLE001 -- the errors of the libraries share no base
            log.info("%s: no calls of %d tokens: %s", encoder.provider, encoder.call_tokens, first_line(error))
            break
        if taken_s < QUICKER * least_s:
            best, least_s = encoder.call_tokens, taken_s
    return best


def _seconds(encoder: BaseEncoder, batch: FloatArray, clock: Clock) -> float:
    """Return the time of one batch."""
    started_s = clock()
    encoder.embed([batch])
    return clock() - started_s


def _noise(bundle: Bundle) -> FloatArray:
    """Return sub-bands of noise in the shape of a piece: (bands, frames, band_width)."""
    front_end = bundle.front_end
    frames = front_end.piece_frames or front_end.max_frames
    rows = LONG_ROWS if frames > LONG_FRAMES else ROWS
    return np.random.default_rng(0).standard_normal((rows, frames, front_end.band_width)).astype(np.float32)


def _again(candidates: list[Candidate], known: dict[str, Any]) -> BaseEncoder | None:
    """Open the candidate that an earlier start has chosen; None when it is not as it was."""
    wanted, tokens = (known.get("provider"), known.get("form")), known.get("call_tokens")
    found = [each for each in candidates if (each.provider, each.form.key) == wanted]
    if not found or not isinstance(tokens, int) or tokens < 1:
        return None
    try:
        return found[0].open(tokens)
    except FisherEdgeError as error:
        log.warning("%s was chosen at an earlier start and is not as it was: %s", found[0], error)
        return None


def _key(bundle: Bundle, candidates: list[Candidate]) -> str:
    """Hash all that the choice depends on: the candidates and their files, the libraries, the machine."""
    facts = [
        [(each.provider, each.form.sha256) for each in candidates],
        bundle.front_end.piece_frames,
        [_version(library) for library in LIBRARIES],
        _machine(),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _version(library: str) -> str:
    """Return the version of an installed package without importing it."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""


@cache
def _machine() -> list[str]:
    """Return what tells this machine's processor from others."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    kinds = ("model name", "CPU part", "Model")
    return [platform.machine(), *sorted({line for line in lines if line.startswith(kinds)})]


def _remembered(folder: Path | None) -> dict[str, Any]:
    """Return the choices of earlier starts by their keys; nothing when the file is missing or damaged."""
    if folder is None:
        return {}
    try:
        choices = json.loads((folder / FILE_NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return choices if isinstance(choices, dict) else {}


def _remember(folder: Path | None, key: str, choice: dict[str, Any]) -> None:
    """Add a choice to the file, which is replaced as a whole."""
    if folder is None:
        return
    choices = {name: value for name, value in _remembered(folder).items() if name != key} | {key: choice}
    partial = folder / f"{FILE_NAME}.partial"
    try:
        partial.write_text(json.dumps(dict(list(choices.items())[-KEPT:]), indent=2), encoding="utf-8")
        partial.replace(folder / FILE_NAME)
    except OSError as error:
        log.warning("cannot remember the choice in %s: %s", folder, error.strerror)
