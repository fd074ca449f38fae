"""What is kept of a result, an event or a state: its dataclass as compressed JSON. Start at `encode` and `decode`.

The body is neutral: it has the names of `fisher_edge.decision.judgement`, not those of a message. What equals its
default is left out.
"""

import json
import math
import numbers
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from fisher_edge.decision.judgement import Change, Judgement, Result, Standing
from fisher_edge.errors import BadInputError, StateError

__all__ = ["Body", "DamagedRowError", "Kind", "decode", "encode", "plain", "rounded", "to_text"]

Kind = Literal["result", "event", "state"]
Body = Result | Change | Standing

# From here on (rates, times since 1970) a value keeps three decimals, which are more than seven digits.
LARGE, HUGE = 1e4, 1e12

ADAPTERS: dict[Kind, TypeAdapter[Any]] = {
    "result": TypeAdapter(Result),
    "event": TypeAdapter(Change),
    "state": TypeAdapter(Standing),
}
JUDGEMENT = TypeAdapter(Judgement)


class DamagedRowError(StateError):
    """The body of one row cannot be read; the others are not concerned."""


def encode(values: Mapping[Kind, Body]) -> dict[Kind, bytes]:
    """Write dataclasses, one of a kind; a number that is not finite is a BadInputError that names its field.

    A judgement that several of them have is written out once, since it is most of the work.
    """
    bodies: dict[Kind, bytes] = {}
    known: dict[int, Any] = {}
    for kind, value in values.items():
        fields = ADAPTERS[kind].dump_python(value, exclude={"judgement"}, exclude_defaults=True, warnings=False)
        fields = plain(fields, kind)
        judgement = value.judgement
        if judgement is not None:
            if id(judgement) not in known:
                found = JUDGEMENT.dump_python(judgement, exclude_defaults=True, warnings=False)
                known[id(judgement)] = plain(found, f"{kind}.judgement")
            fields["judgement"] = known[id(judgement)]
        bodies[kind] = zlib.compress(to_text(fields), 1)
    return bodies


def decode(kind: Kind, body: bytes) -> Any:
    """Read what `encode` wrote, or the same JSON uncompressed; DamagedRowError when it is neither."""
    try:
        text = body if body.startswith(b"{") else zlib.decompress(body)
        return ADAPTERS[kind].validate_json(text)
    except (zlib.error, ValidationError) as error:
        raise DamagedRowError(f"the {kind} cannot be decoded ({str(error).splitlines()[0]})") from error


def plain(value: Any, path: str) -> Any:
    """Return a value as JSON knows it, floats rounded; `path` names it in the error for NaN and infinity."""
    try:
        return _plain(value)
    except UnfitError:
        where, what = next(_unfit(value, path))
        raise BadInputError(f"{where} is {what}, which has no JSON form; give None where there is no value") from None


def rounded(value: float) -> float:
    """Round to seven significant digits, large values to three decimals; UnfitError when it is not finite."""
    if -LARGE < value < LARGE:
        return float(f"{value:.7g}")
    if not math.isfinite(value):
        raise UnfitError
    return round(value, 3) if abs(value) < HUGE else float(f"{value:.7g}")


def to_text(fields: Any) -> bytes:
    """Write plain values as compact UTF-8 JSON; what is no Unicode, as in some file names, becomes a question mark."""
    try:
        return to_json(fields)
    except PydanticSerializationError:
        text = json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


class UnfitError(Exception):
    """A value has no JSON form."""


def _plain(value: Any) -> Any:
    """Do what `plain` does, without keeping track of where the value stands: it runs for every number of a row."""
    if isinstance(value, float):
        return rounded(value)
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, dict):
        return {name: rounded(item) if type(item) is float else _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return rounded(float(value))
    raise UnfitError


def _unfit(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Find what has no JSON form: where it stands and what it is."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _unfit(item, f"{path}.{name}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _unfit(item, f"{path}[{index}]")
    elif isinstance(value, numbers.Real):
        if not math.isfinite(value):
            yield path, str(value)
    elif value is not None and not isinstance(value, str):
        yield path, f"a {type(value).__name__}"
