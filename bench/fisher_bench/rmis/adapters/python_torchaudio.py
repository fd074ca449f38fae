"""The Python parts of torchaudio, whether or not its compiled part fits the installed PyTorch. Start at `load`."""

import sys
from importlib import import_module
from types import ModuleType

__all__ = ["load"]

EXTENSION = "torchaudio._extension"


def load() -> None:
    """Import torchaudio; to be called before anything that imports it: speechbrain, dasheng, parts of transformers.

    The package index has torchaudio only as built for CUDA, and its compiled part does not load with a PyTorch
    for the CPU. Filter banks and spectrograms are plain Python on top of PyTorch and do not need it, so a placeholder
    that says it is not available takes the place of the module that loads it.
    """
    try:
        import_module("torchaudio")
    except OSError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        sys.modules[EXTENSION] = _placeholder()
        import_module("torchaudio")


def _placeholder() -> ModuleType:
    module = ModuleType(EXTENSION)
    vars(module).update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False, _IS_ALIGN_AVAILABLE=False, fail_if_no_align=lambda function: function
    )
    return module
