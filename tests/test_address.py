"""Broker addresses and the check of a broker."""

import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from mosquitto import HOST, Mosquitto, free_port

from fisher_edge.errors import BrokerError, UsageError
from fisher_edge.publish import BrokerAddress, check_broker


@pytest.mark.parametrize(
    ("url", "host", "port", "user", "password"),
    [
        ("mqtt://broker", "broker", 1883, None, None),
        ("mqtts://broker", "broker", 8883, None, None),
        ("MQTT://broker:2883/", "broker", 2883, None, None),
        ("mqtt://edge@broker", "broker", 1883, "edge", None),
        ("mqtt://edge:s%40c%2Fret@broker:1", "broker", 1, "edge", "s@c/ret"),
        ("mqtt://[::1]:1884", "::1", 1884, None, None),
    ],
)
def test_parse_reads_the_parts(url: str, host: str, port: int, user: str | None, password: str | None) -> None:
    """Scheme, host, port and login are read, with the usual ports as defaults."""
    address = BrokerAddress.parse(url)
    assert (address.host, address.port, address.user, address.password) == (host, port, user, password)
    assert address.tls == url.startswith("mqtts")


def test_text_of_an_address_shows_no_secret() -> None:
    """Neither form of text has the password; IPv6 hosts keep their brackets."""
    address = BrokerAddress.parse("mqtt://edge:s3cret@[::1]")
    assert str(address) == "mqtt://[::1]:1883"
    assert "s3cret" not in repr(address)


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("broker:1883", "scheme"),
        ("http://broker", "scheme 'http'"),
        ("mqtt://", "no host"),
        ("mqtt://:1883", "no host"),
        ("mqtt://broker:99999", "port"),
        ("mqtt://broker:0", "port"),
        ("mqtt://edge:s3cret", "port"),
        ("mqtt://edge:s3cret/x@broker", "port"),
        ("mqtt://edge:s3cret@broker/path", "goes on after the host"),
        ("mqtt://edge:s3cret#@broker", "port|goes on"),
        ("mqtt://:s3cret@broker", "no user"),
        ("mqtt://[::1", "cannot be read"),
    ],
)
def test_parse_refuses_with_the_form_and_without_the_secret(url: str, wrong: str) -> None:
    """A bad URL is a UsageError that shows what to write and repeats no password."""
    with pytest.raises(UsageError, match=wrong) as caught:
        BrokerAddress.parse(url)
    assert "mqtt://[user[:password]@]host[:port]" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_password_file(tmp_path: Path) -> None:
    """The password may come from a file, whose last line break does not count; mistakes name the file."""
    secret = tmp_path / "secret"
    secret.write_text("pass word \n")
    assert BrokerAddress.parse("mqtt://edge@broker", password_file=secret).password == "pass word "
    with pytest.raises(UsageError, match="twice"):
        BrokerAddress.parse("mqtt://edge:other@broker", password_file=secret)
    with pytest.raises(UsageError, match="no user"):
        BrokerAddress.parse("mqtt://broker", password_file=secret)
    secret.write_text("\n")
    with pytest.raises(UsageError, match=r"secret is empty"):
        BrokerAddress.parse("mqtt://edge@broker", password_file=secret)
    with pytest.raises(UsageError, match=r"missing: No such file"):
        BrokerAddress.parse("mqtt://edge@broker", password_file=tmp_path / "missing")


def test_ca_file_needs_tls_and_must_be_readable(tmp_path: Path) -> None:
    """A CA file goes with mqtts only, and a bad one is named."""
    bad = tmp_path / "ca.pem"
    bad.write_text("not a certificate")
    with pytest.raises(UsageError, match="does not use TLS"):
        BrokerAddress.parse("mqtt://broker", ca_file=bad)
    with pytest.raises(UsageError, match="cannot use ca_file"):
        BrokerAddress.parse("mqtts://broker", ca_file=bad)
    with pytest.raises(UsageError, match="No such file"):
        BrokerAddress.parse("mqtts://broker", ca_file=tmp_path / "missing")


def test_check_broker_accepts_a_broker(mosquitto: Mosquitto) -> None:
    """A broker that lets us in passes."""
    check_broker(BrokerAddress.parse(mosquitto.url), "check")


def test_check_broker_names_what_is_wrong() -> None:
    """No listener, no such host and a listener that is no broker have an error each."""
    with pytest.raises(BrokerError, match=r"connection refused by .* is the broker running"):
        check_broker(BrokerAddress.parse(f"mqtt://{HOST}:{free_port()}"), "check")
    with pytest.raises(BrokerError, match=r"cannot resolve the host of mqtt://no-such-host\.invalid:1883"):
        check_broker(BrokerAddress.parse("mqtt://no-such-host.invalid"), "check")
    with socket.create_server((HOST, 0)) as silent:
        address = BrokerAddress.parse(f"mqtt://{HOST}:{silent.getsockname()[1]}")
        with pytest.raises(BrokerError, match=r"no answer to CONNECT from .* in 0\.2 s"):
            check_broker(address, "check", timeout_s=0.2)


def test_check_broker_of_a_server_that_hangs_up() -> None:
    """A server that closes the connection is no MQTT broker, or one with TLS."""
    with socket.create_server((HOST, 0)) as server:

        def hang_up() -> None:
            connection, _ = server.accept()
            connection.recv(1)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(BrokerError, match="closed the connection without an answer: is it an MQTT"):
            check_broker(BrokerAddress.parse(f"mqtt://{HOST}:{server.getsockname()[1]}"), "check")
        thread.join()


def test_tls_with_a_private_ca(new_mosquitto: Callable[..., Mosquitto], tmp_path: Path) -> None:
    """A certificate of the plant's own CA is accepted with ca_file and refused, with that advice, without."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    mosquitto = new_mosquitto(f"certfile {certificate}\nkeyfile {key}\n").start()
    url = mosquitto.url.replace("mqtt:", "mqtts:")
    check_broker(BrokerAddress.parse(url, ca_file=certificate), "check")
    with pytest.raises(BrokerError, match=r"certificate of mqtts://.* is not trusted .*ca_file"):
        check_broker(BrokerAddress.parse(url), "check")
    with pytest.raises(BrokerError, match="closed the connection without an answer"):
        check_broker(BrokerAddress.parse(mosquitto.url), "check")
