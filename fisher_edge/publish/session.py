"""One connection to the broker, from CONNECT to its loss. Start at `Session.open`.

The network loop runs in the caller's thread, so that nothing can fail unseen, and a session is never used again:
whatever paho had queued dies with it, and the outbox remains the only queue.
"""

import logging
import socket
import ssl
import time
from collections import deque
from collections.abc import Collection
from typing import Any

from paho.mqtt.client import MQTT_ERR_SUCCESS, Client, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from fisher_edge.errors import BrokerError
from fisher_edge.publish.address import BrokerAddress
from fisher_edge.publish.message import OFFLINE

__all__ = ["ConnectionClosedError", "CredentialsRefusedError", "Session", "check_broker"]

KEEPALIVE_S = 30
# Time for the TCP connection and the TLS handshake, and again for the broker's answer to CONNECT.
CONNECT_S = 5.0

LOGIN_REFUSED = {"Bad user name or password", "Not authorized"}
# Messages that may wait to be taken by `received`; later ones are more recent, and count.
MOST_RECEIVED = 1000

log = logging.getLogger(__name__)


class CredentialsRefusedError(BrokerError):
    """The broker answered and does not let us in: trying again soon is of no use."""


class ConnectionClosedError(BrokerError):
    """The broker or the network closed a connection that the broker had accepted."""


class Session:
    """A connection to the broker that its owner's thread drives with `run`.

    With `will_topic` the broker publishes `offline` there, retained, when the connection is lost. Every method that
    talks to the broker raises a BrokerError when the connection fails; exceptions in callbacks come through.
    """

    def __init__(self, address: BrokerAddress, client_id: str, will_topic: str | None = None) -> None:
        self.address = address
        self._answer: ReasonCode | None = None
        self._loss: str | None = None
        self._acknowledged: list[int] = []
        self._received: deque[tuple[str, bytes]] = deque(maxlen=MOST_RECEIVED)
        self._client = self._new_client(client_id, will_topic)

    def open(self, timeout_s: float = CONNECT_S) -> None:
        """Connect and wait for the broker's consent."""
        try:
            self._client.connect_timeout = timeout_s
            self._client.connect(self.address.host, self.address.port, KEEPALIVE_S)
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot be one
            raise BrokerError(_why_not_connected(self.address, error, timeout_s)) from error
        self._without_delay()
        deadline_s = time.monotonic() + timeout_s
        while self._answer is None:
            code = self._client.loop(max(0.0, deadline_s - time.monotonic()))
            if self._answer is None and code != MQTT_ERR_SUCCESS:
                raise BrokerError(
                    f"{self.address} closed the connection without an answer: is it an MQTT 3.1.1 broker,"
                    f" and does this port {'' if self.address.tls else 'not '}use TLS?"
                )
            if self._answer is None and time.monotonic() > deadline_s:
                raise BrokerError(f"no answer to CONNECT from {self.address} in {timeout_s:g} s: is it a broker?")
        self._refuse_refusal(self._answer)

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> int:
        """Send a message with QoS 1 and return the number that `run` gives back when the broker has it."""
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        if info.rc != MQTT_ERR_SUCCESS:
            raise self._lost()
        return info.mid

    def run(self, timeout_s: float) -> list[int]:
        """Move data for up to `timeout_s`, less when something happens; return what was acknowledged."""
        code = self._client.loop(timeout_s)
        acknowledged, self._acknowledged = self._acknowledged, []
        if code != MQTT_ERR_SUCCESS and not acknowledged:  # else the next call finds the connection closed
            raise self._lost()
        return acknowledged

    def subscribe(self, topics: Collection[str]) -> None:
        """Ask for messages of topics with QoS 1; a refusal is logged."""
        if topics and self._client.subscribe([(topic, 1) for topic in topics])[0] != MQTT_ERR_SUCCESS:
            raise self._lost()

    def received(self) -> list[tuple[str, bytes]]:
        """Return topic and payload of what has come since the last call, in order."""
        messages = [*self._received]
        self._received.clear()
        return messages

    def disconnect(self) -> None:
        """Say goodbye, so that the broker does not publish the last will."""
        self._client.disconnect()

    def close(self) -> None:
        """Drop the connection and everything paho still holds."""
        client = self._client
        client.on_connect = client.on_publish = client.on_disconnect = client.on_message = client.on_subscribe = None
        connection = client.socket()
        if connection is not None:
            connection.close()

    def _new_client(self, client_id: str, will_topic: str | None) -> Client:
        """Build a client that has not connected yet."""
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=True,
            protocol=MQTTv311,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages_set(0)  # the sender bounds them; paho must not queue
        if self.address.user is not None:
            client.username_pw_set(self.address.user, self.address.password)
        context = self.address.tls_context()
        if context is not None:
            context.sslsocket_class = _ClosingSocket
            client.tls_set_context(context)
        if will_topic is not None:
            client.will_set(will_topic, OFFLINE, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        return client

    def _without_delay(self) -> None:
        """Send small messages at once instead of waiting for the acknowledgement of those before."""
        connection = self._client.socket()
        if isinstance(connection, socket.socket):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _refuse_refusal(self, answer: ReasonCode) -> None:
        """Raise unless the broker has accepted the connection."""
        if not answer.is_failure:
            return
        reason = str(answer)
        if reason in LOGIN_REFUSED:
            who = f"user {self.address.user!r}" if self.address.user else "a client without user and password"
            raise CredentialsRefusedError(
                f"{self.address} refused the credentials of {who} ({reason.lower()}): correct user and password"
            )
        raise BrokerError(f"{self.address} refused the connection ({reason.lower()})")

    def _lost(self) -> BrokerError:
        """Say how the connection ended."""
        if self._loss == "Keep alive timeout":
            return BrokerError(f"{self.address} has fallen silent: no answer to a ping in {KEEPALIVE_S} s")
        return ConnectionClosedError(f"connection to {self.address} lost: the broker or the network closed it")

    def _on_connect(self, _client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        self._answer = reason

    def _on_publish(self, _client: Client, _data: Any, mid: int, _reason: ReasonCode, _properties: Any) -> None:
        self._acknowledged.append(mid)

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self._received.append((message.topic, bytes(message.payload)))

    def _on_subscribe(
        self, _client: Client, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            log.warning("%s refuses a subscription: may this client read the topics of operating_state?", self.address)

    def _on_disconnect(self, _client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        self._loss = str(reason)


class _ClosingSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails, where paho only forgets it."""

    def do_handshake(self, block: bool = False) -> None:
        """Do the handshake."""
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def check_broker(address: BrokerAddress, client_id: str, timeout_s: float = CONNECT_S) -> None:
    """Connect once and disconnect; a BrokerError says in one line why that is not possible."""
    session = Session(address, client_id)
    try:
        session.open(timeout_s)
        session.disconnect()
    finally:
        session.close()


def _why_not_connected(address: BrokerAddress, error: OSError | UnicodeError, timeout_s: float) -> str:
    """Say why there is no connection, and what to look at."""
    match error:
        case UnicodeError():
            text = f"the host of {address} is not a host name ({error}); correct the URL"
        case ConnectionRefusedError():
            text = f"connection refused by {address}: is the broker running?"
        case socket.gaierror():
            text = f"cannot resolve the host of {address}: {error.strerror}; check the name and the DNS"
        case TimeoutError():
            text = f"no answer from {address} in {timeout_s:g} s: is the host up, is a firewall in between?"
        case ssl.SSLCertVerificationError():
            text = f"certificate of {address} is not trusted ({error.verify_message}): give its CA with ca_file"
        case ssl.SSLError():
            text = f"TLS with {address} failed ({error.reason or error}): does this port use TLS?"
        case _:
            text = f"cannot connect to {address} ({getattr(error, 'strerror', None) or error}): is the network up?"
    return text
