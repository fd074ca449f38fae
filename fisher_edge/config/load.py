"""From a file to a checked configuration. See `load_config`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fisher_edge.config.errors import joined, phrases, place
from fisher_edge.config.fields import BASE_DIR
from fisher_edge.config.plugins import checked_keys, keys_of, source_function
from fisher_edge.config.schema import STATE_DIR, TABLES, Config
from fisher_edge.errors import MissingExtraError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:  # the standard library has the same module from 3.11 on
    import tomli as tomllib

__all__ = ["load_config", "source_mistakes"]

MAX_BYTES = 1 << 20
KEYS = {name: tuple(model.model_fields) for name, model in TABLES.items()}


def load_config(path: Path) -> Config:
    """Read and check a configuration file; relative paths in it count from its folder.

    Raises UsageError with one line that lists the mistakes: file, table, key and what to write. Raises
    MissingExtraError when the file is right and a source needs packages that are not installed.
    """
    tables = _parsed(path)
    mistakes: list[str] = []
    missing: list[MissingExtraError] = []
    config = None
    try:
        text = json.dumps(tables, default=str)
        context = {BASE_DIR: path.resolve().parent}
        config = Config.model_validate_json(text, strict=True, context=context)
    except ValidationError as error:
        mistakes += phrases(error, KEYS)
    except (ValueError, RecursionError) as error:  # numbers and nesting beyond all measure
        raise UsageError(f"{path} cannot be read: {error}; correct it") from error
    for where, source in _sources(tables):
        try:
            mistakes += source_mistakes(source, where)
        except MissingExtraError as error:
            missing.append(error)
    if mistakes:
        raise UsageError(f"{path}: {joined(mistakes)}")
    if missing:
        raise missing[0]
    assert config is not None  # a file without mistakes has been validated
    return config


def source_mistakes(source: dict[str, Any], where: tuple[int | str, ...] = ("source",)) -> list[str]:
    """Say what is wrong with the table of a source, by the function that its type stands for.

    Raises MissingExtraError when packages of an extra are needed to know.
    """
    kind, options = source["type"], {key: value for key, value in source.items() if key != "type"}
    try:
        function = source_function(kind)
        checked_keys(function, options)
    except ValidationError as error:
        return phrases(error, {"source": keys_of(function)}, where)
    except UsageError as error:
        return [f"{place(where)}, type = {kind!r}: {error}"]
    return []


def _sources(tables: dict[str, Any]) -> Iterator[tuple[tuple[int | str, ...], dict[str, Any]]]:
    """Yield the tables of sources that name a type, with their places, whatever else is wrong in the file."""
    channels = tables.get("channel")
    for number, channel in enumerate(channels if isinstance(channels, list) else []):
        source = channel.get("source") if isinstance(channel, dict) else None
        if isinstance(source, dict) and isinstance(source.get("type"), str):
            yield ("channel", number, "source"), source


def _parsed(path: Path) -> dict[str, Any]:
    """Read the tables of a file."""
    try:
        tables = tomllib.loads(_content(path).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}; save it as UTF-8") from error
    except (ValueError, RecursionError) as error:  # of the parser: bad TOML, endless numbers or nesting
        raise UsageError(f"{path} is not valid TOML: {error}; correct that place") from error
    gateway = tables.setdefault("gateway", {})
    if isinstance(gateway, dict):
        gateway.setdefault("state_dir", STATE_DIR)  # so that it counts from the folder of the file
    return tables


def _content(path: Path) -> bytes:
    """Read a file that is small and has an end: opening a pipe would wait, a device would never end."""
    try:
        if path.exists() and not path.is_dir() and not path.is_file():
            raise UsageError(f"cannot read the configuration {path}: it is a pipe or a device; give a file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror}; check the path") from error
    if len(content) > MAX_BYTES:
        raise UsageError(f"{path} has more than {MAX_BYTES} bytes, too many for a configuration; check the path")
    return content
