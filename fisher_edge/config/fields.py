"""What values of the configuration file may be: names, paths, URLs, numbers; and the form of a table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

from fisher_edge.config.redact import redacted
from fisher_edge.errors import BadInputError
from fisher_edge.names import check_name, check_root

__all__ = [
    "BASE_DIR",
    "BundleName",
    "Level",
    "Megabytes",
    "NotNegative",
    "OwnPath",
    "Positive",
    "Root",
    "SecretFile",
    "Table",
    "Url",
    "folder",
]

BASE_DIR = "base_dir"
LONGEST_HOST = 253
LARGEST_SECRET = 1 << 20


def _level(name: str) -> str:
    try:
        return check_name("the", name)
    except BadInputError as error:
        raise ValueError(str(error)) from error


def _root(name: str) -> str:
    try:
        return check_root(name)
    except BadInputError as error:
        raise ValueError(str(error)) from error


def _absolute(path: Path, info: ValidationInfo) -> Path:
    """Let a relative path count from the folder of the file."""
    if "\0" in str(path):
        raise ValueError("no path has a zero byte; correct it")
    return folder(info.context) / path


def _bundle(name: str, info: ValidationInfo) -> str:
    return name if name == "default" else str(folder(info.context) / name)


def folder(context: Any) -> Path:
    """Return the folder of the file; without a file paths stay as they are."""
    return context[BASE_DIR] if context else Path()


def _small_file(path: Path) -> Path:
    """Refuse what is there and cannot be read to its end: a pipe would wait, a device never ends.

    Whether a missing file matters is known only to whoever needs it.
    """
    try:
        if not path.exists() or (path.is_file() and path.stat().st_size <= LARGEST_SECRET):
            return path
    except OSError:  # a folder that this user may not enter
        return path
    raise ValueError(f"{path} is not a small file; give the path of a text file")


def _url(url: str) -> str:
    """Refuse a host that no name server takes; everything else about the URL is found where it is used."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return url
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ValueError("a part of the host's name is empty or longer than 63 letters; correct the URL") from error
    if len(host) > LONGEST_HOST:
        raise ValueError(f"the host's name is longer than {LONGEST_HOST} letters; correct the URL")
    return url


Level = Annotated[str, AfterValidator(_level)]
Root = Annotated[str, AfterValidator(_root)]
Url = Annotated[str, AfterValidator(_url)]
BundleName = Annotated[str, AfterValidator(_bundle)]
OwnPath = Annotated[Path, AfterValidator(_absolute)]
SecretFile = Annotated[OwnPath, AfterValidator(_small_file)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Megabytes = Annotated[float, Field(ge=1)]


class Table(BaseModel):
    """A table of the file: unknown keys are errors, values do not change, no text shows a secret."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, redacted(value, name or "")
