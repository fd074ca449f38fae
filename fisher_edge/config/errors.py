"""What is wrong with a configuration, in plain words: the place in the file, the value, and what to write instead."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ValidationError

from fisher_edge.config.redact import redacted

__all__ = ["joined", "phrases", "place"]

Location = tuple[int | str, ...]

MOST_LISTED = 5
LONGEST_VALUE = 60
# What pydantic calls a mistake, and what a plant engineer calls it.
TEXTS = {
    "bool_type": "must be true or false, without quotes",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be {ge} or more",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be {le} or less",
    "list_type": "must be a list, [ ... ]",
    "literal_error": "must be one of {expected}",
    "path_type": "must be a path in quotes",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "string_type": "must be text in quotes",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entries",
    "tuple_type": "must be a list, [ ... ]",
}
NUMBERS = {"float_type", "int_type"}
EMPTY = {"string_too_short", "too_short"}
TABLES = {"dict_type", "model_type", "model_attributes_type"}
# Where what belongs into the URL of the broker is often written instead.
IN_URL = {
    'write the user into url = "mqtt://USER@HOST:1883"': ("user", "username", "login"),
    "write the password into a file, and its path into password_file": ("password", "passwd"),
    'write host and port into url = "mqtt://HOST:1883"': ("host", "hostname", "broker", "server", "address", "port"),
    'write url = "mqtts://HOST:8883"': ("tls", "ssl"),
}
HINTS = {"mqtt": {key: hint for hint, keys in IN_URL.items() for key in keys}}


def joined(mistakes: list[str]) -> str:
    """Put several mistakes into one line, whatever the keys and texts of others hold."""
    more = len(mistakes) - MOST_LISTED
    text = "; ".join(mistakes[:MOST_LISTED]) + (f"; and {more} more" if more > 0 else "")
    return " ".join(text.splitlines())


def phrases(error: ValidationError, keys: Mapping[str, Collection[str]], inside: Location = ()) -> list[str]:
    """Say for each mistake what is wrong and what to write; misspelt keys come first.

    `keys` are the known keys of each table ("" is the file itself), `inside` is where the checked table stands.
    """
    found: list[Any] = error.errors(include_url=False)
    # A list is also blamed for every wrong entry that it had to leave out.
    blamed = {mistake["loc"][:length] for mistake in found for length in range(len(mistake["loc"]))}
    own = [mistake for mistake in found if mistake["loc"] not in blamed or not mistake["loc"]]
    own.sort(key=lambda mistake: mistake["type"] != "extra_forbidden")
    return [_phrase(mistake, (*inside, *mistake["loc"]), keys) for mistake in own]


def place(location: Location) -> str:
    """Name a place in the file the way it is written: [[channel]] 2, source, rate_hz."""
    parts: list[str] = []
    for part in location:
        if isinstance(part, str):
            parts.append(part if parts or part == "source" else f"[{part}]")
        else:
            parts[-1] = f"[{parts[-1]}] {part + 1}" if parts[-1].startswith("[") else f"{parts[-1]} {part + 1}"
    return ", ".join(parts)


def _phrase(mistake: Any, location: Location, keys: Mapping[str, Collection[str]]) -> str:
    """Say what is wrong at one place."""
    kind, where = mistake["type"], place(location)
    if kind == "extra_forbidden":
        return _unknown_key(location, keys)
    if location == ("channel",):
        return _no_channels(kind)
    if kind == "missing":
        return f"{where} is missing; add it"
    if kind in TABLES:
        return f"{where} must be one table with its keys, not {_kind(mistake['input'])}"
    if kind == "json_invalid":  # the one way in which what was TOML is no JSON
        return f"{where or 'the file'} has lists and tables nested too deep; write fewer levels"
    return _wrong_value(mistake, where, _key(location))


def _wrong_value(mistake: Any, where: str, key: str) -> str:
    """Say what a value must be."""
    kind, value, context = mistake["type"], mistake["input"], mistake.get("ctx", {})
    if kind == "value_error":
        text = mistake["msg"].removeprefix("Value error, ")
        return f"{where}: {text}" if where else text
    limits = {name: f"{limit:g}" if isinstance(limit, float) else limit for name, limit in context.items()}
    text = TEXTS[kind].format(**limits) if kind in TEXTS else mistake["msg"].lower()
    if kind in EMPTY and limits.get("min_length") == 1:
        text = "must not be empty"
    if kind in NUMBERS and isinstance(value, str):
        text += ", without quotes"
    return f"{where} = {_shown(value, key)}: {text}"


def _unknown_key(location: Location, keys: Mapping[str, Collection[str]]) -> str:
    """Say what was probably meant by a key."""
    *table, key = location
    name = _key(tuple(table))
    known = sorted(keys.get(name, ()))
    near = difflib.get_close_matches(str(key), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    hint = HINTS.get(name, {}).get(str(key), hint)
    return f"unknown key {key!r} in {place(tuple(table)) or 'the file'}; {hint}"


def _no_channels(kind: str) -> str:
    """Say how channels are written."""
    if kind == "tuple_type":
        return "channel must be written [[channel]], with two brackets, once for each sensor"
    return "there is no channel; add a table [[channel]] for each sensor"


def _key(location: Location) -> str:
    """Last key on the way to a place, without the numbers of entries."""
    return next((part for part in reversed(location) if isinstance(part, str)), "")


def _kind(value: Any) -> str:
    """Name the type of a value as TOML does; the value itself may be secret."""
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a table"}
    return kinds.get(type(value), type(value).__name__)


def _shown(value: Any, key: str) -> str:
    """Show a value of the file, shortened and without secrets."""
    text = repr(redacted(value, key))
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."
