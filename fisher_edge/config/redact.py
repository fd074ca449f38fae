"""Hide secrets in values of the configuration before anybody sees them. See `redacted`."""

import re
from typing import Any

__all__ = ["redacted"]

HIDDEN = "***"
# Words in the name of a key that say its value is a secret. The path of a file that holds one is no secret.
SECRET = re.compile(
    r"pass(word|wd|phrase|code)|(^|[_-])(pass|pw|pwd)($|[_-])|secret|token|credential|key|auth", re.IGNORECASE
)
PATH = re.compile(r"[_-](file|path|dir)$", re.IGNORECASE)
# What stands between the user and the last @ of a URL, with or without a scheme.
PASSWORD = re.compile(r"(//[^/:@]*|^(?!.*//)[^/:@]*):.*@", re.DOTALL)
PARAMETER = re.compile(rf"([?&;][^=&;]*(?:{SECRET.pattern})[^=&;]*=)[^&;]*", re.IGNORECASE)


def redacted(value: Any, key: str = "") -> Any:
    """Return a value of the file as it may be shown: secrets by the name of their key, and passwords in URLs, are ***.

    Tables and lists are searched too.
    """
    if SECRET.search(key) and not PATH.search(key):
        return HIDDEN
    if isinstance(value, str):
        return PARAMETER.sub(rf"\1{HIDDEN}", PASSWORD.sub(rf"\1:{HIDDEN}@", value))
    if isinstance(value, dict):
        return {name: redacted(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(redacted(inner, key) for inner in value)
    return value
