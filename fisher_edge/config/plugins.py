"""Types of sources: each is a function behind an entry point, and its parameters are the keys of its table.

The group is `fisher_edge.sources`. A function takes the context of the channel, and by keyword the keys of the table:
`open_ramp(context: SourceContext, *, rate_hz: float, step: float = 1.0) -> Source`. The annotations say what a key may
be; `Annotated[float, Field(gt=0, description="...")]` adds limits and the text that editors show. See `checked_keys`.
"""

import difflib
import inspect
import json
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import NotRequired, TypedDict

from fisher_edge.errors import MissingExtraError, UsageError

__all__ = ["SOURCES_GROUP", "checked_keys", "keys_of", "keys_schema", "source_function", "source_types"]

SOURCES_GROUP = "fisher_edge.sources"
OWN_PACKAGE = "fisher-edge"
NEW_TABLE: Any = TypedDict  # type checkers want to know the fields


def source_types() -> dict[str, EntryPoint]:
    """Return the installed types of sources by their name."""
    return {entry.name: entry for entry in sorted(entry_points(group=SOURCES_GROUP), key=lambda entry: entry.name)}


def source_function(name: str) -> Callable[..., Any]:
    """Return the function that opens sources of a type.

    Raises UsageError for a type that is not installed or cannot be imported, MissingExtraError when only packages of
    an extra of fisher-edge are missing.
    """
    known = source_types()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(
            f"no installed package brings this type; {hint}known types: {', '.join(map(_with_extra, known.values()))}"
        )
    entry = known[name]
    try:
        function: Callable[..., Any] = entry.load()
    except ModuleNotFoundError as error:
        raise _missing(entry, str(error.name)) from error
    except Exception as error:  # whatever the module of another package raises while it is imported
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(f"{name!r} cannot be used: {entry.module} failed to load ({reason}); repair it") from error
    if len(_parameters(function, inspect.Parameter.POSITIONAL_OR_KEYWORD)) != 1:
        raise UsageError(
            f"{name!r} cannot be used: {entry.module} does not take (context, *, keys ...); install a version of it "
            "for this release"
        )
    return function


def keys_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the keys that the table of a source may have besides `type`."""
    return tuple(_parameters(function, inspect.Parameter.KEYWORD_ONLY))


def checked_keys(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a source's table as the function takes them; raises pydantic's ValidationError.

    Values are taken as strictly as in JSON: text is no number, a list becomes a tuple, text becomes a path.
    """
    keys: dict[str, Any] = _adapter(function).validate_json(json.dumps(options, default=str), strict=True)
    return keys


def keys_schema(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the JSON schema of the keys of a source: their properties, and which are required."""
    schema = _adapter(function).json_schema()
    properties: dict[str, Any] = schema.get("properties", {})
    for name, parameter in _parameters(function, inspect.Parameter.KEYWORD_ONLY).items():
        if isinstance(parameter.default, str | int | float):
            properties[name]["default"] = parameter.default
    return {"properties": properties, "required": schema.get("required", [])}


def _adapter(function: Callable[..., Any]) -> TypeAdapter[Any]:
    """Return what checks the keys of a function: a table of its keyword parameters."""
    hints = get_type_hints(function, include_extras=True)
    fields = {}
    for name, parameter in _parameters(function, inspect.Parameter.KEYWORD_ONLY).items():
        hint = hints.get(name, Any)
        fields[name] = hint if parameter.default is inspect.Parameter.empty else NotRequired[hint]
    table = NEW_TABLE("Keys", fields)
    table.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)
    return TypeAdapter(table)


def _parameters(function: Callable[..., Any], kind: Any) -> dict[str, inspect.Parameter]:
    return {name: found for name, found in inspect.signature(function).parameters.items() if found.kind == kind}


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else OWN_PACKAGE


def _with_extra(entry: EntryPoint) -> str:
    """Name a type with what brings it: serial (fisher-edge[bridge])."""
    return f"{entry.name} ({_package(entry)}[{','.join(entry.extras)}])" if entry.extras else entry.name


def _missing(entry: EntryPoint, module: str) -> MissingExtraError | UsageError:
    """Say how to get a module that a type of source imports."""
    if entry.extras and _package(entry) == OWN_PACKAGE:
        return MissingExtraError(module, entry.extras[0])
    wanted = f"run: pip install '{_package(entry)}[{entry.extras[0]}]'" if entry.extras else "install it"
    return UsageError(f"{entry.name!r} needs the package {module}; {wanted}")
