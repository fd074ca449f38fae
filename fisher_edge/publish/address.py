"""Where the broker is and how to log in there. Start at `BrokerAddress.parse`; no text ever shows a secret."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from fisher_edge.errors import UsageError

__all__ = ["BrokerAddress"]

PORTS = {"mqtt": 1883, "mqtts": 8883}
FORM = "mqtt://[user[:password]@]host[:port], with mqtts:// for TLS"


@dataclass(frozen=True)
class BrokerAddress:
    """Host, port, TLS and login of a broker; `str()` and `repr()` are safe to show."""

    host: str
    port: int
    tls: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None

    @classmethod
    def parse(cls, url: str, *, password_file: Path | None = None, ca_file: Path | None = None) -> "BrokerAddress":
        """Read a broker URL; what is wrong with it or with the two files is a UsageError."""
        parts = _split(url)
        scheme = parts.scheme.lower()
        if scheme not in PORTS:
            raise UsageError(f"broker URL has the scheme {scheme!r}, not mqtt or mqtts; write {FORM}")
        if not parts.hostname:
            raise UsageError(f"broker URL names no host; write {FORM}")
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise UsageError(
                f"broker URL goes on after the host; write {FORM}, and in user and password %2F for / , %23 for # ,"
                " %3F for ? and %40 for @"
            )
        address = cls(
            host=parts.hostname,
            port=_port(parts, PORTS[scheme]),
            tls=scheme == "mqtts",
            user=unquote(parts.username) if parts.username else None,
            password=_password(parts, password_file),
            ca_file=ca_file,
        )
        address.check()
        return address

    def check(self) -> None:
        """Raise a UsageError for parts that do not go together."""
        if self.password is not None and self.user is None:
            raise UsageError(f"broker {self} has a password but no user; MQTT needs both: write {FORM}")
        if self.ca_file is not None and not self.tls:
            raise UsageError(f"ca_file is given but {self} does not use TLS; write mqtts:// or remove ca_file")
        self.tls_context()

    def tls_context(self) -> ssl.SSLContext | None:
        """Return what checks the broker's certificate, None without TLS."""
        if not self.tls:
            return None
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise UsageError(
                f"cannot use ca_file {self.ca_file}: {error.strerror or error}; it must be a readable PEM file"
            ) from error

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def _split(url: str) -> SplitResult:
    """Take a URL apart."""
    try:
        return urlsplit(url.strip())
    except ValueError as error:
        raise UsageError(f"broker URL cannot be read ({error}); write {FORM}") from error


def _port(parts: SplitResult, default: int) -> int:
    """Return the port; its text is not repeated, for it may be part of a password."""
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise UsageError(f"the port in the broker URL is not a number from 1 to 65535; write {FORM}")
    return port or default


def _password(parts: SplitResult, password_file: Path | None) -> str | None:
    """Return the password from the URL or from its file."""
    if password_file is None:
        return unquote(parts.password) if parts.password else None
    if parts.password:
        raise UsageError(f"the broker's password is given twice: remove it from the URL or remove {password_file=!s}")
    try:
        password = password_file.read_text("utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"cannot read {password_file=!s}: {reason}; it holds the broker's password alone") from error
    if not password:
        raise UsageError(f"{password_file=!s} is empty; write the broker's password into it")
    return password
